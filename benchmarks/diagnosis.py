"""How often the diagnosis names the change that was injected, how sure it was, and how far estimates without labels follow.

    WINDVANE_DATA=<folder> python benchmarks/diagnosis.py [--quick] [--fit] [--unchanged N] [--only tuned|reported] [--jobs N] [--kept FILE]

Prints Markdown. Six causes, three strengths, six tables, five seeds, as benchmarks/injections.py fixes them; prices of the
explanations were fitted on the three tuned tables alone (--fit prints them, from other seeds), the others are only reported.
Labels of the first 60 % of a window's rows have come; once more at the middle strength, none has. What is decided after each window
is counted too: laps from broken data, and false stops. --unchanged: only false alarms and false stops, on so many unchanged windows of
each table and seed. What is printed of each half is a cell that is kept with its commit and the hash of the code that it measures.
"""

from __future__ import annotations

import argparse
import sys
import time as clock
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import log
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import injections
from benchmarks.injections import CAUSES, REPORTED, STRENGTHS, TUNED, Base, Table
from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from windvane.monitoring import window_frames, window_loss
from windvane.monitoring.diagnosis import evidence, explanations
from windvane.monitoring.diagnosis.evidence import ChangeEvidence
from windvane.monitoring.diagnosis.explanations import FITTED_PRICES, ExplanationPrices
from windvane.monitoring.diagnosis.window_states import WindowState
from windvane.monitoring.drift import detector
from windvane.monitoring.policy.decision import decide_action
from windvane.monitoring.records import (
    ChangeKind,
    DecisionHistory,
    DecisionLimits,
    PerformanceResult,
    WindowAssessment,
    WindowExtent,
)
from windvane.monitoring.window_loss import LossModel
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.settings.monitoring_section import PolicyName

SEEDS = (0, 1, 2, 3, 4)
MEASURED_CODE = ("benchmarks/injections.py", "monitoring", "tasks/models", "tasks/evaluation")
LEVEL = 0.01  # of drift's false alarms
# Where the prices stood before anything was fitted, and how much they are held there.
START = ExplanationPrices(
    broken=4.0, data=6.0, label=5.0, concept=5.0, both=12.0, season=5.0, unlabelled=2.0, slack=1.0, trust=0.7
)
PRIOR = 0.01
FITTED_ON = (10, 11, 12, 13, 14)


@dataclass(frozen=True)
class Judged:
    """One window: what was done to it, what was found, and how estimate and truth of its loss compare."""

    table: str
    seed: int
    strength: int
    cause: ChangeKind
    how: str
    labelled: bool
    clues: ChangeEvidence
    estimated: PerformanceResult
    truth: float
    alarm: bool
    done: dict[str, str]

    @property
    def shares(self) -> dict[ChangeKind, float]:
        """How likely each cause is said to be."""
        return explanations.compute_explanation_chances(self.clues)

    @property
    def named(self) -> ChangeKind:
        """The likeliest."""
        return max(self.shares, key=lambda c: self.shares[c])


# Policies whose laps are counted: one window alone, at the default cost of a lap.
POLICIES: tuple[PolicyName, ...] = ("staleness", "performance", "drift", "schedule")


def decide(check: WindowAssessment) -> dict[str, str]:
    """What each policy does after a window."""
    history = DecisionHistory(usual_rows=float(injections.WINDOW))
    return {p: decide_action(check, history, DecisionLimits(policy=p), check.stretch.end).action for p in POLICIES}


def look(table: Table, seed: int, strengths: Sequence[int], unchanged: int = 0) -> list[Judged]:
    """All windows of a table and a seed; or so many unchanged ones."""
    cut = injections.base(table, seed)
    model = window_loss.fit_loss_model(
        cut.record, cut.columns, definitions.load_problem_type(table.kind), table.problem, 0
    )
    if unchanged:
        known = injections.known_states(cut, 1, seed)
        cases = [injections.case(cut, "none", 100 + i, seed) for i in range(unchanged)]
        return [judge(cut, model, known, case, (seed, 1), labelled=True) for case in cases]
    found = []
    for strength in strengths:
        known = injections.known_states(cut, strength, seed)
        for cause in CAUSES:
            case = injections.case(cut, cause, strength, seed)
            for labelled in (True, False) if strength == 1 else (True,):
                found.append(judge(cut, model, known, case, (seed, strength), labelled=labelled))
    return found


def judge(
    cut: Base,
    model: LossModel,
    known: tuple[WindowState, ...],
    case: injections.Case,
    which: tuple[int, int],
    *,
    labelled: bool,
) -> Judged:
    """One window, as the watch sees it and decides."""
    table, record = cut.table, cut.record
    kind, problem = definitions.load_problem_type(table.kind), table.problem
    whole = case.window.assign(**{table.target: case.truth})
    truth = float(window_frames.compute_frame_losses(whole, record, kind, problem).mean())
    window = case.window if labelled else case.window.assign(**{table.target: None})
    compared = detector.Comparison(record, window, cut.columns, target=table.target, time=None, seed=0)
    moved = detector.detect_drift(compared, LEVEL, hurry=True)
    with model_pipeline.limit_to_one_thread():
        seen = evidence.gather_evidence(
            evidence.DiagnosisCase(record, window, cut.columns, kind, problem, model, known)
        )
    seen, estimate = explanations.apply_drift_result(seen, moved), model.estimate(window)
    quality = window_loss.measure_window_loss(record, window, kind, problem)
    named = explanations.conclude_diagnosis(seen, quality, moved.undecided)
    stretch = WindowExtent(
        "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00", len(window), quality.rows, closed=True
    )
    done = decide(WindowAssessment(1, stretch, moved, quality, estimate, named))
    seed, strength = which
    return Judged(
        table.name, seed, strength, case.cause, case.how, labelled, seen, estimate, truth, bool(moved.alarm), done
    )


def run(
    tables: Iterable[Table], seeds: Iterable[int], strengths: Sequence[int], jobs: int, unchanged: int = 0
) -> list[Judged]:
    """All windows, tables and seeds side by side."""
    parts = [(table, seed) for table in tables for seed in seeds]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        done = pool.map(look, *zip(*parts, strict=True), [strengths] * len(parts), [unchanged] * len(parts))
        return [judged for part in done for judged in part]


def f1(judged: Sequence[Judged]) -> float:
    """Mean over the causes of F1."""
    scores = []
    for cause in CAUSES:
        hits = sum(j.cause == cause == j.named for j in judged)
        either = sum(j.cause == cause for j in judged) + sum(j.named == cause for j in judged)
        scores.append(2 * hits / either if either else 0.0)
    return float(np.mean(scores))


def confusion(judged: Sequence[Judged]) -> str:
    """Rows: injected; columns: named."""
    lines = ["| injected \\ named | " + " | ".join(CAUSES) + " |", "|---|" + "---|" * len(CAUSES)]
    for cause in CAUSES:
        counts = [sum(j.cause == cause and j.named == named for j in judged) for named in CAUSES]
        lines.append(f"| {cause} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def by_table(judged: Sequence[Judged]) -> str:
    """Macro-F1 per table and strength."""
    names = dict.fromkeys(j.table for j in judged)
    present = sorted({j.strength for j in judged})
    lines = ["| table | " + " | ".join(STRENGTHS[s] for s in present) + " |", "|---|" + "---|" * len(present)]
    for name in [*names, "all"]:
        own = [[j for j in judged if name in (j.table, "all") and j.strength == s] for s in present]
        lines.append(f"| {name} | " + " | ".join(f"{f1(part):.3f}" for part in own) + " |")
    return "\n".join(lines)


def reliability(judged: Sequence[Judged]) -> str:
    """Whether "how sure" comes true."""
    borders = (0.0, 0.5, 0.7, 0.9, 0.95, 1.0)
    lines = ["| said to be sure | windows | mean | came true |", "|---|---|---|---|"]
    sure = np.array([max(j.shares.values()) for j in judged])
    true = np.array([j.named == j.cause for j in judged])
    for low, high in pairwise(borders):
        some = (sure > low) & (sure <= high)
        if some.any():
            lines.append(
                f"| {low:.0%} to {high:.0%} | {some.sum()} | {sure[some].mean():.1%} | {true[some].mean():.1%} |"
            )
    lines.append(f"| all | {len(judged)} | {sure.mean():.1%} | {true.mean():.1%} |")
    return "\n".join(lines)


def decided(judged: Sequence[Judged]) -> str:
    """Stops, and laps of each policy, by what was injected; `false stops`: without an alarm of drift."""
    lines = [f"| injected | windows | alarms | stops | without an alarm | laps: {' | '.join(POLICIES)} |"]
    lines.append("|---" * (5 + len(POLICIES)) + "|")
    for cause in CAUSES:
        own = [j for j in judged if j.cause == cause]
        stops = [j for j in own if j.done["staleness"] == "stop"]
        counts = [len(own), sum(j.alarm for j in own), len(stops), sum(not j.alarm for j in stops)]
        counts += [sum(j.done[p] == "retrain" for j in own) for p in POLICIES]
        if own:
            lines.append(f"| {cause} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def followed(judged: Sequence[Judged]) -> str:
    """Estimates without labels: is the truth in the interval, and is the estimate nearer than "as on the record"?"""
    lines = ['| injected | windows | truth within the 95 % interval | error of the estimate | error of "no change" |']
    lines.append("|---|---|---|---|---|")
    for cause in CAUSES:
        own = [j for j in judged if j.cause == cause and j.labelled and j.estimated.loss is not None]
        inside = [e.low <= j.truth - e.reference <= e.high for j in own for e in [j.estimated]]  # type: ignore[operator]
        ours = np.median([abs(j.estimated.loss / j.estimated.reference - j.truth / j.estimated.reference) for j in own])  # type: ignore[operator]
        still = np.median([abs(1 - j.truth / j.estimated.reference) for j in own])
        lines.append(f"| {cause} | {len(own)} | {np.mean(inside):.0%} | {ours:.1%} | {still:.1%} |")
    return "\n".join(lines)


def unlikelihood(prices: ExplanationPrices, judged: Sequence[Judged]) -> float:
    """Mean negative logarithm of the share that the injected cause was given."""
    return float(
        np.mean(
            [
                -log(max(explanations.compute_explanation_chances(j.clues, prices).get(j.cause, 0.0), 1e-9))
                for j in judged
            ]
        )
    )


def fitted(judged: Sequence[Judged]) -> ExplanationPrices:
    """Prices under which the injected causes of these windows are likeliest, kept near START by a weak prior: each
    doubling or halving counts as a hundredth of a nat a window."""
    from scipy.optimize import minimize

    names = [f.name for f in fields(ExplanationPrices) if f.name not in ("slips", "usual", "trust_classes")]
    start = np.log([getattr(START, n) for n in names])

    def prices(at: Any) -> ExplanationPrices:
        return replace(START, **{n: float(np.exp(v)) for n, v in zip(names, at, strict=True)})

    def cost(at: Any) -> float:
        return unlikelihood(prices(at), judged) + PRIOR * float((((at - start) / log(2)) ** 2).sum())

    return prices(minimize(cost, start, method="Nelder-Mead", options={"maxiter": 2000}).x)


def trusted(judged: Sequence[Judged]) -> str:
    """How far nats may be trusted on a table that prices were not fitted on: each in turn, prices fitted on the others."""
    lines = ["| table | likeliest trust | said to be sure | came true |", "|---|---|---|---|"]
    for name in dict.fromkeys(j.table for j in judged):
        own = [j for j in judged if j.table == name]
        others = replace(
            fitted([j for j in judged if j.table != name]), usual=FITTED_PRICES.usual, slips=FITTED_PRICES.slips
        )
        tried = [replace(others, trust=t, trust_classes=t) for t in np.arange(0.3, 1.55, 0.1)]
        best = min(tried, key=lambda prices: unlikelihood(prices, own))
        found = [explanations.compute_explanation_chances(j.clues, best) for j in own]
        true = np.mean([max(s.items(), key=itemgetter(1))[0] == j.cause for s, j in zip(found, own, strict=True)])
        lines.append(f"| {name} | {best.trust:.1f} | {np.mean([max(s.values()) for s in found]):.1%} | {true:.1%} |")
    return "\n".join(lines)


def report(judged: Sequence[Judged]) -> str:
    """Everything, for the tables given."""
    known = [j for j in judged if j.labelled]
    blind = [j for j in judged if not j.labelled]
    middle = [j for j in known if j.strength == 1]
    parts = ["Macro-F1:", by_table(known), "Middle strength, labels of 60 % of the rows:", confusion(middle)]
    parts += [f"Macro-F1 {f1(middle):.3f}.", "How sure:", reliability(known)]
    parts += ["Middle strength, no labels (for information):", confusion(blind), f"Macro-F1 {f1(blind):.3f}."]
    parts += ["What is decided after each window with labels:", decided(known)]
    return "\n\n".join([*parts, "Estimates without labels, all 800 labels against them:", followed(known)])


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--quick", action="store_true", help="one seed, middle strength")
    args.add_argument("--fit", action="store_true", help="fit the prices on the tuned tables and print them")
    args.add_argument("--only", choices=("tuned", "reported"), help="only these tables")
    args.add_argument("--unchanged", type=int, default=0, help="only so many unchanged windows of each table and seed")
    args.add_argument("--jobs", type=int, default=2)
    args.add_argument("--kept", type=Path, default=KEPT_FOLDER / "diagnosis.jsonl")
    chosen = args.parse_args()
    started = clock.perf_counter()
    strengths = (1,) if chosen.quick else (0, 1, 2)
    if chosen.fit:
        judged = run(TUNED, FITTED_ON[:1] if chosen.quick else FITTED_ON, strengths, chosen.jobs)
        judged = [j for j in judged if j.labelled]
        best = fitted(judged)
        print(
            best,
            f"\n{unlikelihood(FITTED_PRICES, judged):.4f} -> {unlikelihood(best, judged):.4f} nats a window\n\n{trusted(judged)}",
        )
        return
    kept, code = KeptCells(chosen.kept), hash_code(__file__, *MEASURED_CODE)

    def show(title: str, tables: Sequence[Table]) -> None:
        judged = run(tables, SEEDS[:1] if chosen.quick else SEEDS, strengths, chosen.jobs, chosen.unchanged)
        if chosen.unchanged:
            print(f"## {title} tables, unchanged\n\n{decided(judged)}\n")
        else:
            print(f"## {title} tables\n\n{report(judged)}\n")

    for title, tables in (("Tuned", TUNED), ("Reported", REPORTED)):
        if chosen.only in (None, title.lower()):
            name = f"{title}, quick {chosen.quick}, unchanged {chosen.unchanged}"
            kept.show(name, code, lambda title=title, tables=tables: show(title, tables))
    print(f"{clock.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
