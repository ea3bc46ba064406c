"""Imports the heavy libraries when a lap needs them, and keeps their log lines off the screen."""

from __future__ import annotations

import gc
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windvane.tasks import process_environment
from windvane.tasks.project import Project


def silence_prefect() -> None:
    """Call before Prefect and MLflow are imported: they read these at their import."""
    silence_libraries()
    import prefect  # noqa: F401  sets up its loggers

    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("prefect") and isinstance(logger, logging.Logger):
            logger.handlers = [handler for handler in logger.handlers if "Console" not in type(handler).__name__]
    logging.getLogger("prefect").propagate = False


def silence_libraries() -> None:
    """The same where Prefect takes no part: it is not imported."""
    process_environment.set_library_environment()
    for name in ("mlflow", "alembic", "matplotlib", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # A full disk comes with a traceback there, and is raised as well: the sentence for it is enough.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    # About its own type hints, at its import. It hides them itself, but not from a thread that fits a model meanwhile: what
    # `warnings` hides for a while is not kept by thread.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.types")


def flush_prefect_logs() -> None:
    """Hand the rest of the log lines to Prefect's server, before it may be stopped."""
    from prefect.logging.handlers import APILogHandler

    for logger in list(logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", []):
            if isinstance(handler, APILogHandler):
                handler.flush()


# What training needs in any case. Imported by one thread, before steps run side by side and each import it.
HEAVY_MODULES = ("mlflow.pyfunc", "matplotlib.figure", "optuna", "skops.io")


def import_heavy_modules(project: Project, enough: Callable[[], bool] = lambda: False) -> None:
    """Import what is not there yet, one after the other, and open MLflow's store; until `enough`."""
    with pause_garbage_collection():
        for name in HEAVY_MODULES:
            if enough():
                return
            importlib.import_module(name)
        _ = project.tracker  # makes the store, the first time


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """For imports, of which nothing becomes garbage: searching for it again and again takes a quarter of their time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()
