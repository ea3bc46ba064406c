"""`windvane replay`: the table's own history through the whole loop, in the order of time. Order only.

Window by window: the champion answers, labels arrive, the watch looks and decides, a lap follows where it is wanted; all by the
functions of production, on what was known at the time (flows/rehearsal.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from windvane.flows import acting, relearning, retelling
from windvane.flows.backtest import FIRST
from windvane.flows.console import Console, Silent, number
from windvane.flows.looks import Pass
from windvane.flows.project import Project
from windvane.flows.rehearsal import Played, Rehearsal, read
from windvane.ledger import decisions, leases, versions
from windvane.ledger.decisions import Entry
from windvane.ledger.leases import Lease
from windvane.ledger.windows import Seen
from windvane.monitoring import looking
from windvane.monitoring.history.story import Chapter, Story, cause
from windvane.monitoring.history.stream import beginning, stream
from windvane.monitoring.windows import Place
from windvane.tasks import estimators, ingest, problems
from windvane.tasks import settings as params
from windvane.tasks.errors import InputError
from windvane.tasks.estimators import Spec
from windvane.tasks.scores import LOSS

if TYPE_CHECKING:
    from windvane.tasks.settings import Settings


@dataclass(frozen=True)
class Asked:
    """What was typed; None: as params.yaml has it."""

    since: str | None = None
    window: str | None = None
    delay: str | None = None
    policy: str | None = None
    cost: float | None = None
    search: bool = False


def run(project: Project, asked: Asked, console: Console) -> dict[str, Any]:
    """Play, draw, and say what it came to. Raises InputError."""
    began = time.monotonic()
    story = told(project, asked, console)
    return {**retelling.tell(project, story, console), "seconds": round(time.monotonic() - began, 2)}


def told(project: Project, asked: Asked, console: Console, spec: Spec | None = None) -> Story:
    """What the table's history comes to, by the configuration `spec`; None: the champion's, or boosting. Raises InputError."""
    settings = _settings(project, asked)
    console.working("read the table")
    known = stream(read(project), str(settings.problem.time), settings.monitor.delay)
    begin = beginning(known, settings, asked.since)
    champion = None if spec else versions.champion(project.ledger, project.name)
    first = spec or (FIRST if champion is None else Spec.from_json(champion.facts["spec"]))
    # Swept by the next command that needs such a folder, whoever killed this one.
    with ingest.scratch(project.root) as scratch:
        past = Rehearsal(project, settings, known, scratch)
        with leases.hold(past.ledger, past.name, "windvane replay", lambda _: None) as lease, estimators.one_thread():
            story = play(past, lease, begin, first, asked.search, console)
        past.ledger.dispose()
    return story


def play(past: Rehearsal, lease: Lease, begin: str, spec: Spec, search: bool, console: Console) -> Story:
    """Teach the first champion on what is known at `begin`, and play on from there."""
    settings = past.settings
    past.now = begin
    ticks = past.stream.places(settings.monitor.cut, begin, past.stream.times[-1])
    if not ticks:
        raise InputError(
            f"--from: no full window of {settings.monitor.window} lies behind {begin[:10]}. Name an earlier date"
        )
    console.working("teach the first champion")
    first = relearning.lap(past, lease, None, "search" if search else "refit", spec)
    if first.ending != "promoted":
        raise InputError(f"no model of the rows before {begin[:10]} may serve: {first.reason}. Name a later --from")
    initial, watcher, chapters = past.champion()[0], _Watcher(past), list[Chapter]()
    for at, tick in enumerate(ticks, 1):
        past.now = tick.end
        chapter = _window(past, lease, watcher, tick, initial, search)
        chapters.append(chapter)
        console.working(
            f"window {at} of {len(ticks)}, from {tick.start[:10]}: loss {number(chapter.loss)} (never retrained "
            f"{number(chapter.never)}); {chapter.ending or chapter.action}"
        )
    name = problems.of(settings.problem.kind).loss_name(settings.problem.headline)
    dated = past.stream.rows[str(settings.problem.time)].dtype.kind == "M"
    window, taught = str(settings.monitor.window), int(initial.facts["rows"])
    return Story(past.name, settings.retrain.policy, name, window, dated, taught, tuple(chapters))


@dataclass
class _Watcher:
    """The watch over each champion, in the order in which they serve."""

    past: Rehearsal
    passes: dict[int, Pass] = field(default_factory=dict)

    def look(self) -> tuple[Seen, Entry] | None:
        """One pass at the rehearsal's present."""
        production = Played(self.past, SILENT)
        version = production.champion.version
        if version not in self.passes:
            self.passes[version] = Pass(production, SILENT, self._after)
        return self.passes[version].again(production)

    def _after(self, seen: Seen, look: object, entry: Entry) -> None:
        acting.act(self.past, entry, SILENT, _put_back)


SILENT = Silent()


def _put_back(past: Project, version: int, cause: str, reason: str) -> None:
    last = versions.last_promotion(past.ledger, past.name)
    move = versions.promotion(None if last is None else last.to_version, version, cause, reason)
    versions.promote(past.ledger, past.name, move)


def _window(past: Rehearsal, lease: Lease, watcher: _Watcher, tick: Place, initial: Any, search: bool) -> Chapter:
    """A window that is over: what it cost, what was decided, and the lap that follows."""
    champion = past.champion()[0]
    loss = past.loss(champion, tick)
    never = loss if champion.version == initial.version else past.loss(initial, tick)
    rows = past.stream.between(tick.start, tick.end)
    found = watcher.look()
    told: dict[str, Any] = {}
    if found is not None:
        seen, entry = found
        look = looking.from_json(seen.look)
        told = {"action": entry.action, "reason": entry.reason, "cause": cause(look), "alarm": look.drift.alarm}
    owed = decisions.pending(past.ledger, past.name)
    if owed is not None:
        price = past.settings.retrain.cost * float(past.record(champion)[LOSS].mean())
        ended = relearning.lap(past, lease, owed, "search" if search and owed.depth == "search" else "refit", FIRST)
        told |= {
            "ending": ended.ending,
            "verdict": ended.reason,
            "better": ended.better,
            "price": price if ended.fits else 0.0,
        }
    return Chapter(tick.start, tick.end, rows.stop - rows.start, champion.version, loss, never, **told)


def _settings(project: Project, asked: Asked) -> Settings:
    """params.yaml, but for what was typed."""
    content = params.raw(project.root / params.PARAMS)
    typed: dict[str, dict[str, Any]] = {
        "monitor": {"window": asked.window, "label_delay": asked.delay},
        "retrain": {"policy": asked.policy, "cost": asked.cost},
    }
    for section, values in typed.items():
        content[section] = (content.get(section) or {}) | {k: v for k, v in values.items() if v is not None}
    settings = params.parse(content, project.root / params.PARAMS)
    if settings.problem.time is None:
        raise InputError("problem.time: a history needs an order. Name the column that says when a row was observed")
    if settings.retrain.cost == 0:
        raise InputError("retrain.cost: 0 makes every retraining free, and there is nothing to weigh. Name --cost")
    return settings
