"""Local copies of versions, checked before they are loaded: start and rollback without MLflow. Measures what loading takes."""

from __future__ import annotations

import ctypes
import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psutil

from windvane.ledger.versions import Version
from windvane.serving.compiled import engine_files
from windvane.serving.compiled.agreement import compare_predictions
from windvane.serving.compiled.engine import ENGINE_FILE, PredictionEngine
from windvane.serving.compiled.engine_files import ScikitLearnEngine
from windvane.serving.compiled.explanations import PredictionExplainer
from windvane.serving.compiled.intervals import PredictionIntervals
from windvane.serving.signature import InputColumn, ModelSignature
from windvane.tasks.console import Console
from windvane.tasks.errors import Corrupted, WindvaneError
from windvane.tasks.models.problem_types.definitions import Predictions
from windvane.tasks.settings.serving_section import format_size
from windvane.tasks.stores import model_files

CACHED_VERSIONS = 4


@dataclass(frozen=True)
class LoadedVersion:
    """A version that may serve: its record in the ledger, its signature, its engine, and why it is that one. explainer and
    intervals None: it was stored without what they need.
    """

    version: Version
    signature: ModelSignature
    engine: PredictionEngine
    why: str
    explainer: PredictionExplainer | None = None
    intervals: PredictionIntervals | None = None


class ModelCache:
    """The copies in `folder`; fetch: a version's address -> a local folder with its files (may need MLflow).

    memory: bytes that loading a version may bring this process to; None: any.
    """

    def __init__(self, folder: Path, fetch: Callable[[str], Path], memory: int | None = None) -> None:
        self.folder, self._fetch, self._memory = folder, fetch, memory

    def load(self, version: Version) -> LoadedVersion:
        """A version, checked and tried. Raises Corrupted, Outage, or another WindvaneError."""
        content = self._content(version)
        folder, kind = self.folder / str(version.version), version.facts.kind
        self._fits(version, folder, content)
        try:
            form = engine_files.read_engine_files(content)
            content.clear()
            if form is None:
                signature = make_signature_from_facts(version)
                plain = ScikitLearnEngine(folder, version.manifest_sha256, kind, signature)
                return LoadedVersion(version, signature, plain, "stored without a compiled form: scikit-learn predicts")
            engine = _load_tested_engine(form, folder, version.manifest_sha256, kind)
            explainer, intervals = form.make_explainer(engine), form.make_intervals(engine)
            return LoadedVersion(version, form.signature, engine, form.why, explainer, intervals)
        finally:
            release_freed_memory()

    def _content(self, version: Version) -> dict[str, bytes]:
        """What a version's engine is made of, equal to the manifest; fetched first where there is no good copy.

        The pipeline itself, which is larger, is copied only where scikit-learn must predict.
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
        known = version.facts.memory
        if known is None and ENGINE_FILE not in content:
            return  # stored without an engine's files, and not weighed when it was built
        kind = version.facts.kind
        weight = measure_model_memory(folder, version.manifest_sha256, kind) if known is None else ModelMemory(**known)
        has = read_process_memory()
        if has + weight.peak > self._memory:
            raise WindvaneError(
                f"version {version.version} takes {format_size(weight.peak)} of memory while it is loaded, and the service has "
                f"{format_size(has)} already: more than serve.memory allows ({format_size(self._memory)}). Raise serve.memory, "
                "train a smaller model, or start the service again, which then loads this version alone"
            )

    def _tidy(self, newest: int) -> None:
        """Delete copies beyond the newest few, and what a kill left half done."""
        others = sorted((p for p in self.folder.iterdir() if p.name.isdigit()), key=lambda p: p.stat().st_mtime)
        for old in [p for p in others if p.name != str(newest)][: -(CACHED_VERSIONS - 1)]:
            shutil.rmtree(old, ignore_errors=True)
        for part in self.folder.glob(".*.part"):
            shutil.rmtree(part, ignore_errors=True)


def _load_tested_engine(
    form: engine_files.StoredEngine, folder: Path, manifest_sha256: str, kind: str
) -> PredictionEngine:
    """The engine, which has predicted the stored sample as in training."""
    engine = form.compiled or ScikitLearnEngine(folder, manifest_sha256, kind, form.signature)
    expected = Predictions(np.array(form.expected.values), form.expected.proba)
    found = compare_predictions(engine.predict(form.sample), expected)
    if found.differing or found.changed:
        raise Corrupted(
            f"version {folder.name} predicts otherwise than in training ({found}). Train again with `windvane train`"
        )
    return engine


def make_signature_from_facts(version: Version) -> ModelSignature:
    """The signature as the ledger knows it: whether training saw missing values was not written down then."""
    columns, classes = version.facts.columns, version.facts.classes
    named = [InputColumn(name, kind, True) for part, kind in engine_files.INPUT_TYPES.items() for name in columns[part]]
    return ModelSignature(tuple(named), tuple(classes) if classes else None)


# Loading takes seconds; a process that needs minutes hangs.
LOAD_TIMEOUT_SECONDS = 300
# Pages of a process that has loaded nothing of the model differ from run to run; nothing weighs less than this.
_MIN_BYTES = 1_000_000


@dataclass(frozen=True)
class ModelMemory:
    """Bytes that a version takes: at most, while it is loaded and tried, and from then on. Requests come on top."""

    peak: int
    kept: int


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
    return int(psutil.Process().memory_info().rss)


def release_freed_memory() -> None:
    """Return to the system what was freed: glibc keeps it, and loading a version frees several times what it leaves."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _read_peak_memory() -> int:
    """The most memory that this process has had."""
    if sys.platform == "linux":  # getrusage() would also count the process that started this one
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _load_whole_version(folder: Path, manifest_sha256: str, kind: str) -> Any:
    """A stored version as it is once it has responded, with reasons and intervals too."""
    content = model_files.read_verified_files(folder, manifest_sha256, engine_files.ENGINE_FILES)
    if (form := engine_files.read_engine_files(content)) is None:
        raise Corrupted(f"{folder}: holds no {ENGINE_FILE} of this release")
    engine = _load_tested_engine(form, folder, manifest_sha256, kind)
    explainer, intervals = form.make_explainer(engine), form.make_intervals(engine)
    row = [values[:1] for values in form.sample]
    predictions = engine.predict(row)
    explainer.explain(row, predictions)
    if intervals is not None:
        intervals.find_bounds(row, predictions, 0.5)
    return engine, explainer, intervals


def print_model_memory(folder: str, manifest_sha256: str, kind: str) -> None:
    """Import what a scorer has before it loads a version; load, respond in each way; print the difference as JSON."""
    import onnxruntime  # noqa: F401
    import orjson  # noqa: F401

    with Console(json=True) as console:  # the user's own code may print
        before = read_process_memory()
        loaded = _load_whole_version(Path(folder), manifest_sha256, kind)
        peak = _read_peak_memory()
        gc.collect()
        release_freed_memory()
        weight = ModelMemory(max(_MIN_BYTES, peak - before), max(_MIN_BYTES, read_process_memory() - before))
        assert loaded is not None  # it is still here
        console.print_result(asdict(weight))


if __name__ == "__main__":
    print_model_memory(*sys.argv[1:])
