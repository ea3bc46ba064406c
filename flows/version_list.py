"""`windvane versions`: every version with its verdict, its metric, why it was made, and who serves. Reads the ledger only."""

from __future__ import annotations

from typing import Any

from windvane.flows.console import Console, number, table
from windvane.flows.project import Project
from windvane.ledger import laps, versions
from windvane.ledger.versions import Judgement, Promotion, Version
from windvane.tasks.registry import CHALLENGER, CHAMPION

# Characters of a cause on the screen; the JSON has all of it.
CAUSE_WIDTH = 44


def list_versions(project: Project, console: Console) -> dict[str, Any]:
    """All versions of the project, the newest last, as plain values and as a table for people."""
    engine, name = project.ledger, project.name
    known, moves, judged = versions.listed(engine, name), versions.moves(engine, name), versions.verdicts(engine, name)
    causes, serving = laps.causes(engine, name), roles(known, moves)
    content = [
        _facts(one, judged.get(one.version), causes.get(one.run_id), serving.get(one.version), moves) for one in known
    ]
    if content:
        some_deleted = any(one["collected"] for one in content)
        console.say(table([_row(one, some_deleted) for one in content]))
    else:
        console.say("  no version yet; next: windvane train")
    return {"versions": content}


def roles(known: tuple[Version, ...], moves: tuple[Promotion, ...]) -> dict[int, str]:
    """Who is champion, and who challenger, as MLflow's aliases say: the newest version is that until it is promoted."""
    found = {moves[-1].to_version: CHAMPION} if moves else {}
    newest = known[-1].version if known else None
    if newest is not None and newest not in {move.to_version for move in moves}:
        found[newest] = CHALLENGER
    return found


def _facts(
    version: Version, judgement: Judgement | None, cause: str | None, serves: str | None, moves: tuple[Promotion, ...]
) -> dict[str, Any]:
    summary = version.facts["summary"]
    low, high = summary["interval"]
    told = {} if judgement is None else judgement.verdict.get("outcome", {})
    promoted = [move.promoted for move in moves if move.to_version == version.version]
    return {
        "version": version.version,
        "serves": serves,
        "verdict": None if judgement is None else "promoted" if judgement.accepted else "refused",
        "reason": told.get("reason") or (None if judgement is None else judgement.verdict.get("reason")),
        "candidate": summary["chosen"],
        "metric": version.facts["metric"],
        "value": summary["test"],
        "low": low,
        "high": high,
        "cause": cause,
        "registered": version.registered,
        "promoted": promoted[-1] if promoted else None,
        "collected": version.collected,
        "data_version": version.data_version,
        "run_id": version.run_id,
    }


def _row(one: dict[str, Any], some_deleted: bool) -> dict[str, Any]:
    cause = one["cause"] or "-"
    files = {"model files": "deleted" if one["collected"] else "kept"} if some_deleted else {}
    return {
        "version": one["version"],
        "serves": one["serves"] or "",
        "verdict": one["verdict"] or "not judged",
        "candidate": one["candidate"],
        "metric": one["metric"],
        "value": number(one["value"]),
        "low": number(one["low"]),
        "high": number(one["high"]),
        "registered": f"{one['registered'][:19]}Z",
        **files,
        "cause": cause if len(cause) <= CAUSE_WIDTH else cause[: CAUSE_WIDTH - 1] + "…",
    }
