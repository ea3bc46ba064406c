"""`windvane backtest`: what each retraining policy would have cost on the project's own table, and which to use."""

from __future__ import annotations

import itertools
import math
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.flows import backtold
from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.ledger import versions
from windvane.ledger.moments import moment
from windvane.monitoring.history import lengths, matrix, windows
from windvane.monitoring.history.backtest import Alarms
from windvane.monitoring.history.lengths import Length
from windvane.tasks import amending, fetch, ingest, tables
from windvane.tasks.errors import InputError
from windvane.tasks.estimators import Spec
from windvane.tasks.places import HOME
from windvane.tasks.settings import PARAMS

if TYPE_CHECKING:
    import pandas as pd

    from windvane.monitoring.history.matrix import Matrix
    from windvane.monitoring.history.playing import Played
    from windvane.monitoring.history.windows import Cut
    from windvane.tasks.settings import Settings

# Taught where no champion says with what: strong at its defaults on most tables.
FIRST = Spec("boosting", {})
PICTURE = HOME / "history" / "backtest.png"


def run(
    project: Project,
    window: str | None,
    cost: float | None,
    delay: int | None,
    apply: bool,
    drift: bool,
    cores: int,
    console: Console,
) -> dict[str, Any]:
    """Play the table's history; what is None is taken from params.yaml. Fits are kept in .windvane/history, beside the picture.

    apply: write what is recommended into params.yaml. drift: play policies that need drift alarms, too. Raises InputError.
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
    ringing: dict[str, Alarms] = {}
    for history in _histories(settings, spec, first):
        asked = matrix.job(cut, settings, spec, window, history)
        built[history] = matrix.build(
            asked,
            project.home / "history",
            cores,
            lambda done, of, history=history: console.working(f"{history}: {done} of {of} models"),  # type: ignore[misc]
        )
        ringing[history] = _alarms(asked, project, console) if drift else {}
    tried = lengths.compare(built, cut, window, cost, time=settings.problem.time, delay=delay, alarms=ringing)
    best = lengths.recommended(tried)
    # The picture is of the windows that were asked for, whichever are recommended.
    backtold.draw(tried[0].found, cut.starts[first:], first, project.root / PICTURE)
    backtold.say(tried, best, spec, cut.count - first, console)
    console.say(f"  look: {PICTURE}")
    content = _content(tried[0], best, cut.count - first)
    if apply:
        content["applied"] = _apply(project.root / PARAMS, content["recommended"], console)
    return {**content, "seconds": round(time.monotonic() - began, 2)}


def _alarms(asked: matrix.Job, project: Project, console: Console) -> Alarms:
    """The project's own drift alarm, by its name in retrain.policy, and Evidently's preset; remembered beside the fits."""
    from windvane.monitoring.history import alarms

    folder = project.home / "history"
    level = project.settings.monitor.false_alarms

    def working() -> None:
        console.working("drift alarms")

    return {
        "drift": alarms.calibrated(asked, level, folder / "drift.json", working),
        "evidently's preset": alarms.preset(asked, folder / "preset.json", working),
    }


def _histories(settings: Settings, spec: Spec, first: int) -> list[str]:
    """All rows, the last windows, and both, where a lap can be taught so: as many windows as the first quarter has, in whole dozens
    if there are, so that longer windows hold them too.
    """
    whole = first - first % 12 if first >= 12 else first
    words = ["trailing"] if spec.balance.treatment or settings.search.imbalance else ["trailing", "combined"]
    by_time = settings.split.strategy == "time"
    return ["expanding", *(f"{word}:{whole}" for word in words if by_time)]


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


def _content(asked: Length, best: Length, count: int) -> dict[str, Any]:
    chosen = best.found.recommended
    return {
        "windows": count,
        "policies": {
            r.name: {
                **_figures(r.played),
                "ratio": {"chosen on": r.chosen_on, "reported on": r.reported_on, "low": r.low, "high": r.high},
            }
            for r in backtold.same(asked.found)
        },
        "oracle": _figures(asked.found.oracle[asked.found.recommended.history]),
        "recommended": {"policy": chosen.name, "history": chosen.history, "cost": best.cost, "window": best.window},
        "picture": PICTURE.as_posix(),
    }


def _figures(played: Played) -> dict[str, Any]:
    return {"loss": played.loss, "retrains": len(played.retrained), "total": played.total}
