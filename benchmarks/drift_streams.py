"""Real streams with seasons: how often later windows alarm where a rule that looks at no alarm calls them unchanged.

`python benchmarks/drift_calibration.py --part streams` prints its three tables:

- stable years: a year counts if it and the two before it are whole, and if no column's mean lies more than a quarter of a standard
  deviation from the year before, nor a category's share more than five points, in this year and in the one before. The year before
  is the reference, all older rows are the history.
- cycles in random order: whole weeks (avocados: quarters) change places at random, so that what comes later is unchanged by
  construction, with all that hangs together within a week. Windows of one order share a reference: the interval is over orders.
- in the order of the clock, of streams too short for the rule: what moved in them is for the reader to see.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.pieces import Work
from benchmarks.preset import run_preset
from windvane.monitoring.drift import detector
from windvane.tasks.models.features import FeatureColumns

LEVEL = 0.01
DATA = Path(os.environ.get("WINDVANE_DATA", "data"))
# The rule of stable years.
MEAN, SHARE = 0.25, 0.05
# Windows looked at in each order of cycles.
EACH = 3


@dataclass(frozen=True)
class Stream:
    """A real table: what is compared, how it is cut into windows, and (short ones) where its later half begins."""

    file: str
    numbers: tuple[str, ...]
    low: tuple[str, ...]
    target: str | None
    window: str
    later: str | None = None
    cycle: str = "7D"
    every: int = 1

    @property
    def columns(self) -> FeatureColumns:
        """What is compared."""
        return FeatureColumns(numbers=self.numbers, low=self.low)

    def rows(self) -> pd.DataFrame:
        """The table, numbers as floats."""
        frame = pd.read_parquet(DATA / f"{self.file}.parquet").iloc[:: self.every]
        floats = {name: frame[name].astype(float) for name in self.numbers}
        return frame.assign(ts=frame["ts"].astype("datetime64[us]"), **floats)

    def alarm(
        self, reference: pd.DataFrame, window: pd.DataFrame, history: pd.DataFrame | None
    ) -> tuple[bool, tuple[str, ...]]:
        """Whether the window alarms, and the columns that speak."""
        compared = detector.Comparison(reference, window, self.columns, self.target, "ts", 0, history)
        said = detector.detect_drift(compared, LEVEL, hurry=True)
        return said.alarm, said.columns


BIKES = ("tmin", "tmax", "pn", "hour", "dow", "month")
FRUIT = ("small_hass_sold", "large_hass_sold", "small_bags", "month")
FLIGHTS = ("distance", "sched_dep_time", "hour", "dow", "temp", "humid", "wind_speed", "pressure", "visib")
YEARS = (
    Stream("bikeshare_dc_hourly", BIKES, (), None, "7D"),
    Stream("bikeshare_dc_hourly", BIKES, (), None, "30D"),
    Stream("bikeshare_dc_hourly", BIKES, (), "count", "7D"),
    Stream("txhousing", ("sales", "listings", "inventory", "month"), ("city",), "median", "MS"),
    Stream("avocados", FRUIT, ("type", "region"), "average_price", "7D"),
)
SHORT = (
    Stream("parking_birmingham", ("Capacity", "hour", "dow"), ("SystemCodeNumber",), "occ", "1D", "2016-11-13"),
    Stream("nycflights13", FLIGHTS, ("carrier", "origin"), None, "1D", "2013-07-01", every=4),
    Stream("avocados", FRUIT, ("type", "region"), "average_price", "7D", "2016-01-01", cycle="91D"),
)


def stable(one: Stream) -> list[int]:
    """The years that the rule calls stable."""
    frame = one.rows()
    years = {year: part for year, part in frame.groupby(frame["ts"].dt.year) if part["ts"].dt.month.nunique() == 12}
    calm = {y for y in years if y - 1 in years and _alike(years[y - 1], years[y], one)}
    return sorted(y for y in calm if y - 1 in calm)


def _alike(before: pd.DataFrame, after: pd.DataFrame, one: Stream) -> bool:
    numbers = [*one.numbers, *([one.target] if one.target else [])]
    moved = [abs(after[n].mean() - before[n].mean()) / (before[n].std() or 1.0) for n in numbers]
    shares = [
        before[n].value_counts(normalize=True).sub(after[n].value_counts(normalize=True), fill_value=0) for n in one.low
    ]
    return max(moved) <= MEAN and all(s.abs().max() <= SHARE for s in shares)  # fmt: skip


def year(one: Stream, which: int) -> tuple[list[bool], list[str]]:
    """Of each window of a stable year: does it alarm; and the columns that spoke."""
    frame = one.rows()
    ages = which - frame["ts"].dt.year
    return _looked(one, frame[ages == 1], frame[ages == 0], frame[ages > 1])


def _looked(
    one: Stream, reference: pd.DataFrame, later: pd.DataFrame, history: pd.DataFrame | None
) -> tuple[list[bool], list[str]]:
    alarms, spoke = [], []
    for _, window in later.groupby(pd.Grouper(key="ts", freq=one.window)):
        if len(window) >= detector.MIN_DRIFT_ROWS:
            alarm, columns = one.alarm(reference, window, history)
            alarms.append(alarm)
            spoke += columns
    return alarms, spoke


def order(one: Stream, seed: int) -> tuple[float, list[str]]:
    """The share of alarms among EACH later windows, with whole cycles in random order, and the columns that spoke."""
    frame, rng, length = one.rows(), np.random.default_rng(seed), pd.Timedelta(one.cycle)
    number = (frame["ts"] - frame["ts"].min().normalize()) // length
    whole = int(number.max())  # the last one may be cut short
    frame, number = frame[number < whole], number[number < whole]
    place = rng.permutation(whole)[number]
    frame = frame.assign(ts=frame["ts"] + (place - number) * length).sort_values("ts", kind="stable")
    cut = frame["ts"].min().normalize() + whole // 2 * length
    windows = [
        w
        for _, w in frame[frame["ts"] >= cut].groupby(pd.Grouper(key="ts", freq=one.window))
        if len(w) >= detector.MIN_DRIFT_ROWS
    ]
    chosen = rng.choice(len(windows), min(EACH, len(windows)), replace=False)
    found = [one.alarm(frame[frame["ts"] < cut], windows[i], None) for i in chosen]
    return float(np.mean([alarm for alarm, _ in found])), [n for _, columns in found for n in columns]  # fmt: skip


def clock(one: Stream) -> tuple[list[bool], list[str], list[bool]]:
    """In the order of the clock: alarms, the columns that spoke, and what the preset says of every few windows."""
    frame = one.rows()
    reference, later = frame[frame["ts"] < one.later], frame[frame["ts"] >= one.later]
    alarms, spoke = _looked(one, reference, later, None)
    windows = [w for _, w in later.groupby(pd.Grouper(key="ts", freq=one.window)) if len(w) >= detector.MIN_DRIFT_ROWS]
    before = reference.sample(min(len(reference), 20_000), random_state=0)
    some = windows[:: -(-len(windows) // 30)]
    return alarms, spoke, [run_preset(before, w, list(one.numbers), list(one.low))[0] for w in some]


def exact(found: list[bool]) -> str:
    """A share in per cent with its exact 95 % interval."""
    if not found:
        return "-"
    low, high = stats.binomtest(sum(found), len(found)).proportion_ci(0.95)
    return f"{100 * np.mean(found):.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _names(spoke: list[str]) -> str:
    return ", ".join(f"{n} {spoke.count(n)}" for n in sorted(set(spoke), key=lambda n: -spoke.count(n))[:5])


def tables(work: Work, orders: int) -> None:
    """Print all three."""
    _stable_years(work)
    print(f"\n## Real streams, whole cycles in random order ({orders} orders, {EACH} windows of each)\n")
    print("| table | windows | cycles | alarms, % (95 % over orders) | spoke |\n|---|---|---|---|---|")
    asked = list(product(SHORT, range(orders)))
    found = list(zip(asked, work.each(order, asked), strict=True))
    for one in SHORT:
        rates = np.array([rate for (stream, _), (rate, _) in found if stream == one])
        spoke = [n for (stream, _), (_, names) in found for n in names if stream == one]
        half = stats.t.ppf(0.975, len(rates) - 1) * rates.std(ddof=1) / np.sqrt(len(rates))
        low, high = max(rates.mean() - half, 0), rates.mean() + half
        shown = f"{100 * rates.mean():.1f} ({100 * low:.1f}-{100 * high:.1f})"
        print(f"| {one.file} | {one.window} | {one.cycle} | {shown} | {_names(spoke)} |")
    print("\n## Short streams in the order of the clock: no stretch that the rule would call unchanged\n")
    print("| table | windows | alarms, % | preset, % | spoke |\n|---|---|---|---|---|")
    for one, (alarms, spoke, said) in zip(SHORT, work.each(clock, [(one,) for one in SHORT]), strict=True):
        where, shares = f"{len(alarms)} of {one.window} from {one.later}", f"{exact(alarms)} | {exact(said)}"
        print(f"| {one.file} | {where} | {shares} | {_names(spoke)} |")


def _stable_years(work: Work) -> None:
    asked = [(one, which) for one in YEARS for which in stable(one)]
    years = dict(zip(asked, work.each(year, asked), strict=True))
    print(f"\n## Real streams, stable years (promised {LEVEL:.0%})\n")
    print("| table | target | windows | stable years | alarms, % | spoke |\n|---|---|---|---|---|---|")
    for one in YEARS:
        own = {which: found for (stream, which), found in years.items() if stream == one}
        alarms, spoke = [a for f, _ in own.values() for a in f], [n for _, f in own.values() for n in f]
        windows, named = f"{len(alarms)} of {one.window}", ", ".join(map(str, own)) or "none"
        print(f"| {one.file} | {one.target or '-'} | {windows} | {named} | {exact(alarms)} | {_names(spoke)} |")
    all_ = [a for alarms, _ in years.values() for a in alarms]
    print(f"\nAll: {sum(all_)} of {len(all_)}, {exact(all_)} %.")
