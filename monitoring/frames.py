"""The rows of a window as a frame like the champion's record: inputs, answers, labels. Measures nothing.

What a request held is read as the table's columns were; a column that cannot be read so keeps what it holds, for a finding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from windvane.tasks.errors import InputError
from windvane.tasks.features import Columns, conform
from windvane.tasks.scores import LOSS, PREDICTION, PROBABILITY

if TYPE_CHECKING:
    from windvane.ledger.labels import Judged
    from windvane.tasks.problems import Kind
    from windvane.tasks.settings import Problem

# Whether a row's inputs are stored: of the others only answer and label are known.
STORED = "_stored"
KNOWN = "_known"


def columns_of(facts: dict[str, Any], hidden: Iterable[str]) -> Columns:
    """The columns that a version learned from, without those that the ledger does not keep as they are."""
    gone = set(hidden)
    return Columns(**{group: tuple(n for n in names if n not in gone) for group, names in facts["columns"].items()})


def of_ledger(rows: Iterable[Judged], columns: Columns, record: pd.DataFrame, problem: Problem) -> pd.DataFrame:
    """Predictions with their inputs and labels as a frame with the record's columns, in the order of time; see STORED, KNOWN."""
    held = list(rows)
    inputs = [row.inputs or {} for row in held]
    names = [*columns.names, *([problem.group] if problem.group and problem.group not in columns.names else [])]
    made = {name: pd.Series([_plain(row.get(name)) for row in inputs], dtype=object) for name in names}
    frame = as_record(pd.DataFrame(made, index=range(len(held))), columns)
    if problem.time is not None and problem.time in record:
        frame[problem.time] = _times([row.time for row in held], record[problem.time])
    labels = [row.label for row in held]
    outputs = [row.output if isinstance(row.output, dict) else {"prediction": row.output} for row in held]
    frame[problem.target] = _labels(labels, record[problem.target], problem.kind)
    frame[PREDICTION] = _answers([o.get("prediction") for o in outputs], record[PREDICTION])
    for name in probabilities(record):
        word = name.removeprefix(PROBABILITY)
        given = [(o.get("probabilities") or {}) for o in outputs]
        frame[name] = np.array([g.get(word, g.get(word.lower(), np.nan)) for g in given], dtype=np.float64)
    frame[STORED] = [row.inputs is not None for row in held]
    frame[KNOWN] = [row.known for row in held]
    return frame


def of_source(rows: pd.DataFrame, columns: Columns, record: pd.DataFrame, kind: Kind, model: Any) -> pd.DataFrame:
    """Rows of the table with what the champion (None: there are no rows) says now. Missing where it cannot read a column."""
    frame = as_record(rows.reset_index(drop=True), columns)
    frame[STORED] = True
    frame[KNOWN] = np.nan
    unanswered = frame.assign(**{PREDICTION: np.nan, **dict.fromkeys(probabilities(record), np.nan)})
    if model is None:
        return unanswered
    try:
        said = kind.predict(model, conform(rows, columns, "the source").reset_index(drop=True))
    except InputError:
        return unanswered
    frame[PREDICTION] = said.value
    if said.proba is not None and said.classes is not None:
        for i, label in enumerate(said.classes):
            frame[f"{PROBABILITY}{label}"] = said.proba[:, i]
    return frame


def as_record(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """The feature columns read as the pipeline reads them, each by itself; the others as they are."""
    read = {}
    for group in fields(columns):
        for name in getattr(columns, group.name):
            if name not in frame:
                continue
            one = frame[[name]]
            if group.name == "dates" and one[name].map(type).eq(int).any():
                one = pd.to_datetime(one[name], unit="us", errors="coerce").to_frame()
            try:
                read[name] = conform(one, Columns(**{group.name: (name,)}), "the window")[name]
            except InputError:
                read[name] = frame[name]
    return frame.assign(**read)


def probabilities(record: pd.DataFrame) -> list[str]:
    """The record's columns of probabilities."""
    names = list(record.columns)
    behind = names[names.index(LOSS) + 1 :] if LOSS in names else []
    return [name for name in behind if str(name).startswith(PROBABILITY)]


def _plain(value: Any) -> Any:
    return None if isinstance(value, dict | list) else value


def _times(times: list[str], like: pd.Series) -> Any:
    read = pd.to_datetime(pd.Series(times, dtype="str"), utc=True, format="ISO8601").dt.tz_localize(None)
    if pd.api.types.is_datetime64_any_dtype(like):
        return read.astype("datetime64[us]")
    return (read - pd.Timestamp(0)) / pd.Timedelta(seconds=1)


def _labels(labels: list[float | str | None], like: pd.Series, kind: str) -> Any:
    """Labels as the table has them: numbers, or classes of the record's own type; missing where none has come."""
    if kind == "regression":
        return np.array([np.nan if x is None else float(x) for x in labels], dtype=np.float64)
    return pd.Series([None if x is None else _class(x, like) for x in labels], dtype=object)


def _answers(values: list[Any], like: pd.Series) -> Any:
    if pd.api.types.is_numeric_dtype(like) and not pd.api.types.is_bool_dtype(like):
        return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    return pd.Series([None if v is None else _class(v, like) for v in values], dtype=object)


def _class(value: Any, like: pd.Series) -> Any:
    """A class as the record has it; a word that no class is stays a word."""
    text = str(value)
    try:
        if pd.api.types.is_bool_dtype(like):
            return {"true": True, "false": False}[text.lower()]
        if pd.api.types.is_integer_dtype(like):
            return int(float(text))
        if pd.api.types.is_float_dtype(like):
            return float(text)
    except (ValueError, KeyError):
        pass
    return text
