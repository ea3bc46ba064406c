"""What `init` writes: all or nothing, and what git is to hold of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.support.projects import Folder
from tests.support.served_models import houses
from windvane.tasks import project_files
from windvane.tasks.errors import InputError

pytestmark = pytest.mark.long


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A User", "-c", "user.email=user@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def hashes(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with a table."""
    houses(120).drop(columns=["dear"]).to_csv(tmp_path / "houses.csv", index=False)
    return Folder(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "/.windvane/\n"),
        (b"", "/.windvane/\n"),
        (b"*.tmp", "*.tmp\n/.windvane/\n"),
        (b"*.tmp\r\n", "*.tmp\r\n/.windvane/\n"),
        (b"# gr\xfc\xdfe\n", "# gr\udcfc\udcdfe\n/.windvane/\n"),
        (b"!.windvane/keep\n", "!.windvane/keep\n/.windvane/\n"),
    ],
)
def test_one_line_is_added_once(before: bytes | None, after: str, tmp_path: Path) -> None:
    path = tmp_path / ".gitignore"
    if before is not None:
        path.write_bytes(before)
    assert project_files.ignore_state_folder(tmp_path)
    assert path.read_bytes() == after.encode("utf-8", errors="surrogateescape")
    assert not project_files.ignore_state_folder(tmp_path)


@pytest.mark.parametrize("known", [".windvane", "/.windvane", ".windvane/", "  /.windvane/ "])
def test_a_line_that_does_it_already_is_enough(known: str, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text(f"{known}\n")
    assert not project_files.ignore_state_folder(tmp_path)


def init(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`windvane init` in this process."""
    from windvane.cli import commands
    from windvane.tasks.console import SilentConsole

    monkeypatch.chdir(root)
    given = {"target": "price", "time": None, "id": None, "kind": None, "ignore": (), "query": None, "key": None}
    given |= {"private": False, "dates": None}
    commands.init_project(root, "houses.csv", given, SilentConsole())


@pytest.mark.parametrize("wrong", ["dvc.yaml", "schema.yaml", ".dvc", ".gitignore", "params.yaml"])
def test_init_writes_all_or_nothing(wrong: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder.path / wrong
    if wrong == ".dvc":
        place.write_text("a file where a folder must be")
    else:
        place.mkdir()
        (place / "mine").write_text("x")
    before = hashes(folder.path)
    with pytest.raises(InputError, match=f"{wrong}.*cannot be written.*Nothing was changed"):
        init(folder.path, monkeypatch)
    assert hashes(folder.path) == before
    assert sorted(path.name for path in folder.path.iterdir()) == sorted({"houses.csv", wrong})


def test_a_failed_init_puts_an_older_project_back(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    init(folder.path, monkeypatch)
    (folder.path / "params.yaml").write_text((folder.path / "params.yaml").read_text() + "\n# mine\n")
    before = hashes(folder.path)

    def full(*_: object) -> None:
        (folder.path / "dvc.yaml").unlink()
        raise OSError(28, "No space left on device", str(folder.path / "params.yaml"))

    from windvane.tasks.settings import yaml_files

    (folder.path / "schema.yaml").write_text("# mine\n")
    before = hashes(folder.path)
    monkeypatch.setattr(yaml_files, "write_params", full)
    with pytest.raises(InputError, match="No space left on device"):
        init(folder.path, monkeypatch)
    assert hashes(folder.path) == before


def test_what_is_to_be_committed_is_all_that_git_sees(folder: Folder) -> None:
    git(folder.path, "init", "-q")
    git(folder.path, "add", "houses.csv")
    ran = folder.type("init", "houses.csv", "--target", "price")
    assert ran.status == 0, ran.err
    assert "  commit them, and dvc.lock after a lap; " in ran.out
    seen = {line[3:] for line in git(folder.path, "status", "--porcelain", "-uall").splitlines() if line[0] == "?"}
    assert seen == set(project_files.COMMITTED_FILES)
    for name in project_files.COMMITTED_FILES:
        assert name in ran.out


def test_check_says_how_to_take_windvane_out_of_git(folder: Folder) -> None:
    git(folder.path, "init", "-q")
    assert folder.run("init", "houses.csv", "--target", "price").status == 0
    (folder.path / ".gitignore").unlink()
    git(folder.path, "add", "-A")
    ran = folder.run("check", "--json")
    assert ran.status == 2
    (said,) = ran.json["problems"]
    assert "is tracked by git" in said
    subprocess.run(said.rpartition("then commit: ")[2], shell=True, check=True)
    assert folder.run("check", "--json").json == {"ok": True, "problems": []}
    assert (folder.path / ".gitignore").read_text() == "/.windvane/\n"


@pytest.mark.slow
def test_a_lap_over_outputs_that_git_tracks_says_the_right_remedy(folder: Folder, prefect_server: str) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    assert folder.type("init", "houses.csv", "--target", "price").status == 0
    folder.set(search__trials=2, search__candidates=["linear", "tree"])
    (folder.path / ".gitignore").unlink()
    folder.train(env=env)
    git(folder.path, "init", "-q")
    git(folder.path, "add", "-A", "-f")
    git(folder.path, "commit", "-qm", "all of it")
    folder.set(split__seed=1)
    ran = folder.run("train", env=env)
    said = [line for line in ran.err.splitlines() if line.strip().startswith("windvane: ")]
    assert (ran.status, len(said), ran.err.count("Traceback")) == (2, 1, 0), ran.err
    assert "is tracked by git" in ran.err
    assert "delete it and run" not in ran.err
    subprocess.run(ran.err.strip().rpartition("then commit: ")[2], shell=True, check=True)
    git(folder.path, "add", ".gitignore")
    git(folder.path, "commit", "-qm", "out of git")
    assert folder.train(env=env)["verdict"] in ("promoted", "refused")
    seen = git(folder.path, "status", "--porcelain", "-uall").splitlines()
    assert [line for line in seen if ".windvane" in line] == []


OWN = """# my pipeline
stages:
    prepare:
        cmd: echo 1 > out
        outs: [out]   # mine
"""


@pytest.mark.parametrize(
    "own",
    [
        OWN,
        OWN + "\nplots:\n  - out\n",
        "plots:\n  - out\n",
        "# nothing yet\n",
        "",
        OWN.replace("    ", "  ").rstrip("\n"),
    ],
)
def test_stages_join_a_pipeline_of_the_users(own: str, tmp_path: Path) -> None:
    import yaml

    from windvane.tasks.stores import dvc_pipeline

    path = tmp_path / "dvc.yaml"
    path.write_text(own)
    assert "dvc.yaml" in dvc_pipeline.prepare_dvc_folder(tmp_path)
    text = path.read_text()
    mine, both = yaml.safe_load(own) or {}, yaml.safe_load(text)
    assert list(both["stages"]) == [*mine.get("stages", {}), "ingest", "validate", "split"]
    assert {name: both["stages"][name] for name in mine.get("stages", {})} == mine.get("stages", {})
    assert both.get("plots") == mine.get("plots")
    ours = yaml.safe_load(dvc_pipeline.PIPELINE_TEMPLATE.read_text())["stages"]
    assert {name: both["stages"][name] for name in ours} == ours
    assert [line for line in own.splitlines() if line.strip() and line not in text.splitlines()] == []
    assert "dvc.yaml" not in dvc_pipeline.prepare_dvc_folder(tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize("own", ["stages:\n  split:\n    cmd: echo\n", "stages: {a: {cmd: b}}\n", "- a\n", "a: [\n"])
def test_a_pipeline_that_cannot_be_joined_stays_as_it_is(own: str, tmp_path: Path) -> None:
    from windvane.tasks.stores import dvc_pipeline

    (tmp_path / "dvc.yaml").write_text(own)
    dvc_pipeline.prepare_dvc_folder(tmp_path)
    assert (tmp_path / "dvc.yaml").read_text() == own


def test_stages_of_other_pipelines_are_no_part_of_a_lap(tmp_path: Path) -> None:
    from windvane.tasks.stores import dvc_pipeline

    (tmp_path / "dvc.yaml").write_text("stages:\n  prepare:\n    cmd: echo 1 > out\n    outs: [out]\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "dvc.yaml").write_text("stages:\n  split:\n    cmd: echo 1 > out\n    outs: [out]\n")
    params = "project: x\nproblem: {kind: regression, target: y}\ndata: {source: t.csv}\nsplit: {seed: 0}\n"
    (tmp_path / "params.yaml").write_text(params)
    (tmp_path / "t.csv").write_text("y\n1\n")
    with dvc_pipeline.open_dvc_pipeline(tmp_path) as stages:
        assert stages.names == ("ingest", "validate", "split")
        assert (stages.version(), stages.hashes()) == (None, [])
