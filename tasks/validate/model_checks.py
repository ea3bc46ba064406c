"""A check of the training rows that needs a model: wrong labels. Whether more rows would help is the business of the diagnosis of
the fit (tasks/evaluation/fit_diagnosis.py), which judges the model that was chosen. Never reads the test rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from windvane.tasks.errors import InputError
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types.definitions import HyperparameterValue, ProblemType
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.validate.findings import TableFinding, list_passes

MODEL_CHECKS = {"label_noise": "no labels that contradict the other rows"}
# Three small fits on so many rows take half a second.
MAX_INSPECTED_ROWS, INSPECTION_FOLDS = 6_000, 3
_QUICK_MODEL_PARAMS: dict[str, HyperparameterValue] = {"max_iter": 60, "learning_rate": 0.15}
# Labels: where the model is surest (half of the rows; the tenth of them) it is wrong in as many rows as everywhere
# there. A hard problem is another thing: there doubt fades as confidence grows. The model must know the classes apart
# (area under the ROC curve): where it does not, wrong labels and hard rows cannot be distinguished.
CONFIDENT_SHARE, TOP_CONFIDENT_SHARE = 0.5, 0.1
MAX_WRONG_SHARE, MIN_PLATEAU_RATIO, MIN_ROC_AUC = 0.02, 0.6, 0.8


@dataclass(frozen=True)
class _HeldOutPredictions:
    """Probabilities (n, k) of the classes (k,) for n rows, each by a model of rows without it; the classes that are true (n,)."""

    truth: NDArray[Any]
    proba: NDArray[np.float64]
    classes: NDArray[Any]


def inspect_training_rows(
    settings: Settings, kind: ProblemType, columns: FeatureColumns, train: pd.DataFrame, cores: int
) -> tuple[TableFinding, ...]:
    """Findings on the training split, passes included. Draws with split.seed; same rows, same findings."""
    if kind.continuous:
        return tuple(list_passes(MODEL_CHECKS, ()))
    # Of the table, not of what the user's own code makes of it: that is tried later.
    kind = replace(kind, features=None)
    rng = np.random.default_rng(settings.split.seed)
    some = train
    if len(train) > MAX_INSPECTED_ROWS:
        some = train.iloc[np.sort(rng.choice(len(train), MAX_INSPECTED_ROWS, replace=False))]
    held = _cross_validate(settings, kind, columns, some.reset_index(drop=True), rng, cores)
    found = [] if held is None else list(_noise(settings.problem.target, held))
    return (*found, *list_passes(MODEL_CHECKS, {f.check for f in found}))


def _cross_validate(
    settings: Settings,
    kind: ProblemType,
    columns: FeatureColumns,
    rows: pd.DataFrame,
    rng: np.random.Generator,
    cores: int,
) -> _HeldOutPredictions | None:
    """Cross-validated probabilities, whole groups together; None where a fold lacks what it needs."""
    target, seed = settings.problem.target, settings.split.seed
    group = settings.problem.group
    codes = rows[group].factorize(use_na_sentinel=False)[0] if group and group in rows else np.arange(len(rows))
    fold = rng.permutation(codes.max(initial=0) + 1)[codes] % INSPECTION_FOLDS
    truth = kind.truth(rows[target])
    classes = np.unique(truth)
    proba = np.zeros((len(rows), len(classes)))
    spec, options = ModelConfiguration("boosting", _QUICK_MODEL_PARAMS), FitOptions(target, seed, cores)
    for held in (fold == k for k in range(INSPECTION_FOLDS)):
        if held.sum() == 0 or set(np.unique(truth[~held])) != set(classes):
            return None
        try:
            model = model_pipeline.fit_pipeline(spec, kind, columns, rows[~held], options)
        except InputError:  # a column that is empty in these rows, and then none is left
            return None
        proba[held] = kind.predict(model, conform_frame(rows[held], columns, "the training split")).proba
    return _HeldOutPredictions(truth, proba, classes)


def _noise(target: str, held: _HeldOutPredictions) -> Iterator[TableFinding]:
    """Confident disagreement, with the thresholds of confident learning (Northcutt, Jiang & Chuang, JAIR 2021).

    A row is suspect if the model gives another class at least the confidence that it has on average in that class's own
    rows. They count as noise only where the model's error stays level however sure it is.
    """
    codes = np.searchsorted(held.classes, held.truth)
    own = np.array([held.proba[codes == k, k].mean() for k in range(len(held.classes))])
    guess = held.proba.argmax(axis=1)
    suspect = (guess != codes) & (held.proba.max(axis=1) >= own[guess])
    order = np.argsort(-held.proba.max(axis=1), kind="stable")
    wrong = (guess != codes)[order]
    sure, surest = (
        float(wrong[: max(int(share * len(wrong)), 1)].mean()) for share in (CONFIDENT_SHARE, TOP_CONFIDENT_SHARE)
    )
    if not (sure > MAX_WRONG_SHARE and surest > MIN_PLATEAU_RATIO * sure):
        return
    # Of each class against the rest.
    if np.mean([roc_auc_score(codes == k, column) for k, column in enumerate(held.proba.T)]) > MIN_ROC_AUC:
        text = (
            f"about {sure:.0%} of the labels seem wrong: even where a model of the other rows is surest, that many "
            f"disagree with it ({int(suspect.sum())} of {len(suspect)} rows contradict it with confidence). Check how "
            f"{target!r} is recorded"
        )
        yield TableFinding("label_noise", "warn", target, sure, MAX_WRONG_SHARE, text)
