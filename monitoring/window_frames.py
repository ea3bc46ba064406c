"""A window's rows as a frame like the champion's record, and how its inputs, predictions, labels and losses are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from windvane.ledger.labels import LabelledPrediction
from windvane.ledger.versions import VersionFacts
from windvane.tasks.errors import InputError
from windvane.tasks.evaluation import scores
from windvane.tasks.evaluation.scores import BASELINE_LOSS_COLUMN, LOSS_COLUMN, PREDICTION_COLUMN, PROBABILITY_PREFIX
from windvane.tasks.gate.block_test import RowBlocks, form_blocks
from windvane.tasks.ingest import row_keys, table_io
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.problem_types.definitions import Predictions, ProblemType
from windvane.tasks.models.row_weights import read_row_weights, spread_weights
from windvane.tasks.settings.problem_section import ProblemSettings

# Whether a row's inputs are stored: else only prediction and label are known.
INPUTS_STORED_COLUMN = "_stored"
LABEL_KNOWN_COLUMN = "_known"
# Whether a row of a large window was read for its label alone: it counts for the loss, and is not part of the even sample.
LABEL_ALONE_COLUMN = "_label_alone"


def read_version_columns(facts: VersionFacts, hidden: Iterable[str]) -> FeatureColumns:
    """The columns that a version learned from, without those that the ledger does not keep as they are."""
    gone = set(hidden)
    return FeatureColumns(**{group: tuple(n for n in names if n not in gone) for group, names in facts.columns.items()})


def build_ledger_frame(
    rows: Iterable[LabelledPrediction], columns: FeatureColumns, record: pd.DataFrame, problem: ProblemSettings
) -> pd.DataFrame:
    """Predictions with their inputs and labels as a frame with the record's columns, in the order of time; see STORED, KNOWN."""
    held = list(rows)
    inputs = [row.inputs or {} for row in held]
    names = [*columns.names, *([problem.group] if problem.group and problem.group not in columns.names else [])]
    made = {
        name: pd.Series([None if isinstance(v := row.get(name), dict | list) else v for row in inputs], dtype=object)
        for name in names
    }
    frame = read_like_record(pd.DataFrame(made, index=range(len(held))), columns)
    if problem.time is not None and problem.time in record:
        frame[problem.time] = _build_times([row.time for row in held], record[problem.time])
    outputs = [row.output if isinstance(row.output, dict) else {"prediction": row.output} for row in held]
    number, like = problem.kind == "regression", record[PREDICTION_COLUMN]
    frame[problem.target] = _build_values([row.label for row in held], record[problem.target], number=number)
    number = pd.api.types.is_numeric_dtype(like) and not pd.api.types.is_bool_dtype(like)
    frame[PREDICTION_COLUMN] = _build_values([o.get("prediction") for o in outputs], like, number=number)
    given = [(o.get("probabilities") or {}) for o in outputs]
    for name in list_probability_columns(record):
        word = name.removeprefix(PROBABILITY_PREFIX)
        frame[name] = np.array([g.get(word, g.get(word.lower(), np.nan)) for g in given], dtype=np.float64)
    frame[INPUTS_STORED_COLUMN] = [row.inputs is not None for row in held]
    frame[LABEL_KNOWN_COLUMN] = [row.known for row in held]
    frame[LABEL_ALONE_COLUMN] = False
    return frame


def build_source_frame(
    rows: pd.DataFrame, columns: FeatureColumns, record: pd.DataFrame, kind: ProblemType, model: Any
) -> pd.DataFrame:
    """Rows of the table with what the champion (None: there are no rows) predicts now. Missing where it cannot read a column."""
    frame = read_like_record(rows.reset_index(drop=True), columns)
    frame[INPUTS_STORED_COLUMN] = True
    frame[LABEL_KNOWN_COLUMN] = np.nan
    frame[LABEL_ALONE_COLUMN] = False
    unanswered = frame.assign(**{PREDICTION_COLUMN: np.nan, **dict.fromkeys(list_probability_columns(record), np.nan)})
    if model is None:
        return unanswered
    try:
        predictions = kind.predict(model, conform_frame(rows, columns, "the source").reset_index(drop=True))
    except InputError:
        return unanswered
    frame[PREDICTION_COLUMN] = predictions.value
    if predictions.proba is not None and predictions.classes is not None:
        for i, label in enumerate(predictions.classes):
            frame[f"{PROBABILITY_PREFIX}{label}"] = predictions.proba[:, i]
    return frame


def read_like_record(frame: pd.DataFrame, columns: FeatureColumns) -> pd.DataFrame:
    """The feature columns read as the pipeline reads them, each by itself; the others as they are."""
    read = {}
    for group, names in vars(columns).items():
        for name in (n for n in names if n in frame):
            one = frame[[name]]
            if group == "dates" and one[name].map(type).eq(int).any():
                one = pd.to_datetime(one[name], unit="us", errors="coerce").to_frame()
            try:
                read[name] = conform_frame(one, FeatureColumns(**{group: (name,)}), "the window")[name]
            except InputError:
                read[name] = frame[name]
    return frame.assign(**read)


def list_probability_columns(record: pd.DataFrame) -> list[str]:
    """The record's columns of probabilities."""
    names = list(record.columns)
    behind = names[names.index(LOSS_COLUMN) + 1 :] if LOSS_COLUMN in names else []
    return [name for name in behind if str(name).startswith(PROBABILITY_PREFIX)]


def _build_times(times: list[str], like: pd.Series) -> Any:
    read = pd.to_datetime(pd.Series(times, dtype="str"), utc=True, format="ISO8601").dt.tz_localize(None)
    if pd.api.types.is_datetime64_any_dtype(like):
        return read.astype("datetime64[us]")
    return (read - pd.Timestamp(0)) / pd.Timedelta(seconds=1)


def _build_values(values: list[Any], like: pd.Series, *, number: bool) -> Any:
    """Labels or predictions: numbers, or classes of the record's own type; missing where none has come."""
    if number:
        return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    return pd.Series([None if v is None else _parse_class(v, like) for v in values], dtype=object)


def _parse_class(value: Any, like: pd.Series) -> Any:
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


@dataclass(frozen=True)
class PairedColumn:
    """One input on both sides. Numbers and booleans: floats, NaN = missing or not to be read. Categories: codes of `words`
    (rank by frequency in the record, then by name; words that only the window has come last), -1 = missing.
    """

    name: str
    number: bool
    record: NDArray[np.float64]
    window: NDArray[np.float64]
    words: tuple[str, ...] = ()
    known: int = 0  # how many of the words the record has

    @property
    def both(self) -> NDArray[np.float64]:
        """Record's rows, then the window's."""
        return np.concatenate([self.record, self.window])


def pair_columns(record: pd.DataFrame, window: pd.DataFrame, columns: FeatureColumns) -> tuple[PairedColumn, ...]:
    """Each input but dates. A column that the window lacks is wholly missing there; what cannot be read is missing."""
    old, new = read_float_columns(record, columns), read_float_columns(window, columns)
    numbers = [PairedColumn(name, True, values, new[name]) for name, values in old.items()]
    return (*numbers, *(_pair_category(name, record, window) for name in columns.low + columns.high))


@dataclass(frozen=True)
class InputEncoder:
    """Inputs as trees take them: numbers as they are, categories as places in the order of the record's mean prediction, so
    that like categories lie side by side (shrunk by ten rows; a new one lies in the middle)."""

    columns: FeatureColumns
    places: dict[str, dict[str, float]]

    def __call__(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """(n, k) floats, NaN = missing."""
        found = [*read_float_columns(frame, self.columns).values()]
        for name, places in self.places.items():
            distinct, at = np.unique(read_word_column(frame, name), return_inverse=True)
            found.append(np.array([np.nan if w == "" else places.get(str(w), 0.0) for w in distinct])[at])
        return np.column_stack(found) if found else np.zeros((len(frame), 1))


def fit_input_encoder(record: pd.DataFrame, columns: FeatureColumns, rank: NDArray[np.float64]) -> InputEncoder:
    """Learn categories' places from a record and a number per row (n,)."""
    places = {}
    centred = rank - rank.mean() if len(rank) else rank
    for name in columns.low + columns.high:
        distinct, at = np.unique(read_word_column(record, name), return_inverse=True)
        means = np.bincount(at, weights=centred) / (np.bincount(at) + 10)
        places[name] = {str(w): float(m) for w, m in zip(distinct, means, strict=True)}
    return InputEncoder(columns, places)


def fill_empty_columns(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same rows (n, k), columns without any value as zeros: boosting cannot be fitted on nothing."""
    return np.where(np.isnan(rows).all(axis=0), 0.0, rows)


def read_float_columns(frame: pd.DataFrame, columns: FeatureColumns) -> dict[str, NDArray[np.float64]]:
    """Values (n,) of each number and boolean, NaN where missing or not to be read."""
    found = {name: _read_float_column(frame, name, boolean=False) for name in columns.numbers}
    return found | {name: _read_float_column(frame, name, boolean=True) for name in columns.booleans}


def _read_float_column(frame: pd.DataFrame, name: str, *, boolean: bool) -> NDArray[np.float64]:
    if name not in frame:
        return np.full(len(frame), np.nan)
    wanted = FeatureColumns(booleans=(name,)) if boolean else FeatureColumns(numbers=(name,))
    try:
        return np.asarray(conform_frame(frame[[name]], wanted, "window")[name].to_numpy(dtype=np.float64))
    except InputError:
        read = pd.to_numeric(frame[name].astype("str"), errors="coerce").to_numpy(dtype=np.float64)
        return np.where(np.isfinite(read), read, np.nan)


def _pair_category(name: str, record: pd.DataFrame, window: pd.DataFrame) -> PairedColumn:
    old, new = read_word_column(record, name), read_word_column(window, name)
    known = _rank_words(old, set())
    order = known + _rank_words(new, set(known))
    at = {word: i for i, word in enumerate(order)}
    before, now = (np.array([at.get(str(w), -1) for w in side], dtype=np.float64) for side in (old, new))
    return PairedColumn(name, False, before, now, tuple(order), len(known))


def _rank_words(values: NDArray[np.str_], but: set[str]) -> list[str]:
    found, counts = np.unique(values[values != ""], return_counts=True)
    fresh = [(-int(c), str(w)) for w, c in zip(found, counts, strict=True) if str(w) not in but]
    return [word for _, word in sorted(fresh)]


def read_word_column(frame: pd.DataFrame, name: str) -> NDArray[np.str_]:
    """Values (n,) as text, "" where missing."""
    if name not in frame:
        return np.full(len(frame), "", dtype=str)
    words = conform_frame(frame[[name]], FeatureColumns(low=(name,)), "window")[name]
    return np.asarray(words.fillna("").to_numpy(dtype=str))


def mask_labelled(frame: pd.DataFrame, target: str) -> NDArray[np.bool_]:
    """Rows (n,) whose label has come; none if the frame has no such column."""
    if target not in frame:
        return np.zeros(len(frame), dtype=bool)
    return np.asarray(frame[target].notna().to_numpy(dtype=bool))


def read_frame_predictions(frame: pd.DataFrame, record: pd.DataFrame, kind: ProblemType, target: str) -> Predictions:
    """Predictions (n,) of a frame; the record names which columns are probabilities, and what type classes have."""
    names = list(record.columns[list(record.columns).index(BASELINE_LOSS_COLUMN) + 1 :])
    only = frame[[PREDICTION_COLUMN]].assign(**{BASELINE_LOSS_COLUMN: np.nan}).join(frame[names])
    return scores.read_predictions(only, kind.truth(record[target]))


def compute_frame_losses(
    frame: pd.DataFrame, record: pd.DataFrame, kind: ProblemType, problem: ProblemSettings
) -> NDArray[np.float64]:
    """Loss (m,) of the rows of `frame`, all labelled, in the problem's own additive loss."""
    made = read_frame_predictions(frame, record, kind, problem.target)
    return np.asarray(kind.loss(kind.truth(frame[problem.target]), made, problem.headline), dtype=np.float64)


def read_frame_weights(problem: ProblemSettings, rows: pd.DataFrame) -> NDArray[np.float64] | None:
    """How much each row (n,) counts; None: alike. A weight that no check has seen and that is no amount counts as missing."""
    name = problem.weight
    if name is None or name not in rows:
        return None
    given = pd.to_numeric(rows[name], errors="coerce").astype("float64")
    return read_row_weights(given.where(np.isfinite(given) & (given >= 0)).to_frame(name), name)


def weigh_losses(
    problem: ProblemSettings, *sides: tuple[pd.DataFrame, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], ...]:
    """Losses (n,) of each side's rows, as values whose mean is the weighted mean (tasks/models/row_weights.py).

    Where a side's rows have no weight, as those of the ledger, the rows of all count alike: else weights would be taken for a change.
    """
    weights = [read_frame_weights(problem, rows) for rows, _ in sides]
    if any(one is None for one in weights):
        return tuple(losses for _, losses in sides)
    return tuple(spread_weights(losses, one) for (_, losses), one in zip(sides, weights, strict=True))


def average_losses(problem: ProblemSettings, rows: pd.DataFrame, losses: NDArray[np.float64]) -> float:
    """Mean loss of rows, weighted by problem.weight."""
    return float(np.mean(weigh_losses(problem, (rows, losses))[0]))


def read_labelled_sample(path: Path, target: str, at_most: int, seed: int) -> tuple[pd.DataFrame, float]:
    """The rows of a stage's table with a label, in their order, and which share of them that is: 1, or the largest 1/2, 1/4, ... of which
    `at_most` are expected. Which rows follows from their keys and the seed alone: one stays in while the share does.
    """
    missing, share = table_io.count_missing(path), 1.0
    labelled = table_io.count_parquet_rows(path) - missing[target]
    while labelled * share > at_most:
        share /= 2

    def draw(keys: pl.Series) -> pl.Series:
        return pl.Series(row_keys.map_to_unit_interval(keys.to_numpy(), seed) < share)

    rows = table_io.scan_parquet(path).filter(pl.col(target).is_not_null())
    if share < 1:
        rows = rows.filter(pl.col(table_io.ROW_KEY).map_batches(draw, return_dtype=pl.Boolean, is_elementwise=True))
    return table_io.convert_to_pandas(rows.collect(engine="streaming"), missing, shared=True), share


def form_frame_blocks(frame: pd.DataFrame, problem: ProblemSettings) -> tuple[RowBlocks, ...]:
    """How rows of a frame depend on each other: by time, by group, or not at all. The order of rows does not matter."""
    time, group = (
        frame[name].to_numpy() if name is not None and name in frame else None for name in (problem.time, problem.group)
    )
    rows = np.arange(len(frame), dtype=np.int64)
    return (RowBlocks("row", rows),) if time is None and group is None else form_blocks(rows, time, group)


def name_record_column(column: str) -> str:
    """What people read for a column of a record."""
    if column == PREDICTION_COLUMN:
        return "the prediction"
    return f"P({column.removeprefix(PROBABILITY_PREFIX)})" if column.startswith(PROBABILITY_PREFIX) else column
