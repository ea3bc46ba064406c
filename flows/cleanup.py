"""`windvane clean`: deletes the model files of refused and old versions, and caches.

Keeps what serves, what `windvane rollback` can reach, what waits for its verdict, and every record. Holds the
project's lease.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from windvane.ledger import laps, versions
from windvane.ledger.database import now_timestamp
from windvane.ledger.laps import Lease
from windvane.ledger.versions import Promotion, Version
from windvane.serving.model_cache import CACHED_VERSIONS as SERVING_COPIES
from windvane.tasks.console import Console
from windvane.tasks.errors import WindvaneError
from windvane.tasks.project import Project
from windvane.tasks.stores import mlflow_client, mlflow_store, model_files

DAY_SECONDS = 86_400
# Unused for so long, what only saves time may go. A download is used within minutes.
CACHE_AGE_SECONDS, DOWNLOAD_AGE_SECONDS = 30 * DAY_SECONDS, DAY_SECONDS


@dataclass(frozen=True)
class DeletableItem:
    """Something that may be deleted: a path below .windvane, or the address of a store elsewhere. `version`: its model files."""

    what: str
    place: str
    bytes: int
    version: int | None = None


@dataclass
class CleanupResult:
    """What was found, what of it was deleted, and what was left, with the reason."""

    found: list[DeletableItem]
    deleted: list[DeletableItem] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)

    @property
    def freed(self) -> int:
        """Bytes of what was deleted."""
        return sum(item.bytes for item in self.deleted)


def clean_project(project: Project, keep: int | None, dry_run: bool, console: Console) -> dict[str, Any]:
    """Delete what may go, or with `dry_run` only show it. `keep`: how many versions' model files stay; None: retention.versions."""
    keep = project.settings.retention.versions if keep is None else keep
    engine, name = project.ledger, project.name
    with laps.hold_lease(engine, name, "windvane clean", lambda held: console.print(f"waiting for {held}")) as lease:
        cleaned = CleanupResult(list(find_deletable_items(project, keep)))
        if not dry_run:
            _delete(project, lease, cleaned)
    for item in cleaned.found if dry_run else cleaned.deleted:
        console.print(f"  {format_megabytes(item.bytes):>9}  {item.what}: {item.place}")
    for one in cleaned.left:
        console.print(f"  left: {one['place']}: {one['why']}")
    found = sum(item.bytes for item in cleaned.found)
    if dry_run:
        console.print(f"  {format_megabytes(found)} would be freed; nothing was deleted")
    else:
        console.print(f"  {format_megabytes(cleaned.freed)} freed")
    if keep is None:
        console.print(
            "  model files of all versions stay (retention.versions is null); to keep those of the newest 10: "
            "windvane clean --versions 10"
        )
    return {
        "freed": cleaned.freed,
        "found": found,
        "dry_run": dry_run,
        "versions": [item.version for item in cleaned.deleted if item.version is not None],
        "items": [asdict(item) for item in cleaned.found],
        "left": cleaned.left,
    }


def clean_after_lap(project: Project, lease: Lease, keep: int, console: Console) -> None:
    """The same at the end of a lap that has finished, reported in one line where model files went."""
    try:
        cleaned = CleanupResult(list(find_deletable_items(project, keep)))
        _delete(project, lease, cleaned)
    except WindvaneError as e:  # the lap is over and recorded
        console.print(f"  note: nothing was cleaned up: {e}")
        return
    numbers = ", ".join(str(item.version) for item in cleaned.deleted if item.version is not None)
    if numbers:
        console.print(
            f"  note: deleted the model files of version {numbers} (retention.versions: {keep}): "
            f"{format_megabytes(cleaned.freed)} freed"
        )
    for one in cleaned.left:
        console.print(f"  note: left {one['place']}: {one['why']}")


def find_deletable_items(project: Project, keep: int | None) -> Iterator[DeletableItem]:
    """What may be deleted. Call while holding the lease."""
    known = versions.list_versions(project.ledger, project.name)
    moves = versions.list_promotions(project.ledger, project.name)
    judged = versions.read_newest_judgements(project.ledger, project.name)
    if keep is not None:
        safe = find_protected_versions(known, moves, judged.keys(), keep)
        for version in known:
            if version.version not in safe and (item := _model_files(project, version)) is not None:
                yield item
    champions = trace_rollback_chain(moves)[:SERVING_COPIES]
    wanted, fetched = (
        {*champions, *(move.from_version for move in moves[-1:])},
        _name_downloads(project, known, champions),
    )
    finished, keeps = {one.fingerprint for one in known if one.version in judged}, project.settings.ledger.keeps
    watched = f"source-{champions[0] if champions else None}"

    def is_spare_copy(path: Path) -> bool:
        # What a fetch just writes is left alone.
        part = path.name.startswith(".") and path.suffix == ".part" and _is_unused(path, DOWNLOAD_AGE_SECONDS)
        return part or (path.name.isdigit() and int(path.name) not in wanted)

    def is_spare_download(path: Path) -> bool:
        return path.name not in fetched and path.suffix != ".lock" and _is_unused(path, DOWNLOAD_AGE_SECONDS)

    def is_old_cache(path: Path) -> bool:
        return path.suffix in (".json", ".skops") and _is_unused(path, CACHE_AGE_SECONDS)

    def is_left_over(path: Path) -> bool:
        return path.name.rpartition("-")[2] in finished  # an exploring lap's has a word before the fingerprint

    def is_other_watch(path: Path) -> bool:
        return path.name.startswith("source-") and path.stem != watched and path.is_file()

    find = partial(_find_items, project)
    yield from find("serving", "the service's copy", is_spare_copy)
    yield from find("laps", "work folder of a lap that has ended", is_left_over)
    yield from find("downloads", "copy of what lies in MLflow", is_spare_download)
    stopped = "pieces of a `windvane score` that was stopped"
    yield from find("scoring", stopped, lambda path: _is_unused(path, CACHE_AGE_SECONDS))
    yield from find("history", "cache of the history", is_old_cache, "**/*")
    yield from find("watch", "rows of an earlier champion's watch", is_other_watch)
    if keeps is not None:
        expired = "page of a window older than ledger.keep"
        yield from find("watch/reports", expired, lambda path: _is_unused(path, keeps.total_seconds()))


def find_protected_versions(
    known: tuple[Version, ...], moves: tuple[Promotion, ...], judged: Any, keep: int
) -> set[int]:
    """Versions whose model files stay: the newest, the champion and as many before it, and those that wait for a verdict."""
    newest = [one.version for one in known][-keep:]
    # The champion itself does not count among those that can be gone back to.
    reachable = trace_rollback_chain(moves)[: keep + 1]
    last = [moves[-1].from_version] if moves and moves[-1].from_version is not None else []
    waiting = [one.version for one in known if one.version not in judged]
    return {*newest, *reachable, *last, *waiting, *(one.version for one in known[-1:])}


def trace_rollback_chain(moves: tuple[Promotion, ...]) -> list[int]:
    """The champion, and behind it those that `windvane rollback` goes back to, one after the other."""
    before = {move.to_version: move.from_version for move in moves if move.cause not in ("rollback", "probation")}
    found: list[int] = []
    at = moves[-1].to_version if moves else None
    while at is not None and at not in found:
        found.append(at)
        at = before.get(at)
    return found


def _delete(project: Project, lease: Lease, cleaned: CleanupResult) -> None:
    for item in cleaned.found:
        if item.version is None:
            why = _remove(project.root / item.place)
        else:
            # Recorded first: from here on it cannot be promoted.
            if not versions.record_deleted_files(project.ledger, lease, item.version, now_timestamp()):
                cleaned.left.append({"place": item.place, "why": f"version {item.version} serves by now"})
                continue
            why = _remove_model(project, item.place)
            if why is not None:
                versions.record_deleted_files(project.ledger, lease, item.version, None)
        if why is None:
            cleaned.deleted.append(item)
        else:
            cleaned.left.append({"place": item.place, "why": why})
    numbers = [item.version for item in cleaned.deleted if item.version is not None]
    # Where there is no store yet, none is made for this.
    if numbers and (project.tracking_uri is not None or (project.home / "mlflow.db").exists()):
        try:
            for number in numbers:
                mlflow_client.describe_registered_version(
                    project.tracker, number, "The model files were deleted by Windvane (retention.versions)."
                )
        except WindvaneError as e:  # the files are gone and the ledger knows it: nothing is to be repeated
            cleaned.left.append({"place": "the versions' descriptions in MLflow", "why": str(e)})


def _model_files(project: Project, version: Version) -> DeletableItem | None:
    """A version's model files where they are still there; of a store elsewhere only once: querying it costs seconds."""
    uri, what = version.model_uri, f"model files of version {version.version}"
    if (path := mlflow_store.find_local_path(uri)) is not None:
        path = project.root / path
        return DeletableItem(what, uri, _size(path), version.version) if path.exists() else None
    if version.collected is not None:
        return None
    return DeletableItem(what, uri, mlflow_client.measure_artifacts(uri, project.tracking_uri), version.version)


def _remove_model(project: Project, place: str) -> str | None:
    if (path := mlflow_store.find_local_path(place)) is not None:
        return _remove(project.root / path)
    return mlflow_client.delete_artifacts(place, project.tracking_uri)


def _remove(path: Path) -> str | None:
    """Delete a file or folder; why it was left, where it was."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as e:
        return f"{e.strerror or type(e).__name__}"
    return None


def _name_downloads(project: Project, known: tuple[Version, ...], champions: list[int]) -> set[str]:
    """Names of the copies of what lies elsewhere that stay: models and held-out rows of the champions that the service keeps too."""
    models = [one.model_uri for one in known if one.version in champions]
    records = [mlflow_store.join_address(mlflow_store.get_parent_address(one), "record.parquet") for one in models]
    return {model_files.locate_artifact_copy(one, project.home / "downloads").name for one in models + records}


def _find_items(
    project: Project, folder: str, what: str, goes: Callable[[Path], bool], pattern: str = "*"
) -> Iterator[DeletableItem]:
    for path in sorted((project.home / folder).glob(pattern)):
        if goes(path):
            yield DeletableItem(what, path.relative_to(project.root).as_posix(), _size(path))


def _files(path: Path) -> Iterator[Path]:
    return (one for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file() and not one.is_symlink())


def _size(path: Path) -> int:
    """Bytes that deleting it frees: a file that is linked elsewhere too, as from DVC's cache, frees none."""
    sizes = 0
    for one in _files(path):
        with suppress(FileNotFoundError):
            state = one.stat()
            sizes += state.st_size if state.st_nlink == 1 else 0
    return sizes


def _is_unused(path: Path, seconds: float) -> bool:
    """Whether nothing in it was written for so long."""
    written = []
    for one in _files(path):
        with suppress(FileNotFoundError):
            written.append(one.stat().st_mtime)
    return time.time() - max(written, default=path.lstat().st_mtime) > seconds


def format_megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
