"""Looks at any table and proposes settings for it, each assumption in words. Leaves the file to tasks/template.py.

Guesses only what a person would see at a glance; what is doubtful it says, and the user edits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from windvane.tasks import contract_template, ingest, plan, profile, readers, roles, settings, sources, tables
from windvane.tasks.data_settings import Data, literal
from windvane.tasks.errors import InputError
from windvane.tasks.ledger_settings import Ledger
from windvane.tasks.port_settings import Ports
from windvane.tasks.profile import Column
from windvane.tasks.serve_settings import Serve
from windvane.tasks.template import Proposal, render, write
from windvane.tasks.watch_settings import Monitor, Retrain, Schedule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Proposal", "propose", "render", "write"]

# Rows looked at, evenly spaced: enough for every rule here, and a large table is proposed for in seconds.
SAMPLE = 50_000
# Keys of the data section that every params.yaml shows; the others only where they say something.
SHOWN = ("source", "query", "key", "refresh", "feedback", "max_rows", "remote")
_FOLDS = 5
# A class with less than a quarter of the commonest one's rows (of two: under a fifth of all) is rare. Then log loss and
# accuracy are nearly perfect for a model that never calls it, and whoever made the table most likely looks for it.
_RARE = 0.25
# What production is cut into, in days, by what the table shows of its pace.
_SPANS = {"1d": 1.0, "7d": 7.0, "1mo": 30.4}
_WINDOWS, _WINDOW_ROWS = 24, 50


def named(table: str, query: str | None, key: str | None) -> Data:
    """A table as it is typed, as the data section for it. Raises InputError for an address that nothing here reads."""
    web = {"hosts": [urlsplit(table).hostname]} if table.startswith(("http://", "https://")) else None
    content = {"source": table if "://" in table else literal(table), "query": query, "key": key, "http": web}
    place = {"kind": "regression", "target": "target"}
    return settings.parse({"project": "project", "problem": place, "data": content}, "TABLE").data


def propose(
    table: Data | Path,
    target: str,
    *,
    time: str | None = None,
    id: str | None = None,
    kind: str | None = None,
    ignore: tuple[str, ...] = (),
) -> Proposal:
    """Look at a table, fetched where it is remote, and propose settings that tasks.settings.parse accepts.

    What is given is kept; the rest is guessed, and each guess is one of `assumptions`. Raises InputError when a named
    column is absent, or the target can be neither a class nor an amount.
    """
    data = Data(source=literal(table.as_posix())) if isinstance(table, Path) else table
    with ingest.scratch(Path()) as folder, sources.readable(data.where):
        opened = tuple(readers.cells(path, folder, ignore) for path in sources.files(Path(), data))
        names = tuple(dict.fromkeys(name for file in opened for name in file.names))
        named = {"--target": target, "--time": time, "--id": id}
        wanted = [(option, name) for option, name in named.items() if name] + [("--ignore", name) for name in ignore]
        profile.require(tuple(wanted), names, data.where)
        whole = roles.Whole(folder / "whole.parquet")
        problems = ingest.join(opened, whole.path, folder, ignore, None).problems
        for name in (target, time, id):
            if name in problems:
                raise InputError(problems[name])
        why = {**dict.fromkeys(ignore, "as you said"), **{name: _short(text) for name, text in problems.items()}}
        return _propose(data, whole, len(names), target, time, id, kind, why, ignore)


def _propose(
    data: Data,
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
    look = roles.Look(whole, sample, _columns(whole, sample, target), target, data.where)
    notes = [f"looked at {len(sample):,} of {len(whole):,} rows, evenly spaced"] if len(sample) < len(whole) else []
    kind = kind or roles.kind_of(look, notes)
    time = time or roles.time_of(look, why, notes)
    id = id or roles.id_of(look, {time, *why}, notes)
    why |= roles.ignored(look, kind, {target, time, id, *why})
    params = _params(data, {"kind": kind, "target": target, "time": time, "id": id, "ignore": sorted(why)}, look, notes)
    notes += [f"ignores {name!r}: {reason}" for name, reason in sorted(why.items()) if name not in ignore]
    problem = settings.parse(params, "the proposal").problem
    schema = contract_template.propose(tables.scan(whole.path), problem)
    reasons = {literal(name): reason for name, reason in why.items()}
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


def _params(data: Data, problem: dict[str, Any], look: roles.Look, notes: list[str]) -> dict[str, Any]:
    rows = int(look.frame[look.target].notna().sum())
    small = rows < plan.FEW
    strategy = "kfold" if small else "stratified" if problem["kind"] == "classification" else "random"
    strategy = "time" if problem["time"] else strategy
    reasons = {
        "time": "the newest rows judge",
        "kfold": f"{rows} rows are few, every one tunes in turn",
        "stratified": "every class stands on every side",
        "random": "rows have no order",
    }
    notes.append(f"split by {strategy}: {reasons[strategy]}")
    metric, search = settings.METRICS.get(problem["kind"], (None,))[0], _defaults(settings.Search)
    if (candidates := plan.affordable(rows)) != tuple(search["candidates"]):
        search["candidates"] = list(candidates)
        notes.append(
            f"{rows} labelled rows are few: candidates {', '.join(candidates)}; boosting needs more to know when to stop. "
            "More rows help more than more trials: the lap says how many"
        )
    if problem["kind"] == "classification" and (rare := _rare(look)):
        metric, said = "average_precision", ""
        if look.frame[look.target].nunique() == 2:
            search["threshold"] = "f1"
            said = ", a threshold tuned for f1"
        notes.append(
            f"{rare}: metric average_precision{said}; no resampling, which did not rank rare rows better (docs/decisions/)"
        )
    name = re.sub(r"[^A-Za-z0-9.]+", "-", Path(data.where).stem).strip("-.")[:100] or "table"
    return {
        "project": name,
        "problem": {
            **{key: _literal(value) for key, value in problem.items()},
            "group": None,
            "metric": metric,
            "goal": None,
        },
        "data": {k: v for k, v in data.model_dump(mode="json").items() if k in SHOWN or (k == "http" and v)},
        "split": {**_defaults(settings.Split), "strategy": strategy, "folds": _FOLDS if strategy == "kfold" else None},
        "search": search,
        "gate": _defaults(settings.Gate),
        "monitor": {**_defaults(Monitor), "window": _window(look, problem["time"], notes)},
        "retrain": _defaults(Retrain),
        "serve": _defaults(Serve),
        "ledger": _defaults(Ledger),
        "schedule": _defaults(Schedule),
        "ports": _defaults(Ports),
        "retention": _defaults(settings.Retention),
    }


def _window(look: roles.Look, time: str | None, notes: list[str]) -> str | int:
    """The longest span of which the table holds _WINDOWS, with _WINDOW_ROWS rows in a usual one; of numbers, which no calendar
    divides, so many rows.
    """
    rows = len(look.frame)
    if time is None:
        return str(Monitor().window)
    known = look.sample[time].dropna()
    if known.dtype.kind != "M":
        few = max(_WINDOW_ROWS, int(float(f"{rows / (2 * _WINDOWS):.1g}")))
        notes.append(f"watches windows of {few:,} rows")
        return few
    days = (known.max() - known.min()).total_seconds() / 86_400
    wide = {name: days / length for name, length in _SPANS.items() if rows * length >= _WINDOW_ROWS * days} or {
        "1mo": days / _SPANS["1mo"]
    }
    many = [name for name, count in wide.items() if count >= _WINDOWS]
    chosen = many[-1] if many else next(iter(wide))
    notes.append(f"watches windows of {chosen}: about {rows / max(wide[chosen], 1):,.0f} rows each")
    return chosen


def _rare(look: roles.Look) -> str | None:
    """The rarest class in words if it is rare, else None."""
    counts = look.frame[look.target].value_counts()
    if len(counts) < 2 or counts.iloc[-1] >= _RARE * counts.iloc[0]:
        return None
    return f"{look.target!r} is {counts.index[-1]} in only {counts.iloc[-1] / counts.sum():.1%} of the rows"


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return literal(value)
    return [literal(name) for name in value] if isinstance(value, list) else value


def _defaults(section: type[BaseModel]) -> dict[str, Any]:
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
