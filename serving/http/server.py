"""The scoring service as a process: its socket, its log, its start and graceful stop, and the thread that deletes what
the ledger has kept long enough.
"""

from __future__ import annotations

import gc
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from windvane.ledger.prediction_writer import PredictionWriter
from windvane.ledger.retention import expire_predictions
from windvane.serving.http import access_control
from windvane.serving.http.access_control import HostNames
from windvane.serving.http.app import MAX_REQUESTS, LabelCheck, LabelHandler, ScoringApp, ServiceMetrics
from windvane.serving.http.auth_middleware import AsgiApp
from windvane.serving.http.connections import ConnectionTracker, TrackedConnection, find_connection_limit
from windvane.serving.http.invocations import IdTimeColumns, InvocationHandler
from windvane.serving.model_cache import ModelCache
from windvane.serving.rollout import ChampionFollower
from windvane.tasks.errors import InputError
from windvane.tasks.settings.serving_section import RolloutRule

if TYPE_CHECKING:
    import sqlalchemy as sa

    from windvane.ledger.privacy import PrivacyRules

# Seconds that requests have to end once the service is told to stop.
SHUTDOWN_TIMEOUT_SECONDS = 10
log = logging.getLogger("windvane.serving")


def run_service(
    engine: sa.Engine,
    project: str,
    folder: Path,
    fetch: Callable[[str], Path],
    listening: socket.socket,
    known: access_control.ApiKeys,
    names: HostNames,
    roles: IdTimeColumns,
    privacy: PrivacyRules,
    check: LabelCheck,
    rollout: RolloutRule,
    keep: timedelta | None = None,
    memory: int | None = None,
    tell: Callable[[], None] | None = None,
    recorded: bool = True,
    front: Callable[[ScoringApp], AsgiApp] = lambda service: service,
) -> None:
    """Serve until SIGINT or SIGTERM; answers that are on their way are finished.

    folder: where local copies of versions lie. listening: from listen(), or handed over; names: what it is asked under.
    keep: how long predictions are kept; None: for ever. memory: bytes that loading a version may bring the process to; None: any.
    tell: has MLflow told of a rollback by itself. recorded False: only to measure what recording costs.
    front: what stands between the server and the service.
    """
    _log_as_json()
    writer = PredictionWriter(engine, project, privacy) if recorded else None
    following = ChampionFollower(engine, project, ModelCache(folder, fetch, memory), rollout, tell)
    forgetting = None if keep is None else RetentionThread(engine, project, keep)
    try:
        following.start()
        answering = InvocationHandler(following, writer, roles)
        crowd, meters = ConnectionTracker(find_connection_limit()), ServiceMetrics(following)
        meters.watch(crowd)
        service = ScoringApp(
            answering,
            LabelHandler(engine, project, check),
            following,
            meters,
            known,
            names,
            # A quarter of the connections is never at work: there is one to let go for whoever comes, a probe for one.
            min(MAX_REQUESTS, crowd.most * 3 // 4),
        )
        host, port = listening.getsockname()[:2]
        log.info("listening", extra={"facts": {"host": host, "port": port}})
        if forgetting is not None:
            forgetting.start()
        _run_uvicorn(front(service), crowd, listening)
    finally:
        if forgetting is not None:
            forgetting.stop()
        following.stop()
        if writer is not None:
            writer.close()
        log.info("stopped", extra={"facts": {}})


def _run_uvicorn(service: AsgiApp, crowd: ConnectionTracker, listening: socket.socket) -> None:
    import uvicorn

    # What was made at start lives as long as the process: the collector need not look at it for each young object.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        service,
        loop="uvloop",
        http=partial(TrackedConnection, crowd),
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_SECONDS,
    )
    # uvicorn ends gracefully and then sends itself the signal again, which must not keep the ledger's writer from its end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listening])


def open_listening_socket(host: str, port: int, known: access_control.ApiKeys) -> socket.socket:
    """The socket to serve on; port 0 takes a free one. Raises InputError when the address is not allowed or taken."""
    access_control.require_keys(host, known)
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


class _JsonFormatter(logging.Formatter):
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
    handler.setFormatter(_JsonFormatter())
    for name, level in (("windvane.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.level = [handler], False, level


# Seconds after the start, when the first requests have been answered; seconds between two looks.
FIRST_EXPIRY_SECONDS, EXPIRY_INTERVAL_SECONDS = 5.0, 86_400.0
retention_log = logging.getLogger("windvane.serving")


class RetentionThread:
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
            removed = expire_predictions(self._engine, self._project, self._keep)
        except sa.exc.SQLAlchemyError as e:
            retention_log.warning("nothing forgotten", extra={"facts": {"reason": type(e).__name__}})
            return
        if removed.predictions or removed.labels:
            retention_log.info(
                "forgotten", extra={"facts": {"predictions": removed.predictions, "labels": removed.labels}}
            )

    def _run(self) -> None:
        wait = FIRST_EXPIRY_SECONDS
        while not self._stop.wait(wait):
            self.look()
            wait = EXPIRY_INTERVAL_SECONDS
