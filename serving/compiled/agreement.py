"""The agreement of a compiled engine with its pipeline: how it is measured, on which rows, and how much may differ."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windvane.serving.compiled.engine import EnginePredictions, PredictionEngine
from windvane.serving.signature import ModelSignature, PlainValue
from windvane.tasks.models.problem_types.definitions import Predictions

if TYPE_CHECKING:
    import pandas as pd

# One row in so many may differ by more than CLOSE, relative; a class only where its lead is not more than CLOSE.
ROWS_PER_ALLOWED_DIFFERENCE = 10_000
RELATIVE_TOLERANCE = 1e-5
# Rows that the pipeline and the engine predict at a time, and rows that are predicted singly.
AGREEMENT_BATCH_ROWS, SINGLE_ROW_CHECKS = 5_000, 200
# Near the end of single floats only one sign: scikit-learn's check of a forest's input adds all cells up as such, and the
# infinities of both signs are no number together ("invalid value encountered in reduce").
_EXTREME_NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-300, -1e-300, 1e15, -1e15, 1e30, -1e30, 3.3e38)
_EXTREME_DATES = ("1700-01-01", "1969-12-31T23:59:59.999999", "1970-01-01", "2000-02-29T12:30", "2199-12-31T23:59:59")


@dataclass(frozen=True)
class EngineAgreement:
    """Over so many rows: how many differ by more than CLOSE, how many classes changed, and the worst difference."""

    rows: int
    differing: int
    changed: int
    worst: float

    @property
    def accepted(self) -> bool:
        """Whether the compiled form may serve."""
        return self.changed == 0 and self.differing * ROWS_PER_ALLOWED_DIFFERENCE <= self.rows

    def __add__(self, other: EngineAgreement) -> EngineAgreement:
        """Both together."""
        rows, differing = self.rows + other.rows, self.differing + other.differing
        return EngineAgreement(rows, differing, self.changed + other.changed, max(self.worst, other.worst))

    def __str__(self) -> str:
        return (
            f"{self.differing:,} of {self.rows:,} rows differ by more than {RELATIVE_TOLERANCE:g} (the worst by {self.worst:.1g}), "
            f"{self.changed:,} classes changed"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "accepted": self.accepted}


@dataclass
class EngineSpeed:
    """What a row of a large batch costs, in seconds: of several batches the best. `rows`: of the largest one."""

    compiled: float = float("inf")
    plain: float = float("inf")
    rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Which predicts batches sooner, and the microseconds a row that show it."""
        micro = {"compiled": round(1e6 * self.compiled, 3), "scikit-learn": round(1e6 * self.plain, 3)}
        return {"engine": min(micro, key=micro.__getitem__), "batch": self.rows, "microseconds": micro}


def measure_agreement(
    engine: PredictionEngine,
    pipeline: Any,
    predict: Any,
    frame: pd.DataFrame,
    signature: ModelSignature,
    pace: EngineSpeed | None = None,
) -> EngineAgreement:
    """Predict every row of a conformed frame with both, in batches, and some rows alone as well.

    predict: Kind.predict, which turns what the pipeline predicts into Predictions. pace: is called with the seconds of both.
    """
    call = getattr(engine, "call", None)
    found = EngineAgreement(0, 0, 0, 0.0)
    for start in range(0, len(frame), AGREEMENT_BATCH_ROWS):
        piece = frame.iloc[start : start + AGREEMENT_BATCH_ROWS]
        started_at = time.perf_counter()
        mine = engine.predict(convert_to_plain_columns(piece, signature))
        between = time.perf_counter()
        theirs = predict(pipeline, piece)
        ended = time.perf_counter()
        found += compare_predictions(mine, theirs, call)
        # Small pieces do not time large ones.
        if pace is not None and len(piece) >= pace.rows:
            pace.rows = len(piece)
            pace.compiled = min(pace.compiled, (between - started_at) / len(piece))
            pace.plain = min(pace.plain, (ended - between) / len(piece))
    some = frame.iloc[:: max(1, len(frame) // SINGLE_ROW_CHECKS)]
    predicted = predict(pipeline, some)
    for i, row in enumerate(zip(*convert_to_plain_columns(some, signature), strict=True)):
        proba = None if predicted.proba is None else predicted.proba[i : i + 1]
        theirs = Predictions(predicted.value[i : i + 1], proba, predicted.classes)
        found += compare_predictions(engine.predict([[value] for value in row]), theirs, call)
    return found


def compare_predictions(
    mine: EnginePredictions, theirs: Predictions, call: tuple[float, int] | None = None
) -> EngineAgreement:
    """Two predictions for the same rows. call: the threshold, and of which class, where not the likeliest is called."""
    with np.errstate(invalid="ignore", over="ignore"):
        if theirs.proba is None:
            far = _relative_distance(np.array(mine.values, dtype="float64"), np.asarray(theirs.value, dtype="float64"))
            return EngineAgreement(len(far), int((far > RELATIVE_TOLERANCE).sum()), 0, float(far.max(initial=0.0)))
        assert mine.proba is not None
        far = _relative_distance(mine.proba, theirs.proba).max(axis=1)
        leaders = np.sort(theirs.proba, axis=1)[:, -2:]
        lead = leaders[:, -1] - leaders[:, 0] if call is None else np.abs(theirs.proba[:, call[1]] - call[0])
    other = np.array([a != b for a, b in zip(mine.values, theirs.value.tolist(), strict=True)], dtype=bool)
    return EngineAgreement(
        len(far),
        int((far > RELATIVE_TOLERANCE).sum()),
        int((other & (lead > RELATIVE_TOLERANCE)).sum()),
        float(far.max(initial=0.0)),
    )


def make_synthetic_rows(frame: pd.DataFrame, signature: ModelSignature, rows: int, seed: int) -> pd.DataFrame:
    """Rows as production may send them and validation rows seldom are: drawn from a conformed frame, then bent.

    A third of the rows have values missing, a third categories never seen before, a third numbers and dates far out or a
    hair beside those of training: there a tree's thresholds lie.
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    drawn = frame.iloc[rng.integers(len(frame), size=rows)].reset_index(drop=True)
    which = rng.integers(3, size=rows)
    for column in signature.inputs:
        values = drawn[column.name].copy()
        hit = rng.random(rows) < 0.3
        blank, strange, far = (hit & (which == i) for i in range(3))
        if column.type == "category":
            values[strange | far] = [_make_unseen_word(i, rng) for i in range(int((strange | far).sum()))]
            values[blank] = np.nan
        elif column.type == "date":
            values[far] = pd.to_datetime(rng.choice(_EXTREME_DATES, int(far.sum())), format="ISO8601").as_unit("us")
            values[blank] = pd.NaT
        else:
            numbers = values.to_numpy(dtype="float64", copy=True)
            if column.type == "number":
                numbers[far] = rng.choice(_EXTREME_NUMBERS, int(far.sum()))
                numbers[strange] = np.nextafter(numbers[strange], rng.choice([-np.inf, np.inf], int(strange.sum())))
            numbers[blank] = np.nan
            values = pd.Series(numbers, index=values.index)
        drawn[column.name] = values
    return drawn


def convert_to_plain_columns(frame: pd.DataFrame, signature: ModelSignature) -> list[list[PlainValue]]:
    """A conformed frame as a list of plain values per column of the signature."""
    from windvane.tasks.models.frame_reading import list_plain_values

    return list_plain_values(frame, {column.name: column.type for column in signature.inputs})


def _make_unseen_word(i: int, rng: np.random.Generator) -> str:
    return f"never seen {i} {rng.integers(1 << 30)}" if i % 5 else "日本 <b>'\"\\\x7f"


def _relative_distance(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative to the larger of the two; equal infinities are equal."""
    size = np.maximum(np.abs(mine), np.abs(theirs))
    far = np.abs(mine - theirs) / np.where(size > 0, size, 1.0)
    return np.where(mine == theirs, 0.0, np.where(np.isnan(far), np.inf, far))
