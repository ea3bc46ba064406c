"""Whatever people call their columns, classes and files: MLflow takes what is logged of them, under keys that differ."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windvane.tasks.stores import mlflow_limits
from windvane.tasks.stores.mlflow_limits import MAX_KEY_LETTERS, format_schema, make_key

pytestmark = pytest.mark.long  # imports MLflow

NAMES = [
    "a/b",
    "price [€]",
    "../x",
    "/x",
    "a//b",
    "a/",
    ".",
    "..",
    "",
    "😀",
    "x=1",
    "a\nb",
    "ä" * 300,
    "ä" * 301,
    "100 %",
    "a\n",
]


def takes(key: str) -> None:
    """Raises where MLflow refuses this key."""
    from mlflow.utils import validation

    validation._validate_metric(key, 1.0, 0, 0)
    validation._validate_param(key, "x")
    validation._validate_tag(key, "x")


@settings(deadline=None)  # the first one imports MLflow
@given(st.text(max_size=400) | st.sampled_from(NAMES))
def test_every_name_has_a_key_that_mlflow_takes(name: str) -> None:
    takes(make_key(name))


@pytest.mark.parametrize("name", ["test_mae", "search.spaces.models.py:Mine.alpha", "größe (m)", "own/models.py:Mine"])
def test_a_name_that_mlflow_takes_stays_and_another_can_be_read(name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        takes(name)
    except MlflowException:
        assert make_key(name).startswith("größe _m__")
    else:
        assert make_key(name) == name


def test_different_names_have_different_keys() -> None:
    wanted = [*NAMES, *(f"{'x' * 250}{i}" for i in range(50)), *(f"a{sign}b" for sign in "=[]<>{}+*~#!?%&|;,'\"")]
    keys = {make_key(name) for name in wanted}
    assert len(keys) == len(wanted)
    assert max(map(len, keys)) <= MAX_KEY_LETTERS


def test_the_schema_of_a_very_wide_table_is_cut() -> None:
    from mlflow.utils.validation import MAX_DATASET_SCHEMA_SIZE

    wide = {f"gene {'ä' * 20} {i}": "double" for i in range(20_000)}
    text = format_schema(wide)
    assert len(text) <= MAX_DATASET_SCHEMA_SIZE
    *first, last = json.loads(text)["mlflow_colspec"]
    assert last["name"] == f"... {20_000 - len(first):,} more columns"
    assert [column["name"] for column in first] == list(wide)[: len(first)]
    assert [c["name"] for c in json.loads(format_schema({"a": "double"}))["mlflow_colspec"]] == ["a"]


def test_values_are_cut() -> None:
    assert mlflow_limits.cut_values({"a": "x" * 9000, "b": None}, 6000) == {"a": "x" * 6000, "b": "None"}
