"""Recording predictions: durable before it is answered, once, and in groups; on SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from tests.support.ledgers import answer
from windvane.ledger import database
from windvane.ledger.prediction_writer import (
    MAX_LOOP_COMMIT_ROWS,
    SLOW_COMMIT_SECONDS,
    LedgerClosed,
    LedgerFailed,
    LedgerFull,
    PredictionWriter,
)
from windvane.ledger.predictions import InvalidPrediction, Prediction
from windvane.ledger.schema import predictions


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = database.connect_ledger(url)
    yield engine
    engine.dispose()


@pytest.fixture
def project() -> str:
    return f"p{uuid4().hex}"


def stored(engine: sa.Engine, project: str) -> list[Any]:
    with database.open_snapshot(engine) as db:
        query = sa.select(predictions).where(predictions.c.project == project)
        return list(db.execute(query.order_by(predictions.c.id, predictions.c.version)).all())


class Watched(PredictionWriter):
    """A writer that tells of each group's rows before it commits them."""

    def __init__(self, engine: sa.Engine, project: str, watch: Callable[[int], object], **limits: Any) -> None:
        super().__init__(engine, project, **limits)
        for committer in (self._committer, self._here):
            if committer is not None:
                committer.commit = partial(self._watched, watch, committer.commit)  # type: ignore[method-assign]

    @staticmethod
    def _watched(watch: Callable[[int], object], commit: Callable[..., None], rows: list[Any], **more: Any) -> None:
        watch(len(rows))
        commit(rows, **more)


def test_what_was_answered_is_stored_with_all_that_belongs_to_it(engine: sa.Engine, project: str) -> None:
    writer = PredictionWriter(engine, project)
    writer.submit([answer("a", role="canary", time="2026-01-31T12:00:00+02:00"), answer("b", inputs=None)]).result(10)
    writer.close()
    first, second = stored(engine, project)
    assert (first.id, first.version, first.role, first.time) == ("a", 1, "canary", "2026-01-31T10:00:00.000000+00:00")
    assert (first.inputs, first.output) == ({"x": 1.5, "city": "Waco"}, {"prediction": 2.5})
    assert second.inputs is None
    assert second.time == second.received


def test_a_repeated_request_is_stored_once_and_another_answer_beside_it(engine: sa.Engine, project: str) -> None:
    writer = PredictionWriter(engine, project)
    for one in (answer("a"), answer("a"), answer("a", output={"prediction": 9}), answer("a", version=2)):
        writer.submit([one, one]).result(10)
    writer.close()
    assert [(row.version, row.output["prediction"]) for row in stored(engine, project)].count((1, 2.5)) == 1
    assert len(stored(engine, project)) == 3


def test_many_threads_and_an_event_loop_are_served_by_few_transactions(engine: sa.Engine, project: str) -> None:
    groups = list[int]()
    writer = Watched(engine, project, groups.append)

    def thread(number: int) -> None:
        for i in range(20):
            writer.submit([answer(f"t{number}-{i}")]).result(10)

    async def loop() -> None:
        await asyncio.gather(*(writer.record([answer(f"l{i}")]) for i in range(200)))

    threads = [threading.Thread(target=thread, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    asyncio.run(loop())
    for one in threads:
        one.join()
    writer.close()
    assert len(stored(engine, project)) == sum(groups) == 280
    assert len(groups) < 280


@pytest.fixture
def file(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = database.connect_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield engine
    engine.dispose()


def test_an_event_loop_commits_a_turn_together_and_leaves_large_groups_to_the_thread(file: sa.Engine) -> None:
    here, there = list[int](), list[int]()
    writer = PredictionWriter(file, "p")
    assert writer._here is not None
    for committer, seen in ((writer._here, here), (writer._committer, there)):
        committer.commit = partial(Watched._watched, seen.append, committer.commit)  # type: ignore[method-assign]

    async def ask(requests: int, rows: int) -> None:
        given = [[answer(f"{requests}-{rows}-{i}-{k}") for k in range(rows)] for i in range(requests)]
        await asyncio.gather(*map(writer.record, given))

    for requests, rows in ((1, 1), (16, 1), (1, MAX_LOOP_COMMIT_ROWS + 1)):
        asyncio.run(ask(requests, rows))
    writer.close()
    assert (here, there) == ([1, 16], [MAX_LOOP_COMMIT_ROWS + 1])
    assert len(stored(file, "p")) == 1 + 16 + MAX_LOOP_COMMIT_ROWS + 1


def test_an_event_loop_goes_on_while_another_process_writes(file: sa.Engine) -> None:
    writer, turns = PredictionWriter(file, "p"), 0

    async def main() -> None:
        nonlocal turns
        await writer.record([answer("before")])
        with file.begin() as other:  # has SQLite's only write lock
            other.execute(sa.text("SELECT 1"))
            waiting = asyncio.ensure_future(writer.record([answer("meanwhile")]))
            while turns < 50:
                await asyncio.sleep(0.001)
                turns += 1
            assert not waiting.done()
        await waiting
        await writer.record([answer("after")])

    asyncio.run(main())
    writer.close()
    assert {row.id for row in stored(file, "p")} == {"before", "meanwhile", "after"}


def test_after_a_slow_commit_the_thread_has_them_all_for_a_while(file: sa.Engine) -> None:
    names = list[str]()
    writer = Watched(
        file, "p", lambda _: (names.append(threading.current_thread().name), time.sleep(2 * SLOW_COMMIT_SECONDS))
    )

    async def main() -> None:
        for id in "abc":
            await writer.record([answer(id)])

    asyncio.run(main())
    writer.close()
    assert names == [threading.main_thread().name, "ledger-writer", "ledger-writer"]
    assert len(stored(file, "p")) == 3


def test_whoever_waits_in_a_loop_is_told_when_the_writer_was_closed_meanwhile(file: sa.Engine) -> None:
    writer = PredictionWriter(file, "p")

    async def main() -> None:
        waiting = asyncio.ensure_future(writer.record([answer("a")]))
        await asyncio.sleep(0)
        writer.close()
        await waiting

    with pytest.raises(LedgerClosed):
        asyncio.run(main())
    assert stored(file, "p") == []


def test_close_records_what_is_queued_and_then_takes_no_more(engine: sa.Engine, project: str) -> None:
    writer = PredictionWriter(engine, project)
    futures = [writer.submit([answer(str(i))]) for i in range(300)]
    writer.close()
    writer.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert len(stored(engine, project)) == 300
    with pytest.raises(LedgerClosed):
        writer.submit([answer("late")])


def test_an_error_of_the_database_reaches_all_who_wait_and_the_next_are_recorded(
    engine: sa.Engine, project: str
) -> None:
    writer = PredictionWriter(engine, project)
    committers = [one for one in (writer._committer, writer._here) if one is not None]
    insert = writer._committer.insert
    for one in committers:
        one.insert = insert.replace("predictions", "gone")
    with pytest.raises(LedgerFailed, match="send them again"):
        writer.submit([answer("a")]).result(10)

    async def both() -> list[Any]:
        return await asyncio.gather(*(writer.record([answer(i)]) for i in "bc"), return_exceptions=True)

    assert all(isinstance(e, LedgerFailed) for e in asyncio.run(both()))
    for one in committers:
        one.insert = insert
    writer.submit([answer("d")]).result(10)
    writer.close()
    assert [row.id for row in stored(engine, project)] == ["d"]


def test_a_full_queue_makes_the_next_wait_and_then_sends_them_away(engine: sa.Engine, project: str) -> None:
    free = threading.Event()
    writer = Watched(engine, project, lambda _: free.wait(10), room=2, patience=0.2)
    first = writer.submit([answer("a")])
    while writer._queued:
        pass
    more = [writer.submit([answer(i)]) for i in "bc"]
    with pytest.raises(LedgerFull):
        writer.submit([answer("d")])
    with pytest.raises(LedgerFull):
        asyncio.run(writer.record([answer("d")]))
    free.set()
    for future in (first, *more):
        future.result(10)
    writer.close()
    assert [row.id for row in stored(engine, project)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "bad",
    [
        answer(""),
        answer("x" * 201),
        answer("nul\0"),
        answer("half \ud800"),
        answer("a", role="king"),
        answer("a", inputs={"x": object()}),
        answer("a", output="half \ud800"),
        answer("a", time="yesterday"),
    ],
)
def test_what_no_database_can_hold_is_refused_before_it_is_queued(tmp_path: Path, bad: Prediction) -> None:
    writer = PredictionWriter(database.connect_ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), "p")
    with pytest.raises(InvalidPrediction):
        writer.submit([answer("good"), bad])
    writer.close()


def test_a_dropped_connection_is_replaced_without_anybody_noticing(postgres: str, project: str) -> None:
    engine = database.connect_ledger(postgres)
    writer = PredictionWriter(engine, project)
    writer.submit([answer("a")]).result(10)
    with engine.begin() as db:
        db.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    writer.submit([answer("b")]).result(10)
    writer.close()
    assert [row.id for row in stored(engine, project)] == ["a", "b"]


def test_made_ids_are_distinct_and_sort_by_time() -> None:
    ids = [database.make_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [i[:12] for i in ids] == sorted(i[:12] for i in ids)
