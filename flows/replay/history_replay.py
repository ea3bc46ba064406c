"""`windvane replay`: plays the table's history through the whole loop in the order of time, and reports it on the
screen, as a page and in MLflow. Uses the functions of production on what was known at the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from windvane.flows import monitoring
from windvane.flows.orchestration import libraries
from windvane.flows.replay import simulation
from windvane.flows.replay.policy_backtest import DEFAULT_MODEL_SPEC
from windvane.flows.replay.simulation import SimulatedProduction, SimulatedProject, read_history_table
from windvane.ledger import decisions, laps, versions
from windvane.ledger.decisions import DecisionRecord
from windvane.ledger.laps import Lease
from windvane.ledger.windows import WindowRecord
from windvane.monitoring.history.arrivals import find_replay_start, order_arrivals
from windvane.monitoring.history.replay_report import ReplayedWindow, ReplayResult, summarize_assessment
from windvane.monitoring.watch import assessment
from windvane.monitoring.watch.window_checks import MonitoringPass
from windvane.monitoring.watch.windows import WindowSpan
from windvane.tasks.console import Console, SilentConsole, format_metric, format_table
from windvane.tasks.errors import InputError, WindvaneError
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.ingest import ingestion
from windvane.tasks.io import STATE_FOLDER
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.project import Project
from windvane.tasks.settings import project_params as params
from windvane.tasks.stores.mlflow_client import MlflowTracker

if TYPE_CHECKING:
    from windvane.tasks.settings.project_params import Settings

HISTORY_FOLDER = STATE_FOLDER / "history"


def report_replay(project: Project, story: ReplayResult, console: Console) -> dict[str, Any]:
    """Say, draw and log a story; what of it is for machines."""
    console.working("draw")
    picture, page = _write_replay_files(story, project.root / HISTORY_FOLDER)
    _print_replay(story, console)
    console.working("log")
    run = _try_log_replay(project, story, (picture, page), console)
    console.say(f"  look: {HISTORY_FOLDER / page.name}, its picture beside it")
    return {
        "windows": len(story.chapters),
        "policies": {"never": vars(story.never), story.policy: vars(story.ours)},
        "saved": story.saved,
        "decisions": [_make_json_row(c) for c in story.chapters if c.action != "wait"],
        "picture": (HISTORY_FOLDER / picture.name).as_posix(),
        "page": (HISTORY_FOLDER / page.name).as_posix(),
        "run_id": run,
    }


def _make_json_row(chapter: ReplayedWindow) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {name: None if isinstance(v, float) and isnan(v) else v for name, v in vars(chapter).items()}


def _write_replay_files(story: ReplayResult, folder: Path) -> tuple[Path, Path]:
    from windvane.monitoring.history import replay_report
    from windvane.tasks.reports import style

    drawn, written = folder / "replay.png", folder / "replay.html"
    folder.mkdir(parents=True, exist_ok=True)
    style.save_figure(replay_report.draw_replay(story), drawn)
    replay_report.write_replay_page(story, drawn.read_bytes(), written)
    return drawn, written


def _print_replay(story: ReplayResult, console: Console) -> None:
    count, shown = len(story.told) or 1, {"never": story.never, story.policy: story.ours}
    for c in story.chapters:
        if c.ending == "promoted" or c.action in ("rollback", "stop"):
            console.say(f"  {c.start[:10]}  {c.ending or c.action}: {c.cause}")
    console.say(
        f"  {len(story.chapters)} windows of {story.window}: {story.loss_name} per row and window, and in total with the price of laps"
    )
    lines = [
        {
            "policy": name,
            "loss": figures.loss / count,
            "retrains": figures.retrains,
            "refused": figures.refused,
            "total": figures.total / count,
        }
        for name, figures in shown.items()
    ]
    console.say(format_table(lines))
    console.say(f"  {story.verdict()}")


def _try_log_replay(project: Project, story: ReplayResult, files: tuple[Path, ...], console: Console) -> str | None:
    """A run in the project's experiment; None, and said, where MLflow does not answer."""
    libraries.silence_libraries()
    try:
        return _log_replay(project.tracker, story, files)
    except WindvaneError as e:
        console.say(f"  note: not in MLflow: {e}")
        return None


def _log_replay(tracker: MlflowTracker, story: ReplayResult, files: tuple[Path, ...]) -> str:
    note = f"**{story.verdict()}**\n\n{len(story.chapters)} windows of {story.window}. Picture and page: Artifacts, `replay/`."
    run = tracker.start(f"replay: {story.policy}", f"replay-{uuid4().hex}", {"mlflow.note.content": note})
    figures = {
        f"{name}_{figure}": float(value)
        for name, of in (("never", story.never), ("policy", story.ours))
        for figure, value in vars(of).items()
    }
    tracker.log(
        run,
        params={"retrain.policy": story.policy, "monitor.window": story.window},
        metrics={**figures, "saved": story.saved, "windows": float(len(story.chapters))},
    )
    for path in files:
        tracker.store(run, path, "replay")
    tracker.end(run)
    return run


@dataclass(frozen=True)
class ReplayOptions:
    """What was typed; None: as params.yaml has it."""

    since: str | None = None
    window: str | None = None
    delay: str | None = None
    policy: str | None = None
    cost: float | None = None
    search: bool = False


def replay_and_report(project: Project, asked: ReplayOptions, console: Console) -> dict[str, Any]:
    """Play, draw, and say what it came to. Raises InputError."""
    began = time.monotonic()
    story = replay_table(project, asked, console)
    return {**report_replay(project, story, console), "seconds": round(time.monotonic() - began, 2)}


def replay_table(
    project: Project, asked: ReplayOptions, console: Console, spec: ModelConfiguration | None = None
) -> ReplayResult:
    """What the table's history comes to, by the configuration `spec`; None: the champion's, or boosting. Raises InputError."""
    settings = _apply_options(project, asked)
    console.working("read the table")
    known = order_arrivals(read_history_table(project), str(settings.problem.time), settings.monitor.delay)
    begin = find_replay_start(known, settings, asked.since)
    champion = None if spec else versions.find_champion(project.ledger, project.name)
    first = spec or (DEFAULT_MODEL_SPEC if champion is None else ModelConfiguration.from_json(champion.facts["spec"]))
    # Swept by the next command that needs such a folder, whoever killed this one.
    with ingestion.open_scratch_folder(project.root) as scratch:
        past = SimulatedProject(project, settings, known, scratch)
        with (
            laps.hold_lease(past.ledger, past.name, "windvane replay", lambda _: None) as lease,
            model_pipeline.limit_to_one_thread(),
        ):
            story = replay_windows(past, lease, begin, first, asked.search, console)
        past.ledger.dispose()
    return story


def replay_windows(
    past: SimulatedProject, lease: Lease, begin: str, spec: ModelConfiguration, search: bool, console: Console
) -> ReplayResult:
    """Teach the first champion on what is known at `begin`, and play on from there."""
    settings = past.settings
    past.now = begin
    ticks = past.stream.places(settings.monitor.cut, begin, past.stream.times[-1])
    if not ticks:
        raise InputError(
            f"--from: no full window of {settings.monitor.window} lies behind {begin[:10]}. Name an earlier date"
        )
    console.working("teach the first champion")
    first = simulation.run_simulated_lap(past, lease, None, "search" if search else "refit", spec)
    if first.ending != "promoted":
        raise InputError(f"no model of the rows before {begin[:10]} may serve: {first.reason}. Name a later --from")
    initial, watcher, chapters = past.champion()[0], _Watcher(past), list[ReplayedWindow]()
    for at, tick in enumerate(ticks, 1):
        past.now = tick.end
        chapter = _replay_window(past, lease, watcher, tick, initial, search)
        chapters.append(chapter)
        console.working(
            f"window {at} of {len(ticks)}, from {tick.start[:10]}: loss {format_metric(chapter.loss)} (never retrained "
            f"{format_metric(chapter.never)}); {chapter.ending or chapter.action}"
        )
    name = definitions.load_problem_type(settings.problem.kind).loss_name(settings.problem.headline)
    dated = past.stream.rows[str(settings.problem.time)].dtype.kind == "M"
    window, taught = str(settings.monitor.window), int(initial.facts["rows"])
    return ReplayResult(past.name, settings.retrain.policy, name, window, dated, taught, tuple(chapters))


@dataclass
class _Watcher:
    """The watch over each champion, in the order in which they serve."""

    past: SimulatedProject
    passes: dict[int, MonitoringPass] = field(default_factory=dict)

    def look(self) -> tuple[WindowRecord, DecisionRecord] | None:
        """One pass at the rehearsal's present."""
        production = SimulatedProduction(self.past, SILENT_CONSOLE)
        version = production.champion.version
        if version not in self.passes:
            self.passes[version] = MonitoringPass(production, SILENT_CONSOLE, self._after)
        return self.passes[version].again(production)

    def _after(self, seen: WindowRecord, look: object, entry: DecisionRecord) -> None:
        monitoring.act_on_decision(self.past, entry, SILENT_CONSOLE, _promote_in_simulation)


SILENT_CONSOLE = SilentConsole()


def _promote_in_simulation(past: Project, version: int, cause: str, reason: str) -> None:
    last = versions.find_last_promotion(past.ledger, past.name)
    move = versions.make_promotion(None if last is None else last.to_version, version, cause, reason)
    versions.record_promotion(past.ledger, past.name, move)


def _replay_window(
    past: SimulatedProject, lease: Lease, watcher: _Watcher, tick: WindowSpan, initial: Any, search: bool
) -> ReplayedWindow:
    """A window that is over: what it cost, what was decided, and the lap that follows."""
    champion = past.champion()[0]
    loss = past.loss(champion, tick)
    never = loss if champion.version == initial.version else past.loss(initial, tick)
    rows = past.stream.between(tick.start, tick.end)
    found = watcher.look()
    told: dict[str, Any] = {}
    if found is not None:
        seen, entry = found
        look = assessment.decode_assessment(seen.look)
        told = {
            "action": entry.action,
            "reason": entry.reason,
            "cause": summarize_assessment(look),
            "alarm": look.drift.alarm,
        }
    owed = decisions.find_pending_retraining(past.ledger, past.name)
    if owed is not None:
        price = past.settings.retrain.cost * float(past.record(champion)[LOSS_COLUMN].mean())
        ended = simulation.run_simulated_lap(
            past, lease, owed, "search" if search and owed.depth == "search" else "refit", DEFAULT_MODEL_SPEC
        )
        told |= {
            "ending": ended.ending,
            "verdict": ended.reason,
            "better": ended.better,
            "price": price if ended.fits else 0.0,
        }
    return ReplayedWindow(tick.start, tick.end, rows.stop - rows.start, champion.version, loss, never, **told)


def _apply_options(project: Project, asked: ReplayOptions) -> Settings:
    """params.yaml, but for what was typed."""
    content = params.read_params(project.root / params.PARAMS_FILE)
    typed: dict[str, dict[str, Any]] = {
        "monitor": {"window": asked.window, "label_delay": asked.delay},
        "retrain": {"policy": asked.policy, "cost": asked.cost},
    }
    for section, values in typed.items():
        content[section] = (content.get(section) or {}) | {k: v for k, v in values.items() if v is not None}
    settings = params.parse_settings(content, project.root / params.PARAMS_FILE)
    if settings.problem.time is None:
        raise InputError("problem.time: a history needs an order. Name the column that says when a row was observed")
    if settings.retrain.cost == 0:
        raise InputError("retrain.cost: 0 makes every retraining free, and there is nothing to weigh. Name --cost")
    return settings
