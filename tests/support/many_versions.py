"""A project whose ledger knows several versions, without a lap: what tests of `versions`, `clean` and `promote` share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.projects import Folder
from tests.support.served_models import PROJECT, Site, made_project
from windvane.ledger import laps, versions
from windvane.ledger.database import now_timestamp


class Many:
    """A project; version 1 is its champion. Each further version is registered, judged, and promoted or refused, as by a lap."""

    def __init__(self, path: Path) -> None:
        self.folder: Folder = made_project(path)
        self.root = path
        self.site = Site(path / ".windvane")
        self._judge(1, None, True)

    def lap(self, number: int, *, accepted: bool, judged: bool = True, cause: str = "a test") -> None:
        """A lap that registers this version."""
        self.site.register(number)
        run = f"run-{number}"
        with self._lease() as lease:
            laps.record_lap_start(self.site.ledger, lease, f"lap-{number}", cause)
            laps.record_lap_runs(self.site.ledger, f"lap-{number}", mlflow_run=run)
            laps.record_lap_end(self.site.ledger, f"lap-{number}", "finished")
        with self.site.ledger.begin() as db:
            db.exec_driver_sql(f"UPDATE versions SET run_id = '{run}' WHERE version = {number}")
        if judged:
            self._judge(number, self.champion, accepted)

    @property
    def champion(self) -> int | None:
        last = versions.find_last_promotion(self.site.ledger, PROJECT)
        return None if last is None else last.to_version

    def move(self, number: int, cause: str = "manual") -> None:
        """A promotion without a lap."""
        versions.record_promotion(
            self.site.ledger, PROJECT, versions.make_promotion(self.champion, number, cause, "a test")
        )

    def model(self, number: int) -> Path:
        """Where a version's model files lie."""
        return self.root / ".windvane" / "models" / str(number)

    def kept(self) -> set[int]:
        """Versions whose model files are there."""
        return {int(path.name) for path in (self.root / ".windvane" / "models").iterdir()}

    def _lease(self) -> AbstractContextManager[laps.Lease]:
        return laps.hold_lease(self.site.ledger, PROJECT, "a test", lambda holder: None)

    def _judge(self, number: int, against: int | None, accepted: bool) -> None:
        outcome = {"reason": f"version {number} is {'better' if accepted else 'no better'}"}
        judgement = versions.GateJudgement(number, against, "gate", accepted, {"outcome": outcome}, now_timestamp())
        move = None
        if accepted and number not in (against, self.champion):
            move = versions.make_promotion(self.champion, number, "lap", "it is better")
        with self._lease() as lease:
            versions.record_judgement(self.site.ledger, lease, judgement, move)
