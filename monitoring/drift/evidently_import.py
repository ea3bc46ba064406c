"""Imports monitoring/drift/evidently.py, and of Evidently only what that needs: half of the time of importing all of it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

# Packages whose own files import all of Evidently, its server and presets included; parents first.
_LEFT_OUT = ("evidently", "evidently.legacy.tests", "evidently.legacy.ui.dashboards")


def import_evidently_report() -> Any:
    """The module `windvane.monitoring.drift.evidently`."""
    with skip_package_files(_LEFT_OUT):
        from windvane.monitoring.drift import evidently
    return evidently


@contextmanager
def skip_package_files(names: Sequence[str]) -> Iterator[None]:
    """Inside, modules of these packages are imported without running the packages' own `__init__.py`. Who imports from a
    package afterwards gets all of it. Names that are imported already stay as they are.
    """
    found = importlib.util.find_spec(names[0].partition(".")[0])
    if found is None or found.origin is None:
        raise ModuleNotFoundError(names[0])
    root, bare = Path(found.origin).parents[1], dict[str, ModuleType]()
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = bare[name] = ModuleType(name)
            bare[name].__path__ = [str(root.joinpath(*name.split(".")))]
    try:
        yield
    finally:
        for name, module in bare.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
