"""A class of the user's own as a candidate: where it may come from, its search space, and the text that is run."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from tests.support.own_models import CLASSES, RIDGE, make_own_table, make_own_task, read_own_settings
from windvane.tasks.errors import InputError
from windvane.tasks.models import own_code
from windvane.tasks.models.problem_types.definitions import ChoiceSet, FloatRange, IntRange, OwnCodeError
from windvane.tasks.search.model_search import search_models
from windvane.tasks.settings import own_code_names, project_params
from windvane.tasks.stores import fingerprint

NEIGHBOURS = "sklearn.neighbors:KNeighborsRegressor"


def test_a_file_beside_params_yaml_is_a_candidate(tmp_path: Path) -> None:
    settings = read_own_settings(tmp_path)
    candidate = own_code.load_project_problem_type(settings).candidates["models.py:Mine"]
    assert candidate.space["alpha"] == FloatRange(0.01, 10.0, 1.0, log=True)
    assert candidate.scaled  # it does not say that it takes NaN
    assert candidate.own is not None
    assert candidate.own.files == (("models.py", RIDGE),)


def test_an_installed_class_is_a_candidate_with_its_space_from_params_yaml(tmp_path: Path) -> None:
    spaces = {NEIGHBOURS: {"n_neighbors": {"low": 1, "high": 9}, "weights": ["uniform", "distance"]}}
    settings = read_own_settings(tmp_path, name=NEIGHBOURS, spaces=spaces)
    candidate = own_code.load_project_problem_type(settings).candidates[NEIGHBOURS]
    assert candidate.space["n_neighbors"] == IntRange(1, 9, 5)
    assert candidate.space["weights"] == ChoiceSet(("uniform", "distance"), "uniform")
    assert candidate.own is not None
    assert candidate.own.files == ()
    assert candidate.own.packages[0].startswith("scikit-learn==")


def test_a_package_offers_a_candidate_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("neighbours", NEIGHBOURS, own_code_names.ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        own_code_names.importlib.metadata,
        "entry_points",
        lambda group, name: [point] if (group, name) == (point.group, point.name) else [],
    )
    settings = read_own_settings(tmp_path, name="neighbours")
    assert "neighbours" in own_code.load_project_problem_type(settings).candidates
    with pytest.raises(
        InputError, match=r"'nieghbours' is not an allowed value. Allowed: linear, tree, forest, boosting"
    ):
        read_own_settings(tmp_path, name="nieghbours")


def test_a_class_that_takes_missing_values_gets_features_as_trees_do(tmp_path: Path) -> None:
    settings = read_own_settings(tmp_path, name="sklearn.ensemble:HistGradientBoostingRegressor")
    assert not own_code.load_project_problem_type(settings).candidates[settings.search.candidates[0]].scaled


@pytest.mark.parametrize(
    "name",
    ["/etc/models.py:Mine", "../models.py:Mine", "a/../../models.py:Mine", "C:\\models.py:Mine", "./models.py:Mine"],
)
def test_a_path_out_of_the_project_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"search.candidates: .* (leads out of the project's folder|names nothing in a file)"
    ):
        read_own_settings(tmp_path, name=name)


def test_a_link_out_of_the_project_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text(RIDGE)
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "linked.py").symlink_to(tmp_path / "outside.py")
    settings = read_own_settings(tmp_path / "project", name="linked.py:Mine")
    with pytest.raises(OwnCodeError, match=r"linked.py is no file in the project's folder. Put it beside params.yaml"):
        own_code.load_project_problem_type(settings)


BAD_FILES: dict[str, tuple[str, str]] = {
    "no Python": ("class Mine(:\n", r"models.py line 1: is no Python"),
    "a missing package": (
        "import no_such_package\n",
        r"models.py: imports 'no_such_package', which is no installed package",
    ),
    "raises": ("1 / 0\n", r"models.py: importing it raised ZeroDivisionError: division by zero \(line 1\)"),
    "exits": ("raise SystemExit(3)\n", r"models.py: importing it raised SystemExit: 3 \(line 1\)"),
    "no such class": ("Other = 1\n", r"models.py has no Mine. Fix the name"),
    "no estimator": ("class Mine: pass\n", r"models.py:Mine: is no scikit-learn estimator"),
    "of classes": (CLASSES, r"models.py:Mine: is no scikit-learn estimator for regression"),
    "arguments": (RIDGE.replace("alpha=1.0", "alpha"), r"its constructor without arguments raised TypeError"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_code_that_is_no_candidate_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    text, message = BAD_FILES[case]
    with pytest.raises(OwnCodeError, match=message) as caught:
        own_code.load_project_problem_type(read_own_settings(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


BAD_SPACES: dict[str, tuple[Any, str]] = {
    "no such parameter": ({"beta": [1, 2]}, "beta: the constructor has no such parameter. It has alpha"),
    "low above high": ({"alpha": {"low": 3, "high": 1}}, "alpha: needs numbers with low below high"),
    "log of zero": ({"alpha": {"low": 0, "high": 1, "log": True}}, "alpha: needs numbers .* low above 0 with log"),
    "not numbers": ({"alpha": {"low": "a", "high": 1}}, "alpha: needs numbers"),
    "no values": ({"alpha": []}, "alpha: must be a list of numbers, words"),
    "nested": ({"alpha": [[1], [2]]}, "alpha: must be a list"),
    "strange key": ({"alpha": {"min": 1}}, "alpha: unknown key 'min'. Known here: low, high"),
    "default outside": (
        {"alpha": {"low": 2.0, "high": 3.0}},
        "alpha: the default 1.0 must be a number from 2 to 3. Add `default:`",
    ),
}


@pytest.mark.parametrize("case", BAD_SPACES)
def test_a_space_with_impossible_values_is_refused(tmp_path: Path, case: str) -> None:
    space, message = BAD_SPACES[case]
    settings = read_own_settings(tmp_path, spaces={"models.py:Mine": space})
    with pytest.raises(OwnCodeError, match=rf"search.spaces.models.py:Mine.{message}"):
        own_code.load_project_problem_type(settings)


def test_spaces_are_of_own_candidates_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"search.spaces: linear is no candidate of your own"):
        read_own_settings(tmp_path, name="linear", spaces={"linear": {"alpha": [1.0]}})


def test_two_texts_of_one_file_live_side_by_side(tmp_path: Path) -> None:
    old, new = read_own_settings(tmp_path), read_own_settings(tmp_path, RIDGE.replace("+ self.mean_", "+ 1"))
    classes = [
        type(own_code.load_project_problem_type(s).candidates["models.py:Mine"].build({}, 0, 1))
        for s in (old, new, old)
    ]
    assert classes[0] is classes[2]
    assert classes[0].__module__ != classes[1].__module__
    assert "models" not in sys.modules


def test_the_text_is_that_of_the_moment_when_params_yaml_was_read(tmp_path: Path) -> None:
    settings = read_own_settings(tmp_path)
    (tmp_path / "models.py").write_text("raise SystemExit")
    assert own_code.load_project_problem_type(settings.model_copy()).candidates["models.py:Mine"].own is not None


def test_a_changed_line_changes_the_fingerprint_and_a_comment_does_not(tmp_path: Path) -> None:
    texts = (
        RIDGE,
        RIDGE.replace("    def fit", "    # A comment.\n\n    def fit"),
        RIDGE.replace("alpha=1.0", "alpha=2.0"),
    )
    first, comment, line = (
        fingerprint.compute_fingerprint(read_own_settings(tmp_path, t), "d", "search") for t in texts
    )
    assert first == comment != line
    refits = [
        fingerprint.compute_fingerprint(read_own_settings(tmp_path, t), "d", "refit", {"candidate": "models.py:Mine"})
        for t in texts
    ]
    assert refits[0] == refits[1] != refits[2]


def test_settings_without_the_file_can_be_read(tmp_path: Path) -> None:
    """The service and status go on with a version whose file is gone."""
    settings = read_own_settings(tmp_path)
    content = settings.model_dump()
    (tmp_path / "models.py").unlink()
    assert project_params.parse_settings(content, tmp_path / "params.yaml").own_sources == {}


@pytest.mark.long
def test_the_search_tunes_an_own_candidate_beside_others(tmp_path: Path) -> None:
    settings = read_own_settings(tmp_path, candidates=["linear", "models.py:Mine", NEIGHBOURS], trials=8)
    rows = make_own_table()
    found = search_models(make_own_task(settings), rows[:200], rows[200:], tmp_path / "journal.log", lambda _: None)
    trials = {r.candidate: r.trials for r in found.results}
    assert len({t.params["alpha"] for t in trials["models.py:Mine"]}) > 1
    assert len(trials["models.py:Mine"]) > 2
    assert len(trials[NEIGHBOURS]) <= 2  # it has no space: its defaults are all there is, and the logarithm


@pytest.mark.long
def test_a_fit_that_raises_is_a_failed_trial_with_its_line(tmp_path: Path) -> None:
    text = RIDGE.replace(
        "        self.mean_ = y.mean()",
        "        if self.alpha != 1: raise KeyError('sqft')\n        self.mean_ = y.mean()",
    )
    settings = read_own_settings(tmp_path, text, trials=4)
    rows = make_own_table()
    found = search_models(make_own_task(settings), rows[:200], rows[200:], tmp_path / "journal.log", lambda _: None)
    assert found.best.spec.params["alpha"] == 1
    assert any(r"models.py:Mine: fit raised KeyError: 'sqft' (line 12)" in note for note in found.notes)
