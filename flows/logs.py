"""The logs of what `windvane up` runs: a child's words by way of a pipe into files of bounded size, older ones numbered."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

# Bytes of a file, and files of a service: the newest without a number, then .1, .2, ...
FILE_BYTES = 5_000_000
FILES = 5
# Begins the line that says when a process was started.
STARTED = "== started "
DRAIN_SECONDS = 2.0


class Log:
    """One service's log, kept over starts and crashes: what the last process said before it died stays readable."""

    def __init__(self, path: Path, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        self.path = path
        self._bytes, self._files = file_bytes, files
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None

    def begin(self) -> int:
        """Say that a process starts; the pipe's end for its words, which the caller closes once it is started."""
        self.write(f"{STARTED}{datetime.now(UTC).isoformat(timespec='seconds')} ==\n".encode())
        reads, writes = os.pipe()
        self._reader = threading.Thread(target=self._read, args=(reads,), name=f"log {self.path.name}", daemon=True)
        self._reader.start()
        return writes

    def drain(self) -> None:
        """Wait until all that an ended process said is written; what it left behind may hold its pipe open longer."""
        if self._reader is not None:
            self._reader.join(DRAIN_SECONDS)

    def write(self, content: bytes) -> None:
        """Append, in as many files as it takes."""
        with self._lock:
            while content:
                content = self._append(content)

    def last_words(self) -> str:
        """The last line that the newest process said; what it was if that was nothing."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else []
        for line in reversed(lines):
            if line.startswith(STARTED):
                break
            if line.strip():
                return line.removeprefix("windvane: ")
        return f"it ended without a word; {self.path} holds none"

    def _read(self, pipe: int) -> None:
        with os.fdopen(pipe, "rb", buffering=0) as words:
            while chunk := words.read(65_536):
                self.write(chunk)

    def _append(self, content: bytes) -> bytes:
        """Write what still fits; the rest."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            room = self._bytes - os.fstat(descriptor).st_size
            if room > 0:
                return content[os.write(descriptor, content[:room]) :]
        finally:
            os.close(descriptor)
        for number in range(self._files - 1, 0, -1):
            older = self.path if number == 1 else self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        return content

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
