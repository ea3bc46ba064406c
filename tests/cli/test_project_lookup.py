"""Commands find their project from below it, or where `--project` says; what was typed stays what it was."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.support.projects import Folder
from tests.support.served_models import houses, made_project
from windvane.tasks import process_environment
from windvane.tasks.errors import InputError

pytestmark = pytest.mark.long

PARAMS = "project: houses\nproblem: {kind: regression, target: price}\ndata: {source: houses.csv}\n"


def test_the_nearest_params_of_windvane_counts(tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "outer" / "params.yaml").write_text(PARAMS)
    deep = tmp_path / "outer" / "inner" / "deep"
    assert process_environment.find_project(deep) == tmp_path / "outer"
    (tmp_path / "outer" / "inner" / "params.yaml").write_text(PARAMS)
    assert process_environment.find_project(deep) == tmp_path / "outer" / "inner"


@pytest.mark.parametrize(
    "other", ["train:\n  epochs: 3\n", "", "- a\n- b\n", "a: [", "lr: 0.1\nnote: 'no project: here'\n"]
)
def test_params_of_another_tool_is_passed_by(other: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "params.yaml").write_text(other)
    assert process_environment.find_project(tmp_path / "below") == tmp_path


@pytest.mark.parametrize(
    "broken", ["project: x\nproblem:\n\tkind: regression\n", "\ufeff" + PARAMS, '{"project": "x", "problem": {']
)
def test_a_broken_params_is_still_the_project(broken: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(broken, encoding="utf-8")
    (tmp_path / "below").mkdir()
    assert process_environment.find_project(tmp_path / "below") == tmp_path


def test_where_there_is_none_the_present_folder_counts(tmp_path: Path) -> None:
    assert process_environment.find_project(tmp_path) == tmp_path


def test_the_project_may_be_named_by_its_folder_or_its_file(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    assert (
        process_environment.resolve_project(tmp_path)
        == process_environment.resolve_project(tmp_path / "params.yaml")
        == tmp_path
    )
    with pytest.raises(InputError, match="nowhere: not found"):
        process_environment.resolve_project(tmp_path / "nowhere")
    (tmp_path / "t.csv").write_text("a\n")
    with pytest.raises(InputError, match="is a file"):
        process_environment.resolve_project(tmp_path / "t.csv")


def test_commands_work_from_below_and_by_name(tmp_path: Path) -> None:
    root = made_project(tmp_path).path
    below = root / "notebooks" / "deep"
    below.mkdir(parents=True)
    inside, outside = Folder(below), Folder(tmp_path.parent)
    here = Folder(root).run("status", "--json")
    assert here.json["champion"]["version"] == 1
    assert inside.run("status", "--json").json["champion"] == here.json["champion"] | {
        "age_days": inside.run("status", "--json").json["champion"]["age_days"]
    }
    for name in (str(root), str(root / "params.yaml"), root.name, f"{root.name}/params.yaml"):
        assert outside.type("status", "--json", "--project", name).json["champion"]["version"] == 1
    assert [path.name for path in below.iterdir()] == []


def test_files_are_those_that_were_typed(tmp_path: Path) -> None:
    root = made_project(tmp_path).path
    below = root / "notebooks"
    below.mkdir()
    houses(50).drop(columns=["price", "dear"]).to_csv(below / "new.csv", index=False)
    ran = Folder(below).type("score", "new.csv", "out.csv", "--json")
    assert (ran.status, ran.json["rows"]) == (0, 50), ran.err
    assert len(pd.read_csv(below / "out.csv")) == 50
    (below / "truth.csv").write_text("id,label\na,1.5\n")
    ran = Folder(below).type("labels", "truth.csv", "--json")
    assert (ran.status, ran.json["unmatched"]) == (0, 1), ran.err
    ran = Folder(below).type("labels", "gone.csv")
    assert ran.status == 2
    assert f"{below / 'gone.csv'}" in ran.err


def test_no_project_is_one_sentence_that_says_what_to_do(tmp_path: Path) -> None:
    ran = Folder(tmp_path).run("status")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert f"{tmp_path / 'params.yaml'}: not found" in ran.err
    assert "windvane init" in ran.err
    assert "--project" in ran.err
    ran = Folder(tmp_path).run("train", "--project", "elsewhere")
    assert (ran.status, "elsewhere: not found" in ran.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_deleted_folder_is_named(tmp_path: Path) -> None:
    import sys

    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); from windvane.cli.main import main; main(['status'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, "was deleted" in done.stderr) == (2, True), done.stderr


def test_init_makes_a_project_where_it_is_typed_or_named(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    table = houses(60).drop(columns=["dear"])
    table.to_csv(tmp_path / "a" / "t.csv", index=False)
    table.to_csv(tmp_path / "b" / "t.csv", index=False)
    ran = Folder(tmp_path / "a").type("init", "t.csv", "--target", "price")
    assert ran.status == 0, ran.err
    assert (tmp_path / "params.yaml").read_text() == PARAMS
    assert yaml.safe_load((tmp_path / "a" / "params.yaml").read_text())["data"]["source"] == "t.csv"
    ran = Folder(tmp_path).type("init", "b/t.csv", "--target", "price", "--project", "b")
    assert ran.status == 0, ran.err
    assert yaml.safe_load((tmp_path / "b" / "params.yaml").read_text())["data"]["source"] == "t.csv"
    (tmp_path / "c").mkdir()
    ran = Folder(tmp_path).type("init", "b/t.csv", "--target", "price", "--project", "c")
    assert ran.status == 0, ran.err
    assert yaml.safe_load((tmp_path / "c" / "params.yaml").read_text())["data"]["source"] == str(
        tmp_path / "b" / "t.csv"
    )


def test_a_stage_finds_its_project_too(tmp_path: Path) -> None:
    table = houses(60).drop(columns=["dear"])
    table.to_csv(tmp_path / "houses.csv", index=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "below").mkdir()
    ran = Folder(tmp_path / "below").type("stage", "ingest")
    assert ran.status == 0, ran.err
    assert (tmp_path / ".windvane" / "data" / "table.parquet").exists()
