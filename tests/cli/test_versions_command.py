"""`windvane versions`: all versions, who serves, the same on the screen and in the JSON; from the ledger alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.many_versions import Many
from tests.support.projects import Folder

pytestmark = pytest.mark.long


def test_every_version_with_its_verdict_and_who_serves(tmp_path: Path) -> None:
    many = Many(tmp_path)
    many.lap(2, accepted=True, cause="watch: the loss grew")
    many.lap(3, accepted=False)
    many.lap(4, accepted=False, judged=False)
    ran = many.folder.type("versions", "--json")
    assert ran.status == 0, ran.err
    told = ran.json["versions"]
    assert [(one["version"], one["verdict"], one["serves"]) for one in told] == [
        (1, "promoted", None),
        (2, "promoted", "champion"),
        (3, "refused", None),
        (4, None, "challenger"),
    ]
    second = told[1]
    assert (second["metric"], second["value"], second["low"], second["high"]) == ("mae", 1.0, 0.5, 1.5)
    assert (second["cause"], second["reason"]) == ("watch: the loss grew", "version 2 is better")
    assert second["promoted"] >= second["registered"]
    assert told[0]["cause"] is None
    assert told[2]["promoted"] is None


def test_the_screen_says_the_same(tmp_path: Path) -> None:
    many = Many(tmp_path)
    many.lap(2, accepted=False, cause="by hand")
    ran = many.folder.type("versions")
    head, first, second = ran.out.splitlines()
    assert head.split()[:5] == ["version", "serves", "verdict", "candidate", "metric"]
    assert first.split()[:7] == ["1", "champion", "promoted", "boosting", "mae", "1", "0.5"]
    assert second.split()[:3] == ["2", "challenger", "refused"]
    assert second.endswith("by hand")
    assert "model files" not in head


def test_a_champion_put_back_by_hand_serves(tmp_path: Path) -> None:
    many = Many(tmp_path)
    many.lap(2, accepted=True)
    many.move(1, "rollback")
    told = many.folder.type("versions", "--json").json["versions"]
    assert [one["serves"] for one in told] == ["champion", None]


def test_without_a_version_it_says_what_to_do(tmp_path: Path) -> None:
    params = "project: houses\nproblem: {kind: regression, target: price}\ndata: {source: houses.csv}\n"
    (tmp_path / "params.yaml").write_text(params)
    ran = Folder(tmp_path).type("versions")
    assert (ran.status, ran.out) == (0, "  no version yet; next: windvane train\n")
    assert Folder(tmp_path).type("versions", "--json").json == {"versions": []}


def test_it_reads_the_ledger_alone(tmp_path: Path) -> None:
    import subprocess

    many = Many(tmp_path)
    command = [sys.executable, "-X", "importtime", "-m", "windvane.cli.main", "versions"]
    done = subprocess.run(command, cwd=many.root, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"mlflow", "pandas", "numpy", "sklearn", "prefect", "dvc", "alembic"}


def test_promote_names_the_command_that_lists_versions(tmp_path: Path) -> None:
    ran = Many(tmp_path).folder.type("promote", "7")
    assert ran.status == 2
    assert "`windvane versions` lists those there are" in ran.err
