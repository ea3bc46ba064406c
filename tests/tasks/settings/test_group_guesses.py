"""Rows of repeated subjects are proposed as groups; ordinary categories, times and tables in order of time are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.tasks.settings.test_column_guesses import check_proposal, problem, propose
from windvane.tasks.models import features
from windvane.tasks.settings import project_params, yaml_files
from windvane.tasks.validate import table_profile


def make_choices(subjects: int = 210, each: int = 4, name: str = "individual", first: float = 1.0) -> pd.DataFrame:
    """What each person was offered, as in the table modechoice of statsmodels: a row per way to travel, one of them chosen."""
    draw = np.random.default_rng(4)
    rows = subjects * each
    table = pd.DataFrame(
        {name: np.repeat(first + np.arange(subjects), each), "mode": np.tile(np.arange(each), subjects)}
    )
    table["choice"] = (np.tile(np.arange(each), subjects) == np.repeat(draw.integers(0, each, subjects), each)).astype(
        int
    )
    table["ttme"] = draw.normal(30, 9, rows).round() - 9 * table["choice"]
    table["invt"] = draw.normal(300, 99, rows).round()
    table["hinc"] = np.repeat(draw.integers(2, 72, subjects), each)
    return table


@pytest.mark.parametrize(
    ("table", "target", "group", "strategy"),
    [
        (make_choices(), "choice", "individual", "kfold"),
        (make_choices(400), "choice", "individual", "group"),
        (make_choices(300, 5, "id"), "ttme", "id", "group"),
        (make_choices(210, 4, "respondent no", 4001.0), "choice", "respondent no", "kfold"),
        (make_choices(name="i"), "choice", "i", "kfold"),  # no name, but numbers that count up, and an attribute
        (make_choices().sample(frac=1, random_state=0), "choice", "individual", "kfold"),
        (
            make_choices().assign(individual=lambda t: "p" + t["individual"].astype(int).astype(str)),
            "choice",
            "individual",
            "kfold",
        ),
        (make_choices(18, 10, "Subject"), "ttme", "Subject", "kfold"),
        (make_choices().iloc[:-30].drop(index=[5, 90]), "choice", "individual", "kfold"),  # a few gave up
    ],
)
def test_repeated_subjects_are_proposed_as_groups(
    table: pd.DataFrame, target: str, group: str, strategy: str, tmp_path: Path
) -> None:
    found = propose(table, tmp_path, target)
    assert (problem(found)["group"], found.params["split"]["strategy"]) == (group, strategy)
    assert group not in problem(found)["ignore"]
    (line,) = [line for line in found.assumptions if line.startswith(f"rows of one '{group}' belong together")]
    assert line.endswith("problem.group: null overrides it")
    text = yaml_files.render_params(found)
    (row,) = [row for row in text.splitlines() if row.startswith("  group: ")]
    assert row.endswith(" rows each")
    assert check_proposal(table, found) == []
    settings = project_params.parse_settings(found.params)
    assert group not in features.select_feature_columns(settings, table_profile.profile_table(table)).names


def shuffled(values: Any) -> Any:
    return np.random.default_rng(5).permutation(values)


ORDINARY = {
    "town of equal size": lambda n: shuffled(np.repeat([f"town {i}" for i in range(n // 10)], 10)),
    "sorted town": lambda n: np.repeat([f"town {i}" for i in range(n // 10)], 10),
    "unequal person": lambda n: np.random.default_rng(6).integers(0, n // 5, n),
    "few persons": lambda n: np.repeat(np.arange(4), n // 4),
    "hour": lambda n: np.tile(np.arange(24), n // 24 + 1)[:n],
    "week": lambda n: np.repeat(np.arange(1, n // 7 + 2), 7)[:n],
    "sorted temperature": lambda n: np.repeat(np.arange(n // 5), 5),
    "shuffled number": lambda n: shuffled(np.repeat(np.arange(n // 4), 4)),
    "measured": lambda n: np.repeat(np.arange(n // 4) / 7, 4),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_columns_are_no_groups(kind: str, tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(7), 1_200
    name = {"unequal person": "person_id", "few persons": "person", "week": "week", "hour": "hour"}.get(kind, "c")
    table = pd.DataFrame({name: ORDINARY[kind](rows), "x": draw.normal(size=rows), "y": draw.normal(size=rows)})
    assert problem(propose(table, tmp_path))["group"] is None


def test_with_a_time_rows_are_parted_by_it_and_not_by_subject(tmp_path: Path) -> None:
    table = make_choices(300, 5)
    table.insert(0, "at", pd.date_range("2024-01-01", periods=len(table), freq="h"))
    found = propose(table, tmp_path, "ttme")
    assert (problem(found)["time"], problem(found)["group"]) == ("at", None)


def test_too_few_subjects_for_both_classes_are_no_group(tmp_path: Path) -> None:
    table = make_choices(12, 6, "patient").assign(ill=lambda t: (t["patient"] < 3).map({True: "yes", False: "no"}))
    found = propose(table.drop(columns="hinc"), tmp_path, "ill")
    assert check_proposal(table.drop(columns="hinc"), found) == []
