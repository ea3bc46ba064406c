"""One hostile table: what it is, what a careful data engineer would say of it, and why. Knows nothing of the product.

The verdict is that of a person who will be blamed for the model:
- `stop`: a lap on this table would fail, or teach something false; what to mend can be named.
- `warn`: a lap may go on, but whoever reads the result must know.
- `pass`: nothing is wrong, or what is odd has one meaning only. Then `reads` says which values it must be read as.
"""

from __future__ import annotations

import csv as writer
import datetime as dt
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["stop", "warn", "pass"]
# What lies at the path of the table: bytes, or what a function makes there.
Content = bytes | Callable[[Path], object]
Cells = dict[str, list[str]]

ROWS = 200


@dataclass(frozen=True)
class Case:
    """A table that is wrong in one way. `says`: words that stand in the message, or in one of the warnings.

    `problem`: keys of params.yaml beside `kind: regression, target: price`; `format`: those of data.format. `reads`: a
    column's first values in the table that ingest wrote (dates as ISO 8601, None for missing).
    """

    name: str
    content: Content
    verdict: Verdict
    says: tuple[str, ...]
    why: str
    file: str = "t.csv"
    problem: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    format: Mapping[str, Any] = field(default_factory=dict)
    reads: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    names: str | None = None  # what the message names where the fault is not in the file
    init: bool = True  # whether `windvane init` is tried too

    def build(self, root: Path) -> Path:
        """Lay the table down below `root`; its path."""
        path = root / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        return path


def houses(rows: int = ROWS, **changes: Callable[[int, str], str] | list[str]) -> Cells:
    """A clean table as text: day, size, rooms, town, price. `changes`: a column's cells, or a function of row and cell.

    A change of a column that is not there adds it, from empty cells.
    """
    draw = random.Random(0)
    size = [round(draw.gauss(100, 20), 1) for _ in range(rows)]
    rooms = [draw.randint(1, 6) for _ in range(rows)]
    cells = {
        "day": [str(dt.date(2020, 1, 1) + dt.timedelta(days=i)) for i in range(rows)],
        "size": [str(s) for s in size],
        "rooms": [str(r) for r in rooms],
        "town": [draw.choice(["Ulm", "Bonn", "Kiel"]) for _ in range(rows)],
        "price": [f"{3 * s + 15 * r + draw.gauss(0, 30):.2f}" for s, r in zip(size, rooms, strict=True)],
    }
    for name, change in changes.items():
        old = cells.get(name, [""] * rows)
        cells[name] = [change(i, v) for i, v in enumerate(old)] if callable(change) else change
    return cells


def at(row: int, value: str) -> Callable[[int, str], str]:
    """Another cell in one data row (from 0): line `row` + 2 of a file."""
    return lambda i, old: value if i == row else old


def cycle(*values: str) -> Callable[[int, str], str]:
    """The same few cells again and again."""
    return lambda i, _: values[i % len(values)]


def csv(cells: Cells, names: Mapping[str, str] | None = None, sep: str = ",", end: str = "\n") -> bytes:
    """Cells as UTF-8 CSV, quoted where needed; `names` renames columns."""
    out = io.StringIO()
    to = writer.writer(out, delimiter=sep, lineterminator=end)
    to.writerow([(names or {}).get(name, name) for name in cells])
    to.writerows(zip(*cells.values(), strict=True))
    return out.getvalue().encode()


def typed(cells: Cells) -> dict[str, list[Any]]:
    """Cells as Python values: numbers where they are, dates for "day", None for empty cells."""

    def value(name: str, cell: str) -> Any:
        if cell == "":
            return None
        if name == "day":
            return dt.datetime.fromisoformat(cell)
        try:
            return float(cell)
        except ValueError:
            return cell

    return {name: [value(name, cell) for cell in column] for name, column in cells.items()}
