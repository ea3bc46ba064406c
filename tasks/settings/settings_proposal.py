"""Proposes settings for any table: what its columns are (tasks/settings/column_guesses.py), how it is split, searched and monitored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import polars as pl
from pydantic import BaseModel

from windvane.tasks.errors import InputError, join_messages
from windvane.tasks.ingest import ingestion, readers, table_io
from windvane.tasks.ingest.cell_reading import LONGEST_NAME, call_column, is_cut_name
from windvane.tasks.ingest.readers import FileCells
from windvane.tasks.search import search_plan
from windvane.tasks.settings import (
    column_guesses,
    format_guesses,
    group_guesses,
    problem_section,
    project_params,
    yaml_files,
)
from windvane.tasks.settings.column_guesses import InspectedTable, StoredTable, describe_guess
from windvane.tasks.settings.data_section import DataSettings, escape_variables
from windvane.tasks.settings.monitoring_section import MonitorSettings
from windvane.tasks.settings.yaml_files import SettingsProposal
from windvane.tasks.sources import table_files
from windvane.tasks.split import strategies
from windvane.tasks.validate import table_profile
from windvane.tasks.validate.checks import target_checks
from windvane.tasks.validate.table_profile import ColumnProfile

# Rows read, evenly spaced: enough for every rule here, and a large table is proposed for in seconds.
PROPOSAL_SAMPLE_ROWS = 50_000
# Keys of the data section that every params.yaml shows; the others only where they add something.
SHOWN_DATA_KEYS = ("source", "query", "key", "refresh", "feedback", "max_rows", "remote")
_FOLDS = 5
# A class with less than a quarter of the commonest one's rows (of two: under a fifth of all) is rare. Then log loss and
# accuracy are nearly perfect for a model that never calls it, and it is most likely the class to be found.
_RARE = 0.25
# An amount in more of the rows is the median of all.
_USUAL_SHARE = 0.5
# What production is cut into, in days, by what the table shows of its pace.
_SPANS = {"1d": 1.0, "7d": 7.0, "1mo": 30.4}
_WINDOWS, _WINDOW_ROWS = 24, 50


@dataclass(frozen=True)
class NamedRoles:
    """What the user has named; the rest is guessed. merge_spellings: whether classes of several spellings are one."""

    target: str
    time: str | None
    id: str | None
    kind: str | None
    ignore: tuple[str, ...]
    positive: str | None
    merge_spellings: bool


def parse_table_address(
    table: str, query: str | None, key: str | None, private: bool = False, format: Mapping[str, Any] | None = None
) -> DataSettings:
    """A table as it is typed, as the data section for it; format: keys of data.format. Raises InputError for an address that nothing
    here reads.
    """
    web = None
    if table.startswith(("http://", "https://")):
        web = {"hosts": [urlsplit(table).hostname], **({"private": True} if private else {})}
    content = {
        "source": table if "://" in table else escape_variables(table),
        "query": query,
        "key": key,
        "http": web,
        "format": dict(format or {}),
    }
    place = {"kind": "regression", "target": "target"}
    return project_params.parse_settings({"project": "project", "problem": place, "data": content}, "TABLE").data


def propose_settings(
    table: DataSettings | Path,
    target: str,
    *,
    time: str | None = None,
    id: str | None = None,
    kind: str | None = None,
    ignore: tuple[str, ...] = (),
    positive: str | None = None,
) -> SettingsProposal:
    """Inspect a table, fetched where it is remote, and propose settings that tasks.settings.project_params.parse_settings accepts.

    What is given is kept; the rest is guessed, and each guess is one of `assumptions`. Raises InputError when a named
    column is absent, or the target can be neither a class nor an amount.
    """
    data = DataSettings(source=escape_variables(table.as_posix())) if isinstance(table, Path) else table
    target, time, id = call_column(target), time and call_column(time), id and call_column(id)
    ignore = tuple(map(call_column, ignore))
    with ingestion.open_scratch_folder(Path()) as folder, table_files.explain_read_errors(data.where):
        paths, notes = table_files.list_table_files(Path(), data), list[str]()
        form = format_guesses.propose_start(paths, data.format, target, notes)
        opened = tuple(readers.open_cells(path, folder, ignore, form) for path in paths)
        if totals := [f"{file.path}: {file.totals}" for file in opened if file.totals]:
            notes += [f"{total}: it is left out (likely); --format total_rows=keep overrides it" for total in totals]
            form = form.model_copy(update={"total_rows": "drop"})
            opened = tuple(readers.open_cells(path, folder, ignore, form) for path in paths)
        if faults := [fault for file in opened for fault in file.faults]:
            raise InputError(join_messages(faults))
        form = format_guesses.propose_missing_words(opened, form, notes)
        opened = tuple(replace(file, format=form) for file in opened)
        form = format_guesses.propose_format(opened, form, notes)
        data = data.model_copy(update={"format": form})
        opened = tuple(replace(file, format=form) for file in opened)
        notes += [f"{file.path}: {note}" for file in opened if file.dialect for note in file.dialect.notes]
        names = tuple(dict.fromkeys(name for file in opened for name in file.names))
        notes += [
            f"a name of more than {LONGEST_NAME} letters is cut: {name!r} (sure)" for name in names if is_cut_name(name)
        ]
        named = {"--target": target, "--time": time, "--id": id}
        wanted = [(option, name) for option, name in named.items() if name] + [("--ignore", name) for name in ignore]
        table_profile.require_columns(tuple(wanted), names, data.where)
        whole = StoredTable(folder / "whole.parquet")
        problems = ingestion.join_files(opened, whole.path, folder, ignore, None).problems
        for name in (target, time, id):
            if name in problems:
                raise InputError(problems[name])
        if kind != "regression" and (common := _find_class_called_none(opened, whole, target)):
            words = (*data.format.keep_words, target)
            kept = data.model_copy(update={"format": data.format.model_copy(update={"keep_words": words})})
            again = propose_settings(kept, target, time=time, id=id, kind=kind, ignore=ignore, positive=positive)
            note = f"{common} is a class of {target!r}"
            line = describe_guess(note, "likely: words mean classes there", "data.format.keep_words")
            return replace(again, assumptions=(line, *again.assumptions))
        ingestion.drop_nameless_columns(whole.path, folder)
        ingestion.drop_empty_rows(whole.path, folder)
        spellings = {} if kind == "regression" else ingestion.merge_class_spellings(whole.path, target, folder)
        # A reading problem without the file's name and the remedy, for a comment.
        short = {name: text.partition(": ")[2].split(". ")[0].replace("\n", " ") for name, text in problems.items()}
        why = {**dict.fromkeys(ignore, "as given"), **short}
        notes += [
            f"{', '.join(map(repr, (first, *others)))} are one class of {target!r}, written {first!r} (likely); "
            "problem.merge_spellings: false keeps them apart"
            for first, others in spellings.items()
        ]
        roles = NamedRoles(target, time, id, kind, ignore, positive, merge_spellings=bool(spellings))
        proposal = _propose(data, whole, len(names), roles, why, notes)
        return replace(proposal, assumptions=(*proposal.assumptions, *_describe_missing_words(opened, whole)))


def _find_class_called_none(opened: tuple[FileCells, ...], whole: StoredTable, target: str) -> str | None:
    """The word None with its share, where a target of words has it, as in none, some, much: other words for no value are none."""
    if table_io.scan_parquet(whole.path).collect_schema().get(target) != pl.String:
        return None
    found = {words for file in opened for words in readers.find_missing_words(file, (target,)).values()}
    return min(found) if found and all(words.partition(" (")[0] == "None" for words in found) else None


def _describe_missing_words(opened: tuple[FileCells, ...], whole: StoredTable) -> list[str]:
    """One line on words such as NA that are common in columns of text: there they may be values."""
    schema = table_io.scan_parquet(whole.path).collect_schema()
    texts = tuple(name for name, kind in schema.items() if kind == pl.String)
    found = {name: words for file in opened for name, words in readers.find_missing_words(file, texts).items()}
    if not found:
        return []
    listed = "; ".join(f"{words} in {name!r}" for name, words in found.items())
    return [
        f"no value: {listed}; data.format: {{keep_words: [{', '.join(found)}]}} in params.yaml keeps such words as values"
    ]


def _propose(
    data: DataSettings,
    whole: StoredTable,
    columns: int,
    given: NamedRoles,
    why: dict[str, str],
    notes: list[str],
) -> SettingsProposal:
    target, accept = given.target, list[str]()
    of_classes = dict[str, Any]({"merge_spellings": True} if given.merge_spellings else {})
    sample = _spread(whole)
    inspected = InspectedTable(whole, sample, _columns(whole, sample, target), target, data.where)
    if len(sample) < len(whole):
        notes.append(f"checked {len(sample):,} of {len(whole):,} rows, evenly spaced")
    kind = given.kind or column_guesses.guess_problem_kind(inspected, notes)
    if kind == "classification" or given.positive is not None:
        of_classes["positive"] = column_guesses.choose_positive_class(inspected, given.positive, notes)
    if kind == "classification" and len(few := column_guesses.count_classes(inspected)[1]):
        accept.append(f"classes:{target}")
        notes.append(column_guesses.describe_set_aside(few, target))
    time = given.time or column_guesses.guess_time_column(inspected, why, notes)
    id = given.id or column_guesses.guess_id_column(inspected, {time, *why}, notes)
    roles = {"kind": kind, "target": target, **of_classes, "time": time, "id": id}
    group, belongs = _propose_group(data, roles, inspected, why)
    why |= column_guesses.propose_ignored_columns(inspected, kind, {target, time, id, group, *why}, notes)
    if group is not None:
        notes.append(
            describe_guess(
                f"rows of one {group!r} belong together and stay in one split: {belongs}",
                "likely",
                "problem.group: null",
            )
        )
    params = _params(data, {**roles, "group": group, "ignore": sorted(why)}, inspected, notes)
    notes += [
        f"ignores {name!r}: {reason}; problem.ignore overrides it"
        for name, reason in sorted(why.items())
        if name not in given.ignore
    ]
    problem = project_params.parse_settings(params, "the proposal").problem
    schema = yaml_files.propose_schema(table_io.scan_parquet(whole.path), problem, accept)
    reasons = {escape_variables(name): reason for name, reason in why.items()}
    clues = _describe_columns(inspected, kind, time) | ({} if group is None else {"group": belongs})
    return SettingsProposal(kind, len(whole), columns, params, tuple(notes), reasons, clues, schema)


def _propose_group(
    data: DataSettings, roles: dict[str, Any], inspected: InspectedTable, why: dict[str, str]
) -> tuple[str | None, str]:
    """problem.group, and why; None where no column clearly names subjects, time parts the rows, or too few subjects make no splits."""
    found = None if roles["time"] else group_guesses.guess_group_column(inspected, {roles["id"], *why})
    if found is None:
        return None, ""
    proposed = project_params.parse_settings(_params(data, {**roles, "group": found[0], "ignore": []}, inspected, []))
    rows = pd.DataFrame({name: inspected.frame[name] for name in (found[0], roles["target"])})
    try:
        strategies.split_rows(rows[rows[roles["target"]].notna()].reset_index(drop=True), proposed, None)
    except InputError:
        return None, ""
    return found


def _spread(whole: StoredTable) -> pd.DataFrame:
    rows = len(whole)
    wanted = np.zeros(rows, dtype=bool)
    wanted[np.linspace(0, rows - 1, min(rows, PROPOSAL_SAMPLE_ROWS)).astype(np.int64)] = True
    scan = pl.concat([table_io.scan_parquet(whole.path), pl.LazyFrame({"_wanted": wanted})], how="horizontal")
    frame = scan.filter(pl.col("_wanted")).drop("_wanted").collect(engine="streaming")
    return table_io.convert_to_pandas(frame, table_io.count_missing(whole.path))


def _columns(whole: StoredTable, sample: pd.DataFrame, target: str) -> dict[str, ColumnProfile]:
    """Columns as they are in the sample's labelled rows. A value that comes back may do so outside a sample: texts are read whole."""
    columns = {c.name: c for c in table_profile.profile_table(sample[sample[target].notna()]).columns}
    labelled = whole[target].notna()
    texts = [name for name, column in columns.items() if column.type == "text" and len(sample) < len(whole)]
    return {**columns, **{name: table_profile.profile_column(whole[name][labelled]) for name in texts}}


def _params(data: DataSettings, problem: dict[str, Any], inspected: InspectedTable, notes: list[str]) -> dict[str, Any]:
    rows = int(inspected.frame[inspected.target].notna().sum())
    small, needed = rows < search_plan.SMALL_TABLE_ROWS, target_checks.MIN_LABELLED_ROWS["time"]
    strategy = "kfold" if small else "stratified" if problem["kind"] == "classification" else "random"
    strategy = "group" if problem["group"] and not small else strategy
    strategy = "time" if problem["time"] and rows >= needed else strategy
    too_few = f"; for the newest to judge, at least {needed} are needed" if problem["time"] else ""
    reasons = {
        "time": "the newest rows judge",
        "kfold": f"{rows} rows are few, every one tunes in turn{too_few}",
        "stratified": "every class is in every split",
        "random": "rows have no order",
        "group": f"whole groups of {problem['group']!r} judge",
    }
    notes.append(describe_guess(f"split by {strategy}: {reasons[strategy]}", "likely", "split.strategy"))
    metric = problem_section.METRICS_BY_KIND.get(problem["kind"], (None,))[0]
    content = {
        section: field.default.model_dump(mode="json")
        for section, field in project_params.Settings.model_fields.items()
        if isinstance(field.default, BaseModel)
    }
    search = content["search"]
    if (candidates := search_plan.propose_candidates(rows)) != tuple(search["candidates"]):
        search["candidates"] = list(candidates)
        notes.append(
            f"{rows} labelled rows are few: candidates {', '.join(candidates)}; boosting needs more to know when to stop; "
            "search.candidates overrides it"
        )
    if problem["kind"] == "classification" and (rare := _rare(inspected)):
        metric, remark = "average_precision", ""
        if len(column_guesses.count_classes(inspected)[0]) == 2:
            search["threshold"] = "f1"
            remark = ", a threshold tuned for f1"
        notes.append(
            f"{rare}: metric average_precision{remark}; no resampling, which did not rank rare rows better (docs/decisions/); "
            "problem.metric and search.threshold override it"
        )
    if problem["kind"] == "regression" and (usual := _describe_usual_value(inspected)):
        metric = "rmse"
        notes.append(
            describe_guess(
                f"{usual}: always predicting it is best under mae, so metric rmse", "likely", "problem.metric"
            )
        )
    name = re.sub(r"[^A-Za-z0-9.]+", "-", Path(data.where).stem).strip("-.")[:100] or "table"
    content["split"] |= {"strategy": strategy, "folds": _FOLDS if strategy == "kfold" else None}
    content["monitor"]["window"] = _window(inspected, problem["time"], notes)
    if problem["time"] is None:
        content["retrain"]["policy"] = "staleness"  # regret compares models over time
    literal = {key: _literal(value) for key, value in problem.items()}
    return {
        "project": name,
        "problem": {**literal, "weight": None, "metric": metric, "greater_is_better": None, "loss": None, "goal": None},
        "data": {k: v for k, v in data.model_dump(mode="json").items() if k in SHOWN_DATA_KEYS or (k == "http" and v)}
        | ({"format": written} if (written := data.format.model_dump(mode="json", exclude_defaults=True)) else {}),
        "features": None,
        **content,
    }


def _window(inspected: InspectedTable, time: str | None, notes: list[str]) -> str | int:
    """The longest span of which the table holds _WINDOWS, with _WINDOW_ROWS rows in a usual one; of numbers, which no calendar
    divides, so many rows.
    """
    rows = len(inspected.frame)
    if time is None:
        return str(MonitorSettings().window)
    known = inspected.sample[time].dropna()
    if known.dtype.kind != "M":
        few = max(_WINDOW_ROWS, int(float(f"{rows / (2 * _WINDOWS):.1g}")))
        notes.append(describe_guess(f"watches windows of {few:,} rows", "a guess", "monitor.window"))
        return few
    days = (known.max() - known.min()).total_seconds() / 86_400
    wide = {name: days / length for name, length in _SPANS.items() if rows * length >= _WINDOW_ROWS * days} or {
        "1mo": days / _SPANS["1mo"]
    }
    many = [name for name, count in wide.items() if count >= _WINDOWS]
    chosen = many[-1] if many else next(iter(wide))
    each = f"watches windows of {chosen}: about {rows / max(wide[chosen], 1):,.0f} rows each"
    notes.append(describe_guess(each, "a guess", "monitor.window"))
    return chosen


def _describe_usual_value(inspected: InspectedTable) -> str | None:
    """The amount that more than half of the rows have, the median of any model that knows no better, in words; else None."""
    if inspected.columns[inspected.target].type != "number":
        return None
    shares = inspected.frame[inspected.target].value_counts(normalize=True)
    if shares.iloc[0] <= _USUAL_SHARE:
        return None
    return f"{inspected.target!r} is {shares.index[0]:g} in {shares.iloc[0]:.0%} of the rows"


def _rare(inspected: InspectedTable) -> str | None:
    """The rarest class in words if it is rare, else None."""
    counts, _ = column_guesses.count_classes(inspected)
    if len(counts) < 2 or counts.iloc[-1] >= _RARE * counts.iloc[0]:
        return None
    return f"{inspected.target!r} is {counts.index[-1]} in only {counts.iloc[-1] / counts.sum():.1%} of the rows"


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return escape_variables(value)
    return [escape_variables(name) for name in value] if isinstance(value, list) else value


def _describe_columns(inspected: InspectedTable, kind: str, time: str | None) -> dict[str, str]:
    values = inspected.frame[inspected.target]
    if kind == "regression" and inspected.columns[inspected.target].type == "number":
        target = f"numbers from {values.min():g} to {values.max():g}"
    else:
        counts = values.value_counts(normalize=True)
        target = ", ".join(f"{value} ({part:.1%})" for value, part in list(counts.items())[:4])
        target += ", ..." if len(counts) > 4 else ""
    clues = {"target": target}
    if time is not None:
        clues["time"] = f"from {inspected.frame[time].min()} to {inspected.frame[time].max()}"
    return clues
