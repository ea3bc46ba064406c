"""Looks at the champion's windows, each with what it leads to. A look is in the ledger before anything follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import acting, notifying
from flows.console import Console
from flows.production import Count, Production
from flows.source import FOLDER
from ledger import decisions, windows
from ledger.decisions import AlreadyOpen, Entry
from ledger.store import now as wall
from ledger.windows import Seen
from monitoring.decision import decide
from monitoring.limits import History, Limits, Made
from monitoring.windows import Place, due, level

if TYPE_CHECKING:
    from flows.challengers import Challengers
    from monitoring.estimate import LossModel
    from monitoring.evidence import Decision, Look
    from monitoring.looking import Reference
    from tasks.features import Columns

# Earlier windows whose state may come back.
_STATES = 36


class Pass:
    """One pass over a champion's windows."""

    def __init__(self, production: Production, console: Console) -> None:
        self._production, self._console = production, console
        self._project = production.project
        self._engine, self._name = self._project.ledger, self._project.name
        self._limits = Limits.of(self._project.settings)
        self._models: dict[Columns, LossModel] = {}

    def run(self) -> tuple[Seen, Entry] | None:
        """Look at what is new, in the order of time, and decide after each new look; the news of it. None: there are no rows."""
        places = self._production.places()
        entries = list[Entry]()
        version = self._production.champion.version
        decided = {made.window for made in decisions.listed(self._engine, self._name) if made.version == version}
        for place in places:
            self._console.working(f"window from {place.start[:10]}")
            count = self._production.count(place)
            seen = self._looked(count)
            if seen is None and place.start not in decided:  # a pass was killed between its look and its decision
                seen = self._seen(place.start)
            if seen is not None:
                entries.append(self._decide(seen, newest=place is places[-1]))
        known = {s.start: s for s in windows.of(self._engine, self._name, self._production.champion.version)}
        if not known:
            return None
        newest = known[max(known)]
        last = decisions.last(self._engine, self._name)
        if last is None or (last.version, last.window) != (newest.version, newest.start):
            last = self._decide(newest, newest=True)
        # What was decided about an earlier window of this pass is its news; what follows only waits for that. Else the newest
        # window that says anything: one that has just begun has too few rows.
        acted = next((e for e in reversed(entries) if e.action != "wait"), None)
        seen = newest if acted is None else known.get(acted.window, newest)
        if acted is None:
            seen = next((known[start] for start in sorted(known, reverse=True) if _speaks(known[start])), newest)
        return seen, acted or self._last(seen) or last

    def _last(self, seen: Seen) -> Entry | None:
        """The last decision about a window."""
        made = decisions.listed(self._engine, self._name)
        return next((d for d in reversed(made) if (d.version, d.window) == (seen.version, seen.start)), None)

    def _seen(self, start: str) -> Seen | None:
        """What the ledger holds of the champion's window that begins there."""
        mine = windows.of(self._engine, self._name, self._production.champion.version)
        return next((seen for seen in mine if seen.start == start), None)

    def _looked(self, count: Count) -> Seen | None:
        """The window after a look at it; None: it was looked at as it is, or it is too early for another look."""
        place, before = count.place, self._seen(count.place.start)
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
        version, columns = self._production.champion.version, self._production.columns(count.origin)
        found, state = looking.look(
            frame,
            self._reference(place.start, columns),
            columns,
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

    def _reference(self, start: str, columns: Columns) -> Reference:
        from monitoring import estimate
        from monitoring.looking import Reference
        from monitoring.states import State
        from tasks import problems

        record, settings = self._production.record, self._project.settings
        if columns not in self._models:  # of the record alone: the same for every window
            kind = problems.of(settings.problem.kind)
            self._models[columns] = estimate.fit(record, columns, kind, settings.problem, settings.split.seed)

        kept = [s.look["state"] for s in self._known(start)]
        known = [State.from_json(content) for content in kept if content is not None]
        return Reference(record, self._production.before, known, self._models[columns])

    def _known(self, start: str) -> list[Seen]:
        """Closed windows whose state may come back, newest last: the champion's own, without those that alarm up to this one.

        Such a run is one change that goes on; a state comes back only where another lay between.
        """
        mine = windows.of(self._engine, self._name, self._production.champion.version)
        past = [s for s in mine if s.closed and s.end <= start]
        while past and past[-1].look["drift"]["alarm"]:
            past.pop()
        return past[-_STATES:]

    def _decide(self, seen: Seen, newest: bool) -> Entry:
        """Decide after a look, put it on record, and do at once what is not a lap's."""
        from monitoring import looking

        look = looking.from_json(seen.look)
        now = self._production.now
        at = now if newest or not seen.closed else min(seen.end, now)
        self._mended(look)
        decision = decide(look, self._history(seen, at), self._limits, at)
        entry = self._record(seen, look, decision, at)
        found = decision.action != "wait" or look.drift.alarm
        drawn = self._draw(seen, look) if look.drift.alarm else None
        report = self.report(seen)
        acting.act(self._project, entry, self._console)
        if found:
            acting.tell_mlflow(self._project, seen, look, entry, [Path(p) for p in (report, drawn) if p is not None])
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

    @cached_property
    def _challengers(self) -> Challengers:
        from flows.challengers import Challengers

        return Challengers(self._production, self._console)

    def _history(self, seen: Seen, at: str) -> History:
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
            usual_rows=self._production.usual_rows([s.rows for s in earlier if s.closed]),
            reference_error=of_mean,
            window_error=of_window,
            probation=probation.so_far(self._production, seen, self._limits),
            new_rows=_new_rows(self._production, made),
            advice=self._challengers.advice(at) if self._limits.policy == "regret" else None,
        )

    def _draw(self, seen: Seen, look: Look) -> Path:
        """Evidently's page of all distributions, beside the look's own."""
        from monitoring import evidently, frames

        self._console.working("draw")
        place = Place(seen.start, seen.end, seen.closed)
        frame = self._production.frame(self._production.count(place))
        stored = frame[frame[frames.STORED]].drop(columns=[frames.STORED, frames.KNOWN]).reset_index(drop=True)
        problem, path = self._project.settings.problem, self._page(seen, "-distributions")
        path.parent.mkdir(parents=True, exist_ok=True)
        evidently.report(
            self._production.record,
            stored,
            self._production.columns(seen.origin),
            target=problem.target,
            time=problem.time if problem.time in self._production.record else None,
            seed=self._project.settings.split.seed,
            path=path,
            drift=look.drift,
        )
        return path

    def _page(self, seen: Seen, more: str = "") -> Path:
        return self._project.home / FOLDER / "reports" / f"{seen.version}-{seen.start[:19].replace(':', '')}{more}.html"

    def report(self, seen: Seen) -> str:
        """Write a look's page; where."""
        from monitoring import looking, report

        path, drawn = self._page(seen), self._page(seen, "-distributions")
        last = self._last(seen)
        mine = windows.of(self._engine, self._name, seen.version)
        earlier = [looking.from_json(s.look) for s in mine if s.start < seen.start]
        hidden = self._production.hidden if seen.origin == "ledger" else ()
        beside = drawn.name if drawn.exists() else None
        report.write(path, looking.from_json(seen.look), last, self._name, seen.origin, hidden, earlier, beside)
        return str(path)


def _speaks(seen: Seen) -> bool:
    """Whether a window had rows enough to say anything, about drift or by its labels."""
    return bool(
        seen.look["drift"]["statistic"] is not None
        or seen.look["drift"]["alarm"]
        or seen.look["quality"]["loss"] is not None
    )


def _learned(production: Production) -> list[Any]:
    """What there is to learn from: labels of the ledger, and the source."""
    return [plain(production.state["labels"]), production.state["source"]]


def _new_rows(production: Production, made: tuple[Entry, ...]) -> bool | None:
    """Whether anything has come since the last lap found nothing new; None: no lap has."""
    laps = [one for one in made if one.action == "retrain"]
    if not laps or laps[-1].state != "skipped" or not str(laps[-1].note).startswith("no new rows"):
        return None
    return laps[-1].evidence.get("learned_from") != _learned(production)


def plain(content: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(content))
