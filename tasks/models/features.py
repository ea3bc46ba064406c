"""Which columns a model sees, their types, and how each type is encoded. Knows no algorithm."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io
from windvane.tasks.models.frame_reading import FrameColumnType, UnreadableFrame, read_frame
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.validate.table_profile import TableProfile

# Categories up to this many values get an input each; beyond, the mean target of each value does as well in one input.
ONE_HOT_MAX_VALUES = 20


@dataclass(frozen=True)
class FeatureColumns:
    """The columns that a model sees, by type; `low` and `high` are categories of few and of many values."""

    numbers: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    low: tuple[str, ...] = ()
    high: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in the order that the pipeline expects."""
        return self.numbers + self.booleans + self.low + self.high + self.dates

    def filled(self, frame: pd.DataFrame) -> FeatureColumns:
        """Without the columns that are wholly missing in these rows (a fold, an early training split)."""
        empty = {name for name in self.names if not frame[name].notna().any()}
        return FeatureColumns(
            **{f.name: tuple(n for n in getattr(self, f.name) if n not in empty) for f in fields(self)}
        )


def select_feature_columns(settings: Settings, profile: TableProfile) -> FeatureColumns:
    """Which columns train, from what validate found out about the table.

    Left out: target, id, weight, ignored, free text, constant and empty columns, and the group column when whole groups are
    held out: a model that knows groups by name would be judged on groups it has never met. Raises InputError when
    none is left.
    """
    problem = settings.problem
    out = {problem.target, problem.id, problem.weight, table_io.ROW_KEY, *problem.ignore}
    if settings.split.strategy != "time":  # every other one parts whole groups
        out.add(problem.group)
    seen = [c for c in profile.columns if c.name not in out and not c.constant and c.missing < profile.rows]

    def named(kind: str) -> tuple[str, ...]:
        return tuple(c.name for c in seen if c.type == kind)

    few = {c.name for c in seen if c.distinct <= ONE_HOT_MAX_VALUES}
    found = FeatureColumns(
        numbers=named("number"),
        booleans=named("boolean"),
        low=tuple(n for n in named("category") if n in few),
        high=tuple(n for n in named("category") if n not in few),
        dates=named("date"),
    )
    if not found.names:
        raise InputError(
            f"{settings.data.source}: no column is left to learn {problem.target!r} from (constant, empty, free-text "
            "and ignored columns do not count). Add columns, or take some out of problem.ignore"
        )
    return found


def conform_frame(frame: pd.DataFrame, columns: FeatureColumns, source: str) -> pd.DataFrame:
    """A frame from anywhere as the pipeline expects it: (n, len(columns.names)), as tasks/models/frame_reading.py reads it.

    Raises InputError naming `source` and the columns that are missing or cannot be read.
    """
    types: dict[str, FrameColumnType] = {
        **dict.fromkeys(columns.numbers, "number"),
        **dict.fromkeys(columns.booleans, "boolean"),
        **dict.fromkeys(columns.low + columns.high, "category"),
        **dict.fromkeys(columns.dates, "date"),
    }
    try:
        return read_frame(frame, types)
    except UnreadableFrame as e:
        raise InputError(f"{source}: {e}") from None


def build_feature_transformer(columns: FeatureColumns, *, scaled: bool, continuous: bool, seed: int) -> Any:
    """ColumnTransformer from a conformed frame to floats (n, inputs), dense.

    scaled (linear models): numbers, booleans and dates completed by the median with an input "was missing" and
    standardised, few-valued categories one-hot with missing as a value. Otherwise (trees): numbers as they are, because
    trees route a missing value by themselves, and few-valued categories as codes: cutting codes costs a tree a split or
    two, and spares it one input per value. Many-valued categories: target encoding (Micci-Barreca, SIGKDD Explorations
    2001), cross-fitted so that a row never sees its own target; continuous: whether the target is a number.
    """
    numeric = columns.numbers + columns.booleans
    target = TargetEncoder(
        target_type="continuous" if continuous else "auto", cv=KFold(5, shuffle=True, random_state=seed)
    )
    if scaled:
        parts = [
            ("numeric", _impute_and_scale(), numeric),
            ("low", OneHotEncoder(handle_unknown="ignore", sparse_output=False), columns.low),
            ("high", make_pipeline(target, StandardScaler()), columns.high),
            ("dates", make_pipeline(DateEncoder(), *(step for _, step in _impute_and_scale().steps)), columns.dates),
        ]
    else:
        codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        parts = [
            ("numeric", "passthrough", numeric),
            ("low", codes, columns.low),
            ("high", target, columns.high),
            ("dates", DateEncoder(), columns.dates),
        ]
    return ColumnTransformer([(n, t, list(c)) for n, t, c in parts if c], sparse_threshold=0)


class DateEncoder(TransformerMixin, BaseEstimator):
    """Dates (n, d) -> days since the earliest date seen, and the calendar as points on circles; NaN where missing.

    Circles put December beside January: a sine and a cosine of the hour, the weekday, the day of the month and the
    month's place in the year. Only circles on which the fitted dates differ are kept: monthly dates have no hour.
    """

    def fit(self, X: pd.DataFrame, y: Any = None) -> DateEncoder:
        """Remember each column's earliest date (days since 1970) and which circles it moves on."""
        self.feature_names_in_ = np.array([str(name) for name in X.columns], dtype=object)
        self.n_features_in_ = X.shape[1]
        self.origins_ = np.array([_days(X.iloc[:, i].min()) for i in range(X.shape[1])])
        self.kept_ = [
            [name for name, angle in _angles(X.iloc[:, i]).items() if np.nanmax(angle) > np.nanmin(angle)]
            for i in range(X.shape[1])
        ]
        return self

    def transform(self, X: pd.DataFrame) -> NDArray[Any]:
        """(n, 1 + 2 * circles) per date column."""
        out = []
        for i in range(X.shape[1]):
            dates = X.iloc[:, i]
            angles = _angles(dates)
            days = (dates - pd.Timestamp(0)) / pd.Timedelta(days=1)
            out.append(days.to_numpy(dtype="float64") - self.origins_[i])
            for name in self.kept_[i]:
                out += [np.sin(angles[name]), np.cos(angles[name])]
        return np.column_stack(out)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names in the order of transform's columns."""
        names = []
        for column, kept in zip(self.feature_names_in_, self.kept_, strict=True):
            names += [f"{column}_days", *(f"{column}_{part}_{f}" for part in kept for f in ("sin", "cos"))]
        return np.array(names, dtype=object)


def _impute_and_scale() -> Any:
    return make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())


def _days(date: Any) -> float:
    return float((date - pd.Timestamp(0)) / pd.Timedelta(days=1))


def _angles(dates: pd.Series) -> dict[str, NDArray[Any]]:
    at = dates.dt
    shares = {
        "hour": (at.hour + at.minute / 60) / 24,
        "weekday": at.dayofweek / 7,
        "monthday": (at.day - 1) / 31,
        "month": (at.month - 1) / 12,
    }
    return {name: 2 * np.pi * share.to_numpy(dtype="float64") for name, share in shares.items()}
