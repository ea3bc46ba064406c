"""What all tests share: whole tables, a project in an empty folder, and a way to type commands in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import postgres_server
from tests.postgres_server import Postgres
from tests.storage_server import Storage

ROOT = Path(__file__).parent.parent
# Services of whoever runs the tests must not be touched by them.
SERVICES = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "WINDVANE_LEDGER_URL", "WINDVANE_API_KEYS")


def missing(what: str) -> None:
    """Skip, naming what is missing; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture
def whole_table() -> Callable[[str], Path]:
    """The path of one of the whole tables, by its file name."""

    def find(name: str) -> Path:
        folder = os.environ.get("WINDVANE_DATA")
        if folder is None or not (Path(folder) / name).exists():
            missing(f"WINDVANE_DATA with {name}")
        return Path(str(folder)) / name

    return find


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        content: dict[str, Any] = json.loads(self.out)
        return content


class Folder:
    """A project folder, and commands typed in it, each in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in SERVICES}
        return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}", **(extra or {})}

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "windvane.cli.main", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.path, env=self.environment(env), stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Ran:
        process = self.start(*arguments, env=env)
        out, err = process.communicate(timeout=timeout)
        return Ran(process.returncode, out, err)

    def train(self, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A lap that must end well."""
        ran = self.run("train", "--json", *arguments, env=env)
        assert ran.status == 0, ran.err
        return ran.json

    def dvc(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def set(self, **changes: Any) -> None:
        """Change params.yaml: `search__trials=4` is search.trials."""
        path = self.path / "params.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            *sections, key = name.split("__")
            place = content
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """An empty project folder."""
    return Folder(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Folder:
    """The default project without git, with a search that takes a second."""
    return quick_project(tmp_path / "project")


def quick_project(path: Path) -> Folder:
    """The default project in a new folder, with a search that takes a second."""
    import shutil

    folder = Folder(path)
    (folder.path / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/txhousing.csv"):
        shutil.copy(ROOT / name, folder.path / name)
    folder.set(search__trials=3, search__candidates=["linear", "tree", "boosting"])
    return folder


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server that the laps of all tests share, so that each does not boot its own."""
    from windvane.flows.orchestration import server

    before = os.environ.pop("PREFECT_API_URL", None)
    with server.use_prefect_server(tmp_path_factory.mktemp("prefect")) as running:
        running.wait()
        yield running.url
    if before is not None:
        os.environ["PREFECT_API_URL"] = before


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL that all tests share."""
    with _postgres() as server:
        yield server.url


@pytest.fixture
def mortal_postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test's own, to be killed."""
    with _postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Storage]:
    """The S3 server that all tests share."""
    pytest.importorskip("s3fs")
    running = Storage()
    yield running
    running.kill()


@pytest.fixture
def storage(s3_server: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An S3 server with an empty bucket, named by the usual variables."""
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "secret-of-tests"}
    more = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": s3_server.url, "AWS_MAX_ATTEMPTS": "1"}
    for name, value in {**keys, **more}.items():
        monkeypatch.setenv(name, value)
    s3_server.empty()
    return s3_server


def _postgres() -> AbstractContextManager[Postgres]:
    if not postgres_server.programs():
        missing("PostgreSQL's server programs (pg_ctl, initdb)")
    return postgres_server.running(fsync=False)
