"""A monitoring pass imports of Evidently what its report needs: its report is the same, and who wants all of it gets all of it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from windvane.monitoring.drift.evidently_import import skip_package_files

ALL_AND_PART = """
import sys
from windvane.monitoring.drift.evidently_import import import_evidently_report
report = import_evidently_report()
assert not {"evidently.ui", "evidently.presets", "evidently.legacy.tests.recsys_tests"} & set(sys.modules)
import plotly.io
print(plotly.io.templates[plotly.io.templates.default].layout.colorway[0])
import evidently
print(evidently.Report is report.Report, evidently.metrics.ValueDrift is report.ValueDrift)
"""


@pytest.mark.long
def test_the_report_needs_neither_server_nor_presets_and_keeps_its_colours() -> None:
    done = subprocess.run([sys.executable, "-c", ALL_AND_PART], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["#ed0400", "True", "True"], done.stderr[-2000:]


def test_a_packages_own_file_runs_only_where_all_of_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for folder in ("heavy_thing", "heavy_thing/inner"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("whole = True\n", encoding="utf-8")
    (tmp_path / "heavy_thing" / "inner" / "part.py").write_text("value = 7\n", encoding="utf-8")
    with skip_package_files(("heavy_thing", "heavy_thing.inner")):
        part = importlib.import_module("heavy_thing.inner.part")
        assert not hasattr(sys.modules["heavy_thing"], "whole")
    heavy, inner = (importlib.import_module(name) for name in ("heavy_thing", "heavy_thing.inner"))
    assert (heavy.whole, inner.whole) == (True, True)
    assert importlib.import_module("heavy_thing.inner.part") is part
    with skip_package_files(("heavy_thing",)):
        assert sys.modules["heavy_thing"] is heavy
    for name in [name for name in sys.modules if name.startswith("heavy_thing")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError), skip_package_files(("no_such_thing",)):
        pass
