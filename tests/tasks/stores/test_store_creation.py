"""Stores are made whole or not at all: kills at named points, half-made files of older code, upgrades, and templates of junk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks import first_starts
from tests.support.projects import ROOT
from windvane.ledger import database, sqlite_files
from windvane.ledger.schema import HEAD_REVISION, REVISIONS
from windvane.tasks.errors import Corrupted, WindvaneError
from windvane.tasks.stores import mlflow_store
from windvane.tasks.stores.mlflow_client import MlflowTracker

pytestmark = pytest.mark.long

POINTS = ("store: begin", "ledger: before commit", "store: migrated", "store: settled", "store: renamed")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests of a session fill once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def templates(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache / "windvane"


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store of ten migrations ago, with runs."""
    path = tmp_path_factory.mktemp("old") / "mlflow.db"
    first_starts.make_old(path)
    return path


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def run_of(home: Path) -> str:
    """A run in the project's own store, which must work."""
    tracker = MlflowTracker("p", home, None)
    run = tracker.start("a run", "lap", {})
    tracker.end(run)
    return run


def whole(path: Path) -> bool:
    known = sqlite_files.inspect_database(path)
    return (
        known is not None
        and not known.half_made
        and sqlite_files.is_database_sound(path)
        and not list(path.parent.glob(".*.part*"))
    )


@pytest.mark.parametrize("point", POINTS)
def test_a_ledger_whose_making_was_killed_is_made_by_the_next_start(tmp_path: Path, point: str) -> None:
    code = f"from windvane.ledger import database; database.connect_ledger('sqlite:///{tmp_path}/ledger.db')"
    env = {**os.environ, "WINDVANE_FAILPOINT": point}
    killed = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "ledger.db").exists() == (point == "store: renamed")
    database.connect_ledger(f"sqlite:///{tmp_path}/ledger.db").dispose()
    assert whole(tmp_path / "ledger.db")


def test_an_empty_ledger_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    database.connect_ledger(f"sqlite:///{tmp_path}/ledger.db").dispose()
    assert whole(tmp_path / "ledger.db")


def test_a_log_that_a_deleted_ledger_left_is_not_read_into_the_next(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    first = database.connect_ledger(url)
    with first.begin() as db:
        db.execute(sa.text("insert into leases values ('p', 1, null, null)"))
    log = (tmp_path / "ledger.db-wal").read_bytes()
    first.dispose()
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    (tmp_path / "ledger.db-wal").write_bytes(log)
    again = database.connect_ledger(url)
    with again.connect() as db:
        assert db.scalar(sa.text("select count(*) from leases")) == 0
        assert db.scalar(sa.text("pragma integrity_check")) == "ok"
    again.dispose()


def older_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import command

    upgrade = command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, _: upgrade(config, REVISIONS[0]))
        engine = database.connect_ledger(f"sqlite:///{path}")
    with engine.begin() as db:
        db.execute(sa.text("insert into leases values ('p', 41, null, null)"))
    engine.dispose()


def test_an_upgrade_of_a_ledger_keeps_a_copy_of_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, told = tmp_path / "ledger.db", list[Path]()
    older_ledger(path, monkeypatch)
    database.connect_ledger(f"sqlite:///{path}", told.append).dispose()
    assert sqlite_files.inspect_database(path).revision == HEAD_REVISION  # type: ignore[union-attr]
    assert told == sqlite_files.list_backups(path)
    assert sqlite_files.inspect_database(told[0]).revision == REVISIONS[0]  # type: ignore[union-attr]
    assert rows(told[0], "select token from leases") == rows(path, "select token from leases") == [(41,)]


@pytest.mark.parametrize("point", ["store: migrated", "ledger: before commit"])
def test_an_upgrade_of_a_ledger_that_is_killed_has_changed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    path = tmp_path / "ledger.db"
    older_ledger(path, monkeypatch)
    code = f"from windvane.ledger import database; database.connect_ledger('sqlite:///{path}')"
    env = {**os.environ, "WINDVANE_FAILPOINT": point}
    assert subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert sqlite_files.inspect_database(path).revision == REVISIONS[0]  # type: ignore[union-attr]
    database.connect_ledger(f"sqlite:///{path}").dispose()
    assert sqlite_files.inspect_database(path).revision == HEAD_REVISION  # type: ignore[union-attr]
    assert rows(path, "select token from leases") == [(41,)]


def test_a_ledger_of_a_newer_windvane_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    engine = database.connect_ledger(url)
    with engine.begin() as db:
        db.execute(sa.text("update alembic_version set version_num = '0999'"))
    engine.dispose()
    with pytest.raises(database.NewerLedger, match="0999"):
        database.connect_ledger(url)
    assert rows(tmp_path / "ledger.db", "select version_num from alembic_version") == [("0999",)]


def half_made(path: Path, templates: Path, *statements: str) -> None:
    """A store as a kill in the middle of MLflow's own migrations leaves it."""
    with closing(sqlite3.connect(path)) as db:
        for statement in ("create table _alembic_tmp_metrics (key text)", *statements):
            db.execute(statement)
        db.commit()


def test_a_half_made_store_without_runs_is_made_anew(tmp_path: Path, templates: Path) -> None:
    half_made(tmp_path / "mlflow.db", templates, "create table runs (run_uuid text)", "create table metrics (key text)")
    assert run_of(tmp_path)
    assert whole(tmp_path / "mlflow.db")


def test_a_store_that_lost_its_revision_is_not_trusted(tmp_path: Path, templates: Path) -> None:
    run_of(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db:
        db.execute("drop table alembic_version")
        db.commit()
    before = rows(tmp_path / "mlflow.db", "select run_uuid from runs")
    with pytest.raises(WindvaneError, match=r"cut short once.*nothing was changed now. Restore it from a backup"):
        MlflowTracker("p", tmp_path, None)
    assert rows(tmp_path / "mlflow.db", "select run_uuid from runs") == before


def test_a_half_made_store_with_history_is_finished_on_a_copy(
    tmp_path: Path, templates: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(old.read_bytes())
    half_made(path, templates)
    assert run_of(tmp_path)
    assert whole(path)
    (copy,) = sqlite_files.list_backups(path)
    assert str(copy) in capsys.readouterr().err
    assert "_alembic_tmp_metrics" in sqlite_files.inspect_database(copy).tables  # type: ignore[union-attr]
    assert set(rows(old, "select run_uuid from runs")) < set(rows(path, "select run_uuid from runs"))
    assert set(rows(old, "select value from metrics")) == set(rows(path, "select value from metrics"))


def test_an_older_store_is_upgraded_and_nothing_is_lost(tmp_path: Path, templates: Path, old: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(old.read_bytes())
    run_of(tmp_path)
    (copy,) = sqlite_files.list_backups(path)
    assert rows(copy, first_starts.HISTORY) == rows(old, first_starts.HISTORY)
    assert len(rows(path, "select * from runs")) == first_starts.RUNS + 1
    run_of(tmp_path)
    assert sqlite_files.list_backups(path) == [copy]


def test_a_store_of_a_newer_mlflow_is_left_alone(tmp_path: Path, templates: Path) -> None:
    run_of(tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db:
        db.execute("update alembic_version set version_num = 'fffffffffff0'")
        db.commit()
    with pytest.raises(WindvaneError, match="written by a newer MLflow"):
        MlflowTracker("p", tmp_path, None)


def test_a_damaged_store_says_so(tmp_path: Path, templates: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 500)
    with pytest.raises(Corrupted, match=r"mlflow.db: is damaged.*Restore it from a backup"):
        MlflowTracker("p", tmp_path, None)
    assert (tmp_path / "mlflow.db").read_bytes() == b"no database at all" * 500


@pytest.mark.parametrize("junk", ["bytes", "empty", "half made", "other tables", "truncated"])
def test_a_template_of_junk_bricks_nothing(tmp_path: Path, templates: Path, cache: Path, junk: str) -> None:
    run_of(tmp_path / "first")  # the template is there
    template = mlflow_store._template()
    good = template.read_bytes()
    try:
        if junk == "bytes":
            template.write_bytes(os.urandom(50_000))
        elif junk == "empty":
            template.write_bytes(b"")
        elif junk == "truncated":
            template.write_bytes(good[: len(good) // 2])
        else:
            with closing(sqlite3.connect(template)) as db:
                db.execute("create table _alembic_tmp_runs (x)" if junk == "half made" else "drop table spans")
                db.commit()
        assert run_of(tmp_path / "second")
        assert whole(tmp_path / "second" / "mlflow.db")
    finally:
        template.write_bytes(good)


def test_the_champion_is_read_without_mlflow(tmp_path: Path) -> None:
    assert mlflow_store.read_champion_alias(tmp_path / "mlflow.db", "p") is None
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db:
        db.execute("create table registered_model_aliases (name, alias, version)")
        db.execute("insert into registered_model_aliases values ('p', 'champion', 3)")
        db.commit()
    assert mlflow_store.read_champion_alias(tmp_path / "mlflow.db", "p") == "3"
    assert mlflow_store.read_champion_alias(tmp_path / "mlflow.db", "q") is None


@pytest.mark.slow
def test_a_dozen_kills_and_a_few_full_disks_brick_no_store(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.first_starts",
        "--kills=12",
        "--disks=4",
        "--rounds=1",
        "--failpoints=0",
    ]
    done = subprocess.run(
        [*command, "--seed=5", f"--kept={tmp_path / 'kept'}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "0 violations" in done.stdout
