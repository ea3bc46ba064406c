"""Production rows whose labels came back, as a table to learn from: each id once, as it was scored last.

Only answers of the champion whose inputs are stored whole: a row with a dropped or hashed column would teach a gap that
production does not have. Leaves how such rows and the source's own go together to ingest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from windvane.ledger.labels import winning
from windvane.ledger.schema import labels, predictions, versions
from windvane.ledger.store import reading

if TYPE_CHECKING:
    import pyarrow as pa

# The column of each batch that says when a row's label came, as ledger text (ledger/store.py). It is no feature.
LABELLED = "_labelled"

_EPOCH = datetime(1970, 1, 1)
_EMPTY = {"", "na", "n/a", "nan", "null", "none", "<na>"}
_WORDS = {
    **dict.fromkeys(("true", "yes", "y", "t", "1", "1.0", "on"), True),
    **dict.fromkeys(("false", "no", "n", "f", "0", "0.0", "off"), False),
}


def labelled_rows(engine: sa.Engine, project: str, since: str | None) -> Iterator[Any]:
    """Arrow record batches of rows labelled after `since` (ledger text; None: all), oldest label first.

    A batch has the columns of the table as they were scored, problem.id and problem.time where there are such, the target
    with its label, and LABELLED: when both prediction and label were there.
    """
    with reading(engine) as db:
        for rows in db.execute(_query(project, since)).partitions():
            for version in sorted({row.version for row in rows}):
                mine = versions.c.project == project, versions.c.version == version
                facts: dict[str, Any] | None = db.scalar(sa.select(versions.c.facts).where(*mine))
                if facts is None:
                    continue
                if held := _whole(facts, (row for row in rows if row.version == version)):
                    yield _batch(facts, held)


def _query(project: str, since: str | None) -> sa.Select[Any]:
    p, later = predictions.c, predictions.alias("later")
    complete = sa.case((labels.c.received > p.received, labels.c.received), else_=p.received).label("complete")
    newer = sa.tuple_(later.c.received, later.c.version, later.c.content) > sa.tuple_(p.received, p.version, p.content)
    repeated = sa.exists().where(
        later.c.project == project, later.c.id == p.id, later.c.role == "champion", later.c.inputs.is_not(None), newer
    )
    stored = (sa.cast(p.inputs, sa.Text).label("inputs"), sa.cast(p.output, sa.Text).label("output"))
    query = sa.select(p.id, p.time, p.received, p.version, *stored, labels.c.label, complete)
    query = query.select_from(predictions.join(labels, winning(project)))
    query = query.where(p.project == project, p.role == "champion", p.inputs.is_not(None), ~repeated)
    return (query if since is None else query.where(complete > since)).order_by(complete, p.id)


def _whole(facts: dict[str, Any], rows: Iterable[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Rows with the values of all columns that the version knows; those left out of which one is missing or hashed."""
    found = []
    for row in rows:
        inputs = orjson.loads(row.inputs)
        try:
            # A hashed value is an object, which no column can be read from.
            values = {n: _READ[group](inputs[n]) for group, names in facts["columns"].items() for n in names}
        except (KeyError, ValueError, TypeError, OverflowError):
            continue
        found.append((row, values))
    return found


def _batch(facts: dict[str, Any], held: list[tuple[Any, dict[str, Any]]]) -> pa.RecordBatch:
    import pyarrow as pa

    texts, types = pa.string(), {"numbers": pa.float64(), "booleans": pa.bool_(), "dates": pa.timestamp("us")}
    columns: dict[str, pa.Array] = {}
    if facts.get("id"):
        columns[facts["id"]] = pa.array([row.id for row, _ in held], texts)
    if facts.get("time"):
        columns[facts["time"]] = _times(facts, held)
    for group, names in facts["columns"].items():
        for name in names:
            columns[name] = pa.array([values[name] for _, values in held], types.get(group, texts))
    columns[facts["target"]] = _target(facts["kind"], held)
    columns[LABELLED] = pa.array([row.complete for row, _ in held], texts)
    return pa.RecordBatch.from_pydict(columns)


def _times(facts: dict[str, Any], held: list[tuple[Any, dict[str, Any]]]) -> pa.Array:
    """problem.time of each row; where it is a number that only orders the rows, one without it has none."""
    import pyarrow as pa

    times = [_moment(row.time) for row, _ in held]
    if isinstance(facts.get("taught_until"), int | float):
        own = [row.time != row.received for row, _ in held]
        numbers = [
            (time - _EPOCH) / timedelta(seconds=1) if has else None for time, has in zip(times, own, strict=True)
        ]
        return pa.array(numbers, pa.float64())
    return pa.array(times, pa.timestamp("us"))


def _target(kind: str, held: list[tuple[Any, dict[str, Any]]]) -> pa.Array:
    """Labels as the table has them: classes are numbers or true and false where the model answered so."""
    import pyarrow as pa

    said = [orjson.loads(row.label) for row, _ in held]
    if kind == "regression":
        return pa.array(said, pa.float64())
    answers = [orjson.loads(row.output) for row, _ in held]
    types = {type(answer.get("prediction")) for answer in answers if isinstance(answer, dict)}
    if types == {bool} and set(said) <= {"true", "false"}:
        return pa.array([word == "true" for word in said], pa.bool_())
    if types == {int} and all(word.removeprefix("-").isdecimal() for word in said):
        return pa.array([int(word) for word in said], pa.int64())
    return pa.array(said, pa.string())


def _number(value: Any) -> float | None:
    number = None if _missing(value) else float(value)
    return number if number is None or math.isfinite(number) else None


def _boolean(value: Any) -> bool | None:
    return None if _missing(value) else _WORDS[str(value).strip().lower()]


def _text(value: Any) -> str | None:
    if isinstance(value, dict | list):
        raise TypeError("nested")
    return None if value is None or value == "" else str(value)


def _date(value: Any) -> datetime | None:
    """Naive UTC, from ISO 8601 text (a year or a month too) or whole microseconds since 1970."""
    if _missing(value):
        return None
    return _moment(value.strip()) if isinstance(value, str) else _EPOCH + timedelta(microseconds=value)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text + {4: "-01-01", 7: "-01"}.get(len(text), ""))
    return moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta())


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY)


# Values as requests hold them: JSON's own types, or text where they came as CSV.
_READ: dict[str, Callable[[Any], Any]] = {
    "numbers": _number,
    "booleans": _boolean,
    "low": _text,
    "high": _text,
    "dates": _date,
}
