"""Real tables cut so that nothing changes, and six kinds of change to inject, each in three strengths.

Strengths stand here, fixed before anything was tuned. Three of the six tables are for tuning.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from windvane.monitoring.diagnosis import window_states
from windvane.monitoring.diagnosis.window_states import WindowState
from windvane.monitoring.records import ChangeKind
from windvane.tasks.evaluation.scores import BASELINE_LOSS_COLUMN, LOSS_COLUMN, PREDICTION_COLUMN, PROBABILITY_PREFIX
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.features import ONE_HOT_MAX_VALUES, FeatureColumns
from windvane.tasks.models.model_pipeline import FitOptions
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings.problem_section import ProblemSettings

CAUSES: tuple[ChangeKind, ...] = (
    "none",
    "broken data",
    "data drift",
    "label drift",
    "concept drift",
    "seasonal return",
)
STRENGTHS = ("weak", "middle", "strong")
WINDOW = 800
LABELLED = 0.6  # share of the window's rows whose labels have come; the rest are late

BROKEN = (0.3, 0.6, 1.0)  # share of the window's rows after the break
UNITS = ((1000.0, 0.0), (0.001, 0.0), (2.54, 0.0), (0.45359237, 0.0), (1.609344, 0.0), (1.8, 32.0))
LEAST_SHARE = 0.05  # of a category that is renamed
TILT = (0.5, 1.0, 2.0)  # inputs: log-weight from the middle to either end of a column's ranks; two columns at once
RANKS = (0.5, 1.0, 2.0)  # a number to be predicted: the same of its ranks
ODDS = (2.0, 4.0, 11.0)  # classes: how much likelier the rarest becomes
SHIFT = (0.25, 0.5, 1.0)  # a number: in half of the rows, named by a column, so many standard deviations more or less
SCALE = (0.1, 0.2, 0.4)  # a number: everywhere larger or smaller by this share
FLIPPED = (0.15, 0.3, 0.6)  # classes: in half of the rows, named by a column, labels that turn into another
LOOSENED = (0.25, 0.5, 0.8)  # labels of this share of rows are exchanged among themselves


@dataclass(frozen=True)
class Table:
    """A table, what to learn from it, and which columns stand for time or are known too late."""

    file: str
    kind: Any
    target: str
    out: tuple[str, ...]

    @property
    def name(self) -> str:
        """File and target."""
        return f"{self.file.split('_')[0].split('.')[0]} {self.target}"

    @property
    def problem(self) -> ProblemSettings:
        """As params.yaml would have it; without time, because rows are drawn from all times alike."""
        return ProblemSettings(kind=self.kind, target=self.target, ignore=self.out)


LATE = ("ts", "tailnum", "dep_delay", "air_time", "arr_delay", "cancelled")
TUNED = (
    Table("king_county_houses.parquet", "regression", "price", ("ts", "id", "zipcode")),
    Table("bikeshare_dc_hourly.parquet", "regression", "count", ("ts",)),
    Table("nycflights13.parquet", "classification", "late15", LATE),
)
REPORTED = (
    Table("txhousing.parquet", "regression", "median", ("ts", "date", "volume")),
    Table(
        "avocados.parquet",
        "regression",
        "average_price",
        ("ts", "total_volume", "small_hass_sold", "large_hass_sold", "xlarge_hass_sold"),
    ),
    Table("census_income.parquet", "classification", "income", ("instance_weight",)),
)


@dataclass(frozen=True)
class Base:
    """A table cut at random: a champion, its record, and rows that neither knows, for windows and for known states."""

    table: Table
    columns: FeatureColumns
    champion: Any
    record: pd.DataFrame
    fresh: pd.DataFrame
    earlier: pd.DataFrame

    def answered(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows with the champion's answers, as production would have them."""
        from windvane.tasks.models import features

        kind = definitions.load_problem_type(self.table.kind)
        made = kind.predict(self.champion, features.conform_frame(rows, self.columns, self.table.file))
        more = {PREDICTION_COLUMN: made.value}
        if made.proba is not None and made.classes is not None:
            more |= {f"{PROBABILITY_PREFIX}{c}": made.proba[:, i] for i, c in enumerate(made.classes)}
        return rows.assign(**more)


@dataclass(frozen=True)
class Case:
    """One window with what was done to it; `truth`: all its labels, also those that have not come."""

    cause: ChangeKind
    how: str
    window: pd.DataFrame
    truth: pd.Series


def base(table: Table, seed: int) -> Base:
    """Cut a table: nearly half teaches, 15 % is the record, the rest is fresh; all drawn at random."""
    rng = np.random.default_rng([seed, 7])
    frame = pd.read_parquet(Path(os.environ["WINDVANE_DATA"]) / table.file)
    frame = frame[frame[table.target].notna()].drop(columns=list(table.out))
    frame = frame.iloc[rng.permutation(len(frame))[:40_000]].reset_index(drop=True)
    if frame[table.target].dtype.kind == "f" and table.kind == "classification":
        frame[table.target] = frame[table.target].astype("int64")
    columns = _columns(frame.drop(columns=table.target))
    taught, judged = min(int(0.4 * len(frame)), 8000), min(int(0.15 * len(frame)), 4000)
    left = len(frame) - taught - judged
    train, record = frame[:taught], frame[taught : taught + judged]
    rest = frame[taught + judged :]
    kind = definitions.load_problem_type(table.kind)
    spec = model_pipeline.ModelConfiguration("boosting", {})
    champion = model_pipeline.fit_pipeline(spec, kind, columns, train, FitOptions(table.target, seed, 1))
    cut = Base(table, columns, champion, record, rest[: int(0.6 * left)], rest[int(0.6 * left) :])
    return Base(table, columns, champion, _record(cut, train), cut.fresh, cut.earlier)


def _record(cut: Base, train: pd.DataFrame) -> pd.DataFrame:
    kind, problem = definitions.load_problem_type(cut.table.kind), cut.table.problem
    frame = cut.answered(cut.record)
    plain = list(cut.record.columns)
    names = [n for n in frame.columns if n not in plain and n != PREDICTION_COLUMN]
    classes = np.unique(kind.truth(train[problem.target]))
    made = definitions.Predictions(
        frame[PREDICTION_COLUMN].to_numpy(), frame[names].to_numpy() if names else None, classes if names else None
    )
    loss = kind.loss(kind.truth(frame[problem.target]), made, problem.headline)
    return pd.concat(
        [frame[[*plain, PREDICTION_COLUMN]].assign(**{LOSS_COLUMN: loss, BASELINE_LOSS_COLUMN: loss}), frame[names]],
        axis=1,
    ).reset_index(drop=True)


def _columns(frame: pd.DataFrame) -> FeatureColumns:
    varied = [n for n in frame.columns if frame[n].nunique() > 1]
    words = [n for n in varied if not pd.api.types.is_numeric_dtype(frame[n])]
    booleans = tuple(n for n in varied if frame[n].dtype == bool)
    return FeatureColumns(
        numbers=tuple(n for n in varied if n not in words and n not in booleans),
        booleans=booleans,
        low=tuple(n for n in words if frame[n].nunique() <= ONE_HOT_MAX_VALUES),
        high=tuple(n for n in words if frame[n].nunique() > ONE_HOT_MAX_VALUES),
    )


def known_states(cut: Base, strength: int, seed: int) -> tuple[WindowState, ...]:
    """What production was like before: once as now, and two seasons of that strength."""
    tilts = [_tilt(cut, cut.earlier, TILT[strength], _season(seed, strength, s))[0] for s in range(2)]
    return tuple(
        _state(cut, _draw(cut.earlier, w, np.random.default_rng([seed, i])), name)
        for i, (name, w) in enumerate(zip(("as now", "summer", "winter"), [None, *tilts], strict=True))
    )


def _season(seed: int, strength: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, strength, number, 13])


def case(cut: Base, cause: ChangeKind, strength: int, seed: int) -> Case:
    """A window of 800 fresh rows with one change; a seasonal return is the first season's."""
    rng = np.random.default_rng([seed, CAUSES.index(cause), strength, 11])
    how, weights, fresh = "", None, cut.fresh
    if cause == "data drift":
        weights, how = _tilt(cut, fresh, TILT[strength], rng)
    elif cause == "seasonal return":
        weights, how = _tilt(cut, fresh, TILT[strength], _season(seed, strength, 0))
    elif cause == "label drift":
        weights, how = _by_label(cut, fresh, strength, rng)
    window = _draw(fresh, weights, rng)
    if cause == "concept drift":
        window, how = _concept(cut, window, strength, rng)
    elif cause == "broken data":
        window, how = _break(cut, window, strength, rng)
    window = cut.answered(window)
    target = cut.table.target
    truth = window[target].copy()
    late = np.arange(len(window)) >= LABELLED * len(window)
    window[target] = window[target].astype(object).where(~late, None)
    if cut.table.kind == "regression":
        window[target] = window[target].astype("float64")
    return Case(cause, how, window, truth)


def _state(cut: Base, rows: pd.DataFrame, name: str) -> WindowState:
    return window_states.build_window_state(
        cut.answered(rows),
        cut.record,
        cut.columns,
        definitions.load_problem_type(cut.table.kind),
        cut.table.problem,
        name,
    )


def _draw(rows: pd.DataFrame, weights: np.ndarray[Any, Any] | None, rng: np.random.Generator) -> pd.DataFrame:
    p = None if weights is None else weights / weights.sum()
    return rows.iloc[rng.choice(len(rows), min(WINDOW, len(rows)), replace=False, p=p)].reset_index(drop=True)


def _ranks(values: pd.Series) -> np.ndarray[Any, Any]:
    """From -1 to 1; what is missing lies in the middle."""
    return (2 * values.rank(pct=True).fillna(0.5) - 1).to_numpy()


def _varied(cut: Base) -> list[str]:
    """Inputs that can be tilted: no single value has nine rows in ten."""
    frame = cut.earlier[:5000]
    return [n for n in cut.columns.names if frame[n].value_counts(normalize=True, dropna=False).iloc[0] < 0.9]


def _tilt(cut: Base, rows: pd.DataFrame, strength: float, rng: np.random.Generator) -> tuple[Any, str]:
    """Weights (n,) that two inputs decide, and what was done."""
    log, said = np.zeros(len(rows)), []
    for name in rng.permutation(_varied(cut))[:2]:
        sign = float(rng.choice([-1, 1]))
        if name in cut.columns.numbers + cut.columns.booleans:
            log += sign * strength * _ranks(rows[name])
        else:
            words = sorted(cut.earlier[name].dropna().unique())
            ups = dict(zip(words, rng.permutation(np.linspace(-1, 1, len(words))), strict=True))
            log += strength * rows[name].map(ups).fillna(0.0).to_numpy(dtype=float)
        said.append(str(name))
    return np.exp(log), "tilt " + ", ".join(said)


def _by_label(cut: Base, rows: pd.DataFrame, strength: int, rng: np.random.Generator) -> tuple[Any, str]:
    target = rows[cut.table.target]
    if cut.table.kind == "regression":
        sign = float(rng.choice([-1, 1]))
        return np.exp(sign * RANKS[strength] * _ranks(target)), f"ranks {sign:+.0f}"
    rare = target.value_counts().index[-1]
    return np.where(target == rare, ODDS[strength], 1.0), f"more {rare}"


def _region(cut: Base, rows: pd.DataFrame, rng: np.random.Generator) -> tuple[Any, str]:
    """Half of the rows (as near as a column can cut them)."""
    name = str(rng.choice(_varied(cut)))
    if name in cut.columns.numbers + cut.columns.booleans:
        middle = cut.earlier[name].median()
        above, below = (rows[name] > middle).to_numpy(), (rows[name] < middle).to_numpy()
        return (above if above.sum() >= below.sum() else below), name
    shares = cut.earlier[name].value_counts(normalize=True)
    chosen, total = [], 0.0
    for word in rng.permutation(shares.index.to_numpy()):
        if total < 0.5:
            chosen.append(word)
            total += float(shares[word])
    return rows[name].isin(chosen).to_numpy(), name


def _concept(cut: Base, window: pd.DataFrame, strength: int, rng: np.random.Generator) -> tuple[pd.DataFrame, str]:
    target, n = cut.table.target, len(window)
    truth = window[target].to_numpy(copy=True)
    ways = ("shift", "scale", "loosened") if cut.table.kind == "regression" else ("flipped", "loosened")
    way = str(rng.choice(ways))
    if way == "loosened":
        some = np.flatnonzero(rng.random(n) < LOOSENED[strength])
        truth[some] = truth[rng.permutation(some)]
        return window.assign(**{target: truth}), way
    if way == "scale":
        return window.assign(**{target: truth * (1 + float(rng.choice([-1, 1])) * SCALE[strength])}), way
    inside, name = _region(cut, window, rng)
    if way == "shift":
        step = float(rng.choice([-1, 1])) * SHIFT[strength] * float(cut.earlier[target].std())
        return window.assign(**{target: truth + np.where(inside, step, 0.0)}), f"{way} by {name}"
    classes = np.unique(cut.earlier[target])
    at = np.searchsorted(classes, truth)
    turned = (at + rng.integers(1, len(classes), n)) % len(classes)
    flips = inside & (rng.random(n) < FLIPPED[strength])
    return window.assign(**{target: classes[np.where(flips, turned, at)]}), f"{way} by {name}"


def _break(cut: Base, window: pd.DataFrame, strength: int, rng: np.random.Generator) -> tuple[pd.DataFrame, str]:
    many = [n for n in cut.columns.numbers if cut.earlier[n].nunique() > 10]
    words = {
        (n, w)
        for n in cut.columns.low + cut.columns.high
        for w, share in cut.earlier[n].value_counts(normalize=True).items()
        if share >= LEAST_SHARE
    }
    ways = ["silent", "stuck", *(["unit"] * 2 if many else []), *(["renamed"] * 2 if words else [])]
    way = str(rng.choice(ways))
    after = np.arange(len(window)) >= (1 - BROKEN[strength]) * len(window)
    if way == "unit":
        name = str(rng.choice(many))
        factor, offset = UNITS[rng.integers(len(UNITS))]
        values = window[name].astype("float64")
        return window.assign(**{name: values.where(~after, values * factor + offset)}), f"unit of {name} x {factor:g}"
    if way == "renamed":
        name, word = sorted(words)[rng.integers(len(words))]
        values = window[name].astype(object)
        return window.assign(**{name: values.where(~(after & (values == word)), f"new {word}")}), f"renamed {name}"
    name = str(rng.choice(_varied(cut)))
    value = None if way == "silent" else cut.earlier[name].mode().iloc[0]
    values = window[name].astype(object).where(~after, value)
    if name in cut.columns.numbers + cut.columns.booleans:
        values = values.astype("float64")
    return window.assign(**{name: values}), f"{way} {name}"
