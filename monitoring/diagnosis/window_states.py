"""States that production was in before, kept as counts for each column, and how well a window fits one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from windvane.monitoring import window_frames
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.models.problem_types.definitions import ProblemType
from windvane.tasks.settings.problem_section import ProblemSettings

_MAX_BINS = 20
_MAX_WORDS = 40


@dataclass(frozen=True)
class ColumnHistogram:
    """Counts of a number's cells (`edges` are upper, included; one cell more above the last) or of a category's `words` and
    of all others; the last count is of what is missing.
    """

    name: str
    edges: tuple[float, ...]
    words: tuple[str, ...]
    counts: tuple[float, ...]

    def count(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Counts of other values (m,) in the same cells: floats with NaN, or texts with "" where missing."""
        if values.dtype.kind == "f":
            at = np.searchsorted(np.array(self.edges), values)
            at[np.isnan(values)] = len(self.edges) + 1
        else:
            places = {w: i for i, w in enumerate(self.words)} | {"": len(self.words) + 1}
            words, back = np.unique(values, return_inverse=True)
            at = np.array([places.get(str(w), len(self.words)) for w in words], dtype=np.int64)[back]
        return np.bincount(at, minlength=len(self.counts)).astype(np.float64)

    def filled(self, values: NDArray[Any]) -> ColumnHistogram:
        """The same cells with the counts of these values."""
        return replace(self, counts=tuple(self.count(values).tolist()))


def count_numbers(name: str, values: NDArray[np.float64], *others: NDArray[np.float64]) -> ColumnHistogram:
    """Cells of a number: one per value where there are few, else one for each that many rows have and for the rest about 20
    of like many rows. `others` help to place them.
    """
    pooled = np.concatenate([values, *others])
    known = np.sort(pooled[~np.isnan(pooled)])
    found, counts = np.unique(known, return_counts=True)
    if len(found) > _MAX_BINS:
        often = found[counts >= len(known) / _MAX_BINS]
        rest = known[~np.isin(known, often)]
        some = rest[np.linspace(0, len(rest) - 1, _MAX_BINS + 1).round().astype(int)[1:]] if len(rest) else rest
        found = np.unique(np.concatenate([some, often, np.nextafter(often, -np.inf)]))
    edges = tuple(float(e) for e in found[:-1])
    return ColumnHistogram(name, edges, (), (0.0,) * (len(edges) + 2)).filled(values)


def count_words(name: str, values: NDArray[np.str_], *others: NDArray[np.str_]) -> ColumnHistogram:
    """Cells of a category: one for each of its 40 most frequent words, one for all others."""
    pooled = np.concatenate([values, *others])
    found, counts = np.unique(pooled[pooled != ""], return_counts=True)
    order = sorted(range(len(found)), key=lambda i: (-counts[i], str(found[i])))[:_MAX_WORDS]
    words = tuple(str(found[i]) for i in order)
    return ColumnHistogram(name, (), words, (0.0,) * (len(words) + 2)).filled(values)


def compute_misfit(one: NDArray[np.float64], other: NDArray[np.float64], used: int = 0) -> float:
    """How much two samples' counts (c,) speak against one distribution, in nats: half the square of the normal deviate that
    the likelihood-ratio statistic has (Wilson & Hilferty, PNAS 17, 1931); 0 where it is less than expected.

    `other` may be a model's expected counts; then `used` of its parameters were fitted.
    """
    a, b = one.sum(), other.sum()
    if not a or not b:
        return 0.0
    pooled = (one + other) / (a + b)
    statistic = 2 * sum(
        float((side[side > 0] * np.log(side[side > 0] / total / pooled[side > 0])).sum())
        for side, total in ((one, a), (other, b))
    )
    freedom = max(int((pooled > 0).sum()) - 1 - used, 1)
    spread = 2 / (9 * freedom)
    deviate = ((max(statistic, 0.0) / freedom) ** (1 / 3) - 1 + spread) / np.sqrt(spread)
    return float(max(deviate, 0.0) ** 2 / 2)


def compute_mean_differences(
    one: NDArray[np.float64], other: NDArray[np.float64], *, ordered: bool
) -> NDArray[np.float64]:
    """Differences (s,) of two samples' means in standard errors, from counts (c,) whose last cell is what is missing.

    ordered: of the cells' ranks, how far these are from the middle, and the missing; else of each cell's share. Where only the
    mean moved this sees more than compute_misfit(), which compares everything.
    """
    a, b = one.sum(), other.sum()
    if not a or not b:
        return np.zeros(1)
    pooled = one + other
    scores = np.eye(len(one))
    if ordered:
        known = pooled[:-1]
        place = np.append(2 * (np.cumsum(known) - known / 2) / max(known.sum(), 1) - 1, 0.0)
        scores = np.stack([place, np.abs(place) - 0.5, scores[-1]])
    means = [scores @ side / side.sum() for side in (one, other)]
    variance = [scores**2 @ side / side.sum() - m**2 for side, m in zip((one, other), means, strict=True)]
    error = np.sqrt(np.maximum(variance[0] / a + variance[1] / b, 0))
    # A share of 0 or 1 on both sides has no error; on one side, at least that of half a row.
    error = np.maximum(error, 0.5 / min(a, b))
    return np.asarray((means[0] - means[1]) / error)


# Names under which predictions, labels and losses are counted beside the inputs. Predictions are compared per version.
PREDICTIONS_KEY, LABELS_KEY, LOSSES_KEY = "_answers", "_labels", "_losses"


@dataclass(frozen=True)
class WindowState:
    """An earlier window: what it was called, how many rows it had, its columns' counts."""

    name: str
    rows: int
    histograms: tuple[ColumnHistogram, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, some kilobytes: for the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> WindowState:
        """The state that to_json wrote."""
        kept = content["histograms"]
        found = (ColumnHistogram(h["name"], *(tuple(h[k]) for k in ("edges", "words", "counts"))) for h in kept)
        return cls(content["name"], int(content["rows"]), tuple(found))


def build_window_state(
    frame: pd.DataFrame,
    record: pd.DataFrame,
    columns: FeatureColumns,
    kind: ProblemType,
    problem: ProblemSettings,
    name: str,
) -> WindowState:
    """Count a window's columns, predictions, labels and losses, in cells that suit it and the record."""
    theirs = read_state_values(record, record, columns, kind, problem)
    found = []
    for key, own in read_state_values(frame, record, columns, kind, problem).items():
        count = count_numbers if own.dtype.kind == "f" else count_words
        found.append(count(key, own, theirs[key] if theirs[key].dtype.kind == own.dtype.kind else own))
    return WindowState(name, len(frame), tuple(found))


def read_state_values(
    frame: pd.DataFrame, record: pd.DataFrame, columns: FeatureColumns, kind: ProblemType, problem: ProblemSettings
) -> dict[str, NDArray[Any]]:
    """Per column what is counted: floats or texts (m,); labels and losses of the labelled rows alone."""
    found: dict[str, NDArray[Any]] = {**window_frames.read_float_columns(frame, columns)}
    found |= {n: window_frames.read_word_column(frame, n) for n in columns.low + columns.high}
    made = window_frames.read_frame_predictions(frame, record, kind, problem.target)
    known = frame[window_frames.mask_labelled(frame, problem.target)]
    truth = kind.truth(known[problem.target])
    found[PREDICTIONS_KEY] = made.value if made.proba is None else np.asarray(made.proba, dtype=np.float64)[:, -1]
    found[LABELS_KEY] = truth if kind.continuous else truth.astype(str)
    found[LOSSES_KEY] = window_frames.compute_frame_losses(known, record, kind, problem) if len(known) else np.zeros(0)
    return found


@dataclass(frozen=True)
class SeasonMatch:
    """A known state beside a window, in nats: what speaks against the window being that state (`here`), and being like the
    record (`there`), by the same counts; `errs`: what speaks for the champion's losses in that state being unusual.
    """

    name: str
    here: float
    there: float
    errs: float


def match_season(
    state: WindowState, seen: dict[str, NDArray[Any]], record: dict[str, NDArray[Any]], thinned: float
) -> SeasonMatch:
    """Compare a window's values (see read_state_values()) with a known state and the record's values, in the state's cells.

    thinned: as how many rows each counts (rows that depend on each other count for less).
    """
    here, there, errs = [], [], 0.0
    for h in state.histograms:
        if h.name not in seen or not len(seen[h.name]):
            continue
        now, before, own = (c * thinned for c in (h.count(seen[h.name]), np.array(h.counts), h.count(record[h.name])))
        here.append(compute_mean_differences(now, before, ordered=not h.words))
        there.append(compute_mean_differences(now, own, ordered=not h.words))
        if h.name == LOSSES_KEY:
            errs = _find_largest_nats([compute_mean_differences(before, own, ordered=True)])
    return SeasonMatch(state.name, _find_largest_nats(here), _find_largest_nats(there), errs)


def _find_largest_nats(scores: list[NDArray[np.float64]]) -> float:
    """The largest difference in nats, less the price of having checked all."""
    every = np.concatenate([*scores, np.zeros(1)])
    return max(float((every**2).max() / 2 - np.log(len(every))), 0.0)
