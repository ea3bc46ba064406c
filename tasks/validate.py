"""Stage 2: may this table teach? Stops it with everything that is wrong at once, or describes it in data/profile.json.

Leaves file trouble to ingest, and which rows judge to split.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import keys, profile, settings, tables
from tasks.errors import InputError, WindvaneError
from tasks.profile import Column, Finding, Profile

if TYPE_CHECKING:
    import pandas as pd

# Fewer rows leave a test side whose mean loss says nothing: 15 % of 50 are 7 rows.
LEAST_ROWS = 50
# Three rows of a class judge, three tune (tasks/split.py): four are left to learn from.
LEAST_PER_CLASS = 10
# More classes than this are names or amounts, and one probability for each is out of reach.
MOST_CLASSES = 100


def run(root: Path, chosen: settings.Settings) -> None:
    """Check data/table.parquet below `root`, write data/profile.json. Raises one InputError that lists all that
    stops.
    """
    tables.write_json(check(tables.read_parquet(root / profile.TABLE), chosen).to_json(), root / profile.PROFILE)


def check(frame: pd.DataFrame, chosen: settings.Settings) -> Profile:
    """The profile of the rows that have a label, with what should be known of them. Raises InputError listing every
    stop.
    """
    problem, file = chosen.problem, chosen.data.source
    present = tuple(name for name in frame.columns if name != tables.ROW)
    # Ignored columns that no frame can hold were left out by ingest.
    wanted = tuple((key, name) for key, name in profile.named(problem) if key != "problem.ignore")
    profile.require(wanted, present, file)

    labelled = frame[frame[problem.target].notna()].reset_index(drop=True)
    if not len(labelled):
        raise InputError(
            f"problem.target: {file}: column {problem.target!r} is empty in all {len(frame)} rows. Name another "
            "column, or add the labels"
        )
    found = profile.of(labelled, profile.row_key(problem, present))
    columns = {c.name: c for c in found.columns}
    stops = [
        *_rows(labelled),
        *_target(labelled[problem.target], columns[problem.target], problem),
        *_roles(frame, problem),
        *_features(labelled, columns, chosen),
    ]
    if stops:
        raise InputError("; ".join(f"{stop.partition(': ')[0]}: {file}: {stop.partition(': ')[2]}" for stop in stops))
    return Profile(found.rows, found.key, found.columns, tuple(_findings(frame, labelled, columns, chosen)))


def features(columns: dict[str, Column], chosen: settings.Settings) -> tuple[str, ...]:
    """Columns that a model may see: all but target, id, ignored ones, and the group where sides are parted by it."""
    problem = chosen.problem
    hidden = {problem.target, problem.id, *problem.ignore}
    if chosen.split.strategy == "group":
        hidden.add(problem.group)
    return tuple(name for name in columns if name not in hidden)


def _rows(labelled: pd.DataFrame) -> Iterator[str]:
    if len(labelled) < LEAST_ROWS:
        yield (
            f"data.source: {len(labelled)} rows with a label are too few: at least {LEAST_ROWS} are needed to learn, "
            "tune and judge. Add rows"
        )


def _target(values: pd.Series, column: Column, problem: settings.Problem) -> Iterator[str]:
    target = f"problem.target: column {column.name!r}"
    if column.distinct == 1:
        yield (
            f"{target} is constant ({_shown(values.iloc[0])} in every row): there is nothing to learn. Name another "
            "column"
        )
    elif column.type == "date":
        yield f"{target} holds dates. Name a number or a class; a span of days is a number"
    elif problem.kind == "regression":
        yield from _amounts(target, values, column)
    else:
        yield from _classes(target, values, column)


def _amounts(target: str, values: pd.Series, column: Column) -> Iterator[str]:
    if column.type != "number":
        yield (
            f"{target} holds {'words' if column.type != 'boolean' else 'true and false'}, not numbers. Set "
            "problem.kind: classification, or name a number"
        )
    elif _infinite(values):
        yield f"{target} holds {_infinite(values)} infinite values. Mend or empty these cells"


def _classes(target: str, values: pd.Series, column: Column) -> Iterator[str]:
    if column.distinct > min(MOST_CLASSES, len(values) / 2):
        remedy = (
            "It looks like an amount: set problem.kind: regression"
            if column.type == "number"
            else "Name another column, or join rare classes"
        )
        yield (
            f"{target} has {column.distinct} different values in {len(values)} rows; at most {MOST_CLASSES} classes, "
            f"each in several rows, can be told apart. {remedy}"
        )
        return
    counts = values.value_counts()
    rare = counts[counts < LEAST_PER_CLASS]
    if len(rare):
        listed = ", ".join(f"{_shown(name)} ({count})" for name, count in list(rare.items())[:5])
        yield (
            f"{target}: classes with fewer than {LEAST_PER_CLASS} rows: {listed}. Add rows, join them with another "
            "class, or leave them out"
        )


def _roles(frame: pd.DataFrame, problem: settings.Problem) -> Iterator[str]:
    for role, name in (("id", problem.id), ("group", problem.group)):
        if name is not None and frame[name].isna().any():
            yield (
                f"problem.{role}: column {name!r} is empty in {int(frame[name].isna().sum())} rows. Fill it in, or "
                f"set problem.{role} to null"
            )
    if problem.id is not None:
        again = frame[problem.id].dropna()
        again = again[again.duplicated()]
        if len(again):
            yield (
                f"problem.id: column {problem.id!r} repeats: {len(again)} rows have an id that came before, such as "
                f"{_shown(again.iloc[0])}. "
                f"Name a column that is different in every row, or set problem.id to null and add it to problem.ignore"
            )


def _features(labelled: pd.DataFrame, columns: dict[str, Column], chosen: settings.Settings) -> Iterator[str]:
    seen = features(columns, chosen)
    for name in seen:
        if columns[name].distinct == 0:
            yield (
                f"data.source: column {name!r} is empty in every row that has a label. Fill it in, or add {name!r} "
                "to problem.ignore"
            )
        elif columns[name].type == "number" and _infinite(labelled[name]):
            yield (
                f"data.source: column {name!r} holds {_infinite(labelled[name])} infinite values. Mend or empty "
                f"these cells, or add {name!r} to problem.ignore"
            )
    usable = [name for name in seen if columns[name].type != "text" and not columns[name].constant]
    if not usable:
        yield (
            "data.source: no column is left to learn from: all others are ignored, empty, constant or free text. Add "
            "columns, or shorten problem.ignore"
        )


def _shown(value: Any) -> str:
    """A cell as people write it: numpy would say np.int64(1)."""
    return repr(value.item() if hasattr(value, "item") else value)


def _infinite(values: pd.Series) -> int:
    import numpy as np

    return int(np.isinf(values.to_numpy(dtype="float64", na_value=np.nan)).sum())


def _findings(
    frame: pd.DataFrame, labelled: pd.DataFrame, columns: dict[str, Column], chosen: settings.Settings
) -> Iterator[Finding]:
    import numpy as np

    problem = chosen.problem
    unlabelled = len(frame) - len(labelled)
    if unlabelled:
        yield _warn(
            "label",
            problem.target,
            f"{unlabelled} of {len(frame)} rows have no label ({problem.target!r} is empty): they neither teach nor "
            "judge",
        )
    if problem.kind == "regression" and columns[problem.target].distinct == 2:
        yield _warn(
            "target",
            problem.target,
            f"{problem.target!r} has two values: problem.kind: classification would suit it better",
        )
    whole = keys.of(labelled, tuple(columns))
    twice = len(whole) - len(np.unique(whole))
    if twice:
        yield _warn(
            "duplicates",
            None,
            f"{twice} rows ({twice / len(whole):.1%}) repeat another row in every column: each counts twice",
        )
    for name in features(columns, chosen):
        if columns[name].constant:
            yield _warn("constant", name, f"{name!r} has the same value in every row: it is not learned from")
        elif columns[name].type == "text":
            yield _warn(
                "text",
                name,
                f"{name!r} is free text or a name ({columns[name].distinct} different values): it is not learned from",
            )


def _warn(what: str, column: str | None, message: str) -> Finding:
    return Finding(what, "warn", column, message)


def main() -> int:
    """`python -m tasks.validate`: the DVC stage."""
    try:
        run(Path(), settings.load())
    except WindvaneError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
