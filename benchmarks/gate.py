"""How often the gate promotes wrongly, and how often rightly: simulated losses whose truth is known, and real models.

    python benchmarks/gate.py [--trials N] [--seed S] [--quick]

Prints Markdown. A share has its 99 % Clopper-Pearson interval; "above" marks one whose whole interval lies above alpha.
A pair of losses is h * exp(u) and h * exp(v) * (1 + worse): h is how hard a row is (heavy-tailed), u and v are what the
two models make of it, drawn alike, so that worse = 0 is "nothing changed" and `worse` is the exact truth.
"""

from __future__ import annotations

import argparse
import os
import sys
import time as clock
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tasks.gate import Evidence, Rule, compare, judge, passes
from tasks.paired import Blocks, Floats, blocks

MARGIN = 0.01
SIZES = (30, 100, 300, 1000, 5000)
CHUNK = 2_000_000  # values in one array: keeps a run below half a gigabyte


@dataclass(frozen=True)
class Share:
    """How many of how many, with its exact interval."""

    count: int
    trials: int

    def interval(self) -> tuple[float, float]:
        from scipy.special import betaincinv

        k, n = self.count, self.trials
        low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, 0.005))
        return low, 1.0 if k == n else float(betaincinv(k + 1, n - k, 0.995))

    def above(self, alpha: float) -> bool:
        return self.interval()[0] > alpha

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{100 * self.count / self.trials:.1f} ({100 * low:.1f}-{100 * high:.1f})"


@dataclass(frozen=True)
class World:
    """How rows depend on each other. `noise`: (rng, trials, n) -> what one model makes of each row."""

    name: str
    noise: Callable[[np.random.Generator, int, int], Floats]
    time: Callable[[int], Any] | None = None
    group: Callable[[int], Any] | None = None
    sizes: tuple[int, ...] = SIZES
    holds_from: int = 30  # rows from which on wrong promotions must stay at or below alpha


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
    holds: bool


def _normal(sd: float) -> Callable[[np.random.Generator, int, int], Floats]:
    return lambda rng, trials, n: sd * rng.standard_normal((trials, n))


def _walk(rng: np.random.Generator, trials: int, n: int, phi: float, sd: float = 0.2) -> Floats:
    """(trials, n) stationary AR(1)."""
    from scipy.signal import lfilter

    shock = rng.standard_normal((trials, n)) * np.sqrt(1 - phi**2)
    shock[:, 0] /= np.sqrt(1 - phi**2)
    return np.asarray(sd * lfilter([1.0], [1.0, -phi], shock, axis=1))


def _grouped(rng: np.random.Generator, trials: int, n: int) -> Floats:
    return 0.2 * rng.standard_normal((trials, n))[:, _groups(n)] + 0.1 * rng.standard_normal((trials, n))


def _groups(n: int) -> Any:
    """Groups of 1 to about 40 rows."""
    return np.repeat(np.arange(n), np.random.default_rng(n).geometric(0.1, n))[:n]


SERIES = 20


def _panel(phi: float, series: float) -> Callable[[np.random.Generator, int, int], Floats]:
    def noise(rng: np.random.Generator, trials: int, n: int) -> Floats:
        shared = _walk(rng, trials, n // SERIES, phi)[:, np.arange(n) // SERIES]
        lasting = series * rng.standard_normal((trials, SERIES))[:, np.arange(n) % SERIES]
        return shared + lasting + 0.2 * rng.standard_normal((trials, n))

    return noise


def worlds() -> list[World]:
    def stamps(n: int) -> Any:
        return np.arange(n) // SERIES

    def series(n: int) -> Any:
        return np.arange(n) % SERIES

    def walk(phi: float, hidden: bool = False) -> Callable[[np.random.Generator, int, int], Floats]:
        def noise(rng: np.random.Generator, trials: int, n: int) -> Floats:
            moving = _walk(rng, trials, n, phi)
            return moving if not hidden else 0.33 * moving + 0.2 * rng.standard_normal((trials, n))

        return noise

    return [
        World("independent rows", _normal(0.2)),
        World("time, independent", _normal(0.2), time=np.arange),
        World("time, AR(1) 0.5", walk(0.5), time=np.arange),
        World("time, AR(1) 0.9", walk(0.9), time=np.arange, holds_from=300),
        World("time, AR(1) 0.95 under noise of 9 times its variance", walk(0.95, True), time=np.arange, holds_from=1000),
        World("groups of 1-40 rows", _grouped, group=_groups, sizes=SIZES[1:]),
        World("panel, 20 series, AR(1) 0.5", _panel(0.5, 0), time=stamps, sizes=SIZES[1:], holds_from=300),
        World("panel and lasting groups", _panel(0.5, 0.2), stamps, series, sizes=SIZES[1:], holds_from=300),
    ]


def losses(world: World, rng: np.random.Generator, trials: int, n: int) -> tuple[Floats, Floats]:
    """(trials, n) losses of two models that are equally good."""
    hard = rng.lognormal(0.0, 1.0, (trials, n))
    return hard * np.exp(world.noise(rng, trials, n)), hard * np.exp(world.noise(rng, trials, n))


def layout(world: World, n: int) -> tuple[Blocks, ...]:
    return blocks(np.arange(n), world.time(n) if world.time else None, world.group(n) if world.group else None)


def promoted(
    champion: Floats,
    challenger: Floats,
    parts: tuple[Blocks, ...],
    rule: Rule,
    confidence: float,
    margin: float = MARGIN,
) -> Any:
    """(trials,) what the gate says, through the same functions as judge()."""
    return passes(compare(champion, challenger, parts, rule, confidence, margin).low, champion.mean(axis=-1), rule, margin)


def t_test(champion: Floats, challenger: Floats, confidence: float, margin: float = 0.0) -> Any:
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

    return Wrong(world.name, n, *_counted(trials, n, one), holds=n >= world.holds_from)


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
    """A table that grows by a tenth: rows new to both judge (with time), or a sticky test side judges again and again."""
    found = []
    for sticky in (False, True):
        phi = 0.0 if sticky else 0.5
        cases: list[tuple[str, float, Rule]] = [
            ("nothing changed", 0.0, "superior"),
            ("each challenger 1 % worse", MARGIN, "superior"),
            ("each challenger worse by the margin", MARGIN, "not_worse"),
        ]
        for truth, worse, rule in cases:
            counts = {
                how: _five(trials, rng, count, n, phi, sticky, worse, rule if how == "gate" else None)
                for how in ("naive", "gate")
            }
            shares = {how: Share(int(c.sum()), c.size) for how, c in counts.items()}
            ever = {how: Share(int(c.any(axis=0).sum()), trials) for how, c in counts.items()}
            table = "no time: sticky test side, growing" if sticky else "time, AR(1) 0.5: rows new to both"
            found.append(Laps(table, truth, rule, shares["naive"], shares["gate"], ever["naive"], ever["gate"]))
    return found


def _five(
    trials: int, rng: np.random.Generator, count: int, n: int, phi: float, sticky: bool, worse: float, rule: Rule | None
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
        parts = blocks(np.arange(rows), None if sticky else np.arange(rows))
        yes = (
            challenger.mean(-1) <= champion.mean(-1)
            if rule is None
            else promoted(champion, challenger, parts, rule, 0.95)
        )
        verdicts.append(yes)
        own = np.where(yes[:, None], new, own)
        level = np.where(yes[:, None], level * (1 + worse), level)
    return np.array(verdicts)
