"""What people see while a command works: lines, one live line, tables and numbers."""

from __future__ import annotations

import math
import sys
import textwrap
import time
from typing import IO, Any

# Where nobody watches live, a sign of life this often.
LOG_INTERVAL_SECONDS = 5.0
# Characters of a line: a verdict with its reason is a paragraph.
LINE_WIDTH_CHARACTERS = 120


class Console:
    """Lines for people, and on a terminal one live line below them. With `--json` everything goes to standard error."""

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self._out: IO[str] = sys.stderr if json else sys.stdout
        self._live = sys.stderr.isatty()
        self._shown = ""
        self._started = self._told = time.monotonic()

    def say(self, text: str = "") -> None:
        """Print a line (or several) that stays; a terminal gets long ones folded, a log one line a message."""
        self._clear()
        folded = "\n".join(map(_fold_line, text.split("\n"))) if self._out.isatty() else text
        print(folded, file=self._out, flush=True)

    @property
    def live(self) -> bool:
        """Whether what was said can be drawn anew: it goes to a terminal."""
        return self._out.isatty()

    def write(self, text: str) -> None:
        """Pass text on as it is."""
        print(text, end="", file=self._out, flush=True)

    def working(self, text: str) -> None:
        """Show what is being done now: a live line on a terminal, a line every few seconds in a log."""
        now = time.monotonic()
        line = f"  {now - self._started:4.0f} s  {text}"[:110]
        if self._live:
            self._clear()
            self._shown = line
            print(line, end="", file=sys.stderr, flush=True)
        elif now - self._told >= LOG_INTERVAL_SECONDS:
            self._told = now
            print(line, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._shown:
            print("\r" + " " * len(self._shown) + "\r", end="", file=sys.stderr, flush=True)
            self._shown = ""


class SilentConsole(Console):
    """Says nothing: for work that is shown in another way."""

    def say(self, text: str = "") -> None:
        """Nothing."""

    def working(self, text: str) -> None:
        """Nothing."""


class LiveTable:
    """A small table that stays up to date: redrawn in place on a terminal, in a log a line for each row whose state changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[dict[str, Any]] = []
        self._drawn = 0

    def show(self, rows: list[dict[str, Any]]) -> None:
        """Show these rows: `service`, `state`, and more."""
        if rows == self._rows:
            return
        before, self._rows = {row["service"]: row["state"] for row in self._rows}, rows
        if self._console.live:
            self._erase()
            self._draw()
            return
        for row in rows:
            if before.get(row["service"]) != row["state"]:
                self._console.say("  " + "  ".join(str(value) for value in row.values() if value))

    def say(self, text: str) -> None:
        """A message that stays; in a log the whole table after it."""
        self._erase()
        self._console.say(text)
        self._draw()

    def _draw(self) -> None:
        drawn = format_table(self._rows)
        self._console.say(drawn)
        self._drawn = drawn.count("\n") + 1

    def _erase(self) -> None:
        if self._console.live and self._drawn:
            self._console.write(f"\x1b[{self._drawn}A\x1b[J")
        self._drawn = 0


def _fold_line(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    folds = textwrap.wrap(
        line,
        LINE_WIDTH_CHARACTERS,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return "\n".join(folds) or line


def format_table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns; numbers to the right."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [
        names,
        *([format_metric(row[n]) if isinstance(row[n], float) else str(row[n]) for n in names] for row in rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    right = [isinstance(rows[0][n], int | float) for n in names]
    lines = (
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)) for row in cells
    )
    return "\n".join("  " + line.rstrip() for line in lines)


def format_metric(value: float | None) -> str:
    """A metric as people read it: thousands grouped when large, four figures when small."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
