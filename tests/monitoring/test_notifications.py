"""Notices to services of apprise, with real receivers on this machine. The plain webhook is tested with the watch."""

from __future__ import annotations

import http.server
import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.projects import Folder, quick_project
from windvane.flows.lap.context import LapContext, finish_lap
from windvane.ledger import decisions, laps
from windvane.monitoring.watch import notifications
from windvane.tasks.console import SilentConsole
from windvane.tasks.errors import InputError
from windvane.tasks.project import Project

SECRET = "a-secret-path"


@contextmanager
def receiving(server: socketserver.BaseServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]  # type: ignore[index]
    finally:
        server.shutdown()
        server.server_close()


class JsonReceiver(http.server.ThreadingHTTPServer):
    """Keeps bodies and paths; refuses the first `deaf` times."""

    def __init__(self, deaf: int = 0) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.deaf = deaf
        super().__init__(("127.0.0.1", 0), _JsonHandler)


class _JsonHandler(http.server.BaseHTTPRequestHandler):
    server: JsonReceiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.append(self.path)
        self.server.deaf -= 1
        self.send_response(500 if self.server.deaf >= 0 else 200)
        self.end_headers()
        if self.server.deaf < 0:
            self.server.bodies.append(body)

    def log_message(self, *_: Any) -> None:
        pass


class MailReceiver(socketserver.ThreadingTCPServer):
    """As much of SMTP as takes a mail."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        super().__init__(("127.0.0.1", 0), _MailHandler)


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailReceiver

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.mails.append(b"".join(lines).decode())
            self.wfile.write(b"250 ok\r\n")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = quick_project(tmp_path / "project")
    made.set(monitor__webhook="${HOOK}")
    return made


def noted(folder: Folder, text: str) -> Project:
    project = Project(folder.path)
    decisions.record_notice(project.ledger, project.name, text, text)
    return project


def test_a_service_of_apprise_takes_each_notice_once_and_its_address_stays_unknown(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    with receiving(server := JsonReceiver(deaf=1)) as port:
        monkeypatch.setenv("HOOK", f"json://127.0.0.1:{port}/{SECRET}")
        project = noted(folder, "drift: data")
        notifications.send_notices(project)
        notifications.send_notices(project)
    assert server.paths == [f"/{SECRET}"] * 2
    assert [(body["message"], body["title"]) for body in server.bodies] == [("drift: data", project.name)]
    assert decisions.list_unsent_notices(project.ledger, project.name) == ()
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


def test_a_mail_is_sent(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(server := MailReceiver()) as port:
        monkeypatch.setenv("HOOK", f"mailto://127.0.0.1:{port}?from=me@example.org&to=you@example.org")
        project = noted(folder, "version 2 serves")
        notifications.send_notices(project)
    assert len(server.mails) == 1
    assert f"Subject: {project.name}" in server.mails[0]
    assert "version 2 serves" in server.mails[0]


def test_a_service_that_does_not_respond_is_tried_again_at_the_next_pass(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_PAUSE_SECONDS", 0)
    with receiving(JsonReceiver(deaf=99)) as port:
        monkeypatch.setenv("HOOK", f"json://127.0.0.1:{port}/{SECRET}")
        project = noted(folder, "stopped")
        notifications.send_notices(project)
        assert len(decisions.list_unsent_notices(project.ledger, project.name)) == 1
    with receiving(server := JsonReceiver()) as port:
        monkeypatch.setenv("HOOK", f"json://127.0.0.1:{port}/{SECRET}")
        notifications.send_notices(project)
    assert [body["message"] for body in server.bodies] == ["stopped"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense://host/a-secret-path", "apprise knows no scheme 'nonsense'"),
        ("a-secret-path", "it has no scheme"),
        ("slack://a-secret-path", "is no complete address of apprise's slack"),
    ],
)
def test_an_address_that_cannot_be_sent_to_is_refused_without_showing_it(
    address: str, words: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", address)
    with pytest.raises(InputError, match=words) as refused:
        notifications.check_webhook(Project(folder.path))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("command", ["check", "train"])
def test_an_unknown_scheme_is_reported_before_a_lap(command: str, folder: Folder) -> None:
    ran = folder.type(command, env={"HOOK": f"nonsense://host/{SECRET}", "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert ran.status == 2
    assert "apprise knows no scheme 'nonsense'" in ran.out + ran.err
    assert SECRET not in ran.out + ran.err


def test_a_variable_that_is_not_set_stops_no_lap(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    project = Project(folder.path)
    notifications.check_webhook(project, unset_allowed=True)
    with pytest.raises(InputError, match="the environment has no HOOK"):
        notifications.check_webhook(project)


@pytest.mark.parametrize(
    ("verdict", "champion", "noticed"),
    [
        ("promoted", 2, ["version 2 serves: better"]),
        ("refused", 1, ["version 2 was refused, version 1 goes on: better"]),
        ("refused", None, ["version 2 was refused, nothing serves yet: better"]),
        ("unchanged", 1, []),
    ],
)
def test_a_lap_that_no_decision_started_notifies_of_its_verdict(
    verdict: str, champion: int | None, noticed: list[str], tmp_path: Path
) -> None:
    project = Project(quick_project(tmp_path / "project").path)
    outcome: Any = SimpleNamespace(verdict=verdict, version=2, champion=champion, reason="better", to_json=dict)
    with laps.hold_lease(project.ledger, project.name, "a test", lambda holder: None) as lease:
        lap = LapContext(project, lease, "a test", "search", SilentConsole())
        laps.record_lap_start(project.ledger, lease, lap.id, "a test")
        finish_lap(lap, outcome)
    texts = [notice.text for notice in decisions.list_notices(project.ledger, project.name)]
    assert texts == [f"{project.name}: {text}" for text in noticed]
