"""Usage statistics: each library itself says that it sends none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from windvane.tasks import process_environment

pytestmark = pytest.mark.slow

ASKED = {
    "mlflow": "from mlflow.telemetry.utils import is_telemetry_disabled; off = is_telemetry_disabled()",
    "prefect": "from prefect.settings import get_current_settings; off = not get_current_settings().server.analytics_enabled",
    "evidently": "from evidently.telemetry import event_logger; off = not event_logger.is_enabled()",
    "dvc": "from dvc.analytics import is_enabled; off = not is_enabled()",
    # It has no question to ask: what it would send to is no longer set up.
    # tests/flows/services/test_offline_loop.py sees that nothing is asked.
    "onnxruntime": "import os; off = os.environ['ORT_DISABLE_TELEMETRY'] == '1'",
}


def enabled_without() -> dict[str, str]:
    """An environment that says nothing of statistics; of tests neither, by which some libraries keep silent."""
    silent = {*process_environment.TELEMETRY_OFF, "CI", "PYTEST_CURRENT_TEST", "PYTEST_VERSION", "DVC_TEST"}
    return {name: value for name, value in os.environ.items() if name not in silent}


@pytest.mark.parametrize("library", ASKED)
def test_every_library_is_switched_off(library: str) -> None:
    prepared = "from windvane.tasks import process_environment; process_environment.set_library_environment()"
    code = f"{prepared}\n{ASKED[library]}\nimport sys; sys.exit(not off)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=enabled_without(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_command_switches_them_off_whatever_the_environment_says() -> None:
    code = (
        "import os, sys\nfrom windvane.cli import main, status\n"
        "sys.argv, names = [sys.argv[0]], sys.argv[1:]\n"
        "status.show_status = lambda *_: print({k: os.environ.get(k) for k in names})\n"
        "main.main(['status'], standalone_mode=False)"
    )
    environment = {**enabled_without(), "MLFLOW_DISABLE_TELEMETRY": "false"}
    done = subprocess.run(
        [sys.executable, "-c", code, *process_environment.TELEMETRY_OFF],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(dict(process_environment.TELEMETRY_OFF))
