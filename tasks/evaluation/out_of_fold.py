"""Scores and predictions for rows by models that were fitted without them, fold by fold. Opens no test split."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.tasks.evaluation.intervals import ScoreInterval, bootstrap_metrics, find_resampling_units
from windvane.tasks.evaluation.model_evaluation import assemble_record, fit_baseline
from windvane.tasks.evaluation.scores import BASELINE_LOSS_COLUMN, FOLD_COLUMN, LOSS_COLUMN, read_predictions
from windvane.tasks.gate.block_test import MIN_BLOCKS
from windvane.tasks.models import features, model_pipeline
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.search import cross_validation

# (fold, rows of all other folds) -> the configuration to fit there, chosen without the fold's own rows.
ConfigurationChoice = Callable[[int, pd.DataFrame], ModelConfiguration]


def score_configuration(
    task: ModelTask, spec: ModelConfiguration, train: pd.DataFrame, validation: pd.DataFrame
) -> ScoreInterval:
    """The headline metric of `spec` on the rows that the search scores on, with a 95 % interval.

    Fitted on `train` and predicted for `validation`; without validation rows predicted for each fold of `train` by a model of
    the others, and then of all these predictions together. The interval knows nothing of how many configurations were tried.
    """
    spec = spec.seen_by(task.problem_type.metrics[task.settings.problem.headline])
    measured = cross_validation.build_configuration_scorer(task, train, validation)
    parts = [
        _predict(task, spec, measured.frame.iloc[known], measured.frame.iloc[held]) for known, held in measured.folds
    ]
    record = _join_records(parts)
    kind, problem = task.problem_type, task.settings.problem
    truth = kind.truth(record[problem.target])
    units = find_resampling_units(record, record[LOSS_COLUMN].to_numpy(dtype="float64"), problem)
    made = read_predictions(record, truth)
    return bootstrap_metrics(kind, truth, made, units, task.settings.split.seed, [problem.headline])[problem.headline]


def complete_record(
    task: ModelTask, record: pd.DataFrame, rows: pd.DataFrame, choose: ConfigurationChoice
) -> pd.DataFrame | None:
    """The record of too few test rows, with the other labelled `rows` behind them, each predicted by a model that knows it not.

    Their folds hold whole groups, and classes in their shares. `choose` is given the rows of all other folds: neither a model
    nor its configuration has seen the rows that it predicts (nested cross-validation, Varma & Simon, BMC Bioinformatics 7, 2006).
    FOLD_COLUMN names the fold, 0 the test rows. None: the rows give fewer folds than the gate needs blocks.
    """
    k = cross_validation.count_possible_folds(task.settings, task.problem_type, rows)
    if k < MIN_BLOCKS:
        return None
    folds = cross_validation.split_folds(task.settings, task.problem_type, rows, MIN_BLOCKS)
    parts = [record.assign(**{FOLD_COLUMN: 0})]
    for fold, (known, held) in enumerate(folds, start=1):
        others = rows.iloc[known].reset_index(drop=True)
        parts.append(_predict(task, choose(fold, others), others, rows.iloc[held]).assign(**{FOLD_COLUMN: fold}))
    whole = _join_records(parts)
    whole.insert(0, FOLD_COLUMN, whole.pop(FOLD_COLUMN))
    return whole


def split_record(record: pd.DataFrame) -> Iterator[tuple[NDArray[np.bool_], pd.DataFrame]]:
    """For each fold of a completed record: which of its (n,) rows are in it, and the rows that its models are fitted on."""
    fold = record[FOLD_COLUMN].to_numpy()
    for part in np.unique(fold):
        yield fold == part, record[(fold != part) & (fold > 0)].reset_index(drop=True)


def describe_folds(record: pd.DataFrame) -> str | None:
    """That a record holds more than test rows, in words; None: it does not."""
    if FOLD_COLUMN not in record:
        return None
    fold = record[FOLD_COLUMN].to_numpy()
    return (
        f"{(fold == 0).sum():,} test rows are too few to judge: the other {(fold > 0).sum():,} rows judge too, predicted in "
        f"{fold.max()} folds by models that were fitted without them"
    )


def _predict(task: ModelTask, spec: ModelConfiguration, known: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """The record of `held` rows by a model and a dummy of the `known` ones."""
    kind, problem = task.problem_type, task.settings.problem
    model = model_pipeline.fit_with_settings(task, spec, known)
    constant = fit_baseline(kind, kind.truth(known[problem.target]), problem.headline)
    with model_pipeline.limit_to_one_thread():
        made = kind.predict(model, features.conform_frame(held, task.columns, "the held-out rows"))
    return assemble_record(task, held, made, constant(len(held)))


def _join_records(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One record; a class that a part's model never met has no probability there."""
    whole = pd.concat(parts, ignore_index=True)
    chances = list(whole.columns[list(whole.columns).index(BASELINE_LOSS_COLUMN) + 1 :].difference([FOLD_COLUMN]))
    return whole.fillna(dict.fromkeys(chances, 0.0))
