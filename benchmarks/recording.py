"""What recording a prediction costs, beside one fsync on the same disk in the same run: SQLite and PostgreSQL.

`python benchmarks/recording.py`: one request after the other, then 16 at once (threads, and tasks of one event loop), and what
SQLAlchemy's own path would cost in place of the driver's. PostgreSQL is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from windvane.ledger import database, predictions
from windvane.ledger.prediction_writer import PredictionWriter, RowCommitter
from windvane.ledger.predictions import Prediction, PrivacyRules
from windvane.ledger.schema import predictions as table

WAITERS = 16
INPUTS = {f"column_{i}": 1.5 * i for i in range(12)} | {"city": "San Antonio", "listed": "2026-01-31", "garage": None}


def one() -> Prediction:
    output = {"prediction": "late", "probabilities": {"late": 0.8125, "on time": 0.1875}}
    return Prediction(database.make_id(), 7, INPUTS, output)


def quantiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (1000 * ordered[int(share * len(ordered))] for share in (0.50, 0.99))
    return f"{p50:.2f} | {p99:.2f}"


def fsync(folder: Path, times: int) -> list[float]:
    """Seconds of fdatasync after rewriting 12 kB of a file, which is what a commit writes."""
    took, size = [], 12_000
    with (folder / "fsync").open("wb+", buffering=0) as f:
        f.write(b"x" * size * times)
        os.fsync(f.fileno())
        for i in range(times):
            os.pwrite(f.fileno(), b"y" * size, i * size)
            began = time.perf_counter()
            os.fdatasync(f.fileno())
            took.append(time.perf_counter() - began)
    return took


def alone(writer: PredictionWriter, times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        writer.submit([one()]).result()
        took.append(time.perf_counter() - began)
    return took


async def alone_in_a_loop(writer: PredictionWriter, times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await writer.record([one()])
        took.append(time.perf_counter() - began)
    return took


def threads(writer: PredictionWriter, seconds: float) -> float:
    """Records a second from WAITERS threads, each of which waits for its own."""
    counts, end = [0] * WAITERS, time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < end:
            writer.submit([one()]).result()
            counts[number] += 1

    started = [threading.Thread(target=work, args=(n,)) for n in range(WAITERS)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return sum(counts) / seconds


async def tasks(writer: PredictionWriter, seconds: float) -> float:
    """The same from WAITERS tasks of one event loop."""
    end = time.perf_counter() + seconds

    async def work() -> int:
        count = 0
        while time.perf_counter() < end:
            await writer.record([one()])
            count += 1
        return count

    return sum(await asyncio.gather(*(work() for _ in range(WAITERS)))) / seconds


def paths(engine: sa.Engine) -> tuple[float, float]:
    """Microseconds a row of storing 5,000 prepared rows in groups of 16: the driver's way, SQLAlchemy's way."""
    names = [column.name for column in table.columns]
    groups = [
        predictions.prepare_prediction_rows("paths", [one() for _ in range(WAITERS)], PrivacyRules())
        for _ in range(300)
    ]
    committer = RowCommitter(engine, predictions.compile_prediction_insert(engine))
    began = time.perf_counter()
    for group in groups:
        committer.commit(group)
    driver = time.perf_counter() - began
    committer.close()
    statement = sa.insert(table)
    rows = [[dict(zip(names, (*row[:1], database.make_id(), *row[2:]), strict=True)) for row in g] for g in groups]
    began = time.perf_counter()
    for group in rows:
        with engine.begin() as db:
            db.execute(statement, group)
    count = WAITERS * len(groups)
    return 1e6 * driver / count, 1e6 * (time.perf_counter() - began) / count


@contextmanager
def ledgers(folder: Path) -> Iterator[dict[str, str]]:
    from tests.support import postgres_server

    found = {"SQLite": f"sqlite:///{folder / 'ledger.db'}"}
    if postgres_server.programs() is None:
        yield found
        return
    with postgres_server.running(fsync=True) as server:
        yield found | {"PostgreSQL": server.url}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=5)
    options.add_argument("--times", type=int, default=1000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name, ledgers(Path(name)) as urls:
        print(
            "| | fsync p50 ms | p99 | alone, thread p50 ms | p99 | task p50 ms | p99 | 16 threads, rows/s | 16 tasks, rows/s |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for what, url in urls.items():
            engine = database.connect_ledger(url)
            writer = PredictionWriter(engine, "benchmark")
            disk = quantiles(fsync(Path(name), chosen.times))
            thread = quantiles(alone(writer, chosen.times))
            task = quantiles(asyncio.run(alone_in_a_loop(writer, chosen.times)))
            many = threads(writer, chosen.seconds)
            looped = asyncio.run(tasks(writer, chosen.seconds))
            writer.close()
            print(f"| {what} | {disk} | {thread} | {task} | {many:,.0f} | {looped:,.0f} |")
            driver, core = paths(engine)
            print(f"\n{what}, groups of 16, microseconds a row: driver {driver:.0f}, SQLAlchemy {core:.0f}\n")
            engine.dispose()


if __name__ == "__main__":
    main()
