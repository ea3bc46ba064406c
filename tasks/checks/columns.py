"""Columns that say nothing, or not what they seem to: empty, constant, infinite, free text, ids, numbers among words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from windvane.tasks import measure
from windvane.tasks.checks import Evidence, shown
from windvane.tasks.findings import Finding

if TYPE_CHECKING:
    import polars as pl

    from windvane.tasks.measure import Counts

CHECKS = {
    "empty": "no empty columns",
    "infinite": "no numbers that are infinite or too large to compute with",
    "constant": "no constant columns",
    "text": "no free text",
    "identifier": "no ids among the features",
    "mixed": "no column mixes numbers and words",
    "formula": "no cells that a spreadsheet would run",
    "renamed": "no column under two names",
}
# An id is different in nearly every row...
_DISTINCT = 0.98
# ...and rises with the rows, or is spread over far more numbers than there are rows.
_RISING = 0.999
_SPREAD = 20
# Few rows are all different by chance.
_LEAST = 200
# Numbers with words among them: at least so many of the values are numbers, and the words are few and come back, as
# "n/a" does. Codes such as 85123A are a language of their own.
_MOSTLY = 0.5
_FEW_WORDS = 20
# Trees compute in float32; above its range a number is infinite to them, and squares overflow float64 soon after.
LARGEST = 3.4e38
# What a spreadsheet takes for a formula; not "+49 170 ..." or "@name".
_FORMULA = r"^(=[\w(+-]|@[A-Z]+\()"
# Fewer rows with the one or the other are chance.
_FILLED = 20
_ID_NAME = re.compile(r"(^|[^a-z])(id|uuid|guid|key|nr|no|number|index)$", re.IGNORECASE)


def find(e: Evidence) -> Iterator[Finding]:
    """All columns that a model would see, one after the other."""
    types = {c.name: c.type for c in e.profile.columns}
    for name in e.features:
        counts = e.counts[name]
        different = measure.told(counts.distinct, e.profile.rows)
        if counts.distinct == 0:
            yield Finding(
                "empty",
                "stop",
                name,
                1.0,
                0.0,
                f"data.source: column {name!r} is empty in every row that has a label. Fill it in, or add {name!r} "
                "to problem.ignore",
            )
        elif counts.infinite:
            yield Finding(
                "infinite",
                "stop",
                name,
                counts.infinite,
                0,
                f"data.source: column {name!r} holds {counts.infinite} infinite values. Fix or empty these cells, "
                f"or add {name!r} to problem.ignore",
            )
        elif too_large(counts):
            yield Finding(
                "infinite",
                "stop",
                name,
                max(-counts.low, counts.high),
                LARGEST,
                f"data.source: column {name!r} holds values from {counts.low:g} to {counts.high:g}, too large to compute "
                f"with. Fix or empty these cells, or add {name!r} to problem.ignore",
            )
        elif counts.constant:
            text = f"{name!r} has the same value in every row: it is not learned from. Add it to problem.ignore"
            yield Finding("constant", "warn", name, 1, 2, text)
        elif name != e.problem.time and _is_id(e.sample[name], counts, e.profile.rows):
            yield Finding(
                "identifier",
                "warn",
                name,
                counts.distinct / max(e.profile.rows - counts.missing, 1),
                _DISTINCT,
                f"{name!r} looks like an id ({different} different values, such as {_example(e.sample[name])}): it "
                f"names rows and says nothing about new ones. Add it to problem.ignore, or set problem.id: {name!r}",
            )
        elif types[name] == "text":
            text = (
                f"{name!r} is free text or a name ({different} different values): it is not learned from. Add it "
                "to problem.ignore, or make columns of what it says"
            )
            yield Finding("text", "warn", name, counts.distinct, None, text)
        if counts.shape == "words":
            yield from _mixed(e.sample[name], name)
            yield from _formulas(e.sample[name], name)

    yield from _renamed(e)


def _renamed(e: Evidence) -> Iterator[Finding]:
    """Pairs of columns of one kind of which each row has exactly one: their parts come from different files, perhaps."""
    known: dict[tuple[str, bytes], str] = {}
    for name in e.features:
        missing = e.sample[name].is_null().to_numpy()
        if min(missing.sum(), len(missing) - missing.sum()) < _FILLED:
            continue
        shape = e.counts[name].shape
        other = known.get((shape, (~missing).tobytes()))
        if other is not None:
            text = (
                f"{name!r} is filled exactly where {other!r} is empty: one column under two names? Rename one of them in the "
                "source, or leave it so if they are two"
            )
            yield Finding("renamed", "warn", name, None, None, text)
        known.setdefault((shape, missing.tobytes()), name)


def too_large(counts: Counts) -> bool:
    """Whether the finite values of a column leave the range in which models compute."""
    return counts.shape == "number" and counts.low is not None and max(-counts.low, counts.high) > LARGEST


def _formulas(values: pl.Series, name: str) -> Iterator[Finding]:
    cells = values.cast(str).filter(values.cast(str).str.contains(_FORMULA))
    if len(cells):
        text = (
            f"{name!r} holds formulas, such as {shown(cells[0])}: a spreadsheet that opens the scored file would run them. "
            "Export values, not formulas"
        )
        yield Finding("formula", "warn", name, len(cells) / len(values), 0.0, text)


def _is_id(values: pl.Series, counts: Counts, rows: int) -> bool:
    """Words of one piece, or whole numbers, that are different in nearly every row."""
    present = values.drop_nulls()
    n = len(present)
    if n < _LEAST or present.n_unique() < _DISTINCT * n or counts.distinct < _DISTINCT * (rows - counts.missing) * 0.9:
        return False
    if counts.shape == "words":
        return not present.str.contains(r"\s").mean() > 0.01  # type: ignore[operator]
    if counts.shape != "number" or not bool((present.cast(float) % 1 == 0).all()):
        return False
    span = counts.high - counts.low + 1
    return _rises(present) or span > _SPREAD * rows or _ID_NAME.search(counts.name) is not None


def _rises(values: pl.Series) -> bool:
    """Whether whole numbers follow the order of the rows, up or down."""
    import numpy as np

    ranks = values.rank().to_numpy()
    return bool(abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) >= _RISING)


def _mixed(values: pl.Series, name: str) -> Iterator[Finding]:
    import polars as pl

    present = values.drop_nulls()
    if not len(present) or present.dtype != pl.String:
        return
    number = present.str.strip_chars().cast(pl.Float64, strict=False).is_not_null()
    share, words = float(number.mean()), present.filter(~number)  # type: ignore[arg-type]
    if _MOSTLY <= share < 1 and words.n_unique() <= _FEW_WORDS:
        yield Finding(
            "mixed",
            "warn",
            name,
            1 - share,
            0.0,
            f"{name!r} holds numbers and words: {share:.1%} of its values are numbers, the others such as "
            f"{shown(words[0])}, so all of it is read as words. Empty the cells that are no numbers, or leave it so if "
            "they are codes",
        )


def _example(values: pl.Series) -> str:
    return shown(values.drop_nulls()[0])
