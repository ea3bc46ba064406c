"""Checks of a table, a small file per family. Each has CHECKS (name: what it sees to) and find(evidence)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from windvane.tasks.contract import Contract
from windvane.tasks.digest import Digest
from windvane.tasks.findings import Finding
from windvane.tasks.likeness import Twins
from windvane.tasks.measure import Counts
from windvane.tasks.profile import Profile
from windvane.tasks.settings import Problem, Settings

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Evidence:
    """What the checks look at.

    `whole`: a scan of all rows; `labelled`: of those that have a label; `sample`: some of these, evenly spaced, and
    `sampled` the same of all rows. `features`: columns that a model may see. `contract`: None where none is written
    yet. `past`: the last accepted table; `now`: this one, `new`: the part of it that is newer where there is enough.
    """

    chosen: Settings
    whole: pl.LazyFrame
    labelled: pl.LazyFrame
    rows: int
    profile: Profile
    counts: dict[str, Counts]
    sample: pl.DataFrame
    sampled: pl.DataFrame
    features: tuple[str, ...]
    twins: Twins
    contract: Contract | None
    past: Digest | None
    now: Digest
    new: Digest

    @property
    def problem(self) -> Problem:
        """Which column is what."""
        return self.chosen.problem

    @property
    def watched(self) -> tuple[str, ...]:
        """Columns whose values matter: features, target, and the group."""
        problem = self.problem
        extra = [name for name in (problem.target, problem.group) if name and name not in self.features]
        return (*self.features, *extra)


@dataclass(frozen=True)
class Family:
    """A module of this folder. `checks`: each check's name, and what it sees to; `find`: all that is found, nothing for
    what is in order. `needs`: the part of the evidence without which it cannot look.
    """

    checks: dict[str, str]
    find: Callable[[Evidence], Iterator[Finding]]
    needs: str | None = None


def shown(value: Any) -> str:
    """A cell as people write it, short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "...'"
