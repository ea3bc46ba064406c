"""The user's own features: a transformer, or a function of one frame, before Windvane's encoding or in place of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from windvane.tasks.models.features import ONE_HOT_MAX_VALUES, FeatureColumns, build_feature_transformer
from windvane.tasks.models.own_modules import describe_own_code, explain_own_errors, load_own_function
from windvane.tasks.models.problem_types.definitions import OwnCode, OwnCodeError

_DTYPES = {"numbers": "float64", "low": object, "high": object, "dates": "datetime64[us]"}


class OwnFeatures(TransformerMixin, BaseEstimator):
    """The user's transformer, and what turns its output into the floats (n, inputs) that models take.

    A frame is encoded as the table's columns are, by the types that its columns have in the rows of the fit: Windvane's encoding comes
    after the user's. An array of numbers is in place of it: models that need it so (`scaled`) get it completed and scaled, others as it is.
    """

    def __init__(self, transformer: Any = None, scaled: bool = False, continuous: bool = True, seed: int = 0):
        self.transformer, self.scaled, self.continuous, self.seed = transformer, scaled, continuous, seed

    def fit(self, X: pd.DataFrame, y: Any = None) -> OwnFeatures:
        """As fit_transform()."""
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X: pd.DataFrame, y: Any = None, **_: Any) -> NDArray[Any]:
        """(n, inputs): both parts fitted on these rows alone."""
        if hasattr(self.transformer, "fit_transform"):
            made = self.transformer.fit_transform(X.copy(), y)
        else:
            made = self.transformer.fit(X.copy(), y).transform(X.copy())
        made = _read_output(made, len(X))
        if isinstance(made, pd.DataFrame):
            columns = _sort_columns(made)
            self.columns_: dict[str, list[str]] | None = {group: list(names) for group, names in vars(columns).items()}
            self.encoder_ = build_feature_transformer(
                columns, scaled=self.scaled, continuous=self.continuous, seed=self.seed
            )
            made = _conform_output(made, self.columns_)
        else:
            self.columns_, self.encoder_ = None, FunctionTransformer()
            if self.scaled:
                self.encoder_ = make_pipeline(
                    SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
                )
        return np.asarray(self.encoder_.fit_transform(made, y))

    def transform(self, X: pd.DataFrame) -> NDArray[Any]:
        """(n, inputs)."""
        made = _read_output(self.transformer.transform(X.copy()), len(X))
        if isinstance(made, pd.DataFrame) != (self.columns_ is not None):
            raise OwnCodeError(
                "features: return a frame for some rows and an array for others. Return the same type always"
            )
        return np.asarray(
            self.encoder_.transform(made if self.columns_ is None else _conform_output(made, self.columns_))
        )


def load_own_features(
    name: str, sources: Mapping[str, str], trusted: Sequence[str] = ()
) -> tuple[Callable[[], Any], OwnCode]:
    """What makes an unfitted transformer of the user's, and its code. trusted: types as search.trusted has them. Runs the code.

    Raises OwnCodeError for what is neither a function without arguments that returns a transformer, nor one of a frame.
    """
    function, code = load_own_function("features", name, sources)
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise OwnCodeError(
            f"{name}: needs {', '.join(p.name for p in needed)}. Write one without arguments that returns a transformer, or one of a frame"
        )

    def build() -> Any:
        if needed:
            return FunctionTransformer(function)
        with explain_own_errors((code,), "building the transformer"):
            made = function()
        if isinstance(made, type) or not (hasattr(made, "fit") and hasattr(made, "transform")):
            raise OwnCodeError(
                f"{name}: returns what has no fit and transform. Return a transformer with scikit-learn's interface"
            )
        return made

    holds = function if needed else type(build())
    own = holds.__module__ == function.__module__
    return build, describe_own_code("features", name, dict(code.files), (holds,) if own else (), trusted)


def _read_output(made: Any, rows: int) -> Any:
    """What a transformer returned for so many rows: a frame numbered from 0, or floats (n, k)."""
    if isinstance(made, pd.Series):
        made = made.to_frame()
    if not isinstance(made, pd.DataFrame):
        made = made.toarray() if hasattr(made, "toarray") else np.asarray(made)
        if made.ndim != 2 or made.dtype.kind not in "fiub":
            raise OwnCodeError(
                f"features: return {made.ndim}-dimensional values of type {made.dtype}. Return a frame, or numbers (rows, columns)"
            )
        made = made.astype(np.float64)
        if np.isinf(made).any():
            raise OwnCodeError("features: return infinity. Return a finite number, or NaN where there is none")
    if len(made) != rows or not made.shape[1]:
        raise OwnCodeError(
            f"features: return {len(made)} rows of {made.shape[1]} columns for {rows} rows. Return a row for each, with at least a column"
        )
    return made.reset_index(drop=True) if isinstance(made, pd.DataFrame) else made


def _sort_columns(made: pd.DataFrame) -> FeatureColumns:
    """The columns of a frame by type, as the table's are; those without a value are left out."""
    made = made.rename(columns=str)
    if not made.columns.is_unique:
        raise OwnCodeError("features: return two columns of one name. Give each its own")
    groups: dict[str, list[str]] = {group: [] for group in _DTYPES}
    for name in made:
        column = made[name]
        if not column.notna().any():
            continue
        if types.is_timedelta64_dtype(column):
            raise OwnCodeError(
                f"features: column {name!r} holds spans of time. Return them as a number, such as seconds"
            )
        if types.is_datetime64_any_dtype(column):
            groups["dates"].append(name)
        elif types.is_numeric_dtype(column):
            groups["numbers"].append(name)
        else:
            groups["low" if column.astype(str).nunique() <= ONE_HOT_MAX_VALUES else "high"].append(name)
    if not any(groups.values()):
        raise OwnCodeError("features: return no column that holds a value. Return at least one")
    return FeatureColumns(**{group: tuple(names) for group, names in groups.items()})


def _conform_output(made: pd.DataFrame, columns: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The columns of the fit with the types that they had there."""
    made, found = made.rename(columns=str), {}
    for group, dtype in _DTYPES.items():
        for name in columns[group]:
            if name not in made:
                raise OwnCodeError(
                    f"features: return no column {name!r}, which there was in the fit. Return the same columns always"
                )
            column = made[name]
            try:
                if dtype is object:
                    found[name] = column.map(str, na_action="ignore").astype(object).where(column.notna(), np.nan)
                else:
                    found[name] = column.astype(dtype)
            except (TypeError, ValueError):
                raise OwnCodeError(
                    f"features: column {name!r} holds {column.dtype}, and was {dtype} in the fit. Return the same types always"
                ) from None
    whole = pd.DataFrame(found)
    if np.isinf(whole[list(columns["numbers"])].to_numpy(dtype=np.float64)).any():
        raise OwnCodeError("features: return infinity. Return a finite number, or NaN where there is none")
    return whole
