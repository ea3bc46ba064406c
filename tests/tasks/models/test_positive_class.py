"""problem.positive: which of two classes metrics, the threshold and every screen are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.tables import chosen
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import evaluation_files
from windvane.tasks.evaluation.intervals import bootstrap_metrics, find_resampling_units
from windvane.tasks.evaluation.model_evaluation import fit_baseline
from windvane.tasks.evaluation.scores import measure_calibration
from windvane.tasks.lap_outcome import CandidateSummary, LapOutcome
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.class_balance import ClassBalance
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import class_labels, classification, definitions
from windvane.tasks.settings.problem_section import name_metric
from windvane.tasks.validate import table_validation

ROWS = 800
COLUMNS = FeatureColumns(("x", "z"))


def rare(positive: str, other: str) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    is_it = rng.random(ROWS) < 0.06
    return pd.DataFrame(
        {"x": 1.5 * is_it + rng.normal(size=ROWS), "z": rng.normal(size=ROWS), "y": np.where(is_it, positive, other)}
    )


def fit(kind: definitions.ProblemType, frame: pd.DataFrame, threshold: str | None) -> Any:
    spec = ModelConfiguration("linear", {}, ClassBalance(None, threshold))
    return model_pipeline.fit_pipeline(spec, kind, COLUMNS, frame, FitOptions("y", 0, 1))


def test_d2_metrics_are_of_the_class_that_is_named() -> None:
    frame = rare("churn", "stay")
    kind = definitions.load_problem_type("classification", "churn")
    truth = kind.truth(frame["y"])
    guess = fit_baseline(kind, truth, "average_precision")(ROWS)
    assert kind.scores(truth, guess)["average_precision"] == pytest.approx((frame["y"] == "churn").mean())
    assert kind.scores(truth, guess)["recall"] == 0.0
    calibration = measure_calibration(truth, guess)
    assert calibration is not None
    assert calibration.of == "P(churn)"


@pytest.mark.parametrize("names", [("fraud", "legit"), ("sick", "healthy"), ("0", "1")])
def test_d2_n1_the_threshold_is_of_the_class_that_is_named(names: tuple[str, str]) -> None:
    frame, kind = rare(*names), definitions.load_problem_type("classification", names[0])
    truth, inputs = kind.truth(frame["y"]), conform_frame(frame, COLUMNS, "x")
    model = fit(kind, frame, "f1")
    threshold = classification.get_threshold(model)
    made, plain = kind.predict(model, inputs), kind.predict(fit(kind, frame, None), inputs)
    at = list(model.classes_).index(names[0])
    assert np.array_equal(made.value == names[0], np.asarray(made.proba)[:, at] >= threshold)
    assert kind.scores(truth, made)["f1"] > kind.scores(truth, plain)["f1"]
    # A model knows itself which class its threshold is of: the service is not given problem.positive.
    assert np.array_equal(definitions.load_problem_type("classification").predict(model, inputs).value, made.value)


def test_d2_n2_intervals_are_of_the_class_that_is_named() -> None:
    frame, kind = rare("default", "repaid"), definitions.load_problem_type("classification", "default")
    truth = kind.truth(frame["y"])
    made = kind.predict(fit(kind, frame, None), conform_frame(frame, COLUMNS, "x"))
    problem = chosen(kind="classification", target="y", positive="default").problem
    units = find_resampling_units(frame, kind.loss(truth, made, "log_loss"), problem)
    found = bootstrap_metrics(kind, truth, made, units, 0, ["average_precision", "f1"])
    for name, interval in found.items():
        assert interval.value == pytest.approx(kind.scores(truth, made)[name])
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= interval.value <= interval.high < 0.95


def test_d2_n3_every_screen_names_the_class() -> None:
    candidate = CandidateSummary("linear", 0.5, 0.6, 3)
    outcome = LapOutcome(
        *(
            "r",
            "d",
            "f1",
            (candidate,),
            "linear",
            0.5,
            (0.4, 0.6),
            "good",
            "search",
            "promoted",
            "better",
            1,
            1,
            "p",
            1,
            1,
        ),
        {},
        1.0,
        positive="churn",
    )
    assert "test f1 of 'churn'" in outcome.text()
    assert "validation f1 of 'churn'" in outcome.text()
    assert LapOutcome.from_json(outcome.to_json()) == outcome
    assert (name_metric("log_loss", "churn"), name_metric("recall", None)) == ("log_loss", "recall")
    kind = definitions.load_problem_type("classification", "churn")
    assert evaluation_files.name_subject("f1", "left", kind) == "left = churn"
    assert evaluation_files.name_subject("accuracy", "left", kind) == "left"


def test_d2_n5_a_class_that_is_not_there_is_refused_and_of_three_none_is_positive() -> None:
    def keys(frame: pd.DataFrame, positive: Any) -> dict[str, str]:
        settings = chosen(kind="classification", target="y", positive=positive)
        return {f.key: f.level for f in table_validation.inspect_table(frame, settings).findings if f.level != "pass"}

    frame = rare("churn", "stay")
    assert keys(frame, "left").get("target:y") == "stop"
    assert not {"target:y", "positive:y"} & set(keys(frame, "churn"))
    three = frame.assign(y=np.where(np.arange(ROWS) % 3 == 0, "other", frame["y"]))
    assert keys(three, "churn").get("positive:y") == "warn"
    with pytest.raises(InputError, match=r"problem\.positive: is for classes"):
        chosen(positive="churn")


@pytest.mark.parametrize(
    ("classes", "positive", "index"),
    [
        (["churn", "stay"], "churn", 0),
        ([0, 1], 0, 0),
        ([0, 1], 0.0, 0),
        ([False, True], False, 0),
        (["0", "1"], 0, 0),
        (["churn", "stay"], None, 1),
    ],
)
def test_the_class_is_found_as_params_yaml_spells_it(classes: list[Any], positive: Any, index: int) -> None:
    assert class_labels.find_positive_class(np.array(classes), positive) == index


def test_d5_n4_a_label_in_another_case_is_of_its_class(tmp_path: Path) -> None:
    frame, kind = rare("Yes", "no"), definitions.load_problem_type("classification")
    made = kind.predict(fit(kind, frame, None), conform_frame(frame, COLUMNS, "x"))
    shouted = frame["y"].str.upper() + " "
    assert np.array_equal(classification.encode_labels(shouted, made), classification.encode_labels(frame["y"], made))
    assert (classification.encode_labels(np.array(["maybe"]), made) == -1).all()
