"""What a replay tells: the screen, the picture, the page, MLflow, and the object of --json."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any
from uuid import uuid4

from windvane.flows import quiet
from windvane.flows.console import Console, table
from windvane.flows.project import Project
from windvane.monitoring.history.story import Chapter, Story
from windvane.tasks.errors import WindvaneError
from windvane.tasks.places import HOME
from windvane.tasks.tracking import Tracker

FOLDER = HOME / "history"


def tell(project: Project, story: Story, console: Console) -> dict[str, Any]:
    """Say, draw and log a story; what of it is for machines."""
    console.working("draw")
    picture, page = _draw(story, project.root / FOLDER)
    _say(story, console)
    console.working("log")
    run = _log(project, story, (picture, page), console)
    console.say(f"  look: {FOLDER / page.name}, its picture beside it")
    return {
        "windows": len(story.chapters),
        "policies": {"never": vars(story.never), story.policy: vars(story.ours)},
        "saved": story.saved,
        "decisions": [_plain(c) for c in story.chapters if c.action != "wait"],
        "picture": (FOLDER / picture.name).as_posix(),
        "page": (FOLDER / page.name).as_posix(),
        "run_id": run,
    }


def _plain(chapter: Chapter) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {name: None if isinstance(v, float) and isnan(v) else v for name, v in vars(chapter).items()}


def _draw(story: Story, folder: Path) -> tuple[Path, Path]:
    from windvane.monitoring.history import page, picture
    from windvane.tasks import sheets

    drawn, written = folder / "replay.png", folder / "replay.html"
    folder.mkdir(parents=True, exist_ok=True)
    sheets.save(picture.draw(story), drawn)
    page.write(story, drawn.read_bytes(), written)
    return drawn, written


def _say(story: Story, console: Console) -> None:
    count, shown = len(story.told) or 1, {"never": story.never, story.policy: story.ours}
    for c in story.chapters:
        if c.ending == "promoted" or c.action in ("rollback", "stop"):
            console.say(f"  {c.start[:10]}  {c.ending or c.action}: {c.cause}")
    console.say(
        f"  {len(story.chapters)} windows of {story.window}: {story.loss_name} per row and window, and in total with the price of laps"
    )
    lines = [
        {
            "policy": name,
            "loss": figures.loss / count,
            "retrains": figures.retrains,
            "refused": figures.refused,
            "total": figures.total / count,
        }
        for name, figures in shown.items()
    ]
    console.say(table(lines))
    console.say(f"  {story.verdict()}")


def _log(project: Project, story: Story, files: tuple[Path, ...], console: Console) -> str | None:
    """A run in the project's experiment; None, and said, where MLflow does not answer."""
    quiet.mute()
    try:
        return _logged(project.tracker, story, files)
    except WindvaneError as e:
        console.say(f"  note: not in MLflow: {e}")
        return None


def _logged(tracker: Tracker, story: Story, files: tuple[Path, ...]) -> str:
    note = f"**{story.verdict()}**\n\n{len(story.chapters)} windows of {story.window}. Picture and page: Artifacts, `replay/`."
    run = tracker.start(f"replay: {story.policy}", f"replay-{uuid4().hex}", {"mlflow.note.content": note})
    figures = {
        f"{name}_{figure}": float(value)
        for name, of in (("never", story.never), ("policy", story.ours))
        for figure, value in vars(of).items()
    }
    tracker.log(
        run,
        params={"retrain.policy": story.policy, "monitor.window": story.window},
        metrics={**figures, "saved": story.saved, "windows": float(len(story.chapters))},
    )
    for path in files:
        tracker.store(run, path, "replay")
    tracker.end(run)
    return run
