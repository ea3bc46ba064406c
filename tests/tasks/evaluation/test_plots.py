"""Pictures: every one is drawn, from odd rows too, without pyplot and without hiding points behind points."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.evaluation_rows import Case, case
from tests.support.projects import ROOT
from windvane.tasks.evaluation import model_evaluation, plots
from windvane.tasks.evaluation.evaluation_files import draw_plots, write_evaluation
from windvane.tasks.evaluation.model_inspection import ColumnImportance
from windvane.tasks.evaluation.scores import SliceScore
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.reports import style
from windvane.tasks.search.model_search import CandidateResult, SearchResult
from windvane.tasks.search.search_plan import SearchTrial

pytestmark = pytest.mark.long


def trial(candidate: str, number: int, validation: float | None) -> SearchTrial:
    return SearchTrial(
        candidate, number, {}, "complete" if validation is not None else "pruned", validation, validation, 0.1, {}
    )


def found(case_: Case, *scores: float | None) -> SearchResult:
    metric = case_.settings.problem.headline
    results = [
        CandidateResult(name, replace(case_.spec, candidate=name), {metric: best}, {metric: best / 2}, tried, 1.0)
        for name, best, tried in (
            ("dummy", 9.0, (trial("dummy", 0, 9.0),)),
            ("linear", 2.0, tuple(trial("linear", i, s) for i, s in enumerate(scores))),
            ("boosting", 1.0, (trial("boosting", 0, 1.0), trial("boosting", 1, None))),
        )
    ]
    return SearchResult(tuple(results), results[2], None, 4)


def judged(c: Case) -> tuple[model_evaluation.ModelEvaluation, pd.DataFrame]:
    record = model_evaluation.predict_held_out(c.task, c.spec, c.train, c.validation, lambda: c.test).record
    return model_evaluation.evaluate_model(c.task, c.spec, c.train, c.validation, record), record


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return "\n".join(t.get_text() for t in figure.findobj(Text))


@pytest.mark.parametrize(
    ("kind", "target"), [("regression", "y"), ("classification", "flag"), ("classification", "class")]
)
def test_every_picture_of_a_lap_is_written_large_enough_to_read(kind: str, target: str, tmp_path: Path) -> None:
    c = case(kind, target, time=True)
    told, record = judged(c)
    search = found(c, 3.0, 2.0, 500.0, 4.0)
    written = [
        p.name for p in write_evaluation(tmp_path, c.settings, c.kind, told, record, search) if p.suffix == ".png"
    ]
    own = {
        "regression": {"predictions.png", "residuals_over_time.png"},
        "classification": {"confusion.png", "roc_and_precision_recall.png", "reliability.png"},
    }[kind]
    assert set(written) == {"ladder.png", "trials.png", "fit.png", "importance.png", "slices.png"} | own
    for name in written:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) >= 350
            assert len(set(image.convert("L").resize((60, 60)).tobytes())) > 10, f"{name} is empty"
    assert not list(tmp_path.glob(".*"))


def test_titles_axes_and_legends_name_target_and_metric() -> None:
    c = case(time=True)
    told, record = judged(c)
    drawn = {name: texts(figure) for name, figure in draw_plots(c.settings, c.kind, told, record, found(c, 3.0, 2.0))}
    for name, text in drawn.items():
        assert re.search(r"\by\b", text), name
    assert "mae, in units of y" in drawn["ladder"]
    assert all(name in drawn["ladder"] for name in ("dummy", "linear", "boosting"))
    assert "Boosting does best" in drawn["ladder"]
    assert told.diagnosis.name in drawn["fit"]
    assert "region: west" in drawn["slices"]
    assert "too low" in drawn["residuals_over_time"] or "too high" in drawn["residuals_over_time"]


def test_hopeless_trials_do_not_squeeze_the_others_and_are_counted() -> None:
    c = case()
    figure = plots.draw_trials(found(c, 1.5, 1.2, 1.3, 1.4, 1.1, 900.0), c.kind.metrics["mae"], "y")
    assert "1 worse, out of sight" in texts(figure)
    assert figure.axes[0].get_ylim()[1] < 10


@pytest.mark.parametrize("count", [style.MAX_PLOTTED_POINTS, 50_000])
def test_many_rows_are_drawn_as_density_not_as_points(count: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(100, 5, count)
    record = pd.DataFrame({"y": truth, "_prediction": truth + rng.normal(size=count)})
    figure = plots.draw_regression_plots(definitions.load_problem_type("regression"), record, case().settings.problem)[
        "predictions"
    ]
    points = max(np.size(line.get_xdata()) for ax in figure.axes for line in ax.lines)
    cells = [c for ax in figure.axes for c in ax.collections]
    assert points <= style.MAX_PLOTTED_POINTS
    assert bool(cells) == (count > style.MAX_PLOTTED_POINTS)


def test_roc_area_in_the_picture_is_the_metric() -> None:
    c = case("classification", "flag")
    told, record = judged(c)
    figure = plots.draw_classification_plots(c.kind, record, c.settings.problem)["roc_and_precision_recall"]
    assert f"area {told.scores['roc_auc'].value:.3f}" in texts(figure)


def test_the_precision_recall_curve_shows_where_the_model_calls() -> None:
    c = case("classification", "flag")
    told, record = judged(c)
    figure = plots.draw_classification_plots(c.kind, record, c.settings.problem)["roc_and_precision_recall"]
    mark = next(line for line in figure.axes[1].lines if line.get_label() == "as called")
    at = (told.scores["recall"].value, told.scores["precision"].value)
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx(at)


def test_pictures_that_are_not_defined_are_left_out() -> None:
    c = case("classification", "flag")
    told, record = judged(replace(c, test=c.test[c.test["flag"] == 1][:4].reset_index(drop=True)))
    names = [name for name, _ in draw_plots(c.settings, c.kind, told, record, None)]
    assert names == ["fit", "importance", "confusion", "reliability"]


def test_thirty_classes_are_cut_to_what_can_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"a class with a very long name {i:02}" for i in range(30)])
    truth = names[rng.integers(30, size=600)]
    proba = rng.dirichlet(np.ones(30), 600)
    record = pd.DataFrame({"k": truth, "_prediction": names[proba.argmax(axis=1)], "_loss": 1.0, "_baseline_loss": 1.0})
    record = record.assign(**{f"_p_{n}": proba[:, i] for i, n in enumerate(names)})
    problem = case("classification", "class").settings.problem.model_copy(update={"target": "k"})
    drawn = plots.draw_classification_plots(definitions.load_problem_type("classification"), record, problem)
    assert "12 most frequent of 30" in texts(drawn["confusion"])
    legend = drawn["roc_and_precision_recall"].axes[0].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == plots.MAX_CURVE_LINES


def test_no_heading_runs_off_the_picture() -> None:
    for title in ("short", "a title that names a target with quite a long name " * 3):
        figure, _ = style.build_figure(title, title, width=6)
        figure.draw_without_rendering()
        for text in figure.texts:
            assert text.get_window_extent().x1 <= figure.bbox.x1


def test_many_and_long_names_are_cut() -> None:
    leaned = [ColumnImportance("column " * 20 + str(i), 1.0 / (i + 1), None, None) for i in range(100)]
    assert "15 of 100 columns" in texts(plots.draw_importance(leaned, "absolute error", "y"))
    cuts = [SliceScore("c" * 90, str(i), 40, 2.0, 1.0, 1.0, 0.5, 1.5, True) for i in range(100)]
    figure = plots.draw_slices(cuts, "absolute error", "y")
    assert "100 of 100 slices" in texts(figure)
    assert max(len(t.get_text()) for t in figure.axes[0].get_yticklabels()) <= 48


def test_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys; from windvane.tasks.evaluation import plots, evaluation_files; from windvane.tasks.reports import style\n"
        "style.build_figure('a', 'b')[0].draw_without_rendering()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def test_threads_draw_the_same_pictures(tmp_path: Path) -> None:
    leaned = [ColumnImportance(f"c{i}", float(i), i - 0.5, i + 0.5) for i in range(5)]

    def draw(number: int) -> bytes:
        style.save_figure(plots.draw_importance(leaned, "log loss", "y"), tmp_path / f"{number}.png")
        return (tmp_path / f"{number}.png").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(draw, range(6)))) == 1
