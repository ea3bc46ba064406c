"""Telling people when the state changes, by webhook: {"text": ...}, as Slack takes it.

A notice is recorded before it is sent, and sent until it was taken: at least once, each state once in a row. Never stops a pass.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from windvane.flows.outcome import Outcome
from windvane.flows.project import Project
from windvane.ledger import notices
from windvane.ledger.decisions import Entry
from windvane.tasks.data_settings import expand
from windvane.tasks.errors import InputError

if TYPE_CHECKING:
    from windvane.monitoring.evidence import Look

_SECONDS, _TRIES, _PAUSE = 5.0, 3, 0.5


def after_look(project: Project, look: Look, entry: Entry) -> None:
    """What a look and its decision mean for the state."""
    if entry.action == "retrain" and not entry.open:
        return  # the lap has told
    if entry.action == "wait":
        if look.drift.statistic is None and look.drift.alarm is not None:
            return
        state = f"drift: {look.diagnosis.change}" if look.drift.alarm else "ok"
        if look.drift.alarm is None:
            state = "cannot tell"
    else:
        state = {"retrain": "retraining", "stop": "stopped", "rollback": "rolled back"}[entry.action]
    _change(project, state, f"{_WORDS.get(entry.action, state)}: {entry.reason}")


_WORDS = {"retrain": "teaching again", "stop": "stopped, a person is needed", "rollback": "rolled back"}


def after_lap(project: Project, outcome: Outcome) -> None:
    """What a lap came to."""
    if outcome.verdict == "promoted":
        _change(project, f"promoted {outcome.version}", f"version {outcome.version} serves: {outcome.reason}")
    elif outcome.verdict == "refused":
        text = f"version {outcome.version} was refused, version {outcome.champion} goes on: {outcome.reason}"
        _change(project, f"refused {outcome.version}", text)
    else:
        _change(project, "nothing new", f"nothing was taught: {outcome.reason}")
    send(project)


def _change(project: Project, state: str, text: str) -> None:
    notices.add(project.ledger, project.name, state, f"{project.name}: {text}")


def send(project: Project) -> None:
    """Send what has not been taken yet, oldest first. A webhook that does not answer is asked again at the next pass."""
    hook = project.settings.monitor.webhook
    if hook is None:
        return
    for notice in notices.untold(project.ledger, project.name):
        try:
            address = expand(hook, "monitor.webhook", "params.yaml")
        except InputError:
            return  # `windvane check` says so; a pass is not stopped by it
        taken = _post(address, notice.text)
        notices.tried(project.ledger, notice.id, taken)
        if not taken:
            return


def _post(address: str, text: str) -> bool:
    request = urllib.request.Request(
        address, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    for attempt in range(_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return bool(200 <= answer.status < 300)
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(_PAUSE * 2**attempt if attempt + 1 < _TRIES else 0)
    return False
