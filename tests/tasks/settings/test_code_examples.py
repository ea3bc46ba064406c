"""The examples that `init --with-code` leaves: each works as written, and a file that is there stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.own_models import make_own_table, make_own_task
from windvane.tasks.settings import project_params
from windvane.tasks.settings.code_examples import CODE_EXAMPLES, write_code_examples
from windvane.tasks.stores.own_code_trial import try_own_code


@pytest.mark.parametrize(
    ("kind", "model", "features", "metric", "loss"),
    [
        ("regression", "Ridge", "build", "within_a_tenth", "too_low_costs_twice"),
        ("classification", "NearestMean", "add_columns", "mean_chance", "squared_distance"),
    ],
)
def test_each_example_works(tmp_path: Path, kind: str, model: str, features: str, metric: str, loss: str) -> None:
    assert write_code_examples(tmp_path) == tuple(CODE_EXAMPLES)
    content = {
        "project": "own",
        "problem": {
            "kind": kind,
            "target": "y",
            "metric": f"metrics.py:{metric}",
            "greater_is_better": True,
            "loss": f"metrics.py:{loss}",
        },
        "data": {"source": "table.csv"},
        "features": f"features.py:{features}",
        "search": {"candidates": [f"models.py:{model}"]},
    }
    settings = project_params.parse_settings(content, tmp_path / "params.yaml")
    try_own_code(make_own_task(settings), make_own_table(kind=kind))


def test_a_file_that_is_there_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("mine = 1\n")
    assert write_code_examples(tmp_path) == ("features.py", "metrics.py")
    assert (tmp_path / "models.py").read_text() == "mine = 1\n"
    assert write_code_examples(tmp_path) == ()
