"""The installed tool: a wheel in an environment of its own, from `init` to `up`, in an empty folder and in one full of the user's files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.support.projects import ROOMS, ROOT, Folder, missing
from tests.support.running_up import READY_SECONDS
from tests.support.waiting import free_port

pytestmark = pytest.mark.slow

# Whoever imports one of these gets a file of the user's instead of the library, and says so.
TRAP = "raise SystemExit('a file of the user was imported: ' + __file__)\n"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    _uv("build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment with nothing but the wheel and what it asks for."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    _uv("venv", "--quiet", "--python", sys.executable, str(place))
    python = place / "bin" / "python"
    _uv("pip", "install", "--quiet", "--python", str(python), "-c", str(ROOT / "constraints.txt"), str(wheel))
    return place / "bin"


def _uv(*arguments: str) -> None:
    beside = Path(sys.executable).with_name("uv")
    program = str(beside) if beside.exists() else shutil.which("uv")
    if program is None:
        missing("uv, which builds and installs the wheel")
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr


class Installed(Folder):
    """A project folder, and the installed `windvane` typed in it."""

    def __init__(self, path: Path, programs: Path) -> None:
        super().__init__(path)
        self.programs = programs

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {k: v for k, v in super().environment().items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return {**own, "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}", **(extra or {})}

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [str(self.programs / "windvane"), *arguments]
        return subprocess.Popen(command, cwd=self.path, env=self.environment(env), stdout=pipe, stderr=pipe, text=True)

    def json(self, *arguments: str) -> dict[str, Any]:
        """What a command that must end well says."""
        ran = self.run(*arguments, "--json", timeout=900)
        assert ran.status == 0, ran.err
        return ran.json


def table(path: Path, rows: int = 1200) -> None:
    """Three prices a day for some thirteen months."""
    rng = np.random.default_rng(0)
    size = rng.normal(100, 20, rows).round()
    days = pd.date_range("2023-01-01", periods=rows // 3, freq="D").strftime("%Y-%m-%d").repeat(3)
    frame = pd.DataFrame({"day": days, "size": size, "town": rng.choice(["Ulm", "Bonn"], rows)})
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.assign(price=(3 * size + rng.normal(0, 15, rows)).round(2)).to_csv(path, index=False)


def first_hour(folder: Installed, source: str) -> pd.DataFrame:
    """A first model and its first answers. Returns the rows that it was asked about."""
    assert folder.json("init", source, "--target", "price")["rows"] == 1200
    folder.set(search__trials=2, search__candidates=["linear", "tree"], schedule__monitor=None)
    checked = folder.json("check")
    assert checked == {"ok": True, "problems": []}
    lap = folder.json("train")
    assert (lap["verdict"], lap["version"]) == ("promoted", 1)
    rows = pd.read_csv(folder.path / source).drop(columns="price").tail(5)
    rows.to_csv(folder.path / "new.csv", index=False)
    assert folder.json("score", "new.csv", "scored.csv")["rows"] == 5
    return rows


def tour(folder: Installed, source: str) -> None:
    """Everything that a user does, one command after the other."""
    rows = first_hour(folder, source)
    serve(folder, json.loads(rows.to_json(orient="records")))
    assert folder.json("labels", "truth.csv")["matched"] == 5
    assert folder.json("monitor")["decision"] in ("wait", "retrain")
    assert folder.json("replay")["windows"] > 2
    up(folder)
    assert [one["serves"] for one in folder.json("versions")["versions"]].count("champion") == 1


def serve(folder: Installed, rows: list[dict[str, Any]]) -> None:
    """One request to `windvane serve`; what turned out to be true of it goes to truth.csv."""
    process = folder.start("serve", "--port", "0")
    try:
        assert process.stderr is not None
        port = None
        for line in process.stderr:
            if line.startswith("{") and (told := json.loads(line)).get("event") == "listening":
                port = told["port"]
                break
        assert port is not None
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": rows}, timeout=60)
        assert answer.status_code == 200, answer.text
        truth = pd.DataFrame({"id": answer.json()["ids"], "label": [300.0] * len(rows)})
        truth.to_csv(folder.path / "truth.csv", index=False)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def up(folder: Installed) -> None:
    """`windvane up` until all is ready; then Ctrl-C."""
    folder.set(serve__port=free_port())
    process = folder.start("up", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline, line = time.monotonic() + READY_SECONDS, ""
    try:
        while not line:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "in vain: `windvane up` is ready"
            line = process.stdout.readline()
            time.sleep(0.1)
        services = json.loads(line)["services"]
        assert {one["state"] for one in services.values()} == {"ready"}
        assert httpx.get(f"{services['service']['address']}/ping").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=90)
    assert process.returncode == 0, said


def hashes(root: Path) -> dict[str, str]:
    """Every file below a folder, with the hash of its content; git's own left out."""
    files = [path for path in root.rglob("*") if path.is_file() and ".git" not in path.relative_to(root).parts]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A User", "-c", "user.email=user@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True).stdout


def test_the_wheel_holds_windvane_alone_with_its_papers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        papers = {name.rsplit("/", 1)[-1]: archive.read(name) for name in names if "/licenses/" in name}
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"windvane", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert {"windvane/pipeline.yaml", "windvane/py.typed"} <= set(names)
    templates = {f"windvane/templates/{path.name}" for path in (ROOT / "templates").iterdir() if path.is_file()}
    assert len(templates) > 7
    assert templates <= set(names)
    assert papers == {name: (ROOT / name).read_bytes() for name in ("LICENSE", "NOTICE")}
    assert "License-Expression: Apache-2.0" in metadata


def test_what_is_installed_stands_on_its_own(programs: Path, tmp_path: Path) -> None:
    python = [str(programs / "python"), "-c"]
    code = "import windvane; print(windvane.__file__)"
    done = subprocess.run([*python, code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(programs.parent)
    for room in ROOMS:
        done = subprocess.run([*python, f"import {room}"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "ModuleNotFoundError" in done.stderr, room


def test_in_an_empty_folder_only_the_named_files_are_left(programs: Path, tmp_path: Path) -> None:
    folder = Installed(tmp_path / "project", programs)
    table(folder.path / "houses.csv")
    first_hour(folder, "houses.csv")
    lying = {path.name for path in folder.path.iterdir()}
    ours = {".windvane", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "dvc.lock", "params.yaml", "schema.yaml"}
    assert lying == ours | {"houses.csv", "new.csv", "scored.csv"}


def test_nothing_of_the_users_is_shadowed_imported_or_overwritten(programs: Path, tmp_path: Path) -> None:
    folder = Installed(tmp_path / "project", programs)
    root = folder.path
    table(root / "data" / "table.csv")
    traps = [
        f"{name}.py"
        for name in ("tasks", "serving", "ledger", "prefect", "mlflow", "dvc", "pandas", "sklearn", "uvicorn")
    ]
    traps += [
        "flows/__init__.py",
        "monitoring/__init__.py",
        "windvane/__init__.py",
        "sitecustomize.py",
        "numpy/__init__.py",
    ]
    others = {
        **dict.fromkeys(traps, TRAP),
        "data/report.html": "<p>mine</p>",
        "data/split": "mine",
        "data/table.parquet": "mine",
        "data/digest.json": "mine",
        "notebooks/params.yaml": "lr: 0.1\n",
        # All that Prefect reads where it runs: another server, which does not answer, and another database.
        ".env": "PREFECT_API_URL=http://127.0.0.1:9/api\nPREFECT_API_KEY=pnu_of_the_user\nPREFECT_SERVER_API_BASE_PATH=/elsewhere\n",
        "prefect.toml": "profiles_path = 'profiles.toml'\n[server.database]\nconnection_url = 'sqlite+aiosqlite:///mine.db'\n",
        "profiles.toml": "active = 'mine'\n[profiles.mine]\nPREFECT_API_URL = 'http://127.0.0.1:9/api'\n",
        "pyproject.toml": "[tool.prefect]\nhome = 'mine'\n[tool.prefect.api]\nurl = 'http://127.0.0.1:9/api'\n",
        ".gitignore": "*.tmp\n.env",
        "MLproject": "name: mine\n",
    }
    for name, text in others.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "mine")
    before = hashes(root)
    tour(folder, "data/table.csv")
    after = hashes(root)
    changed = {name for name, digest in before.items() if after.get(name) != digest}
    assert changed == {".gitignore"}
    assert (root / ".gitignore").read_text() == "*.tmp\n.env\n/.windvane/\n"
    for name in ("new.csv", "scored.csv", "truth.csv"):
        (root / name).unlink()
    new = {line[3:] for line in git(root, "status", "--porcelain", "-uall").splitlines()}
    committed = {
        ".gitignore",
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        "dvc.lock",
        "dvc.yaml",
        "params.yaml",
        "schema.yaml",
    }
    assert new == committed
