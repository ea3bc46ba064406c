"""The ledger, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

import json
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

from windvane.ledger import database, laps, versions
from windvane.ledger.schema import metadata
from windvane.ledger.versions import GateJudgement, Version, VersionFacts


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = f"sqlite:///{tmp_path / 'ledger.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = database.connect_ledger(url)
    yield engine
    engine.dispose()


@pytest.fixture
def project() -> str:
    return f"p{uuid4().hex}"


def quiet(_: laps.LeaseHolder) -> None:
    pass


def version(number: int, mark: str = "f") -> Version:
    return Version(
        number, f"{mark}{number}", "run", "uri", "m", "r", "d", None, VersionFacts(), database.now_timestamp()
    )


def test_migrations_make_exactly_the_tables_of_the_schema(engine: sa.Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_a_known_ledger_is_opened_without_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    database.connect_ledger(url).dispose()
    code = f"import sys; from windvane.ledger import database; database.connect_ledger({url!r}); assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.long
def test_processes_that_start_at_once_on_a_new_ledger_all_find_it(tmp_path: Path) -> None:
    connected = f"database.connect_ledger('sqlite:///{tmp_path}/new/ledger.db')"
    code = f"from windvane.ledger import database, laps; laps.find_newest_lap({connected}, 'p')"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait(60) for process in started] == [0, 0, 0, 0]


def test_one_holder_at_a_time_and_the_next_names_whom_it_waited_for(engine: sa.Engine, project: str) -> None:
    inside, order, waited = threading.Event(), list[str](), list[str]()

    def second() -> None:
        inside.wait()
        with laps.hold_lease(engine, project, "second", lambda holder: waited.append(str(holder))) as lease:
            order.append("second")
            assert lease.token == 2
            assert "first" in lease.waited_for[0]

    thread = threading.Thread(target=second)
    thread.start()
    with laps.hold_lease(engine, project, "first", quiet):
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
        holder = {**vars(laps.LeaseHolder.me("killed")), "pid": dead.pid}
        db.execute(sa.insert(laps.leases).values(project=project, token=7, holder=holder, expires="9999"))
    with laps.hold_lease(engine, project, "next", quiet) as lease:
        assert lease.token == 8
        with pytest.raises(laps.LeaseLost), engine.begin() as db:
            laps.check_lease(db, laps.Lease(project, 7, ()))


def test_a_lap_left_running_is_abandoned_only_for_a_later_holder(engine: sa.Engine, project: str) -> None:
    with laps.hold_lease(engine, project, "a", quiet) as first:
        laps.record_lap_start(engine, first, lap := uuid4().hex, "by hand")
        assert laps.list_abandoned_laps(engine, first) == ()
    with laps.hold_lease(engine, project, "b", quiet) as second:
        assert [dead.id for dead in laps.list_abandoned_laps(engine, second)] == [lap]
        laps.record_lap_end(engine, lap, "crashed")
        assert laps.list_abandoned_laps(engine, second) == ()


def test_an_overtaken_lap_cannot_promote(engine: sa.Engine, project: str) -> None:
    with laps.hold_lease(engine, project, "old", quiet) as old:
        versions.record_version(engine, old, version(1))
        with engine.begin() as db:
            db.execute(sa.update(laps.leases).where(laps.leases.c.project == project).values(token=old.token + 1))
        move = versions.make_promotion(None, 1, "lap", "better")
        with pytest.raises(laps.LeaseLost):
            versions.record_judgement(
                engine, old, GateJudgement(1, None, "g", True, {}, database.now_timestamp()), move
            )
    assert versions.find_champion(engine, project) is None
    assert versions.count_judgements(engine, project, 1) == 0


def test_verdict_and_promotion_stand_together_or_not_at_all(engine: sa.Engine, project: str) -> None:
    with laps.hold_lease(engine, project, "lap", quiet) as lease:
        versions.record_version(engine, lease, version(1))
        versions.record_version(engine, lease, version(2))
        accepted = GateJudgement(1, None, "g", True, {}, database.now_timestamp())
        versions.record_judgement(engine, lease, accepted, versions.make_promotion(None, 1, "lap", "first"))
        stale = versions.make_promotion(None, 2, "lap", "judged against nobody, but 1 serves now")
        with pytest.raises(versions.ChampionMoved):
            versions.record_judgement(
                engine, lease, GateJudgement(2, None, "g", True, {}, database.now_timestamp()), stale
            )
    champion = versions.find_champion(engine, project)
    assert champion is not None
    assert champion.version == 1
    assert versions.find_judgement(engine, project, 2, "g") is None


def test_a_fingerprint_is_registered_once(engine: sa.Engine, project: str) -> None:
    with laps.hold_lease(engine, project, "lap", quiet) as lease:
        versions.record_version(engine, lease, version(1))
        versions.record_version(engine, lease, Version(**{**vars(version(1)), "version": 2}))
    assert versions.find_version(engine, project, 2) is None


def test_going_back_twice_goes_back_two_versions(engine: sa.Engine, project: str) -> None:
    def move(old: int | None, new: int, cause: str) -> None:
        versions.record_promotion(engine, project, versions.make_promotion(old, new, cause, ""))

    with laps.hold_lease(engine, project, "lap", quiet) as lease:
        for number in (1, 2, 3):
            versions.record_version(engine, lease, version(number))
    move(None, 1, "lap")
    move(1, 2, "lap")
    move(2, 3, "lap")
    assert versions.find_previous_champion(engine, project, 3) == 2
    move(3, 2, "rollback")
    assert versions.find_previous_champion(engine, project, 2) == 1
    move(2, 1, "rollback")
    assert versions.find_previous_champion(engine, project, 1) is None


def test_the_test_side_opens_once_and_a_cut_off_opening_is_counted(engine: sa.Engine, project: str) -> None:
    assert versions.find_opening(engine, project, "f") is None
    assert versions.open_test_split(engine, project, "f").attempts == 1
    assert versions.open_test_split(engine, project, "f").attempts == 2
    versions.close_test_split(engine, project, "f", "sha", [1, 2, 3])
    versions.close_test_split(engine, project, "f", "other", [1, 2, 3])
    opening = versions.find_opening(engine, project, "f")
    assert opening is not None
    assert (opening.attempts, opening.record_sha256) == (2, "sha")
    assert versions.count_earlier_judgements(engine, project, [1, 2, 3, 4]) == {1: 1, 2: 1, 3: 1}


@pytest.mark.long
@settings(deadline=None)
@given(st.lists(st.sets(st.integers(-(2**63), 2**63 - 1), max_size=30), max_size=5))
def test_each_row_is_counted_once_per_opening(sides: list[set[int]]) -> None:
    engine, project = database.connect_ledger("sqlite://"), uuid4().hex
    for number, side in enumerate(sides):
        versions.open_test_split(engine, project, str(number))
        versions.close_test_split(engine, project, str(number), "sha", [*side, *side])
    everything = sorted(set().union(*sides)) if sides else []
    expected = {row: sum(row in side for side in sides) for row in everything}
    assert versions.count_earlier_judgements(engine, project, everything) == expected


def test_facts_come_back_from_the_ledger_as_they_were_and_only_few_have_more(engine: sa.Engine, project: str) -> None:
    facts = VersionFacts(kind="regression", target="price", columns={"numbers": ["x"]}, taught_until=3.5, digest=True)
    assert not {"rows", "classes", "collected"} & set(facts.to_json())
    known = Version(**{**vars(version(1)), "facts": facts})
    assert Version.from_json(json.loads(json.dumps(known.to_json()))) == known
    with laps.hold_lease(engine, project, "test", quiet) as lease:
        versions.record_version(engine, lease, known)
    assert versions.find_version(engine, project, 1) == known
    assert facts.column_names == {"x"}
