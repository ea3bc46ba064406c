"""`windvane backtest`: what each retraining policy would have cost on the project's own table, and which to use."""

from __future__ import annotations

import itertools
import math
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from windvane.ledger import versions
from windvane.ledger.database import to_timestamp
from windvane.monitoring.history import backtest, loss_matrix
from windvane.monitoring.history.backtest import AlarmsByPolicy, BacktestResult, PolicyResult, WindowLengthResult
from windvane.monitoring.history.loss_matrix import LossMatrix, WindowedTable
from windvane.monitoring.history.simulation import PolicySimulation
from windvane.monitoring.watch.production import read_source_table
from windvane.tasks import io
from windvane.tasks.console import Console, format_table
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io
from windvane.tasks.io import STATE_FOLDER
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.process_environment import count_cores
from windvane.tasks.project import Project
from windvane.tasks.settings import yaml_files
from windvane.tasks.settings.project_params import PARAMS_FILE, Settings
from windvane.tasks.sources import fetch


def select_recommended_results(found: BacktestResult) -> list[PolicyResult]:
    """What was played under the recommended history."""
    return [r for r in found.results if r.history == found.recommended.history]


def print_backtest_result(
    tried: tuple[WindowLengthResult, ...], best: WindowLengthResult, candidate: str, count: int, console: Console
) -> None:
    """The figures, then what to use."""
    job, chosen = tried[0], best.found.recommended
    lines = [
        {
            "policy": r.name,
            "history": r.history,
            "loss": r.played.loss / count,
            "retrains": len(r.played.retrained),
            "total": r.played.total / count,
            "chose": round(r.chosen_on, 3),
            "later": round(r.reported_on, 3),
            "95 %": "" if r.low is None else f"{r.low:.2f} to {r.high:.2f}",
        }
        for r in job.found.results
    ]
    lengths = [
        {
            "window": one.window,
            "policy": one.found.recommended.name,
            "history": one.found.recommended.history,
            "total, where it chose": one.found.recommended.rate,
            "later": round(one.found.recommended.reported_on, 3),
        }
        for one in tried
    ]
    console.print(
        f"  {count} windows of {job.window} played with {candidate}, loss and total per window; a lap costs "
        f"{job.cost:g} of them\n"
        f"{format_table(lines)}\n"
        "  chose, later: total over the cheapest schedule in hindsight, on the first half and on the rest (refits without a gate)\n"
        "  by windows of:\n"
        f"{format_table(lengths)}\n"
        f"  use: retrain.policy {chosen.name}, retrain.cost {best.cost:g}, retrain.history {chosen.history}, "
        f"monitor.window {best.window}"
    )


def draw_backtest_result(found: BacktestResult, starts: tuple[str, ...], first: int, path: Path) -> None:
    """Loss over the windows from `first` on, which begin at `starts`: never retrained, and under the recommended policy (regret, where
    that is never) with its retrainings.
    """
    played = {r.name: r for r in select_recommended_results(found)}
    shown = played["regret" if found.recommended.name == "never" else found.recommended.name]
    figure, at = Figure(figsize=(10, 4), layout="constrained"), range(len(starts))
    axes = figure.subplots()
    axes.plot(at, played["never"].played.by_window, color="0.6", label="never retrained")
    axes.plot(at, shown.played.by_window, color="tab:blue", label=f"{shown.name}, {shown.history}")
    retrained_at = [w - first for w in shown.played.retrained]
    axes.plot(retrained_at, [shown.played.by_window[m] for m in retrained_at], "v", color="tab:red", label="retrained")
    ticks = list(at)[:: max(1, len(starts) // 8)]
    axes.set_xticks(ticks, [starts[t][:10] for t in ticks])
    axes.set(ylabel="mean loss of a window", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write_whole(path, lambda part: figure.savefig(part, dpi=120, format="png"))


# Trained where no champion sets it: strong at its defaults on most tables.
DEFAULT_MODEL_SPEC = ModelConfiguration("boosting", {})
BACKTEST_PICTURE = STATE_FOLDER / "history" / "backtest.png"


def backtest_table(
    project: Project,
    window: str | None,
    cost: float | None,
    delay: int | None,
    apply: bool,
    drift: bool,
    console: Console,
) -> dict[str, Any]:
    """Play the table's history; what is None is taken from params.yaml. Fits are kept in .windvane/history, beside the picture.

    apply: write what is recommended into params.yaml. drift: play policies that need drift alarms, too. Raises InputError.
    """
    began = time.monotonic()
    settings = project.settings
    window = str(settings.monitor.window) if window is None else window
    cost = settings.retrain.cost if cost is None else cost
    time_column = check_history_settings(settings, cost)
    champion = versions.find_champion(project.ledger, project.name)
    spec = DEFAULT_MODEL_SPEC if champion is None else ModelConfiguration.from_json(champion.facts.spec)
    rows = read_history_table(project)
    rows = rows[rows[settings.problem.target].notna()].drop(columns=table_io.ROW_KEY, errors="ignore")
    cut = loss_matrix.cut_into_windows(rows, time_column, window)
    first = loss_matrix.find_first_window(cut.count)
    delay = _count_delay_windows(cut, settings.monitor.delay) if delay is None else delay
    built: dict[str, LossMatrix] = {}
    ringing: dict[str, AlarmsByPolicy] = {}
    for history in _list_histories(settings, spec, first):
        job = loss_matrix.make_matrix_job(cut, settings, spec, window, history)
        built[history] = loss_matrix.build_loss_matrix(
            job,
            project.home / "history",
            count_cores(),
            lambda done, of, history=history: console.working(f"{history}: {done} of {of} models"),  # type: ignore[misc]
        )
        ringing[history] = _compute_alarms(job, project, console) if drift else {}
    tried = backtest.compare_window_lengths(built, cut, window, cost, time=time_column, delay=delay, alarms=ringing)
    best = backtest.choose_window_length(tried)
    # The picture is of the windows that were requested, whichever are recommended.
    draw_backtest_result(tried[0].found, cut.starts[first:], first, project.root / BACKTEST_PICTURE)
    print_backtest_result(tried, best, spec.candidate, cut.count - first, console)
    console.print(f"  picture: {BACKTEST_PICTURE}")
    content = _make_backtest_result(tried[0], best, cut.count - first)
    if apply:
        content["applied"] = _apply_recommendation(project.root / PARAMS_FILE, content["recommended"], console)
    return {**content, "seconds": round(time.monotonic() - began, 2)}


def _compute_alarms(job: loss_matrix.MatrixJob, project: Project, console: Console) -> AlarmsByPolicy:
    """The project's own drift alarm, by its name in retrain.policy; remembered beside the fits."""
    level, kept = project.settings.monitor.false_alarms, project.home / "history" / "drift.json"
    return {"drift": backtest.make_calibrated_alarm(job, level, kept, lambda: console.working("drift alarms"))}


def _list_histories(settings: Settings, spec: ModelConfiguration, first: int) -> list[str]:
    """All rows, the last windows, and both, where a lap can be trained so: as many windows as the first quarter has, in whole dozens
    if there are, so that longer windows hold them too.
    """
    whole = first - first % 12 if first >= 12 else first
    words = ["trailing"] if spec.balance.treatment or settings.search.imbalance else ["trailing", "combined"]
    by_time = settings.split.strategy == "time"
    return ["expanding", *(f"{word}:{whole}" for word in words if by_time)]


def _apply_recommendation(path: Path, chosen: dict[str, Any], console: Console) -> dict[str, Any]:
    """Write what is recommended into params.yaml; key -> [before, now] of what changed."""
    window = int(chosen["window"]) if chosen["window"].isdecimal() else chosen["window"]
    keys = {f"retrain.{name}": chosen[name] for name in ("policy", "cost", "history")}
    changed = yaml_files.edit_params(path, {**keys, "monitor.window": window})
    for key, (before, now) in changed.items():
        console.print(f"  {path.name}: {key} is {now} now ({'not there' if before is None else before} before)")
    if not changed:
        console.print(f"  {path.name}: has these values already; nothing changed")
    return {key: list(values) for key, values in changed.items()}


def read_history_table(project: Project) -> pd.DataFrame:
    """The rows of data.source, fetched and read as a lap does it."""
    fetch.fetch_source(project.root, project.settings.data, project.settings.problem.id)
    return read_source_table(project)


def check_history_settings(settings: Settings, cost: float) -> str:
    """The column of time. Raises InputError where a history has no order, or its retrainings no price."""
    if settings.problem.time is None:
        raise InputError(
            "problem.time: a history needs an order. Name the column that has the time at which a row was observed"
        )
    if cost == 0:
        raise InputError("retrain.cost: 0 makes every retraining free, and there is nothing to weigh. Name --cost")
    return settings.problem.time


def _count_delay_windows(cut: WindowedTable, late: timedelta) -> int:
    """In how many windows' time labels come that are so late: by a usual window's length, rounded up."""
    if not late:
        return 0
    starts = [datetime.fromisoformat(to_timestamp(text)) for text in cut.starts]
    usual = sorted(b - a for a, b in itertools.pairwise(starts))[(len(starts) - 1) // 2]
    return math.ceil(late / usual) if usual else 0


def _make_backtest_result(job: WindowLengthResult, best: WindowLengthResult, count: int) -> dict[str, Any]:
    chosen = best.found.recommended
    return {
        "windows": count,
        "policies": {
            r.name: {
                **_make_figures(r.played),
                "ratio": {"chosen on": r.chosen_on, "reported on": r.reported_on, "low": r.low, "high": r.high},
            }
            for r in select_recommended_results(job.found)
        },
        "oracle": _make_figures(job.found.oracle[job.found.recommended.history]),
        "recommended": {"policy": chosen.name, "history": chosen.history, "cost": best.cost, "window": best.window},
        "picture": BACKTEST_PICTURE.as_posix(),
    }


def _make_figures(played: PolicySimulation) -> dict[str, Any]:
    return {"loss": played.loss, "retrains": len(played.retrained), "total": played.total}
