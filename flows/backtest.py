"""`windvane backtest`: what each retraining policy would have cost on the project's own table, and which to use."""

from __future__ import annotations

import itertools
import math
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.console import Console, table
from flows.project import Project
from ledger import versions
from ledger.moments import moment
from monitoring.history import backtest, matrix, windows
from monitoring.history.backtest import Backtest, Result
from tasks import fetch, ingest, tables
from tasks.errors import InputError
from tasks.estimators import Spec

if TYPE_CHECKING:
    import pandas as pd

    from monitoring.history.matrix import Matrix
    from monitoring.history.playing import Played
    from monitoring.history.windows import Cut

# Taught where no champion says with what: strong at its defaults on most tables.
FIRST = Spec("boosting", {})
PICTURE = Path(".windvane/history/backtest.png")


def run(
    project: Project, window: str | None, cost: float | None, delay: int | None, cores: int, console: Console
) -> dict[str, Any]:
    """Play the table's history; what is None is taken from params.yaml. Fits are kept in .windvane/history, beside the picture.

    Raises InputError.
    """
    began = time.monotonic()
    settings = project.settings
    window = str(settings.monitor.window) if window is None else window
    cost = settings.retrain.cost if cost is None else cost
    if cost == 0:
        raise InputError("retrain.cost: 0 makes every retraining free, and there is nothing to weigh. Name --cost")
    if settings.problem.time is None:
        raise InputError("problem.time: a history needs an order. Name the column that says when a row was observed")
    champion = versions.champion(project.ledger, project.name)
    spec = FIRST if champion is None else Spec.from_json(champion.facts["spec"])
    cut = windows.cut(_rows(project), settings.problem.time, window)
    first = matrix.first_window(cut.count)
    delay = _delay(cut, settings.monitor.delay) if delay is None else delay
    built: dict[str, Matrix] = {}
    for history in ("expanding", f"trailing:{first}"):
        asked = matrix.Job(cut, settings, spec, matrix.trailing(history))
        built[history] = matrix.build(
            asked,
            project.home / "history",
            cores,
            lambda done, of, history=history: console.working(f"{history}: {done} of {of} models"),  # type: ignore[misc]
        )
    found = backtest.compare(built, cost, delay=delay)
    _draw(found, cut.starts[first:], project.root / PICTURE)
    _say(found, cost, spec, cut.count - first, console)
    return _content(found, cost, window, cut.count - first, time.monotonic() - began)


def _rows(project: Project) -> pd.DataFrame:
    """The labelled rows of data.source, as a lap reads them."""
    settings = project.settings
    fetch.run(project.root, settings.data, settings.problem.id)
    with ingest.scratch(project.root) as folder:
        ingest.write(project.root, settings, folder / "table.parquet", folder)
        frame = tables.read_parquet(folder / "table.parquet")
    return frame[frame[settings.problem.target].notna()].drop(columns=tables.ROW, errors="ignore")


def _delay(cut: Cut, late: timedelta) -> int:
    """In how many windows' time labels come that are so late: by a usual window's length, rounded up."""
    if not late:
        return 0
    starts = [datetime.fromisoformat(moment(text)) for text in cut.starts]
    usual = sorted(b - a for a, b in itertools.pairwise(starts))[(len(starts) - 1) // 2]
    return math.ceil(late / usual) if usual else 0


def _same(found: Backtest) -> list[Result]:
    """What was played under the recommended history."""
    return [r for r in found.results if r.history == found.recommended.history]


def _say(found: Backtest, cost: float, spec: Spec, count: int, console: Console) -> None:
    """The figures, then what to use."""
    lines = [
        {
            "policy": r.name,
            "history": r.history,
            "loss": r.played.loss / count,
            "retrains": len(r.played.retrained),
            "total": r.played.total / count,
            "chose": round(r.chosen_on, 3),
            "later": round(r.reported_on, 3),
        }
        for r in found.results
    ]
    best = found.recommended
    console.say(
        f"  {count} windows played with {spec.candidate}, loss and total per window; a lap costs {cost:g} of them"
    )
    console.say(table(lines))
    console.say(
        "  chose, later: total over the cheapest schedule in hindsight, on the first half and on the rest (refits without a gate)"
    )
    console.say(f"  use: retrain.policy {best.name}, retrain.history {best.history}")
    console.say(f"  look: {PICTURE}")


def _content(found: Backtest, cost: float, window: str, count: int, seconds: float) -> dict[str, Any]:
    best = found.recommended
    chosen = {"policy": best.name, "history": best.history, "cost": cost, "window": window}
    return {
        "windows": count,
        "policies": {
            r.name: {**_figures(r.played), "ratio": {"chosen on": r.chosen_on, "reported on": r.reported_on}}
            for r in _same(found)
        },
        "oracle": _figures(found.oracle[best.history]),
        "recommended": chosen,
        "picture": PICTURE.as_posix(),
        "seconds": round(seconds, 2),
    }


def _figures(played: Played) -> dict[str, Any]:
    return {"loss": played.loss, "retrains": len(played.retrained), "total": played.total}


def _draw(found: Backtest, starts: tuple[str, ...], path: Path) -> None:
    """Loss over time, never retrained against the recommended policy (or regret, where that is never), with its retrainings."""
    from matplotlib.figure import Figure

    same = {r.name: r for r in _same(found)}
    shown = same["regret" if found.recommended.name == "never" else found.recommended.name]
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    at = range(len(starts))
    axes.plot(at, same["never"].played.by_window, color="0.6", label="never retrained")
    axes.plot(at, shown.played.by_window, color="tab:blue", label=f"{shown.name}, {shown.history}")
    began = len(starts) - len(shown.played.by_window)
    marks = [w - (shown.played.decided[0].window - 1) + began for w in shown.played.retrained]
    axes.plot(marks, [shown.played.by_window[m] for m in marks], "v", color="tab:red", label="retrained")
    ticks = list(at)[:: max(1, len(starts) // 8)]
    axes.set_xticks(ticks, [starts[t][:10] for t in ticks])
    axes.set(ylabel="mean loss of a window", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_whole(path, lambda part: figure.savefig(part, dpi=120, format="png"))
