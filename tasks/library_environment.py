"""What the libraries read from the environment, the same in every process of ours: no usage statistics, no chatter."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Usage statistics, off whatever the environment says. Each is read at its library's import, or later. Optuna, Polars and
# scikit-learn send none; DVC's own setting stands in its configuration too (tasks/versioning.py).
OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",  # Evidently, Prefect, and others that follow the convention
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    # ONNX Runtime sends events to its makers since 1.29, also on Linux; only this, set before its import, stops all of them.
    "ORT_DISABLE_TELEMETRY": "1",
}
# Where the user has set another value, that counts.
DEFAULTS: Mapping[str, str] = {
    # Progress bars, "View run ... at" and log lines are no output of a command; the last costs a request per run, too.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # A server that is away is waited for about a quarter of a minute (0, 2, 4 and 8 s), not four.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "PREFECT_LOGGING_COLORS": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare() -> None:
    """Set all of it, for this process and those that it starts. Call before any of the libraries is imported."""
    os.environ.update(OFF)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
