"""A proposal as a commented params.yaml, and its place on disk. Owns the form of that file; guesses nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from windvane.tasks import settings, tables

_COMMENT_AT = 33
_MOST = 110

_COMMENTS = {
    "project": "names the MLflow experiment and the registered model",
    "kind": "regression | classification",
    "target": "the column to predict",
    "time": "when a row was observed; null: the table has no time",
    "id": "a column that names a row for good; null: the row's own content does",
    "group": "rows with the same value belong together in splits and resampling",
    "ignore": "columns the model must not see",
    "metric": "mae | rmse | r2; of classes: log_loss | roc_auc | average_precision | f1 | accuracy | precision | recall",
    "goal": "good enough in units of the metric: the search may stop there",
    "source": "a file, folder or glob (CSV, Parquet, JSON lines), s3://, https:// or a database URL",
    "query": "SQL, for a database",
    "key": "a growing column of a database: only what is new is read",
    "parameters": "values for :name in the query",
    "refresh": "incremental | full: all is read again, and updated and deleted rows are found",
    "http": "for an address: hosts, headers, records, paging (docs/commands.md)",
    "feedback": "rows whose labels came back from production are learned from too",
    "max_rows": "more training rows are sampled for fitting, and the lap says so; null: all are used",
    "remote": "a folder or s3://: the data of each promoted lap is pushed there",
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
    "imbalance": "rare classes while fitting: null | weights | oversample | undersample | smote",
    "threshold": "of two classes the positive is called where this is best: f1 | accuracy; null: the likelier one",
    "rule": "superior | not_worse | auto: superior after a search, not_worse after a refit",
    "confidence": "of the paired test",
    "margin": "not_worse: how much worse is still the same, relative to the champion's loss",
    "host": "the scoring service; another than 127.0.0.1 needs WINDVANE_API_KEYS",
    "port": "of the scoring service",
    "hosts": "more names under which the service is asked, such as scores.example.org; others are refused",
    "rollout": "how a lap's new champion comes to answer: direct | shadow:1d | canary:10%",
    "memory": "a version that would take the service beyond this is not loaded, and the one before goes on; null: any",
    "window": "how production is cut: a span (24h, 7d, 1mo) or a number of rows",
    "false_alarms": "share of unchanged windows that may alarm",
    "label_delay": "windows younger than this count as unlabelled",
    "webhook": "told when the state changes, as Slack has it; a secret: ${NAME}",
    "policy": "staleness | regret | performance | drift | schedule | never",
    "cost": "of a lap, in mean losses of one window",
    "history": "expanding: all rows teach | trailing:N: the last N windows do | combined:N: two models, their mean",
    "cooldown": "so long after a retraining there is no other",
    "budget": "at most so many retrainings in so long; null: no limit",
    "probation": "windows in which a new champion that does worse is rolled back",
    "train": "cron, UTC: laps whatever the watch says; null: none",
    "monitor": "cron, UTC: looks at the newest window while `windvane up` runs",
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
class Proposal:
    """Settings for a table. `params`: the content of params.yaml; `why`: a reason per ignored column; `looks`: column
    roles in words; `schema`: the text of schema.yaml.
    """

    kind: str
    rows: int
    columns: int
    params: dict[str, Any]
    assumptions: tuple[str, ...]
    why: dict[str, str]
    looks: dict[str, str]
    schema: str


def render(proposal: Proposal) -> str:
    """The text of params.yaml: the proposal's values, each key with a comment, where it can in this table's words."""
    comments = dict(_COMMENTS)
    comments |= {key: f"{_COMMENTS[key].partition(';')[0]}: {words}" for key, words in proposal.looks.items()}
    lines = [
        "# What Windvane learns, from what, and what a new model must show before it serves.",
        "# Try another value, then `windvane check`; a secret is written ${NAME} and comes from the environment.",
    ]
    for section, content in proposal.params.items():
        if not isinstance(content, dict):
            lines += [_line("", section, content, comments[section]), ""]
            continue
        lines.append(f"{section}:")
        for key, value in ((key, content[key]) for key in _order(section) if key in content):
            if key == "ignore" and value:
                lines += [
                    _pad("  ignore:", comments[key]),
                    *(_pad(f"    - {scalar(name)}", proposal.why[name]) for name in value),
                ]
            else:
                lines.append(_line("  ", key, value, comments[key]))
        lines.append("")
    return "\n".join(lines)


def write(proposal: Proposal, root: Path) -> tuple[str, ...]:
    """Write params.yaml below `root`, whole or not at all; what was written, for people.

    A different params.yaml that stands there is kept as params.yaml.bak, or .bak1, ...: no older copy is lost.
    """
    return (place(root, settings.PARAMS, render(proposal)),)


def place(root: Path, name: str, text: str) -> str:
    """Write a file that people edit, whole or not at all; a different one that stands there is kept. What was written."""
    path, content, said = root / name, text.encode(), name
    if path.exists() and path.read_bytes() != content:
        kept = _aside(path)
        tables.write_whole(kept, lambda part: part.write_bytes(path.read_bytes()))
        said += f" (the old one is kept as {kept.name})"
    tables.write_whole(path, lambda part: part.write_bytes(content))
    return said


def _aside(path: Path) -> Path:
    number = 0
    while (kept := path.with_name(f"{path.name}.bak{number or ''}")).exists():
        number += 1
    return kept


def _order(section: str) -> list[str]:
    """Keys in the order in which settings declares them."""
    annotation: Any = settings.Settings.model_fields[section].annotation
    return list(annotation.model_fields)


def _line(indent: str, key: str, value: Any, comment: str) -> str:
    return _pad(f"{indent}{key}: {scalar(value)}", comment)


def _pad(text: str, comment: str) -> str:
    short = comment if len(comment) <= _MOST else comment[: _MOST - 1] + "…"
    # Values of the table stand in comments too: a control character would end the comment, or YAML's patience.
    plain = "".join(letter if letter.isprintable() else " " for letter in short)
    return f"{text:<{_COMMENT_AT - 1}} # {' '.join(plain.split())}"


def scalar(value: Any) -> str:
    """One value as YAML on one line, quoted where YAML would read it as something else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = _flow(value, allow_unicode=True).removesuffix("...").strip()
    # A name with a line break of any kind is quoted in a way that stays on the line.
    return text if text.isprintable() else _flow(value, default_style='"')


def _flow(value: Any, **style: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1 << 20, **style).strip()
