"""What a live check of drift costs: Evidently's report with our limits, beside our own distances alone.

    python benchmarks/drift_report.py [--runs N]

Prints Markdown. Each check is a process of its own; two thirds of the columns are numbers, the others words.
`import`: Evidently's, which only a check with enough rows pays for.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CASES = ((2_000, 300, 13), (20_000, 20_000, 13), (100_000, 20_000, 13), (20_000, 20_000, 50), (20_000, 20_000, 200))


def check(reference: int, window: int, width: int, how: str) -> dict[str, Any]:
    """One check in this process."""
    import numpy as np
    import pandas as pd

    from windvane.monitoring.drift import detector, evidently
    from windvane.tasks.models.features import FeatureColumns

    rng = np.random.default_rng(0)
    numbers, words = [f"n{i}" for i in range(2 * width // 3)], [f"w{i}" for i in range(width - 2 * width // 3)]

    def frame(rows: int) -> pd.DataFrame:
        made = {name: rng.standard_normal(rows) for name in numbers}
        chosen = {name: rng.choice(np.array(list("abcdefghijkl"), object), rows) for name in words}
        at = pd.date_range("2024-01-01", periods=rows, freq="min").as_unit("us")
        return pd.DataFrame({**made, **chosen, "at": at})

    # Time keeps up to 100,000 rows of a reference; without it both sides have 20,000.
    frames, columns = (frame(reference), frame(window)), FeatureColumns(numbers=tuple(numbers), low=tuple(words))
    compared = detector.Comparison(*frames, columns, None, "at" if reference > 20_000 else None, 0)
    imported, size = 0.0, 0
    if how == "report":
        began = time.monotonic()
        evidently.write_evidently_report([], [], (np.empty(0), np.empty(0)), [])
        imported = time.monotonic() - began
    before, began = peak(), time.monotonic()
    if how == "report":
        found, page = detector.detect_drift_with_evidently(compared, 0.01)
        size = len(page or "")
        assert found.alarm is not None, found.note
    else:
        detector.detect_drift(compared, 0.01)
    return {
        "seconds": time.monotonic() - began,
        "import": imported,
        "more": peak() - before,
        "peak": peak(),
        "page": size / 1e6,
    }


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(check(*json.loads(asked.one))))
        return
    print("| reference | window | columns | by | seconds | import, s | peak MB | of it the check | page MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for reference, window, width in CASES:
        for how in ("own", "report"):
            one = json.dumps([reference, window, width, how])
            ran = [
                subprocess.run([sys.executable, __file__, "--one", one], capture_output=True, text=True, check=True)
                for _ in range(asked.runs)
            ]
            made = [json.loads(r.stdout.splitlines()[-1]) for r in ran]
            seconds, imported, most, more, page = (
                median(m[k] for m in made) for k in ("seconds", "import", "peak", "more", "page")
            )
            cells = f"{seconds:.2f} | {imported:.1f} | {most:.0f} | {more:.0f} | {page:.1f}"
            print(f"| {reference:,} | {window:,} | {width} | {how} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
