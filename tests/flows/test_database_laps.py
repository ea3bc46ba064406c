"""Laps over a growing PostgreSQL table: only new rows are read, old data comes back, no secret is left anywhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
import sqlalchemy as sa

from tests.support.postgres_server import Postgres
from tests.support.projects import ROOT, Folder, quick_project
from windvane.tasks.sources import snapshot

pytestmark = pytest.mark.slow
# Drawn anew: no file of the tests themselves, copied to where secrets are searched for, can hold it.
SECRET = f"hunter2{uuid4().hex}"


def git(folder: Folder, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=folder.path, check=True, capture_output=True)


def add(url: str, rows: pd.DataFrame) -> None:
    engine = sa.create_engine(url)
    rows.to_sql("houses", engine, if_exists="append", index_label="id")
    engine.dispose()


def kept(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def version(folder: Folder) -> dict[str, bytes]:
    return {
        "table": (folder.path / ".windvane/data/table.parquet").read_bytes(),
        **kept(folder.path / ".windvane/data/split"),
    }


def test_a_growing_table_in_postgresql(
    tmp_path: Path, prefect_server: str, mortal_postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = pd.read_csv(ROOT / "data" / "txhousing.csv").sort_values("ts", kind="stable").reset_index(drop=True)
    first = int(len(whole) * 0.8)
    add(mortal_postgres.url, whole.iloc[:first])
    folder = quick_project(tmp_path / "project")
    address = mortal_postgres.url.replace("postgresql+psycopg://windvane@", "postgresql://windvane:${DB_PASSWORD}@")
    query = "SELECT * FROM houses WHERE year > :year"
    folder.set(
        data={"source": address, "query": query, "parameters": {"year": 1990}, "key": "id", "remote": "shared"},
        search__candidates=["linear"],
        search__trials=1,
    )
    git(folder, "init", "-q")
    (folder.path / ".gitignore").write_text("/.windvane/\n")  # as `windvane init` writes it
    env = {"PREFECT_API_URL": prefect_server, "DB_PASSWORD": SECRET}
    said: list[str] = []

    def train() -> dict[str, Any]:
        ran = folder.run("train", "--json", env=env)
        said.extend([ran.out, ran.err])
        assert ran.status == 0, ran.err
        return ran.json

    # The first lap: all rows, promoted, and its data pushed.
    assert train()["verdict"] == "promoted"
    record = snapshot.read_snapshot(folder.path)
    assert record is not None
    assert [part.rows for part in record.parts] == [first]
    assert "up to date" in folder.dvc("status")
    assert folder.dvc("repro").count("didn't change") == 3
    assert "- .windvane/data/raw\n" in (folder.path / "dvc.yaml").read_text()
    assert kept(folder.path / "shared")
    git(folder, "add", "-A", ".")
    git(folder, "commit", "-qm", "first")
    before = version(folder)

    # Nothing new: said without a heavy import, after a look at the source.
    ran = folder.run("train", "--json", env={**env, "PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.json["verdict"] == "unchanged"
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert not imported & {"sklearn", "mlflow", "prefect", "pandas", "optuna", "evidently", "jinja2"}

    # The database is killed: an error that says what to do, and nothing is half.
    mortal_postgres.kill()
    ran = folder.run("train", "--json", env=env)
    said.extend([ran.out, ran.err])
    assert (ran.status, snapshot.read_snapshot(folder.path)) == (1, record)
    assert "Start the database" in ran.err
    assert "Traceback" not in ran.err
    ran = folder.run("check", "--json", env=env)
    assert ran.status == 2
    assert "does not respond" in ran.json["problems"][0]
    mortal_postgres.start()
    assert folder.run("check", "--json", env=env).status == 0

    # The second lap reads the new rows alone. Its remote is away: a warning.
    add(mortal_postgres.url, whole.iloc[first:])
    (folder.path / "file").write_text("")
    folder.set(data__remote="file/below")
    again = train()
    assert again["version"] == 2
    assert "warning: data.remote: file/below" in said[-1]
    grown = snapshot.read_snapshot(folder.path)
    assert grown is not None
    assert [part.rows for part in grown.parts] == [first, len(whole) - first]
    assert (grown.parts[0], grown.parts[1].first) == (record.parts[0], first)
    assert again["data_version"] in (folder.path / "dvc.lock").read_text()
    assert version(folder) != before

    # The remote is back: a lap with nothing new pushes what it lacks.
    (folder.path / "file").unlink()
    assert train()["verdict"] == "unchanged"
    second = version(folder)

    # Git and DVC bring back the first data version, byte for byte, and the second from the remote alone.
    git(folder, "add", "-A", ".")
    git(folder, "commit", "-qm", "second")
    git(folder, "checkout", "-q", "HEAD~1", "--", "dvc.lock")
    folder.dvc("checkout", "--force")
    assert version(folder) == before
    git(folder, "checkout", "-q", "HEAD", "--", "dvc.lock")
    shutil.rmtree(folder.path / ".dvc" / "cache")
    folder.dvc("remote", "add", "-d", "shared", str(folder.path / "file" / "below"))
    folder.dvc("pull", "--force")
    assert version(folder) == second

    # The password stands nowhere: in no file of the project, its stores, Prefect's database or on a screen.
    base = tmp_path_factory.getbasetemp()
    holding = [name for name, content in kept(base).items() if SECRET.encode() in content]
    assert holding == []
    assert SECRET not in "".join(said)
