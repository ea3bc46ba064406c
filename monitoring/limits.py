"""What a decision is made from, beside the look: the limits that params.yaml sets, and what happened before. Frozen records only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from windvane.monitoring.evidence import Look
from windvane.tasks.watch_settings import Budget, Policy

if TYPE_CHECKING:
    from windvane.monitoring.history.past import Advice
    from windvane.tasks.settings import Settings


@dataclass(frozen=True)
class Limits:
    """What params.yaml says about retraining: sections retrain and monitor; `scheduled`: schedule.train starts laps."""

    policy: Policy = "staleness"
    cost: float = 0.5
    label_delay: timedelta = timedelta()
    cooldown: timedelta = timedelta(days=1)
    budget: Budget | None = None
    probation: int = 2
    false_alarms: float = 0.01
    scheduled: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits in params.yaml."""
        retrain, monitor = settings.retrain, settings.monitor
        return cls(
            retrain.policy,
            retrain.cost,
            monitor.delay,
            retrain.rest,
            retrain.limit,
            retrain.probation,
            monitor.false_alarms,
            settings.schedule.train is not None,
        )


@dataclass(frozen=True)
class Made:
    """An earlier decision other than to wait. `at`: in the events' own time; `state` and `note`: what became of it."""

    action: str
    at: str
    state: str
    version: int
    note: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probation:
    """A new champion against `against`, the version that it replaced, over its first windows.

    excess: its mean loss less the other's, as a share of the other's; low: that difference's lower bound at the level of the
    test; None where too few rows are labelled. how: on which rows.
    """

    against: int
    rows: int
    excess: float | None
    low: float | None
    how: str


@dataclass(frozen=True)
class History:
    """What happened before. looks: the champion's earlier windows, oldest first; made: decisions, oldest first.

    usual_rows: rows of a usual window; reference_error: standard error of the champion's mean loss on its own held-out rows;
    window_error: by how much the means of windows differ there, for windows too short in time to say so themselves;
    new_rows: whether there is anything to learn from that was not there at the last lap (None: that is not known);
    advice: what retrain.policy regret says, losses and gain in mean losses of one window (None: another policy).
    """

    looks: tuple[Look, ...] = ()
    made: tuple[Made, ...] = ()
    usual_rows: float | None = None
    reference_error: float | None = None
    window_error: float | None = None
    probation: Probation | None = None
    new_rows: bool | None = None
    advice: Advice | None = None
