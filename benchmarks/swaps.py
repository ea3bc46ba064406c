"""Fifty swaps of the champion under steady load: failed and mixed answers, and what a swap does to the slowest answers.

python benchmarks/swaps.py     # some three minutes
Two versions, promoted in turn every 1.6 seconds; 16 connections ask for one row each. Before that, as long without swaps.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import load

ROOT = Path(__file__).parent.parent
SWAPS, PAUSE = 50, 1.6


def main() -> None:
    sys.path[0] = str(ROOT)  # benchmarks/serving.py has the name of a package
    import json

    from tests.support.served_models import PROJECT, ROW, Site, made_project, serving
    from windvane.ledger import versions

    with tempfile.TemporaryDirectory() as name:
        folder = made_project(Path(name))
        site = Site(folder.path / ".windvane")
        site.register(2, learning_rate=0.05)
        request = load.request("/invocations", json.dumps({"inputs": [ROW]}).encode())

        def swap() -> None:
            for i in range(SWAPS):
                site.promote(2 - i % 2)
                time.sleep(PAUSE)

        with serving(folder) as (_, port):
            steady = load.run(port, [request], 16, SWAPS * PAUSE)
            swapping = threading.Thread(target=swap)
            swapping.start()
            during = load.run(port, [request], 16, SWAPS * PAUSE)
            swapping.join()
            swaps = (folder.path / "serve.log").read_text().count('"event": "version serves"') - 1
    print(f"steady:      {steady}, {steady.answers:,} answers, {steady.failed} failed")
    print(f"with swaps:  {during}, {during.answers:,} answers, {during.failed} failed, {swaps} swaps followed")
    print(f"p99 with swaps / steady: {during.p99 / steady.p99:.2f}")
    assert versions.find_last_promotion(site.ledger, PROJECT) is not None


if __name__ == "__main__":
    main()
