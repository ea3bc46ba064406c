"""What people and MLflow are shown of a look, and what is done at once after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windvane.flows import acting, notifying
from windvane.flows.console import Console
from windvane.flows.looks import last_about
from windvane.flows.production import Production, page_path, report_path
from windvane.ledger import windows
from windvane.ledger.decisions import Entry
from windvane.ledger.windows import Seen
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
        """Write the page, act, and tell, in this order, once a decision is on record."""
        report = self.report(seen)
        acting.act(self._project, entry, self._console)
        if entry.action != "wait" or look.drift.alarm is not False:
            self._log(seen, look, entry, Path(report))
        notifying.after_look(self._project, look, entry)

    def _log(self, seen: Seen, look: Look, entry: Entry, page: Path) -> None:
        """A run in MLflow, as long as that answers: looks and decisions stand in the ledger without it."""
        if self._away:
            return
        try:
            acting.tell_mlflow(self._project, seen, look, entry, [page])
        except WindvaneError as e:
            self._away = True
            self._console.say(f"  note: looks of this pass are not in MLflow: {e}")

    def report(self, seen: Seen) -> str:
        """Write a look's page, with Evidently's report behind ours; where. Pages before it that had nothing to say let theirs go."""
        mine = windows.of(self._project.ledger, self._project.name, seen.version)
        for earlier in mine:
            kept = report_path(self._project, earlier.version, earlier.start)
            if earlier.start < seen.start and earlier.look["drift"]["alarm"] is False and kept.exists():
                kept.unlink()
                self._write(earlier, mine)
        return str(self._write(seen, mine))

    def _write(self, seen: Seen, mine: tuple[Seen, ...]) -> Path:
        from windvane.monitoring import looking, report

        path = page_path(self._project, seen.version, seen.start)
        report.write(
            path,
            looking.from_json(seen.look),
            last_about(self._project.ledger, self._project.name, seen),
            self._project.name,
            seen.origin,
            self._production.hidden if seen.origin == "ledger" else (),
            [looking.from_json(s.look) for s in mine if s.start < seen.start],
            report_path(self._project, seen.version, seen.start),
        )
        return path
