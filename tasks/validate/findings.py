"""What a check of the data gets and what it finds: one record per finding, and how findings stop a lap or are accepted by a person."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from windvane.tasks import io
from windvane.tasks.errors import InputError, join_messages
from windvane.tasks.io import DATA_FOLDER
from windvane.tasks.settings.problem_section import ProblemSettings
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.validate.table_profile import TableProfile, TableSummary
from windvane.tasks.validate.table_schema import TableSchema
from windvane.tasks.validate.table_statistics import ColumnCounts, DuplicateRows

FINDINGS_FILE = DATA_FOLDER / "findings.json"

FindingLevel = Literal["pass", "warn", "stop"]
# Without these nothing can be learned or judged, even if accepted.
ESSENTIAL_CHECKS = ("rows", "target", "classes", "roles", "empty", "infinite", "features")
_LEVEL_ORDER = {"stop": 0, "warn": 1, "pass": 2}


@dataclass(frozen=True)
class TableFinding:
    """One thing found. `figure` was measured, `limit` is what it was held against; `message` ends in the remedy."""

    check: str
    level: FindingLevel
    column: str | None
    figure: float | str | None
    limit: float | str | None
    message: str

    @property
    def key(self) -> str:
        """What `accept` in schema.yaml calls it: check:column, or check alone for the whole table."""
        return self.check if self.column is None else f"{self.check}:{self.column}"

    @property
    def is_set_aside(self) -> bool:
        """Whether it reports rows of too rare classes that are left out, as a person accepts."""
        return self.check == "classes" and self.level == "warn"


def list_passes(checks: dict[str, str], named: Collection[str]) -> list[TableFinding]:
    """A finding for each check, by name and sentence, that is not among the `named` ones."""
    return [TableFinding(name, "pass", None, None, None, what) for name, what in checks.items() if name not in named]


def accept_findings(findings: Iterable[TableFinding], accept: tuple[str, ...]) -> tuple[TableFinding, ...]:
    """The findings, worst first; those that a person accepts by their key pass."""
    kept = (
        replace(f, level="pass", message=f"accepted in schema.yaml: {f.message}")
        if f.level != "pass" and f.key in accept and f.check not in ESSENTIAL_CHECKS
        else f
        for f in findings
    )
    return tuple(sorted(kept, key=lambda f: (_LEVEL_ORDER[f.level], f.column or "", f.check)))


def raise_for_stops(findings: Iterable[TableFinding], file: str) -> None:
    """Raise one InputError that lists the stops in `file`, each with its column, figure, limit and remedy; of a fault
    that many columns share, the first few and how many more.
    """
    stops = [f for f in findings if f.level == "stop"]
    by_check = {check: [_locate_stop(s, file) for s in stops if s.check == check] for check in (s.check for s in stops)}
    if stops:
        raise InputError("; ".join(join_messages(messages) for messages in by_check.values()))


def _locate_stop(stop: TableFinding, file: str) -> str:
    key, _, words = stop.message.partition(": ")
    accept = f" (or, if it is right, add {stop.key!r} to accept in schema.yaml)"
    return f"{key}: {file}: {words}{'' if stop.check in ESSENTIAL_CHECKS else accept}"


def write_findings(findings: Iterable[TableFinding], path: Path) -> None:
    """Write findings as JSON, whole or not at all."""
    io.write_json([asdict(f) for f in findings], path)


def read_findings(path: Path) -> tuple[TableFinding, ...]:
    """What write_findings() wrote."""
    return io.read_record(path, lambda found: tuple(TableFinding(**content) for content in found))


@dataclass(frozen=True)
class CheckInput:
    """What the checks read.

    `whole`: a scan of all rows; `labelled`: of those that have a label; `sample`: some of these, evenly spaced, and
    `sampled` the same of all rows. `features`: columns that a model may see. `contract`: None where none is written
    yet. `past`: the last accepted table; `now`: this one, `new`: the part of it that is newer where there is enough.
    """

    chosen: Settings
    whole: pl.LazyFrame
    labelled: pl.LazyFrame
    rows: int
    profile: TableProfile
    counts: dict[str, ColumnCounts]
    sample: pl.DataFrame
    sampled: pl.DataFrame
    features: tuple[str, ...]
    twins: DuplicateRows
    contract: TableSchema | None
    past: TableSummary | None
    now: TableSummary
    new: TableSummary

    @property
    def problem(self) -> ProblemSettings:
        """Which column is what."""
        return self.chosen.problem

    @property
    def watched(self) -> tuple[str, ...]:
        """Columns whose values matter: features, target, and the group."""
        problem = self.problem
        extra = [name for name in (problem.target, problem.group) if name and name not in self.features]
        return (*self.features, *extra)


@dataclass(frozen=True)
class CheckFamily:
    """A module of this folder. `checks`: each check's name, and what it sees to; `find`: all that is found, nothing for
    what is in order. `needs`: the part of the evidence without which it cannot check.
    """

    checks: dict[str, str]
    find: Callable[[CheckInput], Iterator[TableFinding]]
    needs: str | None = None


def format_cell(value: Any) -> str:
    """A number or another cell, within a sentence."""
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)


def format_example(value: Any) -> str:
    """A cell as people write it, short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "...'"
