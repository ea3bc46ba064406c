"""Faults of disk, rights, ledger and services: one sentence with the right remedy, before a lap (`check`) and in it; nothing lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import first_starts
from tests.support.postgres_server import Postgres
from tests.support.projects import Folder, Ran, missing, quick_project

pytestmark = pytest.mark.long


def sentence(ran: Ran, status: int, *words: str) -> None:
    """One sentence for people with these words in it, and no traceback."""
    said = ran.err.strip()
    assert ran.status == status, said
    assert "Traceback" not in said + ran.out
    told = [line for line in said.splitlines() if line.startswith("windvane: ")]
    assert len(told) == 1, said
    for word in words:
        assert word in told[0], told[0]


def found(ran: Ran, *words: str) -> None:
    """`check` tells it beforehand."""
    assert ran.status == 2, ran.out + ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.out + ran.err


def own_ledger(project: Folder) -> Path:
    project.run("status")  # in a process of its own: its end closes the file, which is looked at and spoilt
    return project.path / ".windvane" / "ledger.db"


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("mysql://me@host/db", 2, ("WINDVANE_LEDGER_URL", "scheme (mysql)", "postgresql://")),
        ("ledger", 2, ("WINDVANE_LEDGER_URL", "postgresql://")),
        ("postgresql://me:secret@127.0.0.1:99999/db", 2, ("cannot be read", "postgresql://")),
        ("postgresql://me:secret@127.0.0.1:1/db", 1, ("does not respond", "Start its server")),
        ("sqlite:////nowhere/at/all\0/l.db", 2, ("WINDVANE_LEDGER_URL",)),
    ],
    ids=["scheme", "none", "port", "down", "path"],
)
def test_an_address_of_no_ledger(project: Folder, url: str, status: int, words: tuple[str, ...]) -> None:
    if "\0" in url:
        url = f"sqlite:///{project.path / 'params.yaml'}/l.db"
        sentence(project.type("status", env={"WINDVANE_LEDGER_URL": url}), 1, "params.yaml")
        return
    ran = project.type("status", env={"WINDVANE_LEDGER_URL": url})
    sentence(ran, status, *words)
    assert "secret" not in ran.err
    found(project.type("check", env={"WINDVANE_LEDGER_URL": url}), words[0])


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql_needs_no_driver_in_its_address(project: Folder, postgres: str, scheme: str) -> None:
    url = postgres.replace("postgresql+psycopg", scheme)
    ran = project.type("status", env={"WINDVANE_LEDGER_URL": url})
    assert ran.status == 0, ran.err
    assert "no champion yet" in ran.out


def test_a_database_that_is_not_there_is_the_addresss_fault(project: Folder, postgres: str) -> None:
    url = postgres.rsplit("/", 1)[0] + "/elsewhere"
    sentence(project.type("status", env={"WINDVANE_LEDGER_URL": url}), 2, '"elsewhere" does not exist', "Correct")


def test_a_wrong_password_is_the_addresss_fault(project: Folder, mortal_postgres: Postgres) -> None:
    access = mortal_postgres._home / "data" / "pg_hba.conf"
    if not access.exists():
        (access,) = mortal_postgres._home.rglob("pg_hba.conf")
    access.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    mortal_postgres.kill()
    mortal_postgres.start()
    url = mortal_postgres.url.replace("windvane@", "windvane:wrong@")
    sentence(project.type("status", env={"WINDVANE_LEDGER_URL": url}), 2, "password authentication failed", "Correct")


@pytest.mark.parametrize("how", ["no database", "pages", "newer"])
def test_a_ledger_that_cannot_be_read_is_told_and_left_as_it_is(project: Folder, how: str) -> None:
    path = own_ledger(project)
    if how == "newer":
        with closing(sqlite3.connect(path)) as db:
            db.execute("update alembic_version set version_num = '9999'")
            db.commit()
    else:
        content = bytearray(path.read_bytes())
        begin = 0 if how == "no database" else 4096
        content[begin:] = b"\x7f" * (len(content) - begin)
        path.write_bytes(bytes(content))
    before = path.read_bytes()
    words = (
        ("newer Windvane", "Install that one")
        if how == "newer"
        else ("ledger.db: is damaged", "Restore it from a backup")
    )
    sentence(project.type("status"), 1, *words)
    sentence(project.type("train"), 1, *words)
    found(project.type("check"), *words)
    assert path.read_bytes() == before


def test_a_ledger_that_is_gone_is_not_begun_anew_in_silence(project: Folder) -> None:
    path = own_ledger(project)
    with closing(sqlite3.connect(path.with_name("mlflow.db"))) as db:
        db.execute("create table registered_model_aliases (name text, alias text, version integer)")
        db.execute("insert into registered_model_aliases values ('texas-house-prices', 'champion', 3)")
        db.commit()
    for left in path.parent.glob("ledger.db*"):
        left.unlink()
    for command in ("status", "train", "monitor"):
        sentence(project.type(command), 1, "the ledger is gone", "version 3", "Restore it from a backup", "begin anew")
        assert not path.exists()
    found(project.type("check"), "the ledger is gone")
    path.with_name("mlflow.db").unlink()  # as the sentence says
    assert project.type("status").status == 0


@contextmanager
def prefect_that_asks() -> Iterator[str]:
    """A Prefect API that is healthy for all and lets in whoever knows its secret."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "csrf-token" in self.path:
                self._answer(422)  # as where it is switched off
            else:
                self._answer(200 if self.path.endswith("/health") or self._right() else 401)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(200 if self._right() else 401)

        def _right(self) -> bool:
            return self.headers.get("Authorization") == "Basic bWU6cmlnaHQ="

        def _answer(self, status: int) -> None:
            told = {200: b"[]", 422: b'{"detail": "CSRF protection is disabled."}'}
            body = told.get(status, b'{"exception_message": "Unauthorized"}')
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_check_asks_prefect_something_that_needs_credentials(project: Folder) -> None:
    with prefect_that_asks() as url:
        for credentials in ({}, {"PREFECT_API_AUTH_STRING": "me:wrong"}):
            ran = project.type("check", env={"PREFECT_API_URL": url, **credentials})
            found(ran, "does not let this machine in (401)", "PREFECT_API_AUTH_STRING")
        ran = project.type("check", env={"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": "me:right"})
        assert ran.status == 0, ran.out + ran.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    if not first_starts.may_mount():
        missing("the right to mount a tmpfs (root, Linux)")
    with first_starts.disk(tmp_path / "disk", "4m") as place:
        yield place


def test_a_full_disk_is_told_and_the_next_run_works(small_disk: Path) -> None:
    project = quick_project(small_disk / "project")
    filler = small_disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.close(descriptor)
    sentence(project.type("status"), 1, "the disk is full", "Free some space")
    found(project.type("check"), "the disk is full")
    filler.unlink()
    assert project.type("status").status == 0


def test_a_folder_that_must_not_be_written_is_told(small_disk: Path) -> None:
    project = quick_project(small_disk / "project")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for command in ("status", "train"):
        sentence(project.run(command), 2, "cannot be read or written", "Read-only file system", "chmod")
    found(project.run("check"), "cannot be read or written", "Read-only file system")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert project.run("status").status == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    sentence(project.run("train"), 2, "cannot be read or written")


def test_somebody_elses_folder_is_told(project: Folder) -> None:
    if os.geteuid() != 0:
        missing("root, to be somebody else")
    own_ledger(project)
    for folder in (project.path, *project.path.parents):
        if folder.owner() == "root" and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    process = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            "-m",
            "windvane.cli.main",
            "status",
        ],
        cwd=project.path,
        env={**project.environment(), "HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=False,
    )
    sentence(
        Ran(process.returncode, process.stdout, process.stderr), 2, "cannot be read or written", "Permission denied"
    )
