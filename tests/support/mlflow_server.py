"""Real MLflow servers of other people, as tests need them: with their own database, artifact store, and users."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.waiting import free_port

READY_SECONDS = 180
ADMIN, ADMIN_PASSWORD = "admin", "secret-of-the-admin"
USER, USER_PASSWORD = "windvane-user", "secret-of-the-user"


@dataclass
class MlflowServer:
    """`mlflow server` in a process group of its own, on a port that it keeps when it is started again."""

    folder: Path
    database: str
    artifacts: str
    proxied: bool = True
    auth: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> MlflowServer:
        """Start it without waiting."""
        where = ["--artifacts-destination"] if self.proxied else ["--no-serve-artifacts", "--default-artifact-root"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", self.database, "--workers", "1", *where, self.artifacts]
        env = {**os.environ, **self.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        env.pop("MLFLOW_TRACKING_URI", None)
        if self.auth:
            command += ["--app-name", "basic-auth"]
            config = self.folder / "auth.ini"
            config.write_text(
                "[mlflow]\ndefault_permission = READ\n"
                f"database_uri = sqlite:///{self.folder / 'users.db'}\nadmin_username = {ADMIN}\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            )
            env |= {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN_PASSWORD}
            env |= {"MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of the tests"}
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
        return self

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            pytest.fail(f"the MLflow server does not start: {self.log.read_text(errors='replace')[-3000:]}")
        if self.auth:
            self.post("2.0/mlflow/users/create", username=USER, password=USER_PASSWORD)

    def post(self, path: str, **content: Any) -> httpx.Response:
        """A call of its REST API, as its administrator."""
        keys = (ADMIN, ADMIN_PASSWORD) if self.auth else None
        return httpx.post(f"{self.url}/api/{path}", json=content, auth=keys, timeout=30, trust_env=False)

    def get(self, path: str, **query: str) -> httpx.Response:
        """A GET of its REST API, as its administrator."""
        keys = (ADMIN, ADMIN_PASSWORD) if self.auth else None
        return httpx.get(f"{self.url}/api/{path}", params=query, auth=keys, timeout=30, trust_env=False)

    def delete(self, path: str, **content: Any) -> httpx.Response:
        """A DELETE of its REST API, as its administrator."""
        keys = (ADMIN, ADMIN_PASSWORD) if self.auth else None
        url = f"{self.url}/api/{path}"
        answer = httpx.request("DELETE", url, json=content, auth=keys, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer

    @property
    def client_environment(self) -> dict[str, str]:
        """What a user of it sets."""
        known = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": USER_PASSWORD} if self.auth else {}
        return {"MLFLOW_TRACKING_URI": self.url, **known}

    def kill(self) -> None:
        """End it with all its workers, at once."""
        if self._process is None:
            return
        group = [psutil.Process(self._process.pid)] if psutil.pid_exists(self._process.pid) else []
        group += [child for one in group for child in one.children(recursive=True)]
        for one in group:
            try:
                one.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        _, left = psutil.wait_procs(group, timeout=30)
        assert not left, "the MLflow server outlived its kill"
        self._process.wait()
        self._process = None
