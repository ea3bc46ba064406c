"""docs/hyperparameters.md is what its command writes."""

from __future__ import annotations

from benchmarks.hyperparameters import render_page
from tests.support.projects import ROOT


def test_e4_n1_the_reference_of_hyperparameters_is_what_its_command_writes() -> None:
    page = (ROOT / "docs" / "hyperparameters.md").read_text(encoding="utf-8")
    assert page == render_page(), "python -m benchmarks.hyperparameters > docs/hyperparameters.md"
    for name in ("max_depth", "n_estimators", "l1_ratio", "learning_rate", "max_passes"):
        assert f"`{name}`" in page
