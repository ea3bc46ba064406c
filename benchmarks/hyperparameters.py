"""docs/hyperparameters.md: every hyperparameter of every candidate, from the search spaces themselves.

python -m benchmarks.hyperparameters > docs/hyperparameters.md
"""

from __future__ import annotations

from typing import get_args

from windvane.tasks.models.problem_types import definitions
from windvane.tasks.models.problem_types.definitions import (
    BASELINE_CANDIDATE,
    ChoiceSet,
    Hyperparameter,
    IntRange,
    ProblemType,
    format_value,
)
from windvane.tasks.search import search_plan
from windvane.tasks.settings.problem_section import METRICS_BY_KIND, ProblemKind

_HEAD = """\
# Hyperparameters

Written by `python -m benchmarks.hyperparameters`; a test holds that it is up to date. These are the names and values that
`search.manual` and `search.grid` take; `windvane check` refuses others. They are those of scikit-learn's estimators.

"tuned": `bayesian` and `random` draw it, and `grid` spreads values over it where `search.grid` gives none; all others stay
at their default unless `search.manual` or `search.grid` names them. `log_target` is tuned where the target is positive and
skewed.
"""


def render_page() -> str:
    """The whole page."""
    lines = [_HEAD]
    for name in get_args(ProblemKind):
        kind = definitions.load_problem_type(name)
        lines.append(f"## {name.capitalize()}\n")
        for candidate in (c for c in kind.candidates.values() if c.name != BASELINE_CANDIDATE):
            lines += [f"### `{candidate.name}`\n", "| name | values | default | tuned |", "|---|---|---|---|"]
            lines += [_format_row(kind, candidate.name, key, d) for key, d in candidate.space.items()]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _format_row(kind: ProblemType, candidate: str, key: str, dimension: Hyperparameter) -> str:
    if isinstance(dimension, ChoiceSet):
        values = ", ".join(f"`{format_value(option)}`" for option in dimension.options)
    else:
        values = f"{dimension.low:g} to {dimension.high:g}"
        if isinstance(dimension, IntRange):
            values = f"whole numbers {dimension.low} to {dimension.high}"
        values += ", by factors" if dimension.log else ""
    default = f"`{format_value(dimension.default)}`"
    for metric in METRICS_BY_KIND[kind.name]:
        chosen = search_plan.select_search_spaces(kind, True, metric)[candidate].defaults[key]
        default += f"; with `metric: {metric}` `{format_value(chosen)}`" if chosen != dimension.default else ""
    return f"| `{key}` | {values} | {default} | {'yes' if dimension.tuned else 'no'} |"


if __name__ == "__main__":
    print(render_page(), end="")
