"""The trial of own candidates before a search: each fault is found, in one sentence, and good ones pass."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.support.own_models import CLASSES, COLUMNS, RIDGE, make_own_table, make_own_task, read_own_settings
from tests.support.projects import ROOT
from windvane.tasks.errors import Corrupted
from windvane.tasks.models import model_pipeline, own_code
from windvane.tasks.models.features import conform_frame
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.models.problem_types.definitions import FloatRange, OwnCodeError
from windvane.tasks.stores import model_files
from windvane.tasks.stores.own_code_trial import try_own_code

PREDICT = "        return np.array([row @ self.coef_ + self.mean_ for row in X])"
FAULTS: dict[str, tuple[str, str]] = {
    "raises": (
        RIDGE.replace("self.mean_ = y.mean()", "self.mean_ = y.mena()"),
        r"fit raised AttributeError: .* \(line 12\)",
    ),
    "too few": (RIDGE.replace(PREDICT, PREDICT + "[:-1]"), r"returns \(\d+,\), not \(\d+,\). Return one value per row"),
    "two columns": (RIDGE.replace(PREDICT, "        return np.zeros((len(X), 2))"), r"not \(\d+,\)"),
    "NaN": (RIDGE.replace(PREDICT, PREDICT + " * np.nan"), "returns NaN or infinity"),
    "by chance": (
        RIDGE.replace(PREDICT, "        return np.random.normal(size=len(X))"),
        "predicts otherwise the second time",
    ),
    "fitted by chance": (
        RIDGE.replace("self.mean_ = y.mean()", "self.mean_ = np.random.normal()"),
        "two fits on the same rows predict otherwise",
    ),
    "by its neighbours": (
        RIDGE.replace(PREDICT, "        return (X - X.mean(axis=0)) @ self.coef_"),
        "predicts a single row otherwise than among others",
    ),
    "a lambda": (
        RIDGE.replace("self.mean_ = y.mean()", "self.mean_ = y.mean(); self.f_ = lambda x: x"),
        "cannot be stored without pickle|holds types that skops does not trust",
    ),
    "a helper": (
        "class Helper:\n    pass\n\n\n"
        + RIDGE.replace("self.mean_ = y.mean()", "self.mean_ = y.mean(); self.h_ = Helper()"),
        "holds types that skops does not trust: models.py:Helper. Keep plain values in it, or name them in search.trusted",
    ),
    "an empty row": (
        RIDGE.replace(PREDICT, "        if len(X) == 1 and X[0, 1:].sum() == 0: raise ValueError('empty')\n" + PREDICT),
        "predict of a row without values raised ValueError: empty",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_own_code_is_found_in_one_sentence(tmp_path: Path, case: str) -> None:
    text, message = FAULTS[case]
    with pytest.raises(OwnCodeError, match=message) as caught:
        try_own_code(make_own_task(read_own_settings(tmp_path, text)), make_own_table())
    assert str(caught.value).startswith("models.py:Mine: ")
    assert "\n" not in str(caught.value)


def test_good_candidates_pass(tmp_path: Path) -> None:
    try_own_code(make_own_task(read_own_settings(tmp_path)), make_own_table())
    settings = read_own_settings(tmp_path, CLASSES, "classification")
    try_own_code(make_own_task(settings), make_own_table(kind="classification"))


def test_probabilities_must_be_some(tmp_path: Path) -> None:
    text = CLASSES.replace("return near / near.sum(axis=1, keepdims=True)", "return near * 3")
    settings = read_own_settings(tmp_path, text, "classification")
    with pytest.raises(OwnCodeError, match="predict_proba returns what are no probabilities"):
        try_own_code(make_own_task(settings), make_own_table(kind="classification"))


def test_a_type_that_is_named_as_trusted_is_stored(tmp_path: Path) -> None:
    text, _ = FAULTS["a helper"]
    try_own_code(make_own_task(read_own_settings(tmp_path, text, trusted=["models.py:Helper"])), make_own_table())
    neighbours, kept = "sklearn.neighbors:KNeighborsRegressor", ["sklearn.neighbors._kd_tree.KDTree"]
    settings = read_own_settings(
        tmp_path, name=neighbours, trusted=[*kept, "sklearn.metrics._dist_metrics.EuclideanDistance64"]
    )
    try_own_code(make_own_task(settings), make_own_table())


def store(folder: Path, text: str = RIDGE) -> tuple[str, Path]:
    """The manifest's hash and the folder of a stored model of this text."""
    task, rows = (
        make_own_task(read_own_settings(folder, text, trusted=["os.system", "models.py:Helper"])),
        make_own_table(),
    )
    candidate = task.problem_type.candidates["models.py:Mine"]
    model = model_pipeline.fit_with_settings(task, ModelConfiguration("models.py:Mine", candidate.defaults), rows)
    sample = conform_frame(rows.head(5), COLUMNS, "x")
    digest = model_files.save_model(
        model, folder / "model", sample, model.predict(sample), own=task.problem_type.list_own_code("models.py:Mine")
    )
    return digest, folder / "model"


@pytest.mark.long
def test_a_stored_model_runs_the_text_it_was_trained_with(tmp_path: Path) -> None:
    digest, folder = store(tmp_path)
    expected = model_files.load_model(folder, digest).predict(conform_frame(make_own_table(5), COLUMNS, "x"))
    (tmp_path / "models.py").write_text("raise SystemExit('the file of today')")
    again = model_files.load_model(folder, digest).predict(conform_frame(make_own_table(5), COLUMNS, "x"))
    assert np.array_equal(expected, again)
    with closing(model_files.SmokeTester()) as tester:
        tester.test(folder, digest)  # a process that has never seen the file


def test_only_types_that_the_model_holds_are_recorded_as_trusted(tmp_path: Path) -> None:
    _, folder = store(tmp_path)
    (kept,) = json.loads((folder / model_files.OWN_CODE_FILE).read_text())
    assert [name.rpartition(".")[2] for name in kept["trusted"]] == ["Mine"]
    assert dict(kept["files"]) == {"models.py": RIDGE}


@pytest.mark.parametrize("change", ["text", "trusted"])
def test_changed_code_is_never_run(tmp_path: Path, change: str) -> None:
    digest, folder = store(tmp_path)
    path = folder / model_files.OWN_CODE_FILE
    content = json.loads(path.read_text())
    if change == "text":
        content[0]["files"][0][1] = "raise SystemExit('run')"
    else:
        content[0]["trusted"].append("os.system")
    path.write_text(json.dumps(content))
    with pytest.raises(Corrupted, match=r"own_code.json: its bytes were changed"):
        model_files.load_model(folder, digest)


def test_a_version_without_own_code_has_none(tmp_path: Path) -> None:
    digest, folder = store(tmp_path)
    (found,) = model_files.read_stored_code(folder, digest)
    assert found.name == "models.py:Mine"
    (folder / model_files.OWN_CODE_FILE).unlink()
    assert model_files.read_stored_code(folder, model_files.seal_folder(folder)) == ()


def test_a_champions_configuration_is_fitted_with_its_own_text(tmp_path: Path) -> None:
    digest, folder = store(tmp_path)
    stored = model_files.read_stored_code(folder, digest)
    task = make_own_task(read_own_settings(tmp_path, RIDGE.replace(PREDICT, PREDICT + " + 100")))
    kind = task.problem_type
    old = own_code.use_stored_model_code(kind, stored)
    rows, spec = make_own_table(), ModelConfiguration("models.py:Mine", {"alpha": 1.0, "log_target": False})
    inputs = conform_frame(rows, COLUMNS, "x")
    now, then = (
        model_pipeline.fit_with_settings(replace(task, problem_type=k), spec, rows).predict(inputs) for k in (kind, old)
    )
    assert np.allclose(now - then, 100)


def test_the_how_to_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "own-model.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    search = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])["search"]
    task = make_own_task(read_own_settings(tmp_path, text, **search))
    assert task.problem_type.candidates["models.py:Mine"].space["alpha"] == FloatRange(0.1, 100.0, 1.0, log=True)
    try_own_code(task, make_own_table())
