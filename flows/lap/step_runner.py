"""How a lap's steps are called: as plain functions here, as tasks of Prefect in flows/steps.py. Their order is flows/training.py's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Running(Protocol[R_co]):
    """A step that was begun and may run beside others."""

    def result(self) -> R_co:
        """Wait for its end; what it returned. Raises what it raised."""


class Runner(ABC):
    """Calls steps; `seconds`: how long those took that are timed, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @abstractmethod
    def __call__(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do a step and return what it returns."""

    @abstractmethod
    def beside(self, step: Callable[..., R], *args: Any) -> Running[R]:
        """Begin a step; where an argument is a step that runs, it is given that one's result."""


class Direct(Runner):
    """One after the other, in this thread.

    instead: what stands for each step where a lap is simulated; a step that is not in it is a KeyError. None: the steps themselves.
    """

    def __init__(self, instead: Mapping[Callable[..., Any], Callable[..., Any]] | None = None) -> None:
        super().__init__()
        self._instead = instead

    def __call__(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it."""
        work: Callable[..., R] = step if self._instead is None else self._instead[step]
        return work(*args, **kwargs)

    def beside(self, step: Callable[..., R], *args: Any) -> Running[R]:
        """Call it now: a failure is raised here, before whatever would have run beside it."""
        ended: Future[R] = Future()
        ended.set_result(self(step, *(a.result() if isinstance(a, Future) else a for a in args)))
        return ended
