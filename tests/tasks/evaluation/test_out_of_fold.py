"""Records and validation scores by models that do not know the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support.evaluation_rows import Case, case, rows
from windvane.tasks.evaluation import model_evaluation, out_of_fold
from windvane.tasks.evaluation.scores import BASELINE_LOSS_COLUMN, FOLD_COLUMN, LOSS_COLUMN, read_predictions
from windvane.tasks.models.model_pipeline import ModelConfiguration

pytestmark = pytest.mark.long


def record_of(given: Case) -> pd.DataFrame:
    held = model_evaluation.predict_held_out(given.task, given.spec, given.train, given.validation, lambda: given.test)
    return held.record


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_d6_n3_no_row_judges_a_model_or_a_choice_that_knows_it(kind: str) -> None:
    given = case(kind, "y" if kind == "regression" else "flag", count=120, strategy="kfold")
    names = given.train.assign(name=np.arange(len(given.train)))
    seen: dict[int, set[int]] = {}

    def choose(fold: int, others: pd.DataFrame) -> ModelConfiguration:
        seen[fold] = set(others["name"])
        return given.spec

    record = record_of(replace(given, test=given.test.assign(name=-1), train=names))
    whole = out_of_fold.complete_record(given.task, record, names, choose)
    assert whole is not None
    assert len(whole) == 120
    assert whole[FOLD_COLUMN].value_counts().sort_index().tolist() == [18, 21, 21, 20, 20, 20]
    assert sorted(whole["name"][whole[FOLD_COLUMN] > 0]) == list(range(102))
    for fold, known in seen.items():
        judged = set(whole["name"][whole[FOLD_COLUMN] == fold])
        assert not judged & known
        assert judged | known == set(range(102))
    before = whole[whole[FOLD_COLUMN] == 0].drop(columns=FOLD_COLUMN)
    pd.testing.assert_frame_equal(before[record.columns], record, check_dtype=False)
    truth = given.kind.truth(whole[given.settings.problem.target])
    loss = given.kind.loss(truth, read_predictions(whole, truth), given.settings.problem.headline)
    assert loss == pytest.approx(whole[LOSS_COLUMN])
    assert whole[LOSS_COLUMN].mean() < whole[BASELINE_LOSS_COLUMN].mean()
    text = out_of_fold.describe_folds(whole)
    assert text == (
        "18 test rows are too few to judge: the other 102 rows judge too, predicted in 5 folds by models that were fitted without "
        "them"
    )
    fitted = [(int(held.sum()), len(known)) for held, known in out_of_fold.split_record(whole)]
    assert fitted == [(18, 102), (21, 81), (21, 81), (20, 82), (20, 82), (20, 82)]


def test_d6_groups_stay_whole_and_too_few_of_them_do_not_judge() -> None:
    given = case(count=120, strategy="kfold", group=True)
    whole = out_of_fold.complete_record(given.task, record_of(given), given.train, lambda *_: given.spec)
    assert whole is not None
    known = whole[whole[FOLD_COLUMN] > 0]
    assert known.groupby("customer")[FOLD_COLUMN].nunique().max() == 1
    few = given.train.assign(customer=given.train["customer"].astype(int) % 4)
    assert out_of_fold.complete_record(given.task, record_of(given), few, lambda *_: given.spec) is None


@pytest.mark.parametrize("strategy", ["random", "kfold"])
def test_e3_n1_a_validation_score_has_an_interval_on_rows_that_the_model_does_not_know(strategy: str) -> None:
    given = case(count=600, strategy=strategy)
    score = out_of_fold.score_configuration(given.task, given.spec, given.train, given.validation)
    assert score.low is not None
    assert score.high is not None
    assert score.value is not None
    assert score.low < score.value < score.high
    fresh = rows(4_000, 9)
    model_free = replace(given, test=fresh)
    truth = record_of(model_free)[LOSS_COLUMN].mean()
    assert score.low < truth < score.high
