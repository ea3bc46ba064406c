"""Local copies of versions, checked before they are loaded: with one at hand the service starts and rolls back without
MLflow. Measures what loading takes, in a process of its own.
"""

from __future__ import annotations

import ctypes
import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from windvane.ledger.versions import Version
from windvane.serving.compiled import engine_files
from windvane.serving.compiled.engine import PredictionEngine
from windvane.serving.signature import InputColumn, ModelSignature
from windvane.tasks.errors import Corrupted, WindvaneError
from windvane.tasks.settings import serving_section
from windvane.tasks.stores import model_files

CACHED_VERSIONS = 4


@dataclass(frozen=True)
class LoadedVersion:
    """A version that may answer: its record in the ledger, what it may be asked, its engine, and why it is that one."""

    version: Version
    signature: ModelSignature
    engine: PredictionEngine
    why: str


class ModelCache:
    """The copies in `folder`; fetch: a version's address -> a local folder with its files (may need MLflow).

    memory: bytes that loading a version may bring this process to; None: any.
    """

    def __init__(self, folder: Path, fetch: Callable[[str], Path], memory: int | None = None) -> None:
        self.folder, self._fetch, self._memory = folder, fetch, memory

    def load(self, version: Version) -> LoadedVersion:
        """A version, checked and tried. Raises Corrupted, Outage, or what else WindvaneError says."""
        content = self._content(version)
        folder, kind = self.folder / str(version.version), version.facts["kind"]
        self._fits(version, folder, content)
        try:
            form = engine_files.read_engine_files(content)
            content.clear()
            if form is None:
                signature = _make_signature_from_facts(version)
                engine = _load_scikit_learn_engine(folder, version.manifest_sha256, kind, signature)
                return LoadedVersion(version, signature, engine, "stored without a compiled form: scikit-learn answers")
            engine = _load_tested_engine(form, folder, version.manifest_sha256, kind)
            return LoadedVersion(version, form.signature, engine, form.why)
        finally:
            release_freed_memory()

    def _content(self, version: Version) -> dict[str, bytes]:
        """What a version's engine is made of, equal to the manifest; fetched first where there is no good copy.

        The pipeline itself, which is larger, is copied only where scikit-learn must answer.
        """
        copy, digest = self.folder / str(version.version), version.manifest_sha256
        if copy.exists():
            try:
                content = model_files.read_verified_files(copy, digest, engine_files.ENGINE_FILES)
                if not engine_files.has_compiled_form(content):
                    model_files.verify_folder(copy, digest)
                return content
            except Corrupted:
                shutil.rmtree(copy)
        part = self.folder / f".{version.version}.{uuid4().hex[:8]}.part"
        try:
            source = self._fetch(version.model_uri)
            content = model_files.verify_folder(source, digest, engine_files.ENGINE_FILES)
            if engine_files.has_compiled_form(content):
                part.mkdir(parents=True)
                shutil.copyfile(source / model_files.MANIFEST_FILE, part / model_files.MANIFEST_FILE)
                for name, of in content.items():
                    (part / name).write_bytes(of)
            else:
                shutil.copytree(source, part)
                model_files.verify_folder(part, digest)
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
        if known is None and engine_files.ENGINE_FILE not in content:
            return  # stored without an engine's files, and not weighed when it was built
        kind = version.facts["kind"]
        weight = measure_model_memory(folder, version.manifest_sha256, kind) if known is None else ModelMemory(**known)
        has = read_process_memory()
        if has + weight.peak > self._memory:
            raise WindvaneError(
                f"version {version.version} takes {serving_section.format_size(weight.peak)} of memory while it is loaded, "
                f"and the service has {serving_section.format_size(has)} already: more than serve.memory allows "
                f"({serving_section.format_size(self._memory)}). Raise serve.memory, "
                "train a smaller model, or start the service again, which then loads this version alone"
            )

    def _tidy(self, newest: int) -> None:
        """Delete copies beyond the newest few, and what a kill left half done."""
        others = sorted((p for p in self.folder.iterdir() if p.name.isdigit()), key=lambda p: p.stat().st_mtime)
        for old in [p for p in others if p.name != str(newest)][: -(CACHED_VERSIONS - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        for part in self.folder.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)


def load_stored_engine(folder: Path, manifest_sha256: str, kind: str) -> PredictionEngine:
    """The engine of a stored version, tried, outside the service. Raises Corrupted."""
    form = engine_files.read_engine_files(
        model_files.read_verified_files(folder, manifest_sha256, engine_files.ENGINE_FILES)
    )
    if form is None:
        raise Corrupted(f"{folder}: holds no {engine_files.ENGINE_FILE} of this release")
    return _load_tested_engine(form, folder, manifest_sha256, kind)


def _load_tested_engine(
    form: engine_files.StoredEngine, folder: Path, manifest_sha256: str, kind: str
) -> PredictionEngine:
    engine = form.compiled or _load_scikit_learn_engine(folder, manifest_sha256, kind, form.signature)
    _smoke_test_engine(engine, form, folder.name)
    return engine


def _load_scikit_learn_engine(
    folder: Path, manifest_sha256: str, kind: str, signature: ModelSignature
) -> PredictionEngine:
    from windvane.serving.compiled.engine_files import ScikitLearnEngine

    return ScikitLearnEngine(folder, manifest_sha256, kind, signature)


def _make_signature_from_facts(version: Version) -> ModelSignature:
    """The signature as the ledger knows it: whether training saw missing values was not written down then."""
    columns: dict[str, Any] = version.facts["columns"]
    types = {"numbers": "number", "booleans": "boolean", "low": "category", "high": "category", "dates": "date"}
    classes = version.facts.get("classes")
    named = [(name, kind) for part, kind in types.items() for name in columns[part]]
    return ModelSignature(tuple(InputColumn(name, kind, True) for name, kind in named), classes and tuple(classes))  # type: ignore[arg-type]


def _smoke_test_engine(engine: PredictionEngine, form: engine_files.StoredEngine, version: str) -> None:
    """Have the engine answer the stored sample."""
    import numpy as np

    from windvane.serving.compiled.agreement import compare_predictions
    from windvane.tasks.models.problem_types.definitions import Predictions

    found = compare_predictions(
        engine.predict(form.sample), Predictions(np.array(form.expected.values), form.expected.proba)
    )
    if found.differing or found.changed:
        raise Corrupted(
            f"version {version} answers otherwise than in training ({found}). Teach again with `windvane train`"
        )


# Loading takes seconds; a process that needs minutes hangs.
LOAD_TIMEOUT_SECONDS = 300
# Pages of a process that has loaded nothing of the model differ from run to run; nothing weighs less than this.
_MIN_BYTES = 1_000_000


@dataclass(frozen=True)
class ModelMemory:
    """Bytes that a version takes: at most, while it is loaded and tried, and from then on. Requests come on top."""

    peak: int
    kept: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure_model_memory(folder: Path, manifest_sha256: str, kind: str) -> ModelMemory:
    """The weight of the version in `folder`; kind: problem.kind. Raises WindvaneError where it cannot be loaded."""
    command = [sys.executable, "-P", "-m", "windvane.serving.model_cache", str(folder), manifest_sha256, kind]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise WindvaneError(f"{folder}: was not loaded within {LOAD_TIMEOUT_SECONDS} seconds") from None
    if done.returncode != 0:
        raise WindvaneError(f"{folder}: cannot be loaded in the scorer: {done.stderr.strip()[-500:]}")
    return ModelMemory(**json.loads(done.stdout))


def read_process_memory() -> int:
    """Bytes of memory that this process has at the moment."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def release_freed_memory() -> None:
    """Return to the system what was freed: glibc keeps it, and loading a version frees several times what it leaves."""
    if (trim := _find_malloc_trim()) is not None:
        trim(0)


@cache
def _find_malloc_trim() -> Any | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def _read_peak_memory() -> int:
    """The most memory that this process has had."""
    if sys.platform == "linux":  # getrusage() would also count the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def print_model_memory(folder: str, manifest_sha256: str, kind: str) -> None:
    """Import what a scorer has before it loads a version; load; print the difference as JSON."""
    import numpy  # noqa: F401
    import onnxruntime  # noqa: F401
    import orjson  # noqa: F401

    before = read_process_memory()
    loaded = load_stored_engine(Path(folder), manifest_sha256, kind)
    peak = _read_peak_memory()
    gc.collect()
    release_freed_memory()
    weight = ModelMemory(max(_MIN_BYTES, peak - before), max(_MIN_BYTES, read_process_memory() - before))
    assert loaded is not None  # it is still here
    print(json.dumps(weight.to_json()))


if __name__ == "__main__":
    print_model_memory(*sys.argv[1:])
