"""Keeps the libraries' own chatter off the screen; what they have to say is in Prefect's and MLflow's pages and logs."""

from __future__ import annotations

import logging
import warnings

from windvane.tasks import library_environment


def hush() -> None:
    """Call before Prefect and MLflow are imported: they read these at their import."""
    mute()
    import prefect  # noqa: F401  sets up its loggers

    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("prefect") and isinstance(logger, logging.Logger):
            logger.handlers = [handler for handler in logger.handlers if "Console" not in type(handler).__name__]
    logging.getLogger("prefect").propagate = False


def mute() -> None:
    """The same where Prefect takes no part: it is not imported."""
    library_environment.prepare()
    for name in ("mlflow", "alembic", "matplotlib", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    # About its own type hints, at its import. It hides them itself, but not from a thread that fits a model meanwhile: what
    # `warnings` hides for a while is not kept by thread.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.types")


def flush() -> None:
    """Hand the rest of the log lines to Prefect's server, before it may be stopped."""
    from prefect.logging.handlers import APILogHandler

    for logger in list(logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", []):
            if isinstance(handler, APILogHandler):
                handler.flush()
