"""Versions on the service's own disk: `.windvane/serving/<version>/`, a copy of what answers, checked before it is opened.

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
from windvane.serving import stored, weigh
from windvane.serving.engine import Engine
from windvane.serving.signature import Input, Signature
from windvane.tasks import artifacts, sizes
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
    """The copies in `folder`; fetch: a version's address -> a local folder with its files (may need MLflow).

    memory: bytes that loading a version may bring this process to; None: any.
    """

    def __init__(self, folder: Path, fetch: Callable[[str], Path], memory: int | None = None) -> None:
        self.folder, self._fetch, self._memory = folder, fetch, memory

    def load(self, version: Version) -> Loaded:
        """A version, checked and tried. Raises Corrupted, Outage, or what else WindvaneError says."""
        content = self._content(version)
        folder, kind = self.folder / str(version.version), version.facts["kind"]
        self._fits(version, folder, content)
        try:
            form = stored.read(content)
            content.clear()
            if form is None:
                signature = _told(version)
                engine = _fallback(folder, version.manifest_sha256, kind, signature)
                return Loaded(version, signature, engine, "stored without a compiled form: scikit-learn answers")
            engine = _tried(form, folder, version.manifest_sha256, kind)
            return Loaded(version, form.signature, engine, form.why)
        finally:
            weigh.give_back()

    def _content(self, version: Version) -> dict[str, bytes]:
        """What a version's engine is made of, equal to the manifest; fetched first where there is no good copy.

        The pipeline itself, which is larger, is copied only where scikit-learn must answer.
        """
        copy, digest = self.folder / str(version.version), version.manifest_sha256
        if copy.exists():
            try:
                content = artifacts.take_files(copy, digest, stored.FILES)
                if not stored.is_compiled(content):
                    artifacts.verify(copy, digest)
                return content
            except Corrupted:
                shutil.rmtree(copy)
        part = self.folder / f".{version.version}.{uuid4().hex[:8]}.part"
        try:
            source = self._fetch(version.model_uri)
            content = artifacts.verify(source, digest, stored.FILES)
            if stored.is_compiled(content):
                part.mkdir(parents=True)
                shutil.copyfile(source / artifacts.MANIFEST, part / artifacts.MANIFEST)
                for name, of in content.items():
                    (part / name).write_bytes(of)
            else:
                shutil.copytree(source, part)
                artifacts.verify(part, digest)
        except OSError as e:
            raise WindvaneError(f"version {version.version} cannot be fetched: {e}. Is the store there?") from e
        part.rename(copy)
        self._tidy(version.version)
        return content

    def _fits(self, version: Version, folder: Path, content: dict[str, bytes]) -> None:
        """Raise WindvaneError for a version whose loading would take more memory than there may be."""
        if self._memory is None:
            return
        known = version.facts.get("memory")
        if known is None and stored.ENGINE not in content:
            return  # stored without an engine's files, and not weighed when it was built
        kind = version.facts["kind"]
        weight = weigh.weigh(folder, version.manifest_sha256, kind) if known is None else weigh.Weight(**known)
        has = weigh.now()
        if has + weight.peak > self._memory:
            raise WindvaneError(
                f"version {version.version} takes {sizes.shown(weight.peak)} of memory while it is loaded, and the service has "
                f"{sizes.shown(has)} already: more than serve.memory allows ({sizes.shown(self._memory)}). Raise serve.memory, "
                "train a smaller model, or start the service again, which then loads this version alone"
            )

    def _tidy(self, newest: int) -> None:
        """Delete copies beyond the newest few, and what a kill left half done."""
        others = sorted((p for p in self.folder.iterdir() if p.name.isdigit()), key=lambda p: p.stat().st_mtime)
        for old in [p for p in others if p.name != str(newest)][: -(KEPT - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        for part in self.folder.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)


def opened(folder: Path, manifest_sha256: str, kind: str) -> Engine:
    """The engine of a stored version, tried, outside the service. Raises Corrupted."""
    form = stored.read(artifacts.take_files(folder, manifest_sha256, stored.FILES))
    if form is None:
        raise Corrupted(f"{folder}: holds no {stored.ENGINE} of this release")
    return _tried(form, folder, manifest_sha256, kind)


def _tried(form: stored.Form, folder: Path, manifest_sha256: str, kind: str) -> Engine:
    engine = form.compiled or _fallback(folder, manifest_sha256, kind, form.signature)
    _smoke(engine, form, folder.name)
    return engine


def _fallback(folder: Path, manifest_sha256: str, kind: str, signature: Signature) -> Engine:
    from windvane.serving.fallback import ScikitLearn

    return ScikitLearn(folder, manifest_sha256, kind, signature)


def _told(version: Version) -> Signature:
    """The signature as the ledger knows it: whether training saw missing values was not written down then."""
    columns: dict[str, Any] = version.facts["columns"]
    types = {"numbers": "number", "booleans": "boolean", "low": "category", "high": "category", "dates": "date"}
    classes = version.facts.get("classes")
    named = [(name, kind) for part, kind in types.items() for name in columns[part]]
    return Signature(tuple(Input(name, kind, True) for name, kind in named), classes and tuple(classes))  # type: ignore[arg-type]


def _smoke(engine: Engine, form: stored.Form, version: str) -> None:
    """Have the engine answer the stored sample."""
    import numpy as np

    from windvane.serving.agreement import compare
    from windvane.tasks.problems import Predictions

    found = compare(engine.predict(form.sample), Predictions(np.array(form.expected.values), form.expected.proba))
    if found.differing or found.changed:
        raise Corrupted(
            f"version {version} answers otherwise than in training ({found}). Teach again with `windvane train`"
        )
