"""The fixtures that all tests share: whole tables, a project in an empty folder, and real servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support import postgres_server
from tests.support.postgres_server import Postgres
from tests.support.projects import Folder, missing, quick_project
from tests.support.storage_server import Storage

# Fixtures with a server of their own behind them.
SERVERS = {"prefect_server", "postgres", "mortal_postgres", "s3_server", "storage"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a server is started for is long, without each test having to say so."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        if SERVERS & set(getattr(item, "fixturenames", ())) or any(
            p == "postgresql" for p in parameters if isinstance(p, str)
        ):
            item.add_marker(pytest.mark.long)


@pytest.fixture
def whole_table() -> Callable[[str], Path]:
    """The path of one of the whole tables, by its file name."""

    def find(name: str) -> Path:
        folder = os.environ.get("WINDVANE_DATA")
        if folder is None or not (Path(folder) / name).exists():
            missing(f"WINDVANE_DATA with {name}")
        return Path(str(folder)) / name

    return find


@pytest.fixture
def empty(tmp_path: Path) -> Folder:
    """An empty project folder."""
    return Folder(tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Folder:
    """The default project without git, with a search that takes a second."""
    return quick_project(tmp_path / "project")


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
