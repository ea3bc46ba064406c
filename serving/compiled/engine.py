"""The compiled engine: rows, single or in batches, are encoded and predicted with numpy and ONNX Runtime alone.

Each stored model carries a copy of this file (serving/compiled/mlflow_model.py): it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# The files that it is read from: the recipe, and trees where there are some.
ENGINE_FILE, TREES_FILE = "engine.json", "engine.onnx"
# From so many rows on it pays to handle a column as a whole.
MIN_BULK_VALUES = 8

PlainValue = float | str | int | None
EncodedValue = tuple[float, ...]
ValueEncoder = Callable[[PlainValue], EncodedValue]
# n plain values per column of the signature, in its order.
PlainColumns = Sequence[Sequence[PlainValue]]
RawFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_EPOCH = datetime(1970, 1, 1)
_DAY_MICROSECONDS = 86_400_000_000  # microseconds
_NAN = (float("nan"),)


def encode_unchanged(x: PlainValue) -> EncodedValue:
    """A number that the model takes as it is, NaN where it is missing."""
    return _NAN if x is None else (x,)  # type: ignore[return-value]


def _build_number_encoder(recipe: dict[str, Any]) -> ValueEncoder:
    """The number as it is, or standardised, with what the indicators "was missing" of other rows give behind it."""
    missing, tail = _read_floats(recipe["missing"]), _read_floats(recipe["tail"])
    if recipe["scale"] is None:
        return encode_unchanged
    ((mean, scale),) = recipe["scale"]
    return lambda x: missing if x is None else ((x - mean) / scale, *tail)


def _build_category_encoder(recipe: dict[str, Any]) -> ValueEncoder:
    """A category by what training made of it."""
    table: dict[PlainValue, EncodedValue] = {value: _read_floats(floats) for value, floats in recipe["values"].items()}
    unknown, table[None] = _read_floats(recipe["unknown"]), _read_floats(recipe["missing"])
    get = table.get
    return lambda x: get(x, unknown)


def _build_date_encoder(recipe: dict[str, Any]) -> ValueEncoder:
    """Days since the earliest date of training, then a sine and a cosine per circle (tasks.models.features.DateEncoder)."""
    missing, tail = _read_floats(recipe["missing"]), _read_floats(recipe["tail"])
    origin, scale = recipe["origin"], recipe["scale"]
    circles = [_build_circle(*_CIRCLES[name]) for name in recipe["circles"]]

    def parts(x: PlainValue) -> list[float]:
        at = _EPOCH + timedelta(microseconds=x)  # type: ignore[arg-type]
        found = [x / _DAY_MICROSECONDS - origin]  # type: ignore[operator]
        for place, points in circles:
            found += points[place(at)]
        return found

    @lru_cache(4096)  # requests come from the same days
    def encode(x: PlainValue) -> EncodedValue:
        if x is None:
            return missing
        if scale is None:
            return tuple(parts(x))
        return (*((p - m) / s for p, (m, s) in zip(parts(x), scale, strict=True)), *tail)

    return encode


def _read_floats(values: list[float | None]) -> EncodedValue:
    """JSON has no NaN: it is written null."""
    return tuple(float("nan") if value is None else value for value in values)


def _build_circle(
    place: Callable[[datetime], int], shares: NDArray[np.float64]
) -> tuple[Callable[[datetime], int], list[EncodedValue]]:
    """A date's place on a circle, and every place's sine and cosine."""
    angles = 2 * np.pi * shares
    return place, list(zip(np.sin(angles).tolist(), np.cos(angles).tolist(), strict=True))


_MINUTES = np.arange(24 * 60)
# A date's place on each circle, and the share of the whole circle that each place is at.
_CIRCLES: dict[str, tuple[Callable[[datetime], int], NDArray[np.float64]]] = {
    "hour": (lambda at: at.hour * 60 + at.minute, (_MINUTES // 60 + _MINUTES % 60 / 60) / 24),
    "weekday": (datetime.weekday, np.arange(7) / 7),
    "monthday": (lambda at: at.day - 1, np.arange(31) / 31),
    "month": (lambda at: at.month - 1, np.arange(12) / 12),
}
_ENCODER_BUILDERS: dict[str, Callable[[dict[str, Any]], ValueEncoder]] = {
    "number": _build_number_encoder,
    "table": _build_category_encoder,
    "date": _build_date_encoder,
}


def count_inputs(recipe: dict[str, Any]) -> int:
    """How many of the model's inputs a column's recipe makes."""
    return len(_ENCODER_BUILDERS[recipe["as"]](recipe)(None))


@dataclass(frozen=True)
class EnginePredictions:
    """Predictions of n rows: numbers or classes, and for k classes their probabilities (n, k)."""

    values: list[Any]
    proba: NDArray[np.float64] | None = None


class PredictionEngine(Protocol):
    """What predicts for one version."""

    form: str

    def predict(self, columns: PlainColumns) -> EnginePredictions:
        """Predictions for n rows, at least one: n plain values per column, in the signature's order."""


class CompiledEngine:
    """The engine that serving/compiled/compiler.py describes: `recipe` from engine.json, `trees` the bytes of engine.onnx."""

    def __init__(self, recipe: dict[str, Any], trees: bytes | None, classes: Sequence[Any] | None) -> None:
        self.form = str(recipe["form"])
        self._encoders = [(part["column"], _ENCODER_BUILDERS[part["as"]](part)) for part in recipe["columns"]]
        self._width = int(recipe["width"])
        self._single = bool(recipe["single"])
        combined = self.form == "combined"
        self._raw = _RAW_FUNCTIONS[recipe["of"] if combined else self.form](recipe["model"], trees)
        link, backs = LINK_FUNCTIONS[recipe["link"]], recipe["back"] if combined else [recipe["back"]]
        self._link = _mean_of_shares(link, len(backs)) if combined else link
        self._back = _mean_of_values([[TARGET_STEPS[name](*numbers) for name, *numbers in back] for back in backs])
        self._bent = [PROBABILITY_STEPS[name](*numbers) for name, *numbers in recipe["bent"]]
        self.call: tuple[float, int] | None = None if recipe["call"] is None else tuple(recipe["call"])
        self._classes = None if classes is None else list(classes)

    def predict(self, columns: PlainColumns) -> EnginePredictions:
        """See Engine. Rows of the same values get the same prediction, alone or in company, to the last bits of a float."""
        raw = self._raw(self.matrix(columns))
        if self._classes is None:
            with np.errstate(over="ignore"):  # exp of a number far out is infinite, as in scikit-learn
                return EnginePredictions(self._back(raw).tolist())
        proba = self._link(raw)
        for bend in self._bent:
            proba = bend(proba)
        classes = self._classes
        return EnginePredictions([classes[i] for i in self._called(proba)], proba)

    def _called(self, proba: NDArray[np.float64]) -> list[int]:
        """Which class each row is called: the likeliest, or of two the one whose probability reaches its threshold."""
        if self.call is None:
            called: list[int] = proba.argmax(axis=1).tolist()
            return called
        threshold, positive = self.call
        return [positive if share >= threshold else 1 - positive for share in proba[:, positive].tolist()]

    def matrix(self, columns: PlainColumns) -> NDArray[np.float64]:
        """The model's inputs (n, width); NaN where a value is missing and the model routes that by itself."""
        inputs = self._by_rows(columns) if len(columns[0]) < MIN_BULK_VALUES else self._by_columns(columns)
        return inputs.astype("float32").astype("float64") if self._single else inputs

    def _by_rows(self, columns: PlainColumns) -> NDArray[np.float64]:
        flat: list[float] = []
        extend, encoders, rows = flat.extend, self._encoders, len(columns[0])
        for row in range(rows):
            for column, encode in encoders:
                extend(encode(columns[column][row]))
        return np.array(flat, dtype="float64").reshape(rows, self._width)

    def _by_columns(self, columns: PlainColumns) -> NDArray[np.float64]:
        inputs = np.empty((len(columns[0]), self._width))
        at = 0
        for column, encode in self._encoders:
            values = columns[column]
            width = len(encode(None))
            if encode is encode_unchanged:
                inputs[:, at] = values  # numpy reads None as NaN
            else:
                inputs[:, at : at + width] = [encode(value) for value in values]
            at += width
        return inputs


def _mean_of_values(backs: list[list[RawFunction]]) -> RawFunction:
    """Each raw output (n, parts) through the steps back to the target, and the mean of the parts (n,)."""

    def mean(raw: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [reduce(lambda values, step: step(values), back, raw[:, i]) for i, back in enumerate(backs)]
        return parts[0] if len(parts) == 1 else np.asarray(np.mean(parts, axis=0))

    return mean


def _mean_of_shares(link: RawFunction, parts: int) -> RawFunction:
    """The mean of the probabilities that the parts, side by side in the raw outputs, each give."""
    return lambda raw: np.asarray(np.mean([link(part) for part in np.split(raw, parts, axis=1)], axis=0))


def _constant(model: dict[str, Any], _trees: bytes | None) -> RawFunction:
    value = np.array(model["value"], dtype="float64")
    return lambda inputs: np.tile(value, (len(inputs), 1))


def _linear(model: dict[str, Any], _trees: bytes | None) -> RawFunction:
    weights, intercept = np.array(model["weights"], dtype="float64").T, np.array(model["intercept"], dtype="float64")
    return lambda inputs: inputs @ weights + intercept


def _trees(model: dict[str, Any], trees: bytes | None) -> RawFunction:
    run = start_trees(trees)
    baseline = np.array(model["baseline"], dtype="float64")
    divide = float(model.get("divide", 1))
    return lambda inputs: run(inputs) / divide + baseline


def start_trees(trees: bytes | None) -> RawFunction:
    """The sum of trees' leaves (n, targets) by ONNX Runtime, from the bytes of a model of trees."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Requests are small and many: threads of one session would only wait for each other.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(trees, options, providers=["CPUExecutionProvider"])
    # It keeps the file's bytes to begin anew with other providers, of which there are none: megabytes for each version.
    session._model_bytes = None
    return lambda inputs: np.asarray(session.run(None, {"inputs": inputs})[0])


def _logistic(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    # As scikit-learn's expit: 1 - p is then the same to the last bit also where p is nearly 1. Far out exp is infinite, p nothing.
    with np.errstate(over="ignore"):
        return _shares(1.0 / (1.0 + np.exp(-raw)))


def _softmax(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _shares(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities as they are; of two classes the second one's is given."""
    return np.concatenate([1 - raw, raw], axis=1) if raw.shape[1] == 1 else np.asarray(raw, dtype="float64")


def _divide(factors: list[float]) -> RawFunction:
    by = np.array(factors)
    return lambda proba: _normalize(proba / by)


def _temper(power: float, shifts: list[float], least: float) -> RawFunction:
    times = np.exp(shifts)
    return lambda proba: _normalize(np.clip(proba, least, 1.0) ** power * times)


def _normalize(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


_RAW_FUNCTIONS: dict[str, Callable[[dict[str, Any], bytes | None], RawFunction]] = {
    "constant": _constant,
    "linear": _linear,
    "trees": _trees,
}
LINK_FUNCTIONS: dict[str, RawFunction] = {
    "none": lambda raw: raw,
    "logistic": _logistic,
    "softmax": _softmax,
    "shares": _shares,
}
TARGET_STEPS: dict[str, Callable[..., RawFunction]] = {
    "exp": lambda: np.exp,
    "unscale": lambda mean, scale: lambda values: values * scale + mean,
}
PROBABILITY_STEPS: dict[str, Callable[..., RawFunction]] = {"divide": _divide, "temper": _temper}
