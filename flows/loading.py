"""When a lap imports what is heavy: while it waits for Prefect's server, else once its table has passed."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windvane.flows.project import Project

# What teaching needs in any case. Imported by one thread, before steps run side by side and would each begin to.
HEAVY = ("mlflow.sklearn", "matplotlib.figure", "optuna", "skops.io")


def load(project: Project, enough: Callable[[], bool] = lambda: False) -> None:
    """Import what is not there yet, one after the other, and open MLflow's store; until `enough`."""
    with all_stays():
        for name in HEAVY:
            if enough():
                return
            importlib.import_module(name)
        _ = project.tracker  # makes the store, the first time


@contextmanager
def all_stays() -> Iterator[None]:
    """For imports, of which nothing becomes garbage: looking for it again and again takes a quarter of their time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()
