"""Which row is for training, validation or test: the strategies, and the sample of a part that is larger than
data.max_rows. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import row_keys, table_io
from windvane.tasks.settings import project_params

# A split of fewer rows cannot rank two configurations at all. Sticky ones take the rows with the lowest hashes until
# they have it.
MIN_SPLIT_ROWS = 10
# As many of every class are in validation and test, or metrics would not be defined.
MIN_SPLIT_CLASS_ROWS = 3
# As many groups: one group's own ways are no judgement of others.
MIN_SPLIT_GROUPS = 2
# From as many rows on, a mean is near enough to normal for an interval to be worth reading.
MIN_INTERVAL_ROWS = 30

# So few different rows, each so often on average, are combinations of categories and not copies: class, sex and age group of
# each passenger.
_MOST_COMBINATIONS, _LEAST_REPEATS = 200, 10
# A column of more values measures something: rows that agree in it are copies.
_MOST_CATEGORIES = 20

_NEWEST = "the newest rows of the table judge"
# problem.time as JSON has it: ISO 8601 in UTC, or a number; None: there is none.
TimeValue = str | int | float | None


@dataclass(frozen=True)
class SplitMasks:
    """Masks over a table's rows, (n,) bool each, that part it; `taught_until` where it decided, and why."""

    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    test: NDArray[np.bool_]
    taught_until: TimeValue
    reason: str

    @property
    def gap(self) -> NDArray[np.bool_]:
        """Rows in none of the three: their labels were not known yet when the next ones were to be predicted."""
        return ~(self.train | self.validation | self.test)


def split_rows(
    frame: pd.DataFrame, chosen: project_params.Settings, taught_until: TimeValue, *, categories: bool = False
) -> SplitMasks:
    """Splits of a table whose rows all have a label. `taught_until`: problem.time of the champion's newest row, or None.
    `categories`: see holds_categories.

    Raises InputError where a side comes out too small, or without its classes.
    """
    if chosen.split.strategy == "time":
        sides = _split_by_time(frame[cast("str", chosen.problem.time)], chosen, taught_until)
    else:
        sides = _split_by_key(frame, chosen, categories)
    _check_split(frame, chosen, sides)
    return sides


def _split_by_key(frame: pd.DataFrame, chosen: project_params.Settings, categories: bool) -> SplitMasks:
    problem, split = chosen.problem, chosen.split
    grouped = problem.group is not None
    if grouped:
        key = row_keys.hash_values(frame[problem.group])
    else:
        own = frame[table_io.ROW_KEY].to_numpy()
        key = (_separate_repeats(own) if categories else own).view(np.uint64)
    place = row_keys.map_to_unit_interval(key, split.seed)
    # Groups bring several classes: a guarantee per class would let one new row of a rare class pull a trained
    # group into the test split.
    by_class = not grouped and problem.kind == "classification" and split.strategy in ("stratified", "kfold")
    classes = row_keys.hash_values(frame[problem.target]) if by_class else None
    least = MIN_SPLIT_GROUPS if grouped else MIN_SPLIT_ROWS

    test = _lowest(place, classes, split.test, least)
    validation = np.zeros(len(frame), dtype=bool)
    if split.strategy != "kfold":
        rest = ~test
        there = None if classes is None else classes[rest]
        validation[rest] = _lowest(place[rest], there, split.test + split.validation, least)
    what = f"group {problem.group!r}" if grouped else "row key"
    reason = f"splits follow the hash of the {what} and seed {split.seed}: they stay as the table grows"
    return SplitMasks(~test & ~validation, validation, test, None, reason)


def holds_categories(distinct: Iterable[int]) -> bool:
    """Whether columns of so many different values each hold categories alone: rows may agree in all of them by chance."""
    return max(distinct, default=0) <= _MOST_CATEGORIES


def holds_combinations(different: int, rows: int) -> bool:
    """Whether so many different rows among all are combinations of few categories: then repeats are observations of their own.
    Otherwise, and where a column holds more than categories, they are taken for copies, which one split holds.
    """
    return different <= min(_MOST_COMBINATIONS, rows / _LEAST_REPEATS)


def _separate_repeats(key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keys (n,), another for each repeat in a table of few combinations. The first row of each keeps its own; which of rows that are
    alike is called the first does not matter.
    """
    some = key[: 2 * _MOST_COMBINATIONS * _LEAST_REPEATS]
    if len(np.unique(some)) > _MOST_COMBINATIONS or not holds_combinations(len(np.unique(key)), len(key)):
        return key
    again = pd.Series(key).groupby(key).cumcount().to_numpy().astype(np.uint64)
    return np.where(again == 0, key, row_keys.mix_bits(key.view(np.uint64) ^ row_keys.mix_bits(again)).view(np.int64))


def _lowest(
    place: NDArray[np.float64], classes: NDArray[np.uint64] | None, share: float, least: int
) -> NDArray[np.bool_]:
    """Rows placed below `share`; in any case the `least` lowest places, and the MIN_SPLIT_CLASS_ROWS lowest of each class.

    Ranks count distinct places, so that rows of one key or group stay together. A new row can only raise the ranks of
    others: it never pulls one in.
    """
    places = pd.Series(place)
    chosen = (places < share) | (places.rank(method="dense") <= least)
    if classes is not None:
        chosen |= places.groupby(classes).rank(method="dense") <= MIN_SPLIT_CLASS_ROWS
    return cast("NDArray[np.bool_]", chosen.to_numpy())


def _split_by_time(time: pd.Series, chosen: project_params.Settings, taught_until: TimeValue) -> SplitMasks:
    file, rows = chosen.data.source, len(time)
    moments = time.to_numpy()
    times = np.sort(moments)
    second = _after(times, 0)
    if second == rows or _after(times, second) == rows:
        raise InputError(
            f"problem.time: {file}: column {time.name!r} has {1 + (second < rows)} different values; training, tuning and "
            "judging need one each at least. Set split.strategy to stratified or random, or name a finer time column"
        )
    # Numbers that only order the rows do not show how long a day is.
    delay = chosen.monitor.delay if time.dtype.kind == "M" else timedelta()
    first_new, until, reason = _new_rows(time, times, taught_until)
    cuts = _find_cuts(times, chosen, first_new, delay)
    if cuts is None and until is not None:
        first_new, until = 0, None
        reason = f"a gap of {chosen.monitor.label_delay} leaves none of the rows newer than {taught_until} to tune: {_NEWEST}"
        cuts = _find_cuts(times, chosen, first_new, delay)
    if cuts is None:
        raise InputError(
            f"monitor.label_delay: {file}: gaps of {chosen.monitor.label_delay} before the rows that tune and those that judge leave "
            "none to learn from. Shorten it, make split.test smaller, or bring a longer history"
        )
    # Time by time, not place by place: the rows may be in another order.
    cut_validation, cut_test = (times[cut] for cut in cuts)
    test = moments >= cut_test
    train, known = (_known_before(moments, cut, delay) for cut in (cut_validation, cut_test))
    reason += f"; labels come {chosen.monitor.label_delay} late, so as long a gap lies before each" if delay else ""
    return SplitMasks(train, (moments >= cut_validation) & known, test, until, reason)


def _find_cuts(
    times: NDArray[Any], chosen: project_params.Settings, first_new: int, delay: timedelta
) -> tuple[int, int] | None:
    """Places among rising times at which the rows that tune and that judge begin; None: the gaps leave none before them."""
    rows, second = len(times), _after(times, 0)
    new = rows - first_new
    # In order of time no row is judged by a model of later ones, so a small table gives up more of its newest rows.
    wanted_test = min(max(chosen.split.test * rows, MIN_INTERVAL_ROWS), new / 2)
    wanted_validation = min(max(chosen.split.validation * rows, MIN_SPLIT_ROWS), new / 4)
    # Training keeps the first value, and tuning the one after it, at least.
    floor = max(first_new, second)
    cut_test = _nearest(times, _after(times, floor), rows, rows - wanted_test)
    end = int(_known_before(times, times[cut_test], delay).sum())
    if end <= floor:
        return None
    cut_validation = _nearest(times, floor, end, end - wanted_validation)
    return (cut_validation, cut_test) if _known_before(times, times[cut_validation], delay).any() else None


def _known_before(moments: NDArray[Any], moment: Any, delay: timedelta) -> NDArray[np.bool_]:
    """Which moments lie so far before one that their labels, late by `delay`, had come by then."""
    return np.asarray(moments <= moment - np.timedelta64(delay) if delay else moments < moment)


def _after(times: NDArray[Any], place: int) -> int:
    """Where the next later time begins, in rising times; their number, if none is later."""
    return int(times.searchsorted(times[place], side="right"))


def _nearest(times: NDArray[Any], low: int, high: int, goal: float) -> int:
    """Of the places in [low, high) where a time begins, as one does at `low`, the one nearest to `goal`; of two as near the first."""
    if goal <= low:
        return low
    before = math.ceil(goal) - 1
    below, above = int(times.searchsorted(times[before])), _after(times, before)
    return above if above < high and above - goal < goal - below else below


def _new_rows(time: pd.Series, times: NDArray[Any], taught_until: TimeValue) -> tuple[int, TimeValue, str]:
    """Place among the rising times of the oldest that may judge; taught_until if it decides; why."""
    if taught_until is None:
        return 0, None, f"no champion is trained by time: {_NEWEST}"
    dated = time.dtype.kind == "M"
    if isinstance(taught_until, str) != dated:
        why = f"the champion was trained until {taught_until}, which is not comparable with {time.name!r} any more"
        return 0, None, f"{why}: the newest rows judge"
    until = pd.Timestamp(taught_until).to_datetime64() if dated else taught_until
    first_new = int(times.searchsorted(until, side="right"))
    new = len(times) - first_new
    newer = f"{new} rows are newer than {taught_until}, up to where the champion was trained"
    # Tuning and judging need a time each, and training the first.
    if new < 2 * MIN_INTERVAL_ROWS or _after(times, max(first_new, _after(times, 0))) == len(times):
        return 0, None, f"only {newer}: too few, so the newest rows of the whole table judge"
    return first_new, taught_until, f"{newer}: only these tune and judge"


def _check_split(frame: pd.DataFrame, chosen: project_params.Settings, sides: SplitMasks) -> None:
    strategy, file = chosen.split.strategy, chosen.data.source
    judging = {"test": sides.test} if strategy == "kfold" else {"validation": sides.validation, "test": sides.test}
    folded = strategy == "kfold"  # then no row is left out to tune, and those that judge are joined by all others
    if sides.train.sum() < (MIN_SPLIT_ROWS if folded else 2 * MIN_SPLIT_ROWS):
        other = "or name a finer group" if folded else "name a finer group, or set split.strategy to kfold"
        raise InputError(
            f"split: {file}: {int(sides.train.sum())} rows are left to learn from. Lower split.test and split.validation, "
            f"add rows, {other}"
        )
    for name, mask in judging.items():
        if mask.sum() < MIN_SPLIT_ROWS:
            raise InputError(
                f"split.{name}: {file}: the {name} side has {int(mask.sum())} rows, fewer than {MIN_SPLIT_ROWS}. Raise split.{name}, "
                "add rows, or set split.strategy to kfold"
            )
    if chosen.problem.kind != "classification":
        return
    target = frame[chosen.problem.target]
    unheard = sorted(set(map(str, target.unique())) - set(map(str, target[sides.train].unique())))
    if unheard:
        raise InputError(
            f"split.strategy: {file}: {strategy} leaves no row of class {unheard[0]!r} to learn from. Set split.strategy to "
            "stratified, or join rare classes"
        )
    for name, mask in judging.items():
        if target[mask].nunique() < 2:
            raise InputError(
                f"split.strategy: {file}: {strategy} leaves one class on the {name} side. Set split.strategy to stratified, "
                f"raise split.{name}, or add rows"
            )


# So many rows tune and judge in any case: with fewer, slices' intervals are wide.
_MIN_TEST_SAMPLE_ROWS = 10_000
# So many rows of a class are kept, if there are, however rare it is.
_MIN_CLASS_SAMPLE_ROWS = 100


def list_sampling_columns(chosen: project_params.Settings) -> list[str]:
    """The columns by which rows are picked."""
    return [table_io.ROW_KEY, chosen.problem.target]


def choose_row_limit(chosen: project_params.Settings, *, judging: bool) -> int | None:
    """How many rows of a side are used at most; None: all. Validation and test splits keep their share."""
    limit, split = chosen.data.max_rows, chosen.split
    if limit is None or not judging:
        return limit
    share = max(split.validation, split.test) / (1 - split.validation - split.test)
    return max(_MIN_TEST_SAMPLE_ROWS, round(limit * share))


def describe_sampling(rows: dict[str, int], chosen: project_params.Settings) -> str | None:
    """That a side of so many rows (train, validation, test) is not used as a whole, in words; None: all are."""
    limit, judging = choose_row_limit(chosen, judging=False), choose_row_limit(chosen, judging=True)
    fit_rows = sum(rows.values()) if chosen.split.strategy == "time" else rows["train"]
    if limit is None or judging is None or (fit_rows <= limit and max(rows["validation"], rows["test"]) <= judging):
        return None
    how = "the newest"
    if chosen.split.strategy != "time":
        how = "stratified by class" if chosen.problem.kind == "classification" else "by the hash of the row key"
    tune, judge = min(judging, rows["validation"]), min(judging, rows["test"])
    return (
        f"models are fitted on {min(limit, fit_rows):,} of {fit_rows:,} rows ({how}), tuned on {tune:,} of "
        f"{rows['validation']:,} and judged on {judge:,} of {rows['test']:,} (by hash): data.max_rows is {limit:,}; null "
        "lifts it"
    )


def pick_rows(known: pl.DataFrame, chosen: project_params.Settings, most: int, *, newest: bool) -> NDArray[np.intp]:
    """Places of about `most` of the rows, rising. `known`: their list_sampling_columns(), with strategy time in the order of time.

    With strategy time and `newest` the last rows; else the lowest hashes of the row keys, of each class in proportion.
    Of a rare class _MIN_CLASS_SAMPLE_ROWS rows are kept.
    """
    by_time = newest and chosen.split.strategy == "time"
    if by_time:
        order = np.arange(len(known))[::-1]
    else:
        place = row_keys.map_to_unit_interval(known[table_io.ROW_KEY].to_numpy(), chosen.split.seed)
        order = np.argsort(place, kind="stable")
    if chosen.problem.kind != "classification":
        return np.sort(order[:most])
    classes = known[chosen.problem.target].rank("dense").to_numpy()[order].astype(np.int64) - 1
    counts = np.bincount(classes)
    taken = np.zeros(len(known), dtype=bool)
    least = np.minimum(counts, _MIN_CLASS_SAMPLE_ROWS)
    if by_time:
        taken[order[:most]] = True
    else:
        least = np.maximum(least, np.round(most * counts / len(known)).astype(np.int64))
    for label, wanted in enumerate(least):
        taken[order[classes == label][:wanted]] = True
    return np.flatnonzero(taken)
