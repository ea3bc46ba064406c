"""The service as a process: its socket, its log, its start and its graceful stop."""

from __future__ import annotations

import gc
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.ledger.writer import Writer
from windvane.serving import keys
from windvane.serving.access import Names
from windvane.serving.answering import Answering
from windvane.serving.app import CROWD, Service
from windvane.serving.asking import Roles
from windvane.serving.connections import Connection, Crowd, room
from windvane.serving.following import Following
from windvane.serving.forgetting import Forgetting
from windvane.serving.guard import App
from windvane.serving.labelling import Check, Labelling
from windvane.serving.metering import Meters
from windvane.serving.shelf import Shelf
from windvane.tasks.errors import InputError
from windvane.tasks.serve_settings import Rollout

if TYPE_CHECKING:
    import sqlalchemy as sa

    from windvane.ledger.privacy import Privacy

# Seconds that requests have to end once the service is told to stop.
GRACE = 10
log = logging.getLogger("windvane.serving")


def run(
    engine: sa.Engine,
    project: str,
    folder: Path,
    fetch: Callable[[str], Path],
    listening: socket.socket,
    known: keys.Keys,
    names: Names,
    roles: Roles,
    privacy: Privacy,
    check: Check,
    rollout: Rollout,
    keep: timedelta | None = None,
    memory: int | None = None,
    tell: Callable[[], None] | None = None,
    recorded: bool = True,
    front: Callable[[Service], App] = lambda service: service,
) -> None:
    """Serve until SIGINT or SIGTERM; answers that are on their way are finished.

    folder: where local copies of versions lie. listening: from listen(), or handed over; names: what it is asked under.
    keep: how long predictions are kept; None: for ever. memory: bytes that loading a version may bring the process to; None: any.
    tell: has MLflow told of a rollback by itself. recorded False: only to measure what recording costs.
    front: what stands between the server and the service.
    """
    _log_as_json()
    writer = Writer(engine, project, privacy) if recorded else None
    following = Following(engine, project, Shelf(folder, fetch, memory), rollout, tell)
    forgetting = None if keep is None else Forgetting(engine, project, keep)
    try:
        following.start()
        answering = Answering(following, writer, roles)
        crowd, meters = Crowd(room()), Meters(following)
        meters.watch(crowd)
        service = Service(
            answering,
            Labelling(engine, project, check),
            following,
            meters,
            known,
            names,
            # A quarter of the connections is never at work: there is one to let go for whoever comes, a probe for one.
            min(CROWD, crowd.most * 3 // 4),
        )
        host, port = listening.getsockname()[:2]
        log.info("listening", extra={"facts": {"host": host, "port": port}})
        if forgetting is not None:
            forgetting.start()
        _serve(front(service), crowd, listening)
    finally:
        if forgetting is not None:
            forgetting.stop()
        following.stop()
        if writer is not None:
            writer.close()
        log.info("stopped", extra={"facts": {}})


def _serve(service: App, crowd: Crowd, listening: socket.socket) -> None:
    import uvicorn

    # What was made at start lives as long as the process: the collector need not look at it for each young object.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        service,
        loop="uvloop",
        http=partial(Connection, crowd),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    # uvicorn ends gracefully and then sends itself the signal again, which must not keep the ledger's writer from its end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listening])


def listen(host: str, port: int, known: keys.Keys) -> socket.socket:
    """The socket to serve on; port 0 takes a free one. Raises InputError when the address is not allowed or taken."""
    keys.guard(host, known)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as e:
        listening.close()
        raise InputError(f"serve: {host} port {port} cannot be used ({e}). Choose another with --port") from None
    listening.listen(1024)
    return listening


class _Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and event; then the facts, which hold no value of a request."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _log_as_json() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    for name, level in (("windvane.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.level = [handler], False, level
