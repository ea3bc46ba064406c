"""params.yaml and schema.yaml as text: proposed with a comment for each key, and edited value by value with every other byte kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io
from windvane.tasks.io import write_whole
from windvane.tasks.settings import project_params
from windvane.tasks.settings.problem_section import ProblemSettings
from windvane.tasks.validate import table_profile, table_statistics
from windvane.tasks.validate.table_profile import ColumnProfile, TableProfile

_COMMENT_AT = 33
_MAX_LINE_CHARACTERS = 110

_COMMENTS = {
    "project": "names the MLflow experiment and the registered model",
    "kind": "regression | classification",
    "target": "the column to predict",
    "positive": "of two classes the one that precision, recall, f1, average_precision and the threshold are of",
    "merge_spellings": "classes that differ only in case and blanks are one",
    "time": "when a row was observed; null: the table has no time",
    "id": "a column that names a row for good; null: the row's own content does",
    "group": "rows with the same value belong together in splits and resampling",
    "weight": "a column that holds how much a row counts, such as a survey weight; null: all count alike",
    "ignore": "columns the model must not see",
    "metric": "mae | rmse | r2; of classes: log_loss | roc_auc | average_precision | f1 | accuracy | precision | recall",
    "greater_is_better": "of a metric of your own: true or false; null: the metric is Windvane's",
    "loss": "a loss of your own for the gate, metrics.py:loss; null: that of the metric (docs/how-to/own-metric.md)",
    "goal": "good enough in units of the metric: the search may stop there",
    "source": "a file, folder or glob (CSV, Parquet, JSON lines, Excel), s3://, https:// or a database URL",
    "query": "SQL, for a database",
    "key": "a growing column of a database: only what is new is read",
    "parameters": "values for :name in the query",
    "format": "how the table is written: decimal, header, ... (docs/commands.md)",
    "refresh": "incremental | full: all is read again, and updated and deleted rows are found",
    "http": "for an address: hosts, headers, records, paging (docs/commands.md)",
    "feedback": "rows whose labels came back from production are learned from too",
    "max_rows": "more training rows are sampled for fitting, and the lap reports it; null: all are used",
    "remote": "a folder or s3://: the data of each promoted lap is pushed there",
    "features": "your own: features.py:build; null: the table's columns (docs/how-to/own-features.md)",
    "strategy": "time | stratified | random | group | kfold",
    "validation": "share of rows that tunes",
    "test": "share of rows that judges, opened once",
    "folds": "with kfold: how many",
    "seed": "all that is drawn by chance is drawn from this",
    "candidates": "tried in this order, simplest first, after a dummy baseline",
    "method": "bayesian | random | grid | manual",
    "trials": "configurations in all, shared among the candidates",
    "timeout": "seconds for the whole search",
    "manual": "with manual: [{candidate: forest, max_depth: 8}, ...]",
    "grid": "with grid: {forest: {max_depth: [4, 8, 16]}}; {}: values are chosen by the bounds (docs/hyperparameters.md)",
    "spaces": "search spaces of your own candidates: {models.py:Mine: {alpha: {low: 0.1, high: 10, log: true}}}",
    "trusted": "types that your own models and features hold and skops does not trust by itself (docs/how-to/own-model.md)",
    "imbalance": "rare classes while fitting: null | weights | oversample | undersample | smote",
    "threshold": "of two classes the positive is called where this is best: f1 | accuracy; null: the likelier one",
    "rule": "superior | not_worse | auto: superior after a search, not_worse after a refit",
    "confidence": "of the paired test",
    "margin": "not_worse: how much worse is still the same, relative to the champion's loss",
    "host": "the scoring service; another than 127.0.0.1 needs WINDVANE_API_KEYS",
    "port": "of the scoring service",
    "hosts": "more names under which the service is reached, such as scores.example.org; others are refused",
    "rollout": "how a lap's new champion takes over: direct | shadow:1d | canary:10%",
    "memory": "a version that would take the service beyond this is not loaded, and the one before goes on; null: any",
    "window": "how production is cut: a span (24h, 7d, 1mo) or a number of rows",
    "false_alarms": "share of unchanged windows that may alarm",
    "interval": "level at which intervals are checked against the labels that came",
    "label_delay": "windows younger than this count as unlabelled",
    "webhook": "notified of changes of state: Slack's format, or any address of apprise; a secret: ${NAME}",
    "policy": "regret (without problem.time: staleness) | staleness | performance | drift | schedule | never",
    "cost": "price of one lap; 1 = the loss that the champion makes in one usual window",
    "history": "training rows: expanding: all | trailing:N: the last N windows | combined:N: two models, their mean",
    "cooldown": "so long after a retraining there is no other",
    "budget": "at most so many retrainings in so long; null: no limit",
    "probation": "windows in which a new champion that does worse is rolled back",
    "train": "cron: laps whatever monitoring decides; null: none",
    "monitor": "cron: checks the new windows while `windvane up` runs",
    "timezone": "by whose clocks these tick: an IANA name, such as Europe/Berlin",
    "slices": "columns in none of whose values the challenger may be clearly worse",
    "keep": "how long predictions are kept, counted from receipt: 12h, 365d, 52w; null: for ever",
    "versions": "model files of so many of the newest versions are kept, and of so many champions; null: of all",
    "sample": "share of predictions whose inputs are kept; id, time, version and output always are",
    "drop": "columns of a request that are not stored",
    "hash": "columns that are stored only as a keyed hash",
    "mlflow": "of MLflow's pages, with `windvane up`; null: 5000, or the next free one",
    "prefect": "of Prefect's pages; null: 4200, or the next free one",
}


@dataclass(frozen=True)
class SettingsProposal:
    """Settings for a table. `params`: the content of params.yaml; `why`: a reason per ignored column; `clues`: column
    roles in words; `schema`: the text of schema.yaml.
    """

    kind: str
    rows: int
    columns: int
    params: dict[str, Any]
    assumptions: tuple[str, ...]
    why: dict[str, str]
    clues: dict[str, str]
    schema: str


def render_params(proposal: SettingsProposal) -> str:
    """The text of params.yaml: the proposal's values, each key with a comment, where it can in this table's words."""
    comments = dict(_COMMENTS)
    comments |= {key: f"{_COMMENTS[key].partition(';')[0]}: {words}" for key, words in proposal.clues.items()}
    lines = [
        "# What Windvane learns, from what, and what a new model must show before it serves.",
        "# Try another value, then `windvane check`; a secret is written ${NAME} and comes from the environment.",
    ]
    for section, content in proposal.params.items():
        if not isinstance(content, dict):
            lines += [_pad(f"{section}: {format_yaml_scalar(content)}", comments[section]), ""]
            continue
        lines.append(f"{section}:")
        declared: Any = project_params.Settings.model_fields[section].annotation
        for key, value in ((key, content[key]) for key in declared.model_fields if key in content):
            if key == "ignore" and value:
                lines.append(_pad("  ignore:", comments[key]))
                lines += [_pad(f"    - {format_yaml_scalar(name)}", proposal.why[name]) for name in value]
            else:
                lines.append(_pad(f"  {key}: {format_yaml_scalar(value)}", comments[key]))
        lines.append("")
    return "\n".join(lines)


def write_params(proposal: SettingsProposal, root: Path) -> tuple[str, ...]:
    """Write params.yaml below `root`, whole or not at all; what was written, for people.

    A different params.yaml that is there is kept as params.yaml.bak, or .bak1, ...: no older copy is lost.
    """
    return (write_user_file(root, project_params.PARAMS_FILE, render_params(proposal)),)


def write_user_file(root: Path, name: str, text: str) -> str:
    """Write a file that people edit, whole or not at all; a different one that is there is kept. What was written."""
    path, content, written = root / name, text.encode(), name
    if path.exists() and path.read_bytes() != content:
        backups = (path.with_name(f"{path.name}.bak{number or ''}") for number in count())
        kept = next(backup for backup in backups if not backup.exists())
        write_whole(kept, lambda part: part.write_bytes(path.read_bytes()))
        written += f" (the old one is kept as {kept.name})"
    write_whole(path, lambda part: part.write_bytes(content))
    return written


def _pad(text: str, comment: str) -> str:
    short = comment if len(comment) <= _MAX_LINE_CHARACTERS else comment[: _MAX_LINE_CHARACTERS - 1] + "…"
    # Values of the table occur in comments too: a control character would end the comment, or YAML's patience.
    plain = "".join(letter if letter.isprintable() else " " for letter in short)
    return f"{text:<{_COMMENT_AT - 1}} # {' '.join(plain.split())}"


def format_yaml_scalar(value: Any) -> str:
    """One value as YAML on one line, quoted where YAML would read it as something else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = _flow(value, allow_unicode=True).removesuffix("...").strip()
    # A name with any line break is quoted in a way that stays on the line.
    return text if text.isprintable() else _flow(value, default_style='"')


def _flow(value: Any, **style: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1 << 20, **style).strip()


# What a lap needs at least where the table has twice as many, else half of what it has: a small table is not refused by the
# limit that was proposed for it.
MOST_PROPOSED_ROWS = 50
# Columns of more values are not listed: a list too long to read protects nothing.
MAX_LISTED_VALUES = 40
# A range reaches beyond what was seen by so many spans: another season passes, a code such as -9999 does not.
RANGE_FACTOR = 3
# An amount that begins at zero may grow so many times: years of growth pass, a slip of three digits does not.
ROW_GROWTH_FACTOR = 10
# Below this a number has no two figures left: steps of a tenth of it are zero.
_TINY = 1e-300
# Of a complete column, this share of cells may be missing one day before the lap stops.
MIN_MISSING_SHARE = 0.3

_SCHEMA_HEAD = """\
# What the table must look like. Every lap checks it before anything is learned; what breaks it stops the lap.
# Proposed from {rows:,} rows, with room for honest change: edit it as you know your data. Limits are shares of rows.
rows:
  at_least: {least:<14} # fewer rows with a label stop the lap
  share_of_last: 0.5       # so does losing half of the rows of the last accepted table
time_order: true           # the newest row is never older than that of the last accepted table
limits:
  outside: 0.01            # cells outside a range: up to this share a warning, beyond it a stop
  new_values: 0.2          # cells with a value that is in no list: the same
{accept_line:<26} # findings that are right as they are, as check:column, such as [leak:fee, duplicates]

columns:
"""


def propose_schema(frame: pl.LazyFrame, problem: ProblemSettings, accept: Sequence[str] = ()) -> str:
    """The text of schema.yaml for the rows of `frame` (canonical types) that have a label; ignored columns are left out. `accept`:
    findings that are right as they are.
    """
    scan = table_statistics.scan_frame(frame).filter(pl.col(problem.target).is_not_null())
    scan = scan.select(pl.exclude([table_io.ROW_KEY, *problem.ignore]))
    found = table_profile.profile_table(scan)
    columns = {c.name: c for c in found.columns}
    order = [name for name in scan.collect_schema() if name in columns]
    parts = []
    for column in (columns[name] for name in order):
        values = None
        if column.type == "category" and 0 < column.distinct <= MAX_LISTED_VALUES:
            listed = scan.select(pl.col(column.name).drop_nulls().unique().sort()).collect(engine="streaming")
            values = listed.to_series().to_list()
        parts.append(_column(column, found, problem, values))
    least = min(MOST_PROPOSED_ROWS, found.rows // 2)
    return _SCHEMA_HEAD.format(
        rows=found.rows, least=least, accept_line=f"accept: {format_yaml_scalar(list(accept))}"
    ) + "\n".join(parts)


def _column(c: ColumnProfile, found: TableProfile, problem: ProblemSettings, values: list[str] | None) -> str:
    missing = c.missing / found.rows if found.rows else 0.0
    lines = [f"  {format_yaml_scalar(c.name)}:", f"    type: {c.type}"]
    if c.name in (problem.id, problem.time, problem.group, problem.weight, problem.target):
        role = next(r for r in ("target", "time", "id", "group", "weight") if getattr(problem, r) == c.name)
        lines[0] += f"  # problem.{role}"
    if c.name == problem.id:
        lines.append("    unique: true")
    room = (
        0.0 if c.name in (problem.id, problem.time) else round(min(1.0, max(MIN_MISSING_SHARE, 2 * missing + 0.2)), 2)
    )
    if c.name != problem.target:  # rows without a label are counted elsewhere
        lines.append(f"{f'    missing: {room:g}':<26} # at most; now {missing:.1%}")
    reach = _widen_range(c)
    if reach is not None and c.name != problem.time:
        ends = f"    range: [{_plain(reach[0])}, {_plain(reach[1])}]"
        lines.append(f"{ends:<26} # now {_plain(c.minimum)} to {_plain(c.maximum)}")
    if values is not None:
        lines.append(f"    categories: {format_yaml_scalar(values)}")
    return "\n".join(lines) + "\n"


def _plain(value: float | str | None) -> str:
    """A number as people write it, and as YAML reads a number: without a point, 1e+30 would be a word."""
    text = repr(float(f"{value:.7g}"))
    return text.removesuffix(".0") if "e" not in text else f"{value:.6e}"


def _widen_range(c: ColumnProfile) -> tuple[float, float] | None:
    """What was seen and as much room on either side as honest later rows may need, in round figures.

    Amounts that begin at zero stay at or above it, and grow; others move by several spans.
    """
    if c.type != "number" or not isinstance(c.minimum, float) or not isinstance(c.maximum, float):
        return None
    low, high = c.minimum, c.maximum
    if not _TINY < max(abs(low), abs(high)) < 1e300:
        return None
    if 0 <= low <= high / 10:
        return (0.0, _outwards(ROW_GROWTH_FACTOR * high))
    more = max(RANGE_FACTOR * (high - low), max(abs(low), abs(high)) / 2)
    return (_outwards(low - more), _outwards(high + more)) if 0 < more < 1e300 else None


def _outwards(value: float) -> float:
    """The next number of two figures, away from zero."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1) if value else 1.0
    return math.copysign(math.ceil(abs(value) / step) * step, value)


_BOM = "\ufeff"
# `retrain.cost` -> 0.5
ParamValues = Mapping[str, str | float]


def edit_params(path: Path, wanted: ParamValues) -> dict[str, tuple[Any, str | float]]:
    """Write values of keys such as `retrain.cost` into the file, whole or not at all; (before, now) of those that changed.

    A key that is not there is added to its section, a section at the end of the file. Raises InputError where the file cannot be
    changed so, by way of an alias for instance, and names what to write manually.
    """
    before = project_params.read_params(path)
    changed = {key: (_value(before, key), value) for key, value in wanted.items() if _value(before, key) != value}
    if not changed:
        return {}
    text = path.read_bytes().decode("utf-8")
    bom, text = (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)
    expected = dict(before)
    for key, (_, value) in changed.items():
        section, name = key.split(".")
        text = _changed(text, section, name, _format_edited_value(value))
        expected[section] = {**(expected.get(section) or {}), name: value}
    try:
        kept = yaml.safe_load(text) == expected
    except yaml.YAMLError:
        kept = False
    if not kept:
        written = ", ".join(f"{key}: {_format_edited_value(value)}" for key, (_, value) in changed.items())
        raise InputError(
            f"{path}: is written in a way that cannot be changed without touching the rest. Write {written} yourself"
        )
    project_params.parse_settings(expected, path)
    write_whole(path, lambda part: part.write_bytes((bom + text).encode("utf-8")))
    return changed


def _changed(text: str, section: str, name: str, value: str) -> str:
    """The text with one value replaced or added, found by where YAML finds it."""
    end = "\r\n" if "\r\n" in text else "\n"
    top = yaml.compose(text, yaml.SafeLoader)
    part = _child(top, section)
    if part is None:
        gap = end if text and not text.endswith("\n") else ""
        return f"{text}{gap}{end}{section}:{end}  {name}: {value}{end}"
    if not isinstance(part, yaml.MappingNode) or not part.value:  # `retrain:` or `retrain: {}`
        return _placed(text, part, f"{{{name}: {value}}}")
    known = _child(part, name)
    if known is not None:
        return _placed(text, known, value)
    first = part.value[0][0].start_mark
    between = ", " if part.flow_style else f"{end}{' ' * first.column}"
    return f"{text[: first.index]}{name}: {value}{between}{text[first.index :]}"


def _placed(text: str, node: Any, value: str) -> str:
    """The text with a value in a node's place; a comment behind it stays in its column where it can."""
    before, rest = text[: node.start_mark.index], text[node.end_mark.index :]
    written = value if before[-1:].isspace() else f" {value}"
    spaces = len(rest) - len(rest.lstrip(" "))
    if rest[spaces : spaces + 1] == "#":
        longer = len(written) - (node.end_mark.index - node.start_mark.index)
        rest = " " * max(spaces - longer, 1) + rest[spaces:]
    return before + written + rest


def _child(node: Any, name: str) -> Any:
    """The value below a key of a mapping; None: it is not there."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def _value(content: Mapping[str, Any], key: str) -> Any:
    section, name = key.split(".")
    part = content.get(section)
    return part.get(name) if isinstance(part, dict) else None


def _format_edited_value(value: str | float) -> str:
    """As YAML reads it back: bare where that is enough."""
    text = str(value) if isinstance(value, str) or float(f"{value:g}") != value else f"{value:g}"
    return text if yaml.safe_load(text) == value else f'"{text}"'
