"""What people should know of a search, in words, and what it refuses for this target. Judges no configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from windvane.tasks.errors import InputError
from windvane.tasks.plan import FEW, LOG, Trials

if TYPE_CHECKING:
    from windvane.tasks.balance import Balance
    from windvane.tasks.bench import Bench
    from windvane.tasks.problems import Kind
    from windvane.tasks.settings import Settings


def told(settings: Settings, bench: Bench, balance: Balance, trials: Trials, log: bool) -> Iterator[str]:
    """Notes on the whole search: `log` says that the target's logarithm was tried, `balance` how rare classes were treated."""
    problem, rows = settings.problem, len(bench.truth)
    if log:
        yield f"{problem.target} is positive and skewed: its logarithm was tried too"
    if rows < FEW:
        yield (
            f"{rows:,} rows teach, which is little: scores are known only roughly, and differences between candidates may be chance. "
            "More rows help more than more trials; the diagnosis of the fit says how many"
        )
    if bench.looks_first:
        yield "large table: trials see a quarter of the training rows first, and end there if hopeless"
    yield from _balanced(balance, bench.metric.calls, problem.headline)
    for name, tried in trials.items():
        if failed := [t for t in tried if t.state == "failed"]:
            yield f"{name}: {len(failed)} of {len(tried)} trials failed, the first because: {failed[0].note}"


def _balanced(balance: Balance, calls: bool, headline: str) -> Iterator[str]:
    if balance.treatment is not None:
        yield (
            f"fitted with {balance.treatment} for rare classes, inside the training rows alone; probabilities are brought "
            "back to the classes' own shares and calibrated on folds of these rows: see the reliability plot"
        )
    if balance.threshold is not None and not calls:
        yield (
            f"the threshold is tuned on the chosen configuration alone, {headline} does not depend on it: the candidates' "
            "f1, accuracy, precision and recall call the likelier class"
        )
    elif balance.threshold is None and headline == "f1":
        yield "f1 calls the likelier class; of two classes search.threshold: f1 tunes from which probability on"


def refuse_log(settings: Settings, kind: Kind, bench: Bench) -> None:
    """Raise InputError where a manual list asks for the logarithm of a target that has none."""
    if not kind.continuous or (lowest := float(bench.truth.min())) > 0 or settings.search.method != "manual":
        return
    for i, entry in enumerate(settings.search.manual):
        if entry.get(LOG):
            why = f"{settings.problem.target!r} goes down to {lowest:g}, which has no logarithm"
            raise InputError(f"search.manual[{i}].{LOG}: {why}. Take the key out")
