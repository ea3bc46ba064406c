"""Checks of the training rows that need a model: wrong labels, too few rows.

Never reads the test rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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

MODEL_CHECKS = {
    "label_noise": "no labels that contradict the other rows",
    "volume": "enough rows: more would hardly help",
}
# Six small fits on so many rows take about a second.
MAX_INSPECTED_ROWS, INSPECTION_FOLDS = 6_000, 3
_QUICK_MODEL_PARAMS: dict[str, HyperparameterValue] = {"max_iter": 60, "learning_rate": 0.15}
# Labels: where the model is surest (half of the rows; the tenth of them) it is wrong in as many rows as everywhere
# there. A hard problem is another thing: there doubt fades as confidence grows. The model must know the classes apart
# (area under the ROC curve): where it does not, wrong labels and hard rows cannot be distinguished.
CONFIDENT_SHARE, TOP_CONFIDENT_SHARE = 0.5, 0.1
MAX_WRONG_SHARE, MIN_PLATEAU_RATIO, MIN_ROC_AUC = 0.02, 0.6, 0.8
# Doubling the rows brought this part of the loss, and more than chance by so many standard errors.
MIN_GAIN_SHARE, MIN_GAIN_STANDARD_ERRORS = 0.05, 4.0


@dataclass(frozen=True)
class _HeldOutPredictions:
    """Predictions for n held-out rows by models of all other rows, and by models of half of these: losses (n,)."""

    truth: NDArray[Any]
    proba: NDArray[np.float64] | None
    classes: NDArray[Any] | None
    whole: NDArray[np.float64]
    half: NDArray[np.float64]


def inspect_training_rows(
    settings: Settings, kind: ProblemType, columns: FeatureColumns, train: pd.DataFrame, cores: int
) -> tuple[TableFinding, ...]:
    """Findings on the training split, passes included. Draws with split.seed; same rows, same findings."""
    rng = np.random.default_rng(settings.split.seed)
    some = train
    if len(train) > MAX_INSPECTED_ROWS:
        some = train.iloc[np.sort(rng.choice(len(train), MAX_INSPECTED_ROWS, replace=False))]
    some = some.reset_index(drop=True)
    found: list[TableFinding] = []
    held = _cross_validate(settings, kind, columns, some, rng, cores)
    if held is not None:
        found += _noise(settings.problem.target, held)
        if len(some) == len(train):  # else there are more rows than are checked
            found += _volume(held, len(train), settings.split.strategy == "time")
    named = {f.check for f in found} | ({"volume"} if len(some) < len(train) else set())
    return (*found, *list_passes(MODEL_CHECKS, named))


def _cross_validate(
    settings: Settings,
    kind: ProblemType,
    columns: FeatureColumns,
    rows: pd.DataFrame,
    rng: np.random.Generator,
    cores: int,
) -> _HeldOutPredictions | None:
    """Cross-validated predictions, whole groups together; None where a fold lacks what it needs."""
    target, seed = settings.problem.target, settings.split.seed
    group = settings.problem.group
    codes = rows[group].factorize(use_na_sentinel=False)[0] if group and group in rows else np.arange(len(rows))
    fold = rng.permutation(codes.max(initial=0) + 1)[codes] % INSPECTION_FOLDS
    drawn = rng.permutation(len(rows)) % 2 == 0
    truth = kind.truth(rows[target])
    classes = None if kind.continuous else np.unique(truth)
    proba = None if classes is None else np.zeros((len(rows), len(classes)))
    losses = np.zeros((2, len(rows)))
    spec, options = ModelConfiguration("boosting", _QUICK_MODEL_PARAMS), FitOptions(target, seed, cores)
    headline = "rmse" if kind.continuous else "log_loss"
    for k in range(INSPECTION_FOLDS):
        held = fold == k
        for i, fit_rows in enumerate((~held, ~held & drawn)):
            if held.sum() == 0 or (classes is not None and set(np.unique(truth[fit_rows])) != set(classes)):
                return None
            try:
                model = model_pipeline.fit_pipeline(spec, kind, columns, rows[fit_rows], options)
            except InputError:  # a column that is empty in these rows, and then none is left
                return None
            predictions = kind.predict(model, conform_frame(rows[held], columns, "the training split"))
            losses[i][held] = kind.loss(truth[held], predictions, headline)
            if i == 0 and proba is not None and predictions.proba is not None:
                proba[held] = predictions.proba
    return _HeldOutPredictions(truth, proba, classes, *losses)


def _noise(target: str, held: _HeldOutPredictions) -> Iterator[TableFinding]:
    """Confident disagreement, with the thresholds of confident learning (Northcutt, Jiang & Chuang, JAIR 2021).

    A row is suspect if the model gives another class at least the confidence that it has on average in that class's own
    rows. They count as noise only where the model's error stays level however sure it is.
    """
    if held.proba is None or held.classes is None:
        return
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


def _volume(held: _HeldOutPredictions, rows: int, timed: bool) -> Iterator[TableFinding]:
    gain = held.half - held.whole
    mean, error = float(gain.mean()), float(gain.std() / np.sqrt(max(len(gain), 2)))
    share = mean / max(float(held.half.mean()), 1e-300)
    if share > MIN_GAIN_SHARE and mean > MIN_GAIN_STANDARD_ERRORS * error:
        text = f"the learning curve still rises: twice the rows took {share:.0%} off the loss of a quick model" + (
            f" on other rows of the same times. More than these {rows:,} would help there; whether on later rows too, "
            "the diagnosis of the fit shows"
            if timed
            else f". More rows than these {rows:,} would help"
        )
        yield TableFinding("volume", "warn", None, share, MIN_GAIN_SHARE, text)
