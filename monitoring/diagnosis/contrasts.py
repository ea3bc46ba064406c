"""Where record and window differ: inputs, labels, labels given inputs, inputs given labels; the classifier of their rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from windvane.monitoring.window_frames import PairedColumn, fill_empty_columns
from windvane.tasks.evaluation.intervals import compute_t_quantile
from windvane.tasks.gate.block_test import MIN_BLOCKS, FloatArray, RowBlocks, bound_paired_difference
from windvane.tasks.models.model_pipeline import limit_to_one_thread

# Words of a category that are compared one by one; bins of a label that stand for its value.
_MAX_WORDS, _LABEL_BINS = 8, 10
_CONFIDENCE = 0.975


@dataclass(frozen=True)
class Contrast:
    """`nats` speak for a difference (0: none); `columns` show it, loudest first."""

    nats: float = 0.0
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleBlocks:
    """Rows of record (n) and window (m), with the blocks in which they depend on each other."""

    record: tuple[RowBlocks, ...]
    window: tuple[RowBlocks, ...]
    rows: tuple[int, int]

    def apart(self, both: FloatArray, unit: float = 1.0) -> FloatArray:
        """Differences of means (k,) of (n + m, k) values, counted in `unit`, in standard errors."""
        record, window = both[: self.rows[0]], both[self.rows[0] :]
        gap = (window.mean(axis=0) - record.mean(axis=0)) / unit
        errors = (_compute_standard_errors(side, of) for side, of in ((record, self.record), (window, self.window)))
        error = np.hypot(*errors) / unit
        return np.divide(gap, error, out=np.zeros_like(gap), where=error > 0)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the errors: of the side with fewer blocks."""
        counts = [parts[0].count for parts in (self.record, self.window)]
        return max(min([c for c in counts if c >= MIN_BLOCKS], default=min(self.rows)) - 1.0, 1.0)

    def nats(self, scores: FloatArray) -> FloatArray:
        """What differences in standard errors are worth, before their number is paid for."""
        return np.asarray((self.freedom + 1) / 2 * np.log1p(scores**2 / self.freedom))


def _compute_standard_errors(values: FloatArray, parts: tuple[RowBlocks, ...]) -> FloatArray:
    """Standard errors (k,) of means of (n, k) values; with dependent rows as the paired test has it."""
    plain = values.std(axis=0) / np.sqrt(max(len(values) - 1, 1))
    if parts[0].kind == "row" or parts[0].count < MIN_BLOCKS:
        return np.asarray(plain)
    wide = bound_paired_difference(values.T, parts, _CONFIDENCE)
    return np.asarray(np.maximum((wide.mean - wide.low) / compute_t_quantile(parts[0].count - 1, 0.95), plain))


@dataclass(frozen=True)
class ContrastFeatures:
    """Inputs as numbers (rows, k) between -1 and 1, and the column that each comes from."""

    values: FloatArray
    names: tuple[str, ...]

    def drop(self, columns: tuple[str, ...]) -> ContrastFeatures:
        """Without those of some columns."""
        kept = [i for i, name in enumerate(self.names) if name not in columns]
        return ContrastFeatures(self.values[:, kept], tuple(self.names[i] for i in kept))


def build_contrast_features(columns: tuple[PairedColumn, ...], rows: int) -> ContrastFeatures:
    """Of a number its rank, how far that is from the middle, and whether it is missing; of a category its frequent words."""
    expanded = ((c.name, _expand_numbers(c.both) if c.number else _expand_words(c)) for c in columns)
    found = [
        (name, values) for name, some in expanded for values in some if values.min(initial=0) < values.max(initial=0)
    ]
    values = np.column_stack([values for _, values in found]) if found else np.zeros((rows, 0))
    return ContrastFeatures(values, tuple(name for name, _ in found))


def rank_values(values: FloatArray) -> FloatArray:
    """Places from -1 to 1, ties in their middle; 0 where missing."""
    known = ~np.isnan(values)
    out = np.zeros(len(values))
    if known.any():
        out[known] = (2 * rankdata(values[known]) - 1) / known.sum() - 1
    return out


def _expand_numbers(values: FloatArray) -> list[FloatArray]:
    place = rank_values(values)
    return [place, np.abs(place) - 0.5, np.isnan(values).astype(np.float64)]


def _expand_words(column: PairedColumn) -> list[FloatArray]:
    codes = column.both.astype(int)
    counts = np.bincount(codes + 1, minlength=len(column.words) + 1)
    common = [i - 1 for i in np.argsort(-counts, kind="stable")[:_MAX_WORDS] if counts[i]]
    return [(codes == c).astype(np.float64) for c in common] + [(~np.isin(codes, common)).astype(np.float64)]


def remove_linear_part(values: FloatArray, basis: FloatArray) -> FloatArray:
    """What (rows, k) values hold beyond a linear basis (rows, b)."""
    q, _ = np.linalg.qr(basis)
    return np.asarray(values - q @ (q.T @ values))


def build_number_basis(values: FloatArray) -> FloatArray:
    """A basis (rows, b) for a number: bins of its ranks, and a line within."""
    place = rank_values(values)
    bins = np.minimum(((place + 1) / 2 * _LABEL_BINS).astype(int), _LABEL_BINS - 1)
    return np.column_stack([np.eye(_LABEL_BINS)[bins][:, np.unique(bins)], place, place**3])


def build_class_basis(codes: NDArray[np.int64]) -> FloatArray:
    """A basis (rows, k) for classes."""
    return np.eye(int(codes.max(initial=0)) + 1)[codes]


def contrast_inputs(found: ContrastFeatures, sides: SampleBlocks, domain: FloatArray | None) -> Contrast:
    """P(x). domain: see estimate_window_chances(); its score shows changes that no column shows alone."""
    one = _make_contrast(sides.apart(found.values), found.names, sides)
    if domain is None or not len(found.names):
        return one
    (joint,) = sides.apart(rank_values(domain)[:, None])
    nats = float(sides.nats(np.maximum(joint, 0.0)))
    return Contrast(max(one.nats, nats - 1), one.columns) if nats > 3 else one


def contrast_inputs_given(found: ContrastFeatures, basis: FloatArray, sides: SampleBlocks) -> Contrast:
    """P(x | what the basis holds): features freed of it, and of how it separates window from record (Frisch & Waugh)."""
    free = remove_linear_part(found.values, basis)
    side = np.repeat([0.0, 1.0], sides.rows)
    propensity = side - remove_linear_part(side[:, None], basis)[:, 0]
    return _make_contrast(_score_doubly_robust(free, propensity, sides), found.names, sides)


def contrast_labels_given_inputs(
    errors: FloatArray, found: ContrastFeatures, more: FloatArray, propensity: FloatArray, sides: SampleBlocks
) -> Contrast:
    """P(y | x). errors: (rows, e) that have mean 0 whatever x is, as long as P(y | x) is as in the record. more: (rows, f)
    what they may depend on beside the inputs. propensity: (rows,) chance of each row to be of the window, by its inputs.

    Where inputs moved too, (window - propensity) * error keeps mean 0 if either is right (doubly robust scores: Robins & Rotnitzky,
    J. American Statistical Association 90, 1995).
    """
    levels = np.column_stack([np.ones(len(propensity)), more])
    products = [errors * level[:, None] for level in levels.T]
    plain = _score_doubly_robust(np.column_stack(products), propensity, sides)
    # Freed of what the prediction explains: else each column that it depends on would seem to be the place.
    free = remove_linear_part(found.values, levels)
    by_column = _score_doubly_robust(np.column_stack([e[:, None] * free for e in errors.T]), propensity, sides)
    names = found.names * errors.shape[1]
    whole, parts = _make_contrast(plain, ("",) * len(plain), sides), _make_contrast(by_column, names, sides)
    return Contrast(max(whole.nats, parts.nats), parts.columns)


def _score_doubly_robust(values: FloatArray, propensity: FloatArray, sides: SampleBlocks) -> FloatArray:
    """Scores sum(window - propensity) * values as differences of two means in standard errors."""
    side, total = np.repeat([0.0, 1.0], sides.rows), sum(sides.rows)
    weighed = values * np.abs(side - propensity)[:, None]
    return sides.apart(weighed * np.repeat(sides.rows, sides.rows)[:, None], total)


def contrast_labels(labels: FloatArray, sides: SampleBlocks, *, number: bool) -> Contrast:
    """P(y). labels: (rows, 1) a number, or (rows, k) a class each."""
    values = np.column_stack(_expand_numbers(labels[:, 0])[:2]) if number else labels
    return Contrast(_make_contrast(sides.apart(values), ("",) * values.shape[1], sides).nats)


def _make_contrast(scores: FloatArray, names: tuple[str, ...], sides: SampleBlocks) -> Contrast:
    if not len(scores):
        return Contrast()
    nats = sides.nats(scores) - np.log(len(scores))
    order = np.argsort(-nats, kind="stable")
    loud = [names[i] for i in order if nats[i] > max(2.0, 0.2 * nats[order[0]])]
    return Contrast(max(float(nats[order[0]]), 0.0), tuple(dict.fromkeys(loud)))


_FOLDS = 3
_TREES = {"max_iter": 30, "learning_rate": 0.1, "max_leaf_nodes": 6, "min_samples_leaf": 20, "l2_regularization": 5.0}


def estimate_window_chances(
    rows: NDArray[np.float64], window: NDArray[np.bool_], fold: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Chance (n + m,) of each row (n + m, k) to be of the window, from other folds (`fold`: any whole numbers), calibrated on
    them: a classifier two-sample test (Lopez-Paz & Oquab, ICLR 2017) reads its ranks, importance weighting its odds.
    """
    share = float(window.mean())
    of_fold = fold % _FOLDS
    logits = np.zeros(len(rows))
    with limit_to_one_thread():
        for k in range(_FOLDS):
            own = of_fold == k
            if len(np.unique(window[~own])) < 2 or not own.any():
                return np.full(len(rows), share)
            model = HistGradientBoostingClassifier(random_state=seed, early_stopping=False, **_TREES)
            logits[own] = model.fit(fill_empty_columns(rows[~own]), window[~own]).decision_function(rows[own])
    steps = LogisticRegression(C=1e3).fit(logits[:, None], window)
    if steps.coef_[0, 0] <= 0:
        return np.full(len(rows), share)
    return np.asarray(steps.predict_proba(logits[:, None])[:, 1])
