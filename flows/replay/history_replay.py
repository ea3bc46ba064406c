"""`windvane replay`: plays the table's history through the functions of production, each on what was known at the time, and
reports it on the screen, as a page and in MLflow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any
from uuid import uuid4

from windvane.flows import monitoring
from windvane.flows.orchestration import libraries
from windvane.flows.replay import simulation
from windvane.flows.replay.policy_backtest import DEFAULT_MODEL_SPEC, check_history_settings, read_history_table
from windvane.flows.replay.simulation import SimulatedProduction, SimulatedProject
from windvane.ledger import decisions, laps, versions
from windvane.ledger.decisions import DecisionRecord
from windvane.ledger.laps import Lease
from windvane.ledger.windows import WindowRecord
from windvane.monitoring import window_frames
from windvane.monitoring.history import replay_report
from windvane.monitoring.history.loss_matrix import find_replay_start, order_arrivals
from windvane.monitoring.history.replay_report import ReplayedWindow, ReplayResult, summarize_assessment
from windvane.monitoring.records import LapDepth, WindowAssessment
from windvane.monitoring.watch.window_checks import MonitoringPass
from windvane.monitoring.watch.windows import WindowSpan
from windvane.tasks.console import (
    Console,
    SilentConsole,
    TimeLeft,
    count_noun,
    format_metric,
    format_span,
    format_table,
)
from windvane.tasks.errors import InputError, WindvaneError
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.ingest import ingestion
from windvane.tasks.io import STATE_FOLDER, write_whole
from windvane.tasks.models import model_pipeline, own_metrics
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.project import Project
from windvane.tasks.reports import style
from windvane.tasks.settings import project_params as params
from windvane.tasks.settings.project_params import Settings
from windvane.tasks.stores.mlflow_client import MlflowTracker

HISTORY_FOLDER = STATE_FOLDER / "history"


def report_replay(project: Project, story: ReplayResult, console: Console) -> dict[str, Any]:
    """Print, draw and log a story; what of it is for machines."""
    console.working("draw")
    picture, page = _write_replay_files(story, project.root / HISTORY_FOLDER)
    _print_replay(story, console)
    console.working("log")
    libraries.silence_libraries()
    run = None
    try:
        run = _log_replay(project.tracker, story, (picture, page))
    except WindvaneError as e:
        console.print(f"  note: not in MLflow: {e}")
    console.print(f"  page: {HISTORY_FOLDER / page.name}, its picture beside it")
    return {
        "windows": len(story.chapters),
        "policies": {"never": vars(story.never), story.policy: vars(story.ours)},
        "saved": story.saved,
        "decisions": [_make_json_row(c) for c in story.chapters],
        "picture": (HISTORY_FOLDER / picture.name).as_posix(),
        "page": (HISTORY_FOLDER / page.name).as_posix(),
        "run_id": run,
    }


def _make_json_row(chapter: ReplayedWindow) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {name: None if isinstance(v, float) and isnan(v) else v for name, v in vars(chapter).items()}


def _write_replay_files(story: ReplayResult, folder: Path) -> tuple[Path, Path]:
    drawn, written = folder / "replay.png", folder / "replay.html"
    folder.mkdir(parents=True, exist_ok=True)
    style.save_figure(replay_report.draw_replay(story), drawn)
    text = replay_report.render_replay_page(story, drawn.read_bytes())
    write_whole(written, lambda part: part.write_text(text, encoding="utf-8"))
    return drawn, written


def _print_replay(story: ReplayResult, console: Console) -> None:
    shown = {"never": story.never, story.policy: story.ours}
    for c in story.chapters:
        if c.ending == "promoted" or c.action in ("rollback", "stop"):
            console.print(f"  {c.start[:10]}  {c.ending or c.action}: {c.cause}")
    console.print(f"  {story.windows}: {story.loss_name} per row and window, and in total with the price of laps")
    names = {"loss_per_window": "loss per window", "retrains": "retrains", "refused": "refused"}
    names |= {"total_per_window": "total per window"}
    lines = [
        {"policy": name, **{title: getattr(figures, key) for key, title in names.items()}}
        for name, figures in shown.items()
    ]
    console.print(format_table(lines))
    console.print(f"  {story.verdict()}")


def _log_replay(tracker: MlflowTracker, story: ReplayResult, files: tuple[Path, ...]) -> str:
    note = f"**{story.verdict()}**\n\n{story.windows}. Picture and page: Artifacts, `replay/`."
    run = tracker.start(
        f"replay: {story.policy}",
        f"replay-{uuid4().hex}",
        {"mlflow.note.content": note, "mlflow.source.name": "windvane replay"},
    )
    metrics = {"saved": story.saved, "windows": float(len(story.chapters))}
    for name, totals in (("never", story.never), ("policy", story.ours)):
        metrics |= {f"{name}_{figure}": float(value) for figure, value in vars(totals).items()}
    tracker.log(run, params={"retrain.policy": story.policy, "monitor.window": story.window}, metrics=metrics)
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


def replay_and_report(project: Project, options: ReplayOptions, console: Console) -> dict[str, Any]:
    """Play, draw, and report the result. Raises InputError."""
    began = time.monotonic()
    story = replay_table(project, options, console)
    return {**report_replay(project, story, console), "seconds": round(time.monotonic() - began, 2)}


def replay_table(
    project: Project, options: ReplayOptions, console: Console, spec: ModelConfiguration | None = None
) -> ReplayResult:
    """What the table's history comes to, by the configuration `spec`; None: the champion's, or boosting. Raises InputError."""
    settings = _apply_options(project, options)
    champion = None if spec else versions.find_champion(project.ledger, project.name)
    if not options.search:
        settings = project.refit_settings(champion, settings)
    console.working("read the table")
    known = order_arrivals(read_history_table(project), str(settings.problem.time), settings.monitor.delay)
    begin = find_replay_start(known, settings, options.since)
    first = spec or (DEFAULT_MODEL_SPEC if champion is None else ModelConfiguration.from_json(champion.facts.spec))
    # Removed by the next command that needs such a folder, if this one is killed.
    with ingestion.open_scratch_folder(project.root) as scratch:
        past = SimulatedProject(project, settings, known, scratch)
        with (
            laps.hold_lease(past.ledger, past.name, "windvane replay", lambda _: None) as lease,
            model_pipeline.limit_to_one_thread(),
        ):
            story = replay_windows(past, lease, begin, first, options.search, console)
        past.ledger.dispose()
    return story


def replay_windows(
    past: SimulatedProject, lease: Lease, begin: str, spec: ModelConfiguration, search: bool, console: Console
) -> ReplayResult:
    """Train the first champion on what is known at `begin`, and play on from there."""
    settings = past.settings
    past.now = begin
    ticks = past.stream.places(settings.monitor.cut, begin, past.stream.times[-1])
    if not ticks:
        window = settings.monitor.window
        raise InputError(f"--from: no full window of {window} lies behind {begin[:10]}. Name an earlier date")
    console.working("train the first champion")
    began = time.monotonic()
    first = simulation.run_simulated_lap(past, lease, None, "search" if search else "refit", spec)
    if first.ending != "promoted":
        raise InputError(f"no model of the rows before {begin[:10]} may serve: {first.reason}. Name a later --from")
    lap_seconds, left = time.monotonic() - began, TimeLeft(len(ticks))
    initial, passes, chapters = past.champion()[0], dict[int, MonitoringPass](), list[ReplayedWindow]()
    for at, tick in enumerate(ticks, 1):
        past.now = tick.end
        chapter = _replay_window(past, lease, passes, tick, initial, search)
        chapters.append(chapter)
        if at == 1:
            span, lap = format_span(left.estimate(1)), format_span(lap_seconds)
            console.print(
                f"  {count_noun(len(ticks), 'window')} to play: about {span}, and about {lap} for each retraining"
            )
        console.working(
            f"window {at} of {len(ticks)}{left.describe(at)}, from {tick.start[:10]}: loss {format_metric(chapter.loss)} (never "
            f"retrained {format_metric(chapter.never)}); {chapter.ending or chapter.action}"
        )
    name = own_metrics.load_measured_problem_type(settings.problem, None).loss_name(settings.problem.headline)
    dated = past.stream.rows[str(settings.problem.time)].dtype.kind == "M"
    window, trained = str(settings.monitor.window), initial.facts.rows
    return ReplayResult(past.name, settings.retrain.policy, name, window, dated, trained, tuple(chapters))


SILENT_CONSOLE = SilentConsole()


def _check_windows(
    past: SimulatedProject, passes: dict[int, MonitoringPass]
) -> tuple[WindowRecord, DecisionRecord] | None:
    """One monitoring pass at the simulation's present; `passes`: version -> the pass over its windows so far."""
    production = SimulatedProduction(past, SILENT_CONSOLE)

    def act(_seen: WindowRecord, _check: object, entry: DecisionRecord) -> None:
        monitoring.act_on_decision(past, entry, SILENT_CONSOLE, _promote_in_simulation)

    one = passes.setdefault(production.champion.version, MonitoringPass(production, SILENT_CONSOLE, act))
    return one.again(production)


def _promote_in_simulation(past: Project, version: int, cause: str, reason: str) -> None:
    last = versions.find_last_promotion(past.ledger, past.name)
    move = versions.make_promotion(None if last is None else last.to_version, version, cause, reason)
    versions.record_promotion(past.ledger, past.name, move)


def _replay_window(
    past: SimulatedProject,
    lease: Lease,
    passes: dict[int, MonitoringPass],
    tick: WindowSpan,
    initial: Any,
    search: bool,
) -> ReplayedWindow:
    """A window that is over: what it cost, what was decided, and the lap that follows."""
    champion = past.champion()[0]
    loss = past.loss(champion, tick)
    never = loss if champion.version == initial.version else past.loss(initial, tick)
    rows = past.stream.between(tick.start, tick.end)
    found = _check_windows(past, passes)
    played = ReplayedWindow(tick.start, tick.end, rows.stop - rows.start, champion.version, loss, never)
    if found is not None:
        seen, entry = found
        check = WindowAssessment.from_json(seen.look)
        cause, alarm = summarize_assessment(check), bool(check.drift.alarm)
        played = replace(played, action=entry.action, reason=entry.reason, cause=cause, alarm=alarm)
    pending = decisions.find_pending_retraining(past.ledger, past.name)
    if pending is not None:
        record = past.record(champion)
        price = past.settings.retrain.cost * window_frames.average_losses(
            past.settings.problem, record, record[LOSS_COLUMN].to_numpy()
        )
        depth: LapDepth = "search" if search and pending.depth == "search" else "refit"
        lap = simulation.run_simulated_lap(past, lease, pending, depth, DEFAULT_MODEL_SPEC)
        price = price if lap.fits else 0.0
        played = replace(played, ending=lap.ending, verdict=lap.reason, better=lap.better, price=price)
    return played


def _apply_options(project: Project, options: ReplayOptions) -> Settings:
    """params.yaml, but for what was typed."""
    content = params.read_params(project.root / params.PARAMS_FILE)
    typed: dict[str, dict[str, Any]] = {
        "monitor": {"window": options.window, "label_delay": options.delay},
        "retrain": {"policy": options.policy, "cost": options.cost},
    }
    for section, values in typed.items():
        content[section] = (content.get(section) or {}) | {k: v for k, v in values.items() if v is not None}
    settings = params.parse_settings(content, project.root / params.PARAMS_FILE)
    check_history_settings(settings, settings.retrain.cost)
    return settings
