"""Looks at any table and proposes settings for it, each assumption in words. Leaves the file to tasks/template.py.

Guesses only what a person would see at a glance; what is doubtful it says, and the user edits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import contract_template, ingest, profile, readers, roles, settings, sources, tables
from tasks.errors import InputError
from tasks.profile import Column
from tasks.template import Proposal, render, write

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Proposal", "propose", "render", "write"]

# Rows looked at, evenly spaced: enough for every rule here, and a large table is proposed for in seconds.
SAMPLE = 50_000
# Below this, one held-out side is too small to tune on: folds use every row.
_SMALL = 1000
_FOLDS = 5


def propose(
    table: Path,
    target: str,
    *,
    time: str | None = None,
    id: str | None = None,
    kind: str | None = None,
    ignore: tuple[str, ...] = (),
) -> Proposal:
    """Look at `table` (CSV, Parquet, JSON lines) and propose settings that tasks.settings.parse accepts.

    What is given is kept; the rest is guessed, and each guess is one of `assumptions`. Raises InputError when a named
    column is absent, or the target can be neither a class nor an amount.
    """
    with ingest.scratch(Path()) as folder, sources.readable(str(table)):
        opened = tuple(
            readers.cells(p, folder, ignore) for p in sources.files(Path(), settings.Data(source=str(table)))
        )
        names = tuple(dict.fromkeys(name for file in opened for name in file.names))
        named = {"--target": target, "--time": time, "--id": id}
        wanted = [(option, name) for option, name in named.items() if name] + [("--ignore", name) for name in ignore]
        profile.require(tuple(wanted), names, str(table))
        whole = roles.Whole(folder / "whole.parquet")
        problems = ingest.join(opened, whole.path, folder, ignore, None).problems
        for name in (target, time, id):
            if name in problems:
                raise InputError(problems[name])
        why = {**dict.fromkeys(ignore, "as you said"), **{name: _short(text) for name, text in problems.items()}}
        return _propose(table, whole, len(names), target, time, id, kind, why, ignore)


def _propose(
    table: Path,
    whole: roles.Whole,
    columns: int,
    target: str,
    time: str | None,
    id: str | None,
    kind: str | None,
    why: dict[str, str],
    ignore: tuple[str, ...],
) -> Proposal:

    sample = _spread(whole)
    look = roles.Look(whole, sample, _columns(whole, sample, target), target, str(table))
    notes = [f"looked at {len(sample):,} of {len(whole):,} rows, evenly spaced"] if len(sample) < len(whole) else []
    kind = kind or roles.kind_of(look, notes)
    time = time or roles.time_of(look, why, notes)
    id = id or roles.id_of(look, {time, *why}, notes)
    why |= roles.ignored(look, kind, {target, time, id, *why})
    params = _params(
        table, {"kind": kind, "target": target, "time": time, "id": id, "ignore": sorted(why)}, len(whole), notes
    )
    notes += [f"ignores {name!r}: {reason}" for name, reason in sorted(why.items()) if name not in ignore]
    problem = settings.parse(params, "the proposal").problem
    schema = contract_template.propose(tables.scan(whole.path), problem)
    reasons = {settings.literal(name): reason for name, reason in why.items()}
    return Proposal(kind, len(whole), columns, params, tuple(notes), reasons, _looks(look, kind, time), schema)


def _spread(whole: roles.Whole) -> pd.DataFrame:
    import numpy as np
    import polars as pl

    rows = len(whole)
    wanted = np.zeros(rows, dtype=bool)
    wanted[np.linspace(0, rows - 1, min(rows, SAMPLE)).astype(np.int64)] = True
    scan = pl.concat([tables.scan(whole.path), pl.LazyFrame({"_wanted": wanted})], how="horizontal")
    frame = scan.filter(pl.col("_wanted")).drop("_wanted").collect(engine="streaming")
    return tables.pandas(frame, tables.gaps(whole.path))


def _columns(whole: roles.Whole, sample: pd.DataFrame, target: str) -> dict[str, Column]:
    """Columns as they are in the sample's labelled rows. A value that comes back may do so outside a sample: texts
    are looked at whole.
    """
    columns = {c.name: c for c in profile.of(sample[sample[target].notna()]).columns}
    labelled = whole[target].notna()
    texts = [name for name, column in columns.items() if column.type == "text" and len(sample) < len(whole)]
    return {**columns, **{name: profile.column(whole[name][labelled]) for name in texts}}


def _short(problem: str) -> str:
    """A reading problem without the file's name and the remedy, for a comment."""
    text = problem.partition(": ")[2].split(". ")[0]
    return text.replace("\n", " ")


def _params(table: Path, problem: dict[str, Any], rows: int, notes: list[str]) -> dict[str, Any]:
    small = rows < _SMALL
    strategy = "kfold" if small else "stratified" if problem["kind"] == "classification" else "random"
    strategy = "time" if problem["time"] else strategy
    reasons = {
        "time": "the newest rows judge",
        "kfold": f"{rows} rows are few, every one tunes in turn",
        "stratified": "every class stands on every side",
        "random": "rows have no order",
    }
    notes.append(f"split by {strategy}: {reasons[strategy]}")
    name = re.sub(r"[^A-Za-z0-9.]+", "-", table.stem).strip("-.")[:100] or "table"
    return {
        "project": name,
        "problem": {
            **{key: _literal(value) for key, value in problem.items()},
            "group": None,
            "metric": settings.METRICS.get(problem["kind"], (None,))[0],
            "goal": None,
        },
        "data": {
            "source": settings.literal(table.as_posix()),
            "max_rows": settings.Data.model_fields["max_rows"].default,
        },
        "split": {**_defaults(settings.Split), "strategy": strategy, "folds": _FOLDS if strategy == "kfold" else None},
        "search": _defaults(settings.Search),
        "gate": _defaults(settings.Gate),
    }


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return settings.literal(value)
    return [settings.literal(name) for name in value] if isinstance(value, list) else value


def _defaults(section: type[settings.Section]) -> dict[str, Any]:
    return section().model_dump(mode="json")


def _looks(look: roles.Look, kind: str, time: str | None) -> dict[str, str]:
    values = look.frame[look.target]
    if kind == "regression" and look.columns[look.target].type == "number":
        target = f"numbers from {values.min():g} to {values.max():g}"
    else:
        counts = values.value_counts(normalize=True)
        target = ", ".join(f"{value} ({part:.1%})" for value, part in list(counts.items())[:4]) + (
            ", ..." if len(counts) > 4 else ""
        )
    looks = {"target": target}
    if time is not None:
        looks["time"] = f"from {look.frame[time].min()} to {look.frame[time].max()}"
    return looks
