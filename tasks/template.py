"""A proposal as a commented params.yaml, and its place on disk. Owns the form of that file; guesses nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks import settings, tables

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
    "metric": "regression: mae | rmse | r2; classification: log_loss | roc_auc | f1 | accuracy | precision | recall",
    "goal": "good enough in units of the metric: the search may stop there",
    "source": "a CSV, Parquet or JSON-lines file",
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
    "rule": "superior | not_worse | auto: superior after a search, not_worse after a refit",
    "confidence": "of the paired test",
    "margin": "not_worse: how much worse is still the same, relative to the champion's loss",
    "host": "the scoring service; another than 127.0.0.1 needs WINDVANE_API_KEYS",
    "port": "of the scoring service",
    "slices": "columns in none of whose values the challenger may be clearly worse",
    "keep": "how long predictions are kept, counted from receipt: 12h, 365d, 52w; null: for ever",
    "sample": "share of predictions whose inputs are kept; id, time, version and output always are",
    "drop": "columns of a request that are not stored",
    "hash": "columns that are stored only as a keyed hash",
}


@dataclass(frozen=True)
class Proposal:
    """Settings for a table. `params`: the content of params.yaml; `why`: a reason per ignored column; `looks`: column
    roles in words.
    """

    kind: str
    rows: int
    columns: int
    params: dict[str, Any]
    assumptions: tuple[str, ...]
    why: dict[str, str]
    looks: dict[str, str]


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
        for key, value in ((key, content[key]) for key in _order(section)):
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
    path = root / settings.PARAMS
    content = render(proposal).encode()
    said = settings.PARAMS
    if path.exists() and path.read_bytes() != content:
        kept = _aside(path)
        tables.write_whole(kept, lambda part: part.write_bytes(path.read_bytes()))
        said += f" (the old one is kept as {kept.name})"
    tables.write_whole(path, lambda part: part.write_bytes(content))
    return (said,)


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
    return f"{text:<{_COMMENT_AT - 1}} # {' '.join(short.split())}"


def scalar(value: Any) -> str:
    """One value as YAML on one line, quoted where YAML would read it as something else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20).strip()
    text = text.removesuffix("...").strip()
    # A name with a line break: JSON's quoting is YAML too, and stays on the line.
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text
