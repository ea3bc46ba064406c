"""Which version serves: follows the ledger's champion, tries a challenger as shadow or canary, goes back where it fails."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from windvane.ledger import versions, windows
from windvane.ledger.database import format_timestamp, now_timestamp
from windvane.ledger.versions import Promotion
from windvane.ledger.windows import CoverageState
from windvane.serving import service_state
from windvane.serving.model_cache import LoadedVersion, ModelCache, release_freed_memory
from windvane.tasks.errors import WindvaneError
from windvane.tasks.evaluation.adaptive_levels import LevelHistory
from windvane.tasks.settings.serving_section import RolloutRule

# Of each version's newest requests; fewer show no latency.
LATENCY_SAMPLE_REQUESTS, MIN_LATENCY_REQUESTS = 500, 50
# Failures that are one too many; how much slower (times, and seconds on top) the challenger's median may be.
MAX_CHALLENGER_FAILURES = 3
MAX_LATENCY_FACTOR, LATENCY_SLACK_SECONDS = 2.0, 0.005


@dataclass(frozen=True)
class RequestCounts:
    """One side: requests served, failures, and the median seconds of the newest (None: too few)."""

    requests: int
    failures: int
    seconds: float | None


class ChallengerTrial:
    """Counters of one challenger's time beside the champion."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = {side: deque[float](maxlen=LATENCY_SAMPLE_REQUESTS) for side in (True, False)}
        self._requests = {True: 0, False: 0}
        self._failures = 0

    def count_response(self, challenger: bool, seconds: float) -> None:
        """A side predicted in so many seconds."""
        with self._lock:
            self._requests[challenger] += 1
            self._seconds[challenger].append(seconds)

    def failed(self) -> None:
        """The challenger failed where it should have predicted."""
        with self._lock:
            self._failures += 1

    def counts(self) -> tuple[RequestCounts, RequestCounts]:
        """Of the champion and of the challenger."""
        with self._lock:
            medians = {
                side: statistics.median(taken) if len(taken) >= MIN_LATENCY_REQUESTS else None
                for side, taken in self._seconds.items()
            }
            return (
                RequestCounts(self._requests[False], 0, medians[False]),
                RequestCounts(self._requests[True], self._failures, medians[True]),
            )

    def verdict(self) -> str | None:
        """Why the challenger must go, or None."""
        champion, challenger = self.counts()
        if challenger.failures >= MAX_CHALLENGER_FAILURES:
            return f"it failed {challenger.failures} times in {challenger.requests + challenger.failures} requests"
        if champion.seconds is None or challenger.seconds is None:
            return None
        if challenger.seconds <= MAX_LATENCY_FACTOR * champion.seconds + LATENCY_SLACK_SECONDS:
            return None
        return f"it predicts in {1000 * challenger.seconds:.1f} ms, the champion in {1000 * champion.seconds:.1f} ms (medians)"


# Seconds between two reads of the ledger; between two tries of a version that was refused.
LEDGER_POLL_SECONDS, LOAD_RETRY_SECONDS = 1.0, 30.0
log = logging.getLogger("windvane.serving")


@dataclass(frozen=True)
class ServingVersion:
    """A version that serves, since when it does, and since when the ledger calls it champion. coverage: what checks found about its
    intervals.
    """

    loaded: LoadedVersion
    since: str
    promoted: str
    cause: str
    coverage: CoverageState = field(default_factory=CoverageState)

    @property
    def number(self) -> int:
        """The version's number."""
        return self.loaded.version.version

    @cached_property
    def levels(self) -> LevelHistory:
        """By which the levels of its intervals are adjusted."""
        return LevelHistory.of(one["counts"] for one in self.coverage.windows)


@dataclass(frozen=True)
class RefusedVersion:
    """A champion that does not serve here, and why."""

    version: int
    reason: str
    at: str


@dataclass(frozen=True)
class ServingLineup:
    """Who serves: the champion, and beside it a challenger while a rollout lasts (role shadow or canary, until when)."""

    champion: ServingVersion
    challenger: ServingVersion | None = None
    role: str = "champion"
    share: float = 0.0
    until: str | None = None
    trial: ChallengerTrial = field(default_factory=ChallengerTrial)

    @property
    def numbers(self) -> tuple[int, int | None]:
        """The versions' numbers."""
        return self.champion.number, None if self.challenger is None else self.challenger.number


class ChampionFollower:
    """`lineup` is replaced as a whole: a reader that takes it once has everything of the versions in it."""

    def __init__(
        self,
        engine: sa.Engine,
        project: str,
        model_cache: ModelCache,
        rollout: RolloutRule | None = None,
        notify: Callable[[], None] | None = None,
    ) -> None:
        """notify: has MLflow notified of a rollback that happened here; may take long, and raises WindvaneError."""
        self._engine, self._project, self._model_cache, self._repair_aliases = engine, project, model_cache, notify
        self._rollout = rollout or RolloutRule()
        self.lineup: ServingLineup | None = None
        self.refusal: RefusedVersion | None = None
        self.unreachable: str | None = None
        self._try_again = 0.0
        # A version was replaced since the last check: its memory may be freed now.
        self._replaced = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    @property
    def current(self) -> ServingVersion | None:
        """The champion as it serves here, or None."""
        return None if self.lineup is None else self.lineup.champion

    def start(self) -> None:
        """Load the champion, or the version before where it is refused; then follow in a thread of its own."""
        self._model_cache.folder.mkdir(parents=True, exist_ok=True)
        self.poll()
        last = versions.find_last_promotion(self._engine, self._project)
        if self.current is None and last is not None and last.from_version is not None:
            before = self._load(last.from_version, last)
            self.lineup = None if before is None else ServingLineup(before)
        self._notify()
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()
        self._thread.join()
        service_state.clear_service_state(self._model_cache.folder)

    def poll(self) -> None:
        """One check of the ledger, and the swap if others should serve. Raises nothing that an outage causes."""
        try:
            self._return()
            last = versions.find_last_promotion(self._engine, self._project)
            self.unreachable = None
            if last is not None:
                self._follow(last)
                self._read_coverage()
        except sa.exc.SQLAlchemyError as e:
            self.unreachable = f"the ledger does not respond ({type(e).__name__})"

    def _follow(self, last: Promotion) -> None:
        (champion_number, challenger_number, until), lineup = self._wanted(last), self.lineup
        if lineup is not None and lineup.numbers == (champion_number, challenger_number):
            if self.refusal is not None:
                self.refusal = None
                self._notify()
            return
        if self.refusal is not None and self.refusal.version == last.to_version and time.monotonic() < self._try_again:
            return
        champion = self._load(champion_number, last)
        challenger = None if challenger_number is None else self._load(challenger_number, last)
        if champion is None or (challenger_number is not None and challenger is None):
            self._notify()
            return
        self.refusal = None
        role = "champion" if challenger is None else self._rollout.way
        self.lineup = ServingLineup(champion, challenger, role, self._rollout.share, until)
        self._replaced = lineup is not None
        before = None if lineup is None else lineup.champion.number
        facts = {"version": champion.number, "before": before, "engine": champion.loaded.engine.form}
        facts |= {} if challenger is None else {"beside": challenger.number, "role": role, "until": until}
        log.info("version serves", extra={"facts": facts})
        self._notify()

    def _read_coverage(self) -> None:
        """What monitoring found about the intervals of who serves: the lineup is replaced where that is news."""
        if (lineup := self.lineup) is None:
            return
        champion = self._with_coverage(lineup.champion)
        challenger = None if lineup.challenger is None else self._with_coverage(lineup.challenger)
        if champion is not lineup.champion or challenger is not lineup.challenger:
            self.lineup = replace(lineup, champion=champion, challenger=challenger)

    def _with_coverage(self, serving: ServingVersion) -> ServingVersion:
        found = windows.read_coverage(self._engine, self._project, serving.number, serving.coverage)
        return serving if found is serving.coverage else replace(serving, coverage=found)

    def _wanted(self, last: Promotion) -> tuple[int, int | None, str | None]:
        """The numbers of champion and challenger, and until when that one is tried.

        A version that a lap promoted is rolled out; what a person moved, and what goes back, serves at once.
        """
        until = datetime.fromisoformat(last.promoted) + self._rollout.lasting
        if (
            self._rollout.way == "direct"
            or last.cause != "lap"
            or last.from_version is None
            or datetime.now(UTC) >= until
            or (self.lineup is None and self.refusal is not None)
        ):
            return last.to_version, None, None
        return last.from_version, last.to_version, format_timestamp(until)

    def _return(self) -> None:
        """Move the champion back where the challenger fails or is slow: recorded as a rollback in the ledger."""
        lineup = self.lineup
        if lineup is None or lineup.challenger is None or (why := lineup.trial.verdict()) is None:
            return
        number = lineup.challenger.number
        move = versions.make_promotion(number, lineup.champion.number, "rollback", f"{lineup.role}: {why}")
        try:
            versions.record_promotion(self._engine, self._project, move)
        except versions.ChampionMoved:
            return  # somebody was faster
        log.error("rolled back", extra={"facts": {"version": number, "to": lineup.champion.number, "reason": why}})
        if self._repair_aliases is not None:  # the ledger knows: the rest need not wait
            threading.Thread(
                target=self._notify_others, args=(self._repair_aliases,), name="telling", daemon=True
            ).start()

    def _notify_others(self, notify: Callable[[], None]) -> None:
        to = None if self.current is None else self.current.number
        try:
            notify()
        except WindvaneError as e:
            log.warning("alias not repaired", extra={"facts": {"to": to, "reason": str(e)}})
        else:
            log.info("alias repaired", extra={"facts": {"to": to}})

    def _load(self, number: int, last: Promotion) -> ServingVersion | None:
        """A version as it serves already, or loaded now; None, and a refusal, where that fails."""
        for known in () if self.lineup is None else (self.lineup.champion, self.lineup.challenger):
            if known is not None and known.number == number:
                return known
        try:
            version = versions.find_version(self._engine, self._project, number)
            if version is None:
                raise WindvaneError(f"the ledger has no record of version {number}. Restore the ledger")
            return ServingVersion(self._model_cache.load(version), now_timestamp(), last.promoted, last.cause)
        except Exception as e:  # noqa: BLE001 (whatever is wrong with it, the version that serves goes on)
            self.refusal = RefusedVersion(number, str(e), now_timestamp())
            self._try_again = time.monotonic() + LOAD_RETRY_SECONDS
            log.error("version refused", extra={"facts": {"version": number, "reason": str(e)}})
            return None

    def _notify(self) -> None:
        """What `windvane status` shows."""
        current = self.current
        number, since = (None, None) if current is None else (current.number, current.since)
        service_state.write_service_state(
            self._model_cache.folder, number, since, None if self.refusal is None else asdict(self.refusal)
        )

    def _run(self) -> None:
        while not self._stop.wait(LEDGER_POLL_SECONDS):
            if self._replaced:
                self._replaced = False
                release_freed_memory()
            self.poll()


def describe_rollout(following: ChampionFollower) -> dict[str, Any]:
    """Plain values. `refused`: the champion that could not be loaded here, while the version before goes on."""
    current = following.current
    content: dict[str, Any] = {"version": None} if current is None else _describe_champion(current)
    return {
        **content,
        "challenger": _describe_challenger(following.lineup),
        "refused": None if following.refusal is None else asdict(following.refusal),
        "ledger": following.unreachable or "answers",
    }


def _describe_champion(current: ServingVersion) -> dict[str, Any]:
    version, signature = current.loaded.version, current.loaded.signature
    summary = version.facts.summary
    return {
        "version": version.version,
        "data_version": version.data_version,
        "taught_until": version.taught_until,
        "run_id": version.run_id,
        "promoted": current.promoted,
        "cause": current.cause,
        "since": current.since,
        "kind": version.facts.kind,
        "target": version.facts.target,
        "candidate": summary.get("chosen"),
        "metric": version.facts.metric,
        "positive": version.facts.positive,
        "test": summary.get("test"),
        "interval": summary.get("interval"),
        "engine": {"form": current.loaded.engine.form, "why": current.loaded.why},
        "memory": version.facts.memory,
        "signature": asdict(signature),
    }


def _describe_challenger(lineup: ServingLineup | None) -> dict[str, Any] | None:
    """The version that is being rolled out, how it does beside the champion, and until when."""
    if lineup is None or lineup.challenger is None:
        return None
    champion, challenger = lineup.trial.counts()
    return {
        "version": lineup.challenger.number,
        "role": lineup.role,
        "share": lineup.share,
        "until": lineup.until,
        "engine": lineup.challenger.loaded.engine.form,
        "counts": {"champion": asdict(champion), "challenger": asdict(challenger)},
    }
