"""The folder raw: what was fetched from a source, as parts that are only added, and the record of where they came from.

Owns the folder and its record; leaves reading the source to tasks/origins/, and what to read to tasks/fetch.py. The record
is renamed into place last: a kill at any moment leaves the snapshot before.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from windvane.tasks.errors import Outage
from windvane.tasks.places import DATA, HOME
from windvane.tasks.tables import read_record, write_json

FOLDER = DATA / "raw"
RECORD = FOLDER / "origin.json"
# Parts are first written here, so that raw changes only when a fetch has come to its end.
STAGING = HOME / "fetch"
# Only files with such a name are ever deleted: people keep files of their own in raw.
_PART = re.compile(r"part-\d{6}\.")
_WAIT = 60.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Frozen):
    """One file of the snapshot. `rows` is None where the file cannot be counted; `first` and `last` are keys."""

    path: str
    rows: int | None
    bytes: int
    sha256: str
    read: str
    first: Any = None
    last: Any = None
    name: str | None = None
    etag: str | None = None
    feedback: bool = False


class Mark(_Frozen):
    """The greatest key that was read, in words and with its type, so that it can be bound again."""

    type: str
    value: str


class Changes(_Frozen):
    """How the rows of a source differ from those of the snapshot before; `by` says what tells rows apart."""

    new: int
    updated: int
    deleted: int
    by: str

    @property
    def none(self) -> bool:
        """Whether the rows are the same."""
        return not (self.new or self.updated or self.deleted)

    def __str__(self) -> str:
        return f"{self.new:,} new, {self.updated:,} updated, {self.deleted:,} deleted rows (by {self.by})"


class Record(_Frozen):
    """Where a snapshot came from. Holds no secret: `where` is stripped, `identity` is a hash of what was asked for."""

    kind: str
    where: str
    identity: str
    key: str | None = None
    watermark: Mark | None = None
    etag: str | None = None
    generation: int = 1
    next_part: int = 1
    changes: Changes | None = None
    feedback_until: str | None = None
    parts: tuple[Part, ...] = ()
    total: int | None = None

    @property
    def own(self) -> tuple[Part, ...]:
        """The source's parts, without those of feedback."""
        return tuple(part for part in self.parts if not part.feedback)

    @property
    def labelled(self) -> tuple[Part, ...]:
        """Parts with labels from production."""
        return tuple(part for part in self.parts if part.feedback)


def read(root: Path) -> Record | None:
    """The record of the snapshot that stands, None when nothing was fetched or a part of it is gone."""
    path = root / RECORD
    if not path.exists():
        return None
    record = read_record(path, Record.model_validate, f"Delete the folder {FOLDER}; the next lap fetches it again")
    whole = all(_size(root / part.path) == part.bytes for part in record.parts)
    return record if whole else None


def labelled_rows(root: Path) -> int:
    """How many rows of the snapshot come from production; they stand behind all others."""
    record = read(root)
    return sum(part.rows or 0 for part in record.labelled) if record else 0


class Staging:
    """Parts on their way into raw. Opened by `staged`, under a lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before = read(root)
        self._next = self.before.next_part if self.before else 1

    @property
    def generation(self) -> int:
        """The generation that stands, 0 before the first."""
        return self.before.generation if self.before else 0

    def path(self, suffix: str) -> Path:
        """Where the next part is to be written: `suffix` with its dots, such as .csv.gz."""
        name = f"part-{self._next:06d}{suffix}"
        self._next += 1
        return self.root / STAGING / name

    def part(self, path: Path, rows: int | None, **facts: Any) -> Part:
        """A written file as a part of the snapshot."""
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            os.fsync(f.fileno())
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        place = (FOLDER / path.name).as_posix()
        return Part(path=place, rows=rows, bytes=path.stat().st_size, sha256=digest, read=moment, **facts)

    def found(self, part: Part) -> Path:
        """A part's file: staged, or in raw already."""
        staged = self.root / STAGING / Path(part.path).name
        return staged if staged.exists() else self.root / part.path

    def commit(self, record: Record) -> Record:
        """Move the parts into raw, then put the record in place, then delete parts that it no longer names."""
        folder = self.root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        ignore = folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        for part in record.parts:
            if (staged := self.root / STAGING / Path(part.path).name).exists():
                os.replace(staged, self.root / part.path)
        counts = [part.rows for part in record.parts]
        total = None if None in counts else sum(n for n in counts if n is not None)
        final = record.model_copy(update={"next_part": self._next, "total": total})
        write_json(final.model_dump(mode="json"), self.root / RECORD)
        _sweep(self.root, final)
        return final


@contextmanager
def staged(root: Path) -> Iterator[Staging]:
    """Hold the folder for one fetch; whatever a killed fetch left behind is deleted first. Raises Outage when busy."""
    from filelock import FileLock, Timeout

    home = root / STAGING
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{home}.lock", timeout=_WAIT):
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            staging = Staging(root)
            if staging.before is not None:
                _sweep(root, staging.before)
            try:
                yield staging
            finally:
                shutil.rmtree(home, ignore_errors=True)
    except Timeout:
        raise Outage(f"{home}.lock: another fetch is at work in this folder. Wait for it, then run again") from None


def _sweep(root: Path, record: Record) -> None:
    listed = {Path(part.path).name for part in record.parts}
    for path in (root / FOLDER).glob("part-*"):
        if _PART.match(path.name) and path.name not in listed:
            path.unlink()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
