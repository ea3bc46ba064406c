"""A stored model's bytes: sealed with a sha256 manifest when written, checked before anything is parsed.

skops instead of pickle, and the types it may build are our own list: a list read from the model's own folder
would let the model vouch for itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.errors import Corrupted
from windvane.tasks.tables import write_json, write_whole

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"
MODEL = "model.skops"
SAMPLE = "sample.parquet"
_ADVICE = "Restore the folder from a backup, or `windvane rollback` to serve the version before"


def sha256(path: Path) -> str:
    """The file's sha256, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def seal(folder: Path) -> str:
    """Write manifest.json with the sha256 of every file in the folder; the manifest's own sha256."""
    files = {
        p.relative_to(folder).as_posix(): sha256(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }
    write_json({"files": files}, folder / MANIFEST)
    return sha256(folder / MANIFEST)


def recorded(folder: Path, manifest_sha256: str) -> dict[str, str]:
    """The sha256 of each file of the folder by name, as its manifest records them. Raises Corrupted for another manifest."""
    manifest = folder / MANIFEST
    try:
        text = manifest.read_bytes()
    except OSError:
        raise Corrupted(f"{manifest}: is gone. {_ADVICE}") from None
    if hashlib.sha256(text).hexdigest() != manifest_sha256:
        raise Corrupted(f"{manifest}: is not the manifest that the ledger recorded. {_ADVICE}")
    files: dict[str, str] = json.loads(text)["files"]
    return files


def verify(folder: Path, manifest_sha256: str, wanted: Collection[str] = ()) -> dict[str, bytes]:
    """The content of the files in `wanted` that there are, once every file of the folder was found equal to its recorded hash.

    The others are read piece by piece. Raises Corrupted naming the first file that is gone, was changed, or was added.
    """
    files = recorded(folder, manifest_sha256)
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    if strange := present - set(files):
        raise Corrupted(f"{folder / min(strange)}: was added after the model was stored. {_ADVICE}")
    content: dict[str, bytes] = {}
    for name, digest in files.items():
        if name not in present:
            raise Corrupted(f"{folder / name}: is gone. {_ADVICE}")
        if name in wanted:
            content[name] = _read(folder / name, digest)
        elif sha256(folder / name) != digest:
            raise _changed(folder / name)
    return content


def take_files(folder: Path, manifest_sha256: str, wanted: Collection[str]) -> dict[str, bytes]:
    """The content of the files in `wanted` that the manifest knows, each equal to its recorded hash; the others are not opened.

    Raises Corrupted.
    """
    files = recorded(folder, manifest_sha256)
    return {name: _read(folder / name, files[name]) for name in wanted if name in files}


def _read(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError:
        raise Corrupted(f"{path}: is gone. {_ADVICE}") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise _changed(path)
    return content


def _changed(path: Path) -> Corrupted:
    return Corrupted(f"{path}: its bytes were changed after the model was stored; it is not opened. {_ADVICE}")


def load(folder: Path, manifest_sha256: str) -> Any:
    """The model, from bytes that were checked first. Raises Corrupted."""
    content = verify(folder, manifest_sha256, [MODEL])[MODEL]
    from skops.io import loads

    from windvane.tasks.estimators import TRUSTED

    return loads(content, trusted=list(TRUSTED))


def put(model: Any, path: Path) -> str:
    """Store a fitted pipeline as one skops file, for what is cheap to teach again; the file's sha256."""
    from skops.io import dumps

    content = dumps(model)
    write_whole(path, lambda part: part.write_bytes(content))
    return hashlib.sha256(content).hexdigest()


def take(path: Path, digest: str) -> Any | None:
    """The pipeline that put() stored; None: the file is gone or has other bytes, and none of them is parsed."""
    if not path.exists() or hashlib.sha256(content := path.read_bytes()).hexdigest() != digest:
        return None
    from skops.io import loads

    from windvane.tasks.estimators import TRUSTED

    return loads(content, trusted=list(TRUSTED))


def save(
    model: Any, folder: Path, sample: pd.DataFrame, predicted: Any, kind: str, beside: Mapping[str, bytes] | None = None
) -> str:
    """Store a fitted pipeline as an MLflow model in skops format, sealed; the manifest's sha256.

    `sample` are a few rows (n, features) and `predicted` (n,) what the model says of them: the smoke test
    must find the same, and MLflow's signature is read off them. `beside`: more files by name, sealed with the rest.
    """
    import mlflow.sklearn
    from mlflow.models import infer_signature

    from windvane.tasks.estimators import TRUSTED
    from windvane.tasks.fingerprint import libraries

    mlflow.sklearn.save_model(
        model,
        folder,
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED),
        signature=infer_signature(sample, predicted),
        # Given, not inferred: inferring loads the model in another process for several seconds.
        pip_requirements=[f"{name}=={version}" for name, version in libraries().items()],
        metadata={"kind": kind},
    )
    sample.assign(_prediction=predicted).to_parquet(folder / SAMPLE, index=False)
    for name, content in (beside or {}).items():
        (folder / name).write_bytes(content)
    return seal(folder)
