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
from monitoring.history import lengths, matrix, windows
from monitoring.history.backtest import Backtest, Result
from monitoring.history.lengths import Length
from tasks import amending, fetch, ingest, tables
from tasks.errors import InputError
from tasks.estimators import Spec
from tasks.settings import PARAMS

if TYPE_CHECKING:
    import pandas as pd

    from monitoring.history.matrix import Matrix
    from monitoring.history.playing import Played
    from monitoring.history.windows import Cut
    from tasks.settings import Settings

# Taught where no champion says with what: strong at its defaults on most tables.
FIRST = Spec("boosting", {})
PICTURE = Path(".windvane/history/backtest.png")


def run(
    project: Project,
    window: str | None,
    cost: float | None,
    delay: int | None,
    apply: bool,
    cores: int,
    console: Console,
) -> dict[str, Any]:
    """Play the table's history; what is None is taken from params.yaml. Fits are kept in .windvane/history, beside the picture.

    apply: write what is recommended into params.yaml. Raises InputError.
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
    for history in _histories(settings, first):
        asked = matrix.Job(cut, settings, spec, matrix.trailing(history))
        built[history] = matrix.build(
            asked,
            project.home / "history",
            cores,
            lambda done, of, history=history: console.working(f"{history}: {done} of {of} models"),  # type: ignore[misc]
        )
    tried = lengths.compare(built, cut, window, cost, time=settings.problem.time, delay=delay)
    best = lengths.recommended(tried)
    # The picture is of the windows that were asked for, whichever are recommended.
    _draw(tried[0].found, cut.starts[first:], project.root / PICTURE)
    _say(tried, best, spec, cut.count - first, console)
    content = _content(tried[0], best, cut.count - first)
    if apply:
        content["applied"] = _apply(project.root / PARAMS, content["recommended"], console)
    return {**content, "seconds": round(time.monotonic() - began, 2)}


def _histories(settings: Settings, first: int) -> list[str]:
    """All rows, and the last windows where a lap can be taught so: as many as the first quarter has, in whole dozens if there are,
    so that longer windows hold them too.
    """
    whole = first - first % 12 if first >= 12 else first
    return ["expanding", f"trailing:{whole}"] if settings.split.strategy == "time" else ["expanding"]


def _apply(path: Path, chosen: dict[str, Any], console: Console) -> dict[str, Any]:
    """Write what is recommended into params.yaml; key -> [before, now] of what changed."""
    window = int(chosen["window"]) if chosen["window"].isdecimal() else chosen["window"]
    keys = {f"retrain.{name}": chosen[name] for name in ("policy", "cost", "history")}
    changed = amending.amend(path, {**keys, "monitor.window": window})
    for key, (before, now) in changed.items():
        console.say(f"  {path.name}: {key} is {now} now ({'not there' if before is None else before} before)")
    if not changed:
        console.say(f"  {path.name}: says so already; nothing changed")
    return {key: list(values) for key, values in changed.items()}


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


def _say(tried: tuple[Length, ...], best: Length, spec: Spec, count: int, console: Console) -> None:
    """The figures, then what to use."""
    asked = tried[0]
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
        for r in asked.found.results
    ]
    console.say(
        f"  {count} windows of {asked.window} played with {spec.candidate}, loss and total per window; a lap costs "
        f"{asked.cost:g} of them"
    )
    console.say(table(lines))
    console.say(
        "  chose, later: total over the cheapest schedule in hindsight, on the first half and on the rest (refits without a gate)"
    )
    console.say("  by windows of:")
    console.say(
        table(
            [
                {
                    "window": one.window,
                    "policy": one.found.recommended.name,
                    "history": one.found.recommended.history,
                    "total, where it chose": one.found.recommended.rate,
                    "later": round(one.found.recommended.reported_on, 3),
                }
                for one in tried
            ]
        )
    )
    chosen = best.found.recommended
    console.say(
        f"  use: retrain.policy {chosen.name}, retrain.cost {best.cost:g}, retrain.history {chosen.history}, "
        f"monitor.window {best.window}"
    )
    console.say(f"  look: {PICTURE}")


def _content(asked: Length, best: Length, count: int) -> dict[str, Any]:
    chosen = best.found.recommended
    return {
        "windows": count,
        "policies": {
            r.name: {
                **_figures(r.played),
                "ratio": {"chosen on": r.chosen_on, "reported on": r.reported_on, "low": r.low, "high": r.high},
            }
            for r in _same(asked.found)
        },
        "oracle": _figures(asked.found.oracle[asked.found.recommended.history]),
        "recommended": {"policy": chosen.name, "history": chosen.history, "cost": best.cost, "window": best.window},
        "picture": PICTURE.as_posix(),
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
