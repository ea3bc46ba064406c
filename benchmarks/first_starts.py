"""Kills, full disks and races over the first start of each store; kills at named points of a lap. `python benchmarks/first_starts.py`.

Kills and disks: the ledger, MLflow's store, Prefect's database, and the upgrade of an MLflow store that has history, with a
template in the cache and without, each started in a process that is killed (-9) after a time drawn over its length, or on a disk
of a drawn size that is enlarged afterwards (needs the right to mount; Linux). Races: 8 processes at once on a new project.
Lap: `windvane train` on a small table, killed at one of the named points of register, judge and promote, and run again.
The next start must work, with nothing lost, half-made or left behind. Tables say what was killed where; the exit status is 1
after a violation. Each finished cell is kept (--kept FILE, JSON lines) with the commit and a hash of the code that it measures:
a second call goes on, and does again what changed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import kills as laps_killed
from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from windvane.ledger import failpoints, sqlite_files

ROOT = Path(__file__).parent.parent
STORES = ("ledger", "mlflow", "prefect", "upgrade")
POINTS: Mapping[str, tuple[str, ...]] = {
    "register": (
        "register: begin",
        "register: model stored",
        "register: facts stored",
        "register: in MLflow",
        "register: in the ledger",
        "register: challenger",
    ),
    "judge": (
        "judge: begin",
        "judge: compared",
        "judge: remembered",
        "judge: decided",
        "judge: in the ledger",
        "judge: told",
    ),
    "promote": (
        "promote: before commit",
        "promote: begin",
        "promote: champion",
        "promote: aliases",
        "promote: recorded",
    ),
}
# What a cell measures: the stores, and for the lap all that registers, judges and promotes too.
STORE_CODE = (
    "ledger",
    "tasks/stores/mlflow_store.py",
    "tasks/stores/mlflow_client.py",
    "tasks/io.py",
    "tasks/errors.py",
    "flows/orchestration/server.py",
)
LAP_CODE = (
    *STORE_CODE,
    "tasks/stores/mlflow_client.py",
    "flows/model_promotion.py",
    "flows/lap/gate_step.py",
    "flows/lap/run_records.py",
    "flows/steps.py",
    "flows/training.py",
)
PROCESSES = 8
# Migrations behind the newest that the store with history is left at.
BEHIND = 10
RUNS = 25
ROOMY = "96m"


@dataclass(frozen=True)
class Cell:
    """One trial: what was done to whom, how far it had come, and what was wrong afterwards."""

    name: str
    phase: str
    detail: str
    wrong: tuple[str, ...]


class Bench:
    """Where trials happen: a folder, with a template of each store in a cache, and a store with history."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache, self.old = folder / "cache", folder / "old.db"
        self._seconds: dict[tuple[str, bool], float] = {}
        self._number = 0
        _load()
        for store in ("mlflow", "prefect"):
            self._well(store, self.new(store), templates=True)
        _run(lambda: make_old(self.old), None, self.cache)

    def new(self, store: str, parent: Path | None = None) -> Path:
        """A folder for a first start; for an upgrade with the old store in it."""
        self._number += 1
        home = (parent or self.folder) / f"home-{self._number}"
        home.mkdir()
        if store == "upgrade":
            shutil.copyfile(self.old, home / "mlflow.db")
        return home

    def killed(self, store: str, templates: bool, share: float) -> Cell:
        """A first start that is killed after a share of its length, and the next one."""
        home, trace = self.new(store), self.folder / "trace"
        trace.unlink(missing_ok=True)
        if (store, templates) not in self._seconds:
            began = time.monotonic()
            self._well(store, self.new(store), templates)
            self._seconds[store, templates] = time.monotonic() - began
        child = _fork(lambda: start(store, home), trace, self._cache(templates), None)
        after = share * self._seconds[store, templates]
        time.sleep(after)
        done, _ = os.waitpid(child, os.WNOHANG)
        if not done:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        lines = trace.read_text().splitlines() if trace.exists() else []
        phase = "ended before" if done else f"after {lines[-1]!r}" if lines else "before the first step"
        wrong = self._next(store, home, templates)
        shutil.rmtree(home, ignore_errors=True)
        return Cell(f"kill {_called(store, templates)}", phase, f"{after:.2f} s", wrong)

    def full(self, store: str, templates: bool, share: float) -> Cell:
        """A first start on a disk that has a share of the room it needs, and the next one when it has been enlarged."""
        needs = {"ledger": 400, "mlflow": 2200, "prefect": 2400, "upgrade": 3300}[store]
        least = 64 + (self.old.stat().st_size // 1024 if store == "upgrade" else 0)
        size, said = f"{least + int(share * needs)}k", self.folder / "said"
        said.unlink(missing_ok=True)
        with disk(self.folder / "disk", size) as place:
            home = self.new(store, place)
            status = _wait(_fork(lambda: start(store, home), None, self._cache(templates), said))
            text = said.read_text() if said.exists() else ""
            wrong = [] if status == 0 or "disk is full" in text else [f"not said to be full: {text[-300:] or status}"]
            subprocess.run(["mount", "-o", f"remount,size={ROOMY}", place], check=True)
            wrong += self._next(store, home, templates)
        phase = "had room" if status == 0 else "full, and said so" if not wrong else "full"
        return Cell(f"disk {_called(store, templates)}", phase, size, tuple(wrong))

    def race(self, number: int) -> Cell:
        """PROCESSES first starts of all stores at once in one new project."""
        home, templates = self.new("ledger"), number % 10 != 0
        home_said = [self.folder / f"said-{i}" for i in range(PROCESSES)]
        cache = self._cache(templates)

        def all_stores() -> None:
            for store in ("ledger", "mlflow", "prefect"):
                start(store, home)

        for said in home_said:
            said.unlink(missing_ok=True)
        children = [_fork(all_stores, None, cache, said) for said in home_said]
        statuses = [_wait(child) for child in children]
        wrong = [f"{said.read_text()[-300:]}" for said, status in zip(home_said, statuses, strict=True) if status]
        for store in ("ledger", "mlflow", "prefect"):
            wrong += self._faults(store, home)
        names = _rows(home / "mlflow.db", "select count(*) from experiments where name = 'p'")
        wrong += [f"{names} experiments"] if names != [(1,)] else []
        shutil.rmtree(home, ignore_errors=True)
        how = "with templates" if templates else "without templates"
        return Cell(f"race of {PROCESSES}", how, "", tuple(wrong))

    def _cache(self, templates: bool) -> Path:
        if templates:
            return self.cache
        self._number += 1
        return self.folder / f"no-cache-{self._number}"

    def _well(self, store: str, home: Path, templates: bool) -> None:
        wrong = self._next(store, home, templates)
        if wrong:
            raise SystemExit(f"{store}: an undisturbed first start failed: {wrong}")
        shutil.rmtree(home, ignore_errors=True)

    def _next(self, store: str, home: Path, templates: bool) -> tuple[str, ...]:
        """The start after: what is wrong with it, and with what it leaves."""
        said = self.folder / "said"
        said.unlink(missing_ok=True)
        if _wait(_fork(lambda: start(store, home), None, self._cache(templates), said)) != 0:
            return (f"the next start failed: {said.read_text()[-500:] if said.exists() else '?'}",)
        return tuple(self._faults(store, home))

    def _faults(self, store: str, home: Path) -> list[str]:
        path = database(store, home)
        known, wrong = sqlite_files.inspect_database(path), []
        if known is None or known.half_made or any(name.startswith("_alembic_tmp_") for name in known.tables):
            wrong.append("half made")
        if not sqlite_files.is_database_sound(path):
            wrong.append("its integrity check fails")
        if left := [p.name for p in path.parent.glob(".*.part*")]:
            wrong.append(f"left behind: {left}")
        if store == "upgrade":
            # A killed start may have left a run of its own: what counts is that none of the old ones is gone.
            old = set(_rows(self.old, HISTORY))
            kept = (set(_rows(p, HISTORY)) for p in (path, *sqlite_files.list_backups(path)))
            wrong += [] if all(old <= rows for rows in kept) else ["history is gone"]
            wrong += [] if sqlite_files.list_backups(path) else ["no copy was taken"]
        return wrong


HISTORY = (
    "select run_uuid, name, (select count(*) from metrics m where m.run_uuid = r.run_uuid), "
    "(select count(*) from params p where p.run_uuid = r.run_uuid) from runs r"
)


def _called(store: str, templates: bool) -> str:
    return store if templates or store == "ledger" else f"{store} without template"


def database(store: str, home: Path) -> Path:
    """Where a store's file lies."""
    names = {"ledger": "ledger.db", "mlflow": "mlflow.db", "upgrade": "mlflow.db", "prefect": "prefect/prefect.db"}
    return home / names[store]


def start(store: str, home: Path) -> None:
    """Open a store as a command does, and use it once."""
    if store == "ledger":
        from windvane.ledger import database as ledger
        from windvane.ledger import laps

        engine = ledger.connect_ledger(f"sqlite:///{home / 'ledger.db'}")
        laps.find_newest_lap(engine, "p")
    elif store == "prefect":
        from windvane.flows.orchestration import server

        server.prepare_prefect_database(home / "prefect")
        server.complete_prefect_database(home / "prefect")
    else:
        from windvane.tasks.stores.mlflow_client import MlflowTracker

        tracker = MlflowTracker("p", home, None)
        tracker.end(tracker.start("run", "lap", {}))


def make_old(path: Path) -> None:
    """An MLflow store of BEHIND migrations ago, with RUNS runs in it."""
    import sqlalchemy as sa
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    config = utils._get_alembic_config(f"sqlite:///{path}")
    script = ScriptDirectory.from_config(config)
    revisions = [r.revision for r in script.walk_revisions()]
    engine = sa.create_engine(f"sqlite:///{path}")
    utils.InitialBase.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revisions[BEHIND])
    engine.dispose()
    with closing(sqlite3.connect(path)) as db:
        _insert(db, "experiments", experiment_id=7, name="old", artifact_location="/x", lifecycle_stage="active")
        for i in range(RUNS):
            _insert(
                db, "runs", run_uuid=f"run{i}", name="r", experiment_id=7, status="FINISHED", lifecycle_stage="active"
            )
            _insert(db, "metrics", key="mae", value=float(i), timestamp=i, run_uuid=f"run{i}", step=0, is_nan=0)
        db.commit()


def _insert(db: sqlite3.Connection, table: str, **values: object) -> None:
    known = {row[1] for row in db.execute(f"pragma table_info({table})")}
    used = {k: v for k, v in values.items() if k in known}
    marks = ", ".join("?" * len(used))
    db.execute(f"insert into {table} ({', '.join(used)}) values ({marks})", tuple(used.values()))


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def _load() -> None:
    """Import what the stores need once: every first start is a fork of this process."""
    import mlflow.store.db.utils
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    from mlflow import MlflowClient  # noqa: F401

    import windvane.flows.orchestration.server
    import windvane.ledger.laps
    import windvane.tasks.stores.mlflow_client  # noqa: F401


def _fork(work: Callable[[], None], trace: Path | None, cache: Path, said: Path | None) -> int:
    """Run something in a process and group of its own; its id. What it says and raises goes to `said`."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        with suppress(
            PermissionError, ProcessLookupError
        ):  # whoever comes first: a kill may be earlier than the child's own call
            os.setpgid(child, child)
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        os.environ["XDG_CACHE_HOME"] = str(cache)
        failpoints._TRACE = None if trace is None else str(trace)
        out = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        work()
        status = 0
    except BaseException as e:  # noqa: BLE001 - a child says whatever ended it
        from windvane.tasks import errors

        known = errors.explain_disk_error(e, Path("home"))
        print(known or traceback.format_exc() if not hasattr(e, "exit_code") else e, file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _wait(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _run(work: Callable[[], None], trace: Path | None, cache: Path) -> None:
    if _wait(_fork(work, trace, cache, None)) != 0:
        raise SystemExit("the old store could not be made")


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of its own of this size, in memory."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "windvane", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def may_mount() -> bool:
    """Whether this process may mount a disk."""
    with tempfile.TemporaryDirectory() as name:
        try:
            with disk(Path(name) / "d", "64k"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


class Laps:
    """A project with a small table, and laps in it that are killed at named points."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self._lap = folder, url, 0
        laps_killed.prepare(folder)
        params = folder / "params.yaml"
        import yaml

        content = yaml.safe_load(params.read_text())
        content["search"] |= {"trials": 1, "candidates": ["linear"]}
        content["gate"] = {**content.get("gate", {}), "rule": "not_worse", "margin": 0.5}
        params.write_text(yaml.safe_dump(content, sort_keys=False))
        self._grow()
        laps_killed.run(folder, url)

    def killed(self, point: str) -> Cell:
        """A lap on another table, killed at a point, and the lap after it."""
        self._grow()
        env = {**os.environ, "PREFECT_API_URL": self.url, "WINDVANE_FAILPOINT": point}
        done = subprocess.run(laps_killed.TRAIN, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        struck = done.returncode == -signal.SIGKILL
        try:
            said = laps_killed.run(self.folder, self.url)
        except SystemExit as e:
            return Cell(f"lap {point.partition(':')[0]}", point, "", (str(e)[-500:],))
        wrong = [*laps_killed._wrong(self.folder, self.url), *self._differences(str(said["verdict"]))]
        phase = f"after {point!r}" if struck else "not reached"
        return Cell(f"lap {point.partition(':')[0]}", phase, str(said["verdict"]), tuple(wrong))

    def _grow(self) -> None:
        """Another table for every lap: the newest half year, of which a few rows less each time."""
        self._lap += 1
        laps_killed.grow(self.folder, self._lap * 3)

    def _differences(self, verdict: str) -> list[str]:
        home, wrong = self.folder / ".windvane", []
        if verdict not in ("promoted", "refused", "unchanged"):
            wrong.append(f"the next lap ended with {verdict}")
        ledger, store = home / "ledger.db", home / "mlflow.db"
        once = "select fingerprint from versions group by fingerprint having count(*) > 1"
        wrong += ["a fingerprint has two versions"] if _rows(ledger, once) else []
        unjudged = "select version from versions where version not in (select version from judgements)"
        wrong += [f"never judged: {_rows(ledger, unjudged)}"] if _rows(ledger, unjudged) else []
        twice = "select to_version from promotions group by to_version having count(*) > 1"
        wrong += [f"promoted twice: {_rows(ledger, twice)}"] if _rows(ledger, twice) else []
        late = "select to_version from promotions where not told"
        wrong += [f"MLflow was not told of {_rows(ledger, late)}"] if _rows(ledger, late) else []
        last = _rows(ledger, "select to_version from promotions order by id desc limit 1")
        alias = _rows(store, "select version from registered_model_aliases where alias = 'champion'")
        wrong += [f"MLflow says {alias}, the ledger {last}"] if alias != last else []
        known = {row[0] for row in _rows(ledger, "select version from versions")}
        theirs = {row[0] for row in _rows(store, "select version from model_versions")}
        wrong += [f"versions {known} in the ledger, {theirs} in MLflow"] if known != theirs else []
        return wrong


def get_cell(kept: KeptCells, name: str, code: str, work: Callable[[], Cell]) -> Cell:
    """The kept cell of this name, done now if need be."""
    row = kept.get(name, code, lambda: asdict(work()))
    cell = Cell(**{**row, "wrong": tuple(row["wrong"])})
    print(f"  {name}: {cell.phase} {cell.detail} {'; '.join(cell.wrong) or 'ok'}", file=sys.stderr, flush=True)
    return cell


def main() -> int:
    """Print the tables; 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("kills", 200), ("disks", 50), ("rounds", 50), ("failpoints", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "first_starts.jsonl")
    chosen = parser.parse_args()
    kept, cells = KeptCells(chosen.kept), list[Cell]()
    with tempfile.TemporaryDirectory(prefix="first-starts-", ignore_cleanup_errors=True) as name:
        cells += _stores(Path(name), chosen, kept)
        if chosen.failpoints:
            cells += _laps(Path(name), chosen, kept)
    counts = Counter((cell.name, cell.phase) for cell in cells)
    print(f"\nseed {chosen.seed}\n\n| what | phase | cells | violations |\n|---|---|---|---|")
    for (what, phase), count in sorted(counts.items()):
        wrong = sum(bool(c.wrong) for c in cells if (c.name, c.phase) == (what, phase))
        print(f"| {what} | {phase} | {count} | {wrong} |")
    for cell in cells:
        if cell.wrong:
            print(f"violation: {cell.name}, {cell.phase}, {cell.detail}: {'; '.join(cell.wrong)}")
    print(f"\n{len(cells)} cells, {sum(bool(cell.wrong) for cell in cells)} violations")
    return int(any(cell.wrong for cell in cells))


def _stores(folder: Path, chosen: argparse.Namespace, kept: KeptCells) -> list[Cell]:
    code, bench, cells = hash_code(__file__, *STORE_CODE), list[Bench](), list[Cell]()

    def ready() -> Bench:
        if not bench:
            bench.append(Bench(folder))
        return bench[0]

    def drawn(kind: str, i: int) -> tuple[str, bool, float]:
        draw = random.Random(f"{chosen.seed} {kind} {i}")
        return STORES[i % len(STORES)], draw.random() < 0.5, draw.random() * (1.1 if kind == "kill" else 1.0)

    for i in range(chosen.kills):
        store, templates, share = drawn("kill", i)
        cells.append(
            get_cell(
                kept, f"kill {chosen.seed} {i}", code, lambda s=store, t=templates, x=share: ready().killed(s, t, x)
            )
        )
    if chosen.disks and not may_mount():
        print("full disks are left out: this needs the right to mount a tmpfs (root, Linux)", file=sys.stderr)
        chosen.disks = 0
    for i in range(chosen.disks):
        store, templates, share = drawn("disk", i)
        cells.append(
            get_cell(kept, f"disk {chosen.seed} {i}", code, lambda s=store, t=templates, x=share: ready().full(s, t, x))
        )
    cells += [
        get_cell(kept, f"race {chosen.seed} {i}", code, lambda i=i: ready().race(i)) for i in range(chosen.rounds)
    ]
    return cells


def _laps(folder: Path, chosen: argparse.Namespace, kept: KeptCells) -> list[Cell]:
    from windvane.flows.orchestration import server

    code = hash_code(__file__, *LAP_CODE)
    points = [(group, i, points[i % len(points)]) for group, points in POINTS.items() for i in range(chosen.failpoints)]
    if all(kept.has(f"lap {group} {i}", code) for group, i, _ in points):
        return [get_cell(kept, f"lap {group} {i}", code, _not_run) for group, i, _ in points]
    with server.use_prefect_server(folder / "prefect") as prefect:
        prefect.wait()
        laps = Laps(folder / "project", prefect.url)
        return [get_cell(kept, f"lap {group} {i}", code, lambda p=point: laps.killed(p)) for group, i, point in points]


def _not_run() -> Cell:
    raise AssertionError("every cell is kept: none is run")


if __name__ == "__main__":
    sys.exit(main())
