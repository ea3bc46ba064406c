"""Usage statistics of the libraries, switched off for every process that Windvane starts: the one list of how."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Each is read at its library's import, or later. Optuna, Polars and scikit-learn send none; DVC's own setting stands in its
# configuration too (tasks/versioning.py).
OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",  # Evidently, Prefect, and others that follow the convention
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    # ONNX Runtime sends events to its makers since 1.29, also on Linux; only this, set before its import, stops all of them.
    "ORT_DISABLE_TELEMETRY": "1",
}


def switch_off() -> None:
    """Call before any of the libraries is imported; processes that are started from here on inherit it."""
    os.environ.update(OFF)
