"""Whole laps over sources and sizes that other tests see one stage at a time: a sample, packed parts, a bucket."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.flows.test_training_lap import ledger
from tests.support.projects import ROOT, Folder, quick_project
from tests.support.storage_server import Storage
from windvane.tasks.ingest import ingestion
from windvane.tasks.settings import project_params
from windvane.tasks.sources import snapshot
from windvane.tasks.validate.table_profile import TABLE_FILE

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = quick_project(tmp_path / "project")
    made.set(search__candidates=["linear"], search__trials=1)
    return made


def parts() -> list[bytes]:
    """The default project's table in four packed files, in the order of time."""
    whole = pd.read_csv(ROOT / "data" / "txhousing.csv").sort_values("ts", kind="stable")
    step = -(-len(whole) // 4)
    chunks = [whole.iloc[at : at + step] for at in range(0, len(whole), step)]
    return [gzip.compress(chunk.to_csv(index=False).encode(), mtime=0) for chunk in chunks]


def rows(folder: Folder) -> pd.DataFrame:
    return pd.read_parquet(folder.path / TABLE_FILE)


def test_a_lap_on_a_sample_says_so_and_one_on_all_rows_does_not(folder: Folder, prefect_server: str) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    folder.set(data__max_rows=1000)
    ran = folder.run("train", "--json", env=env)
    assert ran.status == 0, ran.err
    assert ran.json["verdict"] == "promoted"
    assert "models are fitted on 1,000 of 7,986 rows (the newest)" in ran.err
    (noted,) = ledger(folder, "select facts from versions where version = 1")[0]
    table = rows(folder)
    labelled = table[table["median"].notna()]
    assert json.loads(noted)["taught_until"] == labelled["ts"].max().isoformat()
    assert folder.train(env=env)["verdict"] == "unchanged"

    folder.set(data__max_rows=None)
    ran = folder.run("train", "--json", env=env)
    assert ran.status == 0, ran.err
    assert ran.json["verdict"] != "unchanged"
    assert "models are fitted on" not in ran.err


@pytest.mark.trial
def test_a_lap_over_a_glob_of_packed_parts_sees_the_table_and_a_new_part(folder: Folder, prefect_server: str) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    alone = quick_project(folder.path.parent / "alone")
    ingestion.run_ingest(alone.path, project_params.load_settings(alone.path / "params.yaml"))

    inbox = folder.path / "in"
    inbox.mkdir()
    *first, last = parts()
    for number, part in enumerate(first):
        (inbox / f"{number}.csv.gz").write_bytes(part)
    folder.set(data__source="in/*.csv.gz")
    assert folder.train(env=env)["verdict"] == "promoted"
    assert folder.train(env=env)["verdict"] == "unchanged"
    fewer = len(rows(folder))

    (inbox / "3.csv.gz").write_bytes(last)
    outcome = folder.train(env=env)
    assert outcome["version"] == 2
    assert len(rows(folder)) == len(rows(alone)) > fewer
    # The same cells in four files are the same rows: their keys, and with them all that is known of rows, agree.
    assert set(rows(folder)["_row"]) == set(rows(alone)["_row"])


def test_a_lap_over_a_bucket_reads_only_a_new_object_the_second_time(
    storage: Storage, folder: Folder, prefect_server: str
) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    *first, last = parts()
    for number, part in enumerate(first):
        storage.put(f"in/{number}.csv.gz", part)
    folder.set(data__source="s3://bucket/in/")
    assert folder.train(env=env)["verdict"] == "promoted"
    assert folder.train(env=env)["verdict"] == "unchanged"
    before = snapshot.read_snapshot(folder.path)
    storage.put("in/3.csv.gz", last)
    assert folder.train(env=env)["version"] == 2
    record = snapshot.read_snapshot(folder.path)
    assert before is not None
    assert record is not None
    assert record.parts[:3] == before.parts
    assert len(record.parts) == 4
    stored = [path for path in folder.path.rglob("*") if path.is_file()]
    assert not [path for path in stored if b"secret-of-tests" in path.read_bytes()]
