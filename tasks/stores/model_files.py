"""A stored model's files: sealed with a sha256 manifest, checked before anything is parsed, copied from MLflow whole
or not at all, and tried in a fresh process. skops instead of pickle; the types that it may build are our own list.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.tasks.errors import Corrupted, WindvaneError, read_first_line
from windvane.tasks.io import write_json, write_whole

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.models.problem_types.definitions import OwnCode

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.skops"
SAMPLE_FILE = "sample.parquet"
OWN_CODE_FILE = "own_code.json"
RESTORE_ADVICE = "Restore the folder from a backup, or `windvane rollback` to serve the version before"


def hash_file(path: Path) -> str:
    """The file's sha256, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def seal_folder(folder: Path) -> str:
    """Write manifest.json with the sha256 of every file in the folder; the manifest's own sha256."""
    files = {
        p.relative_to(folder).as_posix(): hash_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST_FILE
    }
    write_json({"files": files}, folder / MANIFEST_FILE)
    return hash_file(folder / MANIFEST_FILE)


def read_manifest(folder: Path, manifest_sha256: str) -> dict[str, str]:
    """The sha256 of each file of the folder by name, as its manifest records them. Raises Corrupted for another manifest."""
    manifest = folder / MANIFEST_FILE
    try:
        text = manifest.read_bytes()
    except OSError:
        raise Corrupted(f"{manifest}: is gone. {RESTORE_ADVICE}") from None
    if hashlib.sha256(text).hexdigest() != manifest_sha256:
        raise Corrupted(f"{manifest}: is not the manifest that the ledger recorded. {RESTORE_ADVICE}")
    files: dict[str, str] = json.loads(text)["files"]
    return files


def verify_folder(folder: Path, manifest_sha256: str, wanted: Collection[str] = ()) -> dict[str, bytes]:
    """The content of the files in `wanted` that there are, once every file of the folder was found equal to its recorded hash.

    The others are read piece by piece. Raises Corrupted naming the first file that is gone, was changed, or was added.
    """
    files = read_manifest(folder, manifest_sha256)
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not _is_left_by_mlflow(p)}
    if strange := present - set(files) - {MANIFEST_FILE}:
        raise Corrupted(f"{folder / min(strange)}: was added after the model was stored. {RESTORE_ADVICE}")
    content: dict[str, bytes] = {}
    for name, digest in files.items():
        if name not in present:
            raise Corrupted(f"{folder / name}: is gone. {RESTORE_ADVICE}")
        if name in wanted:
            content[name] = _read_verified(folder / name, digest)
        elif hash_file(folder / name) != digest:
            raise _changed(folder / name)
    return content


def _is_left_by_mlflow(path: Path) -> bool:
    """Whether MLflow, or Python for it, wrote the file when somebody loaded the model where it lies. Never read here."""
    return path.name == "registered_model_meta" or path.parent.name == "__pycache__"


def read_verified_files(folder: Path, manifest_sha256: str, wanted: Collection[str]) -> dict[str, bytes]:
    """Files in `wanted` that the manifest knows, each equal to its recorded hash; no other is opened. Raises Corrupted."""
    files = read_manifest(folder, manifest_sha256)
    return {name: _read_verified(folder / name, files[name]) for name in wanted if name in files}


def _read_verified(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError:
        raise Corrupted(f"{path}: is gone. {RESTORE_ADVICE}") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise _changed(path)
    return content


def _changed(path: Path) -> Corrupted:
    return Corrupted(f"{path}: its bytes were changed after the model was stored; it is not opened. {RESTORE_ADVICE}")


def load_model(folder: Path, manifest_sha256: str) -> Any:
    """The model, from bytes that were checked first. Raises Corrupted."""
    files = verify_folder(folder, manifest_sha256, [MODEL_FILE, OWN_CODE_FILE])
    from skops.io.exceptions import UntrustedTypesFoundException

    own = _parse_own_code(files)
    try:
        return _load_skops(files[MODEL_FILE], own)
    except ImportError as e:
        packages = list_own_packages(own)
        needs = f" Install {' '.join(packages)}" if packages else ""
        raise WindvaneError(
            f"{folder}: the model needs {e.name or 'a package'}, which is not installed as it was.{needs}"
        ) from None
    except UntrustedTypesFoundException:
        raise Corrupted(
            f"{folder / MODEL_FILE}: holds types that this Windvane does not load: another release wrote it. "
            "Use that release, or move .windvane away and run `windvane train`"
        ) from None


def read_stored_code(folder: Path, manifest_sha256: str) -> tuple[OwnCode, ...]:
    """All of the user's own code that a version was stored with, its bytes checked; (): it has none. Raises Corrupted."""
    return _parse_own_code(read_verified_files(folder, manifest_sha256, [OWN_CODE_FILE]))


def _parse_own_code(files: Mapping[str, bytes]) -> tuple[OwnCode, ...]:
    from windvane.tasks.models.problem_types.definitions import OwnCode

    return tuple(map(OwnCode.from_json, json.loads(files[OWN_CODE_FILE]))) if OWN_CODE_FILE in files else ()


def list_own_packages(own: Sequence[OwnCode]) -> tuple[str, ...]:
    """The packages that the user's own code needs, as `name==version`."""
    return tuple(dict.fromkeys(package for code in own for package in code.packages))


def save_pipeline(model: Any, path: Path, own: Sequence[OwnCode] = ()) -> str:
    """Store a fitted pipeline as one skops file; the file's sha256. own: the user's own code that it is made with.

    Raises OwnCodeError for one that skops cannot store, or that holds types which are neither known nor named as trusted.
    """
    content = dump_pipeline(model, own)
    write_whole(path, lambda part: part.write_bytes(content))
    return hashlib.sha256(content).hexdigest()


def dump_pipeline(model: Any, own: Sequence[OwnCode] = ()) -> bytes:
    """A fitted pipeline as skops stores it; see save_pipeline()."""
    from skops.io import dumps

    holders = [code for code in own if code.role in ("candidate", "features")]
    if not holders:
        return bytes(dumps(model))
    name = " and ".join(code.name for code in holders)
    from windvane.tasks.models.problem_types.definitions import OwnCodeError

    try:
        content = bytes(dumps(model))
    except Exception as e:  # the user's own objects may raise anything
        raise OwnCodeError(
            f"{name}: cannot be stored without pickle: {read_first_line(e)}. Keep numbers, arrays, lists, dicts and estimators in it"
        ) from e
    if strange := _list_untrusted_types(content, _list_trusted(holders)):
        raise OwnCodeError(
            f"{name}: holds types that skops does not trust: {', '.join(_name_type(one, own) for one in strange)}. Keep plain "
            "values in it, or name them in search.trusted if you trust the code that they are of"
        )
    return content


def _list_trusted(own: Sequence[OwnCode]) -> list[str]:
    return [name for code in own for name in code.trusted]


def _name_type(one: str, own: Sequence[OwnCode]) -> str:
    """A type as search.trusted takes it: of the user's file by the file's name."""
    from windvane.tasks.models.own_modules import name_own_module

    for file, text in (file for code in own for file in code.files):
        if one.startswith(f"{name_own_module(text)}."):
            return f"{file}:{one.partition('.')[2]}"
    return one


def _list_untrusted_types(content: bytes, trusted: Sequence[str]) -> list[str]:
    """Types in what dumps() wrote that neither skops, nor Windvane, nor `trusted` allows."""
    from skops.io import get_untrusted_types

    from windvane.tasks.models.model_pipeline import TRUSTED_TYPES

    return sorted(set(get_untrusted_types(data=content)) - {*TRUSTED_TYPES, *trusted})


def load_pipeline(path: Path, digest: str, own: Sequence[OwnCode] = ()) -> Any | None:
    """The pipeline that save_pipeline() stored; None: the file is gone or has other bytes, and none of them is parsed."""
    if not path.exists() or hashlib.sha256(content := path.read_bytes()).hexdigest() != digest:
        return None
    return _load_skops(content, own)


def _load_skops(content: bytes, own: Sequence[OwnCode]) -> Any:
    from skops.io import loads

    from windvane.tasks.models import own_modules
    from windvane.tasks.models.model_pipeline import TRUSTED_TYPES

    own_modules.run_stored_code(code for code in own if code.role in ("candidate", "features"))
    return loads(content, trusted=[*TRUSTED_TYPES, *_list_trusted(own)])


# What a stored model needs where MLflow loads it by its own code, which runs the compiled form.
_PORTABLE_LIBRARIES = ("mlflow", "numpy", "onnxruntime", "pandas")
# Rows of the example that MLflow's pages show.
_EXAMPLE_ROWS = 3


def save_model(
    model: Any,
    folder: Path,
    sample: pd.DataFrame,
    predicted: Any,
    beside: Mapping[str, bytes] | None = None,
    code: Mapping[str, str] | None = None,
    own: Sequence[OwnCode] = (),
) -> str:
    """Store a fitted pipeline as an MLflow model, sealed; the manifest's sha256.

    `sample` are a few rows (n, features) and `predicted` (n,) the model's predictions for them: the smoke test
    must find the same. `beside`: more files by name, sealed with the rest. code: a package's files by path, with which MLflow
    loads the model in any environment (serving/compiled/mlflow_model.py); None: Windvane must be installed there. own: the user's
    own code, sealed with the rest; of its trusted types those that the model holds. Raises OwnCodeError as save_pipeline() does.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema

    from windvane.tasks.stores.fingerprint import list_model_libraries

    # Of any type: MLflow would refuse whole numbers for a column that training read as floats, and dates as text.
    inputs = Schema([ColSpec(AnyType(), str(name)) for name in sample.columns])
    with tempfile.TemporaryDirectory() as temporary:
        for name, text in (code or {}).items():
            path = Path(temporary) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        packages = [str(path) for path in Path(temporary).iterdir()]
        mlflow.pyfunc.save_model(
            folder,
            loader_module=Path(packages[0]).name if packages else "windvane.serving.compiled.engine_files",
            code_paths=packages or None,
            signature=ModelSignature(inputs, infer_signature(model_output=predicted).outputs),
            input_example=_make_input_example(sample.head(_EXAMPLE_ROWS)),
            # Given, not inferred: inferring loads the model in another process for several seconds.
            pip_requirements=[f"{name}=={version(name)}" for name in _PORTABLE_LIBRARIES]
            if packages
            else [
                *(f"{name}=={number}" for name, number in list_model_libraries().items()),
                *list_own_packages(own),
            ],
        )
    save_pipeline(model, folder / MODEL_FILE, own)
    if own:
        held = set(_list_untrusted_types((folder / MODEL_FILE).read_bytes(), ()))
        kept = [replace(code, trusted=tuple(name for name in code.trusted if name in held)) for code in own]
        write_json([code.to_json() for code in kept], folder / OWN_CODE_FILE)
    sample.assign(_prediction=predicted).to_parquet(folder / SAMPLE_FILE, index=False)
    for name, content in (beside or {}).items():
        (folder / name).write_bytes(content)
    return seal_folder(folder)


def _make_input_example(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as JSON can hold them: dates as text, None where a value is missing."""
    dates = {name: rows[name].dt.strftime("%Y-%m-%dT%H:%M:%S") for name in rows if rows[name].dtype.kind == "M"}
    plain = rows.assign(**dates).astype(object)
    return plain.where(plain.notna(), None)


def describe_logged_model(folder: Path, run: str, at: str) -> str:
    """The line of JSON by which MLflow's pages know that a run's artifact `at` is the model that lies in `folder`."""
    from mlflow.models import Model

    facts = Model.load(str(folder)).get_tags_dict()
    return json.dumps([{**facts, "run_id": run, "artifact_path": at}])


_NAME_LETTERS = 32


def fetch_artifact_copy(address: str, folder: Path, tracking_uri: str | None, digest: str | None = None) -> Path:
    """The copy of an artifact (a file or a folder) in `folder`, whose bytes have the sha256 `digest` where one is recorded.

    Raises FileNotFoundError where the store has no such artifact, and what tasks/stores/mlflow_store.py names. A copy that is
    wrong even when it is new is handed over as it is: the caller, who knows what it should be, refuses it.
    """
    place = locate_artifact_copy(address, folder)
    if (found := _get_only_entry(place)) is not None and is_intact(found, digest):
        return found
    from filelock import FileLock

    from windvane.tasks.stores.mlflow_client import download_artifact

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{place.name}.lock"):
        if (found := _get_only_entry(place)) is not None and is_intact(found, digest):
            return found  # another process was faster
        part, old = folder / f".{place.name}.part", folder / f".{place.name}.old"
        for left in (part, old):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
        download_artifact(address, part, tracking_uri)
        if place.exists():
            place.rename(old)
        part.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    if (found := _get_only_entry(place)) is None:
        raise FileNotFoundError(f"{address}: is empty in MLflow's artifact store")
    return found


def locate_artifact_copy(address: str, folder: Path) -> Path:
    """Where in `folder` the copy of an artifact lies, if there is one."""
    return folder / hashlib.sha256(address.encode()).hexdigest()[:_NAME_LETTERS]


def is_intact(path: Path, digest: str | None) -> bool:
    """Whether a file has the digest, or a folder with a manifest holds what that lists. Without either: whether it is there."""
    if path.is_file():
        return digest is None or hash_file(path) == digest
    try:
        text = (path / MANIFEST_FILE).read_bytes()
    except FileNotFoundError:
        return path.is_dir() and digest is None
    if digest is not None and hashlib.sha256(text).hexdigest() != digest:
        return False
    try:
        return all(hash_file(path / name) == wanted for name, wanted in json.loads(text)["files"].items())
    except (ValueError, KeyError, FileNotFoundError):
        return False


def _get_only_entry(place: Path) -> Path | None:
    """What lies in a copy's folder."""
    return next(place.iterdir(), None) if place.is_dir() else None


# Loading a model and predicting twenty rows take seconds; a process that needs minutes hangs.
SMOKE_TEST_TIMEOUT_SECONDS = 300


class SmokeTester:
    """A fresh process that has imported what a model needs and waits for its path. It ends when this one does."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-P", "-m", "windvane.tasks.stores.model_files"]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True)

    def test(self, folder: Path, manifest_sha256: str) -> None:
        """Have the process load the model and compare its predictions. Raises WindvaneError with what was wrong."""
        try:
            _, output = self._process.communicate(
                json.dumps([str(folder), manifest_sha256]), timeout=SMOKE_TEST_TIMEOUT_SECONDS
            )
        except subprocess.TimeoutExpired:
            self.close()
            output = f"no response within {SMOKE_TEST_TIMEOUT_SECONDS} seconds"
        if self._process.returncode != 0:
            raise WindvaneError(f"the stored model failed its smoke test and is not promoted: {output.strip()[-500:]}")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()


def check_stored_model(folder: Path, manifest_sha256: str) -> None:
    """Load the stored model here and compare its predictions on the stored sample with those made in training."""
    import pandas as pd

    sample = pd.read_parquet(io.BytesIO(verify_folder(folder, manifest_sha256, [SAMPLE_FILE])[SAMPLE_FILE]))
    expected = sample.pop("_prediction").to_numpy()
    responses = np.asarray(load_model(folder, manifest_sha256).predict(sample))
    is_number = expected.dtype.kind == "f"
    if not (np.allclose(responses, expected, rtol=1e-9) if is_number else (responses == expected).all()):
        raise Corrupted(f"{folder}: predicts differently than in training. Train again with `windvane train`")


def run_smoke_test() -> int:
    """Import first, then read from standard input which model to try."""
    if hasattr(os, "nice"):
        # These imports take seconds of a core that the search's fits would miss; there is time until a model is built.
        os.nice(15)
    import skops.io  # noqa: F401

    import windvane.tasks.models.features  # noqa: F401

    line = sys.stdin.read()
    if not line:
        return 0  # the parent process needs it no more
    folder, manifest_sha256 = json.loads(line)
    try:
        check_stored_model(Path(folder), manifest_sha256)
    except WindvaneError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run_smoke_test())
