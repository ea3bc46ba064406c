"""What people see while a command works: lines, one live line, tables and numbers. A terminal gets colours; a log, a pipe and
`--json` get plain text, without rich for what is no table.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import os
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from rich.console import Console as Terminal
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

_STDOUT, _STDERR = 1, 2
# Without a live display, a sign of life this often.
LOG_INTERVAL_SECONDS = 5.0
# Characters of a line: a verdict with its reason is a paragraph.
LINE_WIDTH_CHARACTERS = 120
# Styles of lines that begin so, and of states of a service.
_LINE_STYLES = {"  note:": "yellow", "  warning:": "bold yellow"}
_STATE_STYLES = {"ready": "green", "died": "red"}


class Console:
    """Lines for people, and on a terminal one live line below them. With `--json` everything goes to standard error: within the context
    also what libraries, the user's own code and child processes print to standard output, which print_result() alone reaches.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        # Standard output as it was: the object, and a copy of its descriptor. None: nothing is diverted.
        self._kept: tuple[TextIO, int] | None = None
        self._out: IO[str] = sys.stderr if json else sys.stdout
        self._display: Live | None = None
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self.json:
            self._divert_output()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal and standard output as they were, whatever comes next."""
        self.clear()
        self._restore_output()

    def print_result(self, content: Mapping[str, Any]) -> None:
        """Print the one JSON object of a command with `--json`, on standard output; what is no number is null."""
        plain = json.loads(json.dumps(content, default=str), parse_constant=lambda _: None)
        diverted = self._restore_output()
        print(json.dumps(plain), flush=True)
        if diverted:
            self._divert_output()

    def _divert_output(self) -> None:
        if sys.stdout is None or sys.stderr is None:  # closed by who called
            return
        sys.stdout.flush()
        self._kept = (sys.stdout, os.dup(_STDOUT))
        os.dup2(_STDERR, _STDOUT)
        sys.stdout = sys.stderr

    def _restore_output(self) -> bool:
        """Whether it was diverted."""
        if self._kept is None:
            return False
        ctypes.CDLL(None).fflush(None)  # what libraries in C have printed and not written yet
        sys.stdout, copy = self._kept
        self._kept = None
        os.dup2(copy, _STDOUT)
        os.close(copy)
        return True

    @property
    def live(self) -> bool:
        """Whether lines go to a terminal."""
        return self._out.isatty()

    def print(self, text: str = "") -> None:
        """Print a line (or several) that stays; a terminal gets long ones folded, a log one line a message."""
        self.clear()
        if self.live:
            for line in text.split("\n"):
                _open_terminal(self._out).print(_format_line(line), soft_wrap=True)
        else:
            print(text, file=self._out, flush=True)

    def working(self, text: str) -> None:
        """Show what is being done now: a live line on a terminal, a line every few seconds in a log."""
        now = time.monotonic()
        line = f"  {now - self._started:4.0f} s  {text}"[:110]
        if sys.stderr.isatty():
            from rich.text import Text

            self.display(Text(line, no_wrap=True, overflow="ellipsis"), sys.stderr)
        elif now - self._told >= LOG_INTERVAL_SECONDS:
            self._told = now
            print(line, file=sys.stderr, flush=True)

    def display(self, shown: RenderableType, file: IO[str] | None = None) -> None:
        """Show this below the lines of a terminal, in place of what was shown there before."""
        if self._display is None:
            from rich.live import Live

            # Drawn by the caller, not by a thread; what libraries print is not redirected.
            self._display = Live(
                console=_open_terminal(file or self._out),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._display.start()
        self._display.update(shown, refresh=True)

    def clear(self) -> None:
        """Take away what display() shows."""
        if self._display is not None:
            self._display.stop()
            self._display = None


class SilentConsole(Console):
    """Prints nothing: for work that is shown in another way."""

    def print(self, text: str = "") -> None:
        """Nothing."""

    def working(self, text: str) -> None:
        """Nothing."""


class TimeLeft:
    """How long work of so many parts still takes, by what its parts took so far."""

    def __init__(self, parts: int) -> None:
        self._parts, self._started = parts, time.monotonic()

    def describe(self, done: int) -> str:
        """`, about 3 min left`; nothing before the first part is done and after the last."""
        return f", about {format_span(self.estimate(done))} left" if 0 < done < self._parts else ""

    def estimate(self, done: int) -> float:
        """Seconds for the other parts, where so many (at least one) are done."""
        return (time.monotonic() - self._started) * (self._parts - done) / done


def format_span(seconds: float) -> str:
    """Seconds as people count them."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def count_noun(number: int, noun: str) -> str:
    """`1 lap`, `2 laps`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


class LiveTable:
    """A small table that stays up to date: redrawn in place on a terminal, in a log a line for each row whose state changed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[dict[str, Any]] = []

    def show(self, rows: list[dict[str, Any]]) -> None:
        """Show these rows: `service`, `state`, and more."""
        if rows == self._rows:
            return
        before, self._rows = {row["service"]: row["state"] for row in self._rows}, rows
        if self._console.live:
            self._console.display(_build_table(rows))
            return
        for row in rows:
            if before.get(row["service"]) != row["state"]:
                self._console.print("  " + "  ".join(str(value) for value in row.values() if value))

    def print(self, text: str) -> None:
        """A message that stays; in a log the whole table after it."""
        self._console.print(text)
        if self._console.live:
            self._console.display(_build_table(self._rows))
        else:
            self._console.print(format_table(self._rows))


def _open_terminal(file: IO[str]) -> Terminal:
    from rich.console import Console as Terminal

    return Terminal(file=file, highlight=False)


def _format_line(line: str) -> Text:
    from rich.text import Text

    indent = " " * (len(line) - len(line.lstrip()) + 2)
    folds = textwrap.wrap(
        line, LINE_WIDTH_CHARACTERS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    style = next((style for start, style in _LINE_STYLES.items() if line.startswith(start)), "")
    return Text("\n".join(folds) or line, style)


def _build_table(rows: list[dict[str, Any]]) -> Table:
    """Rows as aligned columns; numbers to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 0, 0, 2), header_style="")
    for name, value in rows[0].items():
        table.add_column(Text(name), justify="right" if isinstance(value, int | float) else "left", no_wrap=True)
    for row in rows:
        cells = [format_metric(value) if isinstance(value, float) else str(value) for value in row.values()]
        table.add_row(*(Text(cell, _STATE_STYLES.get(cell.partition(" ")[0].strip(","), "")) for cell in cells))
    return table


def format_table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns of plain text; numbers to the right."""
    from rich.console import Console as Terminal

    if not rows:
        return ""
    page = Terminal(file=io.StringIO(), width=10_000, color_system=None, force_terminal=False)
    with page.capture() as drawn:
        page.print(_build_table(rows))
    return "\n".join(line.rstrip() for line in drawn.get().splitlines())


def format_metric(value: float | None) -> str:
    """A metric as people read it: thousands grouped when large, four figures when small."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
