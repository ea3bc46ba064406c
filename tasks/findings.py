"""What a look at the data found: one record per finding, and how findings stop a lap or are accepted by a person.

Owns findings.json; knows nothing of how anything is found (tasks/checks/).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from windvane.tasks import tables
from windvane.tasks.errors import InputError, several
from windvane.tasks.places import DATA

FINDINGS = DATA / "findings.json"

Level = Literal["pass", "warn", "stop"]
_ORDER = {"stop": 0, "warn": 1, "pass": 2}


@dataclass(frozen=True)
class Finding:
    """One thing found. `figure` was measured, `limit` is what it was held against; `message` ends in the remedy."""

    check: str
    level: Level
    column: str | None
    figure: float | str | None
    limit: float | str | None
    message: str

    @property
    def key(self) -> str:
        """What `accept` in schema.yaml calls it: check:column, or check alone for the whole table."""
        return self.check if self.column is None else f"{self.check}:{self.column}"


def accepted(findings: Iterable[Finding], accept: tuple[str, ...]) -> tuple[Finding, ...]:
    """The findings, worst first; those that a person accepts by their key pass."""
    kept = (
        replace(f, level="pass", message=f"accepted in schema.yaml: {f.message}")
        if f.level != "pass" and f.key in accept and _negotiable(f)
        else f
        for f in findings
    )
    return tuple(sorted(kept, key=lambda f: (_ORDER[f.level], f.column or "", f.check)))


def refuse(findings: Iterable[Finding], file: str) -> None:
    """Raise one InputError that lists the stops in `file`, each with its column, figure, limit and remedy; of a fault
    that many columns share, the first few and how many more.
    """
    stops = [f for f in findings if f.level == "stop"]
    checks = dict.fromkeys(stop.check for stop in stops)
    if stops:
        raise InputError(
            "; ".join(several(_located(stop, file) for stop in stops if stop.check == check) for check in checks)
        )


def _located(stop: Finding, file: str) -> str:
    key, _, words = stop.message.partition(": ")
    accept = f" (or, if it is right, add {stop.key!r} to accept in schema.yaml)" if _negotiable(stop) else ""
    return f"{key}: {file}: {words}{accept}"


def _negotiable(finding: Finding) -> bool:
    """Whether a person may wave it through: what no model could be fitted on cannot be."""
    return finding.check not in ESSENTIAL


# Without these nothing can be learned or judged at all, whoever accepts it.
ESSENTIAL = ("rows", "target", "classes", "roles", "empty", "infinite", "features")


def write(findings: Iterable[Finding], path: Path) -> None:
    """Write findings as JSON, whole or not at all."""
    tables.write_json([asdict(f) for f in findings], path)


def read(path: Path) -> tuple[Finding, ...]:
    """What write() wrote."""
    return tables.read_record(path, lambda found: tuple(Finding(**content) for content in found))
