"""The short benchmarks at an older commit and in the working tree, in turn. `python -m benchmarks.before_after --at COMMIT`.

The commit is checked out below `.windvane/benchmarks` with an environment of its own (`make`), and each benchmark's own script
runs there and here, round by round, the order turned from round to round: what warms up, and a machine that slows down, then
hits both. Of every figure of the tables that a script prints, the medians and their ratio are printed; figures that stand in
one of the two alone are left out, and those that are equal are counted. Each run is a cell that is kept with its commit and the
hash of the product's code.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fixed_model import FIXED_MODEL
from benchmarks.kept_cells import KEPT_FOLDER, ROOT, KeptCells, hash_code, read_commit

SCRIPTS = {
    "lap": ("benchmarks/lap.py", "--runs", "1"),
    "serving": ("benchmarks/serving.py", "2"),
    "ingest": ("benchmarks/ingest.py", "--rows", "10000000", "--runs", "1"),
    "replay": ("-m", "benchmarks.replay", "--runs", "1"),
    "monitoring": ("-m", "benchmarks.replay_loop", "--runs", "1"),
    "gate": ("benchmarks/gate.py", "--trials", "300"),
}
# Older commits' serving.py serves what a search chose; both sides are to serve trees of the same number.
_CHOSEN_MODEL, _FIXED_MODEL = '{"candidates": ["boosting"], "trials": 1}', repr(FIXED_MODEL)
ROOMS = ("cli", "flows", "tasks", "monitoring", "serving", "ledger")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Side:
    """A checkout with an environment: its folder, its commit and the hash of its product code."""

    folder: Path
    commit: str
    code: str


def checkout(commit: str) -> Side:
    """The commit in a worktree of its own, with what it needs installed."""
    folder = KEPT_FOLDER / "before" / commit
    if not folder.exists():
        subprocess.run(["git", "worktree", "add", "--detach", str(folder), commit], cwd=ROOT, check=True)
    serving = folder / "benchmarks" / "serving.py"
    serving.write_text(serving.read_text().replace(_CHOSEN_MODEL, _FIXED_MODEL))
    subprocess.run(["make", ".venv/bin/windvane"], cwd=folder, check=True, stdout=sys.stderr)
    return describe_side(folder)


def describe_side(folder: Path) -> Side:
    """What is measured in this folder."""
    rooms = [str(folder / room) for room in ROOMS if (folder / room).exists()]
    return Side(folder, read_commit(folder), hash_code(__file__, *rooms))


def run_script(side: Side, arguments: tuple[str, ...]) -> str:
    """What the benchmark prints there."""
    print(f"{side.commit}: {' '.join(arguments)}", file=sys.stderr, flush=True)
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    python = side.folder / ".venv" / "bin" / "python"
    began = time.monotonic()
    done = subprocess.run([python, *arguments], cwd=side.folder, env=own, stdout=subprocess.PIPE, text=True, check=True)
    return f"{done.stdout}\n\n| | seconds |\n|---|---|\n| the whole script | {time.monotonic() - began:.1f} |\n"


def read_figures(text: str) -> dict[tuple[str, str], float]:
    """The first number of every cell of Markdown tables, by the heading with the row's first cell, and the column's name: a table that
    one side alone has leaves the others comparable.
    """
    found, header, heading = dict[tuple[str, str], float](), list[str](), ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")[:40] + ": "
        cells = [c.strip() for c in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
            heading = "" if cells[1:] == ["seconds"] else heading
        elif not set("".join(cells)) <= set("-: "):
            for name, cell in zip(header[1:], cells[1:], strict=False):
                number = _NUMBER.search(cell)
                if number:
                    found.setdefault((f"{heading}{cells[0]}", name), float(number[0].replace(",", "")))
    return found


def main() -> None:
    """Print a table a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", required=True, metavar="COMMIT", help="the older commit")
    parser.add_argument("--only", nargs="+", choices=list(SCRIPTS), default=list(SCRIPTS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "before_after.jsonl")
    chosen = parser.parse_args()
    kept, sides = KeptCells(chosen.kept), (checkout(chosen.at), describe_side(ROOT))
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()};",
        end=" ",
    )
    print(f"{sides[0].commit} and {sides[1].commit}, {chosen.rounds} rounds in turn")
    for name in chosen.only:
        runs: dict[Side, list[dict[tuple[str, str], float]]] = {side: [] for side in sides}
        for i in range(chosen.rounds):
            for side in sides[:: 1 if i % 2 == 0 else -1]:
                text = kept.get(f"{name} {i}", side.code, lambda s=side, n=name: run_script(s, SCRIPTS[n]), side.commit)
                runs[side].append(read_figures(text))
        before, after = ([*runs[side]] for side in sides)
        shared = [key for key in before[0] if all(key in figures for figures in (*before, *after))]
        print(
            f"\n### {name}: `{' '.join(SCRIPTS[name])}`\n\n| | figure | before | now | ratio |\n|---|---|---|---|---|"
        )
        equal = 0
        for key in shared:
            old, new = (statistics.median(figures[key] for figures in side) for side in (before, after))
            if old == new:
                equal += 1
                continue
            print(f"| {key[0]} | {key[1]} | {old:,.6g} | {new:,.6g} | {f'{new / old:.2f}' if old else ''} |")
        print(f"\n{equal} of {len(shared)} figures are equal.", flush=True)


if __name__ == "__main__":
    main()
