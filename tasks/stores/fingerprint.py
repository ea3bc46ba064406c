"""What a version was made from, as one hash: data, the parameters that matter, depth, and the code and libraries that shape it."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from windvane.tasks.settings.own_code_names import (
    describe_installed_module,
    hash_own_source,
    is_own_candidate,
    parse_code_place,
)
from windvane.tasks.settings.project_params import Settings

# What decides which rows a model learns from, and how, from the folder of the rooms: whole rooms of tasks/, and of others the files
# that fit the model which serves, or choose its rows and configuration.
MODEL_CODE = (
    "tasks/ingest",
    "tasks/validate",
    "tasks/split",
    "tasks/models",
    "tasks/search",
    "tasks/evaluation/model_evaluation.py",
    "tasks/evaluation/out_of_fold.py",
    "flows/lap/model_steps.py",
)
# Libraries whose release can change a fitted model. Their installed versions count, not those of constraints.txt:
# an installation without the constraints is another environment.
MODEL_LIBRARIES = (
    "imbalanced-learn",
    "numpy",
    "optuna",
    "pandas",
    "polars",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "skops",
)


def compute_fingerprint(
    settings: Settings, data_version: str, depth: str, spec: dict[str, Any] | None = None, remedy: str | None = None
) -> str:
    """The fingerprint of a lap, 16 hex digits. `spec` is the given configuration when depth is refit.

    remedy: what the lap does about a change, where that is more than its depth implies.
    """
    matters = {
        "data": data_version,
        "max_rows": settings.data.max_rows,
        "format": settings.data.format.model_dump(),
        "problem": settings.problem.model_dump(),
        "split": settings.split.model_dump(),
        "search": settings.search.model_dump() if depth == "search" else spec,
        "depth": depth,
        "remedy": remedy or depth,
        "history": (settings.retrain.history, settings.monitor.window)
        if settings.retrain.history != "expanding"
        else None,
        "code": hash_model_code(),
        **({"own": own} if (own := hash_own_code(settings, None if depth == "search" else spec)) else {}),
        "libraries": list_model_libraries(),
    }
    return _hash_text(json.dumps(matters, sort_keys=True, default=str))


def hash_gate_settings(settings: Settings) -> str:
    """The gate's own settings as a hash: another gate judges a known challenger again, without refitting."""
    return _hash_text(settings.gate.model_dump_json())


def hash_model_code() -> str:
    """Hash of the code that shapes a model; not of the commit, or an edit of the README would refit."""
    folder = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for name in MODEL_CODE:
        found = folder / name
        for path in sorted(found.rglob("*.py")) if found.is_dir() else (found,):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def hash_own_code(settings: Settings, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the user's own code is, by name: a hash of the file's text; of what is installed its package and module. spec: of candidates
    only this configuration's. {}: all is Windvane's.
    """
    names = settings.search.own_candidates
    if spec is not None:
        names = (spec["candidate"],) if is_own_candidate(spec["candidate"]) else ()
    names = (*names, *(() if settings.features is None else (settings.features,)))
    sources = dict.fromkeys(names, settings.own_sources)
    sources |= dict.fromkeys(settings.problem.own_functions.values(), settings.problem.own_sources)
    found: dict[str, Any] = {}
    for name, texts in sources.items():
        place = parse_code_place(name)
        text = texts.get(place.file or "", "")
        found[name] = hash_own_source(text) if place.file else describe_installed_module(place.module)
    return found


def list_model_libraries() -> dict[str, str]:
    """Installed versions of the libraries that shape a model."""
    return {name: version(name) for name in MODEL_LIBRARIES}


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
