"""Rows that stand twice: to the letter, or but for rounding, blanks, case, or one column."""

from __future__ import annotations

from collections.abc import Iterator

from windvane.tasks.checks import Evidence
from windvane.tasks.findings import Finding

CHECKS = {
    "duplicates": "no row repeats another",
    "near_duplicates": "no row nearly repeats another",
}
# A few alike rows are life, and what the last accepted table had is its way.
NEAR = 0.005
USUAL = 1.5
# The digest's name for the share, which the next table is held against.
NOTE = "near_duplicates"


def find(e: Evidence) -> Iterator[Finding]:
    """What tasks/likeness.py measured, against the limits."""
    rows, twins = e.profile.rows, e.twins
    if twins.exact:
        yield Finding(
            "duplicates",
            "warn",
            None,
            twins.exact / rows,
            0.0,
            f"{twins.exact} rows ({twins.exact / rows:.1%}) repeat another row in every column: each counts twice. Delete "
            "them in the source, or name problem.group if they belong together",
        )
    limit = NEAR + USUAL * (e.past.notes.get(NOTE, 0.0) if e.past else 0.0)
    if twins.near > limit:
        yield Finding(
            "near_duplicates",
            "warn",
            None,
            twins.near,
            limit,
            f"{twins.near:.1%} of the rows repeat another one {twins.how}: entered twice? Keep one of each, or name "
            "problem.group so that they stay on one side",
        )
