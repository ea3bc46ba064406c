"""Clean tables of 50,000 rows, each after an accepted one, and twelve kinds of faults to plant in them.

Strengths stand here, fixed before anything was tuned. Half of the tables and half of the kinds are for tuning.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from windvane.tasks.settings import project_params

ROWS = 50_000

DUPLICATED = 0.01  # rows that stand a second time
RETYPED = 0.02  # rows that stand a second time with other blanks and case, rounding, or one other value
LEAK_NOISE = 0.01  # of the target's spread; for classes a share of wrong labels of half of it
WORDS = 0.01  # cells of a number that hold a word
ODD_DATES = 0.0005  # cells with an impossible date
INFINITE = 0.00002  # cells, one at least
CODED = 0.005  # cells that hold a code for "missing"
FACTORS = (1000.0, 0.001, 2.54, 0.45359237)  # all rows of a column
LEAST_SHARE = 0.03  # of a category that is renamed
FLIPPED = 0.08  # labels


@dataclass(frozen=True)
class Clean:
    """A clean table after the accepted one, both in time order; `classes`: labels that a model can tell apart."""

    name: str
    problem: dict[str, Any]
    before: pl.DataFrame
    now: pl.DataFrame
    learnable: bool = False

    @property
    def chosen(self) -> project_params.Settings:
        """Settings that name the table's target, time and ignored columns."""
        return project_params.parse_settings({"project": "p", "problem": self.problem, "data": {"source": self.name}})

    def columns(self, *kinds: Any) -> list[str]:
        """Columns of these types that a model sees and that vary in both tables."""
        problem = self.chosen.problem
        hidden = {problem.target, problem.time, problem.id, *problem.ignore}
        seen = [n for n, kind in self.now.schema.items() if n not in hidden and (kind in kinds or not kinds)]
        return [n for n in seen if self.now[n].n_unique() > 1 and self.before[n].n_unique() > 1]


@dataclass(frozen=True)
class Planted:
    """A table with one fault; the checks that may name it, and the column (None: the rows)."""

    frame: pl.DataFrame
    checks: tuple[str, ...]
    column: str | None


def _stretch(file: str, rng: np.random.Generator, problem: dict[str, Any], learnable: bool = False) -> Clean:
    frame = canonical(pl.read_parquet(Path(os.environ["WINDVANE_DATA"]) / file))
    if problem.get("time"):
        frame = frame.sort(problem["time"], maintain_order=True)
    frame = frame.filter(pl.col(problem["target"]).is_not_null())
    past = min(ROWS, len(frame) - ROWS)
    start = int(rng.integers(0, len(frame) - past - ROWS + 1))
    return Clean(file, problem, frame[start : start + past], frame[start + past : start + past + ROWS], learnable)


def canonical(frame: pl.DataFrame) -> pl.DataFrame:
    """The types that ingest gives."""
    whole = [name for name, kind in frame.schema.items() if kind.is_integer()]
    dated = [name for name, kind in frame.schema.items() if kind.is_temporal()]
    return frame.with_columns(pl.col(whole).cast(pl.Int64), pl.col(dated).cast(pl.Datetime("us")))


def flights(rng: np.random.Generator) -> Clean:
    ignore = ["dep_delay", "air_time", "arr_delay", "cancelled"]
    return _stretch("nycflights13.parquet", rng, problem("classification", "late15", "ts", ignore))


def census(rng: np.random.Generator) -> Clean:
    made = _stretch("census_income.parquet", rng, problem("classification", "income", None, ["instance_weight"]), True)
    days = [pl.Series("entered", _days(rng, len(part))) for part in (made.before, made.now)]
    return Clean(made.name, made.problem, made.before.with_columns(days[0]), made.now.with_columns(days[1]), True)


def bikes(rng: np.random.Generator) -> Clean:
    """Its days of the week by name: a table of numbers alone has no value that could be renamed."""
    made = _stretch("bikeshare_dc_hourly.parquet", rng, problem("regression", "count", "ts"))
    named = pl.col("dow").replace_strict(range(7), ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"])
    return Clean(made.name, made.problem, made.before.with_columns(named), made.now.with_columns(named))


def retail(rng: np.random.Generator) -> Clean:
    ignore = ["rev", "Description", "Invoice"]
    return _stretch("online_retail_ii.parquet", rng, problem("regression", "Quantity", "ts", ignore))


def _days(rng: np.random.Generator, rows: int) -> np.ndarray[Any, Any]:
    return np.datetime64("2023-01-01", "us") + np.sort(rng.integers(0, 400 * 86400, rows)).astype("timedelta64[s]")


def _made(rng: np.random.Generator, kind: str, seed: int) -> Clean:
    """A made table: amounts of several shapes, categories, gaps, a date, a target that follows from them."""
    n = 2 * ROWS
    names = [f"{word}{seed}" for word in ("width", "price", "age", "visits", "load", "ratio")]
    base = rng.normal(0, 1, n)
    numbers = {
        names[0]: (50 + 10 * base + rng.normal(0, 5, n)).round(2),
        names[1]: np.exp(3 + rng.normal(0, 0.8, n)).round(2),
        names[2]: rng.integers(18, 90, n),
        names[3]: rng.poisson(3, n),
        names[4]: np.cumsum(rng.normal(0, 0.05, n)).round(3),
        names[5]: rng.beta(2, 5, n).round(4),
    }
    towns = np.array(["Ulm", "Bonn", "Kiel", "Jena", "Hof", "Trier", "Celle"])
    town = rng.choice(towns, n, p=[0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05])
    plan = rng.choice(np.array(["basic", "plus", "premium"]), n, p=[0.6, 0.3, 0.1])
    score = base + (plan == "premium") * 1.5 + np.log(numbers[names[1]]) - 3 + (numbers[names[2]] > 60) * 1.0
    day = _days(rng, n)
    content = {
        "day": day,
        **numbers,
        "town": town,
        "plan": plan,
        "seen": day - rng.integers(1, 900, n) * np.timedelta64(1, "D"),
    }
    frame = pl.DataFrame(content)
    gaps = pl.Series(rng.random(n) < 0.06)
    frame = frame.with_columns(pl.when(gaps).then(None).otherwise(pl.col(names[5])).alias(names[5]))
    if kind == "classification":
        label = np.where(score + rng.logistic(0, 0.15, n) > 0.8, "yes", "no")
        frame = frame.with_columns(pl.Series("outcome", label))
        return Clean(f"made {seed}", problem(kind, "outcome", "day"), frame[:ROWS], frame[ROWS:], True)
    frame = frame.with_columns(pl.Series("cost", (100 + 20 * score + rng.normal(0, 5, n)).round(2)))
    return Clean(f"made {seed}", problem(kind, "cost", "day"), frame[:ROWS], frame[ROWS:])


def problem(kind: str, target: str, time: str | None, ignore: list[str] | None = None) -> dict[str, Any]:
    return {"kind": kind, "target": target, "time": time, "ignore": ignore or []}


TABLES: dict[str, Callable[[np.random.Generator], Clean]] = {
    "flights": flights,
    "census": census,
    "made 1": lambda rng: _made(rng, "classification", 1),
    "made 2": lambda rng: _made(rng, "regression", 2),
    "bikes": bikes,
    "retail": retail,
    "made 3": lambda rng: _made(rng, "classification", 3),
    "made 4": lambda rng: _made(rng, "regression", 4),
}
TUNED_TABLES = ("flights", "census", "made 1", "made 2")


def duplicates(clean: Clean, rng: np.random.Generator) -> Planted:
    again = clean.now.sample(int(DUPLICATED * ROWS), seed=int(rng.integers(2**31)))
    return Planted(pl.concat([clean.now, again]), ("duplicates",), None)


def near_duplicates(clean: Clean, rng: np.random.Generator) -> Planted:
    again = clean.now.sample(int(RETYPED * ROWS), seed=int(rng.integers(2**31)))
    words, numbers = clean.columns(pl.String), clean.columns(pl.Float64)
    way = rng.integers(3)
    if way == 0 and words:
        again = again.with_columns(pl.col(words).str.to_uppercase() + " ")
    elif way == 1 and numbers:
        again = again.with_columns(pl.col(numbers).cast(pl.Float32).cast(pl.Float64) + 1e-9)
    else:
        name = str(rng.choice(clean.columns(pl.Int64, pl.Float64)))
        again = again.with_columns(pl.col(name) + 1)
    return Planted(pl.concat([clean.now, again]), ("near_duplicates",), None)


def leak(clean: Clean, rng: np.random.Generator) -> Planted:
    target = clean.now[clean.problem["target"]]
    if clean.problem["kind"] == "regression":
        amount = target.cast(pl.Float64).to_numpy()
        told = pl.Series("fee", amount * 0.5 + rng.normal(0, LEAK_NOISE * amount.std(), len(amount)))
    else:
        names = target.unique().sort()
        other = names.gather(rng.integers(0, len(names), len(target)))
        wrong = pl.Series(rng.random(len(target)) < LEAK_NOISE / 2)
        told = pl.select(pl.when(wrong).then(other).otherwise(target)).to_series().cast(pl.String).rename("fee")
    return Planted(clean.now.with_columns(told), ("leak",), "fee")


def identifier(clean: Clean, rng: np.random.Generator) -> Planted:
    way, n = rng.integers(3), len(clean.now)
    if way == 0:
        values = pl.Series("ref", np.arange(n) + int(rng.integers(1, 10**6)))
    elif way == 1:
        values = pl.Series("ref", rng.integers(10**8, 10**12, n))
    else:
        values = pl.Series("ref", [f"{v:016x}" for v in rng.integers(0, 2**62, n)])
    return Planted(clean.now.with_columns(values), ("identifier",), "ref")


def mixed(clean: Clean, rng: np.random.Generator) -> Planted:
    name = str(rng.choice(clean.columns(pl.Int64, pl.Float64)))
    word = str(rng.choice(["n/a", "?", "unknown", "-"]))
    odd = pl.Series(rng.random(len(clean.now)) < WORDS)
    values = pl.when(odd).then(pl.lit(word)).otherwise(pl.col(name).cast(pl.String)).alias(name)
    return Planted(clean.now.with_columns(values), ("type", "mixed"), name)


def dates(clean: Clean, rng: np.random.Generator) -> Planted:
    name = str(rng.choice([n for n, kind in clean.now.schema.items() if kind.is_temporal()]))
    moments = [dt.datetime(1900, 1, 1), dt.datetime(9999, 12, 31), dt.datetime(1970, 1, 1), dt.datetime(2099, 12, 31)]
    moment = moments[rng.integers(len(moments))]
    frame = _cells(clean.now, name, ODD_DATES, moment, rng)
    # Ingest sorts by time.
    return Planted(frame.sort(name, nulls_last=True) if name == clean.problem["time"] else frame, ("dates",), name)


def infinite(clean: Clean, rng: np.random.Generator) -> Planted:
    name = str(rng.choice(clean.columns(pl.Int64, pl.Float64)))
    value = float(rng.choice([np.inf, -np.inf]))
    return Planted(
        _cells(clean.now.with_columns(pl.col(name).cast(pl.Float64)), name, INFINITE, value, rng), ("infinite",), name
    )


def sentinel(clean: Clean, rng: np.random.Generator) -> Planted:
    """The first of the usual codes that lies beyond three times the largest amount, so that it can be meant as one."""
    name = str(rng.choice(clean.columns(pl.Int64, pl.Float64)))
    largest = float(clean.now[name].cast(pl.Float64).abs().max() or 0)  # type: ignore[arg-type]
    sign = float(rng.choice([-1, 1]))
    code = next(c for c in (999.0, 9999.0, 99999.0, 999999.0, 9999999.0, 99999999.0) if c > 3 * largest)
    frame = clean.now.with_columns(pl.col(name).cast(pl.Float64))
    return Planted(_cells(frame, name, CODED, sign * code, rng), ("sentinel", "range"), name)


def scale(clean: Clean, rng: np.random.Generator) -> Planted:
    """Columns of more than a few values: of a flag no unit can be seen."""
    many = [n for n in clean.columns(pl.Int64, pl.Float64) if clean.now[n].n_unique() > 10]
    name, factor = str(rng.choice(many)), float(rng.choice(FACTORS))
    values = pl.col(name).cast(pl.Float64) * factor
    return Planted(clean.now.with_columns(values.alias(name)), ("scale", "range", "drift"), name)


def silent(clean: Clean, rng: np.random.Generator) -> Planted:
    name = str(rng.choice(clean.columns()))
    value = None if rng.integers(2) else clean.now[name].drop_nulls().mode().sort()[0]
    values = pl.lit(value, dtype=clean.now[name].dtype).alias(name)
    return Planted(clean.now.with_columns(values), ("silent", "constant", "empty", "missing"), name)


def renamed(clean: Clean, rng: np.random.Generator) -> Planted:
    shares = {n: clean.now[n].value_counts(normalize=True).drop_nulls() for n in clean.columns(pl.String)}
    known = [
        (n, v)
        for n, s in shares.items()
        for v, share in s.iter_rows()
        if share >= LEAST_SHARE and v in set(clean.before[n])
    ]
    name, old = known[rng.integers(len(known))]
    new = [old.upper() + "_", f"class {rng.integers(100, 999)}"][rng.integers(2)]
    values = pl.when(pl.col(name) == old).then(pl.lit(new)).otherwise(pl.col(name)).alias(name)
    return Planted(clean.now.with_columns(values), ("renamed", "categories"), name)


def label_noise(clean: Clean, rng: np.random.Generator) -> Planted:
    target = clean.problem["target"]
    names = clean.now[target].unique().sort()
    codes = clean.now[target].replace_strict(names, list(range(len(names)))).to_numpy()
    flip = rng.random(len(codes)) < FLIPPED
    moved = np.where(flip, (codes + 1) % len(names), codes)
    return Planted(clean.now.with_columns(names.gather(moved).alias(target)), ("label_noise",), target)


def _cells(frame: pl.DataFrame, name: str, share: float, value: Any, rng: np.random.Generator) -> pl.DataFrame:
    chosen = np.zeros(len(frame), dtype=bool)
    chosen[rng.choice(len(frame), max(round(share * len(frame)), 1), replace=False)] = True
    put = pl.when(pl.Series(chosen)).then(pl.lit(value, dtype=frame[name].dtype)).otherwise(pl.col(name)).alias(name)
    return frame.with_columns(put)


KINDS: dict[str, Callable[[Clean, np.random.Generator], Planted]] = {
    f.__name__: f
    for f in (
        duplicates,
        leak,
        mixed,
        infinite,
        scale,
        renamed,
        near_duplicates,
        identifier,
        dates,
        sentinel,
        silent,
        label_noise,
    )
}
TUNED_KINDS = ("duplicates", "leak", "mixed", "infinite", "scale", "renamed")
