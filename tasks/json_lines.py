"""JSON lines: one object a line becomes typed Parquet, in a stream. Leaves what the columns mean to tasks/canonical.py."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks import delimited, tables
from windvane.tasks.errors import InputError

if TYPE_CHECKING:
    import polars as pl

# Lines held in memory at once.
_LINES = 50_000

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Slips:
    """A column that is mostly `what`: how many of how many values are not, the first of these and where it stands."""

    what: str
    odd: int
    total: int
    first: str
    where: str


def mixed(path: Path, name: str, slips: Slips) -> str:
    """What to say of a column that is mostly one thing and partly another."""
    return (
        f"{path}: column {name!r} mixes types: {slips.what}, and {slips.odd} of {slips.total} values that are not, "
        f"the first {slips.first} on {slips.where}. Mend them, leave the cells empty, or add {name!r} to problem.ignore"
    )


def scan(path: Path, called: Path, scratch: Path, ignore: tuple[str, ...]) -> tuple[tuple[str, ...], pl.LazyFrame]:
    """Names and cells of a file with one JSON object a line; an absent name is a missing value. Mixtures in `ignore`
    become text.

    The file is read twice: once for what each column holds, once to write it as Parquet below `scratch`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    delimited.check_utf8(path, called)
    found, rows = _kinds(path, called)
    if not rows:
        raise InputError(f"{called}: is empty. Export the table again, with a header and rows")
    for name, seen in found.items():
        if len(_words(seen)) > 1 and name not in ignore:
            raise InputError(_mixture(path, called, name, _words(seen), rows))
    target = scratch / f"{len(list(scratch.iterdir()))}.parquet"
    schema = pa.schema([(name, _type(seen)) for name, seen in found.items()])
    with pq.ParquetWriter(target, schema) as writer:
        for chunk in _chunks(path, called):
            arrays = [pa.array([_cell(row.get(f.name), f.type) for row in chunk], f.type) for f in schema]
            writer.write_table(pa.table(arrays, schema=schema))
    return tuple(found), tables.scan(target)


def _kinds(path: Path, called: Path) -> tuple[dict[str, Counter[str]], int]:
    """How often each column holds each kind of value, and the number of rows."""
    found: dict[str, Counter[str]] = {}
    rows = 0
    for chunk in _chunks(path, called):
        rows += len(chunk)
        for row in chunk:
            for name, value in row.items():
                seen = found.setdefault(name, Counter())
                if value is not None:
                    seen[_kind(value)] += 1
    return found, rows


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # Whole numbers that 64 bits do not hold are numbers all the same.
        return "whole" if -(2**63) <= value < 2**63 else "numbers"
    return {str: "text", bool: "true/false", float: "numbers"}.get(type(value), "nested values")


def _words(seen: Counter[str]) -> Counter[str]:
    """Kinds as people know them: whole numbers are numbers."""
    words: Counter[str] = Counter()
    for kind, count in seen.items():
        words["numbers" if kind == "whole" else kind] += count
    return words


def _type(seen: Counter[str]) -> Any:
    """The Arrow type of a column that holds values of the given kinds."""
    import pyarrow as pa

    if len(_words(seen)) > 1:
        return pa.string()
    if len(seen) > 1:
        return pa.float64()
    types = {"text": pa.string(), "true/false": pa.bool_(), "whole": pa.int64(), "numbers": pa.float64()}
    # Nested values are refused by their type, or ignored: it need not be told exactly.
    return types.get(next(iter(seen)), pa.list_(pa.string())) if seen else pa.null()


def _cell(value: Any, kind: Any) -> Any:
    import pyarrow.types as at

    if value is None or at.is_nested(kind):
        return None
    if at.is_string(kind):
        return str(value)
    return _float(value) if at.is_floating(kind) else value


def _float(value: float) -> float:
    """A number as float64; a whole number past its range is infinite there."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _mixture(path: Path, called: Path, name: str, words: Counter[str], rows: int) -> str:
    (most, _), (odd, count), *_ = words.most_common()
    values = (row.get(name) for chunk in _chunks(path, called) for row in chunk)
    at, first = next(
        (i, v) for i, v in enumerate(values) if v is not None and _kind(v).replace("whole", "numbers") == odd
    )
    line = delimited.line_of(path, at, header=False)
    return mixed(called, name, Slips(most, count, rows, repr(first), f"line {line}"))


def _chunks(path: Path, called: Path) -> Iterator[Rows]:
    rows: Rows = []
    with path.open(encoding="utf-8-sig") as f:
        for number, line in enumerate(f, 1):
            if not line.strip():
                continue
            rows.append(_object(line, number, called))
            if len(rows) == _LINES:
                yield rows
                rows = []
    if rows:
        yield rows


def _object(line: str, number: int, called: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as e:
        raise InputError(
            f"{called}: line {number} is broken JSON ({e.msg} at character {e.pos + 1}). Mend or delete that line"
        ) from None
    except (ValueError, RecursionError):  # Python's own limits: 4,300 digits, 1,000 brackets
        raise InputError(
            f"{called}: line {number} holds a number of thousands of digits, or thousands of brackets in one another. Mend or "
            "delete that line"
        ) from None
    if not isinstance(row, dict):
        raise InputError(f'{called}: line {number} holds no JSON object. Write one row a line: {{"price": 1, ...}}')
    if line.count(":") > len(row):
        _check_once(line, number, called)
    if "\\u" in line:
        _check_text(row, number, called)
    return row


def _check_once(line: str, number: int, called: Path) -> None:
    """Python keeps the last of the values that an object gives to one key, in silence."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        seen = Counter(name for name, _ in pairs)
        for name in (name for name, count in seen.items() if count > 1):
            raise InputError(f"{called}: line {number} has the key {name!r} twice. Mend or delete that line")

    json.loads(line, object_pairs_hook=once)


def _check_text(row: dict[str, Any], number: int, called: Path) -> None:
    """JSON can write half of a letter that takes two codes; no text can hold it."""
    for name, value in row.items():
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{called}: line {number}: column {name!r} holds half a letter ({value!r}). Mend or delete that line"
            ) from None
