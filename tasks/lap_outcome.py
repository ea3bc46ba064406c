"""The result of a lap: one record for the ledger, the flow run, the screen and `--json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from windvane.ledger.versions import Version
from windvane.tasks.console import format_metric, format_table
from windvane.tasks.settings.problem_section import name_metric


@dataclass(frozen=True)
class CandidateSummary:
    """A candidate and its headline metric on the validation split; `low`, `high`: its 95 % interval, of an exploring lap."""

    name: str
    validation: float | None
    train: float | None
    trials: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class LapOutcome:
    """A lap's result; `test` is the headline metric on the test split, `interval` its 95 % bootstrap interval. search: what ended
    it, None of a refit; goal: how the test score compares with problem.goal, None without one; both in words.
    """

    run_id: str
    data_version: str
    metric: str
    candidates: tuple[CandidateSummary, ...]
    chosen: str
    test: float | None
    interval: tuple[float | None, float | None]
    fit: str
    depth: str
    verdict: str
    reason: str
    version: int
    champion: int | None
    fingerprint: str
    judgement: int
    fits: int
    steps: dict[str, float]
    seconds: float
    # Which of two classes the metric is of.
    positive: bool | float | str | None = None
    search: str | None = None
    goal: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> LapOutcome:
        """From what to_json() gave."""
        candidates = tuple(CandidateSummary(**c) for c in content["candidates"])
        return cls(**{**content, "candidates": candidates, "interval": tuple(content["interval"])})

    def text(self) -> str:
        """For people: the ladder, the test score, the verdict."""
        metric = name_metric(self.metric, self.positive)
        ladder = [
            {
                "candidate": ("> " if c.name == self.chosen else "  ") + c.name,
                f"validation {metric}": format_metric(c.validation),
                "on train": format_metric(c.train),
                "trials": c.trials,
            }
            for c in self.candidates
        ]
        low, high = self.interval
        score = (
            f"test {metric}: {format_metric(self.test)}  (95 % interval {format_metric(low)} to {format_metric(high)})"
        )
        serves = f"version {self.champion} serves" if self.champion else "nothing serves yet"
        lines = [
            *([f"search: {self.search}"] if self.search else []),
            score,
            *([f"goal: {self.goal}"] if self.goal else []),
            f"fit: {self.fit}",
            f"verdict: {self.verdict}: {self.reason}",
            f"{serves}; {self.seconds:.1f} s",
        ]
        return "\n".join([format_table(ladder), "", *(f"  {line}" for line in lines)])


@dataclass(frozen=True)
class ExplorationResult:
    """What an exploring lap found on train and validation. rows: scored on. reason: what ended the search. params: of `chosen`."""

    run_id: str
    data_version: str
    metric: str
    candidates: tuple[CandidateSummary, ...]
    chosen: str
    params: dict[str, Any]
    rows: int
    reason: str
    fits: int
    seconds: float
    # Which of two classes the metric is of.
    positive: bool | float | str | None = None
    verdict: str = "explored"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def text(self) -> str:
        """For people: the ladder with intervals, and what to do next."""
        metric = name_metric(self.metric, self.positive)
        ladder = [
            {
                "candidate": ("> " if c.name == self.chosen else "  ") + c.name,
                f"validation {metric}": format_metric(c.validation),
                "95 % interval": f"{format_metric(c.low)} to {format_metric(c.high)}",
                "on train": format_metric(c.train),
                "trials": c.trials,
            }
            for c in self.candidates
        ]
        chosen = ", ".join(f"{name} {value}" for name, value in self.params.items())
        lines = [
            f"on {self.rows:,} rows that these models were not fitted on, but are compared by: expect a little less of the best",
            f"best: {self.chosen}: {chosen}",
            f"{self.reason}; {self.seconds:.1f} s",
            "the test split is closed, nothing was registered, and what serves is as before",
            "next: edit `search` in params.yaml and explore again; then once: windvane train",
        ]
        return "\n".join([format_table(ladder), "", *(f"  {line}" for line in lines)])


def describe_version_outcome(version: Version) -> dict[str, Any]:
    """The part of an Outcome that a registered version brings along, as plain values."""
    summary = version.facts.summary
    return {
        "run_id": version.run_id,
        "data_version": version.data_version,
        "metric": version.facts.metric,
        "positive": version.facts.positive,
        **{name: summary[name] for name in ("candidates", "chosen", "test", "interval", "fit")},
        **{name: summary.get(name) for name in ("search", "goal")},
        "version": version.version,
        "fingerprint": version.fingerprint,
    }
