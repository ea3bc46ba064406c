"""Recording predictions: durable before it is answered, once, and in groups; on SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from ledger import moments, store
from ledger.predictions import BadPrediction, Prediction
from ledger.schema import predictions
from ledger.writer import LedgerClosed, LedgerFailed, LedgerFull, Writer
from tests.ledgers import answer


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = store.connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def project() -> str:
    return f"p{uuid4().hex}"


def stored(engine: sa.Engine, project: str) -> list[Any]:
    with store.reading(engine) as db:
        query = sa.select(predictions).where(predictions.c.project == project)
        return list(db.execute(query.order_by(predictions.c.id, predictions.c.version)).all())


class Watched(Writer):
    """A writer that tells of each group's rows before it commits them."""

    def __init__(self, engine: sa.Engine, project: str, watch: Callable[[int], object], **limits: Any) -> None:
        self.watch = watch
        super().__init__(engine, project, **limits)

    def _commit(self, rows: list[tuple[Any, ...]], again: bool = True) -> None:
        self.watch(len(rows))
        super()._commit(rows, again)


def test_what_was_answered_is_stored_with_all_that_belongs_to_it(engine: sa.Engine, project: str) -> None:
    writer = Writer(engine, project)
    writer.submit([answer("a", role="canary", time="2026-01-31T12:00:00+02:00"), answer("b", inputs=None)]).result(10)
    writer.close()
    first, second = stored(engine, project)
    assert (first.id, first.version, first.role, first.time) == ("a", 1, "canary", "2026-01-31T10:00:00.000000+00:00")
    assert (first.inputs, first.output) == ({"x": 1.5, "city": "Waco"}, {"prediction": 2.5})
    assert second.inputs is None
    assert second.time == second.received


def test_a_repeated_request_is_stored_once_and_another_answer_beside_it(engine: sa.Engine, project: str) -> None:
    writer = Writer(engine, project)
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


def test_close_records_what_is_queued_and_then_takes_no_more(engine: sa.Engine, project: str) -> None:
    writer = Writer(engine, project)
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
    writer = Writer(engine, project)
    insert, writer._insert = writer._insert, writer._insert.replace("predictions", "gone")
    with pytest.raises(LedgerFailed, match="send them again"):
        writer.submit([answer("a")]).result(10)

    async def both() -> list[Any]:
        return await asyncio.gather(*(writer.record([answer(i)]) for i in "bc"), return_exceptions=True)

    assert all(isinstance(e, LedgerFailed) for e in asyncio.run(both()))
    writer._insert = insert
    writer.submit([answer("d")]).result(10)
    writer.close()
    assert [row.id for row in stored(engine, project)] == ["d"]


def test_a_full_queue_makes_the_next_wait_and_then_sends_them_away(engine: sa.Engine, project: str) -> None:
    free = threading.Event()
    writer = Watched(engine, project, lambda _: free.wait(10), room=2, patience=0.2)
    first = writer.submit([answer("a")])
    while writer.queued:
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
    writer = Writer(store.connect(f"sqlite:///{tmp_path / 'ledger.db'}"), "p")
    with pytest.raises(BadPrediction):
        writer.submit([answer("good"), bad])
    writer.close()


def test_a_dropped_connection_is_replaced_without_anybody_noticing(postgres: str, project: str) -> None:
    engine = store.connect(postgres)
    writer = Writer(engine, project)
    writer.submit([answer("a")]).result(10)
    with engine.begin() as db:
        db.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
    writer.submit([answer("b")]).result(10)
    writer.close()
    assert [row.id for row in stored(engine, project)] == ["a", "b"]


def test_made_ids_are_distinct_and_sort_by_time() -> None:
    ids = [moments.make_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [i[:12] for i in ids] == sorted(i[:12] for i in ids)
