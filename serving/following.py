"""Which version answers: follows the ledger's champion, and swaps in one step what was checked and tried beforehand.

A version that cannot be loaded is refused: the one before keeps serving, and the refusal is told until it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from windvane.ledger import versions
from windvane.ledger.store import now, stamp
from windvane.ledger.versions import Promotion
from windvane.serving import state
from windvane.serving.shelf import Loaded, Shelf
from windvane.serving.trial import Trial
from windvane.serving.weigh import give_back
from windvane.tasks.errors import WindvaneError
from windvane.tasks.serve_settings import Rollout

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


@dataclass(frozen=True)
class Lineup:
    """Who answers: the champion, and beside it a challenger while a rollout lasts (role shadow or canary, until when)."""

    champion: Serving
    challenger: Serving | None = None
    role: str = "champion"
    share: float = 0.0
    until: str | None = None
    trial: Trial = field(default_factory=Trial)


@dataclass(frozen=True)
class _Wanted:
    """What the ledger and the rollout ask for at a moment; challenger None: the champion alone."""

    champion: int
    challenger: int | None = None
    until: datetime | None = None


class Following:
    """`lineup` is replaced as a whole: whoever reads it once has everything of the versions in it."""

    def __init__(
        self,
        engine: sa.Engine,
        project: str,
        shelf: Shelf,
        rollout: Rollout | None = None,
        tell: Callable[[], None] | None = None,
    ) -> None:
        """tell: has MLflow told of a rollback that happened here; may take long, and raises WindvaneError."""
        self._engine, self._project, self._shelf, self._others = engine, project, shelf, tell
        self._rollout = rollout or Rollout()
        self.lineup: Lineup | None = None
        self.refusal: Refusal | None = None
        self.unreachable: str | None = None
        self._try_again = 0.0
        # A version was replaced since the last look: what it had may be given back now.
        self._replaced = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    @property
    def current(self) -> Serving | None:
        """The champion as it serves here, or None."""
        return None if self.lineup is None else self.lineup.champion

    def start(self) -> None:
        """Load the champion, or the version before where it is refused; then follow in a thread of its own."""
        self._shelf.folder.mkdir(parents=True, exist_ok=True)
        self.look()
        last = versions.last_promotion(self._engine, self._project)
        if self.current is None and last is not None and last.from_version is not None:
            before = self._load(last.from_version, last)
            self.lineup = None if before is None else Lineup(before)
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()
        self._thread.join()
        state.clear(self._shelf.folder)

    def look(self) -> None:
        """One look at the ledger, and the swap if others should answer. Raises nothing that an outage causes."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._return()
            last = versions.last_promotion(self._engine, self._project)
            self.unreachable = None
            if last is not None:
                self._follow(last)
        except SQLAlchemyError as e:
            self.unreachable = f"the ledger does not answer ({type(e).__name__})"

    def _follow(self, last: Promotion) -> None:
        wanted, lineup = self._wanted(last), self.lineup
        if lineup is not None and _numbers(lineup) == (wanted.champion, wanted.challenger):
            if self.refusal is not None:
                self.refusal = None
                self._tell()
            return
        if self.refusal is not None and self.refusal.version == last.to_version and time.monotonic() < self._try_again:
            return
        champion = self._load(wanted.champion, last)
        challenger = None if wanted.challenger is None else self._load(wanted.challenger, last)
        if champion is None or (wanted.challenger is not None and challenger is None):
            self._tell()
            return
        self.refusal = None
        until = None if wanted.until is None else stamp(wanted.until)
        role = "champion" if challenger is None else self._rollout.way
        self.lineup = Lineup(champion, challenger, role, self._rollout.share, until)
        self._replaced = lineup is not None
        before = None if lineup is None else lineup.champion.number
        facts = {"version": champion.number, "before": before, "engine": champion.loaded.engine.form}
        facts |= {} if challenger is None else {"beside": challenger.number, "role": role, "until": until}
        log.info("version serves", extra={"facts": facts})
        self._tell()

    def _wanted(self, last: Promotion) -> _Wanted:
        """A version that a lap promoted is rolled out; what a person moved, and what goes back, answers at once."""
        until = datetime.fromisoformat(last.promoted) + self._rollout.lasting
        if (
            self._rollout.way == "direct"
            or last.cause != "lap"
            or last.from_version is None
            or datetime.now(UTC) >= until
            or (self.lineup is None and self.refusal is not None)
        ):
            return _Wanted(last.to_version)
        return _Wanted(last.from_version, last.to_version, until)

    def _return(self) -> None:
        """Move the champion back where the challenger fails or is slow: recorded as a rollback in the ledger."""
        lineup = self.lineup
        if lineup is None or lineup.challenger is None or (why := lineup.trial.verdict()) is None:
            return
        number = lineup.challenger.number
        move = versions.promotion(number, lineup.champion.number, "rollback", f"{lineup.role}: {why}")
        try:
            versions.promote(self._engine, self._project, move)
        except versions.ChampionMoved:
            return  # somebody was faster
        log.error("rolled back", extra={"facts": {"version": number, "to": lineup.champion.number, "reason": why}})
        if self._others is not None:  # the ledger knows: nobody waits for the rest
            threading.Thread(target=self._tell_others, args=(self._others,), name="telling", daemon=True).start()

    def _tell_others(self, tell: Callable[[], None]) -> None:
        to = None if self.current is None else self.current.number
        try:
            tell()
        except WindvaneError as e:
            log.warning("alias not repaired", extra={"facts": {"to": to, "reason": str(e)}})
        else:
            log.info("alias repaired", extra={"facts": {"to": to}})

    def _load(self, number: int, last: Promotion) -> Serving | None:
        """A version as it serves already, or loaded now; None, and a refusal, where that fails."""
        for known in () if self.lineup is None else (self.lineup.champion, self.lineup.challenger):
            if known is not None and known.number == number:
                return known
        try:
            version = versions.numbered(self._engine, self._project, number)
            if version is None:
                raise WindvaneError(f"the ledger has no record of version {number}. Restore the ledger")
            return Serving(self._shelf.load(version), now(), last.promoted, last.cause)
        except Exception as e:  # noqa: BLE001 (whatever is wrong with it, the version that serves goes on)
            self.refusal = Refusal(number, str(e), now())
            self._try_again = time.monotonic() + AGAIN
            log.error("version refused", extra={"facts": {"version": number, "reason": str(e)}})
            return None

    def _tell(self) -> None:
        """What `windvane status` says."""
        current = self.current
        number, since = (None, None) if current is None else (current.number, current.since)
        state.write(self._shelf.folder, number, since, None if self.refusal is None else asdict(self.refusal))

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            if self._replaced:
                self._replaced = False
                give_back()
            self.look()


def _numbers(lineup: Lineup) -> tuple[int, int | None]:
    return lineup.champion.number, None if lineup.challenger is None else lineup.challenger.number
