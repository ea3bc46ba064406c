"""What a look at a window finds out, as frozen records. Passed between the files of this room, to the ledger, and to people.

Owns names only: nothing here measures, tests or decides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

# What a finding is about: values of a number or category; the share missing; categories never seen; numbers out of range;
# a column that fell silent or changed its type; how columns hang together; the model's answers; the labels.
Aspect = Literal[
    "numbers",
    "categories",
    "missing",
    "new categories",
    "range",
    "silent",
    "type",
    "correlation",
    "prediction",
    "target",
]
Change = Literal["none", "broken data", "data drift", "label drift", "concept drift", "seasonal return"]
# What helps against a change: nothing; a person; newer rows; algorithm and tuning anew; a look at the labels, and weights.
Remedy = Literal["wait", "person", "refit", "search", "labels"]
Action = Literal["wait", "retrain", "stop", "rollback"]
Depth = Literal["refit", "search"]


@dataclass(frozen=True)
class Stretch:
    """A window's place: from `start` (included) to `end` (not), ledger text in UTC; `rows` in it; `closed`: no more is due."""

    start: str
    end: str
    rows: int
    labelled: int
    closed: bool


@dataclass(frozen=True)
class Measure:
    """What is compared: a column, what of it, and by which measure."""

    column: str
    aspect: Aspect
    how: str


@dataclass(frozen=True)
class Finding:
    """One column, one aspect: how far it moved (`distance`, standardised by what is usual: 1 = one standard deviation of
    unchanged windows), the limit at its own level, and whether it speaks; `said`: in words, with figures.
    """

    column: str
    aspect: Aspect
    distance: float
    limit: float
    alarm: bool
    said: str


@dataclass(frozen=True)
class Drift:
    """Has anything moved? `statistic` is the largest standardised distance of all, `limit` what it exceeds in a share
    `level` of unchanged windows, `p` its place among them. None: that cannot be told, for a reason that `note` names. Then `alarm` is
    None where rows were enough and the report failed.
    """

    alarm: bool | None
    statistic: float | None
    limit: float | None
    p: float | None
    level: float
    findings: tuple[Finding, ...]
    reference_rows: int
    rows: int
    note: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that speak, loudest first, each once."""
        return tuple(dict.fromkeys(f.column for f in self.findings if f.alarm))


@dataclass(frozen=True)
class Quality:
    """The champion's mean loss per row on a window, against `reference`, its mean on its own held-out rows.

    `low` and `high` bound the difference `loss - reference` at 95 %; `estimated`: without labels, which `how` explains.
    None where too few rows are labelled, or an estimate cannot be made.
    """

    loss: float | None
    reference: float
    low: float | None
    high: float | None
    rows: int
    estimated: bool
    how: str
    known_until: str | None = None

    @property
    def excess(self) -> float | None:
        """By how much a row costs more than on the champion's own held-out rows."""
        return None if self.loss is None else self.loss - self.reference


@dataclass(frozen=True)
class Diagnosis:
    """Which kind of change this is, how sure that is (0 to 1), the columns that speak for it, why, and what helps."""

    change: Change
    sure: float
    columns: tuple[str, ...]
    why: str
    remedy: Remedy


@dataclass(frozen=True)
class Look:
    """All that one look at a window found: what a decision is made from, and what is remembered of it."""

    version: int
    stretch: Stretch
    drift: Drift
    quality: Quality
    estimate: Quality | None
    diagnosis: Diagnosis

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """Wait, retrain, stop or roll back, and why. `gain` is what retraining is expected to save over the next windows, `cost`
    what a lap costs, both in mean losses of one window; `known_until`: up to when labels were known to it.
    """

    action: Action
    reason: str
    depth: Depth | None = None
    remedy: Remedy = "wait"
    gain: float | None = None
    cost: float | None = None
    known_until: str | None = None
