"""An evaluation and a search as files: metrics, tables, words and plots in one folder. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from windvane.tasks.evaluation import plots
from windvane.tasks.evaluation.model_evaluation import ModelEvaluation
from windvane.tasks.evaluation.model_inspection import ColumnImportance
from windvane.tasks.evaluation.scores import SliceScore
from windvane.tasks.io import write_json, write_whole
from windvane.tasks.models.problem_types.definitions import BASELINE_CANDIDATE, Metric, ProblemType
from windvane.tasks.reports.style import save_figure
from windvane.tasks.search.model_search import SearchResult
from windvane.tasks.settings.problem_section import name_metric
from windvane.tasks.settings.project_params import Settings


def write_evaluation(
    folder: Path,
    settings: Settings,
    kind: ProblemType,
    evaluation: ModelEvaluation,
    record: pd.DataFrame,
    found: SearchResult | None = None,
) -> tuple[Path, ...]:
    """Write evaluation.json, metrics.json, diagnosis.json, diagnosis.txt, slices.csv, importance.csv, curves.csv, PNGs.

    With `found`, the ladder and the search are drawn too. Returns the paths; each file is whole.
    """
    curves = [c for c in (evaluation.learning, evaluation.complexity) if c is not None]
    points = [{"curve": c.axis, **asdict(p)} for c in curves for p in c.points]
    contents = {
        "evaluation.json": evaluation.to_json(),
        "metrics.json": flatten_metrics(evaluation),
        "diagnosis.json": asdict(evaluation.diagnosis),
    }
    tables = {
        "slices.csv": ([f.name for f in fields(SliceScore)], [asdict(s) for s in evaluation.slices]),
        "importance.csv": ([f.name for f in fields(ColumnImportance)], [asdict(i) for i in evaluation.importance]),
        "curves.csv": (["curve", "at", "train", "validation"], points),
    }
    described = describe_evaluation(evaluation)
    for name, content in contents.items():
        write_json(content, folder / name)
    write_whole(folder / "diagnosis.txt", lambda part: part.write_text(described, encoding="utf-8"))
    for name, (columns, rows) in tables.items():
        _write_csv(columns, rows, folder / name)
    plotted = []
    for name, figure in draw_plots(settings, kind, evaluation, record, found):
        plotted.append(f"{name}.png")
        save_figure(figure, folder / plotted[-1])
    return tuple(folder / name for name in (*contents, "diagnosis.txt", *tables, *plotted))


def draw_plots(
    settings: Settings, kind: ProblemType, evaluation: ModelEvaluation, record: pd.DataFrame, found: SearchResult | None
) -> Iterable[tuple[str, Figure]]:
    """(name, figure): those that every problem type shares, then those of the problem type."""
    metric, target = kind.metrics[evaluation.metric], settings.problem.target
    of = name_subject(metric.name, target, kind)
    if found is not None:
        yield "ladder", plots.draw_candidates(found, metric, of)
        yield "trials", plots.draw_trials(found, metric, of)
    yield "fit", plots.draw_fit_curves(evaluation, of)
    if evaluation.importance:
        yield "importance", plots.draw_importance(evaluation.importance, evaluation.loss_name, target)
    if evaluation.slices:
        yield "slices", plots.draw_slices(evaluation.slices, evaluation.loss_name, target)
    if len(record):
        yield from plots.PROBLEM_TYPE_PLOTS[kind.name](kind, record, settings.problem).items()


def name_subject(metric: str, target: str, kind: ProblemType) -> str:
    """What a metric is of: the target, or its positive class where the metric is of that."""
    return f"{target} = {kind.positive}" if name_metric(metric, kind.positive) != metric else target


def flatten_metrics(evaluation: ModelEvaluation) -> dict[str, float]:
    """Flat numbers for a tracking server: every defined score, loss and baseline loss, with `_low` and `_high`."""
    losses = {name: getattr(evaluation, name) for name in ("loss", "baseline_loss", "gain")}
    flat: dict[str, float | None] = {}
    for name, score in {**evaluation.scores, **losses}.items():
        flat |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
    if evaluation.calibration is not None:
        flat["calibration_error"] = evaluation.calibration.error
    return {name: value for name, value in flat.items() if value is not None}


def describe_evaluation(evaluation: ModelEvaluation) -> str:
    """The diagnosis and its circumstances, for people."""
    described, scores = evaluation.diagnosis, evaluation.scores
    lines = [f"{described.name.capitalize()}.", f"Because: {described.because}.", f"What to do: {described.adjust}"]
    lines += [f"{name}: not defined here: {s.reason}." for name, s in scores.items() if s.value is None]
    if not evaluation.slices:
        lines.append("Slices: none holds rows enough (20, a hundredth of all, and five independent pieces).")
    clear = [s for s in evaluation.slices if s.clear]
    if clear:
        worst = clear[0]
        lines.append(
            f"Worst slice: {worst.column} = {worst.value} ({worst.rows:,} rows), mean {evaluation.loss_name} "
            f"{worst.loss:.4g} against {worst.rest:.4g} elsewhere; {len(clear)} of {len(evaluation.slices)} slices "
            "are clearly worse."
        )
    lines += [f"Note: {note}." for note in evaluation.notes]
    lines.append(f"Intervals: 95 %, resampled by {evaluation.resampled}.")
    return "\n".join(lines) + "\n"


def _write_csv(columns: list[str], rows: list[dict[str, Any]], path: Path) -> None:
    frame = pd.DataFrame(rows, columns=columns, dtype=object)  # numbers as they are, whole ones too
    write_whole(path, lambda part: frame.to_csv(part, index=False, lineterminator="\r\n"))


def write_trials(folder: Path, found: SearchResult, metric: Metric, subject: str) -> Path:
    """Write trials.csv (a row per trial: state, scores, seconds, hyperparameters), and a plot where there are several."""
    trials = [trial for result in found.results for trial in result.trials]
    rows = [
        {
            "number": t.number,
            "state": t.state,
            f"validation_{metric.name}": t.validation,
            f"train_{metric.name}": t.train,
            "seconds": round(t.seconds, 3),
            **t.params,
            "note": t.note,
        }
        for t in trials
    ]
    write_whole(folder / "trials.csv", lambda part: pd.DataFrame(rows).to_csv(part, index=False))
    if len(trials) > 1 and trials[0].candidate != BASELINE_CANDIDATE:
        save_figure(plots.draw_trials(found, metric, subject), folder / "trials.png")
    return folder
