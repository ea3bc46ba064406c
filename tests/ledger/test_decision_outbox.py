"""The outbox of decisions: recorded before told, claimed by one lap, ended once, whoever dies when."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windvane.ledger import database, decisions, laps, windows
from windvane.ledger.decisions import DecisionRecord, RetrainingAlreadyOpen
from windvane.ledger.laps import Lease, LeaseLost
from windvane.ledger.windows import WindowRecord

pytestmark = pytest.mark.long


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> sa.Engine:
    if request.param == "sqlite":
        return database.connect_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    return database.connect_ledger(request.getfixturevalue("postgres"))


@pytest.fixture
def name() -> str:
    """A project of the test's own: all tests share the PostgreSQL."""
    return uuid.uuid4().hex


def entry(project: str, window: str = "2026-01-01", action: str = "retrain", **more: Any) -> DecisionRecord:
    return DecisionRecord(project, 1, window, "2026-02-01", action, "because", **more)


@contextmanager
def leased(engine: sa.Engine, project: str) -> Iterator[Lease]:
    with laps.hold_lease(engine, project, "a test", lambda _: None) as lease:
        yield lease


def stolen(engine: sa.Engine, project: str) -> Lease:
    """The lease as another process gets it once the holder is dead."""
    with engine.begin() as db:
        row = laps.leases.c.project == project
        if db.scalar(sa.select(laps.leases.c.token).where(row)) is None:
            db.execute(sa.insert(laps.leases).values(project=project, token=1))
        else:
            db.execute(sa.update(laps.leases).where(row).values(token=laps.leases.c.token + 1))
        token = db.scalar(sa.select(laps.leases.c.token).where(row))
    return Lease(project, int(token), ())


def test_a_decision_is_recorded_once_per_window_and_waiting_as_often_as_it_is_decided(
    engine: sa.Engine, name: str
) -> None:
    first = decisions.record_decision(engine, entry(name, evidence={"columns": ["size"]}, gain=0.7))
    assert decisions.record_decision(engine, entry(name)) == first
    assert decisions.find_decision(engine, first.id) == first
    for _ in range(2):
        decisions.record_decision(engine, entry(name, action="wait"))
    assert [d.action for d in decisions.list_decisions(engine, name)] == ["retrain", "wait", "wait"]
    assert decisions.list_decisions(engine, name, acting=True) == (first,)
    assert (first.state, decisions.find_last_decision(engine, name).state) == ("recorded", "done")  # type: ignore[union-attr]


def test_one_retraining_at_a_time(engine: sa.Engine, name: str) -> None:
    first = decisions.record_decision(engine, entry(name))
    with pytest.raises(RetrainingAlreadyOpen, match="under way"):
        decisions.record_decision(engine, entry(name, "2026-02-01"))
    assert decisions.record_decision(engine, entry(name, "2026-02-01", "stop")).open
    assert decisions.record_decision(engine, entry("other" + name)).open
    assert decisions.close_decision(engine, first.id, "skipped", "no longer wanted")
    assert decisions.find_pending_retraining(engine, name) is None
    assert decisions.record_decision(engine, entry(name, "2026-02-01")).open


def test_the_database_itself_refuses_a_second_open_retraining(engine: sa.Engine, name: str) -> None:
    decisions.record_decision(engine, entry(name))
    row = {**vars(entry(name, "2026-03-01")), "id": "x" + name[:20], "recorded": "now"}
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as db:
        db.execute(sa.insert(decisions.decisions).values(**row))


def test_a_claim_is_taken_over_only_from_the_dead(engine: sa.Engine, name: str) -> None:
    made = decisions.record_decision(engine, entry(name))
    decisions.record_announcement(engine, made.id)
    with leased(engine, name) as lease:
        claimed = decisions.claim_decision(engine, lease, made.id, "lap one")
        assert claimed is not None
        assert (claimed.state, claimed.claims, claimed.lap) == ("claimed", 1, "lap one")
        assert decisions.claim_decision(engine, lease, made.id, "lap one") == claimed
        assert decisions.claim_decision(engine, lease, made.id, "lap two") is None
    with leased(engine, name) as newer:
        taken = decisions.claim_decision(engine, newer, made.id, "lap two")
        assert taken is not None
        assert (taken.lap, taken.claims) == ("lap two", 2)
        with pytest.raises(LeaseLost):
            decisions.finish_claimed_decision(engine, lease, "lap one", "done", "too late")
        assert decisions.finish_claimed_decision(engine, newer, "lap two", "done", "promoted", made=7)
        assert decisions.claim_decision(engine, newer, made.id, "lap three") is None
    ended = decisions.find_decision(engine, made.id)
    assert ended is not None
    assert (ended.state, ended.note, ended.made, ended.told is None) == ("done", "promoted", 7, False)


def test_after_five_dead_laps_a_decision_is_given_up(engine: sa.Engine, name: str) -> None:
    made = decisions.record_decision(engine, entry(name))
    for n in range(decisions.MAX_CLAIMS):
        assert decisions.claim_decision(engine, stolen(engine, name), made.id, f"lap {n}") is not None
    assert decisions.claim_decision(engine, stolen(engine, name), made.id, "one more") is None
    ended = decisions.find_decision(engine, made.id)
    assert ended is not None
    assert (ended.state, str(ended.note)[:8]) == ("skipped", "given up")


def test_a_realised_gain_is_kept_as_it_was_found_first(engine: sa.Engine, name: str) -> None:
    made = decisions.record_decision(engine, entry(name))
    decisions.record_realized_gain(engine, made.id, 0.4)
    decisions.record_realized_gain(engine, made.id, 0.9)
    assert decisions.find_decision(engine, made.id).realised == 0.4  # type: ignore[union-attr]


def seen(start: str, mark: str = "a", **more: Any) -> WindowRecord:
    whole = {"origin": "ledger", "rows": 30, "labelled": 0, "closed": False, "looks": 1, "looked": "2026-01-02"}
    return WindowRecord(
        **{"version": 1, "start": start, "end": start + "Z", "mark": mark, "look": {"x": 1}, **whole, **more}
    )


def test_of_two_looks_at_the_same_window_at_once_one_counts(engine: sa.Engine, name: str) -> None:
    first = seen("2026-01-01")
    assert windows.save_window(engine, name, first, None)
    assert not windows.save_window(engine, name, first, None)
    second = seen("2026-01-01", "b", looks=2)
    assert windows.save_window(engine, name, second, first)
    assert not windows.save_window(engine, name, seen("2026-01-01", "c", looks=2), first)
    assert windows.list_windows(engine, name, 1) == (second,)
    assert windows.list_windows(engine, name, 2) == ()


def test_a_state_is_told_once_in_a_row(engine: sa.Engine, name: str) -> None:
    assert not decisions.record_notice(engine, name, "ok", "all well")
    told = [
        decisions.record_notice(engine, name, state, state) for state in ("drift", "drift", "retraining", "drift", "ok")
    ]
    assert told == [True, False, True, True, True]
    first, *others = decisions.list_unsent_notices(engine, name)
    decisions.record_notice_try(engine, first.id, taken=False)
    assert decisions.list_unsent_notices(engine, name)[0].tries == 1
    decisions.record_notice_try(engine, first.id, taken=True)
    assert [n.state for n in decisions.list_unsent_notices(engine, name)] == [n.state for n in others]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 3)),
        st.tuples(
            st.sampled_from(["tell", "begin", "crash", "claim", "finish", "skip", "late finish"]), st.integers(0, 5)
        ),
    ),
    max_size=40,
)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_decision_ends_in_at_most_one_finished_lap(steps: list[tuple[str, int]], engine: sa.Engine) -> None:
    """Whatever happens in whatever order: laps that die, come back as ghosts, and events that arrive twice."""
    project = uuid.uuid4().hex
    made: list[str] = []
    holders: list[tuple[Lease, str]] = []  # (lease, lap), the newest last: only that one is alive
    finished: dict[str, list[str]] = {}
    for step, n in steps:
        if step == "record":
            try:
                found = decisions.record_decision(engine, entry(project, f"window {n}"))
                made += [found.id] if found.id not in made else []
            except RetrainingAlreadyOpen:
                assert decisions.find_pending_retraining(engine, project) is not None
        elif step in ("begin", "crash"):  # a lap begins under a newer token; whoever had the lease is a ghost now
            holders.append((stolen(engine, project), uuid.uuid4().hex))
            laps.record_lap_start(engine, holders[-1][0], holders[-1][1], "a test")
        elif not made:
            continue
        elif step == "tell":
            decisions.record_announcement(engine, made[n % len(made)])
        elif not holders:
            continue
        elif step == "claim":
            lease, lap = holders[-1 - n % len(holders)]
            try:
                decisions.claim_decision(engine, lease, made[n % len(made)], lap)
            except LeaseLost:
                assert (lease, lap) != holders[-1]
        else:
            lease, lap = holders[-1] if step == "finish" else holders[-1 - n % len(holders)]
            before = {d.id for d in decisions.list_decisions(engine, project) if d.state == "claimed" and d.lap == lap}
            try:
                ended = decisions.finish_claimed_decision(
                    engine, lease, lap, "skipped" if step == "skip" else "done", "ended"
                )
            except LeaseLost:
                assert (lease, lap) != holders[-1]
            else:
                assert ended == bool(before)
                for id in before:
                    finished.setdefault(id, []).append(lap)
        alive = [d for d in decisions.list_decisions(engine, project) if d.open]
        assert len(alive) <= 1
    assert all(len(ended) == 1 for ended in finished.values())
    for one in decisions.list_decisions(engine, project):
        assert (one.state in ("done", "skipped")) == (one.id in finished or str(one.note).startswith("given up"))
