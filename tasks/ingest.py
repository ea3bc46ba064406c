"""Stage 1: the source becomes data/table.parquet, in canonical types, in time order, with a key for every row.

Owns the time column. Leaves formats to tasks/sources.py, types to tasks/canonical.py, row keys to tasks/keys.py,
and whether the table can teach to tasks/validate.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import canonical, keys, profile, raw, settings, sources, tables
from tasks.errors import InputError, WindvaneError

if TYPE_CHECKING:
    import pandas as pd


def run(root: Path, chosen: settings.Settings) -> None:
    """Read data.source below `root` and write data/table.parquet. Raises InputError naming file, column, line,
    remedy.
    """
    source = sources.read_all(sources.files(root, chosen.data), chosen.problem.ignore)
    tables.write_parquet(table(source, chosen.problem, raw.labelled_rows(root)), root / profile.TABLE)


def table(source: sources.Source, problem: settings.Problem, labelled: int = 0) -> pd.DataFrame:
    """The source's rows, sorted by problem.time (rows of one time keep their order), with tables.ROW.

    Rows without a label are kept: they are data too; tasks/split.py leaves them out. The last `labelled` rows come from
    production: one with the id of a row of the source's own (without problem.id: the same row) gives way to it.
    """
    names = source.table.column_names
    if len(names) == 1:
        raise InputError(
            f"{source.path}: has one column, {names[0]!r}: nothing to predict {problem.target!r} from. Export the "
            "other columns too; "
            f"cells are parted by ',', ';', a tab or '|'"
        )
    profile.require(profile.named(problem), tuple(names), str(source.path))
    frame = canonical.frame(source, problem.ignore)
    frame[tables.ROW] = keys.of(frame, profile.row_key(problem, tuple(frame.columns)))
    if labelled:
        own = frame[tables.ROW].iloc[:-labelled]
        frame = frame[[True] * len(own) + list(~frame[tables.ROW].iloc[-labelled:].isin(own))].reset_index(drop=True)
    if problem.time is None:
        return frame
    _check_time(source, frame[problem.time])
    return frame.sort_values(problem.time, kind="stable", ignore_index=True)


def _check_time(source: sources.Source, time: pd.Series) -> None:
    """Time is a date or a number, and every row has one."""
    from pandas.api import types

    name = str(time.name)
    if types.is_bool_dtype(time) or not (types.is_datetime64_any_dtype(time) or types.is_numeric_dtype(time)):
        raise InputError(
            f"problem.time: {source.path}: column {name!r} {_no_time(source, time)}. Write dates as 2024-12-31 or "
            "2024-12-31 23:59:00"
        )
    missing = time.isna().to_numpy()
    if missing.any():
        where = source.where(int(missing.argmax()))
        raise InputError(
            f"problem.time: {source.path}: column {name!r} is empty in {int(missing.sum())} rows, first on {where}. "
            f"Fill it in, delete these rows, or name another time column"
        )
    if types.is_numeric_dtype(time) and abs(time).max() == float("inf"):
        raise InputError(
            f"problem.time: {source.path}: column {name!r} holds infinite values. Mend them, or name another time "
            "column"
        )


def _no_time(source: sources.Source, time: pd.Series) -> str:
    present = time.dropna()
    if not len(present) or str(present.dtype).startswith("bool"):
        return "holds no dates"
    first = f"{str(present.iloc[0])!r} on {source.where(int(present.index[0]))}"
    if len(canonical.date_forms(present)) > 1:
        return f"does not say which of day and month comes first: {first}"
    return f"holds words that are no dates, such as {first}"


def main() -> int:
    """`python -m tasks.ingest`: the DVC stage."""
    try:
        run(Path(), settings.load())
    except WindvaneError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
