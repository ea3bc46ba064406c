"""kill -9 of a process that records predictions, at random moments: is anything acknowledged lost, or stored twice?

`python benchmarks/ledger_kills.py [--kills 100] [--seed 0]`, on SQLite and PostgreSQL. Each round a process records with 16
threads and says each id once it was told so; after the kill the next round sends again from the first id that was not
acknowledged, as clients do.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from windvane.ledger import database
from windvane.ledger.prediction_writer import PredictionWriter
from windvane.ledger.predictions import Prediction
from windvane.ledger.schema import predictions

PROJECT = "kills"


@dataclass(frozen=True)
class Result:
    """After all kills: ids acknowledged, of these missing, rows stored, ids stored more than once."""

    acknowledged: int
    lost: int
    stored: int
    twice: int


def record(url: str, first: int, last: int) -> None:
    """Record ids from `first` to `last` with 16 threads; each is written to standard output when it is acknowledged."""
    writer, ids = PredictionWriter(database.connect_ledger(url), PROJECT), itertools.count(first)

    def work() -> None:
        while (number := next(ids)) <= last:
            writer.submit(
                [Prediction(str(number), 1, {"x": number, "city": "Waco"}, {"prediction": number / 7})]
            ).result()
            os.write(1, b"%d\n" % number)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()


def start(url: str, first: int, last: int = sys.maxsize) -> subprocess.Popen[bytes]:
    """record() in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--record", url, str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def trial(kills: int, seed: int, url: str) -> Result:
    """Kill a recording process this often, then look at the ledger."""
    chance, acknowledged, first = random.Random(seed), set[int](), 0
    for _ in range(kills):
        process = start(url, first)
        assert process.stdout is not None
        said = process.stdout.readline()
        time.sleep(chance.uniform(0, 0.25))
        process.kill()
        # What stands in the pipe was acknowledged; a line that was cut off was not.
        said += process.stdout.read()
        process.wait()
        acknowledged |= {int(line) for line in said.split(b"\n")[:-1]}
        first = next(n for n in itertools.count(first) if n not in acknowledged)
    return look(url, acknowledged)


def look(url: str, acknowledged: set[int]) -> Result:
    """What the ledger holds of the ids."""
    engine = database.connect_ledger(url)
    with engine.connect() as db:
        stored = [int(id) for id in db.scalars(sa.select(predictions.c.id).where(predictions.c.project == PROJECT))]
    engine.dispose()
    return Result(len(acknowledged), len(acknowledged - set(stored)), len(stored), len(stored) - len(set(stored)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--record", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.record:
        url, first, last = chosen.record
        return record(url, int(first), int(last))
    from benchmarks.recording import ledgers

    with tempfile.TemporaryDirectory() as name, ledgers(Path(name)) as urls:
        print("| | kills | acknowledged | lost | stored | twice |\n|---|---|---|---|---|---|")
        for what, url in urls.items():
            r = trial(chosen.kills, chosen.seed, url)
            print(f"| {what} | {chosen.kills} | {r.acknowledged:,} | {r.lost} | {r.stored:,} | {r.twice} |", flush=True)
    return None


if __name__ == "__main__":
    main()
