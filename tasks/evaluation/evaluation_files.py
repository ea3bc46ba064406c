"""An evaluation and a search as files: metrics, tables, words and plots in one folder. Computes nothing."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.io import write_json, write_whole
from windvane.tasks.reports.style import save_figure
from windvane.tasks.search.search_plan import BASELINE_CANDIDATE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from windvane.tasks.evaluation.model_evaluation import ModelEvaluation
    from windvane.tasks.models.problem_types.definitions import Metric, ProblemType
    from windvane.tasks.search.model_search import SearchResult
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
    from windvane.tasks.evaluation.model_inspection import ColumnImportance
    from windvane.tasks.evaluation.scores import SliceScore

    write_json(evaluation.to_json(), folder / "evaluation.json")
    write_json(flatten_metrics(evaluation), folder / "metrics.json")
    write_json(asdict(evaluation.diagnosis), folder / "diagnosis.json")
    _write_text(describe_evaluation(evaluation), folder / "diagnosis.txt")
    _write_csv(SliceScore, [asdict(s) for s in evaluation.slices], folder / "slices.csv")
    _write_csv(ColumnImportance, [asdict(i) for i in evaluation.importance], folder / "importance.csv")
    _write_csv(("curve", "at", "train", "validation"), _list_curve_points(evaluation), folder / "curves.csv")
    names = [
        "evaluation.json",
        "metrics.json",
        "diagnosis.json",
        "diagnosis.txt",
        "slices.csv",
        "importance.csv",
        "curves.csv",
    ]
    for name, figure in draw_plots(settings, kind, evaluation, record, found):
        save_figure(figure, folder / f"{name}.png")
        names.append(f"{name}.png")
    return tuple(folder / name for name in names)


def draw_plots(
    settings: Settings, kind: ProblemType, evaluation: ModelEvaluation, record: pd.DataFrame, found: SearchResult | None
) -> Iterable[tuple[str, Figure]]:
    """(name, figure): those that every kind shares, then those of the problem type."""
    from windvane.tasks.evaluation import plots

    metric, target = kind.metrics[evaluation.metric], settings.problem.target
    if found is not None:
        yield "ladder", plots.draw_candidates(found, metric, target)
        yield "trials", plots.draw_trials(found, metric, target)
    yield "fit", plots.draw_fit_curves(evaluation, target)
    if evaluation.importance:
        yield "importance", plots.draw_importance(evaluation.importance, evaluation.loss_name, target)
    if evaluation.slices:
        yield "slices", plots.draw_slices(evaluation.slices, evaluation.loss_name, target)
    if len(record):
        yield from plots.PROBLEM_TYPE_PLOTS[kind.name](kind, record, settings.problem).items()


def flatten_metrics(evaluation: ModelEvaluation) -> dict[str, float]:
    """Flat numbers for a tracking server: every defined score, loss and baseline loss, with `_low` and `_high`."""
    named = {
        **evaluation.scores,
        "loss": evaluation.loss,
        "baseline_loss": evaluation.baseline_loss,
        "gain": evaluation.gain,
    }
    flat: dict[str, float | None] = {}
    for name, score in named.items():
        flat |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
    if evaluation.calibration is not None:
        flat["calibration_error"] = evaluation.calibration.error
    return {name: value for name, value in flat.items() if value is not None}


def describe_evaluation(evaluation: ModelEvaluation) -> str:
    """The diagnosis and its circumstances, for people."""
    told = evaluation.diagnosis
    lines = [f"{told.name.capitalize()}.", f"Because: {told.because}.", f"What to do: {told.adjust}"]
    lines += [
        f"{name}: not defined here: {score.reason}." for name, score in evaluation.scores.items() if score.value is None
    ]
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


def _list_curve_points(evaluation: ModelEvaluation) -> list[dict[str, Any]]:
    curves = [c for c in (evaluation.learning, evaluation.complexity) if c is not None]
    return [{"curve": c.axis, **asdict(p)} for c in curves for p in c.points]


def _write_csv(columns: Any, rows: list[dict[str, Any]], path: Path) -> None:
    names = [f.name for f in fields(columns)] if is_dataclass(columns) else list(columns)

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


def _write_text(text: str, path: Path) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_trials(folder: Path, found: SearchResult, metric: Metric, target: str) -> Path:
    """Write trials.csv (a row per trial: state, scores, seconds, hyperparameters), and a plot where there are several."""
    import pandas as pd

    from windvane.tasks.evaluation import plots

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
        save_figure(plots.draw_trials(found, metric, target), folder / "trials.png")
    return folder
