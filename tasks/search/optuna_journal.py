"""The only door to Optuna: proposes configurations and keeps every trial on disk, so that a killed search can be resumed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from windvane.tasks.errors import Corrupted
from windvane.tasks.models.problem_types.definitions import (
    FloatRange,
    Hyperparameter,
    HyperparameterValue,
    IntRange,
    Metric,
)
from windvane.tasks.search.search_plan import SearchTrial

# Random draws before the Bayesian sampler models them, and trials before the pruner compares with their median.
_RANDOM_STARTUP_TRIALS = 5
_PRUNER_STARTUP_TRIALS = 4
_OPTUNA_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class TrialJournal:
    """Trials by candidate in one file, one Optuna study each; holds one opened trial per study at most.

    A proposal depends on seed, candidate and the trials finished before it, and on nothing else: a search that was
    killed and resumed proposes what an undisturbed one does. The caller makes sure that no other process has the file open.
    """

    def __init__(self, path: Path, metric: Metric, method: str, seed: int) -> None:
        """Open or create. Raises Corrupted if the file is not a journal."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path.parent.mkdir(parents=True, exist_ok=True)
        _repair_journal(path)
        self._storage = JournalStorage(JournalFileBackend(str(path)))
        self._direction = "maximize" if metric.greater_is_better else "minimize"
        self._method, self._seed = method, seed
        self._studies: dict[str, Any] = {}

    def finished(self, candidate: str) -> tuple[SearchTrial, ...]:
        """A candidate's finished trials, in the order in which they were proposed."""
        kept = [t.user_attrs["trial"] for t in self._study(candidate).get_trials(deepcopy=False) if _is_finished(t)]
        return tuple(SearchTrial(**content) for content in kept)

    def propose(
        self, candidate: str, space: Mapping[str, Hyperparameter], fixed: Mapping[str, HyperparameterValue] | None
    ) -> OpenTrial:
        """Open the candidate's next trial: `fixed` as it is, else drawn from the tuned dimensions of `space`."""
        study = self._study(candidate)
        number = len(self.finished(candidate))
        study.sampler = self._sampler(number)
        distributions = {name: _distribution(d) for name, d in space.items() if d.tuned}
        if fixed is not None and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial({name: fixed[name] for name in distributions})
        trial = study.ask(distributions)
        failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        deaths = sum(t.params == trial.params and "trial" not in t.user_attrs for t in failed)
        params = {name: d.default for name, d in space.items()} | trial.params | dict(fixed or {})
        return OpenTrial(study, trial, number, params, deaths)

    def _study(self, candidate: str) -> Any:
        if candidate not in self._studies:
            study = optuna.create_study(
                study_name=candidate,
                storage=self._storage,
                direction=self._direction,
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=_PRUNER_STARTUP_TRIALS),
            )
            # Whatever runs now is of a process that died: it is failed here, without counting, and proposed again.
            for dead in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.tell(dead.number, state=TrialState.FAIL)
            self._studies[candidate] = study
        return self._studies[candidate]

    def _sampler(self, number: int) -> Any:
        seed = (self._seed * 10_007 + number) % 2**32
        if self._method == "bayesian":
            return TPESampler(seed=seed, n_startup_trials=_RANDOM_STARTUP_TRIALS)
        return RandomSampler(seed=seed)


@dataclass(frozen=True)
class OpenTrial:
    """An opened trial: its whole configuration in `params`; finish() closes it for good.

    deaths: how many processes ended while they fitted just this.
    """

    study: Any
    trial: Any
    number: int
    params: dict[str, HyperparameterValue]
    deaths: int

    def hopeless(self, value: float, step: int) -> bool:
        """Record a first, cheaper result; true if it is worse than the median of the finished trials at this step."""
        self.trial.report(value, step)
        return bool(math.isfinite(value) and self.trial.should_prune())

    def finish(self, trial: SearchTrial) -> None:
        """Record the outcome; from here on the trial is never done again."""
        self.trial.set_user_attr("trial", asdict(trial))
        self.study.tell(self.trial, trial.validation, _OPTUNA_STATES[trial.state])


def _repair_journal(path: Path) -> None:
    """Clear what a killed writer leaves: its lock, for which Optuna would wait half a minute, and half a line."""
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    os.truncate(path, whole)
    try:
        for line in content[:whole].splitlines():
            json.loads(line)["op_code"]
    except (ValueError, KeyError, TypeError, IndexError) as e:
        raise Corrupted(f"{path}: is not a search journal ({e}). Delete it; the search then starts anew") from e


def _is_finished(trial: Any) -> bool:
    """Whether a study's trial was finished by us: a dead process's trial may have its outcome noted, but not recorded."""
    noted = trial.user_attrs.get("trial")
    return noted is not None and trial.state == _OPTUNA_STATES[noted["state"]]


def _distribution(dimension: Hyperparameter) -> Any:
    if isinstance(dimension, FloatRange):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    if isinstance(dimension, IntRange):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return CategoricalDistribution(dimension.options)
