"""The logs of what `windvane up` runs: bounded whatever is said, and a crash stays readable over the next start."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from windvane.flows.services.supervisor import LOG_FILE_BYTES, LOG_FILE_COUNT, ServiceLog


def say(log: ServiceLog, code: str) -> None:
    """A process that says something and ends."""
    out = log.begin()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=out)
    os.close(out)
    process.wait()
    log.drain()


def test_a_flood_fills_no_more_than_its_files_and_the_newest_words_are_kept(tmp_path: Path) -> None:
    log = ServiceLog(tmp_path / "one.log", file_bytes=1000, files=3)
    say(log, "for i in range(2000): print(f'line {i}')")
    kept = sorted(tmp_path.iterdir())
    assert [path.name for path in kept] == ["one.log", "one.log.1", "one.log.2"]
    assert all(path.stat().st_size <= 1000 for path in kept)
    whole = b"".join(path.read_bytes() for path in (kept[2], kept[1], kept[0]))
    assert whole.endswith(b"".join(b"line %d\n" % i for i in range(1900, 2000)))
    assert log.last_words() == "line 1999"


def test_a_chunk_larger_than_all_files_is_cut_too(tmp_path: Path) -> None:
    log = ServiceLog(tmp_path / "one.log", file_bytes=10, files=2)
    log.write(b"x" * 1000 + b"end")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20
    assert (tmp_path / "one.log").read_bytes().endswith(b"end")


def test_what_a_crashed_process_said_outlives_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "one.log"
    say(ServiceLog(path), "raise SystemExit('out of memory')")
    assert ServiceLog(path).last_words() == "out of memory"
    again = ServiceLog(path)  # another `up`
    say(again, "")
    assert "out of memory" in path.read_text()
    assert again.last_words() == f"it ended without output; {path} holds none"


def test_only_the_owner_reads_it_and_the_bound_is_25_megabytes(tmp_path: Path) -> None:
    log = ServiceLog(tmp_path / "one.log")
    log.write(b"x")
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert LOG_FILE_COUNT * LOG_FILE_BYTES == 25_000_000
