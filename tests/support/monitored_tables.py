"""Made tables with a champion that is a formula: records and windows for tests of the watch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from windvane.monitoring import window_loss
from windvane.monitoring.window_loss import LossModel
from windvane.tasks.evaluation.scores import BASELINE_LOSS_COLUMN, LOSS_COLUMN, PREDICTION_COLUMN, PROBABILITY_PREFIX
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.problem_types.definitions import ProblemType
from windvane.tasks.settings.problem_section import ProblemSettings

COLUMNS = FeatureColumns(numbers=("size", "age", "rooms"), booleans=("garden",), low=("town",))
TOWNS = {"Ulm": 0.0, "Bonn": 40.0, "Kiel": -30.0, "Jena": 15.0}


def problem(kind: str, **more: Any) -> ProblemSettings:
    return ProblemSettings(kind=kind, target="y", **more)  # type: ignore[arg-type]


def kind_of(kind: str) -> ProblemType:
    return definitions.load_problem_type(kind)


def rows(count: int, seed: int, kind: str = "regression") -> pd.DataFrame:
    """Inputs and target; larger and older houses are harder to tell."""
    rng = np.random.default_rng(seed)
    size = rng.normal(100, 20, count)
    frame = pd.DataFrame(
        {
            "size": size,
            "age": rng.gamma(2, 15, count).round(),
            "rooms": (size / 25 + rng.normal(0, 0.7, count)).round().clip(1),
            "garden": rng.random(count) < 0.4,
            "town": rng.choice(list(TOWNS), count, p=[0.4, 0.3, 0.2, 0.1]),
        }
    )
    if kind == "regression":
        return frame.assign(y=formula(frame) + rng.normal(0, 1, count) * (10 + frame["age"]))
    return frame.assign(y=np.where(rng.random(count) < chance(frame), "yes", "no"))


def formula(frame: pd.DataFrame) -> pd.Series:
    return (
        3 * frame["size"].astype(float) - frame["age"].astype(float) + frame["town"].map(TOWNS).astype(float).fillna(0)
    )


def chance(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.asarray(1 / (1 + np.exp(-(formula(frame).fillna(270) - 300) / 25)), dtype=float)


def answered(frame: pd.DataFrame, kind: str = "regression", record: bool = False) -> pd.DataFrame:
    """With the champion's answers, and as a record with losses."""
    if kind == "regression":
        frame = frame.assign(**{PREDICTION_COLUMN: formula(frame).fillna(270)})
        loss = (frame["y"] - frame[PREDICTION_COLUMN]).abs()
        return frame.assign(**{LOSS_COLUMN: loss, BASELINE_LOSS_COLUMN: loss}) if record else frame
    p = chance(frame)
    frame = frame.assign(**{PREDICTION_COLUMN: np.where(p > 0.5, "yes", "no")})
    if record:
        loss = -np.log(np.where(frame["y"] == "yes", p, 1 - p))
        frame = frame.assign(**{LOSS_COLUMN: loss, BASELINE_LOSS_COLUMN: loss})
    return frame.assign(**{f"{PROBABILITY_PREFIX}no": 1 - p, f"{PROBABILITY_PREFIX}yes": p})


def watched(kind: str = "regression", count: int = 1500, seed: int = 0) -> tuple[pd.DataFrame, LossModel]:
    """A record and what it teaches about losses."""
    record = answered(rows(count, seed, kind), kind, record=True)
    return record, window_loss.fit_loss_model(record, COLUMNS, kind_of(kind), problem(kind), 0)
