"""Records of monitoring: what an assessment of a window finds, and what a decision is made from. No logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal

from windvane.tasks.settings.monitoring_section import LapBudget, PolicyName
from windvane.tasks.settings.project_params import Settings

# Which clock monitoring follows: the wall's, or the newest moment among the events that the ledger has recorded.
Clock = Literal["wall", "events"]
# What a finding is about: values of a number or category; the share missing; categories never seen; numbers out of range;
# a column that fell silent or changed its type; how columns hang together; the predictions; the labels.
DriftAspect = Literal[
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
ChangeKind = Literal["none", "broken data", "data drift", "label drift", "concept drift", "seasonal return"]
# What helps against a change: nothing; a person; newer rows; algorithm and tuning anew; checked labels, and weights.
Remedy = Literal["wait", "person", "refit", "search", "labels"]
DecisionAction = Literal["wait", "retrain", "stop", "rollback"]
LapDepth = Literal["refit", "search"]
# What helps wherever labels are missing.
LABELS_WOULD_DECIDE = "labels of this window (`windvane labels`) would decide"
# What no estimate knows.
ESTIMATE_BLIND_SPOT = "it cannot see a concept drift, other labels for the same inputs, before labels come"


@dataclass(frozen=True)
class WindowExtent:
    """A window's place: from `start` (included) to `end` (not), ledger text in UTC; `rows` in it; `closed`: no more is due.

    labelled_estimated: of many rows the labels were counted in an even sample.
    """

    start: str
    end: str
    rows: int
    labelled: int
    closed: bool
    labelled_estimated: bool = False

    @property
    def labelled_text(self) -> str:
        """The count of labels, as people read it."""
        return f"about {self.labelled:,}" if self.labelled_estimated else f"{self.labelled:,}"


@dataclass(frozen=True)
class DriftMeasure:
    """What is compared: a column, what of it, and by which measure."""

    column: str
    aspect: DriftAspect
    how: str


@dataclass(frozen=True)
class DriftFinding:
    """One column, one aspect: how far it moved (`distance`, standardised by what is usual: 1 = one standard deviation of
    unchanged windows), the limit at its own level, and whether it speaks; `said`: in words, with figures.
    """

    column: str
    aspect: DriftAspect
    distance: float
    limit: float
    alarm: bool
    said: str


@dataclass(frozen=True)
class DriftResult:
    """Has anything moved? `statistic` is the largest standardised distance of all, `limit` what it exceeds in a share
    `level` of unchanged windows, `p` its place among them. None: that is unknown, for a reason that `note` names. Then `alarm` is
    None where rows were enough and the report failed. `undecided`: why a season cannot be distinguished from drift here,
    and what would decide; None: it can, or nothing moved.
    """

    alarm: bool | None
    statistic: float | None
    limit: float | None
    p: float | None
    level: float
    findings: tuple[DriftFinding, ...]
    reference_rows: int
    rows: int
    note: str | None = None
    undecided: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that speak, loudest first, each once."""
        return tuple(dict.fromkeys(f.column for f in self.findings if f.alarm))

    @property
    def unknown(self) -> str | None:
        """Why it is unknown whether anything moved that matters; None: it is known."""
        return self.note if self.alarm is None else None if self.alarm else self.undecided


@dataclass(frozen=True)
class PerformanceResult:
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
class CoverageResult:
    """How often the champion's intervals at `level` held the label, on `rows` labelled rows of a window; low and high: the exact 95 %
    interval of that share.

    p: how likely so few are if nothing changed (None: no rows); limit: what p is held against, after `checks` checks of the
    window with labels. width: the median width in the target's unit, of classes the mean size of the sets. left_out: labelled
    rows whose inputs the ledger did not keep. counts: see tasks/evaluation/adaptive_levels.py. adjusted: the level that was
    in use after this check.
    """

    level: float
    rows: int
    covered: int
    low: float | None = None
    high: float | None = None
    p: float | None = None
    limit: float = 0.0
    alarm: bool = False
    width: float | None = None
    sets: bool = False
    left_out: int = 0
    checks: int = 0
    counts: tuple[int, ...] = ()
    adjusted: float | None = None

    @property
    def share(self) -> float | None:
        """The share of labels within their interval."""
        return self.covered / self.rows if self.rows else None

    @property
    def text(self) -> str:
        """In one line, as people read it."""
        out = f"{self.left_out:,} labelled rows were left out, as their inputs are not kept or cannot be read"
        if self.share is None or self.low is None or self.high is None:
            return f"unknown at {self.level:g}: {out}, or too few rows were held out for this level"
        parts = [
            f"{self.share:.1%} of {self.rows:,} labels are within, {self.level * 100:g} % were promised "
            f"(95 % interval {self.low:.1%} to {self.high:.1%})",
            f"sets have {self.width:.2f} classes" if self.sets else f"median width {self.width:.4g}",
        ]
        parts += [f"alarm: intervals are too narrow (p {self.p:.2g})"] if self.alarm else []
        parts += (
            [] if self.adjusted is None else [f"after this check {self.adjusted:.4g} is the level for {self.level:g}"]
        )
        return "; ".join([*parts, out] if self.left_out else parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values of a result that is shown: with its line, without counts."""
        content = {**asdict(self), "share": self.share, "text": self.text}
        del content["counts"]
        return content


@dataclass(frozen=True)
class ChangeDiagnosis:
    """Which type of change this is, how sure that is (0 to 1), the columns that speak for it, why, and what helps."""

    change: ChangeKind
    sure: float
    columns: tuple[str, ...]
    why: str
    remedy: Remedy


@dataclass(frozen=True)
class WindowAssessment:
    """All that one check of a window found: what a decision is made from, and what is remembered of it."""

    version: int
    stretch: WindowExtent
    drift: DriftResult
    quality: PerformanceResult
    estimate: PerformanceResult | None
    diagnosis: ChangeDiagnosis
    coverage: CoverageResult | None = None

    @property
    def performance(self) -> PerformanceResult | None:
        """By its labels; where too few have come, the estimate without them."""
        return self.quality if self.quality.loss is not None else self.estimate

    @property
    def changed(self) -> bool:
        """Whether anything speaks for a change: the alarm (or that it is unknown), or the diagnosis beside a quiet one."""
        return self.drift.alarm is not False or self.diagnosis.change != "none"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> WindowAssessment:
        """What to_json() wrote, as the ledger has it (there the window's state is beside it)."""
        drift, diagnosis, estimate = content["drift"], content["diagnosis"], content["estimate"]
        coverage = content.get("coverage")  # earlier releases had none
        findings = tuple(DriftFinding(**one) for one in drift["findings"])
        return cls(
            content["version"],
            WindowExtent(**content["stretch"]),
            DriftResult(**{**drift, "findings": findings}),
            PerformanceResult(**content["quality"]),
            None if estimate is None else PerformanceResult(**estimate),
            ChangeDiagnosis(**{**diagnosis, "columns": tuple(diagnosis["columns"])}),
            None if coverage is None else CoverageResult(**{**coverage, "counts": tuple(coverage["counts"])}),
        )


@dataclass(frozen=True)
class Decision:
    """Wait, retrain, stop or roll back, and why. `gain` is what retraining is expected to save over the next windows, `cost`
    what a lap costs, both in mean losses of one window; `known_until`: up to when labels were known to it.
    """

    action: DecisionAction
    reason: str
    depth: LapDepth | None = None
    remedy: Remedy = "wait"
    gain: float | None = None
    cost: float | None = None
    known_until: str | None = None


@dataclass(frozen=True)
class DecisionLimits:
    """What params.yaml sets about retraining: sections retrain and monitor; `scheduled`: schedule.train starts laps."""

    policy: PolicyName = "regret"
    cost: float = 0.5
    label_delay: timedelta = timedelta()
    cooldown: timedelta = timedelta(days=1)
    budget: LapBudget | None = None
    probation: int = 2
    false_alarms: float = 0.01
    scheduled: bool = False

    @classmethod
    def of(cls, settings: Settings) -> DecisionLimits:
        """The limits in params.yaml."""
        retrain, monitor, scheduled = settings.retrain, settings.monitor, settings.schedule.train is not None
        laps = (retrain.rest, retrain.limit, retrain.probation)
        return cls(retrain.policy, retrain.cost, monitor.delay, *laps, monitor.false_alarms, scheduled)


@dataclass(frozen=True)
class PastDecision:
    """An earlier decision other than to wait. `at`: in the events' own time; `state` and `note`: what became of it."""

    action: str
    at: str
    state: str
    version: int
    note: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProbationResult:
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
class DecisionHistory:
    """What happened before. assessments: the champion's earlier windows, oldest first; made: decisions, oldest first.

    usual_rows: rows of a usual window; reference_error: standard error of the champion's mean loss on its own held-out rows;
    window_error: by how much the means of windows differ there, for windows too short in time to show it themselves;
    new_rows: whether there is anything to learn from that was not there at the last lap (None: that is not known);
    advice: what retrain.policy regret recommends, losses and gain in mean losses of one window (None: another policy, or no
    problem.time).
    """

    assessments: tuple[WindowAssessment, ...] = ()
    made: tuple[PastDecision, ...] = ()
    usual_rows: float | None = None
    reference_error: float | None = None
    window_error: float | None = None
    probation: ProbationResult | None = None
    new_rows: bool | None = None
    advice: PolicyAdvice | None = None


@dataclass(frozen=True)
class PolicyAdvice:
    """Retrain or wait, and why. gain: what retraining now is expected to save before the champion would be as old again, in
    loss; None where a policy expects nothing. blind_since: where no labels came, the start of the first such window, ledger text
    ("": no window could be judged), None else.
    """

    retrain: bool
    reason: str
    gain: float | None = None
    blind_since: str | None = None
