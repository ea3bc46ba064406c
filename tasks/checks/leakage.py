"""Columns that give the target away by themselves, as tasks/leaks.py measures it on a sample."""

from __future__ import annotations

from collections.abc import Iterator

from windvane.tasks import leaks
from windvane.tasks.checks import Evidence
from windvane.tasks.findings import Finding, Level

CHECKS = {"leak": "no column that alone gives the target away"}
# Rows looked at: a giveaway shows in few.
ROWS = 10_000
# From here on there is hardly a row that the column does not decide.
CERTAIN = 0.9995


def find(e: Evidence) -> Iterator[Finding]:
    """One column after the other, on rows with and without a label: gaps that come together are telling too."""
    problem = e.problem
    if e.counts[problem.target].distinct < 2 or e.profile.rows < 100:
        return
    classes = problem.kind == "classification"
    some = e.sampled.gather_every(max(-(-len(e.sampled) // ROWS), 1))
    target = some[problem.target].to_pandas()
    if not classes and not e.sampled[problem.target].dtype.is_numeric():
        return
    for name in e.features:
        if e.counts[name].constant or name == problem.time:
            continue
        column = some[name].to_pandas()
        why = leaks.giveaway(column, target, classes)
        if why is None:
            continue
        strength = leaks.strength(column, target, classes)
        level: Level = "stop" if strength >= CERTAIN else "warn"
        prefix = "data.source: column " if level == "stop" else ""
        yield Finding(
            "leak",
            level,
            name,
            round(strength, 4),
            CERTAIN,
            f"{prefix}{name!r} {why}. Add it to problem.ignore, unless it is known before {problem.target!r} is",
        )
