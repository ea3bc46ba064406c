"""Learning curve of the chosen configuration, and the sides and scores that curves share. Never sees the test side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from windvane.tasks import estimators, features

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.estimators import Spec
    from windvane.tasks.features import Columns
    from windvane.tasks.problems import Kind, Predictions
    from windvane.tasks.settings import Settings

# Fitting more rows than this would make the curves dearer than the lap; predicting is cheaper, and needs fewer rows.
MOST_TRAIN = 20_000
MOST_SCORED = 5_000
# Together 1.75 fits of the whole side, and two more for the complexity: under four.
SIZES = (0.25, 0.5, 1.0)
# A relative difference in score below this is not worth a word.
WORTH = 0.01


@dataclass(frozen=True)
class Sides:
    """Rows to fit on and rows to score on, all from outside the test side; `notes` say how they were taken."""

    train: pd.DataFrame
    validation: pd.DataFrame
    later: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """Headline metric at one value of the axis; None where it is not defined."""

    at: float
    train: float | None
    validation: float | None


@dataclass(frozen=True)
class Curve:
    """Points in ascending order of `axis`; `chosen` is the value that the model has."""

    axis: str
    points: tuple[Point, ...]
    chosen: float | None
    note: str

    def better(self, greater_is_better: bool) -> str | None:
        """The axis, with a value that did clearly better on validation than the chosen one; None if none did."""
        here = next((p for p in self.points if p.at == self.chosen and p.validation is not None), None)
        known = [p for p in self.points if p.validation is not None]
        if here is None or here.validation is None:
            return None
        sign = 1 if greater_is_better else -1
        best = max(known, key=lambda p: sign * (p.validation or 0.0))
        if best.validation is None or sign * (best.validation - here.validation) <= WORTH * abs(here.validation):
            return None
        return f"{self.axis} (here {best.at:g} did better than {here.at:g})"


def sides(settings: Settings, train: pd.DataFrame, validation: pd.DataFrame, seed: int) -> Sides:
    """Cut and sample the two sides that curves and importance use.

    Under kfold (no validation rows) a seeded fifth of the training side is held out, by whole groups where there are
    any. At most 20,000 training rows and 5,000 to score, drawn at random in their order: the newest alone would leave
    out seasons, and so diagnose another model.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    notes: list[str] = []
    if not len(validation):
        held = _fifth(train, settings.problem.group, rng)
        train, validation = train[~held], train[held]
        notes.append(
            f"no validation side: a fifth of the training rows ({len(validation):,}), drawn with seed {seed}, "
            "was held out for the curves"
        )
    if len(train) > MOST_TRAIN:
        notes.append(f"curves from {MOST_TRAIN:,} of {len(train):,} training rows, drawn at random from all of them")
        train = train.iloc[np.sort(rng.choice(len(train), MOST_TRAIN, replace=False))]
    if len(validation) > MOST_SCORED:
        notes.append(f"scored on {MOST_SCORED:,} of {len(validation):,} validation rows, drawn at random")
        validation = validation.iloc[np.sort(rng.choice(len(validation), MOST_SCORED, replace=False))]
    return Sides(
        train.reset_index(drop=True), validation.reset_index(drop=True), settings.split.strategy == "time", tuple(notes)
    )


def _fifth(train: pd.DataFrame, group: str | None, rng: np.random.Generator) -> NDArray[np.bool_]:
    import numpy as np

    if group is not None and group in train:
        codes = train[group].factorize(use_na_sentinel=False)[0]
        return np.asarray(rng.permutation(codes.max(initial=0) + 1)[codes] % 5 == 0)
    return np.asarray(rng.permutation(len(train)) % 5 == 0)


class Scorer:
    """Scores models on rows of both sides by the headline metric. One per evaluation; holds the converted rows."""

    def __init__(self, settings: Settings, kind: Kind, columns: Columns, sides: Sides, cores: int) -> None:
        self.settings, self.kind, self.columns, self.cores = settings, kind, columns, cores
        self.target = settings.problem.target
        self.metric = kind.metrics[settings.problem.headline]
        self.train, self.validation = sides.train, sides.validation
        self.x = features.conform(sides.validation, columns, "the validation side")
        self.y = kind.truth(sides.validation[self.target])

    def fit(self, spec: Spec, frame: pd.DataFrame) -> Any | None:
        """A fitted pipeline; None when the rows hold but one value of the target, which some candidates refuse.

        A threshold is tuned only where the headline depends on it.
        """
        if frame[self.target].nunique() < 2:
            return None
        spec = spec.seen_by(self.metric)
        return estimators.taught(self.settings, spec, self.kind, self.columns, frame, self.cores)

    def point(self, at: float, model: Any | None, fitted: pd.DataFrame) -> Point:
        """Scores of a model: on `fitted`, its own rows (5,000 at most, evenly taken), and on the validation side."""
        if model is None:
            return Point(at, None, None)
        some = evenly(fitted, MOST_SCORED)
        x = features.conform(some, self.columns, "the training side")
        known = self.score(self.kind.truth(some[self.target]), self.kind.predict(model, x))
        return Point(at, known, self.score(self.y, self.predicted(model)))

    def predicted(self, model: Any) -> Predictions:
        """Predictions for the validation side."""
        return self.kind.predict(model, self.x)

    def score(self, truth: NDArray[Any], predictions: Predictions) -> float | None:
        """The headline metric, None where it is not defined."""
        value = float(self.metric.score(truth, predictions, None))
        return value if isfinite(value) else None


def evenly(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, evenly spaced, in order."""
    import numpy as np

    return frame if len(frame) <= most else frame.iloc[np.linspace(0, len(frame) - 1, most).round().astype(int)]


def learning_curve(scorer: Scorer, spec: Spec, later: bool) -> tuple[Curve, Any | None]:
    """Scores of fits on a quarter, half and all of the training side; and the last of these models.

    With time the smaller fits keep the newest rows: the question a user has is whether a longer history helps, and old
    rows alone would answer another one, how fast the world changes. Else the rows are drawn at random, by class.
    """
    import numpy as np

    total, seed = len(scorer.train), scorer.settings.split.seed
    order = np.arange(total) if later else _mixed(scorer.train[scorer.target], not scorer.kind.continuous, seed)
    points: list[Point] = []
    model = None
    for rows in dict.fromkeys(max(round(share * total), 1) for share in SIZES):
        frame = scorer.train.iloc[np.sort(order[-rows:])]
        model = scorer.fit(spec, frame)
        points.append(scorer.point(rows, model, frame))
    which = "the newest rows" if later else "rows drawn at random"
    return Curve("training rows", tuple(points), total, f"smaller fits keep {which}"), model


def _mixed(target: pd.Series, classes: bool, seed: int) -> NDArray[np.int64]:
    """A seeded order, shuffled; with classes any end of it holds each in about its share."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(target))
    if classes:
        codes = target.factorize(use_na_sentinel=False)[0][order]
        place = np.empty(len(order))
        for code, count in enumerate(np.bincount(codes)):
            place[codes == code] = np.arange(count) / count
        order = order[np.argsort(-place, kind="stable")]
    return order


def slope(learning: Curve, score: Callable[[float], float | None], before: int = 0) -> float | None:
    """What the last doubling of the rows brought, in `score` (a metric's value -> skill); or the `before`-th before it."""
    end = len(learning.points) - before
    known = [p.validation for p in learning.points[max(end - 2, 0) : end] if p.validation is not None]
    skills = [score(value) for value in known]
    if len(skills) < 2 or skills[0] is None or skills[1] is None:
        return None
    return skills[1] - skills[0]
