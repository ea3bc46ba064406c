"""`windvane monitor`: look at the newest windows, decide, act. Order only; what is measured stands in monitoring/.

A look that was made is remembered in the ledger before anything follows from it: the same data again is no new look, and
decides nothing new. Imports neither pandas nor Prefect where nothing has changed since the last pass.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows import acting, notifying
from flows.console import Console
from flows.deploying import champion_or_complain
from flows.production import FOLDER, Count, Production
from flows.project import Project
from flows.standing import Clock
from ledger import decisions, versions, windows
from ledger.decisions import AlreadyOpen, Entry
from ledger.store import now as wall
from ledger.windows import Seen
from monitoring.decision import ACKNOWLEDGED, History, Limits, Made, decide
from monitoring.windows import due, level
from tasks.tables import read_json, write_json

if TYPE_CHECKING:
    from monitoring.evidence import Decision, Look
    from monitoring.looking import Reference

_EVER = "9999"
# Earlier windows whose state may come back.
_STATES = 36


def watch(
    project: Project, console: Console, *, clock: Clock = "wall", wait: bool = False, acknowledge: bool = False
) -> dict[str, Any]:
    """One pass over what is new; what it saw, decided and did."""
    champion, promotion = champion_or_complain(project), versions.last_promotion(project.ledger, project.name)
    assert promotion is not None
    if acknowledge:
        _acknowledge(project, console)
    acting.finish_what_was_begun(project, console)
    production = Production(project, champion, promotion, clock, console)
    path = project.home / FOLDER / "last.json"
    known = read_json(path) if path.exists() else None
    if known is not None and known["state"] == _plain(production.state) and production.now < known["until"]:
        told: dict[str, Any] = known["told"]
        console.say("  nothing new since the last look")
    else:
        told = _Pass(production, console).run()
        until = min((p.end for p in production.places() if not p.closed), default=_EVER)
        write_json({"state": production.state, "until": until, "told": told}, path)
    _say(told, console)
    told = {**told, "retrained": acting.retrain(project, console, wait)}
    notifying.send(project)
    return told


class _Pass:
    """One pass over a champion's windows."""

    def __init__(self, production: Production, console: Console) -> None:
        self._production, self._console = production, console
        self._project = production.project
        self._engine, self._name = self._project.ledger, self._project.name
        self._limits = Limits.of(self._project.settings)

    def run(self) -> dict[str, Any]:
        """Look at what is new, in the order of time, and decide after each new look; the newest window's words."""
        places = self._production.places()
        entries = list[Entry]()
        for place in places:
            self._console.working(f"window from {place.start[:10]}")
            count = self._production.count(place)
            if (seen := self._looked(count)) is not None:
                entries.append(self._decide(seen, newest=place is places[-1]))
        known = {s.start: s for s in windows.of(self._engine, self._name, self._production.champion.version)}
        if not known:
            return self._nothing()
        newest = known[max(known)]
        last = decisions.last(self._engine, self._name)
        if last is None or (last.version, last.window) != (newest.version, newest.start):
            last = self._decide(newest, newest=True)
        # What was decided about an earlier window of this pass is its news; what follows only waits for that.
        entry = next((e for e in reversed(entries) if e.action != "wait"), last)
        seen = known.get(entry.window, newest)
        return _told(seen, entry, self._production, self._report(seen))

    def _looked(self, count: Count) -> Seen | None:
        """The window after a look at it; None: it was looked at as it is, or it is too early for another look."""
        place, version = count.place, self._production.champion.version
        before = next((s for s in windows.of(self._engine, self._name, version) if s.start == place.start), None)
        if before is not None and before.mark == count.mark and before.closed == place.closed:
            return None
        fresh = before is None or due(
            before.looks, before.look["drift"]["rows"], count.rows, before.closed, place.closed
        )
        if not fresh and not place.closed:
            return None
        seen = self._look(count, before, fresh)
        return seen if windows.save(self._engine, self._name, seen, before) else None

    def _look(self, count: Count, before: Seen | None, fresh: bool) -> Seen:
        from monitoring import looking
        from monitoring.evidence import Stretch

        place, settings = count.place, self._project.settings
        looks = 0 if before is None else before.looks
        frame = self._production.frame(count)
        labelled = int(frame[settings.problem.target].notna().sum())
        version = self._production.champion.version
        found, state = looking.look(
            frame,
            self._reference(place.start),
            self._production.columns(count.origin),
            settings.problem,
            version=version,
            stretch=Stretch(place.start, place.end, len(frame), labelled, place.closed),
            level=level(settings.monitor.false_alarms, looks, place.closed),
            seed=settings.split.seed,
            cut=settings.monitor.cut,
            drifted=None if fresh or before is None else looking.from_json(before.look).drift,
        )
        return Seen(
            version,
            place.start,
            place.end,
            count.origin,
            len(frame),
            labelled,
            place.closed,
            looks + fresh,
            count.mark,
            looking.to_json(found, state),
            wall(),
        )

    def _reference(self, start: str) -> Reference:
        from monitoring.looking import Reference
        from monitoring.states import State

        kept = [s.look["state"] for s in windows.before(self._engine, self._name, start, _STATES)]
        known = [State.from_json(content) for content in kept if content is not None]
        return Reference(self._production.record, self._production.before(), known)

    def _decide(self, seen: Seen, newest: bool) -> Entry:
        """Decide after a look, put it on record, and do at once what is not a lap's."""
        from monitoring import looking

        look = looking.from_json(seen.look)
        now = self._production.now
        at = now if newest or not seen.closed else min(seen.end, now)
        self._mended(look)
        decision = decide(look, self._history(seen), self._limits, at)
        entry = self._record(seen, look, decision, at)
        report = self._report(seen)
        acting.act(self._project, entry, self._console)
        if decision.action != "wait" or look.drift.alarm:
            acting.tell_mlflow(self._project, seen, look, entry, report)
        notifying.after_look(self._project, look, entry)
        return entry

    def _record(self, seen: Seen, look: Look, decision: Decision, at: str) -> Entry:
        evidence = {"columns": list(look.diagnosis.columns), "learned_from": _learned(self._production)}
        entry = Entry(self._name, seen.version, seen.start, at, evidence=evidence, **asdict(decision))
        if decision.action == "stop" and (owed := decisions.pending(self._engine, self._name)) is not None:
            decisions.close(self._engine, owed.id, "skipped", "the data look broken")
        try:
            return decisions.record(self._engine, entry)
        except AlreadyOpen as e:
            other = {**vars(entry), "action": "wait", "reason": f"{e}. Otherwise: {entry.reason}", "depth": None}
            return decisions.record(self._engine, Entry(**other))

    def _mended(self, look: Look) -> None:
        if look.diagnosis.change == "broken data" or look.drift.statistic is None:
            return
        for one in decisions.listed(self._engine, self._name, acting=True):
            if one.action == "stop" and one.open:
                decisions.close(self._engine, one.id, "done", "mended")

    def _history(self, seen: Seen) -> History:
        from flows import probation
        from monitoring import looking

        earlier = [s for s in windows.of(self._engine, self._name, seen.version) if s.start < seen.start]
        made = decisions.listed(self._engine, self._name, acting=True)
        of_mean, of_window = probation.errors(self._production)
        return History(
            looks=tuple(looking.from_json(s.look) for s in earlier),
            made=tuple(
                Made(d.action, d.at, d.state, d.version, d.note, tuple(d.evidence.get("columns", ()))) for d in made
            ),
            usual_rows=self._production.usual_rows(),
            reference_error=of_mean,
            window_error=of_window,
            probation=probation.so_far(self._production, seen, self._limits),
            new_rows=_new_rows(self._production, made),
        )

    def _report(self, seen: Seen) -> str:
        from monitoring import looking, report

        path = self._project.home / FOLDER / "reports" / f"{seen.version}-{seen.start[:19].replace(':', '')}.html"
        last = next(
            (
                d
                for d in reversed(decisions.listed(self._engine, self._name))
                if (d.version, d.window) == (seen.version, seen.start)
            ),
            None,
        )
        mine = windows.of(self._engine, self._name, seen.version)
        earlier = [looking.from_json(s.look) for s in mine if s.start < seen.start]
        hidden = self._production.hidden if seen.origin == "ledger" else ()
        report.write(path, looking.from_json(seen.look), last, self._name, seen.origin, hidden, earlier)
        return str(path)

    def _nothing(self) -> dict[str, Any]:
        champion = self._production.champion
        until = f" until {champion.taught_until}" if champion.taught_until else ""
        reason = f"no rows yet since version {champion.version} was taught{until}"
        empty = {"rows": 0, "from": None, "to": None}
        return {
            "window": empty,
            "drift": {"alarm": False, "columns": []},
            "quality": None,
            "diagnosis": "none",
            "decision": "wait",
            "reason": reason,
            "report": None,
            "version": champion.version,
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


def _learned(production: Production) -> list[Any]:
    """What there is to learn from: labels of the ledger, and the source."""
    return [_plain(production.state["labels"]), production.state["source"]]


def _new_rows(production: Production, made: tuple[Entry, ...]) -> bool | None:
    """Whether anything has come since the last lap found nothing new; None: no lap has."""
    laps = [one for one in made if one.action == "retrain"]
    if not laps or laps[-1].state != "skipped" or not str(laps[-1].note).startswith("no new rows"):
        return None
    return laps[-1].evidence.get("learned_from") != _learned(production)


def _acknowledge(project: Project, console: Console) -> None:
    stops = [d for d in decisions.listed(project.ledger, project.name, acting=True) if d.action == "stop" and d.open]
    for one in stops:
        decisions.close(project.ledger, one.id, "done", ACKNOWLEDGED)
        console.say(f"  acknowledged: {one.reason}")
    if not stops:
        console.say("  nothing to acknowledge")
    (project.home / FOLDER / "last.json").unlink(missing_ok=True)


def _plain(content: Any) -> Any:
    """As it comes back from JSON."""
    import json

    return json.loads(json.dumps(content))
