"""The last word on a configuration: opens the test side, once, and gathers all that there is to say about it.

The only place that reads test rows. Owns the record and the order of work; leaves each figure to a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from windvane.tasks import curves, estimators, features
from windvane.tasks.bootstrap import bootstrap
from windvane.tasks.complexity import complexity_curve
from windvane.tasks.diagnosis import Diagnosis, Evidence, diagnose, skill
from windvane.tasks.errors import InputError
from windvane.tasks.importance import Importance, importance
from windvane.tasks.resampling import Interval, mean, units
from windvane.tasks.scores import (
    BASELINE_LOSS,
    LOSS,
    PREDICTION,
    PROBABILITY,
    Calibration,
    Confusion,
    calibration,
    class_name,
    confusion,
    predictions,
    scores,
)
from windvane.tasks.slices import Slice, worst_slices

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.estimators import Spec
    from windvane.tasks.features import Columns
    from windvane.tasks.problems import Kind, Predictions
    from windvane.tasks.settings import Settings

DUMMY = "dummy"
# Under kfold a fifth of the rows is held out for the curves; curves from fewer are from a sample.
LEAST_OF_ALL = 0.75


@dataclass(frozen=True)
class HeldOut:
    """The record (n test rows: all their columns, prediction, losses, probabilities), and the fitted pipeline."""

    record: pd.DataFrame
    model: Any


@dataclass(frozen=True)
class Evaluation:
    """All that a person is told about a configuration at the end of a lap. Figures that are not defined are None.

    scores: metric -> estimate with 95 % interval on the `rows` test rows, resampled as `resampled` says. loss and
    baseline_loss: mean additive loss per row (`loss_name`); gain: by how much the baseline's is larger, paired per row.
    learning and complexity: curves of the headline `metric` on rows outside the test side. importance and slices: all
    of them, largest first.
    """

    metric: str
    greater_is_better: bool
    rows: int
    resampled: str
    scores: Mapping[str, Interval]
    loss_name: str
    loss: Interval
    baseline_loss: Interval
    gain: Interval
    diagnosis: Diagnosis
    learning: curves.Curve
    complexity: curves.Curve | None
    importance: tuple[Importance, ...]
    slices: tuple[Slice, ...]
    confusion: Confusion | None
    calibration: Calibration | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def held_out(
    settings: Settings,
    kind: Kind,
    columns: Columns,
    spec: Spec,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    open_test: Callable[[], pd.DataFrame],
    cores: int,
) -> HeldOut:
    """Fit `spec` and the dummy on train and validation, then open the test side and predict it, once.

    `open_test` is called once, after both fits: a fit that fails leaves the seal whole. Raises InputError for a column
    whose name Windvane needs itself, and for a test side without rows.
    """
    import pandas as pd

    taken = [c for c in train.columns if c in (PREDICTION, LOSS, BASELINE_LOSS)]
    if taken:
        raise InputError(
            f"{settings.data.source}: column {taken[0]!r} has a name that Windvane writes itself. Rename it"
        )
    taught = pd.concat([train, validation], ignore_index=True) if len(validation) else train
    problem = settings.problem
    model = estimators.taught(settings, spec, kind, columns, taught, cores)
    constant = baseline(kind, kind.truth(taught[problem.target]), problem.headline)
    rows = open_test()
    if not len(rows):
        raise InputError(
            f"split.test: the test side of {settings.data.source} has no rows. Bring more, or make split.test larger"
        )
    truth = kind.truth(rows[problem.target])
    with estimators.one_thread():
        made = kind.predict(model, features.conform(rows, columns, "the test side"))
    added: dict[str, Any] = {
        PREDICTION: made.value,
        LOSS: kind.loss(truth, made, problem.headline),
        BASELINE_LOSS: kind.loss(truth, constant(len(rows)), problem.headline),
    }
    if made.proba is not None and made.classes is not None:
        added |= {PROBABILITY + class_name(c): made.proba[:, i] for i, c in enumerate(made.classes)}
    return HeldOut(rows.reset_index(drop=True).assign(**added), model)


def baseline(kind: Kind, truth: NDArray[Any], headline: str) -> Callable[[int], Predictions]:
    """The dummy taught on `truth` (n,), in its best form for the headline there: number of rows -> Predictions.

    It looks at no column, so it is built without the features around it.
    """
    import numpy as np

    dummy = kind.candidates[DUMMY]
    forms = [{name: value} for name, dimension in dummy.space.items() for value in dimension.grid(2)] or [{}]

    def taught(form: dict[str, Any]) -> Callable[[int], Predictions]:
        model = dummy.build({**dummy.defaults, **form}, 0, 1).fit(np.zeros((len(truth), 1)), truth)
        return lambda rows: kind.predict(model, np.zeros((rows, 1)))

    return min(
        (taught(form) for form in forms), key=lambda made: float(kind.loss(truth, made(len(truth)), headline).mean())
    )


def evaluate(
    settings: Settings,
    kind: Kind,
    columns: Columns,
    spec: Spec,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    record: pd.DataFrame,
    cores: int,
) -> Evaluation:
    """Everything about `spec`: scores and slices from its record, curves, diagnosis and importance from the others.

    Costs at most five fits on at most 20,000 rows, together under four fits of the whole (tasks/curves.py), on at most
    `cores` threads. Slices are looked for by every column that teaches, time, group, and those named in gate.slices.
    """
    problem, seed = settings.problem, settings.split.seed
    loss, base = (record[name].to_numpy(dtype="float64") for name in (LOSS, BASELINE_LOSS))
    pieces = units(record, loss, problem)
    truth = kind.truth(record[problem.target])
    made = predictions(record, truth)
    looked = [*columns.names, *settings.gate.slices, *([problem.time] if problem.time else [])]
    sides = curves.sides(settings, train, validation, seed)
    with estimators.one_thread():
        fit = _fit(settings, kind, columns, spec, sides, len(train), cores)
    metric = kind.metrics[problem.headline]
    return Evaluation(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        rows=len(record),
        resampled=pieces.said,
        scores=scores(kind, record, settings, seed),
        loss_name=kind.loss_name(problem.headline),
        loss=mean(loss, pieces),
        baseline_loss=mean(base, pieces),
        gain=mean(base - loss, pieces),
        diagnosis=diagnose(fit.evidence),
        learning=fit.learning,
        complexity=fit.complexity,
        importance=fit.importance,
        slices=worst_slices(record, looked, pieces, problem.group),
        confusion=confusion(truth, made),
        calibration=calibration(truth, made),
        notes=sides.notes,
    )


@dataclass(frozen=True)
class _Fit:
    """What the rows outside the test side say."""

    evidence: Evidence
    learning: curves.Curve
    complexity: curves.Curve | None
    importance: tuple[Importance, ...]


def _fit(
    settings: Settings, kind: Kind, columns: Columns, spec: Spec, sides: curves.Sides, rows: int, cores: int
) -> _Fit:
    problem, seed = settings.problem, settings.split.seed
    scorer = curves.Scorer(settings, kind, columns, sides, cores)
    metric = scorer.metric
    learning, model = curves.learning_curve(scorer, spec, sides.later)
    whole = learning.points[-1]
    if model is None:
        return _Fit(Evidence(metric.name, metric.greater_is_better, None, None, None, rows), learning, None, ())
    complexity = complexity_curve(scorer, spec, model, whole)
    made = scorer.predicted(model)
    pieces = units(sides.validation, kind.loss(scorer.y, made, problem.headline), problem)
    score = bootstrap(kind, scorer.y, made, pieces, seed, [problem.headline])[problem.headline]
    known = kind.truth(sides.train[problem.target])
    constant = baseline(kind, known, problem.headline)
    base = scorer.score(scorer.y, constant(len(scorer.y)))

    def skilled(value: float) -> float | None:
        return skill(value, base, metric.greater_is_better)

    evidence = Evidence(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        train=whole.train,
        validation=whole.validation,
        baseline=base,
        rows=rows,
        slope=curves.slope(learning, skilled),
        # A curve that ends before all rows says nothing of twice as many.
        earlier=curves.slope(learning, skilled, before=1) if learning.points[-1].at >= LEAST_OF_ALL * rows else None,
        noise=None if score.low is None or score.high is None else (score.high - score.low) / 2,
        goal=problem.goal,
        later=sides.later,
        simpler=complexity.better(metric.greater_is_better) if complexity else None,
        own_baseline=scorer.score(known, constant(len(known))),
    )
    leaned = importance(settings, kind, columns, model, sides.validation, pieces, seed)
    return _Fit(evidence, learning, complexity, leaned)
