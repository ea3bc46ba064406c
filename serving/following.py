"""Which version answers: follows the ledger's champion, and swaps in one step what was checked and tried beforehand.

A version that cannot be loaded is refused: the one before keeps serving, and the refusal is told until it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ledger import versions
from ledger.store import now
from serving import state
from serving.shelf import Loaded, Shelf
from tasks.errors import WindvaneError

if TYPE_CHECKING:
    import sqlalchemy as sa

# Seconds between two looks at the ledger; between two tries of a version that was refused.
EVERY, AGAIN = 1.0, 30.0
log = logging.getLogger("windvane.serving")


@dataclass(frozen=True)
class Serving:
    """A version that answers, since when it does, and since when the ledger calls it champion."""

    loaded: Loaded
    since: str
    promoted: str
    cause: str

    @property
    def number(self) -> int:
        """The version's number."""
        return self.loaded.version.version


@dataclass(frozen=True)
class Refusal:
    """A champion that does not serve here, and why."""

    version: int
    reason: str
    at: str


class Following:
    """`current` is replaced as a whole: whoever reads it once has everything of one version."""

    def __init__(self, engine: sa.Engine, project: str, shelf: Shelf) -> None:
        self._engine, self._project, self._shelf = engine, project, shelf
        self.current: Serving | None = None
        self.refusal: Refusal | None = None
        self.unreachable: str | None = None
        self.changed: list[Callable[[], None]] = []
        self._try_again = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    def start(self) -> None:
        """Load the champion, or the version before where it is refused; then follow in a thread of its own."""
        self._shelf.folder.mkdir(parents=True, exist_ok=True)
        self.look()
        last = versions.last_promotion(self._engine, self._project)
        if self.current is None and last is not None and last.from_version is not None:
            self._swap(versions.Promotion(None, last.from_version, "before", "", last.promoted, True), keep=True)
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()
        self._thread.join()
        state.clear(self._shelf.folder)

    def look(self) -> None:
        """One look at the ledger, and the swap if the champion is another one. Raises nothing that an outage causes."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            last = versions.last_promotion(self._engine, self._project)
        except SQLAlchemyError as e:
            self.unreachable = f"the ledger does not answer ({type(e).__name__})"
            return
        self.unreachable = None
        if last is None or (self.current is not None and self.current.number == last.to_version):
            if self.refusal is not None:
                self.refusal = None
                self._tell()
            return
        if self.refusal is not None and self.refusal.version == last.to_version and time.monotonic() < self._try_again:
            return
        self._swap(last)

    def _swap(self, move: versions.Promotion, keep: bool = False) -> None:
        """Load and swap; keep: the refusal of the champion stays told."""
        version = versions.numbered(self._engine, self._project, move.to_version)
        try:
            if version is None:
                raise WindvaneError(f"the ledger has no record of version {move.to_version}. Restore the ledger")
            loaded = self._shelf.load(version)
        except Exception as e:  # noqa: BLE001 (whatever is wrong with it, the version that serves goes on)
            if not keep:
                self.refusal = Refusal(move.to_version, str(e), now())
                self._try_again = time.monotonic() + AGAIN
            log.error("version refused", extra={"facts": {"version": move.to_version, "reason": str(e)}})
        else:
            before = self.current
            self.current = Serving(loaded, now(), move.promoted, move.cause)
            self.refusal = self.refusal if keep else None
            facts = {"version": version.version, "before": before and before.number, "engine": loaded.engine.form}
            log.info("version serves", extra={"facts": facts})
        self._tell()

    def _tell(self) -> None:
        """What `windvane status` and the metrics say."""
        current = self.current
        number, since = (None, None) if current is None else (current.number, current.since)
        state.write(self._shelf.folder, number, since, None if self.refusal is None else asdict(self.refusal))
        for tell in self.changed:
            tell()

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self.look()
