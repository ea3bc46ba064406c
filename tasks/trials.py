"""A candidate's trials as files: one table and one plot, however many trials there were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from windvane.tasks.plan import BASELINE
from windvane.tasks.sheets import save
from windvane.tasks.tables import write_whole

if TYPE_CHECKING:
    from windvane.tasks.problems import Metric
    from windvane.tasks.search import Found


def write(folder: Path, found: Found, metric: Metric, target: str) -> Path:
    """Write trials.csv (a row per trial: state, scores, seconds, hyperparameters), and a plot where there are several."""
    import pandas as pd

    from windvane.tasks import plots

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
    if len(trials) > 1 and trials[0].candidate != BASELINE:
        save(plots.trials(found, metric, target), folder / "trials.png")
    return folder
