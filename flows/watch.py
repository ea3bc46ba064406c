"""`windvane monitor`: look at the newest windows, decide, act. Order only; what is measured stands in monitoring/.

A look that was made is remembered in the ledger before anything follows from it: the same data again is no new look, and
decides nothing new. Imports neither pandas nor Prefect where nothing has changed since the last pass.
"""

from __future__ import annotations

from typing import Any

from windvane.flows import acting, notifying
from windvane.flows.console import Console
from windvane.flows.deploying import champion_or_complain
from windvane.flows.looks import Pass, plain
from windvane.flows.pages import Pages
from windvane.flows.production import Production
from windvane.flows.project import Project
from windvane.flows.source import FOLDER
from windvane.flows.standing import Clock
from windvane.ledger import decisions, versions
from windvane.ledger.decisions import Entry
from windvane.ledger.versions import Version
from windvane.ledger.windows import Seen
from windvane.monitoring.decision import ACKNOWLEDGED
from windvane.tasks.tables import read_cache, write_json

_EVER = "9999"
_LOCK = "watch.lock"


def watch(
    project: Project, console: Console, *, clock: Clock = "wall", wait: bool = False, acknowledge: bool = False
) -> dict[str, Any]:
    """One pass over what is new; what it saw, decided and did. While another one looks, it ends at once and says so."""
    from filelock import FileLock, Timeout

    champion = champion_or_complain(project)
    lock = FileLock(project.home / _LOCK)
    try:
        # What a person acknowledges must not be lost: that waits.
        lock.acquire(timeout=-1 if acknowledge else 0)
    except Timeout:
        told = _nothing(champion.version, "another pass looks at production already; it sees the same rows")
        _say(told, console)
        return {**told, "retrained": "no"}
    try:
        told = _look(project, champion, console, clock, acknowledge)
    finally:
        lock.release()
    _say(told, console)
    told = {**told, "retrained": acting.retrain(project, console, wait)}
    notifying.send(project)
    return told


def _look(project: Project, champion: Version, console: Console, clock: Clock, acknowledge: bool) -> dict[str, Any]:
    """What is to be seen and decided, at most once at a time."""
    promotion = versions.last_promotion(project.ledger, project.name)
    assert promotion is not None
    if acknowledge:
        _acknowledge(project, console)
    acting.finish_what_was_begun(project, console)
    production = Production(project, champion, promotion, clock, console)
    path = project.home / FOLDER / "last.json"
    known = read_cache(path, lambda c: (c["state"], str(c["until"]), _checked(c["told"])))
    same = known is not None and known[0] == plain(production.state) and production.now < known[1]
    if known is not None and same and known[2]["drift"]["alarm"] is not None:
        told: dict[str, Any] = known[2]
        console.say("  nothing new since the last look")
        return told
    pages = Pages(production, console)
    found = Pass(production, console, pages.after).run()
    if found is None:
        taught = f" until {champion.taught_until}" if champion.taught_until else ""
        told = _nothing(champion.version, f"no rows yet since version {champion.version} was taught{taught}")
    else:
        told = _told(*found, production, pages.report(found[0]))
    until = min((p.end for p in production.places() if not p.closed), default=_EVER)
    write_json({"state": production.state, "until": until, "told": told}, path)
    return told


def _checked(told: Any) -> dict[str, Any]:
    """What a pass came to, as it was kept. Raises KeyError or TypeError where it is damaged."""
    whole = {name: told[name] for name in ("quality", "diagnosis", "decision", "reason", "report", "version")}
    whole["window"] = {**dict(told["window"]), **{name: told["window"][name] for name in ("rows", "from", "to")}}
    if whole["window"]["rows"]:
        whole["window"] |= {name: told["window"][name] for name in ("closed", "labelled")}
    whole["drift"] = {
        **dict(told["drift"]),
        "alarm": None if told["drift"]["alarm"] is None else bool(told["drift"]["alarm"]),
        "columns": list(told["drift"]["columns"]),
    }
    return {**told, **whole}


def _nothing(version: int, reason: str) -> dict[str, Any]:
    empty = {"rows": 0, "from": None, "to": None}
    return {
        "window": empty,
        "drift": {"alarm": False, "columns": []},
        "quality": None,
        "diagnosis": "none",
        "decision": "wait",
        "reason": reason,
        "report": None,
        "version": version,
    }


def _told(seen: Seen, entry: Entry, production: Production, report: str) -> dict[str, Any]:
    look = seen.look
    hidden = [] if seen.origin == "source" else list(production.hidden)
    return {
        "window": {
            "rows": seen.rows,
            "from": seen.start,
            "to": seen.end,
            "closed": seen.closed,
            "labelled": seen.labelled,
        },
        "drift": {
            "alarm": look["drift"]["alarm"],
            "columns": list(dict.fromkeys(f["column"] for f in look["drift"]["findings"] if f["alarm"])),
            "p": look["drift"]["p"],
            "level": look["drift"]["level"],
            "note": look["drift"]["note"],
            "left_out": hidden,
        },
        "quality": look["quality"]
        if look["quality"]["loss"] is not None or look["estimate"] is None
        else look["estimate"],
        "diagnosis": look["diagnosis"]["change"],
        "why": look["diagnosis"]["why"],
        "decision": entry.action,
        "reason": entry.reason,
        "known_until": entry.known_until,
        "gain": entry.gain,
        "cost": entry.cost,
        "report": report,
        "version": seen.version,
    }


def _say(told: dict[str, Any], console: Console) -> None:
    window, drift = told["window"], told["drift"]
    if window["rows"]:
        console.say(
            f"  window {window['from'][:10]} to {window['to'][:10]}{'' if window['closed'] else ' (still open)'}: "
            f"{window['rows']:,} rows, {window['labelled']:,} labelled; version {told['version']}"
        )
        moved = f"alarm: {', '.join(drift['columns'])}" if drift["alarm"] else drift["note"] or "no alarm"
        console.say(f"  drift: {moved}")
        if drift.get("left_out"):
            console.say(f"    left out, as the ledger does not keep them: {', '.join(drift['left_out'])}")
        console.say(f"  diagnosis: {told['diagnosis']}: {told['why']}")
    console.say(f"  decision: {told['decision']}: {told['reason']}")
    if told["report"]:
        console.say(f"  report: {told['report']}")


def _acknowledge(project: Project, console: Console) -> None:
    stops = [d for d in decisions.listed(project.ledger, project.name, acting=True) if d.action == "stop" and d.open]
    for one in stops:
        decisions.close(project.ledger, one.id, "done", ACKNOWLEDGED)
        console.say(f"  acknowledged: {one.reason}")
    if not stops:
        console.say("  nothing to acknowledge")
    (project.home / FOLDER / "last.json").unlink(missing_ok=True)
