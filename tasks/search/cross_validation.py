"""How good a configuration is on a table: all metrics, over folds or on one validation split.

Never chooses what to try.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

from windvane.tasks.errors import InputError
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration, ModelTask
from windvane.tasks.models.own_modules import explain_own_errors
from windvane.tasks.models.problem_types.definitions import Metric, ProblemType
from windvane.tasks.models.row_weights import read_row_weights
from windvane.tasks.settings.project_params import Settings

# Folds under kfold where split.folds is null.
DEFAULT_FOLDS = 5
# The training score is there to be held against the validation score: this many rows place it well enough.
MAX_SCORED_TRAIN_ROWS = 10_000
# From here on a fit costs seconds, and a first try on a quarter of the rows pays.
LARGE_TABLE_ROWS = 20_000
QUICK_FIT_DIVISOR = 4


@dataclass(frozen=True)
class ConfigurationScores:
    """All metrics on both splits; `final` is false for a first evaluation (fewer rows, or fewer folds than there are)."""

    validation: dict[str, float]
    train: dict[str, float]
    final: bool
    note: str | None = None


@dataclass(frozen=True)
class ConfigurationScorer:
    """What configurations are fitted and scored on. `folds` holds row positions (train, validation) in `frame`."""

    kind: ProblemType
    columns: FeatureColumns
    frame: pd.DataFrame
    folds: tuple[tuple[NDArray[Any], NDArray[Any]], ...]
    metric: Metric
    options: FitOptions

    @property
    def truth(self) -> NDArray[Any]:
        """The target of all training rows."""
        rows = np.unique(np.concatenate([train for train, _ in self.folds]))
        return self.kind.truth(self.frame[self.options.target].iloc[rows])

    @property
    def starts_quick(self) -> bool:
        """Whether a quarter of the training rows is fitted first, so that a hopeless configuration costs a quarter."""
        return len(self.folds) == 1 and len(self.folds[0][0]) > LARGE_TABLE_ROWS

    def score(self, spec: ModelConfiguration, quick_first: bool = True) -> Iterator[ConfigurationScores]:
        """Fit and score; what comes before the last may be used to give up early.

        Several folds: the mean over the folds so far. One fold: with `quick_first` on a large table first a quarter of the
        training rows, drawn with the seed; then all. Rare classes are treated within each fit, so that no copy of a row is in the other
        split; a threshold is tuned only for a headline that depends on it. Raises ValueError as
        scikit-learn does.
        """
        spec = spec.seen_by(self.metric)
        if quick_first and self.starts_quick:
            train, validation = self.folds[0]
            some = np.random.default_rng(self.options.seed).permutation(len(train))[: len(train) // QUICK_FIT_DIVISOR]
            yield self._fold(spec, train[np.sort(some)], validation, final=False)
        done: list[ConfigurationScores] = []
        for train, validation in self.folds:
            done.append(self._fold(spec, train, validation, final=True))
            yield ConfigurationScores(
                _average_scores([s.validation for s in done]),
                _average_scores([s.train for s in done]),
                len(done) == len(self.folds),
                next((s.note for s in done if s.note), None),
            )

    def _fold(
        self, spec: ModelConfiguration, train: NDArray[Any], validation: NDArray[Any], final: bool
    ) -> ConfigurationScores:
        train_rows = self.frame.iloc[train]
        model = model_pipeline.fit_pipeline(spec, self.kind, self.columns, train_rows, self.options)
        shown = train_rows.iloc[np.linspace(0, len(train) - 1, min(len(train), MAX_SCORED_TRAIN_ROWS)).astype(int)]
        with explain_own_errors(self.kind.list_own_code(spec.candidate), "predict"):
            sides = [self._scores(model, side) for side in (self.frame.iloc[validation], shown)]
        return ConfigurationScores(sides[0], sides[1], final, model_pipeline.explain_nonconvergence(model))

    def _scores(self, model: Any, side: pd.DataFrame) -> dict[str, float]:
        with model_pipeline.limit_to_one_thread():
            predictions = self.kind.predict(model, conform_frame(side, self.columns, "validation rows"))
        weights = read_row_weights(side, self.options.weight)
        return self.kind.scores(self.kind.truth(side[self.options.target]), predictions, weights)


def build_configuration_scorer(task: ModelTask, train: pd.DataFrame, validation: pd.DataFrame) -> ConfigurationScorer:
    """The one validation split, or (validation has 0 rows) folds of the training split.

    Folds keep whole groups together under problem.group, the share of classes in classification, and are drawn with
    split.seed. Raises InputError if there are fewer rows, groups or rows of each class than folds.
    """
    settings, kind = task.settings, task.problem_type
    n, problem = len(train), settings.problem
    if len(validation):
        frame = pd.concat([train, validation], ignore_index=True)
        folds = [(np.arange(n), np.arange(n, len(frame)))]
    else:
        frame, folds = train, split_folds(settings, kind, train, settings.split.folds or DEFAULT_FOLDS)
    metric = kind.metrics[problem.headline]
    return ConfigurationScorer(kind, task.columns, frame, tuple(folds), metric, model_pipeline.make_fit_options(task))


def split_folds(
    settings: Settings, kind: ProblemType, rows: pd.DataFrame, k: int
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """k folds of `rows` as positions (fitted on, held out). Raises InputError if rows, groups or rows of a class are fewer."""
    seed, group = settings.split.seed, settings.problem.group
    truth = kind.truth(rows[settings.problem.target])
    groups = None if group is None else pd.factorize(rows[group], use_na_sentinel=False)[0]
    splitter: Any = GroupKFold if groups is not None else KFold if kind.continuous else StratifiedKFold
    what = "groups" if groups is not None else "rows" if kind.continuous else "rows of the rarest class"
    if (there := count_possible_folds(settings, kind, rows)) < k:
        raise InputError(f"split.folds: {k} folds need at least {k} {what}, the training split has {there}. Lower it")
    return list(splitter(k, shuffle=True, random_state=seed).split(np.zeros(len(rows)), truth, groups))


def count_possible_folds(settings: Settings, kind: ProblemType, rows: pd.DataFrame) -> int:
    """In how many folds these rows can be cut at most: groups, else rows of the rarest class, else rows."""
    if settings.problem.group is not None:
        return int(rows[settings.problem.group].nunique(dropna=False))
    if kind.continuous:
        return len(rows)
    return int(np.unique(kind.truth(rows[settings.problem.target]), return_counts=True)[1].min())


def _average_scores(scores: list[dict[str, float]]) -> dict[str, float]:
    """Mean over folds; a fold where a metric is undefined (one class only) is left out of that metric."""
    found = {name: [s[name] for s in scores if not math.isnan(s[name])] for name in scores[0]}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}
