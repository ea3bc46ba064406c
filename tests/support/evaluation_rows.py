"""Small problems with known answers, for the tests of evaluation and plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.model_pipeline import ModelConfiguration, ModelTask
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.problem_types.definitions import ProblemType
from windvane.tasks.settings.project_params import Settings, parse_settings

COLUMNS = FeatureColumns(numbers=("a", "b"), low=("region",))


@dataclass(frozen=True)
class Case:
    """Everything that evaluation is given."""

    settings: Settings
    kind: ProblemType
    columns: FeatureColumns
    spec: ModelConfiguration
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame

    @property
    def task(self) -> ModelTask:
        """On one core."""
        return ModelTask(self.settings, self.kind, self.columns, 1)


def rows(count: int, seed: int) -> pd.DataFrame:
    """`a` says most, `b` nothing; in the west everything is harder; ten rows a day, six rows a customer."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=count), "b": rng.normal(size=count)})
    frame["region"] = rng.choice(["north", "south", "west"], count)
    noise = np.where(frame["region"] == "west", 2.0, 0.3)
    frame["y"] = 10 + 3 * frame["a"] + (frame["region"] == "north") + noise * rng.normal(size=count)
    frame["ts"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(count) // 10, unit="D")
    frame["customer"] = (np.arange(count) // 6).astype(str)
    frame["class"] = np.array(["low", "mid", "top"])[np.digitize(frame["y"], [8, 12])]
    frame["flag"] = (frame["y"] > 10).astype(float)
    return frame


def case(
    kind: str = "regression", target: str = "y", candidate: str = "linear", count: int = 600, time: bool = False,
    group: bool = False, strategy: str | None = None, **problem: Any,
) -> Case:  # fmt: skip
    """A case with 70 % training, 15 % validation and 15 % test rows; kfold: no validation rows."""
    named = {"kind": kind, "target": target, "time": "ts" if time else None, "group": "customer" if group else None}
    settings = parse_settings(
        {
            "project": "p",
            "problem": {**named, **problem},
            "data": {"source": "t.csv"},
            "split": {"strategy": strategy or ("time" if time else "random")},
        }
    )
    frame = rows(count, 0)
    one, two = int(0.7 * count), int(0.85 * count)
    if strategy == "kfold":
        one = two
    found = definitions.load_problem_type(kind)
    spec = ModelConfiguration(candidate, dict(found.candidates[candidate].defaults))
    parts = (frame[:one], frame[one:two], frame[two:])
    return Case(settings, found, COLUMNS, spec, *(p.reset_index(drop=True) for p in parts))
