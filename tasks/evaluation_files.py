"""An evaluation as files: metrics, tables, words and pictures in one folder. Owns their names; works nothing out."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks.sheets import save
from windvane.tasks.tables import write_json, write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from windvane.tasks.evaluation import Evaluation
    from windvane.tasks.problems import Kind
    from windvane.tasks.search import Found
    from windvane.tasks.settings import Settings


def write_evaluation(
    folder: Path,
    settings: Settings,
    kind: Kind,
    evaluation: Evaluation,
    record: pd.DataFrame,
    found: Found | None = None,
) -> tuple[Path, ...]:
    """Write evaluation.json, metrics.json, diagnosis.json, diagnosis.txt, slices.csv, importance.csv, curves.csv, PNGs.

    With `found`, the ladder and the search are drawn too. Returns the paths; each file is whole.
    """
    from windvane.tasks.importance import Importance
    from windvane.tasks.slices import Slice

    write_json(evaluation.to_json(), folder / "evaluation.json")
    write_json(metrics(evaluation), folder / "metrics.json")
    write_json(asdict(evaluation.diagnosis), folder / "diagnosis.json")
    _text(words(evaluation), folder / "diagnosis.txt")
    _table(Slice, [asdict(s) for s in evaluation.slices], folder / "slices.csv")
    _table(Importance, [asdict(i) for i in evaluation.importance], folder / "importance.csv")
    _table(("curve", "at", "train", "validation"), _points(evaluation), folder / "curves.csv")
    names = [
        "evaluation.json",
        "metrics.json",
        "diagnosis.json",
        "diagnosis.txt",
        "slices.csv",
        "importance.csv",
        "curves.csv",
    ]
    for name, figure in pictures(settings, kind, evaluation, record, found):
        save(figure, folder / f"{name}.png")
        names.append(f"{name}.png")
    return tuple(folder / name for name in names)


def pictures(
    settings: Settings, kind: Kind, evaluation: Evaluation, record: pd.DataFrame, found: Found | None
) -> Iterable[tuple[str, Figure]]:
    """(name, figure): those that every kind shares, then those that tasks/plots_<kind>.py brings."""
    from windvane.tasks import plots

    metric, target = kind.metrics[evaluation.metric], settings.problem.target
    if found is not None:
        yield "ladder", plots.ladder(found, metric, target)
        yield "trials", plots.trials(found, metric, target)
    yield "fit", plots.fit(evaluation, target)
    if evaluation.importance:
        yield "importance", plots.importance(evaluation.importance, evaluation.loss_name, target)
    if evaluation.slices:
        yield "slices", plots.slices(evaluation.slices, evaluation.loss_name, target)
    if len(record):
        yield from (
            importlib.import_module(f"windvane.tasks.plots_{kind.name}").figures(kind, record, settings.problem).items()
        )


def metrics(evaluation: Evaluation) -> dict[str, float]:
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


def words(evaluation: Evaluation) -> str:
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


def _points(evaluation: Evaluation) -> list[dict[str, Any]]:
    curves = [c for c in (evaluation.learning, evaluation.complexity) if c is not None]
    return [{"curve": c.axis, **asdict(p)} for c in curves for p in c.points]


def _table(columns: Any, rows: list[dict[str, Any]], path: Path) -> None:
    names = [f.name for f in fields(columns)] if is_dataclass(columns) else list(columns)

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


def _text(text: str, path: Path) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
