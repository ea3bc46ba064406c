"""Features of the user's own: before Windvane's encoding or in place of it, fitted with the model, stored without pickle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.support.own_models import COLUMNS, FEATURES, make_own_table, make_own_task, read_measured_settings
from tests.support.projects import ROOT
from windvane.serving.compiled.compiler import compile_pipeline
from windvane.serving.compiled.onnx_trees import CannotCompile
from windvane.tasks.errors import InputError
from windvane.tasks.models import model_pipeline, own_code
from windvane.tasks.models.features import conform_frame
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types.definitions import OwnCodeError
from windvane.tasks.settings.project_params import parse_settings
from windvane.tasks.stores import fingerprint, model_files
from windvane.tasks.stores.own_code_trial import try_own_code


def make_task(folder: Path, name: str, text: str = FEATURES, **problem: Any) -> ModelTask:
    return make_own_task(read_measured_settings(folder, text, features=f"features.py:{name}", **problem))


def fit(task: ModelTask, rows: pd.DataFrame, candidate: str = "linear") -> Any:
    defaults = task.problem_type.candidates[candidate].defaults
    return model_pipeline.fit_with_settings(task, ModelConfiguration(candidate, defaults), rows)


def make_curve() -> pd.DataFrame:
    """A table whose target is the square of `a`: without its own features a linear model knows nothing of it."""
    rows = make_own_table(400)
    return rows.assign(y=rows["a"] ** 2)


@pytest.mark.parametrize(("name", "count"), [("build", 6), ("numbers", 2), ("by_row", 4)])
def test_features_are_fitted_with_the_model_and_stored(tmp_path: Path, name: str, count: int) -> None:
    task, rows = make_task(tmp_path, name), make_curve()
    try_own_code(task, rows)
    model, inputs = fit(task, rows), conform_frame(rows, COLUMNS, "x")
    features = model.named_steps["features"]
    assert features.transform(inputs).shape == (400, count)
    assert np.allclose(features.transform(inputs).mean(axis=0)[0], 0, atol=1e-9)  # scaled for a linear model
    own = task.problem_type.list_own_code("linear")
    digest = model_files.save_pipeline(model, tmp_path / "model.skops", own)
    stored = model_files.load_pipeline(tmp_path / "model.skops", digest, own)
    assert stored is not None
    assert np.array_equal(stored.predict(inputs), model.predict(inputs))
    error = np.abs(model.predict(inputs) - rows["y"]).mean()
    assert (error < 0.1) == (name != "numbers")
    with pytest.raises(CannotCompile, match="OwnFeatures"):
        compile_pipeline(model, COLUMNS.names)


def test_they_are_fitted_on_the_rows_of_the_fit_alone(tmp_path: Path) -> None:
    task, rows = make_task(tmp_path, "build"), make_own_table()
    some = rows[rows["a"] > 0]
    made = fit(task, some).named_steps["features"].transformer
    assert made.centre_ == pytest.approx(some["a"].mean())


def test_trees_and_classes_take_them_too(tmp_path: Path) -> None:
    rows = make_own_table(kind="classification")
    model = fit(make_task(tmp_path, "build", kind="classification"), rows, "tree")
    assert (model.predict(conform_frame(rows, COLUMNS, "x")) == rows["y"]).mean() > 0.9


def test_a_changed_line_changes_the_fingerprint_and_a_comment_does_not(tmp_path: Path) -> None:
    texts = FEATURES, FEATURES + "# A comment.\n", FEATURES.replace("** 2", "** 4")
    for depth, spec in (("search", None), ("refit", {"candidate": "linear"})):
        settings = [read_measured_settings(tmp_path, text, features="features.py:build") for text in texts]
        first, comment, line = (fingerprint.compute_fingerprint(one, "d", depth, spec) for one in settings)
        assert first == comment != line


def test_a_champion_is_fitted_again_with_the_features_that_it_was_stored_with(tmp_path: Path) -> None:
    then, now = (make_task(tmp_path, "by_row", text) for text in (FEATURES, FEATURES.replace("** 2", "* 2")))
    stored = then.problem_type.list_own_code("linear")
    kind, rows = own_code.use_stored_model_code(now.problem_type, stored), make_curve()
    inputs = conform_frame(rows, COLUMNS, "x")
    old, again = (fit(task, rows).predict(inputs) for task in (then, ModelTask(now.settings, kind, COLUMNS, 1)))
    assert np.array_equal(old, again)
    assert own_code.use_stored_model_code(now.problem_type, ()).features is None


def body(*lines: str, fit: str = "return self", imports: str = "") -> str:
    """A file whose transformer transforms by these lines."""
    inner = "\n        ".join(lines)
    return (
        f"import numpy as np\nfrom sklearn.base import BaseEstimator, TransformerMixin\n{imports}\n\n"
        f"class Means(TransformerMixin, BaseEstimator):\n    def fit(self, X, y=None):\n        {fit}\n\n"
        f"    def transform(self, X):\n        {inner}\n\n\ndef build():\n    return Means()\n"
    )


FAULTS = {
    "no function": ("build = 3\n", "features.py:build is no function"),
    "no transformer": ("def build():\n    return 3\n", "returns what has no fit and transform"),
    "two arguments": ("def build(a, b):\n    return a\n", "needs a, b. Write one without arguments"),
    "no import": (body("return X", imports="import nopackage"), "imports 'nopackage', which is no installed package"),
    "raises": (body("return X[['b']]"), r"features.py:build: fit raised KeyError: .* \(line \d+\)"),
    "too few": (body("return X[:-1]"), "return 299 rows of 2 columns for 300 rows"),
    "text": (body("return X.to_numpy().astype(str)"), "Return a frame, or numbers"),
    "spans": (body("return X.assign(b=X.a.map(lambda a: np.timedelta64(1, 's')))"), "'b' holds spans of time"),
    "infinity": (body("return X[['a']] / 0"), "return infinity"),
    "chance": (body("return X.assign(b=np.random.rand(len(X)))"), "gives other features the second time"),
    "fit by chance": (
        body("return X.assign(b=X.a * self.b_)", fit="self.b_ = np.random.rand(); return self"),
        "two fits on the same rows give other features",
    ),
    "neighbours": (body("return X.assign(b=X.a - X.a.mean())"), "among others than alone, or in another order"),
    "order": (body("return X.assign(b=np.arange(len(X)))"), "among others than alone, or in another order"),
    "an empty row": (
        body("if X.a.isna().all(): raise ValueError('empty')", "return X"),
        "transform of a row without values raised ValueError: empty",
    ),
    "a lambda": (
        body("return X", fit="self.f_ = lambda x: x; return self"),
        "cannot be stored without pickle|holds types that skops does not trust",
    ),
    "other columns": (
        body("return X.assign(b=1.0) if len(X) > 1 else X"),
        "return no column 'b', which there was in the fit",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_features_is_found_in_one_sentence(tmp_path: Path, case: str) -> None:
    text, message = FAULTS[case]
    with pytest.raises(OwnCodeError, match=message) as caught:
        try_own_code(make_task(tmp_path, "build", text), make_own_table())
    assert "\n" not in str(caught.value)


def test_a_type_inside_a_pipeline_is_named_until_it_is_trusted(tmp_path: Path) -> None:
    text = FEATURES.replace(
        "return Means()", "from sklearn.pipeline import make_pipeline\n    return make_pipeline(Means())"
    )
    settings = read_measured_settings(tmp_path, text, features="features.py:build")
    with pytest.raises(OwnCodeError, match=r"features.py:build: holds types .* not trust: features.py:Means\. Keep"):
        try_own_code(make_own_task(settings), make_own_table())
    search = settings.search.model_copy(update={"trusted": ("features.py:Means",)})
    try_own_code(make_own_task(settings.model_copy(update={"search": search})), make_own_table())


def test_settings_that_do_not_go_with_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="features: 'build' names no function"):
        read_measured_settings(tmp_path, FEATURES, features="build")
    content = read_measured_settings(tmp_path, FEATURES, "classification", features="features.py:build").model_dump()
    content["search"]["imbalance"] = "smote"
    with pytest.raises(InputError, match=r"search.imbalance: smote .* and features is set"):
        parse_settings(content, tmp_path / "params.yaml")


@pytest.mark.parametrize("name", ["build", "add_columns"])
def test_the_how_to_works_as_written(tmp_path: Path, name: str) -> None:
    page = (ROOT / "docs" / "how-to" / "own-features.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]) == {"features": "features.py:build"}
    try_own_code(make_task(tmp_path, name, text), make_own_table())
