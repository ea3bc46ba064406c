"""An S3 server that tests start, kill and start again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import Any

import httpx

from tests.support.waiting import free_port, until


class Storage:
    """A real S3 server in a process of its own on a free port, which can be killed and started again, then empty."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.url.rpartition(":")[2]]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        until(self._answers, what="the S3 server starts", pause=0.05)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the S3 server ended"
        with contextlib.suppress(httpx.TransportError):
            return httpx.post(f"{self.url}/moto-api/reset", trust_env=False).is_success
        return False

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
