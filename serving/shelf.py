"""Versions on the service's own disk: `.windvane/serving/<version>/`, a copy of the stored model, checked before it is opened.

With a copy at hand the service starts and goes back to an earlier version without MLflow. The newest few are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from windvane.ledger.versions import Version
from windvane.serving import stored
from windvane.serving.engine import Engine
from windvane.serving.signature import Input, Signature
from windvane.tasks import artifacts
from windvane.tasks.errors import Corrupted, WindvaneError

KEPT = 4


@dataclass(frozen=True)
class Loaded:
    """A version that may answer: its record in the ledger, what it may be asked, its engine, and why it is that one."""

    version: Version
    signature: Signature
    engine: Engine
    why: str


class Shelf:
    """The copies in `folder`; fetch: a version's address -> a local folder with its files (may need MLflow)."""

    def __init__(self, folder: Path, fetch: Callable[[str], Path]) -> None:
        self.folder, self._fetch = folder, fetch

    def load(self, version: Version) -> Loaded:
        """A version, checked and tried. Raises Corrupted, Outage, or what else WindvaneError says."""
        content = self._content(version)
        folder = self.folder / str(version.version)
        form = stored.read(content)
        if form is None:
            signature = _told(version)
            engine = self._fallback(folder, version, signature)
            return Loaded(version, signature, engine, "stored without a compiled form: scikit-learn answers")
        engine = form.compiled or self._fallback(folder, version, form.signature)
        _smoke(engine, form, version.version)
        return Loaded(version, form.signature, engine, form.why)

    def _content(self, version: Version) -> dict[str, bytes]:
        """The copy's files, equal to the manifest; fetched first where there is no good copy."""
        copy = self.folder / str(version.version)
        if copy.exists():
            try:
                return artifacts.verify(copy, version.manifest_sha256)
            except Corrupted:
                shutil.rmtree(copy)
        try:
            source = self._fetch(version.model_uri)
            artifacts.verify(source, version.manifest_sha256)
            part = self.folder / f".{version.version}.{uuid4().hex[:8]}.part"
            shutil.copytree(source, part)
        except OSError as e:
            raise WindvaneError(f"version {version.version} cannot be fetched: {e}. Is the store there?") from e
        content = artifacts.verify(part, version.manifest_sha256)
        part.rename(copy)
        self._tidy(version.version)
        return content

    def _tidy(self, newest: int) -> None:
        """Delete copies beyond the newest few, and what a kill left half done."""
        others = sorted((p for p in self.folder.iterdir() if p.name.isdigit()), key=lambda p: p.stat().st_mtime)
        for old in [p for p in others if p.name != str(newest)][: -(KEPT - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        for part in self.folder.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)

    def _fallback(self, folder: Path, version: Version, signature: Signature) -> Engine:
        from windvane.serving.fallback import ScikitLearn

        return ScikitLearn(folder, version.manifest_sha256, version.facts["kind"], signature)


def _told(version: Version) -> Signature:
    """The signature as the ledger knows it: whether training saw missing values was not written down then."""
    columns: dict[str, Any] = version.facts["columns"]
    types = {"numbers": "number", "booleans": "boolean", "low": "category", "high": "category", "dates": "date"}
    classes = version.facts.get("classes")
    named = [(name, kind) for part, kind in types.items() for name in columns[part]]
    return Signature(tuple(Input(name, kind, True) for name, kind in named), classes and tuple(classes))  # type: ignore[arg-type]


def _smoke(engine: Engine, form: stored.Form, version: int) -> None:
    """Have the engine answer the stored sample."""
    import numpy as np

    from windvane.serving.agreement import compare
    from windvane.tasks.problems import Predictions

    found = compare(engine.predict(form.sample), Predictions(np.array(form.expected.values), form.expected.proba))
    if found.differing or found.changed:
        raise Corrupted(
            f"version {version} answers otherwise than in training ({found}). Teach again with `windvane train`"
        )
