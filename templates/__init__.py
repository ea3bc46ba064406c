"""Pages as Jinja2 templates with one stylesheet, and the only door to Jinja2. Each page is one HTML file that loads nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, **content: object) -> str:
    """The page of a template of this folder. Every value is escaped; one that the template names and that is missing raises."""
    return _environment().get_template(template).render(content)


@cache
def _environment() -> Environment:
    # Not at the top: `--help`, an unchanged lap and `serve` do without it until somebody opens a page.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
