"""Every fault that was found in the field is held by a test of its own and by three of its neighbours."""

from __future__ import annotations

import re

import pytest

from tests.support.projects import ROOT

# The faults that are fixed, by their entry: C cells, D what init assumes, E learning, F monitoring, G labels, H pages.
FIXED = (
    *("c1", "c2", "c3", "c4", "c5"),
    *("d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8"),
    *("e1", "e2", "e3", "e4", "e5", "e6", "e7"),
    *("f1", "f2", "f3", "f4", "f5", "f7", "f8"),
    *("g1", "g2", "g3"),
    *("h1", "h3"),
)


def names_of_tests() -> list[str]:
    """All test functions, in lower case."""
    files = (ROOT / "tests").rglob("test_*.py")
    return [name for file in files for name in re.findall(r"def test_(\w+)", file.read_text(encoding="utf-8").lower())]


@pytest.mark.parametrize("entry", FIXED)
def test_a_fault_of_the_field_has_a_test_and_three_neighbours(entry: str) -> None:
    own = [name for name in names_of_tests() if name.startswith(f"{entry}_")]
    for number in (1, 2, 3):
        assert [name for name in own if name.startswith(f"{entry}_n{number}_")], f"{entry}_n{number}"
    assert [name for name in own if not re.match(rf"{entry}_n\d", name)], entry
