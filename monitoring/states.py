"""States that production was in before, kept as counts per column, and how well a window fits one. Knows no cause."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from windvane.monitoring import answers, histograms, inputs
from windvane.monitoring.histograms import Histogram

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.tasks.features import Columns
    from windvane.tasks.problems import Kind
    from windvane.tasks.settings import Problem

# Names under which answers, labels and losses are counted beside the inputs. Answers of another version are not compared.
ANSWERS, LABELS, LOSSES = "_answers", "_labels", "_losses"


@dataclass(frozen=True)
class State:
    """An earlier window: what it was called, how many rows it had, its columns' counts."""

    name: str
    rows: int
    histograms: tuple[Histogram, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, some kilobytes: for the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> State:
        """The state that to_json wrote."""
        found = [
            Histogram(h["name"], tuple(h["edges"]), tuple(h["words"]), tuple(h["counts"]))
            for h in content["histograms"]
        ]
        return cls(content["name"], int(content["rows"]), tuple(found))


def of(frame: pd.DataFrame, record: pd.DataFrame, columns: Columns, kind: Kind, problem: Problem, name: str) -> State:
    """Count a window's columns, answers, labels and losses, in cells that suit it and the record."""
    theirs = values(record, record, columns, kind, problem)
    found = []
    for key, own in values(frame, record, columns, kind, problem).items():
        if own.dtype.kind == "f":
            other = theirs[key] if theirs[key].dtype.kind == "f" else own
            found.append(histograms.of_numbers(key, own, other))
        else:
            found.append(histograms.of_words(key, own, theirs[key]))
    return State(name, len(frame), tuple(found))


def values(
    frame: pd.DataFrame, record: pd.DataFrame, columns: Columns, kind: Kind, problem: Problem
) -> dict[str, NDArray[Any]]:
    """Per column what is counted: floats or texts (m,); labels and losses of the labelled rows alone."""
    found: dict[str, NDArray[Any]] = {n: inputs.floats(frame, n) for n in columns.numbers}
    found |= {n: inputs.floats(frame, n, boolean=True) for n in columns.booleans}
    found |= {n: inputs.words(frame, n) for n in columns.low + columns.high}
    made = answers.predictions(frame, record, kind, problem.target)
    known = frame[answers.labelled(frame, problem.target)]
    truth = kind.truth(known[problem.target])
    found[ANSWERS] = made.value if made.proba is None else np.asarray(made.proba, dtype=np.float64)[:, -1]
    found[LABELS] = truth if kind.continuous else truth.astype(str)
    found[LOSSES] = answers.losses(known, record, kind, problem) if len(known) else np.zeros(0)
    return found


@dataclass(frozen=True)
class Season:
    """A known state beside a window, in nats: what speaks against the window being that state (`here`), and being like the
    record (`there`), by the same counts; `errs`: what speaks for the champion's losses in that state being unusual.
    """

    name: str
    here: float
    there: float
    errs: float


def season(state: State, seen: dict[str, NDArray[Any]], record: dict[str, NDArray[Any]], thinned: float) -> Season:
    """Compare a window's values (see values()) with a known state and the record's values, in the state's cells.

    thinned: as how many rows each counts (rows that depend on each other count for less).
    """
    here, there, errs = [], [], 0.0
    for h in state.histograms:
        if h.name not in seen or not len(seen[h.name]):
            continue
        now, before, own = (c * thinned for c in (h.count(seen[h.name]), np.array(h.counts), h.count(record[h.name])))
        here.append(histograms.apart(now, before, ordered=not h.words))
        there.append(histograms.apart(now, own, ordered=not h.words))
        if h.name == LOSSES:
            errs = _loudest([histograms.apart(before, own, ordered=True)])
    return Season(state.name, _loudest(here), _loudest(there), errs)


def _loudest(scores: list[NDArray[np.float64]]) -> float:
    """The largest difference in nats, less the price of having looked at all."""
    every = np.concatenate([*scores, np.zeros(1)])
    return max(float((every**2).max() / 2 - np.log(len(every))), 0.0)
