"""A metric and a loss of the user's own: what they are given, what they must return, where they count."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.support.own_models import METRICS, make_own_table, make_own_task, read_measured_settings
from tests.support.projects import ROOT
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation.intervals import bootstrap_metrics, resample_by_row
from windvane.tasks.models.own_metrics import load_measured_problem_type
from windvane.tasks.models.problem_types.definitions import OwnCodeError, Predictions, ProblemType
from windvane.tasks.settings.project_params import Settings, parse_settings
from windvane.tasks.stores import fingerprint
from windvane.tasks.stores.own_code_trial import try_own_code

PROFIT = {"metric": "metrics.py:profit", "greater_is_better": True}
TRUTH, MADE = np.array([1.0, 2.0, 4.0]), Predictions(np.array([1.0, 3.0, 2.0]))


def load(settings: Settings) -> ProblemType:
    return load_measured_problem_type(settings.problem, settings.problem.positive)


def test_a_metric_of_ones_own_ranks_and_the_gate_compares_windvanes_loss(tmp_path: Path) -> None:
    settings = read_measured_settings(tmp_path, **PROFIT)
    kind, weights = load(settings), np.array([0.0, 0.0, 2.0])
    metric = kind.metrics["profit"]
    assert settings.problem.headline == "profit"
    assert metric.better(2, 1)
    assert metric.score(TRUTH, MADE, None) == pytest.approx(97)
    assert metric.score(TRUTH, MADE, weights) == pytest.approx(94)
    assert kind.loss(TRUTH, MADE, "profit").tolist() == [0, 1, 2]
    assert kind.loss(TRUTH, MADE, "rmse").tolist() == [0, 1, 4]
    assert kind.loss_name("profit") == "absolute error"
    assert kind.objectives["profit"] == "absolute_error"


def test_weights_are_given_only_to_a_function_that_takes_them(tmp_path: Path) -> None:
    settings = read_measured_settings(tmp_path, metric="metrics.py:middle", greater_is_better=False)
    assert load(settings).metrics["middle"].score(TRUTH, MADE, np.array([0.0, 0.0, 2.0])) == 1


def test_a_loss_of_ones_own_is_the_gates_under_any_metric(tmp_path: Path) -> None:
    kind = load(read_measured_settings(tmp_path, metric="rmse", loss="metrics.py:loss"))
    assert kind.loss(TRUTH, MADE, "rmse").tolist() == [0, 3, 2]
    assert kind.loss_name("rmse") == "loss"
    assert kind.loss(TRUTH, MADE, "mae").tolist() == [0, 1, 2]


def test_classes_come_with_a_column_of_probabilities_each(tmp_path: Path) -> None:
    kind = load(
        read_measured_settings(
            tmp_path,
            kind="classification",
            metric="metrics.py:gain",
            greater_is_better=True,
            loss="metrics.py:class_loss",
        )
    )
    proba = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    made = Predictions(np.array(["high", "low", "high"]), proba, np.array(["high", "low"]))
    truth = np.array(["high", "low", "HIGH"])  # labels may come in another case
    assert kind.metrics["gain"].score(truth, made, None) == pytest.approx(10 / 3)
    assert kind.loss(truth, made, "gain").tolist() == pytest.approx([0.5, 0.1, 2.5])


def test_an_installed_function_is_a_metric(tmp_path: Path) -> None:
    settings = read_measured_settings(tmp_path, metric="sklearn.metrics:median_absolute_error", greater_is_better=False)
    assert load(settings).metrics["median_absolute_error"].score(TRUTH, MADE, None) == 1
    (described,) = fingerprint.hash_own_code(settings).values()
    assert described[0][0].startswith("scikit-learn==")


@pytest.mark.parametrize("name", ["profit", "middle"])
def test_its_interval_is_that_of_resampled_rows(tmp_path: Path, name: str) -> None:
    kind = load(read_measured_settings(tmp_path, metric=f"metrics.py:{name}", greater_is_better=True))
    draw = np.random.default_rng(0)
    truth, error = draw.normal(size=400), draw.normal(size=400)
    found = bootstrap_metrics(kind, truth, Predictions(truth + error), resample_by_row(400), 0, [name])[name]
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high  # type: ignore[operator]
    spread = {"profit": 3 * np.abs(error).std() / 20, "middle": 1.25 * np.abs(error).std() / 20}[name]
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({"metric": "metrics.py:profit"}, "greater_is_better: is missing"),
        ({"metric": "mae", "greater_is_better": False}, "greater_is_better: is of a metric of your own"),
        ({"metric": "metrics.py:mae", "greater_is_better": False}, "is the name of a metric of Windvane's"),
        ({"metric": "../m.py:f", "greater_is_better": False}, "leads out of the project's folder"),
        ({"loss": "squared"}, "loss: 'squared' names no function"),
    ],
)
def test_keys_that_do_not_fit_are_refused(tmp_path: Path, problem: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_measured_settings(tmp_path, **problem)


def body(line: str, imports: str = "") -> str:
    return f"import numpy as np\n{imports}\n\ndef profit(y_true, y_pred):\n    {line}\n"


FAULTS = {
    "no file": (None, "metrics.py is no file in the project's folder"),
    "no import": (body("return 1.0", "import nopackage"), "imports 'nopackage', which is no installed package"),
    "no function": ("profit = 3\n", "metrics.py:profit is no function"),
    "raises": (body("return y_true.mena()"), r"profit: the metric raised AttributeError: .* \(line 5\)"),
    "NaN": (body("return np.nan"), "NaN or infinite"),
    "rows": (body("return y_true - y_pred"), "returns ndarray, and a metric is one number"),
    "chance": (body("return np.random.rand()"), "another value the second time"),
}
LOSS_FAULTS = {
    "no number": (body("return 'x'"), "Return one number per row"),
    "too few": (body("return np.abs(y_true - y_pred)[:-1]"), "Return one number per row"),
    "NaN": (body("return y_true * np.nan"), "NaN, infinity or less than 0"),
    "negative": (body("return -np.abs(y_true - y_pred)"), "NaN, infinity or less than 0"),
    "chance": (body("return np.random.rand(len(y_true))"), "another value the second time"),
    "neighbours": (body("return np.abs(y_true - y_pred.mean())"), "may depend on its own row alone"),
    "raises": (body("raise SystemExit('no')"), r"the loss raised SystemExit: no \(line 5\)"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_a_metric_is_found_in_one_sentence(tmp_path: Path, case: str) -> None:
    refuse(tmp_path, *FAULTS[case], **PROFIT)


@pytest.mark.parametrize("case", LOSS_FAULTS)
def test_a_fault_of_a_loss_is_found_in_one_sentence(tmp_path: Path, case: str) -> None:
    refuse(tmp_path, *LOSS_FAULTS[case], loss="metrics.py:profit")


def refuse(folder: Path, text: str | None, message: str, **problem: Any) -> None:
    settings = read_measured_settings(folder, text or "", **problem)
    if text is None:
        (folder / "metrics.py").unlink()
        settings = parse_settings(settings.model_dump(), folder / "params.yaml")
    with pytest.raises(OwnCodeError, match=message) as caught:
        try_own_code(make_own_task(settings), make_own_table())
    assert "\n" not in str(caught.value)


def test_a_changed_line_changes_the_fingerprint_and_a_comment_does_not(tmp_path: Path) -> None:
    texts = METRICS, METRICS + "# A comment.\n", METRICS.replace("3 *", "4 *")
    for depth, spec in (("search", None), ("refit", {"candidate": "linear"})):
        settings = [read_measured_settings(tmp_path, text, **PROFIT) for text in texts]
        first, comment, line = (fingerprint.compute_fingerprint(one, "d", depth, spec) for one in settings)
        assert first == comment != line


def test_the_text_that_a_version_was_judged_by_is_used_for_its_windows(tmp_path: Path) -> None:
    settings = read_measured_settings(tmp_path, loss="metrics.py:loss")
    stored = METRICS.replace("3.0, 1.0", "30.0, 10.0")
    same = settings.use_stored_measure("loss", "metrics.py:loss", {"metrics.py": stored})
    other = settings.use_stored_measure("loss", "metrics.py:other", {"metrics.py": stored})
    losses = [load(one).loss(TRUTH, MADE, "mae").tolist() for one in (settings, same, other)]
    assert losses == [[0, 3, 2], [0, 30, 20], [0, 3, 2]]


def test_a_file_that_is_gone_is_that_of_the_version(tmp_path: Path) -> None:
    settings = read_measured_settings(tmp_path, loss="metrics.py:loss")
    assert not settings.lacks_sources
    (tmp_path / "metrics.py").unlink()
    gone = parse_settings(settings.model_dump(), tmp_path / "params.yaml")
    assert gone.lacks_sources
    filled = gone.fill_sources({"metrics.py": METRICS})
    assert not filled.lacks_sources
    sent = pickle.loads(pickle.dumps(filled))  # as a process of a backtest gets it
    assert load(sent).loss(TRUTH, MADE, "mae").tolist() == [0, 3, 2]


def test_predictions_are_the_functions_own_to_change(tmp_path: Path) -> None:
    text = body("y_pred -= y_true; return float(np.abs(y_pred).mean())")
    made = Predictions(np.array([2.0, 3.0]))
    load(read_measured_settings(tmp_path, text, **PROFIT)).metrics["profit"].score(np.ones(2), made, None)
    assert made.value.tolist() == [2, 3]


def test_the_how_to_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "own-metric.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    problem = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])["problem"]
    task = make_own_task(read_measured_settings(tmp_path, text, **problem))
    try_own_code(task, make_own_table())
    assert task.problem_type.loss(TRUTH, MADE, "profit").tolist() == [0, 3, 2]
