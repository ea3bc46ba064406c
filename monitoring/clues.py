"""All that record and window say about the kind of a change, gathered before it is weighed (diagnosis.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from windvane.monitoring import answers, breaks, contrasts, domain, estimate, inputs, states
from windvane.monitoring.breaks import Break
from windvane.monitoring.contrasts import Contrast, Features, Sides
from windvane.monitoring.states import Season, State
from windvane.tasks.gate import MIN_ROWS
from windvane.tasks.paired import MIN_BLOCKS, paired
from windvane.tasks.resampling import quantile

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from windvane.monitoring.estimate import LossModel
    from windvane.tasks.features import Columns
    from windvane.tasks.paired import Blocks
    from windvane.tasks.problems import Kind, Predictions
    from windvane.tasks.settings import Problem

# An error of a prediction beyond so many expected ones counts as this many: one odd row must not be a concept.
_LARGEST = 4.0
_CLASSES = 5
# No row is surer than this to be of the window: its odds are a number.
_SURE = 1 - 1e-12
# More rows of a window are sampled, by what they hold.
_MOST = 20_000


@dataclass(frozen=True)
class Clues:
    """What moved, each in nats: inputs P(x), and what is left of that without broken columns; labels P(y); labels given inputs
    P(y | x); inputs given labels P(x | y), and given the champion's answer, which stands for labels that have not come.

    labelled: rows whose labels have come and count (0: too few, and three contrasts are empty). seasons: the window beside
    each known state. classes: labels are classes, not numbers.
    """

    rows: int
    labelled: int
    inputs: Contrast
    rest: Contrast
    labels: Contrast
    answers: Contrast
    given_labels: Contrast
    given_answers: Contrast
    broken: tuple[Break, ...]
    seasons: tuple[Season, ...]
    classes: bool


def gather(
    record: pd.DataFrame,
    window: pd.DataFrame,
    columns: Columns,
    kind: Kind,
    problem: Problem,
    model: LossModel,
    known: Sequence[State],
    seed: int,
) -> Clues:
    """Look at a window (m rows) beside the champion's record (n rows), at most 20,000 of each; see Clues."""
    record, window = record.iloc[model.at], window.iloc[estimate.order(window)[:_MOST]]
    thin = thinned(record, window, model, problem)
    read = inputs.read(record, window, columns)
    found = contrasts.features(read, len(record) + len(window))
    all_rows = Sides(answers.parts(record, problem), answers.parts(window, problem), (len(record), len(window)))
    made = [answers.predictions(side, record, kind, problem.target) for side in (record, window)]
    told = _told(record, window, columns, made, all_rows, seed)
    broken = breaks.find(read, thin, all_rows.record[0].label if all_rows.record[0].kind == "time" else None)
    sound = found.drop(tuple(b.column for b in broken))
    moved = contrasts.inputs_moved(found, all_rows, told)
    rest = contrasts.inputs_moved(sound, all_rows, None) if broken else moved
    by_answer = contrasts.moved_given(found, _basis(made, kind), all_rows)
    labels = given = drifted = Contrast()
    came = answers.labelled(window, problem.target)
    if came.sum() >= MIN_ROWS:
        labels, drifted, given = _with_labels(record, window, came, found, told, made, kind, problem, model)
    seen, own = (states.values(side, record, columns, kind, problem) for side in (window, record))
    return Clues(
        len(window),
        int(came.sum()) if came.sum() >= MIN_ROWS else 0,
        moved,
        rest,
        labels,
        drifted,
        given,
        by_answer,
        broken,
        tuple(states.season(state, seen, own, thin) for state in known),
        not kind.continuous,
    )


def thinned(record: pd.DataFrame, window: pd.DataFrame, model: LossModel, problem: Problem) -> float:
    """As how many independent rows each row counts: 1, or less where rows of a block or group resemble each other."""
    own = 1 / model.widening
    parts = answers.parts(window, problem)
    if parts[0].kind == "row" or parts[0].count < MIN_BLOCKS or not model.folds:
        return own
    expected = model.rows(window)
    bound = paired(expected[None], parts, 0.975)
    margin, alone = float(bound.mean[0] - bound.low[0]), quantile(len(window) - 1, 0.95) * float(expected.std())
    return float(min(own, (alone / np.sqrt(len(window)) / margin) ** 2)) if margin > 0 else own


def _told(
    record: pd.DataFrame, window: pd.DataFrame, columns: Columns, made: list[Predictions], sides: Sides, seed: int
) -> NDArray[np.float64]:
    """Chance of each row to be of the window, by its inputs; folds are blocks or groups where rows depend."""
    rank = _number(made[0])
    encode = inputs.encoder(record, columns, rank)
    side = np.repeat([False, True], sides.rows)
    fold = np.concatenate([_folds(frame, parts) for frame, parts in ((record, sides.record), (window, sides.window))])
    return domain.told(np.concatenate([encode(record), encode(window)]), side, fold, seed)


def _folds(frame: pd.DataFrame, parts: tuple[Blocks, ...]) -> NDArray[np.int64]:
    return np.arange(len(frame), dtype=np.int64) if parts[0].kind == "row" else parts[0].label


def _number(made: Predictions) -> NDArray[np.float64]:
    """The answer as one number: itself, or the last class's probability."""
    return np.asarray(made.value if made.proba is None else np.asarray(made.proba)[:, -1], dtype=np.float64)


def _basis(made: list[Predictions], kind: Kind) -> NDArray[np.float64]:
    """The answers of both sides as a basis: of a number, or of each class's probability."""
    if kind.continuous:
        return contrasts.of_number(np.concatenate([m.value for m in made]))
    proba = np.concatenate([np.asarray(m.proba, dtype=np.float64) for m in made])
    each = [contrasts.ranks(p) for p in proba.T[:_CLASSES]]
    return np.column_stack([np.ones(len(proba)), proba[:, :-1], *each, *(r**2 for r in each), *(r**3 for r in each)])


def _with_labels(
    record: pd.DataFrame,
    window: pd.DataFrame,
    came: NDArray[np.bool_],
    found: Features,
    told: NDArray[np.float64],
    made: list[Predictions],
    kind: Kind,
    problem: Problem,
    model: LossModel,
) -> tuple[Contrast, Contrast, Contrast]:
    """P(y), P(y | x), P(x | y) from the rows whose labels have come."""
    late = window[came]
    rows = np.concatenate([np.ones(len(record), dtype=bool), came])
    sides = Sides(answers.parts(record, problem), answers.parts(late, problem), (len(record), len(late)))
    some = Features(found.values[rows], found.names)
    sure = np.minimum(told[rows], _SURE)
    odds = sure / (1 - sure) * came.mean()
    truth = [kind.truth(side[problem.target]) for side in (record, late)]
    answer = np.concatenate([_number(made[0]), _number(made[1])[came]])
    if kind.continuous:
        y = np.concatenate(truth)
        scale = np.concatenate([model.record, model.rows(late)]) if model.folds else np.ones(len(y))
        if problem.headline != "mae":
            scale = np.sqrt(np.maximum(scale, 0))
        errors, basis = _residuals(y, answer, scale, len(record)), contrasts.of_number(y)
        labels = contrasts.labels_moved(y[:, None], sides, number=True)
    else:
        errors, classes = _surprises(record, late, kind, problem)
        basis = contrasts.of_class(classes)
        labels = contrasts.labels_moved(basis, sides, number=False)
    place = contrasts.ranks(answer)
    more = np.column_stack([place, np.abs(place) - 0.5])
    if not kind.continuous:
        logs = np.concatenate([estimate.logarithms(m) for m in made])[rows]
        logs = logs[:, : 1 if logs.shape[1] == 2 else _CLASSES]
        more = logs - logs.mean(axis=0)
    drifted = contrasts.answers_moved(errors, some, more, odds / (1 + odds), sides)
    return labels, drifted, contrasts.moved_given(some, basis, sides)


def _residuals(
    y: NDArray[np.float64], answer: NDArray[np.float64], scale: NDArray[np.float64], record: int
) -> NDArray[np.float64]:
    """Errors in units of the loss expected, and by how much they are larger than in the record: (rows, 2)."""
    floor = 0.1 * float(scale[:record].mean()) or 1.0
    z = (y - answer) / np.maximum(scale, floor)
    z = np.clip(z, -_LARGEST, _LARGEST)
    return np.column_stack([z - z[:record].mean(), np.abs(z) - np.abs(z[:record]).mean()])


def _surprises(
    record: pd.DataFrame, late: pd.DataFrame, kind: Kind, problem: Problem
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Per class whether it came less its calibrated chance, (rows, k or 1 of two); and classes as whole numbers."""
    made = [answers.predictions(side, record, kind, problem.target) for side in (record, late)]
    came = [estimate.codes(side, m, kind, problem) for side, m in zip((record, late), made, strict=True)]
    chance = estimate.calibrated(estimate.logarithms(made[0]), came[0].astype(np.float64))
    count = np.asarray(made[0].proba).shape[1]
    codes = np.concatenate(came)
    chances = np.concatenate([chance(estimate.logarithms(m)) for m in made])
    gap = (codes[:, None] == np.arange(count)) - chances
    # A class that the champion never met is one more.
    return gap[:, :1] if count == 2 else gap[:, :_CLASSES], np.where(codes < 0, count, codes)
