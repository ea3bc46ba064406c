"""Requests that a machine thinks up from the OpenAPI document: none of them is a fault of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.served_models import made_project, serving

pytestmark = pytest.mark.slow


def test_no_generated_request_breaks_the_service(tmp_path: Path) -> None:
    """30 per operation (seed 0); WINDVANE_FUZZ=1000 asks for more."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    with serving(made_project(tmp_path)) as (_, port):
        url = f"http://127.0.0.1:{port}/openapi.json"
        command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--checks", checks, "--seed", "0"]
        command += ["--max-examples", os.environ.get("WINDVANE_FUZZ", "30"), "--phases", "fuzzing", "--no-color"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    print(done.stdout[-1500:])  # shown with -s
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    log = (tmp_path / "serve.log").read_text()
    assert "Traceback" not in log
    assert '"level": "error"' not in log
