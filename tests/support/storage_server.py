"""An S3 server that tests start, kill and start again."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest


class Storage:
    """A real S3 server in a process of its own on a free port, which can be killed and started again, then empty."""

    def __init__(self) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{s.getsockname()[1]}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.url.rpartition(":")[2]]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                httpx.post(f"{self.url}/moto-api/reset", trust_env=False)
                return
            time.sleep(0.05)
        pytest.fail("the S3 server does not start")

    def empty(self) -> None:
        httpx.post(f"{self.url}/moto-api/reset", trust_env=False)
        self.client.create_bucket(Bucket="bucket")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket="bucket", Key=name, Body=content)

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client("s3")
