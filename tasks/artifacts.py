"""A stored model's bytes: sealed with a sha256 manifest when written, checked before anything is parsed.

skops instead of pickle, and the types it may build are our own list: a list read from the model's own folder
would let the model vouch for itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.errors import Corrupted
from windvane.tasks.tables import write_json, write_whole

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"
MODEL = "model.skops"
SAMPLE = "sample.parquet"


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


def verify(folder: Path, manifest_sha256: str) -> dict[str, bytes]:
    """The folder's files, read once and each equal to its recorded hash.

    Raises Corrupted naming the first file that is gone, was changed, or was added.
    """
    advice = "Restore the folder from a backup, or `windvane rollback` to serve the version before"
    manifest = folder / MANIFEST
    try:
        text = manifest.read_bytes()
    except OSError:
        raise Corrupted(f"{manifest}: is gone. {advice}") from None
    if hashlib.sha256(text).hexdigest() != manifest_sha256:
        raise Corrupted(f"{manifest}: is not the manifest that the ledger recorded. {advice}")
    recorded: dict[str, str] = json.loads(text)["files"]
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    if strange := present - set(recorded):
        raise Corrupted(f"{folder / min(strange)}: was added after the model was stored. {advice}")
    content: dict[str, bytes] = {}
    for name, digest in recorded.items():
        if name not in present:
            raise Corrupted(f"{folder / name}: is gone. {advice}")
        content[name] = (folder / name).read_bytes()
        if hashlib.sha256(content[name]).hexdigest() != digest:
            raise Corrupted(
                f"{folder / name}: its bytes were changed after the model was stored; it is not opened. {advice}"
            )
    return content


def load(folder: Path, manifest_sha256: str) -> Any:
    """The model, from bytes that were checked first. Raises Corrupted."""
    content = verify(folder, manifest_sha256)
    from skops.io import loads

    from windvane.tasks.estimators import TRUSTED

    return loads(content[MODEL], trusted=list(TRUSTED))


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
