"""Columns that seem broken: silent, stuck, in another unit, or with renamed categories; how strong the evidence is."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windvane.monitoring.diagnosis import window_states
from windvane.monitoring.window_frames import PairedColumn

# Ratios of units that people mix up, each also the other way round: powers of ten, inches, feet, yards, miles, pounds, ounces,
# square feet, gallons, minutes, days, weeks, years; and degrees Celsius, Fahrenheit and Kelvin.
_UNIT_RATIOS = (
    *(10.0, 100.0, 1e3, 1e6),
    *(2.54, 3.28084, 0.9144, 1.609344, 0.45359237, 28.349523, 10.7639, 3.785412),
    *(60.0, 3600.0, 24.0, 7.0, 365.25, 12.0),
)
_DEGREES = (
    (1.8, 32.0),
    (1.0, 273.15),
    (1 / 1.8, 459.67 / 1.8),
)  # Celsius to Fahrenheit and Kelvin, Fahrenheit to Kelvin
_UNITS = (
    *((f, 0.0) for r in _UNIT_RATIOS for f in (r, 1 / r)),
    (-1.0, 0.0),
    *(pair for a, b in _DEGREES for pair in ((a, b), (1 / a, -b / a))),
)
_MIXTURE_SHARES = np.arange(0.2, 1.01, 0.1)
# Less than this added to the missing, or taken by one value, is not called silent.
_MIN_SILENT_SHARE = 0.1
_MIN_STUCK_SHARE = 0.2
# Less speaks for chance.
MIN_BREAK_NATS = 3.0
# What a unit of the list costs (the best of 42, in nine shares of the rows, is taken), and one that is in no list.
_LISTED_UNIT_NATS, _FITTED_UNIT_NATS = 8.0, 14.0
# A unit that leaves more than this share of a tilt's misfit is none: one of the list scales the whole distribution, zeros and heaps too.
_MAX_LISTED_MISFIT, _MAX_FITTED_MISFIT = 0.2, 0.5
# Fewer rows of a new word do not show which it stands for; fewer distinct values have no unit.
_MIN_ROWS, _MIN_VALUES = 8, 8


@dataclass(frozen=True)
class BrokenColumn:
    """A column, what became of it, and how much that explains which no change of customers would, in nats.

    `seasonal`: a season may resemble it: a unit that is in no list, a word that has nothing in common with the one it replaced, more
    of a value that was frequent before.
    """

    column: str
    text: str
    nats: float
    seasonal: bool = False


def find_broken_columns(
    columns: tuple[PairedColumn, ...], thinned: float, stretch: NDArray[np.int64] | None = None
) -> tuple[BrokenColumn, ...]:
    """Columns that seem broken, the surest first. thinned: as how many rows each row counts (dependent ones for less).

    stretch: (n,) the record's rows in stretches of time, if it has some: a month is constant for as long as a window lasts.
    """
    found = []
    for column in columns:
        seen = [_find_silence(column, thinned), _find_stuck_value(column, thinned, stretch)]
        seen.append(_find_other_unit(column, thinned) if column.number else _find_renamed_category(column, thinned))
        known = [b for b in seen if b is not None and b.nats > MIN_BREAK_NATS]
        if known:
            found.append(max(known, key=lambda b: b.nats))
    return tuple(sorted(found, key=lambda b: (-b.nats, b.column)))


def _mask_missing(column: PairedColumn, side: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isnan(side) if column.number else side < 0


def _drop_missing_pair(column: PairedColumn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    before, now = (side[~_mask_missing(column, side)] for side in (column.record, column.window))
    return before, now


def _find_silence(column: PairedColumn, thinned: float) -> BrokenColumn | None:
    before, now = (_mask_missing(column, side) for side in (column.record, column.window))
    if now.mean() - before.mean() < _MIN_SILENT_SHARE:
        return None
    was, has = (np.array([m.sum(), (~m).sum()], dtype=np.float64) * thinned for m in (before, now))
    text = f"{column.name} fell silent: {now.mean():.0%} of its values are missing, {before.mean():.0%} before"
    return BrokenColumn(column.name, text, window_states.compute_misfit(was, has))


def _find_stuck_value(column: PairedColumn, thinned: float, stretch: NDArray[np.int64] | None) -> BrokenColumn | None:
    """One value took a share of the rows; all else is as before."""
    before, now = _drop_missing_pair(column)
    if not len(before) or len(now) < _MIN_ROWS:
        return None
    values, counts = np.unique(now, return_counts=True)
    top = int(np.argmax(counts))
    value, share, usual = values[top], counts[top] / len(now), float((before == values[top]).mean())
    if share - max(usual, _compute_usual_share(column.record, stretch)) < _MIN_STUCK_SHARE:
        return None
    stuck = (share - usual) / (1 - usual)
    other = now[now != value]
    rest = window_states.count_numbers("", before[before != value], other)
    after = window_states.compute_misfit(rest.count(other) * thinned, np.array(rest.counts) * thinned)
    has, had = np.array([share, 1 - share]) * len(now), np.array([usual, 1 - usual]) * len(before)
    whole = window_states.compute_misfit(has * thinned, had * thinned)
    word = f"{value:g}" if column.number else repr(column.words[int(value)])
    text = f"{column.name} is stuck at {word} in {stuck:.0%} of the rows"
    return BrokenColumn(column.name, text, whole * stuck - 2 * after, seasonal=usual >= _MIN_STUCK_SHARE)


def _compute_usual_share(values: NDArray[np.float64], stretch: NDArray[np.int64] | None) -> float:
    """The share that one value usually has within a stretch of time; 0 without time."""
    if stretch is None:
        return 0.0
    shares = []
    for k in range(int(stretch.max(initial=-1)) + 1):
        counts = np.unique(values[stretch == k], return_counts=True, equal_nan=True)[1]
        shares.append(float(counts.max(initial=0) / max(counts.sum(), 1)))
    return float(np.median(shares)) if shares else 0.0


def _find_other_unit(column: PairedColumn, thinned: float) -> BrokenColumn | None:
    """Another unit brings the record's shape back, which a tilt of its ranks does not."""
    before, now = _drop_missing_pair(column)
    if len(now) < 2 * _MIN_ROWS or min(len(np.unique(before)), 2 * len(np.unique(now))) < _MIN_VALUES:
        return None
    plain = _fit_mixture(before, now, 1.0, 0.0, thinned)[0]
    if plain < 4:
        return None
    tries = [(a, b, _LISTED_UNIT_NATS) for a, b in _UNITS]
    was, has = (float(np.subtract(*np.percentile(side, [75, 25]))) for side in (before, now))
    if was > 0 and has > 0:
        tries.append((has / was, float(np.median(now) - has / was * np.median(before)), _FITTED_UNIT_NATS))
    fits = ((*_fit_mixture(before, now, a, b, thinned), a, b, cost) for a, b, cost in tries)
    after, share, a, b, cost = min(fits, key=lambda f: f[0] + f[4])
    tilt = _fit_tilt(before, now, thinned)
    fitted = cost == _FITTED_UNIT_NATS
    if after > (_MAX_FITTED_MISFIT if fitted else _MAX_LISTED_MISFIT) * tilt:
        return None
    formula = f"x {a:.4g}" + (f" {b:+.4g}" if b else "")
    text = f"{column.name} looks like another unit ({formula}) in {share:.0%} of the rows"
    return BrokenColumn(column.name, text, tilt - after - cost, seasonal=fitted)


def _fit_mixture(
    before: NDArray[np.float64], now: NDArray[np.float64], a: float, b: float, thinned: float
) -> tuple[float, float]:
    """How badly a mixture of the record and the record in another unit fits, and the best share of the latter."""
    mapped = a * before + b
    if mapped.max() < now.min() or mapped.min() > now.max():
        return np.inf, 1.0
    cells = window_states.count_numbers("", now, before, mapped)
    seen, usual, other = np.array(cells.counts), cells.count(before), cells.count(mapped)
    if a == 1.0 and b == 0.0:
        return window_states.compute_misfit(seen * thinned, usual * thinned), 1.0
    fits = [
        (window_states.compute_misfit(seen * thinned, ((1 - p) * usual + p * other) * thinned, 1), -p)
        for p in _MIXTURE_SHARES
    ]
    nats, p = min(fits)
    return nats, -p


def _fit_tilt(before: NDArray[np.float64], now: NDArray[np.float64], thinned: float) -> float:
    """How badly the record fits after its cells were weighted as exp(a u + b u^2), u their ranks: a change of customers."""
    cells = window_states.count_numbers("", before, now)
    usual, seen = np.array(cells.counts)[:-1], cells.count(now)[:-1]
    place = 2 * (np.cumsum(usual) - usual / 2) / usual.sum() - 1
    basis = np.column_stack([place, place**2])
    weights = np.zeros(2)
    for _ in range(30):
        model = usual * np.exp(np.clip(basis @ weights, -20, 20))
        model /= model.sum()
        centred = basis - model @ basis
        gradient = seen / seen.sum() @ basis - model @ basis
        weights += np.linalg.solve((centred * model[:, None]).T @ centred + 1e-3 * np.eye(2), gradient)
        weights = np.clip(weights, -20, 20)
    return window_states.compute_misfit(seen * thinned, model * usual.sum() * thinned, 2)


def _find_renamed_category(column: PairedColumn, thinned: float) -> BrokenColumn | None:
    """Words that the record has not took rows of those that went: the same words written otherwise, or one under a new name."""
    size = len(column.words)
    if column.known in (size, 0):
        return None
    before, now = (
        np.bincount(side[side >= 0].astype(int), minlength=size).astype(np.float64)
        for side in (column.record, column.window)
    )
    new = column.known + int(np.argmax(now[column.known :]))
    lacking = before / before.sum() * now.sum() - now
    old, words = int(np.argmax(lacking[: column.known])), column.words
    renamed = f"{column.name}: {words[new]!r} seems to be the new name of {words[old]!r}"
    found = [BrokenColumn(column.name, renamed, _weigh_new_names({new: old}, before, now, thinned), seasonal=True)]
    if spelled := _find_spellings(column):
        new = max(spelled, key=lambda code: now[code])
        share = now[list(spelled)].sum() / max(now.sum(), 1)
        text = (
            f"{column.name} is written otherwise in {share:.0%} of the rows: {words[new]!r} for {words[spelled[new]]!r}"
        )
        found.append(BrokenColumn(column.name, text, _weigh_new_names(spelled, before, now, thinned)))
    return max(found, key=lambda b: b.nats)


def _weigh_new_names(
    names: dict[int, int], before: NDArray[np.float64], now: NDArray[np.float64], thinned: float
) -> float:
    """Nats for words (codes new -> old) being the same, from counts of all words (c,)."""
    new, old = np.array(list(names)), np.array(list(names.values()))
    if now[new].sum() < _MIN_ROWS:
        return 0.0
    dropped = now.copy()
    dropped[new] = 0
    merged = dropped.copy()
    np.add.at(merged, old, now[new])
    usual = _merge_rare_counts(before, before) * thinned
    sides = (_merge_rare_counts(counts, before) * thinned for counts in (dropped, merged))
    apart = [window_states.compute_misfit(side, usual) for side in sides]
    gone = np.unique(old)
    has, had = (np.array([counts[gone].sum(), counts.sum() - counts[gone].sum()]) for counts in (now, before))
    went = window_states.compute_misfit(has * thinned, had * thinned)
    return max(went, apart[0]) - 2 * apart[1] - 2.0


def _find_spellings(column: PairedColumn) -> dict[int, int]:
    """Codes of new words -> codes of the record's words that differ in case, blanks, leading zeros or a decimal zero alone."""
    plain = [re.sub(r"^0+(?=.)|\.0+$", "", word.strip().casefold()) for word in column.words]
    usual = {
        form: code for code, form in reversed(list(enumerate(plain[: column.known])))
    }  # of several the most frequent
    return {code: usual[plain[code]] for code in range(column.known, len(plain)) if plain[code] in usual}


def _merge_rare_counts(counts: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts of the words that are frequent in the record, and of all others."""
    common = np.argsort(-usual, kind="stable")[:20]
    return np.append(counts[common], counts.sum() - counts[common].sum())
