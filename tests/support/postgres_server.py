"""A real PostgreSQL of one's own on a free port, for tests and benchmarks; it can be killed and started again."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import free_port


def programs() -> Path | None:
    """The folder of the newest pg_ctl and initdb, or None."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl")) or [shutil.which("pg_ctl") or ""]
    return Path(found[-1]).parent if found[-1] else None


class Postgres:
    """An empty database. With `fsync` it survives a power cut, as in production."""

    def __init__(self, fsync: bool) -> None:
        folder = programs()
        assert folder is not None
        self._programs, self._fsync = folder, "on" if fsync else "off"
        # Not below pytest's own folder, which only the user of the tests may enter.
        self._home = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._port = free_port()
        # PostgreSQL refuses to run as root.
        self._user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        if self._user:
            shutil.chown(self._home, "postgres")
        self._run("initdb", "-U", "windvane", "--auth=trust", "-E", "UTF8")
        self.url = f"postgresql+psycopg://windvane@127.0.0.1:{self._port}/postgres"
        self.start()

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._home}"
        self._run("pg_ctl", "-o", f"{options} -c fsync={self._fsync}", "-l", str(self._home / "log"), "-w", "start")

    def kill(self) -> None:
        """kill -9 of the server and of all that serve its clients."""
        import psutil

        pid = int((self._home / "data" / "postmaster.pid").read_text().split()[0])
        processes = [psutil.Process(pid), *psutil.Process(pid).children()]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _, left = psutil.wait_procs(processes, timeout=30)
        assert not left, "PostgreSQL outlived its kill"

    def remove(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(self._home)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._user, str(self._programs / program), "-D", str(self._home / "data"), *arguments]
        subprocess.run(command, check=True, cwd=self._home, stdout=subprocess.DEVNULL, timeout=60)


@contextmanager
def running(fsync: bool) -> Iterator[Postgres]:
    """A server that is gone at the end."""
    server = Postgres(fsync)
    try:
        yield server
    finally:
        server.remove()
