"""Stage 2: may this table teach? Stops it with everything that is wrong at once, or describes it.

Owns the order of the checks (each family stands in tasks/checks/) and the stage's files: profile.json,
digest.json, findings.json, report.html. Leaves file trouble to ingest, and which rows judge to split.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks import contract, digest, findings, likeness, measure, profile, report, settings, tables
from windvane.tasks.checks import Evidence, Family, columns, leakage, past, target, values
from windvane.tasks.checks import contract as agreement
from windvane.tasks.checks import rows as repeated
from windvane.tasks.digest import Digest
from windvane.tasks.errors import InputError
from windvane.tasks.findings import Finding
from windvane.tasks.places import HOME
from windvane.tasks.profile import Column, Profile

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

FAMILIES = (
    *(Family(module.CHECKS, module.find) for module in (target, columns, values, repeated, leakage)),
    Family(agreement.CHECKS, agreement.find, "contract"),
    Family(past.CHECKS, past.find, "past"),
)
# The page of a table that was refused: for people, and no output of the stage, which has none then.
STOPPED = HOME / "stopped.html"
# So many newer rows are compared by themselves with the last accepted table.
LEAST_NEW = 500


@dataclass(frozen=True)
class Seen:
    """A table that was looked at: what it is, what was found (worst first), and its evenly spaced rows."""

    profile: Profile
    digest: Digest
    findings: tuple[Finding, ...]
    sample: pl.DataFrame


def run(root: Path, chosen: settings.Settings) -> None:
    """Check table.parquet below `root` against schema.yaml and accepted.json; write what was seen.

    Raises one InputError that lists all that stops, and keeps the page of such a table at STOPPED.
    """

    accepted, table = digest.read(root / digest.ACCEPTED), root / profile.TABLE
    # Ingest writes no NaN: nothing need be made missing, and the file states what it holds.
    e = _evidence(tables.scan(table), chosen, contract.load(root / contract.SCHEMA), accepted, table)
    seen = _seen(e)
    page = report.Page(chosen, seen.digest, accepted, seen.findings, seen.sample)
    try:
        findings.refuse(seen.findings, chosen.data.source)
    except InputError as e:
        report.write(page, root / STOPPED)
        raise InputError(f"{e}. {STOPPED} shows the table") from None
    (root / STOPPED).unlink(missing_ok=True)
    tables.write_json(seen.profile.to_json(), root / profile.PROFILE)
    digest.write(seen.digest, root / digest.DIGEST)
    findings.write(seen.findings, root / findings.FINDINGS)
    report.write(page, root / report.REPORT)


def check(
    frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame,
    chosen: settings.Settings,
    agreed: contract.Contract | None = None,
    accepted: Digest | None = None,
) -> Seen:
    """look(), but what stops is raised as one InputError."""
    seen = look(frame, chosen, agreed, accepted)
    findings.refuse(seen.findings, chosen.data.source)
    return seen


def look(
    frame: pd.DataFrame | pl.DataFrame | pl.LazyFrame,
    chosen: settings.Settings,
    agreed: contract.Contract | None = None,
    accepted: Digest | None = None,
) -> Seen:
    """All findings on a table with canonical types, given the contract and the digest of the last accepted table.

    A few streaming scans: memory does not grow with the rows. Raises InputError only where nothing can be looked at.
    """
    return _seen(_evidence(measure.lazy(frame), chosen, agreed, accepted))


def _seen(e: Evidence) -> Seen:
    """What all families find."""
    found = [finding for family in FAMILIES for finding in family.find(e)]
    silent = {finding.column for finding in found if finding.check == "silent"}
    found = [finding for finding in found if finding.check != "constant" or finding.column not in silent]
    told = {finding.check for finding in found}
    fine = [
        Finding(name, "pass", None, None, None, what)
        for family in FAMILIES
        if family.needs is None or getattr(e, family.needs) is not None
        for name, what in family.checks.items()
        if name not in told
    ]
    kept = findings.accepted([*found, *fine], e.contract.accept if e.contract else ())
    return Seen(e.profile, e.now, kept, e.sample)


def features(columns: dict[str, Column], chosen: settings.Settings) -> tuple[str, ...]:
    """Columns that a model may see: all but target, id, ignored ones, and the group where sides are parted by it."""
    problem = chosen.problem
    hidden = {problem.target, problem.id, *problem.ignore}
    if chosen.split.strategy == "group":
        hidden.add(problem.group)
    return tuple(name for name in columns if name not in hidden)


def _evidence(
    whole: pl.LazyFrame,
    chosen: settings.Settings,
    agreed: contract.Contract | None,
    accepted: Digest | None,
    file: Path | None = None,
) -> Evidence:
    """All that the checks look at. `file`: where `whole` lies, if a stage wrote it."""
    import polars as pl

    problem, source = chosen.problem, chosen.data.source
    present = tuple(name for name in whole.collect_schema() if name != tables.ROW)
    # Ignored columns that no frame can hold were left out by ingest.
    wanted = tuple((key, name) for key, name in profile.named(problem) if key != "problem.ignore")
    profile.require(wanted, present, source)

    target = pl.col(problem.target)
    rows, without = whole.select(pl.len().alias("rows"), target.null_count().alias("without")).collect().row(0)
    if rows == without:
        raise InputError(
            f"problem.target: {source}: column {problem.target!r} is empty in all {rows} rows. Name another "
            "column, or add the labels"
        )
    labelled = whole.filter(target.is_not_null()) if without else whole
    # Read once: what tells few values from many holds the sample that all other checks look at, and what tells copies.
    bucket = likeness.bucket(whole, [name for name in present if name != problem.id], rows)
    many, alike = measure.drawn(whole, rows, measure.MANY if rows > measure.EXACT_ROWS else measure.SAMPLE, bucket)
    known = measure.Look(rows - without, many.filter(target.is_not_null()), None if without else file)
    with ThreadPoolExecutor(1) as beside:
        compared = beside.submit(likeness.twins, alike.filter(target.is_not_null()), known.rows, problem.id)
        taught, counts = measure.counts(labelled, known)
        twins = compared.result()
    found = profile.counted(taught, counts, profile.row_key(problem, present))
    seen = features({c.name: c for c in found.columns}, chosen)
    sampled = measure.spread(many.lazy(), len(many))
    sample = sampled.filter(target.is_not_null())
    watched = tuple(c.name for c in found.columns if c.name not in problem.ignore and c.name != problem.id)
    named = {c.name: c for c in counts}
    now = digest.of(found, sample, problem.time, watched, {repeated.NOTE: twins.near})
    new = digest.newer(accepted, now, sample, problem.time, LEAST_NEW) if accepted else now
    return Evidence(
        chosen, whole, labelled, rows, found, named, sample, sampled, seen, twins, agreed, accepted, now, new
    )
