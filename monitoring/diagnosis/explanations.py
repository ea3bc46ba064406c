"""Which type of change a window shows, how sure that is, and what helps: the evidence weighed against six explanations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log, sqrt

from windvane.monitoring.diagnosis.broken_columns import MIN_BREAK_NATS, BrokenColumn
from windvane.monitoring.diagnosis.contrasts import Contrast
from windvane.monitoring.diagnosis.evidence import ChangeEvidence, DiagnosisCase, gather_evidence
from windvane.monitoring.diagnosis.window_states import SeasonMatch
from windvane.monitoring.records import (
    LABELS_WOULD_DECIDE,
    ChangeDiagnosis,
    ChangeKind,
    DriftResult,
    PerformanceResult,
    Remedy,
)
from windvane.tasks.gate.promotion_gate import MIN_JUDGED_ROWS
from windvane.tasks.models.model_pipeline import limit_to_one_thread


@dataclass(frozen=True)
class ExplanationPrices:
    """What each explanation costs beforehand, in nats; how far nats are trusted; the share of errors in any case.

    Fitted on three tables by benchmarks/diagnosis.py --fit; the figures on three others are in benchmarks/docs/diagnosis.md.
    """

    broken: float = 6.9
    data: float = 6.6
    label: float = 3.4
    concept: float = 2.6
    both: float = 14.5  # concept drift while the inputs moved too
    season: float = 4.1
    unlabelled: float = 2.0  # label drift where no label excludes data drift
    slack: float = 1.5
    trust: float = 0.9
    trust_classes: float = 0.7  # of classes a label adds less; fitted on a table that the prices had not seen
    usual: float = 1.0  # not fitted: most windows of production are unchanged, those of the benchmark are not
    slips: float = 0.03


FITTED_PRICES = ExplanationPrices()
# Beyond this, more evidence makes nothing surer.
_MAX_NATS = 30.0
# From so many nats on the losses of a state are called unusual.
_UNUSUAL_LOSS_NATS = 4.0


def diagnose_change(case: DiagnosisCase, drift: DriftResult, quality: PerformanceResult) -> ChangeDiagnosis:
    """Diagnose a window against the champion's record.

    drift: whether anything moved at all, at the promised rate of false alarms; quality what labels show. With fewer than 30 rows on
    a side: "none", not sure, and why.
    """
    fewest = min(len(case.record), len(case.window))
    if fewest < MIN_JUDGED_ROWS:
        why = f"too few rows to decide: {fewest:,}, and {MIN_JUDGED_ROWS} are needed"
        return ChangeDiagnosis("none", 0.0, (), why, "wait")
    with limit_to_one_thread():
        clues = gather_evidence(case)
    return conclude_diagnosis(apply_drift_result(clues, drift), quality, drift.undecided)


def apply_drift_result(clues: ChangeEvidence, drift: DriftResult) -> ChangeEvidence:
    """Clues with what drift knows better: whether anything moved, how much inputs move without any change, columns that fell silent,
    and whether a season may be what seems to be a break.
    """
    known = {b.column for b in clues.broken}
    alarming = [f for f in drift.findings if f.alarm and f.aspect in ("silent", "type") and f.column not in known]
    reported = tuple(BrokenColumn(f.column, f.said, _MAX_NATS) for f in alarming)
    sound = clues.broken if drift.undecided is None else tuple(b for b in clues.broken if not b.seasonal)
    if drift.alarm or drift.p is None:
        return replace(clues, broken=sound + reported, moved=bool(drift.alarm))
    most = -log(max(drift.p, 1e-9))
    broken = tuple(b for b in sound if most >= MIN_BREAK_NATS) + reported
    quiet = [Contrast(min(c.nats, most), c.columns) for c in (clues.inputs, clues.rest, clues.given_labels)]
    return replace(clues, broken=broken, inputs=quiet[0], rest=quiet[1], given_labels=quiet[2])


def weigh_explanations(clues: ChangeEvidence, prices: ExplanationPrices = FITTED_PRICES) -> dict[ChangeKind, float]:
    """What speaks against each explanation, in nats, its price included. An explanation that is out of reach is left out.

    All that moved is described in two ways, P(x) P(y | x) and P(y) P(x | y). Data drift leaves P(y | x) as it was, label drift
    P(x | y), concept drift moves P(y | x) and may leave P(x); whatever moved although it should not speaks against. The two
    ways are equal in truth, so the whole, and each missing part, is known twice; the mean is taken.
    """
    x, y = clues.inputs.nats, clues.labels.nats
    y_x, x_y = clues.answers.nats, clues.given_labels.nats
    broken = max((b.nats for b in clues.broken), default=0.0)

    def missing(measured: float, follows: float) -> float:
        # Nats of a normal deviate t vary by t, the root of twice as many: less than that is no contradiction.
        return (measured + max(follows - prices.slack * sqrt(2 * max(x, y)), 0.0)) / 2

    whole = max((x + y_x + y + x_y) / 2 if clues.labelled else x, broken)
    found: dict[ChangeKind, float] = {"data drift": missing(y_x, y + x_y - x) + broken + prices.data}
    if not clues.moved:
        found["none"] = whole - prices.usual
    if clues.labelled:
        found["label drift"] = missing(x_y, x + y_x - y) + broken + prices.label
        found["concept drift"] = broken + min(x + prices.concept, prices.both)
    else:
        found["label drift"] = clues.given_answers.nats + broken + prices.label + prices.unlabelled
    if clues.broken:
        found["broken data"] = clues.rest.nats + prices.broken
    if clues.seasons:
        found["seasonal return"] = prices.season + min(weigh_season(s, clues, whole) for s in clues.seasons)
    return found


def weigh_season(season: SeasonMatch, clues: ChangeEvidence, whole: float) -> float:
    """What speaks against a window being a known state again: that it is unlike it; the share of all that moved which the state
    does not explain; and labels that follow otherwise from the inputs, unless the champion erred unusually then too.
    """
    left = min(season.here / season.there, 1.0) if season.there > 0 else 1.0
    return max(season.here, left * whole) + (clues.answers.nats if season.errs < _UNUSUAL_LOSS_NATS else 0.0)


def compute_explanation_chances(
    clues: ChangeEvidence, prices: ExplanationPrices = FITTED_PRICES
) -> dict[ChangeKind, float]:
    """How likely each explanation is, adding up to 1."""
    against = weigh_explanations(clues, prices)
    least = min(against.values())
    trust = prices.trust_classes if clues.classes else prices.trust
    weights = {change: exp(-trust * min(nats - least, _MAX_NATS)) for change, nats in against.items()}
    total = sum(weights.values())
    return {change: (1 - prices.slips) * w / total + prices.slips / len(weights) for change, w in weights.items()}


def conclude_diagnosis(
    clues: ChangeEvidence, quality: PerformanceResult, undecided: str | None = None
) -> ChangeDiagnosis:
    """The likeliest explanation in words, with its remedy. undecided: why a season cannot be distinguished from drift."""
    likely = compute_explanation_chances(clues)
    change = max(likely, key=lambda c: likely[c])
    columns = {
        "broken data": tuple(b.column for b in clues.broken),
        "data drift": clues.inputs.columns,
        "concept drift": clues.answers.columns,
        "seasonal return": clues.inputs.columns,
    }.get(change, ())
    why, remedy = _explain_change(change, clues, undecided), choose_remedy(change, quality)
    return ChangeDiagnosis(change, likely[change], columns, why, remedy)


def choose_remedy(change: ChangeKind, quality: PerformanceResult) -> Remedy:
    """What helps. A known season needs nothing, unless the champion is surely worse in it than on its own record."""
    if change == "seasonal return":
        return "refit" if quality.low is not None and quality.low > 0 else "wait"
    remedies: dict[ChangeKind, Remedy] = {
        "none": "wait",
        "broken data": "person",
        "data drift": "refit",
        "label drift": "labels",
        "concept drift": "search",
    }
    return remedies[change]


def _explain_change(change: ChangeKind, clues: ChangeEvidence, undecided: str | None) -> str:
    """Two short sentences: what speaks for it, and what could not be seen."""
    none = (
        "inputs and labels are as on the champion's record"
        if clues.labelled
        else "inputs are as on the champion's record"
    )
    named = {
        "none": undecided or none,
        "data drift": "the inputs moved, and what follows from them did not",
        "label drift": "labels became more or less frequent, and the inputs of each label did not change",
        "concept drift": "the same inputs have other labels than on the champion's record",
    }
    if change == "broken data":
        reason = "; ".join(b.text for b in clues.broken[:3])
    elif change == "seasonal return":
        nearest = min(clues.seasons, key=lambda s: (s.here, s.name))
        reason = f"the window is unlike the champion's record, and like {nearest.name}"
    else:
        reason = named[change]
    if clues.labelled:
        return f"{reason} ({clues.labelled:,} of {clues.rows:,} rows have labels)"
    blind = f"without labels a concept drift cannot be seen: {LABELS_WOULD_DECIDE}"
    if change == "label drift":
        blind = f"without labels this is a guess from the predictions, and a concept drift cannot be seen: {LABELS_WOULD_DECIDE}"
    return f"{reason}; {blind}"
