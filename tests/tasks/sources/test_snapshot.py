"""The folder raw and its record: killed at any moment, fetched twice at once, with labels from production; and dvc.yaml beside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from tests.support.projects import ROOT
from tests.support.sources import data, held
from tests.tasks.sources.test_databases import TABLE, sqlite
from windvane.cli import commands
from windvane.ledger.labels import LABELLED_AT_COLUMN
from windvane.tasks.console import Console
from windvane.tasks.errors import Corrupted, InputError, Outage
from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.settings import project_params
from windvane.tasks.sources import fetch, snapshot
from windvane.tasks.stores import dvc_pipeline

pytestmark = pytest.mark.long

INSERT = "INSERT INTO sales VALUES (?, ?, ?, ?)"
ROWS = [(i, f"2024-01-{i:02d}", i * 1.5, "Ulm") for i in range(1, 21)]


@pytest.fixture
def growing(tmp_path: Path) -> dict[str, Any]:
    """The settings of a SQLite source of which 20 rows are fetched."""
    database = sqlite(tmp_path)
    database.write(TABLE)
    database.write(INSERT, *ROWS)
    section = {"source": database.source, "query": "SELECT * FROM sales", "key": "id"}
    fetch.fetch_source(tmp_path, data(**section))
    return section


# Ends as by kill -9 just before the n-th renaming; the last is the record's.
KILLED = """
import os, signal, sys
from pathlib import Path
from windvane.tasks.sources import fetch
from tests.support.sources import data
left, rename = int(sys.argv[1]), os.replace
def replace(*names):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*names)
os.replace = replace
fetch.fetch_source(Path(sys.argv[2]), data(**eval(sys.argv[3])))
"""


@pytest.mark.slow
def test_a_kill_before_any_renaming_leaves_the_snapshot_before(tmp_path: Path, growing: dict[str, Any]) -> None:
    sqlite(tmp_path).write(INSERT, (21, None, 1.0, "Bonn"), (22, None, 1.0, "Bonn"))
    before, rows = snapshot.read_snapshot(tmp_path), held(tmp_path)
    section, ended, n = {**growing, "refresh": "full"}, -9, 0
    while ended == -9:
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, str(n), str(tmp_path), repr(section)], cwd=ROOT, check=False
        ).returncode
        if ended == -9:
            assert snapshot.read_snapshot(tmp_path) == before
            assert held(tmp_path).equals(rows)
        n += 1
    assert (ended, n) == (0, 3)  # the part, the record, and the run that came to its end
    record = snapshot.read_snapshot(tmp_path)
    assert record is not None
    assert record.total == 22
    assert {p.name for p in (tmp_path / snapshot.SNAPSHOT_FOLDER).glob("part-*")} == {
        Path(p.path).name for p in record.parts
    }


def test_files_that_people_keep_in_the_folder_are_left_alone(tmp_path: Path, growing: dict[str, Any]) -> None:
    for name in ("part-of-mine.csv", "houses.csv", "part-000099.parquet"):
        (tmp_path / snapshot.SNAPSHOT_FOLDER / name).write_text("x")
    fetch.fetch_source(tmp_path, data(**growing))
    kept = {path.name for path in (tmp_path / snapshot.SNAPSHOT_FOLDER).iterdir()}
    assert kept == {".gitignore", "origin.json", "part-000001.parquet", "part-of-mine.csv", "houses.csv"}


def test_a_part_that_is_gone_or_cut_makes_the_next_fetch_read_all(tmp_path: Path, growing: dict[str, Any]) -> None:
    part = tmp_path / snapshot.SNAPSHOT_FOLDER / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    assert snapshot.read_snapshot(tmp_path) is None
    assert fetch.fetch_source(tmp_path, data(**growing)).new == 20
    assert held(tmp_path).height == 20
    (tmp_path / snapshot.SNAPSHOT_RECORD_FILE).write_text("{")
    with pytest.raises(Corrupted, match=r"Delete the folder \.windvane/data/raw"):
        fetch.fetch_source(tmp_path, data(**growing))


def test_a_second_fetch_at_once_waits_and_then_says_so(
    tmp_path: Path, growing: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_LOCK_WAIT_SECONDS", 0.05)
    with snapshot.stage_snapshot(tmp_path), pytest.raises(Outage, match="another fetch is at work"):
        fetch.fetch_source(tmp_path, data(**growing))


def test_the_record_tells_where_from_without_secrets(tmp_path: Path, growing: dict[str, Any]) -> None:
    content = json.loads((tmp_path / snapshot.SNAPSHOT_RECORD_FILE).read_text())
    assert {"kind", "where", "key", "watermark", "parts", "total", "generation", "identity"} <= set(content)
    assert (content["where"], content["total"], content["watermark"]) == (
        "sqlite:///sales.db",
        20,
        {"type": "int", "value": "20"},
    )
    (part,) = content["parts"]
    assert (part["rows"], part["first"], part["last"]) == (20, 1, 20)


def batches(*rows: tuple[str, int, float]) -> Any:
    """Labelled rows as the scoring service will give them: when the label came, id, price."""

    def since(moment: str | None) -> Iterator[pa.RecordBatch]:
        new = [row for row in rows if moment is None or row[0] > moment]
        if new:
            stamps, ids, prices = zip(*new, strict=True)
            towns = ["Rome"] * len(new)
            yield pa.record_batch(
                {
                    LABELLED_AT_COLUMN: list(stamps),
                    "id": list(ids),
                    "moment": ["2024-02-01"] * len(new),
                    "price": list(prices),
                    "town": towns,
                }
            )

    return since


def ingested(root: Path, section: dict[str, Any]) -> pl.DataFrame:
    problem = {"kind": "regression", "target": "price", "id": "id"}
    ingestion.run_ingest(root, project_params.parse_settings({"project": "p", "problem": problem, "data": section}))
    return pl.read_parquet(root / ".windvane/data/table.parquet")


def test_labelled_rows_are_added_and_lose_to_the_sources_own(tmp_path: Path, growing: dict[str, Any]) -> None:
    first = [("2024-03-01", 20, 999.0), ("2024-03-02", 100, 7.0)]
    done = fetch.fetch_source(tmp_path, data(**growing), "id", batches(*first))
    assert (done.new, done.feedback) == (2, 2)
    assert not fetch.fetch_source(tmp_path, data(**growing), "id", batches(*first)).moved
    table = ingested(tmp_path, growing)
    assert sorted(table["id"]) == [*range(1, 21), 100]
    assert table.filter(pl.col("id") == 20)["price"].to_list() == [30.0]
    assert LABELLED_AT_COLUMN not in table.columns
    # The source catches up with row 100, and another label comes.
    sqlite(tmp_path).write(INSERT, (100, None, 8.0, "Ulm"))
    fetch.fetch_source(tmp_path, data(**growing), "id", batches(*first, ("2024-03-03", 101, 9.0)))
    table = ingested(tmp_path, growing)
    assert dict(zip(table["id"], table["price"], strict=True)) == {**{r[0]: r[2] for r in ROWS}, 100: 8.0, 101: 9.0}
    assert table_io.ROW_KEY in table.columns


def test_labelled_rows_join_a_local_file_and_stay_when_all_is_read_again(
    tmp_path: Path, growing: dict[str, Any]
) -> None:
    done = fetch.fetch_source(tmp_path, data(**growing, refresh="full"), "id", batches(("2024-03-02", 100, 7.0)))
    assert done.record is not None
    sqlite(tmp_path).write(INSERT, (21, None, 1.0, "Ulm"))
    done = fetch.fetch_source(tmp_path, data(**growing, refresh="full"), "id", batches(("2024-03-02", 100, 7.0)))
    assert done.record is not None
    assert [part.rows for part in done.record.labelled] == [1]
    assert (
        fetch.fetch_source(tmp_path, data(**growing, feedback=False), "id", batches(("2024-03-05", 1, 1.0))).feedback
        == 0
    )

    pl.DataFrame({"id": [1, 2], "price": [1.5, 2.5], "town": ["Ulm", "Ulm"]}).write_parquet(tmp_path / "own.parquet")
    local = {"source": "own.parquet"}
    assert not fetch.fetch_source(tmp_path, data(**local), "id", batches()).moved
    done = fetch.fetch_source(tmp_path, data(**local), "id", batches(("2024-03-02", 2, 7.0), ("2024-03-02", 3, 7.0)))
    assert ingested(tmp_path, local).select("id", "price").rows() == [(1, 1.5), (2, 2.5), (3, 7.0)]
    fetch.declare_ingest_inputs(tmp_path, data(**local), done.record)
    assert "- ${data.source}\n      - .windvane/data/raw\n" in (tmp_path / "dvc.yaml").read_text()


def test_a_fetch_says_how_many_rows_are_new_and_how_many_there_are(tmp_path: Path, growing: dict[str, Any]) -> None:
    sqlite(tmp_path).write(INSERT, (21, None, 1.0, "Bonn"))
    text = fetch.fetch_source(tmp_path, data(**growing)).text()
    assert text.startswith("fetched 1 new rows from sqlite")
    assert text.endswith(", 21 in all")
    first = (("2024-03-02", 100, 7.0), ("2024-03-02", 101, 7.0))
    told = fetch.fetch_source(tmp_path, data(**growing), "id", batches(*first)).text()
    assert told == "fetched 2 new rows with labels from production, 2 in all"
    sqlite(tmp_path).write(INSERT, (22, None, 1.0, "Bonn"))
    both = fetch.fetch_source(tmp_path, data(**growing), "id", batches(*first, ("2024-03-03", 102, 9.0))).text()
    assert both.split(" from sqlite")[0] == "fetched 1 new rows"
    assert both.endswith(", 22 in all; fetched 1 new rows with labels from production, 3 in all")
    # All of it read again: nothing was lost, and what changed is counted.
    sqlite(tmp_path).write(INSERT, (23, None, 1.0, "Ulm"))
    again = fetch.fetch_source(
        tmp_path, data(**growing, refresh="full"), "id", batches(*first, ("2024-03-03", 102, 9.0))
    ).text()
    assert again.startswith("fetched 23 rows from sqlite")
    assert again.endswith("1 new, 0 updated, 0 deleted rows (by id) since the snapshot before")


def test_dvc_yaml_follows_the_source_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    original = (ROOT / "dvc.yaml").read_text()
    mine = (
        original.replace("      - ${data.source}\n", "      - ${data.source}   # mine\n      - extra.txt\n") + "# end\n"
    )
    (tmp_path / "dvc.yaml").write_text(mine)
    dvc_pipeline.set_ingest_inputs(tmp_path, [".windvane/data/raw"])
    assert (tmp_path / "dvc.yaml").read_text() == mine.replace("${data.source}", ".windvane/data/raw")
    dvc_pipeline.set_ingest_inputs(tmp_path, ["${data.source}", ".windvane/data/raw"])
    assert (
        "- ${data.source}\n      - .windvane/data/raw   # mine\n      - extra.txt\n"
        in (tmp_path / "dvc.yaml").read_text()
    )
    dvc_pipeline.set_ingest_inputs(tmp_path, ["${data.source}"])
    assert (tmp_path / "dvc.yaml").read_text().count(".windvane/data/raw") == 0
    own = original.replace("${data.source}", "elsewhere.csv")
    (tmp_path / "dvc.yaml").write_text(own)
    dvc_pipeline.set_ingest_inputs(tmp_path, [".windvane/data/raw"])
    assert (tmp_path / "dvc.yaml").read_text() == own


def test_init_reads_a_database(tmp_path: Path, growing: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FILE", "sales.db")
    given: dict[str, Any] = {"target": "price", "time": None, "id": "id", "kind": None, "ignore": (), "key": "id"}
    given |= {"private": False, "dates": None}
    table = "sqlite:///${FILE}"
    said = commands.init_project(tmp_path, table, {**given, "query": "SELECT * FROM sales"}, Console())
    assert (said["rows"], said["columns"]) == (20, 4)
    chosen = project_params.load_settings().data
    assert (chosen.source, chosen.query, chosen.key) == (table, "SELECT * FROM sales", "id")
    assert "- .windvane/data/raw\n" in (tmp_path / "dvc.yaml").read_text()
    assert not fetch.fetch_source(tmp_path, chosen).moved
    with pytest.raises(InputError, match="query: is missing"):
        commands.init_project(tmp_path, table, {**given, "query": None}, Console())
