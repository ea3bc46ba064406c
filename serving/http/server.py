"""The scoring service as a process: socket, log, start and graceful stop, and the thread that deletes what was kept long enough."""

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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import uvicorn

from windvane.ledger.prediction_writer import PredictionWriter
from windvane.ledger.predictions import PrivacyRules, expire_predictions
from windvane.serving.http import access_control
from windvane.serving.http.access_control import HostNames
from windvane.serving.http.app import MAX_REQUESTS, LabelHandler, ScoringApp, ServiceMetrics
from windvane.serving.http.auth_middleware import AsgiApp
from windvane.serving.http.connections import ConnectionTracker, TrackedConnection, find_connection_limit
from windvane.serving.http.invocations import InvocationHandler
from windvane.serving.http.request_rows import IdTimeColumns
from windvane.serving.model_cache import ModelCache
from windvane.serving.rollout import ChampionFollower
from windvane.tasks.errors import InputError
from windvane.tasks.label_parsing import LabelRules
from windvane.tasks.settings.serving_section import RolloutRule

# Seconds that requests have to end once the service is stopping.
SHUTDOWN_TIMEOUT_SECONDS = 10
log = logging.getLogger("windvane.serving")


@dataclass(frozen=True)
class ServedProject:
    """What is served: the project's ledger and name, where local copies of versions lie and how one is fetched, the columns of ids
    and times, what of a prediction is stored, and what its labels are.
    """

    ledger: sa.Engine
    name: str
    folder: Path
    fetch: Callable[[str], Path]
    roles: IdTimeColumns
    privacy: PrivacyRules
    labels: LabelRules


@dataclass(frozen=True)
class ServingRules:
    """keep: how long predictions are kept; None: for ever. memory: bytes that loading a version may bring the process to; None: any.

    notify: has MLflow notified of a rollback by itself. recorded False: only to measure what recording costs.
    """

    rollout: RolloutRule
    keep: timedelta | None = None
    memory: int | None = None
    notify: Callable[[], None] | None = None
    recorded: bool = True


def run_service(
    served: ServedProject,
    rules: ServingRules,
    listening: socket.socket,
    known: access_control.ApiKeys,
    names: HostNames,
    front: Callable[[ScoringApp], AsgiApp] = lambda service: service,
) -> None:
    """Serve until SIGINT or SIGTERM; responses that are on their way are finished.

    listening: from open_listening_socket(), or handed over; names: what it is reached under.
    front: what is between the server and the service.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter())
    for name, level in (("windvane.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.level = [handler], False, level
    engine, project = served.ledger, served.name
    writer = PredictionWriter(engine, project, served.privacy) if rules.recorded else None
    models = ModelCache(served.folder, served.fetch, rules.memory)
    following = ChampionFollower(engine, project, models, rules.rollout, rules.notify)
    forgetting = None if rules.keep is None else RetentionThread(engine, project, rules.keep)
    try:
        following.start()
        answering = InvocationHandler(following, writer, served.roles)
        connections, metrics = ConnectionTracker(find_connection_limit()), ServiceMetrics(following)
        metrics.count_connections(connections)
        service = ScoringApp(
            answering,
            LabelHandler(engine, project, served.labels),
            following,
            metrics,
            known,
            names,
            # A quarter of the connections is never at work: there is one to close for a new client, a probe for one.
            min(MAX_REQUESTS, connections.most * 3 // 4),
        )
        host, port = listening.getsockname()[:2]
        log.info("listening", extra={"facts": {"host": host, "port": port}})
        if forgetting is not None:
            forgetting.start()
        _run_uvicorn(front(service), connections, listening)
    finally:
        if forgetting is not None:
            forgetting.stop()
        following.stop()
        if writer is not None:
            writer.close()
        log.info("stopped", extra={"facts": {}})


def _run_uvicorn(service: AsgiApp, connections: ConnectionTracker, listening: socket.socket) -> None:
    # What was made at start lives as long as the process: the collector need not scan it for each young object.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        service,
        loop="uvloop",
        http=partial(TrackedConnection, connections),
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
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object a line: time, level and event; then the facts, which hold no value of a request."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"at": at, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


# Seconds after the start, when the first responses are sent; seconds between two rounds.
FIRST_EXPIRY_SECONDS, EXPIRY_INTERVAL_SECONDS = 5.0, 86_400.0


class RetentionThread(threading.Thread):
    """A thread of its own: a check reads all predictions, and deletes in short transactions that requests wait little for."""

    def __init__(self, engine: sa.Engine, project: str, keep: timedelta) -> None:
        # A process that ends need not wait for it: each transaction is whole, the next round does the rest.
        super().__init__(name="forgetting", daemon=True)
        self._engine, self._project, self._keep = engine, project, keep
        self._ended = threading.Event()

    def stop(self) -> None:
        """Stop checking."""
        self._ended.set()

    def poll(self) -> None:
        """Delete what is past its time. An outage is logged: the next check does it."""
        try:
            removed = expire_predictions(self._engine, self._project, self._keep)
        except sa.exc.SQLAlchemyError as e:
            log.warning("nothing forgotten", extra={"facts": {"reason": type(e).__name__}})
            return
        if removed.predictions or removed.labels:
            log.info("forgotten", extra={"facts": vars(removed)})

    def run(self) -> None:
        """See Thread."""
        wait = FIRST_EXPIRY_SECONDS
        while not self._ended.wait(wait):
            self.poll()
            wait = EXPIRY_INTERVAL_SECONDS
