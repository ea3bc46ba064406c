"""Notifies people when the state changes: by webhook, or by any other service that apprise knows.

A notice is recorded before it is sent, and sent until it was accepted.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from functools import partial

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


def notify_of_check(project: Project, check: WindowAssessment, entry: DecisionRecord) -> None:
    """What a check and its decision mean for the state."""
    if entry.action == "retrain" and not entry.open:
        return  # the lap notified
    if entry.action == "wait":
        if check.drift.statistic is None and check.drift.alarm is not None:
            return
        state = f"drift: {check.diagnosis.change}" if check.drift.alarm else "ok"
        if check.drift.unknown:
            state = "cannot tell"
    else:
        state = _STATES[entry.action]
    text = f"{_STATE_TEXTS.get(entry.action, state)}: {entry.reason}"
    # A state of its own beside each: it is sent once, and so is its end.
    if check.coverage is not None and check.coverage.alarm:
        state, text = f"{state}, intervals too narrow", f"{text}. Intervals: {check.coverage.text}"
    _add_notice(project, state, text)


def notify_of_lap(project: Project, outcome: LapOutcome) -> None:
    """What a lap came to."""
    if outcome.verdict == "promoted":
        _add_notice(project, f"promoted {outcome.version}", f"version {outcome.version} serves: {outcome.reason}")
    elif outcome.verdict == "refused":
        serves = f"version {outcome.champion} goes on" if outcome.champion else "nothing serves yet"
        text = f"version {outcome.version} was refused, {serves}: {outcome.reason}"
        _add_notice(project, f"refused {outcome.version}", text)
    else:
        _add_notice(project, "nothing new", f"nothing was trained: {outcome.reason}")
    send_notices(project)


def _add_notice(project: Project, state: str, text: str) -> None:
    decisions.record_notice(project.ledger, project.name, state, f"{project.name}: {text}")


def check_webhook(project: Project, *, unset_allowed: bool = False) -> None:
    """Raise InputError where `monitor.webhook` names nothing that can be sent to, or a variable that is not set.

    unset_allowed: a lap does without the variable, and its notices wait.
    """
    try:
        address = _expand_webhook(project)
    except InputError:
        if unset_allowed:
            return
        raise
    if address is not None:
        _make_sender(address, project.name)


def send_notices(project: Project) -> None:
    """Send what has not been taken yet, oldest first. A service that does not respond is tried again at the next pass."""
    if project.settings.monitor.webhook is None:
        return
    for notice in decisions.list_unsent_notices(project.ledger, project.name):
        try:
            address = _expand_webhook(project)
            send = _make_sender(address or "", project.name)
        except InputError:
            return  # `windvane check` shows it; no pass is stopped by it
        taken = _try_repeatedly(send, notice.text)
        decisions.record_notice_try(project.ledger, notice.id, taken)
        if not taken:
            return


def _expand_webhook(project: Project) -> str | None:
    address: str | None = expand_variables(project.settings.monitor.webhook, "monitor.webhook", "params.yaml")
    return address


def _make_sender(address: str, title: str) -> Callable[[str], bool]:
    """What sends a text, and returns whether it was taken. Raises InputError, which never shows the address: it is a secret."""
    scheme, found, _ = address.partition("://")
    if scheme.lower() in ("http", "https"):
        return partial(_post, address)
    import apprise  # half a second, and most projects do without
    from apprise.manager_plugins import NotificationManager

    # Its log lines name addresses.
    logging.getLogger("apprise").disabled = True
    if not found or scheme.lower() not in NotificationManager():
        shown = found and re.fullmatch(r"[A-Za-z][\w+.-]{0,30}", scheme)
        why = f"apprise knows no scheme {scheme!r}" if shown else "it has no scheme"
        raise InputError(
            f"params.yaml: monitor.webhook: nothing can be sent there: {why}. Write https://..., mailto://... or another address of apprise"
        )
    service = apprise.Apprise()
    if not service.add(address):
        raise InputError(
            f"params.yaml: monitor.webhook: is no complete address of apprise's {scheme}. Compare it with apprise's page of that service"
        )
    return lambda text: bool(service.notify(body=text, title=title))


def _try_repeatedly(send: Callable[[str], bool], text: str) -> bool:
    for attempt in range(_MAX_ATTEMPTS):
        if send(text):
            return True
        time.sleep(_PAUSE_SECONDS * 2**attempt if attempt + 1 < _MAX_ATTEMPTS else 0)
    return False


def _post(address: str, text: str) -> bool:
    """Slack's format. An error in response is worth another try, as is none at all."""
    import httpx

    try:
        response = httpx.post(address, json={"text": text}, timeout=_TIMEOUT_SECONDS, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return response.is_success
