"""params.yaml as frozen values: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.tables import chosen
from windvane.tasks.errors import InputError
from windvane.tasks.settings import project_params

CONTENT = "project: p\nproblem: {kind: regression, target: y}\ndata: {source: t.csv}\n"


def test_a_file_without_split_is_refused_in_words_that_can_be_typed(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(CONTENT)
    with pytest.raises(InputError, match=r"split: is missing.*Add the line: split: \{strategy: random\}"):
        project_params.require_split_section(path)
    path.write_text(CONTENT + "split: {strategy: random}\n")
    project_params.require_split_section(path)


@pytest.mark.parametrize(
    ("roles", "role"), [({"time": "day", "ignore": ("day",)}, "time"), ({"ignore": ("price",)}, "target")]
)
def test_a_column_with_a_role_is_not_ignored_too(roles: dict[str, Any], role: str) -> None:
    with pytest.raises(InputError, match=rf"problem\.ignore: holds problem\.{role}, column .*Take it out of the list"):
        chosen(**roles)
