"""What the service counts, as Prometheus text. Owns the names; decides nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from windvane.serving.connections import Crowd
    from windvane.serving.following import Following

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Meters:
    """One service's counters, in a registry of their own."""

    def __init__(self, following: Following) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("windvane_requests", "Answers of the service", ["path", "code"], registry=registry)
        self.rows = Counter("windvane_rows", "Rows predicted", ["version", "role"], registry=registry)
        self.seconds = Histogram("windvane_seconds", "POST /invocations", buckets=_SECONDS, registry=registry)
        version = Gauge("windvane_version", "The version that serves; 0: none", registry=registry)
        version.set_function(lambda: following.current.number if following.current else 0)
        refused = Gauge("windvane_refused_version", "The champion that was refused here; 0: none", registry=registry)
        refused.set_function(lambda: following.refusal.version if following.refusal else 0)
        self._answers: dict[tuple[str, int], Counter] = {}

    def watch(self, crowd: Crowd) -> None:
        """Count connections, too: those that are open, and those that were cut because they sent too slowly or were too many."""
        opened = Gauge("windvane_connections", "Connections that are open", registry=self._registry)
        opened.set_function(lambda: crowd.open)
        cut = Gauge("windvane_connections_cut", "Connections cut so far", ["why"], registry=self._registry)
        for why in ("slow head", "unread answer", "crowded"):
            cut.labels(why).set_function(partial(crowd.cut.__getitem__, why))

    def answered(self, path: str, code: int) -> None:
        """Count an answer; path: one of the service's own, so that strangers cannot make up label values."""
        counter = self._answers.get((path, code))
        if counter is None:
            counter = self._answers[path, code] = self._requests.labels(path, str(code))
        counter.inc()

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
