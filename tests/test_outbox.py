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

from windvane.ledger import decisions, laps, leases, notices, store, windows
from windvane.ledger.decisions import AlreadyOpen, Entry
from windvane.ledger.leases import Lease, LeaseLost
from windvane.ledger.windows import Seen


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> sa.Engine:
    if request.param == "sqlite":
        return store.connect(f"sqlite:///{tmp_path / 'ledger.db'}")
    return store.connect(request.getfixturevalue("postgres"))


@pytest.fixture
def name() -> str:
    """A project of the test's own: all tests share the PostgreSQL."""
    return uuid.uuid4().hex


def entry(project: str, window: str = "2026-01-01", action: str = "retrain", **more: Any) -> Entry:
    return Entry(project, 1, window, "2026-02-01", action, "because", **more)


@contextmanager
def leased(engine: sa.Engine, project: str) -> Iterator[Lease]:
    with leases.hold(engine, project, "a test", lambda _: None) as lease:
        yield lease


def stolen(engine: sa.Engine, project: str) -> Lease:
    """The lease as another process gets it once the holder is dead."""
    with engine.begin() as db:
        row = leases.leases.c.project == project
        if db.scalar(sa.select(leases.leases.c.token).where(row)) is None:
            db.execute(sa.insert(leases.leases).values(project=project, token=1))
        else:
            db.execute(sa.update(leases.leases).where(row).values(token=leases.leases.c.token + 1))
        token = db.scalar(sa.select(leases.leases.c.token).where(row))
    return Lease(project, int(token), ())


def test_a_decision_is_recorded_once_per_window_and_waiting_as_often_as_it_is_decided(
    engine: sa.Engine, name: str
) -> None:
    first = decisions.record(engine, entry(name, evidence={"columns": ["size"]}, gain=0.7))
    assert decisions.record(engine, entry(name)) == first
    assert decisions.numbered(engine, first.id) == first
    for _ in range(2):
        decisions.record(engine, entry(name, action="wait"))
    assert [d.action for d in decisions.listed(engine, name)] == ["retrain", "wait", "wait"]
    assert decisions.listed(engine, name, acting=True) == (first,)
    assert (first.state, decisions.last(engine, name).state) == ("recorded", "done")  # type: ignore[union-attr]


def test_one_retraining_at_a_time(engine: sa.Engine, name: str) -> None:
    first = decisions.record(engine, entry(name))
    with pytest.raises(AlreadyOpen, match="under way"):
        decisions.record(engine, entry(name, "2026-02-01"))
    assert decisions.record(engine, entry(name, "2026-02-01", "stop")).open
    assert decisions.record(engine, entry("other" + name)).open
    assert decisions.close(engine, first.id, "skipped", "no longer wanted")
    assert decisions.pending(engine, name) is None
    assert decisions.record(engine, entry(name, "2026-02-01")).open


def test_the_database_itself_refuses_a_second_open_retraining(engine: sa.Engine, name: str) -> None:
    decisions.record(engine, entry(name))
    row = {**vars(entry(name, "2026-03-01")), "id": "x" + name[:20], "recorded": "now"}
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as db:
        db.execute(sa.insert(decisions.decisions).values(**row))


def test_a_claim_is_taken_over_only_from_the_dead(engine: sa.Engine, name: str) -> None:
    made = decisions.record(engine, entry(name))
    decisions.tell(engine, made.id)
    with leased(engine, name) as lease:
        claimed = decisions.claim(engine, lease, made.id, "lap one")
        assert claimed is not None
        assert (claimed.state, claimed.claims, claimed.lap) == ("claimed", 1, "lap one")
        assert decisions.claim(engine, lease, made.id, "lap one") == claimed
        assert decisions.claim(engine, lease, made.id, "lap two") is None
    with leased(engine, name) as newer:
        taken = decisions.claim(engine, newer, made.id, "lap two")
        assert taken is not None
        assert (taken.lap, taken.claims) == ("lap two", 2)
        with pytest.raises(LeaseLost):
            decisions.finish(engine, lease, "lap one", "done", "too late")
        assert decisions.finish(engine, newer, "lap two", "done", "promoted", made=7)
        assert decisions.claim(engine, newer, made.id, "lap three") is None
    ended = decisions.numbered(engine, made.id)
    assert ended is not None
    assert (ended.state, ended.note, ended.made, ended.told is None) == ("done", "promoted", 7, False)


def test_after_five_dead_laps_a_decision_is_given_up(engine: sa.Engine, name: str) -> None:
    made = decisions.record(engine, entry(name))
    for n in range(decisions.MOST_CLAIMS):
        assert decisions.claim(engine, stolen(engine, name), made.id, f"lap {n}") is not None
    assert decisions.claim(engine, stolen(engine, name), made.id, "one more") is None
    ended = decisions.numbered(engine, made.id)
    assert ended is not None
    assert (ended.state, str(ended.note)[:8]) == ("skipped", "given up")


def test_a_realised_gain_is_kept_as_it_was_found_first(engine: sa.Engine, name: str) -> None:
    made = decisions.record(engine, entry(name))
    decisions.realise(engine, made.id, 0.4)
    decisions.realise(engine, made.id, 0.9)
    assert decisions.numbered(engine, made.id).realised == 0.4  # type: ignore[union-attr]


def seen(start: str, mark: str = "a", **more: Any) -> Seen:
    whole = {"origin": "ledger", "rows": 30, "labelled": 0, "closed": False, "looks": 1, "looked": "2026-01-02"}
    return Seen(**{"version": 1, "start": start, "end": start + "Z", "mark": mark, "look": {"x": 1}, **whole, **more})


def test_of_two_looks_at_the_same_window_at_once_one_counts(engine: sa.Engine, name: str) -> None:
    first = seen("2026-01-01")
    assert windows.save(engine, name, first, None)
    assert not windows.save(engine, name, first, None)
    second = seen("2026-01-01", "b", looks=2)
    assert windows.save(engine, name, second, first)
    assert not windows.save(engine, name, seen("2026-01-01", "c", looks=2), first)
    assert windows.of(engine, name, 1) == (second,)
    assert windows.of(engine, name, 2) == ()


def test_a_state_is_told_once_in_a_row(engine: sa.Engine, name: str) -> None:
    assert not notices.add(engine, name, "ok", "all well")
    told = [notices.add(engine, name, state, state) for state in ("drift", "drift", "retraining", "drift", "ok")]
    assert told == [True, False, True, True, True]
    first, *others = notices.untold(engine, name)
    notices.tried(engine, first.id, taken=False)
    assert notices.untold(engine, name)[0].tries == 1
    notices.tried(engine, first.id, taken=True)
    assert [n.state for n in notices.untold(engine, name)] == [n.state for n in others]


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
                found = decisions.record(engine, entry(project, f"window {n}"))
                made += [found.id] if found.id not in made else []
            except AlreadyOpen:
                assert decisions.pending(engine, project) is not None
        elif step in ("begin", "crash"):  # a lap begins under a newer token; whoever had the lease is a ghost now
            holders.append((stolen(engine, project), uuid.uuid4().hex))
            laps.start(engine, holders[-1][0], holders[-1][1], "a test")
        elif not made:
            continue
        elif step == "tell":
            decisions.tell(engine, made[n % len(made)])
        elif not holders:
            continue
        elif step == "claim":
            lease, lap = holders[-1 - n % len(holders)]
            try:
                decisions.claim(engine, lease, made[n % len(made)], lap)
            except LeaseLost:
                assert (lease, lap) != holders[-1]
        else:
            lease, lap = holders[-1] if step == "finish" else holders[-1 - n % len(holders)]
            before = {d.id for d in decisions.listed(engine, project) if d.state == "claimed" and d.lap == lap}
            try:
                ended = decisions.finish(engine, lease, lap, "skipped" if step == "skip" else "done", "ended")
            except LeaseLost:
                assert (lease, lap) != holders[-1]
            else:
                assert ended == bool(before)
                for id in before:
                    finished.setdefault(id, []).append(lap)
        alive = [d for d in decisions.listed(engine, project) if d.open]
        assert len(alive) <= 1
    assert all(len(ended) == 1 for ended in finished.values())
    for one in decisions.listed(engine, project):
        assert (one.state in ("done", "skipped")) == (one.id in finished or str(one.note).startswith("given up"))
