"""`windvane clean`: what goes, and above all what stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.many_versions import Many
from tests.support.served_models import PROJECT
from windvane.flows import cleanup
from windvane.ledger import laps as leases
from windvane.ledger import versions
from windvane.tasks.project import Project

pytestmark = pytest.mark.long


def cleaned(many: Many, keep: int | None, *, dry_run: bool = False) -> dict[str, object]:
    from windvane.tasks.console import SilentConsole

    return cleanup.clean_project(Project(many.root), keep, dry_run, SilentConsole())


def old(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    at = time.time() - days * 86_400
    os.utime(path, (at, at))
    return path


@pytest.fixture
def many(tmp_path: Path) -> Many:
    """Versions 1, 3 and 5 served one after the other; 2, 4 and 6 were refused."""
    many = Many(tmp_path)
    for number in range(2, 7):
        many.lap(number, accepted=number % 2 == 1)
    assert many.champion == 5
    return many


def test_refused_and_old_versions_go_and_what_can_serve_stays(many: Many) -> None:
    told = cleaned(many, 1)
    # 6 is the newest, 5 serves, 3 is what a rollback puts back.
    assert many.kept() == {3, 5, 6}
    assert told["versions"] == [1, 2, 4]
    assert told["freed"] > 0
    assert cleaned(many, 1)["freed"] == 0


def test_the_chain_of_rollbacks_is_kept_as_long_as_retention_says(many: Many) -> None:
    cleaned(many, 2)
    assert many.kept() == {1, 3, 5, 6}


def test_a_version_that_waits_for_its_verdict_stays(tmp_path: Path) -> None:
    many = Many(tmp_path)
    many.lap(2, accepted=False, judged=False)
    many.lap(3, accepted=False)
    many.lap(4, accepted=False)
    cleaned(many, 1)
    assert many.kept() == {1, 2, 4}


def test_after_a_rollback_the_champion_and_the_one_it_replaced_stay(many: Many) -> None:
    many.move(3, "rollback")
    cleaned(many, 1)
    assert many.kept() == {1, 3, 5, 6}


def test_versions_promoted_to_and_fro_do_not_hide_each_other() -> None:
    pairs = [(None, 1), (1, 2), (2, 1), (1, 2)]
    moves = tuple(versions.Promotion(a, b, "manual", "", "", True) for a, b in pairs)
    assert cleanup.trace_rollback_chain(moves) == [2, 1]
    assert cleanup.trace_rollback_chain(()) == []


def test_without_a_number_no_model_goes(many: Many) -> None:
    told = cleaned(many, None)
    assert many.kept() == {1, 2, 3, 4, 5, 6}
    assert told["versions"] == []
    assert "retention.versions is null" in many.folder.type("clean").out


def test_a_dry_run_shows_the_same_and_deletes_nothing(many: Many) -> None:
    shown = cleaned(many, 1, dry_run=True)
    assert many.kept() == {1, 2, 3, 4, 5, 6}
    assert (shown["freed"], shown["versions"]) == (0, [])
    told = cleaned(many, 1)
    assert (told["freed"], told["items"]) == (shown["found"], shown["items"])


def test_the_command_reads_params_and_says_what_it_freed(many: Many) -> None:
    many.folder.set(retention__versions=1)
    ran = many.folder.type("clean", "--json")
    assert ran.status == 0, ran.err
    assert ran.json["versions"] == [1, 2, 4]
    assert ran.json["freed"] == sum(item["bytes"] for item in ran.json["items"])
    assert "model files of version 4" in ran.err
    assert many.kept() == {3, 5, 6}


def test_a_collected_version_is_listed_and_cannot_serve(many: Many) -> None:
    cleaned(many, 1)
    told = {one["version"]: one for one in many.folder.type("versions", "--json").json["versions"]}
    assert told[4]["collected"] is not None
    assert told[3]["collected"] is None
    assert "deleted" in many.folder.type("versions").out
    ran = many.folder.type("promote", "4")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "version 4 of houses cannot serve: its model files were deleted on" in ran.err
    assert many.champion == 5


def test_what_a_rollback_can_reach_serves_again(many: Many) -> None:
    import shutil

    cleaned(many, 1)
    # A real promotion loads what is stored; Site's versions have all that the service needs.
    following = many.site.following()
    many.move(3, "rollback")
    following.poll()
    assert following.current is not None
    assert following.current.number == 3
    shutil.rmtree(many.root / ".windvane" / "serving")


def test_nobody_can_promote_what_is_being_deleted(many: Many) -> None:
    with leases.hold_lease(many.site.ledger, PROJECT, "a test", lambda holder: None) as lease:
        assert versions.record_deleted_files(many.site.ledger, lease, 4, "2026-01-01")
        with pytest.raises(versions.ChampionMoved, match="model files of version 4"):
            many.move(4)
        assert not versions.record_deleted_files(many.site.ledger, lease, 5, "2026-01-01")
        assert not versions.record_deleted_files(many.site.ledger, lease, 3, "2026-01-01")


def test_what_a_kill_left_half_deleted_goes_the_next_time(many: Many) -> None:
    with leases.hold_lease(many.site.ledger, PROJECT, "a test", lambda holder: None) as lease:
        versions.record_deleted_files(many.site.ledger, lease, 4, "2026-01-01")
    assert 4 in many.kept()
    cleaned(many, 1)
    assert 4 not in many.kept()


def test_files_that_cannot_be_deleted_are_left_and_named(many: Many, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cleanup.shutil, "rmtree", refuse)
    told = cleaned(many, 1)
    assert [one["why"] for one in told["left"]] == ["Permission denied"] * 3
    assert told["freed"] == 0
    kept = versions.find_version(many.site.ledger, PROJECT, 4)
    assert kept is not None
    assert kept.collected is None


def test_caches_go_by_age_and_records_never(many: Many) -> None:
    home = many.root / ".windvane"
    goes = [
        old(home / "history" / "abc.json", 40),
        old(home / "history" / "challengers" / "f" / "2020.skops", 40),
        old(home / "downloads" / "model" / "model.skops", 2),
        old(home / "scoring" / "abc" / "0.parquet", 40),
        old(home / "watch" / "source-3.parquet", 1),
        old(home / "watch" / "reports" / "3-2020.html", 400),
        old(home / "laps" / "f4" / "found.json", 0),
        old(home / "serving" / "2" / "model.skops", 0),
    ]
    stays = [
        old(home / "history" / "new.json", 1),
        old(home / "history" / "replay.png", 400),
        old(home / "downloads" / "x" / "model.skops", 0.5),
        old(home / "scoring" / "abd" / "0.parquet", 1),
        old(home / "watch" / "source-5.parquet", 100),
        old(home / "watch" / "last.json", 100),
        old(home / "watch" / "reports" / "5-2021.html", 300),
        old(home / "laps" / "unfinished" / "journal.log", 400),
        old(home / "serving" / "5" / "model.skops", 400),
        old(home / "serving" / "3" / "model.skops", 400),
        old(home / "serving" / ".6.abc.part" / "model.skops", 0),
        old(home / "artifacts" / "run-4" / "artifacts" / "record.parquet", 400),
        old(home / "ledger.key", 400),
    ]
    told = cleaned(many, None)
    assert [path for path in goes if path.exists()] == []
    assert [path for path in stays if not path.exists()] == []
    assert told["freed"] == 8 * 1000


def test_copies_of_the_champions_artifacts_stay_however_old(many: Many) -> None:
    from windvane.tasks.stores import mlflow_store, model_files

    folder = many.root / ".windvane" / "downloads"
    with many.site.ledger.begin() as db:
        db.exec_driver_sql("UPDATE versions SET model_uri = 'mlflow-artifacts:/1/r' || version || '/artifacts/model'")
    kept, gone = [], []
    for number, into in ((5, kept), (3, kept), (2, gone)):
        model = f"mlflow-artifacts:/1/r{number}/artifacts/model"
        for address in (model, mlflow_store.join_address(mlflow_store.get_parent_address(model), "record.parquet")):
            into.append(old(model_files.locate_artifact_copy(address, folder) / "x", 90))
    lock = old(folder / "abc.lock", 90)
    cleaned(many, None)
    assert [path for path in [*kept, lock] if not path.exists()] == []
    assert [path for path in gone if path.exists()] == []


def test_a_file_that_is_linked_elsewhere_frees_nothing(many: Many) -> None:
    work = many.root / ".windvane" / "laps" / "f4"
    work.mkdir(parents=True)
    kept = old(many.root / "cache", 0)
    os.link(kept, work / "rows.parquet")
    assert cleaned(many, None)["freed"] == 0
    assert not work.exists()
    assert kept.exists()


def test_a_lap_collects_at_its_end_what_retention_does_not_keep(many: Many) -> None:
    from types import SimpleNamespace

    from windvane.flows.lap.context import LapContext, finish_lap
    from windvane.ledger import laps
    from windvane.tasks.console import SilentConsole

    for retention, kept in ((None, {1, 2, 3, 4, 5, 6}), (1, {3, 5, 6})):
        many.folder.set(retention__versions=retention)
        with leases.hold_lease(many.site.ledger, PROJECT, "a test", lambda holder: None) as lease:
            lap = LapContext(Project(many.root), lease, "a test", "search", SilentConsole())
            laps.record_lap_start(many.site.ledger, lease, lap.id, "a test")
            finish_lap(lap, SimpleNamespace(to_json=dict, verdict="unchanged"))  # type: ignore[arg-type]
        assert many.kept() == kept


@pytest.mark.slow
def test_model_files_on_a_server_of_mlflows_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.mlflow_server import MlflowServer
    from windvane.tasks.stores import mlflow_client

    (tmp_path / "project").mkdir()
    many = Many(tmp_path / "project")
    many.lap(2, accepted=False)
    many.lap(3, accepted=False)
    server = MlflowServer(tmp_path / "server", f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "store").as_uri()).start()
    try:
        server.wait()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        tracker = Project(many.root).tracker
        run = tracker.start("a lap", "lap-2", {})
        tracker.store(run, many.model(2), "model")
        address = tracker.address(run, "model")
        tracker.client.create_registered_model(PROJECT)
        tracker.client.create_model_version(PROJECT, address, run)
        with many.site.ledger.begin() as db:
            db.exec_driver_sql(f"UPDATE versions SET model_uri = '{address}', run_id = '{run}' WHERE version = 2")
        size = sum(path.stat().st_size for path in many.model(2).iterdir())
        assert mlflow_client.measure_artifacts(address, server.url) == size
        told = cleaned(many, 1)
        assert (told["versions"], told["left"], told["freed"]) == ([2], [], size)
        assert tracker.client.list_artifacts(run, "model") == []
    finally:
        server.kill()


def test_it_waits_for_a_lap_that_runs(many: Many) -> None:
    work = many.root / ".windvane" / "laps" / "f4"
    old(work / "journal.log", 0)
    command = [sys.executable, "-m", "windvane.cli.main", "clean"]
    with leases.hold_lease(many.site.ledger, PROJECT, "windvane train", lambda holder: None):
        running = subprocess.Popen(command, cwd=many.root, stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        assert running.stdout.readline().startswith("waiting for windvane train (process ")
        assert work.exists()
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, work.exists()) == (0, False), out


def test_retention_is_validated() -> None:
    from windvane.tasks.errors import InputError
    from windvane.tasks.settings import project_params

    base = {"project": "x", "problem": {"kind": "regression", "target": "y"}, "data": {"source": "t.csv"}}
    assert project_params.parse_settings(base).retention.versions is None
    with pytest.raises(InputError, match=r"retention\.versions"):
        project_params.parse_settings({**base, "retention": {"versions": 0}})
    with pytest.raises(InputError, match=r"retention.version: unknown key. Did you mean retention.versions"):
        project_params.parse_settings({**base, "retention": {"version": 3}})
