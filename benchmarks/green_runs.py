"""Is `make test` green however its tests are ordered, and on a busy machine? `python -m benchmarks.green_runs [--runs 10] [--busy 3]`.

Every run draws its own order (pytest-randomly, a seed a run); the last `--busy` ones run beside a process per core that does nothing
but count. A table is printed; the exit status is 1 if a run was not green. Each run is a cell that is kept (--kept FILE) with the
commit and the hash of product and tests; files whose tests are all slow are left out of it, as they are of `make test`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.kept_cells import KEPT_FOLDER, ROOT, KeptCells, hash_code

MEASURED_CODE = ("cli", "flows", "tasks", "monitoring", "serving", "ledger", "templates")
ALL_SLOW = "\npytestmark = pytest.mark.slow\n"


def list_test_files() -> list[str]:
    """Files below tests/ without those that `make test` leaves out."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    return [str(file.relative_to(ROOT)) for file in files if ALL_SLOW not in file.read_text(encoding="utf-8")]


@contextmanager
def keep_busy(busy: bool) -> Iterator[None]:
    """A process per core that counts, for as long as this lasts."""
    count = "while True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", count]) for _ in range((os.cpu_count() or 1) if busy else 0)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_tests(seed: int, busy: bool) -> dict[str, Any]:
    """One run: how many tests passed, what failed, and how long it took."""
    began = time.monotonic()
    with keep_busy(busy):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "not slow", f"--randomly-seed={seed}"],
            cwd=ROOT,
            env={**os.environ, "CI": "true"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    last = next((line for line in reversed(done.stdout.splitlines()) if " passed" in line), "")
    passed = re.search(r"(\d+) passed", last)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return {
        "passed": int(passed[1]) if passed else 0,
        "failed": failed,
        "status": done.returncode,
        "seconds": round(time.monotonic() - began),
    }


def main() -> int:
    """Print the table; 1 when a run was not green."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument(
        "--busy", type=int, default=3, help="so many of them beside processes that keep every core busy"
    )
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "green_runs.jsonl")
    chosen = parser.parse_args()
    kept, code, green = KeptCells(chosen.kept), hash_code(__file__, *MEASURED_CODE, *list_test_files()), True
    print("| seed | cores kept busy | passed | failed | seconds |\n|---|---|---|---|---|")
    for seed in range(1, chosen.runs + 1):
        busy = seed > chosen.runs - chosen.busy
        run = kept.get(f"seed {seed}, busy {busy}", code, lambda s=seed, b=busy: run_tests(s, b))
        green &= run["status"] == 0
        failed = ", ".join(run["failed"]) or "-"
        print(f"| {seed} | {'yes' if busy else 'no'} | {run['passed']:,} | {failed} | {run['seconds']} |", flush=True)
    return int(not green)


if __name__ == "__main__":
    sys.exit(main())
