"""The ledger, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from windvane.ledger import laps, leases, openings, store, versions
from windvane.ledger.schema import metadata
from windvane.ledger.versions import Judgement, Version


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = store.connect(url)
    yield engine
    engine.dispose()


@pytest.fixture
def project() -> str:
    return f"p{uuid4().hex}"


def quiet(_: leases.Holder) -> None:
    pass


def version(number: int, mark: str = "f") -> Version:
    return Version(number, f"{mark}{number}", "run", "uri", "m", "r", "d", None, {}, store.now())


def test_migrations_make_exactly_the_tables_of_the_schema(engine: sa.Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_a_known_ledger_is_opened_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    store.connect(url).dispose()
    code = f"import sys; from windvane.ledger import store; store.connect({url!r}); assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_processes_that_start_at_once_on_a_new_ledger_all_find_it(tmp_path: Path) -> None:
    code = f"from windvane.ledger import store, laps; laps.newest(store.connect('sqlite:///{tmp_path}/new/ledger.db'), 'p')"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]


def test_one_holder_at_a_time_and_the_next_names_whom_it_waited_for(engine: sa.Engine, project: str) -> None:
    inside, order, waited = threading.Event(), list[str](), list[str]()

    def second() -> None:
        inside.wait()
        with leases.hold(engine, project, "second", lambda holder: waited.append(str(holder))) as lease:
            order.append("second")
            assert lease.token == 2
            assert "first" in lease.waited_for[0]

    thread = threading.Thread(target=second)
    thread.start()
    with leases.hold(engine, project, "first", quiet):
        inside.set()
        while not waited:
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(waited) == 1


def test_the_lease_of_a_killed_process_is_taken_at_once_and_its_token_is_worthless(
    engine: sa.Engine, project: str
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    with engine.begin() as db:
        holder = {**vars(leases.Holder.me("killed")), "pid": dead.pid}
        db.execute(sa.insert(leases.leases).values(project=project, token=7, holder=holder, expires="9999"))
    with leases.hold(engine, project, "next", quiet) as lease:
        assert lease.token == 8
        with pytest.raises(leases.LeaseLost), engine.begin() as db:
            leases.check(db, leases.Lease(project, 7, ()))


def test_a_lap_left_running_is_abandoned_only_for_a_later_holder(engine: sa.Engine, project: str) -> None:
    with leases.hold(engine, project, "a", quiet) as first:
        laps.start(engine, first, lap := uuid4().hex, "by hand")
        assert laps.abandoned(engine, first) == ()
    with leases.hold(engine, project, "b", quiet) as second:
        assert [dead.id for dead in laps.abandoned(engine, second)] == [lap]
        laps.end(engine, lap, "crashed")
        assert laps.abandoned(engine, second) == ()


def test_an_overtaken_lap_cannot_promote(engine: sa.Engine, project: str) -> None:
    with leases.hold(engine, project, "old", quiet) as old:
        versions.add(engine, old, version(1))
        with engine.begin() as db:
            db.execute(sa.update(leases.leases).where(leases.leases.c.project == project).values(token=old.token + 1))
        move = versions.promotion(None, 1, "lap", "better")
        with pytest.raises(leases.LeaseLost):
            versions.decide(engine, old, Judgement(1, None, "g", True, {}, store.now()), move)
    assert versions.champion(engine, project) is None
    assert versions.times_judged(engine, project, 1) == 0


def test_verdict_and_promotion_stand_together_or_not_at_all(engine: sa.Engine, project: str) -> None:
    with leases.hold(engine, project, "lap", quiet) as lease:
        versions.add(engine, lease, version(1))
        versions.add(engine, lease, version(2))
        accepted = Judgement(1, None, "g", True, {}, store.now())
        versions.decide(engine, lease, accepted, versions.promotion(None, 1, "lap", "first"))
        stale = versions.promotion(None, 2, "lap", "judged against nobody, but 1 serves now")
        with pytest.raises(versions.ChampionMoved):
            versions.decide(engine, lease, Judgement(2, None, "g", True, {}, store.now()), stale)
    champion = versions.champion(engine, project)
    assert champion is not None
    assert champion.version == 1
    assert versions.judged(engine, project, 2, "g") is None


def test_a_fingerprint_is_registered_once(engine: sa.Engine, project: str) -> None:
    with leases.hold(engine, project, "lap", quiet) as lease:
        versions.add(engine, lease, version(1))
        versions.add(engine, lease, Version(**{**vars(version(1)), "version": 2}))
    assert versions.numbered(engine, project, 2) is None


def test_going_back_twice_goes_back_two_versions(engine: sa.Engine, project: str) -> None:
    def move(old: int | None, new: int, cause: str) -> None:
        versions.promote(engine, project, versions.promotion(old, new, cause, ""))

    with leases.hold(engine, project, "lap", quiet) as lease:
        for number in (1, 2, 3):
            versions.add(engine, lease, version(number))
    move(None, 1, "lap")
    move(1, 2, "lap")
    move(2, 3, "lap")
    assert versions.before(engine, project, 3) == 2
    move(3, 2, "rollback")
    assert versions.before(engine, project, 2) == 1
    move(2, 1, "rollback")
    assert versions.before(engine, project, 1) is None


def test_the_test_side_opens_once_and_a_cut_off_opening_is_counted(engine: sa.Engine, project: str) -> None:
    assert openings.find(engine, project, "f") is None
    assert openings.open_side(engine, project, "f").attempts == 1
    assert openings.open_side(engine, project, "f").attempts == 2
    openings.close_side(engine, project, "f", "sha", [1, 2, 3])
    openings.close_side(engine, project, "f", "other", [1, 2, 3])
    opening = openings.find(engine, project, "f")
    assert opening is not None
    assert (opening.attempts, opening.record_sha256) == (2, "sha")
    assert openings.judged_before(engine, project, [1, 2, 3, 4]) == {1: 1, 2: 1, 3: 1}


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(-(2**63), 2**63 - 1), max_size=30), max_size=5))
def test_each_row_is_counted_once_per_opening(sides: list[set[int]]) -> None:
    engine, project = store.connect("sqlite://"), uuid4().hex
    for number, side in enumerate(sides):
        openings.open_side(engine, project, str(number))
        openings.close_side(engine, project, str(number), "sha", [*side, *side])
    everything = sorted(set().union(*sides)) if sides else []
    expected = {row: sum(row in side for side in sides) for row in everything}
    assert openings.judged_before(engine, project, everything) == expected
