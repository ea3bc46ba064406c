"""When to retrain? `python -m benchmarks.policies [--half fixed|reported|unseen|fresh|new] [--no-drift] [STREAM ...]` prints each policy's
total cost over the cheapest schedule in hindsight; `--price` what share of a search's processor time teaching a challenger takes;
`--recommended` whether what backtest recommends on the first half beats the default on the rest.

The optimum is over refits of one history, expanding or trailing by as many windows as the first quarter, and heads each table.
`combined` is regret with retrain.history combined: the mean of a model of all rows and one of the trailing windows, over the same
optimum, and in the last table over its own too; a challenger is two fits then, and pays half as much again.

Total: the sum of the champion's mean losses over the windows, and for each retraining `cost` times the champion's mean loss per window
on its own held-out rows. `drift` retrains when
Evidently's preset says that half of the columns or more drifted, at its defaults. `regret` is the project's own, its challengers
free, or priced at 2 and 5 % of a lap each. Losses are kept in --kept.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.preset import make_preset_alarm
from benchmarks.streams import NEW, STREAMS, UNSEEN, Stream, job
from windvane.monitoring.history import backtest, loss_matrix, simulation
from windvane.monitoring.history.loss_matrix import LossMatrix
from windvane.tasks.models.model_pipeline import FitOptions, ModelTask
from windvane.tasks.settings.monitoring_section import RetrainSettings

COSTS = (0.1, 0.5, 2.0)
HISTORIES = ("expanding", "trailing")
FEES = (0.0, 0.02, 0.05)
PRICED = f"challengers at {backtest.CHALLENGER_PRICE_SHARE:.0%}"
# Printed bold.
DEFAULT = f"{RetrainSettings().policy}, {PRICED}"
# The table of streams is of these.
SHOWN = (f"regret, {PRICED}", "staleness", f"combined, {PRICED}", "combined over its own optimum")

# (the ruler's matrix, that of the combined history, cost, drift alarm)
Play = Callable[[LossMatrix, LossMatrix, float, simulation.DriftAlarm | None], simulation.PolicySimulation]


def players(drift: bool, combined: bool) -> dict[str, Play]:
    """Name -> how it plays a matrix at a cost; drift, combined: whether those are played."""
    plain = {name: policy for name, policy in simulation.list_policies().items() if name != "regret"}
    if not drift:
        del plain["drift"]

    def simple(policy: simulation.RetrainingPolicy) -> Play:
        return lambda m, _, cost, alarm: simulation.simulate_policy(m, policy, cost, alarm=alarm)

    def own(fee: float, mean: bool) -> Play:
        policy = simulation.list_policies()["regret"]
        return lambda m, both, cost, _: simulation.simulate_policy(both if mean else m, policy, cost, fee=fee)

    found = {name: simple(policy) for name, policy in plain.items()}
    found["best period, in hindsight"] = lambda m, _, cost, __: simulation.find_best_period(m, cost)[1]
    for fee in FEES:
        said = f"challengers at {fee:.0%}" if fee else "challengers free"
        found[f"regret, {said}"] = own(fee, False)
        if combined:
            found[f"combined, {said}"] = own(fee * backtest.COMBINED_PRICE_FACTOR, True)
    return found


def ratios(
    stream: Stream, kept: Path, play: dict[str, Play], cores: int, drift: bool
) -> dict[tuple[str, str, float], float]:
    """(policy, history, cost) -> total over the optimum's."""
    combined = f"combined, {PRICED}" in play
    played_too = ("combined",) if combined else ()
    found, made = {}, {history: _matrix(stream, history, kept, cores) for history in (*HISTORIES, *played_too)}
    both = made[(*HISTORIES, *played_too)[-1]][1]
    for history in HISTORIES:
        asked, played = made[history]
        alarm = make_preset_alarm(asked, kept / f"drift-{stream.name}-{history}.json") if drift else None
        for cost in COSTS:
            best = simulation.find_optimal_schedule(played, cost)
            for name, one in play.items():
                found[name, history, cost] = one(played, both, cost, alarm).total / best.total
            found["retrainings of the optimum", history, cost] = float(len(best.retrained))
            if combined:
                ours = play[f"combined, {PRICED}"](played, both, cost, alarm).total
                own = simulation.find_optimal_schedule(both, cost).total
                found["combined over its own optimum", history, cost] = ours / own
    return found


def _matrix(stream: Stream, history: str, kept: Path, cores: int) -> tuple[loss_matrix.MatrixJob, LossMatrix]:
    began, asked = time.monotonic(), job(stream, history)
    played = loss_matrix.build_loss_matrix(asked, kept, cores)
    print(
        f"{stream.name}, {history}: {played.windows} windows of {int(np.median(np.diff(asked.cut.edges))):,} rows, "
        f"played from {played.first} on; {time.monotonic() - began:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return asked, played


def show(found: dict[str, dict[tuple[str, str, float], float]], names: list[str]) -> None:
    """Means and worsts over streams, then each stream."""
    for history in (*HISTORIES, "both"):
        chosen = HISTORIES if history == "both" else (history,)
        heads = " | ".join(f"cost {c:g}: mean | worst" for c in COSTS)
        print(
            f"\n{history}, {len(found)} streams\n\n| policy | {heads} | mean of all |\n|---{'|---' * (2 * len(COSTS) + 1)}|"
        )
        for name in names:
            cells = [[one[name, h, c] for one in found.values() for h in chosen] for c in COSTS]
            said = " | ".join(f"{np.mean(v):.2f} | {max(v):.2f}" for v in cells)
            row = f"{name} | {said} | {np.mean(cells):.3f}"
            print(f"| **{row.replace(' | ', '** | **')}** |" if name == DEFAULT else f"| {row} |")
    shown = [name for name in SHOWN if (name, HISTORIES[0], COSTS[0]) in next(iter(found.values()))]
    print(f"\n| stream, history | {' | '.join(shown)} | retrainings of the optimum |\n|---{'|---' * (len(shown) + 1)}|")
    for stream, one in found.items():
        for history in HISTORIES:
            own = " | ".join(", ".join(f"{one[name, history, c]:.3f}" for c in COSTS) for name in shown)
            best = ", ".join(f"{one['retrainings of the optimum', history, c]:.0f}" for c in COSTS)
            print(f"| {stream}, {history} | {own} | {best} |")


def recommend(stream: Stream, kept: Path, cores: int) -> list[tuple[float, str, float]]:
    """(cost, what backtest recommends on the first half, its total on the rest over the default's)."""
    made = {history: _matrix(stream, history, kept, cores)[1] for history in (*HISTORIES, "combined")}
    default, rows = RetrainSettings(), list[tuple[float, str, float]]()

    def later(name: str, history: str, cost: float) -> float:
        fee = backtest.CHALLENGER_PRICE_SHARE * (backtest.COMBINED_PRICE_FACTOR if history == "combined" else 1)
        rest = backtest.split_matrix(made[history])[1]
        return simulation.simulate_policy(rest, simulation.list_policies()[name], cost, fee=fee).total

    for cost in COSTS:
        best = backtest.compare_policies(made, cost).recommended
        share = later(best.name, best.history, cost) / later(default.policy, default.history, cost)
        rows.append((cost, f"{best.name}, {best.history}", share))
    return rows


def price(stream: Stream) -> tuple[float, float, str]:
    """Processor seconds of (a search on the first quarter's rows at its defaults, teaching its winner anew), the winner's name."""
    import resource
    import tempfile

    from windvane.tasks.models import features, model_pipeline
    from windvane.tasks.models.problem_types import definitions
    from windvane.tasks.search.model_search import search_models
    from windvane.tasks.validate import table_profile

    def used() -> float:
        both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in both)

    asked = job(stream, "expanding")
    rows = asked.cut.before(loss_matrix.find_first_window(asked.cut.count), None)
    columns, kind = (
        features.select_feature_columns(asked.settings, table_profile.profile_table(rows)),
        definitions.load_problem_type(asked.settings.problem.kind),
    )
    split = int(len(rows) * (1 - loss_matrix.HELD_OUT_SHARE))
    began = used()
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.log"
        found = search_models(
            ModelTask(asked.settings, kind, columns, 1), rows[:split], rows[split:], journal, lambda _: None
        )
    searched = used() - began
    model_pipeline.fit_pipeline(found.best.spec, kind, columns, rows, FitOptions(asked.settings.problem.target, 0, 1))
    return searched, used() - began - searched, found.best.candidate


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("streams", nargs="*", help="their names; all by default")
    parser.add_argument("--half", choices=["fixed", "reported", "unseen", "fresh", "new"])
    parser.add_argument("--kept", type=Path, default=Path(".windvane/history"), help="folder where losses are kept")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-drift", action="store_true", help="leave out Evidently's preset, which takes minutes")
    parser.add_argument("--no-combined", action="store_true", help="leave out the combined history, half of all fits")
    parser.add_argument("--recommended", action="store_true", help="only whether backtest's choice beats the default")
    parser.add_argument("--price", action="store_true", help="only time a search and a challenger")
    asked = parser.parse_args()
    every = NEW if asked.half == "new" else UNSEEN if asked.half in ("unseen", "fresh") else STREAMS
    chosen = [s for s in every if asked.half in (None, s.half) and (not asked.streams or s.name in asked.streams)]
    if asked.price:
        print("| stream | search, CPU s | challenger, CPU s | share | winner |\n|---|---|---|---|---|")
        for stream in chosen:
            searched, taught, winner = price(stream)
            print(f"| {stream.name} | {searched:.1f} | {taught:.2f} | {taught / searched:.1%} | {winner} |", flush=True)
        return
    asked.kept.mkdir(parents=True, exist_ok=True)
    if asked.recommended:
        print("| stream | cost | recommended on the first half | on the rest, over the default |\n|---|---|---|---|")
        for stream in chosen:
            for cost, name, share in recommend(stream, asked.kept, asked.cores):
                print(f"| {stream.name} | {cost:g} | {name} | {share:.3f} |", flush=True)
        return
    play = players(not asked.no_drift, not asked.no_combined)
    found = {s.name: ratios(s, asked.kept, play, asked.cores, not asked.no_drift) for s in chosen}
    show(found, list(play))


if __name__ == "__main__":
    main()
