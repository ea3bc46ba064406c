"""`windvane backtest`: what each retraining policy would have cost on the project's own table, and which to use."""

from __future__ import annotations

import itertools
import math
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
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
from windvane.tasks.console import Console, TimeLeft, count_noun, format_metric, format_span, format_table
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import table_io
from windvane.tasks.io import STATE_FOLDER
from windvane.tasks.models.model_pipeline import ModelConfiguration
from windvane.tasks.process_environment import count_cores
from windvane.tasks.project import Project
from windvane.tasks.settings import yaml_files
from windvane.tasks.settings.monitoring_section import RetrainSettings
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
            "loss per window": r.played.loss / count,
            "retrains": len(r.played.retrained),
            "total per window": r.played.total / count,
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
        f"  {count_noun(count, 'window')} of {job.window} played with {candidate}; a lap costs {job.cost:g} windows' loss\n"
        f"{format_table(lines)}\n"
        "  chose, later: total over the cheapest schedule in hindsight, on the first half and on the rest (refits without a gate)\n"
        "  by windows of:\n"
        f"{format_table(lengths)}\n"
        f"  use: retrain.policy {chosen.name}, retrain.cost {best.cost:g}, retrain.history {chosen.history}, "
        f"monitor.window {best.window}"
    )


def draw_backtest_result(found: BacktestResult, cut: WindowedTable, time_column: str, first: int, path: Path) -> None:
    """Loss over the windows from `first` on: never retrained, and under the recommended policy (regret, where that is never) with
    its retrainings. No line where there was no window.
    """
    played = {r.name: r for r in select_recommended_results(found)}
    shown = played["regret" if found.recommended.name == "never" else found.recommended.name]
    figure, starts = Figure(figsize=(10, 4), layout="constrained"), cut.rows[time_column].iloc[cut.edges[first:-1]]
    axes, at = figure.subplots(), starts.to_numpy()
    stretches = np.split(np.arange(len(at)), sorted(gap - first for gap in cut.gaps if gap > first))
    for one, colour, label in (
        (played["never"], "0.6", "never retrained"),
        (shown, "tab:blue", f"{shown.name}, {shown.history}"),
    ):
        for part in stretches:
            axes.plot(at[part], one.played.by_window[part], "." if len(part) == 1 else "-", color=colour)
        axes.plot([], [], color=colour, label=label)
    retrained_at = [w - first for w in shown.played.retrained]
    axes.plot(at[retrained_at], shown.played.by_window[retrained_at], "v", color="tab:red", label="retrained")
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
    champion = versions.find_champion(project.ledger, project.name)
    settings = project.refit_settings(champion)
    window = str(settings.monitor.window) if window is None else window
    cost = settings.retrain.cost if cost is None else cost
    time_column = check_history_settings(settings, cost)
    spec = DEFAULT_MODEL_SPEC if champion is None else ModelConfiguration.from_json(champion.facts.spec)
    rows = read_history_table(project)
    rows = rows[rows[settings.problem.target].notna()].drop(columns=table_io.ROW_KEY, errors="ignore")
    cut = loss_matrix.cut_into_windows(rows, time_column, window)
    first = loss_matrix.find_first_window(cut.count)
    delay = _count_delay_windows(cut, settings.monitor.delay) if delay is None else delay
    histories = _list_histories(settings, spec, first)
    jobs = {history: loss_matrix.make_matrix_job(cut, settings, spec, window, history) for history in histories}
    built = _build_matrices(jobs, project.home / "history", console)
    ringing = {history: _compute_alarms(job, project, console) if drift else {} for history, job in jobs.items()}
    tried = backtest.compare_window_lengths(built, cut, window, cost, time=time_column, delay=delay, alarms=ringing)
    best = backtest.choose_window_length(tried)
    # The picture is of the windows that were requested, whichever are recommended.
    draw_backtest_result(tried[0].found, cut, time_column, first, project.root / BACKTEST_PICTURE)
    print_backtest_result(tried, best, spec.candidate, cut.count - first, console)
    console.print(f"  picture: {BACKTEST_PICTURE}")
    content = _make_backtest_result(tried[0], best, cut.count - first, settings.retrain)
    _print_present_choice(content, console)
    if apply:
        content["applied"] = _apply_recommendation(project.root / PARAMS_FILE, content["recommended"], console)
    return {**content, "seconds": round(time.monotonic() - began, 2)}


# Fits of fewer seconds are done here: processes of their own would import longer than they work.
SECONDS_WORTH_PROCESSES = 8.0


def _build_matrices(jobs: dict[str, loss_matrix.MatrixJob], kept: Path, console: Console) -> dict[str, LossMatrix]:
    """A matrix for each history; first, on the screen, how long the fits that are missing will take."""
    console.working("train a model, to see how long it takes")
    cores, measured = count_cores(), {name: loss_matrix.measure_missing_models(job, kept) for name, job in jobs.items()}
    missing = sum(count for count, _ in measured.values())
    if missing:
        seconds = sum(count * each for count, each in measured.values()) / min(cores, missing)
        console.print(
            f"  {count_noun(missing, 'model')} to train: about {format_span(seconds)}; they are kept for the next time"
        )
    left, done_before, built = TimeLeft(missing), 0, dict[str, LossMatrix]()
    for name, job in jobs.items():
        mine, each = measured[name]

        def report(done: int, of: int, name: str = name, mine: int = mine, before: int = done_before) -> None:
            console.working(f"{name}: {done} of {of} models{left.describe(before + done - of + mine)}")

        spread = mine * each > SECONDS_WORTH_PROCESSES
        built[name] = loss_matrix.build_loss_matrix(job, kept, cores if spread else 1, report)
        done_before += mine
    return built


def _compute_alarms(job: loss_matrix.MatrixJob, project: Project, console: Console) -> AlarmsByPolicy:
    """The project's own drift alarm, by its name in retrain.policy; remembered beside the fits."""
    level, kept = project.settings.monitor.false_alarms, project.home / "history" / "drift.json"
    return {"drift": backtest.make_calibrated_alarm(job, level, kept, lambda: console.working("drift alarms"))}


def _list_histories(settings: Settings, spec: ModelConfiguration, first: int) -> list[str]:
    """All rows, the last windows, and both, where a lap can be trained so: as many windows as the first quarter has, in whole dozens
    if there are, so that longer windows hold them too. And the history of params.yaml.
    """
    whole = first - first % 12 if first >= 12 else first
    words = ["trailing"] if spec.balance.treatment or settings.search.imbalance else ["trailing", "combined"]
    by_time = settings.split.strategy == "time"
    return list(
        dict.fromkeys(["expanding", *(f"{word}:{whole}" for word in words if by_time), settings.retrain.history])
    )


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


def _make_backtest_result(
    job: WindowLengthResult, best: WindowLengthResult, count: int, now: RetrainSettings
) -> dict[str, Any]:
    """`histories` holds all that was played; `policies` and `oracle` that under the recommended history."""
    chosen, default = best.found.recommended, RetrainSettings()
    histories: dict[str, Any] = {
        name: {"oracle": _make_figures(optimum), "policies": {}} for name, optimum in job.found.oracle.items()
    }
    for r in job.found.results:
        ratio = {"chosen on": r.chosen_on, "reported on": r.reported_on, "low": r.low, "high": r.high}
        histories[r.history]["policies"][r.name] = {**_make_figures(r.played), "ratio": ratio}
    return {
        "windows": count,
        **histories[job.found.recommended.history],
        "histories": histories,
        **{
            name: {
                "policy": one.policy,
                "history": one.history,
                "played": one.policy in histories.get(one.history, {"policies": {}})["policies"],
            }
            for name, one in (("configured", now), ("default", default))
        },
        "recommended": {"policy": chosen.name, "history": chosen.history, "cost": best.cost, "window": best.window},
        "picture": BACKTEST_PICTURE.as_posix(),
    }


def _print_present_choice(content: dict[str, Any], console: Console) -> None:
    """What params.yaml has now, and the default, in the figures of the table."""
    for name in ("configured", "default"):
        one = content[name]
        what = f"{name}: {one['policy']}, {one['history']}"
        if one["played"]:
            total = content["histories"][one["history"]]["policies"][one["policy"]]["total_per_window"]
            console.print(f"  {what}: total per window {format_metric(total)}")
        else:
            console.print(f"  {what}: not played; --drift plays the policy drift")


def _make_figures(played: PolicySimulation) -> dict[str, Any]:
    count = len(played.by_window)
    figures = {"loss": played.loss, "retrains": len(played.retrained), "total": played.total}
    return figures | {"loss_per_window": played.loss / count, "total_per_window": played.total / count}
