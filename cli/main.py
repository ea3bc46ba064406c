"""The `windvane` command line: how commands are typed, what they print, and with which status they end.
cli/commands.py does the work.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

COMMAND_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_PROJECT = "The project's folder, or its params.yaml; else the nearest one from here upwards."


class _InOrder(click.Group):
    """Commands in the order of their definition: that of a project's life."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings=COMMAND_SETTINGS)
@click.version_option(package_name="windvane")
def main() -> None:
    """Keeps a model right while the world changes.

    Windvane learns from your table, compares simple and strong models, and lets a new one serve only
    if it is provably no worse than the one before.

    \b
    A first lap on your own table:
      windvane init houses.csv --target price    # writes params.yaml: look it through
      windvane check                             # is everything there?
      windvane train                             # table -> deployed champion
      windvane score new.csv scored.csv          # predictions of the champion

    Commands find the project from any folder below it; --project names another. Every command takes --json: one
    JSON object on standard output, everything for people on standard error.
    Exit status: 0 done, 2 your input is at fault, 1 anything else, 130 stopped by you.
    """


def _command(work: Callable[..., Any]) -> Callable[..., None]:
    """Adds --project and --json, finds the project's folder (`root`), and turns errors into one message and an exit status."""

    @click.option("--project", type=click.Path(path_type=Path), default=None, help=_PROJECT)
    @click.option(
        "--json", "as_json", is_flag=True, help="One JSON object on standard output, the rest on standard error."
    )
    @functools.wraps(work)
    def run(project: Path | None, as_json: bool, **options: Any) -> None:
        from windvane.tasks import process_environment
        from windvane.tasks.console import Console
        from windvane.tasks.errors import WindvaneError

        process_environment.set_library_environment()
        # Read when OpenMP is loaded; docs/decisions/0009-one-openmp-thread.md says what two threads cost.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # Processes that libraries start here must not import what lies in the user's folder.
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            root, options = process_environment.enter_project(project, options, new=work.__name__ == "init")
            content = work(root=root, console=Console(as_json), **options)
        except WindvaneError as e:
            click.echo(f"windvane: {e}", err=True)
            sys.exit(e.exit_code)
        except Exception as e:
            from windvane.tasks import errors, io

            if (known := errors.explain_disk_error(e, Path.cwd() / io.STATE_FOLDER)) is None:
                raise
            click.echo(f"windvane: {known}", err=True)
            sys.exit(known.exit_code)
        except KeyboardInterrupt:
            click.echo("windvane: stopped by you. What was finished is kept; run the command again to go on", err=True)
            sys.exit(130)
        if as_json and content is not None:
            click.echo(json.dumps(content, default=str))
        if content is not None and content.get("ok") is False:  # `check` found something to mend
            sys.exit(2)

    return run


@main.command()
@click.argument("table", metavar="TABLE")
@click.option("--target", required=True, help="The column to predict.")
@click.option("--time", default=None, help="When a row was observed: then splits follow time. Guessed if left out.")
@click.option("--id", "id_", default=None, help="A column that names a row for good.")
@click.option("--kind", type=click.Choice(["regression", "classification"]), default=None, help="Guessed if left out.")
@click.option("--ignore", multiple=True, help="A column that the model must not see; may be given several times.")
@click.option("--query", default=None, help="The rows of a database, as SQL.")
@click.option("--key", default=None, help="A growing column of a database: later only what is new is read.")
@_command
def init(root: Path, table: str, id_: str | None, console: Any, **options: Any) -> Any:
    """Look at TABLE (a CSV, Parquet or JSON-lines file, or an address) and write a commented params.yaml for it.

    \b
      windvane init houses.csv --target price
      windvane init flights.parquet --target late --ignore arr_delay --ignore dep_delay
      windvane init 's3://bucket/houses/' --target price
      windvane init 'postgresql://me:${PASSWORD}@host/db' --query 'SELECT * FROM houses' --key id --target price
    """
    from windvane.cli import commands

    options["id"] = id_
    return commands.run_init_command(root, table, options, console)


@main.command()
@_command
def check(root: Path, console: Any) -> Any:
    """Say what is wrong with params.yaml, the source and the services, and what to do."""
    from windvane.cli import commands

    return commands.run_check_command(root, console)


@main.command()
@click.option(
    "--depth",
    type=click.Choice(["search", "refit"]),
    default="search",
    show_default=True,
    help="search: algorithms and tuning anew; refit: the champion's configuration on newer rows.",
)
@click.option(
    "--cause", default="by hand", show_default=True, help="Why this lap runs; names its run in MLflow and Prefect."
)
@click.option("--trial-runs", is_flag=True, help="A run in MLflow for every trial too, below its candidate.")
@_command
def train(root: Path, depth: str, cause: str, trial_runs: bool, console: Any) -> Any:
    """One lap: ingest, validate, split, search, evaluate, gate, register, deploy.

    A lap with nothing changed says so in a second. A killed lap goes on where it was. Two at once: the second waits.
    """
    from windvane.cli import commands

    return commands.run_train_command(root, cause, depth, trial_runs, console)


@main.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--log", is_flag=True, help="Record every prediction in the ledger, as the scoring service does.")
@_command
def score(root: Path, source: Path, target: Path, log: bool, console: Any) -> Any:
    """Predictions of the champion for the rows of IN, written to OUT (CSV or Parquet, by their endings).

    Of any size: a piece is in memory at a time, and after a kill the same command goes on where it was. OUT appears whole
    or not at all.
    """
    from windvane.cli import commands

    return commands.run_score_command(root, source, target, log, console)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_command
def labels(root: Path, file: Path, console: Any) -> Any:
    """Hand in ground truth that arrived later: FILE has columns id, label, and at (when it became known) if you like.

    All of FILE (CSV, Parquet or JSON lines) or nothing. Repeated labels change nothing; of several for one id the
    latest `at` counts, in whatever order they arrive.
    """
    from windvane.cli import commands

    return commands.run_labels_command(root, file, console)


@main.command()
@click.option("--wait", is_flag=True, help="Wait for the lap that the automation of `windvane up` starts.")
@click.option("--acknowledge", is_flag=True, help="The data that looked broken are right as they are: go on with them.")
@_command
def monitor(root: Path, wait: bool, acknowledge: bool, console: Any) -> Any:
    """Look at the newest window of production, decide, and teach again if that is worth it.

    \b
    Rows come from the ledger's predictions, and where there are none from the source.
    The same data again is no new look. What broke is a person's matter: mend it, or
      windvane monitor --acknowledge
    """
    from windvane.cli import commands

    return commands.run_monitor_command(root, wait, acknowledge, console)


@main.command()
@click.option("--host", default=None, help="Instead of serve.host of params.yaml.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Instead of serve.port; 0: a free one.")
@_command
def serve(root: Path, host: str | None, port: int | None, console: Any) -> Any:
    """Answer over HTTP with the champion, and with the next one as soon as it is promoted. Ctrl-C stops.

    \b
      curl -s localhost:8000/model
      curl -s localhost:8000/invocations -H 'Content-Type: application/json' \\
        -d '{"dataframe_records": [{"size": 100, "town": "Ulm"}]}'
    """
    from windvane.cli import commands

    return commands.run_serve_command(root, host, port, console)


@main.command()
@click.option(
    "--clock",
    type=click.Choice(["wall", "events"]),
    default="wall",
    show_default=True,
    help="events: the watch's present is the newest event that the ledger has seen, so that history can be played.",
)
@_command
def up(root: Path, clock: str, console: Any) -> Any:
    """Everything at once: MLflow UI, Prefect server and UI, scoring service, schedules, the drift automation.

    Starts and watches them, starts again what dies, and stops all of it on Ctrl-C. What MLFLOW_TRACKING_URI and
    PREFECT_API_URL name as running elsewhere is used, not started. With --json the object is printed once all is ready.
    """
    from windvane.cli import commands

    return commands.run_up_command(root, clock, console)


@main.command()
@click.option(
    "--renew", is_flag=True, help="A new one; what runs keeps the old one until `windvane up` is started again."
)
@_command
def secret(root: Path, renew: bool, console: Any) -> Any:
    """Print the links that open MLflow's and Prefect's pages, and the project's secret, which every program needs for them.

    It lies in .windvane/secret, readable by its owner alone. Whoever has it can run code on this machine.
    """
    from windvane.cli import commands

    return commands.run_secret_command(root, renew, console)


@main.command()
@click.option("--id", "ids", multiple=True, help="An id; may be given several times.")
@click.option(
    "--where", default=None, metavar="COLUMN=VALUE", help="Every id whose input was so, also where it is hashed."
)
@_command
def erase(root: Path, ids: tuple[str, ...], where: str | None, console: Any) -> Any:
    """Erase what the ledger holds of one subject: predictions and labels. It cannot be undone.

    \b
      windvane erase --id 4711
      windvane erase --where customer=7
    """
    from windvane.cli import commands

    return commands.run_erase_command(root, ids, where, console)


@main.command()
@click.option("--window", default=None, help="A duration (24h, 7d, 1mo), or a number of rows; else monitor.window.")
@click.option(
    "--cost",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Of a lap, in windows' losses; else retrain.cost.",
)
@click.option(
    "--delay",
    type=click.IntRange(min=0),
    default=None,
    help="Windows that labels take to come; else from monitor.label_delay.",
)
@click.option(
    "--apply", is_flag=True, help="Write what is recommended into params.yaml; all else in it stays as it is."
)
@click.option("--drift", is_flag=True, help="Play policies that need drift alarms, too: takes minutes the first time.")
@_command
def backtest(
    root: Path, window: str | None, cost: float | None, delay: int | None, apply: bool, drift: bool, console: Any
) -> Any:
    """Play several retraining policies over the table's own history and say which to use.

    The champion's configuration is taught before every window and scored on all later ones; a policy sees only what was known
    at the time. Taught on all rows, and with split.strategy time also on the last windows, and on both (unless rare classes are
    treated). Compared with the cheapest schedule in hindsight; chosen on the first half of the history, reported on the rest.
    Windows twice to four times as long are tried too, at the same price of a lap, without another fit.
    """
    from windvane.cli import commands

    return commands.run_backtest_command(root, window, cost, delay, apply, drift, console)


@main.command()
@click.option(
    "--from", "since", default=None, metavar="DATE", help="Play from here on; else from the first quarter on."
)
@click.option("--window", default=None, help="A duration (24h, 7d, 1mo), or a number of rows; else monitor.window.")
@click.option("--delay", default=None, metavar="SPAN", help="How late labels come (0d, 14d); else monitor.label_delay.")
@click.option("--policy", default=None, help="When to retrain; else retrain.policy.")
@click.option("--cost", type=float, default=None, help="Of a lap, in windows' losses; else retrain.cost.")
@click.option("--search", is_flag=True, help="Search anew where a real lap would; else every lap is a refit.")
@_command
def replay(root: Path, console: Any, **options: Any) -> Any:
    """See on your own table whether, when and why Windvane would have retrained, and what that would have saved.

    Plays the table through the whole loop in the order of time: a champion is taught on the first quarter; then, window by window,
    it answers, labels arrive, the watch looks and decides, and a new model is taught, judged, promoted or refused. Nothing is
    seen before its time. No servers, no waiting; what serves now is not touched.

    \b
      windvane replay                              # policy, cost and windows of params.yaml
      windvane replay --policy drift --window 7d   # what if
      windvane replay --from 2010-01-01 --delay 14d
    """
    from windvane.cli import commands

    return commands.run_replay_command(root, options, console)


@main.command()
@click.argument("name", type=click.Choice(["ingest", "validate", "split"]))
@_command
def stage(root: Path, name: str, console: Any) -> Any:
    """Run one stage of dvc.yaml: what `dvc repro` calls. A lap runs the stages by itself."""
    from windvane.tasks import project_files as stages

    stages.run_stage(name, root)


@main.command()
@_command
def status(root: Path, console: Any) -> Any:
    """Which version serves and why, how the last lap ended, what the watch saw last, and what runs next."""
    from windvane.cli import commands

    return commands.run_status_command(root, console)


@main.command()
@_command
def versions(root: Path, console: Any) -> Any:
    """Every version with its verdict, its metric, why and when it was made, and who serves."""
    from windvane.cli import commands

    return commands.run_versions_command(root, console)


@main.command()
@click.argument("version", type=int)
@_command
def promote(root: Path, version: int, console: Any) -> Any:
    """Make VERSION the champion by hand. Its bytes and answers are checked first; the ledger keeps who it replaced."""
    from windvane.cli import commands

    return commands.run_promote_command(root, version, console)


@main.command()
@_command
def rollback(root: Path, console: Any) -> Any:
    """Put back the champion before this one."""
    from windvane.cli import commands

    return commands.run_rollback_command(root, console)


@main.command()
@click.option(
    "--versions",
    "keep",
    type=click.IntRange(min=1),
    default=None,
    help="Keep model files of so many of the newest versions, and of so many champions; else retention.versions.",
)
@click.option("--dry-run", is_flag=True, help="Show what would go, and delete nothing.")
@_command
def clean(root: Path, keep: int | None, dry_run: bool, console: Any) -> Any:
    """Delete what refused and old versions left, and caches that were not used for a month.

    Never what serves or can be rolled back to, nor any record, verdict, prediction or label. A version whose model files
    went is listed by `windvane versions`, and cannot be promoted again. Waits for a lap that runs.

    \b
      windvane clean --dry-run
      windvane clean --versions 10
    """
    from windvane.cli import commands

    return commands.run_clean_command(root, keep, dry_run, console)


def program() -> None:
    """What `windvane` runs: the commands, in a process of their own."""
    from windvane.tasks.io import set_private_umask

    set_private_umask()
    try:
        main()
    except SystemExit as end:
        if end.code or "prefect" not in sys.modules:
            raise
        # All is recorded by now; Prefect's threads would take a second and more to find out that nothing is left to do.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    program()
