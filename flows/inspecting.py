"""The step beside the search: a model's look at the rows that teach, and the data page for MLflow and Prefect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from windvane.flows.lap import Lap
from windvane.flows.teaching import Lesson
from windvane.tasks import contract, digest, findings, inspection, measure, profile, report, split, tables
from windvane.tasks.findings import Finding
from windvane.tasks.tables import read_record

REPORT, FOUND = "report.html", "findings.json"


def inspect(lap: Lap, lesson: Lesson) -> None:
    """All that was found in the data onto one page, stored with the run. Raises InputError when a model's look stops."""
    lap.console.working("inspect")
    settings, tracker, run = lap.project.settings, lap.project.tracker, lesson.run
    folder = lesson.root / "inspection"
    if not (folder / FOUND).exists():  # a lap that goes on after a kill has looked already
        agreed = contract.load(lap.project.root / contract.SCHEMA)
        before = findings.read(lesson.root / findings.FINDINGS)
        sides = read_record(lesson.root / split.SPLIT / split.RECORD, _of_sides)
        seen = inspection.inspect(settings, lesson.kind, lesson.columns, lesson.train, lesson.cores)
        seen = findings.accepted((*sides, *_new(seen, before)), agreed.accept if agreed else ())
        whole = findings.accepted((*before, *seen), ())
        _draw(lap, lesson, whole, folder / REPORT)
        findings.write(whole, folder / FOUND)
    whole = findings.read(folder / FOUND)
    tracker.store(run, folder, "data")
    tracker.log(run, tags={"windvane.data": report.verdict(whole)})
    tell_prefect(lap, run, whole)
    for finding in whole:
        if finding.check in inspection.CHECKS and finding.level == "warn":
            lap.console.say(f"  note: {finding.message}")
    findings.refuse(whole, settings.data.source)


def refuse(lap: Lap, lesson: Lesson) -> None:
    """Raise what the inspection raises of these rows, as soon as it has written down what it found."""
    if (path := lesson.root / "inspection" / FOUND).exists():
        findings.refuse(findings.read(path), lap.project.settings.data.source)


def _of_sides(record: Any) -> tuple[Finding, ...]:
    """What split found about the sides."""
    return tuple(Finding(**f) for f in record.get("findings", ()))


def _new(seen: tuple[Finding, ...], before: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Without the columns of which validate said already that they give the target away."""
    told = {f.column for f in before if (f.check == "leak" and f.level != "pass") or f.key.startswith("leak:")}
    return tuple(f for f in seen if f.check != "giveaway" or f.column is None or f.column not in told)


def _draw(lap: Lap, lesson: Lesson, whole: tuple[Finding, ...], path: Path) -> None:
    import polars as pl

    scan = tables.scan(lesson.root / profile.TABLE).filter(pl.col(lap.project.settings.problem.target).is_not_null())
    rows = int(scan.select(pl.len()).collect(engine="streaming").item())
    now = digest.read(lesson.root / digest.DIGEST)
    assert now is not None
    then = digest.read(lap.project.root / digest.ACCEPTED)
    sample = measure.spread(measure.lazy(scan), rows)
    report.write(report.Page(lap.project.settings, now, then, whole, sample), path)


def tell_prefect(lap: Lap, run_id: str, whole: tuple[Finding, ...]) -> None:
    """The verdict and what deserves a look, as an artifact of the Prefect run, with the way to the page."""
    from prefect.artifacts import create_markdown_artifact

    address = lap.project.tracker.page(run_id, f"data/{REPORT}")
    told = [f for f in whole if f.level != "pass"]
    rows = [f"| {f.level} | {_cell(f.check)} | {_cell(f.column or '')} | {_cell(f.message)} |" for f in told]
    table = ["| | check | column | |", "|---|---|---|---|", *rows] if rows else []
    link = address.replace(" ", "%20").replace(")", "%29")
    page = f"[The data page]({link}), in MLflow under Artifacts, `data/{REPORT}` of run `{run_id}`."
    text = "\n".join([f"**{report.verdict(whole)}**", "", *table, "", page])
    create_markdown_artifact(text, key="data", description=report.verdict(whole))


def _cell(text: str) -> str:
    """A text in a Markdown table: no line break, bar, tag or link of its own."""
    flat = " ".join(text.split())
    for sign in "\\`*_[]|":
        flat = flat.replace(sign, "\\" + sign)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
