"""What people and MLflow are shown of a look, and what is done at once after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windvane.flows import acting, notifying
from windvane.flows.console import Console
from windvane.flows.looks import last_about
from windvane.flows.production import Production
from windvane.flows.source import FOLDER
from windvane.ledger import windows
from windvane.ledger.decisions import Entry
from windvane.ledger.windows import Seen
from windvane.monitoring.windows import Place
from windvane.tasks.errors import WindvaneError

if TYPE_CHECKING:
    from windvane.monitoring.evidence import Look


class Pages:
    """The pages of a champion's looks."""

    def __init__(self, production: Production, console: Console) -> None:
        self._production, self._console = production, console
        self._project = production.project
        self._away = False

    def after(self, seen: Seen, look: Look, entry: Entry) -> None:
        """Draw, act, and tell, in this order, once a decision is on record."""
        drawn = self._draw(seen, look) if look.drift.alarm else None
        report = self.report(seen)
        acting.act(self._project, entry, self._console)
        if entry.action != "wait" or look.drift.alarm:
            self._log(seen, look, entry, [Path(p) for p in (report, drawn) if p is not None])
        notifying.after_look(self._project, look, entry)

    def _log(self, seen: Seen, look: Look, entry: Entry, pages: list[Path]) -> None:
        """A run in MLflow, as long as that answers: looks and decisions stand in the ledger without it."""
        if self._away:
            return
        try:
            acting.tell_mlflow(self._project, seen, look, entry, pages)
        except WindvaneError as e:
            self._away = True
            self._console.say(f"  note: looks of this pass are not in MLflow: {e}")

    def report(self, seen: Seen) -> str:
        """Write a look's page; where."""
        from windvane.monitoring import looking, report

        engine, name = self._project.ledger, self._project.name
        path, drawn = self._page(seen), self._page(seen, "-distributions")
        mine = windows.of(engine, name, seen.version)
        earlier = [looking.from_json(s.look) for s in mine if s.start < seen.start]
        hidden = self._production.hidden if seen.origin == "ledger" else ()
        beside, last = drawn.name if drawn.exists() else None, last_about(engine, name, seen)
        report.write(path, looking.from_json(seen.look), last, name, seen.origin, hidden, earlier, beside)
        return str(path)

    def _draw(self, seen: Seen, look: Look) -> Path:
        """Evidently's page of all distributions, beside the look's own."""
        from windvane.monitoring import evidently, frames

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
