"""How often the gate promotes wrongly, and how often rightly: simulated losses whose truth is known, and real models.

    python benchmarks/gate.py [--trials N] [--seed S] [--quick] [--first] [--kept FILE]

Prints Markdown; each of its two parts is a cell that is kept with its commit and the hash of the gate's code. A share has its
99 % Clopper-Pearson interval; "above" marks one whose whole interval lies above alpha.
A pair of losses is h * exp(u) and h * exp(v) * (1 + worse): h is how hard a row is (heavy-tailed), u and v are what the
two models make of it, drawn alike, so that worse = 0 is "nothing changed" and `worse` is the exact truth.
"""

from __future__ import annotations

import argparse
import os
import sys
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.kept_cells import KEPT_FOLDER, KeptCells, hash_code
from windvane.tasks.gate.block_test import FloatArray, RowBlocks, form_blocks
from windvane.tasks.gate.promotion_gate import (
    GateEvidence,
    ResolvedRule,
    bound_gain_on_baseline,
    compare_losses,
    judge_challenger,
    passes_rule,
)

MARGIN = 0.01
SIZES = (30, 100, 300, 1000, 5000)
CHUNK = 2_000_000  # values in one array: keeps a run below half a gigabyte


@dataclass(frozen=True)
class Share:
    """How many of how many, with its exact interval."""

    count: int
    trials: int

    def interval(self) -> tuple[float, float]:
        """Clopper-Pearson, 99 %."""
        from scipy.special import betaincinv

        k, n = self.count, self.trials
        low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 0.005))
        return low, 1.0 if k == n else float(betaincinv(k + 1, n - k, 0.995))

    def above(self, alpha: float) -> bool:
        """Whether chance alone hardly explains a share this far above alpha."""
        return self.interval()[0] > alpha

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{100 * self.count / self.trials:.1f} ({100 * low:.1f}-{100 * high:.1f})"


@dataclass(frozen=True)
class World:
    """How rows depend on each other. `noise`: (rng, trials, n) -> what one model makes of each row."""

    name: str
    noise: Callable[[np.random.Generator, int, int], FloatArray]
    time: Callable[[int], Any] | None = None
    group: Callable[[int], Any] | None = None
    sizes: tuple[int, ...] = SIZES


@dataclass(frozen=True)
class Wrong:
    """A line of the table of wrong promotions; shares at 95 %, then 90 % confidence."""

    world: str
    rows: int
    same_naive: Share
    same_t: Share
    same: Share
    same_90: Share
    worse_naive: Share
    worse_t: Share
    worse: Share
    worse_90: Share
    edge_t: Share
    edge: Share
    edge_90: Share


def _normal(sd: float) -> Callable[[np.random.Generator, int, int], FloatArray]:
    return lambda rng, trials, n: sd * rng.standard_normal((trials, n))


def _walk(rng: np.random.Generator, trials: int, n: int, phi: float, sd: float = 0.2) -> FloatArray:
    """(trials, n) stationary AR(1)."""
    from scipy.signal import lfilter

    shock = rng.standard_normal((trials, n)) * np.sqrt(1 - phi**2)
    shock[:, 0] /= np.sqrt(1 - phi**2)
    return np.asarray(sd * lfilter([1.0], [1.0, -phi], shock, axis=1))


def _grouped(rng: np.random.Generator, trials: int, n: int) -> FloatArray:
    return 0.2 * rng.standard_normal((trials, n))[:, _groups(n)] + 0.1 * rng.standard_normal((trials, n))


def _groups(n: int) -> Any:
    """Groups of 1 to about 40 rows."""
    return np.repeat(np.arange(n), np.random.default_rng(n).geometric(0.1, n))[:n]


SERIES = 20


def _panel(phi: float, series: float) -> Callable[[np.random.Generator, int, int], FloatArray]:
    def noise(rng: np.random.Generator, trials: int, n: int) -> FloatArray:
        shared = _walk(rng, trials, n // SERIES, phi)[:, np.arange(n) // SERIES]
        lasting = series * rng.standard_normal((trials, SERIES))[:, np.arange(n) % SERIES]
        return shared + lasting + 0.2 * rng.standard_normal((trials, n))

    return noise


def worlds() -> list[World]:
    def stamps(n: int) -> Any:
        return np.arange(n) // SERIES

    def series(n: int) -> Any:
        return np.arange(n) % SERIES

    def walk(phi: float, hidden: bool = False) -> Callable[[np.random.Generator, int, int], FloatArray]:
        def noise(rng: np.random.Generator, trials: int, n: int) -> FloatArray:
            moving = _walk(rng, trials, n, phi)
            return moving if not hidden else 0.33 * moving + 0.2 * rng.standard_normal((trials, n))

        return noise

    return [
        World("independent rows", _normal(0.2)),
        World("time, independent", _normal(0.2), time=np.arange),
        World("time, AR(1) 0.5", walk(0.5), time=np.arange),
        World("time, AR(1) 0.9", walk(0.9), time=np.arange),
        World("time, AR(1) 0.95 under noise of 9 times its variance", walk(0.95, True), time=np.arange),
        World("groups of 1-40 rows", _grouped, group=_groups, sizes=SIZES[1:]),
        World("panel, 20 series, AR(1) 0.5", _panel(0.5, 0), time=stamps, sizes=SIZES[1:]),
        World("panel and lasting groups", _panel(0.5, 0.2), stamps, series, sizes=SIZES[1:]),
    ]


def losses(world: World, rng: np.random.Generator, trials: int, n: int) -> tuple[FloatArray, FloatArray]:
    """(trials, n) losses of two models that are equally good."""
    hard = rng.lognormal(0.0, 1.0, (trials, n))
    return hard * np.exp(world.noise(rng, trials, n)), hard * np.exp(world.noise(rng, trials, n))


def layout(world: World, n: int) -> tuple[RowBlocks, ...]:
    return form_blocks(np.arange(n), world.time(n) if world.time else None, world.group(n) if world.group else None)


def promoted(
    champion: FloatArray,
    challenger: FloatArray,
    parts: tuple[RowBlocks, ...],
    rule: ResolvedRule,
    confidence: float,
    *,
    margin: float = MARGIN,
) -> Any:
    """(trials,) what the gate says, through the same functions as judge()."""
    low = compare_losses(champion, challenger, parts, rule=rule, confidence=confidence, margin=margin).low
    return passes_rule(low, champion.mean(axis=-1), rule, margin)


def t_test(champion: FloatArray, challenger: FloatArray, confidence: float, margin: float = 0.0) -> Any:
    """(trials,) the paired t-test that takes all rows for independent."""
    from scipy.special import stdtrit

    d, n = champion - challenger, champion.shape[-1]
    low = d.mean(-1) - stdtrit(n - 1, confidence) * d.std(-1, ddof=1) / np.sqrt(n)
    return low > -margin * champion.mean(-1)


def _counted(trials: int, n: int, one: Callable[[int], list[Any]]) -> list[Share]:
    """Run `one` on chunks of trials and add up its columns of yes and no."""
    size, done, counts = max(1, min(trials, CHUNK // n)), 0, None
    while done < trials:
        step = min(size, trials - done)
        found = np.array([int(np.sum(column)) for column in one(step)])
        counts = found if counts is None else counts + found
        done += step
    return [Share(int(c), trials) for c in (counts if counts is not None else [])]


def wrong(world: World, n: int, trials: int, rng: np.random.Generator) -> Wrong:
    """Promotions that should not be: nothing changed, 1 % worse, and worse by exactly the margin under not_worse."""
    parts = layout(world, n)

    def one(step: int) -> list[Any]:
        champion, same = losses(world, rng, step, n)
        worse = same * (1 + MARGIN)
        return [
            same.mean(-1) <= champion.mean(-1),
            t_test(champion, same, 0.95),
            promoted(champion, same, parts, "superior", 0.95),
            promoted(champion, same, parts, "superior", 0.90),
            worse.mean(-1) <= champion.mean(-1),
            t_test(champion, worse, 0.95),
            promoted(champion, worse, parts, "superior", 0.95),
            promoted(champion, worse, parts, "superior", 0.90),
            t_test(champion, worse, 0.95, MARGIN),
            promoted(champion, worse, parts, "not_worse", 0.95),
            promoted(champion, worse, parts, "not_worse", 0.90),
        ]

    return Wrong(world.name, n, *_counted(trials, n, one))


def breaches(line: Wrong) -> list[str]:
    """Which of the gate's shares lie above alpha beyond the simulation's interval."""
    limits = {"same": 0.05, "same_90": 0.1, "worse": 0.05, "worse_90": 0.1, "edge": 0.05, "edge_90": 0.1}
    return [name for name, alpha in limits.items() if getattr(line, name).above(alpha)]


@dataclass(frozen=True)
class Power:
    """Share promoted at 95 % when the challenger is truly better by so much; `refit`: not_worse, nothing changed."""

    world: str
    rows: int
    by_1: Share
    by_2: Share
    by_5: Share
    by_10: Share
    refit: Share
    t_by_5: Share


def power(world: World, n: int, trials: int, rng: np.random.Generator) -> Power:
    parts = layout(world, n)

    def one(step: int) -> list[Any]:
        champion, same = losses(world, rng, step, n)
        better = [promoted(champion, same * (1 - g), parts, "superior", 0.95) for g in (0.01, 0.02, 0.05, 0.1)]
        refit = promoted(champion, same, parts, "not_worse", 0.95)
        return [*better, refit, t_test(champion, same * 0.95, 0.95)]

    return Power(world.name, n, *_counted(trials, n, one))


@dataclass(frozen=True)
class Laps:
    """Five laps of one table. Shares per lap, and of tables on which it happened at least once."""

    table: str
    truth: str
    rule: str
    naive: Share
    gate: Share
    naive_ever: Share
    gate_ever: Share


def laps(trials: int, rng: np.random.Generator, count: int = 5, n: int = 300) -> list[Laps]:
    """A table that grows by a tenth: rows new to both judge (with time), or a sticky test side judges again."""
    found = []
    for sticky in (False, True):
        phi = 0.0 if sticky else 0.5
        cases: list[tuple[str, float, ResolvedRule]] = [
            ("nothing changed", 0.0, "superior"),
            ("each challenger 1 % worse", MARGIN, "superior"),
            ("each challenger worse by the margin", MARGIN, "not_worse"),
        ]
        for truth, worse, rule in cases:
            counts = {
                how: _five(
                    trials,
                    rng,
                    count=count,
                    n=n,
                    phi=phi,
                    sticky=sticky,
                    worse=worse,
                    rule=rule if how == "gate" else None,
                )
                for how in ("naive", "gate")
            }
            shares = {how: Share(int(c.sum()), c.size) for how, c in counts.items()}
            ever = {how: Share(int(c.any(axis=0).sum()), trials) for how, c in counts.items()}
            table = "no time: sticky test side, growing" if sticky else "time, AR(1) 0.5: rows new to both"
            found.append(Laps(table, truth, rule, shares["naive"], shares["gate"], ever["naive"], ever["gate"]))
    return found


def _five(
    trials: int,
    rng: np.random.Generator,
    *,
    count: int,
    n: int,
    phi: float,
    sticky: bool,
    worse: float,
    rule: ResolvedRule | None,
) -> Any:
    """(count, trials) promotions. A promoted model judges on as champion, with the luck it had on the rows that stay."""
    most = int(n * 1.1**count)
    verdicts, level = [], np.ones((trials, 1))
    hard, own = rng.lognormal(0, 1, (trials, most)), _walk(rng, trials, most, phi)
    for lap in range(count):
        rows = int(n * 1.1**lap) if sticky else n
        if not sticky and lap:
            # rows that neither has seen: both models meet them anew
            hard, own = rng.lognormal(0, 1, (trials, most)), _walk(rng, trials, most, phi)
        new = _walk(rng, trials, most, phi)
        champion, challenger = (
            (hard * np.exp(own) * level)[:, :rows],
            (hard * np.exp(new) * level * (1 + worse))[:, :rows],
        )
        parts = form_blocks(np.arange(rows), None if sticky else np.arange(rows))
        yes = (
            challenger.mean(-1) <= champion.mean(-1)
            if rule is None
            else promoted(champion, challenger, parts, rule, 0.95)
        )
        verdicts.append(yes)
        own = np.where(yes[:, None], new, own)
        level = np.where(yes[:, None], level * (1 + worse), level)
    return np.array(verdicts)


@dataclass(frozen=True)
class Beyond:
    """Where no test can hold alpha: wrong promotions at 95 % (rule not_worse, worse by exactly the margin)."""

    case: str
    rows: int
    t_test: Share
    gate: Share


def beyond(trials: int, rng: np.random.Generator) -> list[Beyond]:
    """Disasters so rare that the test rows may hold none, and runs of luck as long as the test rows."""
    found = []
    for every, n in ((50, 100), (200, 100), (200, 1000), (200, 5000)):
        parts = form_blocks(np.arange(n))

        def one(step: int, every: int = every, n: int = n, parts: tuple[RowBlocks, ...] = parts) -> list[Any]:
            champion, challenger = losses(worlds()[0], rng, step, n)
            # all of the loss that is too much sits in one row of `every`
            challenger = challenger + (rng.random((step, n)) < 1 / every) * every * 0.1 * np.exp(0.52)
            t, gate = (
                t_test(champion, challenger, 0.95, 0.1),
                promoted(champion, challenger, parts, "not_worse", 0.95, margin=0.1),
            )
            return [t, gate]

        found.append(Beyond(f"10 % worse, all of it in 1 row of {every}", n, *_counted(trials, n, one)))
    named = {world.name: world for world in worlds()}
    for name, n in (("time, AR(1) 0.9", 30), ("time, AR(1) 0.9", 100), ("panel, 20 series, AR(1) 0.9", 600)):
        world = named.get(name) or World(name, _panel(0.9, 0), time=lambda n: np.arange(n) // SERIES)
        line = wrong(world, n, trials, rng)
        found.append(Beyond(f"{name}, worse by the margin of 1 %", n, line.edge_t, line.edge))
    return found


@dataclass(frozen=True)
class First:
    """A first champion at 95 %, by the plain bound (before) and by the one that counts now; `truth`: of its mean loss."""

    case: str
    truth: str
    rows: int
    before: Share
    now: Share


def _spiked(rng: np.random.Generator, trials: int, n: int) -> FloatArray:
    """(trials, n) baseline losses near 1, of which 2 % are a hundred times a lognormal of sigma 2."""
    spikes = 100 * rng.lognormal(0, 2, (trials, n))
    return np.where(rng.random((trials, n)) < 0.02, spikes, np.abs(rng.standard_normal((trials, n))))


def _seasonal(rng: np.random.Generator, trials: int, n: int) -> FloatArray:
    """(trials, n) losses of a constant over a year with two seasons, in the order of time, with noise."""
    season = np.sin(np.arange(n) * 2 * np.pi / n) ** 2
    return np.asarray(season * rng.lognormal(0, 0.5, (trials, n)) + 0.05)


def first(trials: int, rng: np.random.Generator, sizes: tuple[int, ...] = (100, 300, 1500)) -> list[First]:
    """Models against the dummy: equally good or worse on average (promotions are wrong), and better."""

    def swapped(loss: FloatArray) -> FloatArray:  # its own errors, as large as the dummy's
        return np.asarray(rng.permuted(loss, axis=-1))

    def ruinous(
        loss: FloatArray, share: float
    ) -> FloatArray:  # half the loss on most rows, and all of that back on the others
        bad = rng.random(loss.shape) < share
        return np.asarray(loss * np.where(bad, 1 + 0.5 * (1 - share) / share, 0.5))

    def lucky(loss: FloatArray) -> FloatArray:  # a tenth worse on nine rows of ten, and that much better on the tenth
        return np.asarray(loss * np.where(rng.random(loss.shape) < 0.1, 0.1, 1.1))

    def noisy(loss: FloatArray, factor: float) -> FloatArray:
        return np.asarray(loss * factor * rng.lognormal(-0.125, 0.5, loss.shape))

    normal, spiked, seasonal = (lambda g, t, n: np.abs(g.standard_normal((t, n)))), _spiked, _seasonal
    zeros = lambda g, t, n: np.where(g.random((t, n)) < 0.02, g.lognormal(0, 2, (t, n)), 0.0)  # noqa: E731
    cases: list[tuple[str, str, Any, Callable[[FloatArray], FloatArray], bool]] = [
        ("half-normal losses, errors of its own", "equal", normal, swapped, False),
        ("2 % lognormal of sigma 2, errors of its own", "equal", spiked, swapped, False),
        ("2 % lognormal of sigma 2, its own factor on each", "equal", spiked, lambda x: noisy(x, 1.0), False),
        ("half the loss on 80 % of the rows, ruinous on 20 %", "equal", normal, lambda x: ruinous(x, 0.2), False),
        ("half the loss on 95 % of the rows, ruinous on 5 %", "equal", normal, lambda x: ruinous(x, 0.05), False),
        ("worse on 90 % of the rows, much better on 10 %", "equal", normal, lucky, False),
        ("worse on 90 % of the rows, much better on 10 %, 2 % lognormal", "equal", spiked, lucky, False),
        ("season, its own factor on each", "equal", seasonal, lambda x: noisy(x, 1.0), True),
        ("season, ruinous on 10 % of the rows", "equal", seasonal, lambda x: ruinous(x, 0.1), True),
        ("2 % lognormal of sigma 2, each loss 90 % smaller", "better", spiked, lambda x: 0.1 * x, False),
        ("98 % zero, 2 % lognormal of sigma 2, each loss 90 % smaller", "better", zeros, lambda x: 0.1 * x, False),
        ("2 % lognormal of sigma 2, 40 % smaller on average", "better", spiked, lambda x: noisy(x, 0.6), False),
        ("half-normal losses, 10 % smaller on average", "better", normal, lambda x: noisy(x, 0.9), False),
        ("season, 80 % smaller on average", "better", seasonal, lambda x: noisy(x, 0.2), True),
    ]
    found = []
    for name, truth, draw, model, timed in cases:
        for n in sizes:
            parts = form_blocks(np.arange(n), np.arange(n) if timed else None)

            def one(step: int, draw: Any = draw, model: Any = model, n: int = n, parts: Any = parts) -> list[Any]:
                loss = draw(rng, step, n)
                mine = model(loss)
                before = compare_losses(loss, mine, parts, rule="superior", confidence=0.95, margin=0.0)
                return [before.low > 0, bound_gain_on_baseline(loss, mine, parts, 0.95).low > 0]

            found.append(First(name, truth, n, *_counted(trials, n, one)))
    return found


@dataclass(frozen=True)
class Folded:
    """Ridge regressions judged out of fold on a small table, each fold a block; shares of tables at 95 %."""

    rows: int
    noise_promoted: Share
    equal_promoted: Share
    better_promoted: Share


def folded(trials: int, rng: np.random.Generator, sizes: tuple[int, ...] = (30, 60, 150)) -> list[Folded]:
    """noise: columns that know nothing against the mean. equal: two columns against two others that know as much; better: a model
    that explains half of the variance against the mean.
    """
    found = []
    for n in sizes:
        counts = np.zeros(3, dtype=int)
        for _ in range(trials):
            x, noise = rng.standard_normal((n, 4)), rng.standard_normal(n)
            even = x.sum(axis=1) + 2 * noise
            fold = rng.permutation(n) % 6
            parts = form_blocks(np.arange(n), fold=fold)

            def loss(columns: list[int], y: FloatArray, x: FloatArray = x, fold: Any = fold) -> FloatArray:
                made = np.zeros(len(y))
                for k in range(6):
                    a, rest = x[:, columns], fold != k
                    centre = y[rest].mean()
                    known = a[rest].T @ a[rest] + np.eye(len(columns))
                    made[~rest] = centre + a[~rest] @ np.linalg.solve(known, a[rest].T @ (y[rest] - centre))
                return np.asarray(np.abs(y - made))

            pairs = [
                (loss([], noise), loss([0, 1, 2, 3], noise), True),
                (loss([0, 1], even), loss([2, 3], even), False),
                (loss([], even), loss([0, 1, 2, 3], even), True),
            ]
            for i, (base, mine, dummy) in enumerate(pairs):
                bound = (
                    bound_gain_on_baseline(base, mine, parts, 0.95)
                    if dummy
                    else compare_losses(base, mine, parts, rule="superior", confidence=0.95, margin=0.0)
                )
                counts[i] += bool(bound.low > 0)
        found.append(Folded(n, *(Share(int(c), trials) for c in counts)))
    return found


@dataclass(frozen=True)
class Guard:
    """The slice guard through judge(): ten slices; `harmed`: one of them worse by so much, the rest better by 10 %."""

    rows: int
    refused_same: Share
    harmed_by_10: Share
    harmed_by_30: Share


def guard(trials: int, rng: np.random.Generator, n: int = 2000) -> Guard:
    names = np.array([f"s{k}" for k in range(10)])[np.arange(n) % 10]
    counts = [0, 0, 0]
    for _ in range(trials):
        champion, same = (x[0] for x in losses(worlds()[0], rng, 1, n))
        for k, change in enumerate((None, 0.1, 0.3)):
            challenger = same if change is None else same * np.where(names == "s3", 1 + change, 0.9)
            evidence = GateEvidence(challenger, champion, np.arange(n), slices={"name": names})
            verdict = judge_challenger(evidence, "superior", 0.95, MARGIN)
            counts[k] += any(s.harmed and (change is None or s.value == "s3") for s in verdict.slices)
    return Guard(n, *(Share(c, trials) for c in counts))


@dataclass(frozen=True)
class Real:
    """Fitted models with a truth measured on rows that no judgement used, as per cents of judgements."""

    table: str
    challenger: str
    rule: str
    truly_worse: Share
    naive_wrong: Share
    t_wrong: Share
    gate_wrong: Share
    naive_yes: Share
    gate_yes: Share


def real(trials: int, rng: np.random.Generator, fits: int = 24, rows: int = 400) -> list[Real]:
    """Forests of 10 trees on bootstraps of one training set with other seeds; and refits on twice the rows.

    A judgement draws a champion, a challenger and `rows` test rows; truly worse: on all other rows, superior below
    and equal, not_worse by more than the margin. Wrong: promoted though truly worse.
    """
    tables = {"Friedman 1 with heavy-tailed noise": _friedman(rng)}
    folder = os.environ.get("WINDVANE_DATA")
    if folder:
        tables["King County house prices"] = _houses(Path(folder), rng)
    found: list[Real] = []
    for table, (features, target) in tables.items():
        same, more = _fitted(features, target, fits, rng)
        for name, pool in (("nothing changed: another seed and bootstrap", same), ("fitted on twice the rows", more)):
            for rule in ("superior", "not_worse"):
                found.append(
                    Real(table, name, rule, *_judged(same, pool, trials=trials, rows=rows, rule=rule, rng=rng))
                )
    return found


def _friedman(rng: np.random.Generator, n: int = 24_000) -> tuple[FloatArray, FloatArray]:
    x = rng.random((n, 8))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return x, np.asarray(y + rng.standard_t(3, n))


def _houses(folder: Path, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    import pandas as pd

    table = pd.read_parquet(folder / "king_county_houses.parquet").sample(frac=1, random_state=int(rng.integers(2**31)))
    numbers = table.select_dtypes("number").drop(columns=["price"])
    return numbers.to_numpy(float), table["price"].to_numpy(float)


def _fitted(
    features: FloatArray, target: FloatArray, fits: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """(fits, held-out rows) absolute losses of forests taught on 1,000 rows, and of forests taught on 2,000."""
    from sklearn.ensemble import RandomForestRegressor

    def losses_of(taught: int) -> FloatArray:
        rows = []
        for _ in range(fits):
            drawn = rng.integers(0, taught, taught)
            forest = RandomForestRegressor(10, min_samples_leaf=3, random_state=int(rng.integers(2**31)))
            forest.fit(features[drawn], target[drawn])
            rows.append(np.abs(forest.predict(features[2000:]) - target[2000:]))
        return np.array(rows)

    return losses_of(1000), losses_of(2000)


def _judged(
    champions: FloatArray,
    challengers: FloatArray,
    *,
    trials: int,
    rows: int,
    rule: ResolvedRule,
    rng: np.random.Generator,
) -> list[Share]:
    parts = form_blocks(np.arange(rows))
    count, total = champions.shape
    one, other = rng.integers(0, count, trials), rng.integers(0, count, trials)
    other = np.where(one == other, (other + 1) % count, other)
    picked = rng.integers(0, total, (trials, rows))
    champion, challenger = champions[one[:, None], picked], challengers[other[:, None], picked]
    rest = total - rows
    truth = [
        (losses.sum(axis=1)[who] - test.sum(axis=1)) / rest
        for losses, who, test in ((champions, one, champion), (challengers, other, challenger))
    ]
    worse = truth[1] >= truth[0] * (1 + (MARGIN if rule == "not_worse" else 0))
    naive = challenger.mean(-1) <= champion.mean(-1)
    t = t_test(champion, challenger, 0.95, MARGIN if rule == "not_worse" else 0)
    gate = promoted(champion, challenger, parts, rule, 0.95)
    return [Share(int(x.sum()), trials) for x in (worse, naive & worse, t & worse, gate & worse, naive, gate)]


def table(title: str, rows: Sequence[Any]) -> str:
    """A Markdown table of equal records; numbers are per cent."""
    names = [field.name for field in fields(rows[0])]
    lines = [
        f"### {title}",
        "",
        "| " + " | ".join(n.replace("_", " ") for n in names) + " |",
        "|---" * len(names) + "|",
    ]
    for row in rows:
        lines.append("| " + " | ".join(str(getattr(row, n)) for n in names) + " |")
    return "\n".join([*lines, ""])


def show_first(trials: int, seed: int, sizes: tuple[int, ...]) -> None:
    """Print the tables of the first champion and of small tables."""
    rng = np.random.default_rng([seed, 1])
    print(table("The first champion against the dummy: promoted, per cent", first(trials, rng, sizes)))
    print(table("Small tables judged out of fold: promoted, per cent", folded(trials, rng)))


def show_challengers(trials: int, seed: int, most: int, fitted: tuple[int, ...]) -> None:
    """Print the tables of challengers. most: rows of the largest test split; fitted: fits and rows of real models, if few."""
    rng = np.random.default_rng(seed)
    cells = [(world, n) for world in worlds() for n in world.sizes if n <= most]
    lines = [wrong(world, n, trials, rng) for world, n in cells]
    print(table("Wrong promotions, per cent (alpha 5, and 10 in the columns that end in 90)", lines))
    bad = [f"{line.world}, {line.rows} rows: {', '.join(breaches(line))}" for line in lines if breaches(line)]
    print(f"above alpha: {'; '.join(bad) or 'none'} ({len(lines)} lines)\n")
    print(table("Power: promoted when truly better, per cent", [power(w, n, trials, rng) for w, n in cells]))
    print(table("Five laps of a growing table, per cent of laps and of tables", laps(trials, rng)))
    print(table("Where alpha cannot be held, per cent", beyond(trials, rng)))
    print(table("Slice guard, per cent of judgements", [guard(max(20, trials // 5), rng)]))
    print(table("Fitted models, per cent of judgements", real(trials, rng, *fitted)))


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the gate promotes wrongly, and how often rightly.")
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few trials and small tables: seconds")
    parser.add_argument("--first", action="store_true", help="only the first champion and small tables")
    parser.add_argument("--kept", type=Path, default=KEPT_FOLDER / "gate.jsonl")
    given = parser.parse_args()
    trials, seed = min(given.trials, 100) if given.quick else given.trials, given.seed
    kept, code, began = KeptCells(given.kept), hash_code(__file__, "tasks/gate"), clock.monotonic()
    name = f"{trials} trials, seed {seed}{', quick' if given.quick else ''}"
    sizes = (100, 300) if given.quick else (100, 300, 1500)
    kept.show(f"first, {name}", code, lambda: show_first(trials, seed, sizes))
    if not given.first:
        most, fitted = (300, (6, 100)) if given.quick else (max(SIZES), ())
        kept.show(f"challengers, {name}", code, lambda: show_challengers(trials, seed, most, fitted))
    print(f"{trials} trials a cell, seed {seed}, {clock.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
