"""The three DVC stages as steps of a lap: each runs only if DVC says that it must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from windvane.flows.lap import Lap, nothing_new
from windvane.flows.outcome import Outcome
from windvane.flows.project import Project
from windvane.ledger import versions
from windvane.tasks import contract, contract_template, digest, findings, privacy, raw, tables, template, versioning
from windvane.tasks import ingest as ingesting
from windvane.tasks import split as splitting
from windvane.tasks import validate as validating
from windvane.tasks.digest import ACCEPTED, DIGEST
from windvane.tasks.errors import InputError
from windvane.tasks.places import DATA
from windvane.tasks.profile import TABLE, Profile, read, require
from windvane.tasks.settings import Settings
from windvane.tasks.tables import read_cache, read_record, write_json

TAUGHT = DATA / "taught_until.json"
PROFILE = DATA / "profile.json"


def ingest(lap: Lap) -> None:
    """Source -> table.parquet. Where rows of production joined the source's, how many there are together is said."""
    ran, root = _run(lap, "ingest", ingesting.run), lap.project.root
    if ran and raw.labelled_rows(root):
        import polars as pl

        rows = int(tables.scan(root / TABLE).select(pl.len()).collect().item())
        lap.console.say(
            f"  {rows:,} rows in all, those of {lap.project.settings.data.where} and of production together"
        )


def validate(lap: Lap) -> None:
    """Refuse a table that cannot teach; warn of what looks odd."""
    root = lap.project.root
    proposed = _propose_contract(lap)
    with versioning.pipeline(root) as stages:
        moved = stages.changed("validate")
    before = _handed(root / ACCEPTED)
    if moved:
        tell_accepted(lap)
    try:
        _run(lap, "validate", validating.run)
    except InputError:
        # With the table of before back in its place, nothing will have changed; and a bad table is no model for good ones.
        write_json(before, root / ACCEPTED)
        if proposed:
            (root / contract.SCHEMA).unlink()
        raise
    if proposed:
        lap.console.say(f"  note: wrote {contract.SCHEMA}, what later tables are held to; look through it")
    profile = read(root / PROFILE)
    for finding in findings.read(root / findings.FINDINGS):
        if finding.level == "warn":
            lap.console.say(f"  note: {finding.message}")
    sliced = tuple(("gate.slices", name) for name in lap.project.settings.gate.slices)
    names = tuple(column.name for column in profile.columns)
    require(sliced, names, lap.project.settings.data.source)
    privacy.check(lap.project.settings, names)
    _nothing_gone(lap, profile)


def split(lap: Lap) -> str:
    """Say which rows teach, tune and judge; the data version."""
    with versioning.pipeline(lap.project.root) as stages:
        moved = stages.changed("split")
    if moved:  # the same rows keep the sides on which they were judged
        tell_taught_until(lap)
    _run(lap, "split", splitting.run)
    with versioning.pipeline(lap.project.root) as stages:
        version = stages.version()
    assert version is not None
    return version


def nothing_to_learn(lap: Lap) -> Outcome | None:
    """For a lap that a decision of the watch began: its end where no row is new to the champion; else None."""
    champion = versions.champion(lap.project.ledger, lap.project.name)
    if lap.decision is None or champion is None:
        return None
    try:
        known, _, table = read_record(lap.project.artifact(champion, "data/split.json"), _labelled)
    except FileNotFoundError:
        return None
    rows, times, now = read_record(lap.project.root / splitting.SPLIT / splitting.RECORD, _labelled)
    if now == table:
        return nothing_new(lap, champion)
    until = champion.facts["taught_until"]
    return nothing_new(lap, champion) if rows <= known and until is not None and times[-1] <= str(until) else None


def _labelled(record: Any) -> tuple[int, list[str], str]:
    """Of split.json: how many rows have a label, where each side ends in time, and the hash of the table."""
    sides = [record[name] for name in ("train", "validation", "test")]
    return sum(int(side["rows"]) for side in sides), sorted(str(side["to"]) for side in sides), record["table"]


def _propose_contract(lap: Lap) -> bool:
    """The first lap of a project without schema.yaml writes one: a stage that writes its own dependency would not be pure."""
    root = lap.project.root
    if (root / contract.SCHEMA).exists():
        return False
    text = contract_template.propose(tables.scan(root / TABLE), lap.project.settings.problem)
    template.place(root, contract.SCHEMA, text)
    return True


def accepted(project: Project) -> Any:
    """The digest of the last accepted table, as its run keeps it: that of the newest registered version; None before."""
    newest = versions.newest(project.ledger, project.name)
    if newest is None or not newest.facts.get("digest"):
        return None
    kept = "Restore it from a backup, or delete it: the next table is then compared with none"
    try:
        path = project.artifact(newest, f"data/{DIGEST.name}")
        return read_record(path, lambda c: c if digest.from_json(c) else None, kept)
    except FileNotFoundError:
        return None


def tell_accepted(lap: Lap) -> None:
    """Hand the validate stage, as a file, what the last accepted table was like."""
    content, path = accepted(lap.project), lap.project.root / ACCEPTED
    _hand(content, path)


def tell_taught_until(lap: Lap) -> None:
    """Hand the split stage, as a file, up to where the champion was taught: what it read from a ledger would not be pure."""
    champion = versions.champion(lap.project.ledger, lap.project.name)
    content = {"taught_until": champion.facts["taught_until"] if champion else None}
    path = lap.project.root / TAUGHT
    _hand(content, path)


def _hand(content: Any, path: Path) -> None:
    if read_cache(path, lambda known: (known,)) != (content,):
        write_json(content, path)


def _handed(path: Path) -> Any:
    """What a stage was handed last; None where that was nothing, or is damaged: the ledger has it, and it is handed out again."""
    return read_cache(path, lambda content: content)


def _run(lap: Lap, name: str, work: Callable[[Path, Settings], None]) -> bool:
    """Run a stage if DVC says that it must; whether it did."""
    lap.console.working(name)
    root, settings = lap.project.root, lap.project.settings
    with versioning.pipeline(root) as stages:
        if not stages.changed(name):
            return False
        stages.run(name, lambda: work(root, settings))
        return True


def _nothing_gone(lap: Lap, profile: Profile) -> None:
    """A column that the champion learned from must be there, or be given up on purpose."""
    champion = versions.champion(lap.project.ledger, lap.project.name)
    if champion is None:
        return
    learned = [name for names in champion.facts["columns"].values() for name in names]
    known = {column.name for column in profile.columns} | set(lap.project.settings.problem.ignore)
    for name in learned:
        if name not in known:
            raise InputError(
                f"data.source: column {name!r} is gone from {lap.project.settings.data.source} (version {champion.version}, which "
                f"serves, learned from it in data version {champion.data_version[:8]}). Restore it, or add it to problem.ignore"
            )
