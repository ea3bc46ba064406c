"""Notifies people when the state changes, by webhook.

A notice is recorded before it is sent, and sent until it was accepted.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from windvane.ledger import decisions
from windvane.ledger.decisions import DecisionRecord
from windvane.tasks.errors import InputError
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.project import Project
from windvane.tasks.settings.data_section import expand_variables

if TYPE_CHECKING:
    from windvane.monitoring.records import WindowAssessment

_TIMEOUT_SECONDS, _MAX_ATTEMPTS, _PAUSE_SECONDS = 5.0, 3, 0.5


def notify_of_check(project: Project, look: WindowAssessment, entry: DecisionRecord) -> None:
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
    _add_notice(project, state, f"{_STATE_TEXTS.get(entry.action, state)}: {entry.reason}")


_STATE_TEXTS = {"retrain": "teaching again", "stop": "stopped, a person is needed", "rollback": "rolled back"}


def notify_of_lap(project: Project, outcome: LapOutcome) -> None:
    """What a lap came to."""
    if outcome.verdict == "promoted":
        _add_notice(project, f"promoted {outcome.version}", f"version {outcome.version} serves: {outcome.reason}")
    elif outcome.verdict == "refused":
        text = f"version {outcome.version} was refused, version {outcome.champion} goes on: {outcome.reason}"
        _add_notice(project, f"refused {outcome.version}", text)
    else:
        _add_notice(project, "nothing new", f"nothing was taught: {outcome.reason}")
    send_notices(project)


def _add_notice(project: Project, state: str, text: str) -> None:
    decisions.record_notice(project.ledger, project.name, state, f"{project.name}: {text}")


def send_notices(project: Project) -> None:
    """Send what has not been taken yet, oldest first. A webhook that does not answer is asked again at the next pass."""
    hook = project.settings.monitor.webhook
    if hook is None:
        return
    for notice in decisions.list_unsent_notices(project.ledger, project.name):
        try:
            address = expand_variables(hook, "monitor.webhook", "params.yaml")
        except InputError:
            return  # `windvane check` says so; a pass is not stopped by it
        taken = _post(address, notice.text)
        decisions.record_notice_try(project.ledger, notice.id, taken)
        if not taken:
            return


def _post(address: str, text: str) -> bool:
    request = urllib.request.Request(
        address, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    for attempt in range(_MAX_ATTEMPTS):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                return bool(200 <= answer.status < 300)
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(_PAUSE_SECONDS * 2**attempt if attempt + 1 < _MAX_ATTEMPTS else 0)
    return False
