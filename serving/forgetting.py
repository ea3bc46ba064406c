"""Lets go of what the ledger has kept long enough, while the service runs: at its start, then once a day."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import sqlalchemy as sa

from windvane.ledger.retention import expire

# Seconds after the start, when the first requests have been answered; seconds between two looks.
FIRST, EVERY = 5.0, 86_400.0
log = logging.getLogger("windvane.serving")


class Forgetting:
    """A thread of its own: a look reads all predictions, and deletes in short transactions that answers wait little for."""

    def __init__(self, engine: sa.Engine, project: str, keep: timedelta) -> None:
        self._engine, self._project, self._keep = engine, project, keep
        self._stop = threading.Event()
        # A process that ends need not wait for it: each transaction is whole, and the next look does the rest.
        self._thread = threading.Thread(target=self._run, name="forgetting", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def look(self) -> None:
        """Delete what is past its time. An outage is logged: the next look does it."""
        try:
            removed = expire(self._engine, self._project, self._keep)
        except sa.exc.SQLAlchemyError as e:
            log.warning("nothing forgotten", extra={"facts": {"reason": type(e).__name__}})
            return
        if removed.predictions or removed.labels:
            log.info("forgotten", extra={"facts": {"predictions": removed.predictions, "labels": removed.labels}})

    def _run(self) -> None:
        wait = FIRST
        while not self._stop.wait(wait):
            self.look()
            wait = EVERY
