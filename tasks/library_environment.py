"""What the libraries read from the environment, the same in every process of ours. Whoever has set a variable is obeyed."""

from __future__ import annotations

import os

DEFAULTS = {
    # Progress bars, "View run ... at" and log lines are no output of a command; the last costs a request per run, too.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # Through the server, as with uploads: the storage behind it need not be reachable from here. A request less per file, too.
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    # A server that is away is waited for about a quarter of a minute (0, 2, 4 and 8 s), not four.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_COLORS": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare() -> None:
    """Set what is not set yet. Call before MLflow and Prefect are imported: they read these at their import."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
