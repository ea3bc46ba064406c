"""The search: its plan, its limits, its journal, and that a killed one goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.support.projects import ROOT
from windvane.tasks.errors import Corrupted, InputError
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.search import model_search, search_plan
from windvane.tasks.search.cross_validation import build_configuration_scorer
from windvane.tasks.search.model_search import SearchResult, TrialProgress
from windvane.tasks.settings import project_params

pytestmark = pytest.mark.long

COLUMNS = FeatureColumns(("a", "b"), low=("c",))
KIND = definitions.load_problem_type("regression")


def table(rows: int = 300, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(size=rows), "c": rng.choice(["x", "y"], rows)})
    frame["g"] = np.arange(rows) % 7
    frame["y"] = frame["a"] ** 2 + frame["b"] + (frame["c"] == "x") + rng.normal(0, 0.1, rows) + shift
    return frame


Part = dict[str, Any] | None


def parsed(problem: Part = None, split: Part = None, **given: Any) -> project_params.Settings:
    return project_params.parse_settings(
        {
            "project": "p",
            "data": {"source": "t.csv"},
            "problem": {"kind": "regression", "target": "y", **(problem or {})},
            "split": split or {},
            "search": {"candidates": ["linear", "tree"], "trials": 6, **given},
        }
    )


def run(s: project_params.Settings, journal: Path, frame: pd.DataFrame | None = None, **given: Any) -> SearchResult:
    frame = table() if frame is None else frame
    cut = len(frame) if s.split.strategy == "kfold" else len(frame) * 2 // 3
    kind = definitions.load_problem_type(s.problem.kind)
    reports: list[TrialProgress] = given.pop("reports", [])
    return model_search.search_models(
        ModelTask(s, kind, COLUMNS, 1), frame[:cut], frame[cut:], journal / "j.log", reports.append, **given
    )


def tried(found: SearchResult) -> dict[str, list[dict[str, Any]]]:
    return {r.candidate: [t.params for t in r.trials] for r in found.results}


@pytest.mark.parametrize("method", ["bayesian", "random", "grid"])
def test_a_search_spends_its_trials_and_ranks_by_validation(method: str, tmp_path: Path) -> None:
    reports: list[TrialProgress] = []
    found = run(parsed(method=method, trials=9), tmp_path, reports=reports)
    assert [r.candidate for r in found.results] == ["dummy", "linear", "tree"]
    spent = sum(len(r.trials) for r in found.results[1:])
    assert spent == 9 if method != "grid" else 5 <= spent <= 9
    assert found.best.candidate == "tree"
    assert found.best.validation["mae"] == min(r.validation["mae"] for r in found.results)
    assert all(set(r.validation) == set(r.train) == {"mae", "rmse", "r2"} for r in found.results)
    assert found.stopped is None
    assert found.results[0].trials[0].params == {"strategy": "median"}
    assert [r.trial for r in reports if r.candidate != "dummy"] == list(range(1, spent + 1))
    assert reports[-1].best == found.best.validation["mae"]
    assert all(0 < r.left <= 300 and r.of == 9 for r in reports)


def test_the_same_search_twice_is_identical(tmp_path: Path) -> None:
    one, two = (run(parsed(trials=10), tmp_path / name) for name in "ab")
    assert tried(one) == tried(two)
    assert one.best.validation == two.best.validation
    other = run(parsed(trials=10, split={"seed": 5}), tmp_path / "c")
    assert tried(other) != tried(one)


def test_finished_trials_are_not_done_again(tmp_path: Path) -> None:
    first = run(parsed(), tmp_path)
    again = run(parsed(), tmp_path)
    assert (first.fits, again.fits) == (8, 0)
    assert again.results == first.results


def test_every_candidate_is_fitted_even_on_one_trial(tmp_path: Path) -> None:
    found = run(parsed(trials=1), tmp_path)
    assert {name: len(params) for name, params in tried(found).items()} == {"dummy": 2, "linear": 1, "tree": 1}


def test_a_goal_stops_the_ladder(tmp_path: Path) -> None:
    found = run(parsed({"goal": 5.0}), tmp_path)
    assert list(tried(found)) == ["dummy", "linear"]
    assert "problem.goal 5 met by linear" in str(found.stopped)
    high = run(parsed({"goal": 0.5, "metric": "r2"}), tmp_path / "r2")
    assert high.best.candidate == "tree"
    assert high.best.validation["r2"] >= 0.5


def test_the_timeout_ends_the_search_between_fits_and_counts_earlier_attempts(tmp_path: Path) -> None:
    ticks = iter(range(10_000))
    found = run(parsed(timeout=20), tmp_path, clock=lambda: float(next(ticks)))
    assert found.stopped == "search.timeout: 20 s are over"
    assert "linear" in tried(found)
    assert sum(len(p) for p in tried(found).values()) < 8
    again = run(parsed(timeout=20), tmp_path, clock=lambda: 0.0)
    assert again.fits < 8
    hasty = run(parsed(timeout=0.001), tmp_path / "b")
    assert list(tried(hasty)) == ["dummy", "linear"]


def test_a_skewed_positive_target_is_tried_on_its_logarithm(tmp_path: Path) -> None:
    frame = table()
    frame["y"] = np.exp(frame["y"])
    found = run(parsed(candidates=["linear"]), tmp_path, frame)
    assert [p["log_target"] for p in tried(found)["linear"]][:2] == [False, True]
    assert found.best.spec.params["log_target"] is True
    assert any("logarithm" in note for note in found.notes)
    plain = run(parsed(candidates=["linear"]), tmp_path / "plain")
    assert not any(p["log_target"] for p in tried(plain)["linear"])


def test_a_manual_list_is_tried_as_it_stands(tmp_path: Path) -> None:
    forest = {"candidate": "forest", "n_estimators": 20, "max_depth": 8}
    listed = [forest, {"candidate": "tree"}, {"candidate": "tree", "max_depth": 3}]
    found = run(parsed(method="manual", manual=listed), tmp_path)
    assert {name: len(p) for name, p in tried(found).items()} == {"dummy": 2, "forest": 1, "tree": 2}
    assert tried(found)["forest"][0]["n_estimators"] == 20


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"candidate": "forest", "max_dept": 8}, r"search\.manual\[1\]\.max_dept: .*n_estimators.*mean max_depth"),
        ({"candidate": "forrest"}, r"search\.manual\[1\]\.candidate: .*Allowed: linear.*mean forest"),
        ({"max_depth": 3}, r"search\.manual\[1\]\.candidate: is missing"),
        ({"candidate": "tree", "max_depth": 99}, r"search\.manual\[1\]\.max_depth: must be a whole number from 2 to"),
        ({"candidate": "linear", "log_target": True}, r"search\.manual\[1\]\.log_target: 'y' goes down to"),
    ],
)
def test_a_wrong_manual_entry_is_named(entry: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        run(parsed(method="manual", manual=[{"candidate": "tree"}, entry]), tmp_path)


def test_a_grid_is_as_fine_as_its_share() -> None:
    tree = search_plan.select_search_spaces(KIND, False, "rmse")["tree"]
    assert search_plan.build_parameter_grid(tree, 1) == [tree.defaults]
    assert [p["max_depth"] for p in search_plan.build_parameter_grid(tree, 4)] == [2, 5, 13, 32]
    assert len(search_plan.build_parameter_grid(tree, 12)) == 12


def test_folds_share_rows_by_group_and_class(tmp_path: Path) -> None:
    kfold = {"strategy": "kfold", "folds": 3}
    found = run(parsed(split=kfold), tmp_path)
    assert found.best.candidate == "tree"
    grouped = parsed({"group": "g"}, kfold)
    for train, held in build_configuration_scorer(ModelTask(grouped, KIND, COLUMNS, 1), table(), table()[:0]).folds:
        assert not set(table()["g"].iloc[train]) & set(table()["g"].iloc[held])
    frame = table().assign(y=lambda f: np.where(f["y"] > 2, "rare", "common"))
    classes = run(parsed({"kind": "classification"}, kfold, trials=2), tmp_path / "c", frame)
    assert set(classes.best.validation) == set(definitions.load_problem_type("classification").metrics)
    frame["y"] = ["rare"] * 2 + ["common"] * 298
    with pytest.raises(InputError, match="3 folds need at least 3 rows of the rarest class"):
        run(parsed({"kind": "classification"}, kfold), tmp_path / "few", frame)


def test_hopeless_trials_are_pruned_after_a_fold(tmp_path: Path) -> None:
    found = run(parsed(split={"strategy": "kfold", "folds": 3}, trials=25, candidates=["tree"]), tmp_path)
    pruned = [t for t in found.best.trials if t.state == "pruned"]
    assert {t.state for t in found.best.trials} == {"complete", "pruned"}
    assert all(t.validation is None and "at the first evaluation" in str(t.note) for t in pruned)


def test_what_an_algorithm_cannot_take_fails_its_trials_and_no_more(tmp_path: Path) -> None:
    frame = table(40).assign(y=-1.0)
    with pytest.raises(InputError, match="nothing could be judged by r2: r2 is not a number"):
        run(parsed({"metric": "r2"}), tmp_path, frame)


def test_only_scores_one_configuration_beside_the_baseline() -> None:
    reports: list[TrialProgress] = []
    frame = table()
    spec = ModelConfiguration("tree", {"max_depth": 4})
    found = model_search.score_single_configuration(
        ModelTask(parsed(), KIND, COLUMNS, 1), spec, frame[:200], frame[200:], reports.append
    )
    assert [r.candidate for r in found.results] == ["dummy", "tree"]
    assert (found.best.spec, found.fits, len(reports)) == (spec, 3, 3)


def test_half_a_line_and_a_lock_of_a_dead_writer_are_cleared(tmp_path: Path) -> None:
    began = time.monotonic()
    first = run(parsed(), tmp_path)
    taken = time.monotonic() - began
    with (tmp_path / "j.log").open("ab") as f:
        f.write(b'{"op_code": 4, "wor')
    (tmp_path / "j.log.lock").symlink_to(tmp_path / "j.log")
    began = time.monotonic()
    assert run(parsed(), tmp_path).results == first.results
    # Without a fit it takes less than the first time; Optuna would wait thirty seconds for the lock.
    assert time.monotonic() - began < taken + 20
    (tmp_path / "j.log").write_bytes(b"\0\0\0\n")
    with pytest.raises(Corrupted, match="is not a search journal"):
        run(parsed(), tmp_path)


CHILD = """
import sys
from pathlib import Path
from tests.tasks.search import test_model_search as t
def say(p):
    print(p.trial, flush=True)
train, validation = t.table()[:200], t.table()[200:]
task = t.ModelTask(t.parsed(trials=14), t.KIND, t.COLUMNS, 1)
t.model_search.search_models(task, train, validation, Path(sys.argv[1]) / "j.log", say)
"""


def test_a_killed_search_goes_on_with_its_trials(tmp_path: Path) -> None:
    after = 5
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], env=env, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == str(after):
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    reports: list[TrialProgress] = []
    resumed = run(parsed(trials=14), tmp_path, reports=reports)
    kept = sum(r.resumed for r in reports)
    assert kept >= after
    assert resumed.fits == len(reports) - kept
    calm = run(parsed(trials=14), tmp_path / "calm")
    assert tried(resumed) == tried(calm)
    assert [r.validation for r in resumed.results] == [r.validation for r in calm.results]


def test_a_trial_under_way_at_the_kill_is_proposed_again_and_given_up_in_the_end(tmp_path: Path) -> None:
    from windvane.tasks.search.optuna_journal import TrialJournal

    tree = search_plan.select_search_spaces(KIND, False, "rmse")["tree"]
    seen = []
    for deaths in range(7):
        book = TrialJournal(tmp_path / "j.log", KIND.metrics["mae"], "bayesian", 0)
        proposal = book.propose("tree", tree.space, tree.defaults)
        assert (proposal.number, proposal.deaths) == (0, deaths)
        seen.append(proposal.params)
    assert seen == [tree.defaults] * 7
    found = run(parsed(candidates=["linear", "tree"], trials=4), tmp_path)
    assert any("7 processes ended" in note for note in found.notes)


def test_e4_what_ended_a_search_is_reported(tmp_path: Path) -> None:
    met = run(parsed({"goal": 5.0}), tmp_path / "goal")
    assert met.ended.startswith("the search tried 1 configurations, problem.goal 5 met by linear")
    whole = run(parsed(trials=3), tmp_path / "whole")
    assert whole.ended == "the search tried 3 configurations, all that were planned"


def test_e4_n2_a_grids_own_values_are_tried_whole_and_no_others(tmp_path: Path) -> None:
    grid = {"tree": {"max_depth": [2, 5, 9], "min_samples_leaf": [1, 20]}}
    found = run(parsed(method="grid", trials=8, grid=grid), tmp_path)
    done = tried(found)
    assert [(p["max_depth"], p["min_samples_leaf"]) for p in done["tree"]] == [
        (d, leaf) for d in (2, 5, 9) for leaf in (1, 20)
    ]
    assert 1 <= len(done["linear"]) <= 2
    assert all(p["log_target"] is False for p in done["tree"])
    only = run(
        parsed(method="grid", trials=2, grid={"tree": {"max_depth": [2, 5]}}, candidates=["tree"]), tmp_path / "only"
    )
    assert len(tried(only)["tree"]) == 2


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (
            {"method": "manual", "manual": [{"candidate": "tree", "max_dept": 3}]},
            r"search\.manual\[0\]\.max_dept: .*Did you mean max_depth",
        ),
        (
            {"method": "manual", "manual": [{"candidate": "forst"}]},
            r"search\.manual\[0\]\.candidate: .*Did you mean forest",
        ),
        (
            {"method": "grid", "grid": {"tree": {"max_depth": [3, "deep"]}}},
            r"search\.grid\.tree\.max_depth: must be a whole number from 2 to 32",
        ),
        (
            {"method": "grid", "grid": {"tree": {"depth": [3]}}},
            r"search\.grid\.tree\.depth: tree has no such hyperparameter",
        ),
    ],
    ids=["name", "candidate", "value", "key"],
)
def test_e4_n3_hyperparameters_that_a_person_wrote_are_checked_before_a_lap(search: dict[str, Any], words: str) -> None:
    plan = search_plan.plan_manual_trials if "manual" in search else search_plan.plan_grid_trials
    with pytest.raises(InputError, match=words):
        plan(parsed(**search), KIND)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"method": "random", "grid": {"tree": {"max_depth": [3]}}}, "counts only with search.method grid"),
        ({"method": "grid", "grid": {"forest": {"max_depth": [3]}}}, "forest is not in search.candidates"),
        ({"method": "grid", "grid": {"tree": {"max_depth": []}}}, r"grid\.tree\.max_depth: is empty"),
        (
            {"method": "grid", "trials": 6, "grid": {"tree": {"max_depth": [2, 3, 4, 5, 6, 7]}}},
            "makes 7 configurations",
        ),
    ],
    ids=["method", "candidate", "empty", "trials"],
)
def test_a_grid_that_could_not_be_tried_is_refused(search: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parsed(**search)


def test_e7_under_mae_tree_and_boosting_minimise_the_absolute_error(tmp_path: Path) -> None:
    found = run(parsed({"metric": "mae"}, candidates=["boosting"], trials=1), tmp_path)
    assert found.best.spec.params["loss"] == "absolute_error"
    found = run(parsed({"metric": "mae"}, candidates=["tree"], trials=1), tmp_path / "tree")
    assert found.best.spec.params["criterion"] == "absolute_error"


def test_e7_n1_under_other_metrics_it_does_not(tmp_path: Path) -> None:
    for metric in ("rmse", "r2"):
        found = run(parsed({"metric": metric}, candidates=["boosting"], trials=1), tmp_path / metric)
        assert found.best.spec.params["loss"] == "squared_error"


def test_e7_n2_a_stored_configuration_without_an_objective_keeps_the_old_one() -> None:
    built = KIND.candidates["boosting"].build({**KIND.candidates["boosting"].defaults, "max_iter": 20}, 0, 1)
    assert built.get_params()["loss"] == "squared_error"


def test_e7_n3_a_manual_list_may_choose_the_objective(tmp_path: Path) -> None:
    manual = [{"candidate": "boosting", "loss": "squared_error"}, {"candidate": "boosting"}]
    found = run(parsed({"metric": "mae"}, method="manual", manual=manual, candidates=["boosting"]), tmp_path)
    assert [p["loss"] for p in tried(found)["boosting"]] == ["squared_error", "absolute_error"]
