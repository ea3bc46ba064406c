"""The `windvane` command line: how commands are typed, and with which status they end. Imports a room only when its command runs."""

from __future__ import annotations

import functools
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
      windvane init houses.csv --target price    # writes params.yaml: review it
      windvane check                             # is everything there?
      windvane train                             # table -> deployed champion
      windvane score new.csv scored.csv          # predictions of the champion

    Commands find the project from any folder below it; --project names another. Every command takes --json: one
    JSON object on standard output, everything for people on standard error.
    Exit status: 0 done, 2 your input is at fault, 1 anything else, 130 stopped by you.
    """


def _command(work: Callable[..., Any]) -> Callable[..., None]:
    """Adds --project and --json, opens the project, and turns errors into one message and an exit status.

    A command whose first parameter is `root` is given the project's folder instead: it works without a valid params.yaml.
    """

    @click.option("--project", type=click.Path(path_type=Path), default=None, help=_PROJECT)
    @click.option(
        "--json", "as_json", is_flag=True, help="One JSON object on standard output, the rest on standard error."
    )
    @functools.wraps(work)
    def run(project: Path | None, as_json: bool, **options: Any) -> None:
        from windvane.tasks import errors, io, process_environment
        from windvane.tasks.console import Console
        from windvane.tasks.errors import WindvaneError

        process_environment.set_library_environment()
        # Read when OpenMP is loaded; docs/decisions/0009-one-openmp-thread.md: what two threads cost.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        # Processes that libraries start here must not import what lies in the user's folder.
        os.environ["PYTHONSAFEPATH"] = "1"
        from windvane.tasks.project import Project

        try:
            root, options = process_environment.enter_project(project, options, new=work.__name__ == "init")
            with Console(as_json) as console:
                place = {"root": root} if work.__code__.co_varnames[0] == "root" else {"project": Project(root)}
                content = work(**place, console=console, **options)
                if as_json and content is not None:
                    console.print_result(content)
        except Exception as e:
            known = e if isinstance(e, WindvaneError) else errors.explain_disk_error(e, Path.cwd() / io.STATE_FOLDER)
            if known is None:
                raise
            click.echo(f"windvane: {known}", err=True)
            sys.exit(known.exit_code)
        except KeyboardInterrupt:
            click.echo("windvane: stopped by you. What was finished is kept; run the command again to go on", err=True)
            sys.exit(130)
        if content is not None and content.get("ok") is False:  # `check` found something to fix
            sys.exit(2)

    return run


@main.command()
@click.argument("table", metavar="TABLE")
@click.option("--target", required=True, help="The column to predict.")
@click.option("--time", default=None, help="When a row was observed: then splits follow time. Guessed if left out.")
@click.option("--id", "id_", default=None, help="A column that names a row for good.")
@click.option("--kind", type=click.Choice(["regression", "classification"]), default=None, help="Guessed if left out.")
@click.option("--positive", default=None, help="Of two classes the one to be found; the rarer one if left out.")
@click.option("--ignore", multiple=True, help="A column that the model must not see; may be given several times.")
@click.option("--query", default=None, help="The rows of a database, as SQL.")
@click.option("--key", default=None, help="A growing column of a database: later only what is new is read.")
@click.option(
    "--dates",
    type=click.Choice(["day_first", "month_first"]),
    default=None,
    help="How dates such as 01/02/2024 are read.",
)
@click.option(
    "--format",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of data.format, such as decimal=, or header=false; may be given several times.",
)
@click.option("--private", is_flag=True, help="The host of an address may be on a private network.")
@click.option(
    "--with-code",
    is_flag=True,
    help="Write models.py, features.py and metrics.py with examples too, where there are none.",
)
@_command
def init(root: Path, table: str, id_: str | None, console: Any, **options: Any) -> Any:
    """Inspect TABLE (a CSV, Parquet, JSON-lines or Excel file, or an address) and write a commented params.yaml for it.

    \b
      windvane init houses.csv --target price
      windvane init flights.parquet --target late --ignore arr_delay --ignore dep_delay
      windvane init 's3://bucket/houses/' --target price
      windvane init 'postgresql://me:${PASSWORD}@host/db' --query 'SELECT * FROM houses' --key id --target price
    """
    from windvane.cli.commands import init_project

    return init_project(root, table, {**options, "id": id_}, console)


@main.command()
@_command
def check(root: Path, console: Any) -> Any:
    """Report what is wrong with params.yaml, the source and the services, and what to do."""
    from windvane.cli.commands import check_project

    return check_project(root, console)


@main.command()
@click.option(
    "--depth",
    type=click.Choice(["search", "refit"]),
    default="search",
    show_default=True,
    help="search: algorithms and tuning anew; refit: the champion's configuration on newer rows.",
)
@click.option("--cause", default="manual", show_default=True, help="Why this lap runs; part of the names of its runs.")
@click.option("--trial-runs", is_flag=True, help="A run in MLflow for every trial too, below its candidate.")
@click.option(
    "--explore",
    is_flag=True,
    help="Only search, on train and validation: tracked, but no test split, gate or version; as often as you like.",
)
@_command
def train(project: Any, console: Any, explore: bool, **options: Any) -> Any:
    """One lap: ingest, validate, split, search, evaluate, build, register, gate, promote.

    A lap with nothing changed ends in a second. A killed lap goes on where it was. Two at once: the second waits.

    \b
    To find out what works, without wearing out the test split (docs/learning.md):
      windvane train --explore     # edit `search` in params.yaml, and again
      windvane train               # then once: the test, the gate, and the champion
    """
    if explore:
        from windvane.cli.commands import explore_candidates

        return explore_candidates(project, console, **options)
    from windvane.flows.lap.lap_runner import run_lap

    outcome = run_lap(project, console=console, **options)
    assert outcome is not None  # only a decision's lap may find that there is nothing to do
    return outcome.to_json()


@main.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--log", is_flag=True, help="Record every prediction in the ledger, as the scoring service does.")
@click.option(
    "--explain",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Name the N columns with the largest effects on each prediction, and their effects.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="LEVEL",
    help="Give what may be true at this level, such as 0.9: an interval of numbers, or a set of classes.",
)
@_command
def score(project: Any, source: Path, target: Path, console: Any, **options: Any) -> Any:
    """Predictions of the champion for the rows of IN, written to OUT: CSV, TSV, Parquet or JSON lines, packed or not, by their
    endings. IN's rows come back as they are, with what is predicted behind.

    Of any size: a piece is in memory at a time, and after a kill the same command goes on where it was. OUT appears whole
    or not at all.
    """
    from windvane.flows.scoring import ScoringOptions, score_file

    return score_file(project, source, target, ScoringOptions(**options), console)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_command
def labels(project: Any, file: Path, console: Any) -> Any:
    """Record labels that arrived later: FILE has columns id, label, and at (when it became known) if you like.

    The table's own names for id and target do as well. All of FILE (CSV, Parquet, JSON lines or Excel) or nothing; empty
    labels are counted and wait. Repeated labels change nothing; of several for one id the latest `at` counts, in
    whatever order they arrive.
    """
    from windvane.cli.commands import import_labels

    return import_labels(project, file, console)


@main.command()
@click.option("--wait", is_flag=True, help="Wait for the lap that the automation of `windvane up` starts.")
@click.option("--acknowledge", is_flag=True, help="The data that seemed broken are right as they are: go on with them.")
@_command
def monitor(project: Any, wait: bool, acknowledge: bool, console: Any) -> Any:
    """Check the windows of production that are new, decide, and retrain if that is worth it.

    \b
    Rows come from the ledger's predictions, and where there are none from the source.
    The same data again is no new check. What broke is a person's matter: fix it, or
      windvane monitor --acknowledge
    """
    from windvane.flows.monitoring import monitor_production

    return monitor_production(project, console, wait=wait, acknowledge=acknowledge)


@main.command()
@click.option("--host", default=None, help="Instead of serve.host of params.yaml.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Instead of serve.port; 0: a free one.")
@_command
def serve(project: Any, host: str | None, port: int | None, console: Any) -> Any:
    """Predict over HTTP with the champion, and with the next one as soon as it is promoted. Ctrl-C stops.

    \b
      curl -s localhost:8000/model
      curl -s localhost:8000/invocations -H 'Content-Type: application/json' \\
        -d '{"dataframe_records": [{"size": 100, "town": "Ulm"}]}'
    """
    from windvane.flows.services.scoring_service import run_scoring_service

    return run_scoring_service(project, host, port, console)


@main.command()
@click.option(
    "--clock",
    type=click.Choice(["wall", "events"]),
    default="wall",
    show_default=True,
    help="events: the present is the newest event that the ledger has seen, so that history can be played.",
)
@_command
def up(project: Any, clock: Any, console: Any) -> Any:
    """Everything at once: MLflow UI, Prefect server and UI, scoring service, schedules, the drift automation.

    Starts and watches them, starts again what dies, and stops all of it on Ctrl-C. What MLFLOW_TRACKING_URI and
    PREFECT_API_URL name as running elsewhere is used, not started. With --json the object is printed once all is ready.
    """
    from windvane.flows.services.up import run_all_services

    run_all_services(project, clock, console)


@main.command()
@click.option(
    "--renew", is_flag=True, help="A new one; what runs keeps the old one until `windvane up` is started again."
)
@_command
def secret(project: Any, renew: bool, console: Any) -> Any:
    """Print the links that open MLflow's and Prefect's pages, and the project's secret, which every program needs for them.

    It lies in .windvane/secret, readable by its owner alone. Anyone who has it can run code on this machine.
    """
    from windvane.flows.services.up_state import show_secret

    return show_secret(project, renew, console)


@main.command()
@click.option("--id", "ids", multiple=True, help="An id; may be given several times.")
@click.option(
    "--where", default=None, metavar="COLUMN=VALUE", help="Every id whose input was so, also where it is hashed."
)
@_command
def erase(project: Any, ids: tuple[str, ...], where: str | None, console: Any) -> Any:
    """Erase what the ledger holds of one subject: predictions and labels. It cannot be undone.

    \b
      windvane erase --id 4711
      windvane erase --where customer=7
    """
    from windvane.cli.commands import erase_from_ledger

    return erase_from_ledger(project, ids, where, console)


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
def backtest(project: Any, console: Any, **options: Any) -> Any:
    """Play several retraining policies over the table's own history and report which to use.

    The champion's configuration is trained before every window and scored on all later ones; a policy sees only what was known
    at the time. Trained on all rows, and with split.strategy time also on the last windows, and on both (unless rare classes are
    treated). Compared with the cheapest schedule in hindsight; chosen on the first half of the history, reported on the rest.
    Windows twice to four times as long are tried too, at the same price of a lap, without another fit.
    """
    from windvane.flows.replay.policy_backtest import backtest_table

    return backtest_table(project, console=console, **options)


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
def replay(project: Any, console: Any, **options: Any) -> Any:
    """See on your own table whether, when and why Windvane would have retrained, and what that would have saved.

    Plays the table through the whole loop in the order of time: a champion is trained on the first quarter; then, window by window,
    it predicts, labels arrive, monitoring checks and decides, and a new model is trained, judged, promoted or refused. Nothing is
    seen before its time. No servers, no waiting; what serves now is not touched.

    \b
      windvane replay                              # policy, cost and windows of params.yaml
      windvane replay --policy drift --window 7d   # what if
      windvane replay --from 2010-01-01 --delay 14d
    """
    from windvane.flows.replay.history_replay import ReplayOptions, replay_and_report

    return replay_and_report(project, ReplayOptions(**options), console)


@main.command()
@click.argument("name", type=click.Choice(["ingest", "validate", "split"]))
@_command
def stage(root: Path, name: str, console: Any) -> Any:
    """Run one stage of dvc.yaml: what `dvc repro` calls. A lap runs the stages by itself."""
    from windvane.tasks.project_files import run_stage

    run_stage(name, root)


@main.command()
@_command
def status(project: Any, console: Any) -> Any:
    """Which version serves and why, how the last lap ended, what monitoring found last, and what runs next."""
    from windvane.cli.status import show_status

    return show_status(project, console)


@main.command()
@_command
def versions(project: Any, console: Any) -> Any:
    """Every version with its verdict, its metric, why and when it was made, and who serves."""
    from windvane.cli.status import show_versions

    return show_versions(project, console)


@main.command()
@click.argument("version", type=int)
@_command
def promote(project: Any, version: int, console: Any) -> Any:
    """Make VERSION the champion manually. Its bytes and predictions are checked first; the ledger keeps who it replaced."""
    from windvane.cli.commands import promote_version

    return promote_version(project, version, console)


@main.command()
@_command
def rollback(project: Any, console: Any) -> Any:
    """Put back the champion before this one."""
    from windvane.cli.commands import roll_back_version

    return roll_back_version(project, console)


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
def clean(project: Any, keep: int | None, dry_run: bool, console: Any) -> Any:
    """Delete what refused and old versions left, and caches that were not used for a month.

    Never what serves or can be rolled back to, nor any record, verdict, prediction or label. A version whose model files
    went is listed by `windvane versions`, and cannot be promoted again. Waits for a lap that runs.

    \b
      windvane clean --dry-run
      windvane clean --versions 10
    """
    from windvane.flows.cleanup import clean_project
    from windvane.flows.orchestration.libraries import silence_libraries

    silence_libraries()
    return clean_project(project, keep, dry_run, console)


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
