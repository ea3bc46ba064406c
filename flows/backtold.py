"""What backtest found, for people: the figures as tables, what to use, and a picture."""

from __future__ import annotations

from pathlib import Path

from windvane.flows.console import Console, table
from windvane.monitoring.history.backtest import Backtest, Result
from windvane.monitoring.history.lengths import Length
from windvane.tasks import tables
from windvane.tasks.estimators import Spec


def same(found: Backtest) -> list[Result]:
    """What was played under the recommended history."""
    return [r for r in found.results if r.history == found.recommended.history]


def say(tried: tuple[Length, ...], best: Length, spec: Spec, count: int, console: Console) -> None:
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


def draw(found: Backtest, starts: tuple[str, ...], first: int, path: Path) -> None:
    """Loss over the windows from `first` on, which begin at `starts`: never retrained, and under the recommended policy (regret, where
    that is never) with its retrainings.
    """
    from matplotlib.figure import Figure

    played = {r.name: r for r in same(found)}
    shown = played["regret" if found.recommended.name == "never" else found.recommended.name]
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    at = range(len(starts))
    axes.plot(at, played["never"].played.by_window, color="0.6", label="never retrained")
    axes.plot(at, shown.played.by_window, color="tab:blue", label=f"{shown.name}, {shown.history}")
    marks = [w - first for w in shown.played.retrained]
    axes.plot(marks, [shown.played.by_window[m] for m in marks], "v", color="tab:red", label="retrained")
    ticks = list(at)[:: max(1, len(starts) // 8)]
    axes.set_xticks(ticks, [starts[t][:10] for t in ticks])
    axes.set(ylabel="mean loss of a window", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_whole(path, lambda part: figure.savefig(part, dpi=120, format="png"))
