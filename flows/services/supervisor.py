"""Starts services, probes them, restarts what dies, and stops all of them; keeps their logs in files of bounded size.
Does not know what a service does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil

from windvane.flows.services import child_process
from windvane.flows.services.up_state import UpState
from windvane.tasks.errors import InputError

# Bytes of a file, and files of a service: the newest without a number, then .1, .2, ...
LOG_FILE_BYTES = 5_000_000
LOG_FILE_COUNT = 5
# Begins the line with a process's start time.
START_LINE_PREFIX = "== started "
DRAIN_TIMEOUT_SECONDS = 2.0


class ServiceLog:
    """One service's log, kept over starts and crashes: what the last process wrote before it died stays readable."""

    def __init__(self, path: Path, file_bytes: int = LOG_FILE_BYTES, files: int = LOG_FILE_COUNT) -> None:
        self.path = path
        self._bytes, self._files = file_bytes, files
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def begin(self) -> int:
        """Log that a process starts; the pipe's end for its words, which the caller closes once it is started."""
        self.write(f"{START_LINE_PREFIX}{datetime.now(UTC).isoformat(timespec='seconds')} ==\n".encode())
        reads, writes = os.pipe()
        self._reader = threading.Thread(target=self._read, args=(reads,), name=f"log {self.path.name}", daemon=True)
        self._reader.start()
        return writes

    def drain(self) -> None:
        """Wait until everything an ended process wrote is written; what it left behind may hold its pipe open longer."""
        if self._reader is not None:
            self._reader.join(DRAIN_TIMEOUT_SECONDS)

    def write(self, content: bytes) -> None:
        """Append, in as many files as it takes."""
        with self._lock:
            while content:
                with open(self.path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                    room = max(0, self._bytes - file.tell())
                    file.write(content[:room])
                content = content[room:]
                if content:
                    self._rotate()

    def last_words(self) -> str:
        """The last line that the newest process wrote; what it was if that was nothing."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else []
        for line in reversed(lines):
            if line.startswith(START_LINE_PREFIX):
                break
            if line.strip():
                return line.removeprefix("windvane: ")
        return f"it ended without output; {self.path} holds none"

    def _read(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as output:
            while chunk := output.read(65_536):
                self.write(chunk)

    def _rotate(self) -> None:
        names = [self.path, *(self.path.with_name(f"{self.path.name}.{number}") for number in range(1, self._files))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)


# Seconds: between two checks of what is not ready, and of what is; how long an end by force takes.
PROBE_INTERVAL_SECONDS, READY_PROBE_INTERVAL_SECONDS, KILL_TIMEOUT_SECONDS = 0.3, 5.0, 2.0
# Ready for that long, and its earlier deaths are forgotten; silent for that long, and it is taken for dead.
STEADY_SECONDS, SILENCE_TIMEOUT_SECONDS = 60.0, 120.0
# Seconds from a death to the next start: 1, 2, 4, ... up to this.
MAX_RESTART_DELAY_SECONDS = 30.0
# A child that ends so was given something wrong, which a restart would not fix.
WRONG_INPUT_STATUS = 2


@dataclass(frozen=True)
class ServiceSpec:
    """What to run and how to see that it works. `command` None: somebody else runs it. `after`: what must be ready before."""

    name: str
    address: str | None
    healthy: Callable[[int | None], bool]
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    hands: tuple[int, ...] = ()


class SupervisedProcess:
    """A service and the process that runs it now."""

    def __init__(self, service: ServiceSpec, log: ServiceLog, probes: ThreadPoolExecutor) -> None:
        self.service = service
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.born = 0.0
        self.ready = False
        self.deaths = 0
        self.last_line = ""
        self._probes = probes
        self._probe: Future[bool] | None = None
        self._next_start = self._next_probe = 0.0
        self._since = self._heard = 0.0

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return None if self.process is None else self.process.pid

    @property
    def state(self) -> str:
        """For people."""
        if self.ready:
            return "ready"
        if self.process is None and self.deaths:
            times = "" if self.deaths == 1 else f" {self.deaths} times"
            return f"died{times}, started again (see {self.log.path.name}): {self.last_line}"
        return "waiting" if self.process is None and self.service.command is not None else "starting"

    def start(self) -> None:
        """Start the process; its words go to the log."""
        assert self.service.command is not None
        out = self.log.begin()
        try:
            self.process = subprocess.Popen(
                self.service.command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, **self.service.environment},
                pass_fds=self.service.hands,
                start_new_session=True,
            )
        finally:
            os.close(out)
        self.born = psutil.Process(self.process.pid).create_time()
        self._heard = time.monotonic()
        self._next_probe = 0.0

    def due(self) -> bool:
        """Whether it may be started now."""
        return self.service.command is not None and self.process is None and time.monotonic() >= self._next_start

    def watch(self) -> None:
        """See whether it lives and responds. Raises InputError when it was given something wrong."""
        now = time.monotonic()
        if self.process is not None and (status := self.process.poll()) is not None:
            self._died(status)
        elif self._probe is None:
            if now >= self._next_probe and (self.process is not None or self.service.command is None):
                # In a thread: while one hangs, the others and Ctrl-C must not wait for it.
                self._probe = self._probes.submit(self.service.healthy, self.pid)
        elif self._probe.done():
            well, self._probe = self._probe.result(), None
            if well:
                self._heard = now
                self._since = self._since if self.ready else now
                self.deaths = self.deaths if now - self._since < STEADY_SECONDS else 0
            elif self.process is not None and now - self._heard > SILENCE_TIMEOUT_SECONDS:
                self.kill()
            self.ready = well
            self._next_probe = now + (READY_PROBE_INTERVAL_SECONDS if well else PROBE_INTERVAL_SECONDS)

    def _died(self, status: int) -> None:
        self.kill()
        self.log.drain()
        self.last_line = self.log.last_words()
        if status == WRONG_INPUT_STATUS:
            raise InputError(self.last_line)
        # A probe of an earlier process means nothing for the next.
        self.process, self.ready, self._probe = None, False, None
        self.deaths += 1
        self._next_start = time.monotonic() + min(MAX_RESTART_DELAY_SECONDS, 2.0 ** (self.deaths - 1))

    def ask_to_end(self) -> None:
        """Let go of the pipe: the child ends itself and its group, gracefully and then by force."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def kill(self) -> None:
        """End the whole group now; what its leader left behind, too."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.ask_to_end()


class Supervisor:
    """All children. `report` is called at every start, so that they can be found again after this process is killed."""

    def __init__(
        self, services: list[ServiceSpec], logs: Path, report: Callable[[Mapping[str, SupervisedProcess]], None]
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._probes = ThreadPoolExecutor(len(services), thread_name_prefix="probe")
        self.children = {
            s.name: SupervisedProcess(s, ServiceLog(logs / f"{s.name}.log"), self._probes) for s in services
        }
        self._on_start = report

    @property
    def ready(self) -> bool:
        """Whether all services are."""
        return all(one.ready for one in self.children.values())

    def step(self) -> None:
        """One check of each child, and the starts that are due."""
        for one in self.children.values():
            if one.due() and all(self.children[name].ready for name in one.service.after):
                one.start()
                self._on_start(self.children)
        for one in self.children.values():
            one.watch()

    def stop(self) -> None:
        """End all children: those first that use the others. Returns when none is left."""
        users = [one for one in self.children.values() if one.service.after]
        for group in (users, [one for one in self.children.values() if one not in users]):
            for one in group:
                one.ask_to_end()
            deadline = time.monotonic() + child_process.STOP_GRACE_SECONDS + KILL_TIMEOUT_SECONDS
            for one in group:
                if one.process is not None:
                    with suppress(subprocess.TimeoutExpired):
                        one.process.wait(max(0.0, deadline - time.monotonic()))
                    one.kill()
                    one.log.drain()
        self._probes.shutdown(wait=False, cancel_futures=True)


def end_orphaned_processes(running: UpState | None, home: Path) -> int:
    """End what an `up` that was killed left behind; how many processes that were.

    Its children are known by process number and birth; what they started, by group and by the tag in its environment.
    """
    children = {} if running is None else running.children
    groups = {pid for pid, born in children.values() if not _is_pid_reused(pid, born)}
    left = [process for process in psutil.process_iter() if groups and _belongs_to_up(process, groups, home)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=child_process.STOP_GRACE_SECONDS)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=KILL_TIMEOUT_SECONDS)
    return len(left)


def _is_pid_reused(pid: int, born: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - born) > 1
    except psutil.NoSuchProcess:
        return False


def _belongs_to_up(process: psutil.Process, groups: set[int], home: Path) -> bool:
    try:
        return os.getpgid(process.pid) in groups and process.environ().get(child_process.OWNER_VARIABLE) == str(home)
    except (psutil.Error, OSError):
        return False
