"""Notifies people when the state changes, by webhook. A notice is recorded before it is sent, and sent until it was accepted."""

from __future__ import annotations

import time

from windvane.ledger import decisions
from windvane.ledger.decisions import DecisionRecord
from windvane.monitoring.records import WindowAssessment
from windvane.tasks.errors import InputError
from windvane.tasks.lap_outcome import LapOutcome
from windvane.tasks.project import Project
from windvane.tasks.settings.data_section import expand_variables

_TIMEOUT_SECONDS, _MAX_ATTEMPTS, _PAUSE_SECONDS = 5.0, 3, 0.5
# A decision's action -> the state that it brings, and the same for people.
_STATES = {"retrain": "retraining", "stop": "stopped", "rollback": "rolled back"}
_STATE_TEXTS = {**_STATES, "stop": "stopped, a person is needed"}


def notify_of_check(project: Project, look: WindowAssessment, entry: DecisionRecord) -> None:
    """What a check and its decision mean for the state."""
    if entry.action == "retrain" and not entry.open:
        return  # the lap has told
    if entry.action == "wait":
        if look.drift.statistic is None and look.drift.alarm is not None:
            return
        state = f"drift: {look.diagnosis.change}" if look.drift.alarm else "ok"
        if look.drift.alarm is None:
            state = "cannot tell"
    else:
        state = _STATES[entry.action]
    _add_notice(project, state, f"{_STATE_TEXTS.get(entry.action, state)}: {entry.reason}")


def notify_of_lap(project: Project, outcome: LapOutcome) -> None:
    """What a lap came to."""
    if outcome.verdict == "promoted":
        _add_notice(project, f"promoted {outcome.version}", f"version {outcome.version} serves: {outcome.reason}")
    elif outcome.verdict == "refused":
        text = f"version {outcome.version} was refused, version {outcome.champion} goes on: {outcome.reason}"
        _add_notice(project, f"refused {outcome.version}", text)
    else:
        _add_notice(project, "nothing new", f"nothing was trained: {outcome.reason}")
    send_notices(project)


def _add_notice(project: Project, state: str, text: str) -> None:
    decisions.record_notice(project.ledger, project.name, state, f"{project.name}: {text}")


def send_notices(project: Project) -> None:
    """Send what has not been taken yet, oldest first. A webhook that does not respond is tried again at the next pass."""
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
    import httpx

    for attempt in range(_MAX_ATTEMPTS):
        try:
            answer = httpx.post(address, json={"text": text}, timeout=_TIMEOUT_SECONDS, follow_redirects=True)
        except (httpx.HTTPError, httpx.InvalidURL):
            answer = None
        # An answer that is an error is worth another try, as is none at all.
        if answer is not None and answer.is_success:
            return True
        time.sleep(_PAUSE_SECONDS * 2**attempt if attempt + 1 < _MAX_ATTEMPTS else 0)
    return False
