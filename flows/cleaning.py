"""`windvane clean`: deletes what refused and old versions left behind, and what can be made again.

Never what serves, what `windvane rollback` can reach within retention.versions, what waits for its verdict, or the held-out
rows of any version: their records and digests stay with their runs. Holds the project's lease: no lap runs meanwhile.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.ledger import leases, versions
from windvane.ledger.leases import Lease
from windvane.ledger.store import now
from windvane.ledger.versions import Promotion, Version
from windvane.serving.shelf import KEPT as SERVING_COPIES
from windvane.tasks import addresses, downloads
from windvane.tasks.errors import WindvaneError

DAY_SECONDS = 86_400
# Unused for so long, what only saves time may go. A download is used within minutes.
CACHE_SECONDS, DOWNLOAD_SECONDS = 30 * DAY_SECONDS, DAY_SECONDS


@dataclass(frozen=True)
class Item:
    """Something that may be deleted: a path below .windvane, or the address of a store elsewhere. `version`: its model files."""

    what: str
    place: str
    bytes: int
    version: int | None = None


@dataclass
class Cleaned:
    """What was found, what of it was deleted, and what was left, with the reason."""

    found: list[Item]
    deleted: list[Item] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)

    @property
    def freed(self) -> int:
        """Bytes of what was deleted."""
        return sum(item.bytes for item in self.deleted)


def clean(project: Project, keep: int | None, dry_run: bool, console: Console) -> dict[str, Any]:
    """Delete what may go, or with `dry_run` only show it. `keep`: how many versions' model files stay; None: retention.versions."""
    keep = project.settings.retention.versions if keep is None else keep

    def waiting(holder: leases.Holder) -> None:
        console.say(f"waiting for {holder}")

    with leases.hold(project.ledger, project.name, "windvane clean", waiting) as lease:
        cleaned = Cleaned(list(find(project, keep)))
        if not dry_run:
            _delete(project, lease, cleaned)
    for item in cleaned.found if dry_run else cleaned.deleted:
        console.say(f"  {megabytes(item.bytes):>9}  {item.what}: {item.place}")
    for one in cleaned.left:
        console.say(f"  left: {one['place']}: {one['why']}")
    if dry_run:
        console.say(f"  {megabytes(sum(item.bytes for item in cleaned.found))} would be freed; nothing was deleted")
    else:
        console.say(f"  {megabytes(cleaned.freed)} freed")
    if keep is None:
        console.say(
            "  model files of all versions stay (retention.versions is null); to keep those of the newest 10: "
            "windvane clean --versions 10"
        )
    return {
        "freed": cleaned.freed,
        "found": sum(item.bytes for item in cleaned.found),
        "dry_run": dry_run,
        "versions": [item.version for item in cleaned.deleted if item.version is not None],
        "items": [asdict(item) for item in cleaned.found],
        "left": cleaned.left,
    }


def after_lap(project: Project, lease: Lease, keep: int, console: Console) -> None:
    """The same at the end of a lap that has finished, told in one line where model files went."""
    try:
        cleaned = Cleaned(list(find(project, keep)))
        _delete(project, lease, cleaned)
    except WindvaneError as e:  # the lap is over and recorded
        console.say(f"  note: nothing was cleaned up: {e}")
        return
    numbers = ", ".join(str(item.version) for item in cleaned.deleted if item.version is not None)
    if numbers:
        console.say(
            f"  note: deleted the model files of version {numbers} (retention.versions: {keep}): "
            f"{megabytes(cleaned.freed)} freed"
        )
    for one in cleaned.left:
        console.say(f"  note: left {one['place']}: {one['why']}")


def find(project: Project, keep: int | None) -> Iterator[Item]:
    """What may be deleted. Call while holding the lease."""
    known, moves = versions.listed(project.ledger, project.name), versions.moves(project.ledger, project.name)
    judged = versions.verdicts(project.ledger, project.name)
    if keep is not None:
        safe = protected(known, moves, judged.keys(), keep)
        for version in known:
            if version.version not in safe and (item := _model_files(project, version)) is not None:
                yield item
    champions = chain(moves)[:SERVING_COPIES]
    yield from _copies(project, {*champions, *(moves[-1:] and [moves[-1].from_version])})
    finished = {one.fingerprint for one in known if one.version in judged}
    yield from _each(project, "laps", "work folder of a lap that has ended", lambda path: path.name in finished)
    yield from _downloads(project, [one for one in known if one.version in champions])
    yield from _each(
        project, "scoring", "pieces of a `windvane score` that was stopped", lambda path: _unused(path, CACHE_SECONDS)
    )
    yield from _caches(project, champions[0] if champions else None)


def protected(known: tuple[Version, ...], moves: tuple[Promotion, ...], judged: Any, keep: int) -> set[int]:
    """Versions whose model files stay: the newest, the champion and as many before it, and those that wait for a verdict."""
    newest = [one.version for one in known][-keep:]
    # The champion itself does not count among those that can be gone back to.
    reachable = chain(moves)[: keep + 1]
    last = [moves[-1].from_version] if moves and moves[-1].from_version is not None else []
    waiting = [one.version for one in known if one.version not in judged]
    return {*newest, *reachable, *last, *waiting, *(one.version for one in known[-1:])}


def chain(moves: tuple[Promotion, ...]) -> list[int]:
    """The champion, and behind it those that `windvane rollback` goes back to, one after the other."""
    before = {move.to_version: move.from_version for move in moves if move.cause not in ("rollback", "probation")}
    found: list[int] = []
    at = moves[-1].to_version if moves else None
    while at is not None and at not in found:
        found.append(at)
        at = before.get(at)
    return found


def _delete(project: Project, lease: Lease, cleaned: Cleaned) -> None:
    for item in cleaned.found:
        if item.version is None:
            why = _remove(project.root / item.place)
        else:
            # On record first: from here on nobody can promote it.
            if not versions.collect(project.ledger, lease, item.version, now()):
                cleaned.left.append({"place": item.place, "why": f"version {item.version} serves by now"})
                continue
            why = _remove_model(project, item)
            if why is not None:
                versions.collect(project.ledger, lease, item.version, None)
        if why is None:
            cleaned.deleted.append(item)
        else:
            cleaned.left.append({"place": item.place, "why": why})
    numbers = [item.version for item in cleaned.deleted if item.version is not None]
    # Where there is no store yet, none is made for this.
    if numbers and (project.tracking_uri is not None or (project.home / "mlflow.db").exists()):
        from windvane.tasks import registry

        try:
            for number in numbers:
                registry.describe(
                    project.tracker, number, "The model files were deleted by Windvane (retention.versions)."
                )
        except WindvaneError as e:  # the files are gone and the ledger knows it: nothing is to be repeated
            cleaned.left.append({"place": "the versions' descriptions in MLflow", "why": str(e)})


def _model_files(project: Project, version: Version) -> Item | None:
    """A version's model files where they are still there; of a store elsewhere only once: asking it costs seconds."""
    uri = version.model_uri
    if (path := addresses.on_disk(uri)) is not None:
        path = project.root / path
        return Item(_named(version), uri, _size(path), version.version) if path.exists() else None
    if version.collected is not None:
        return None
    from windvane.tasks import tracking

    return Item(_named(version), uri, tracking.size(uri, project.tracking_uri), version.version)


def _named(version: Version) -> str:
    return f"model files of version {version.version}"


def _remove_model(project: Project, item: Item) -> str | None:
    if (path := addresses.on_disk(item.place)) is not None:
        return _remove(project.root / path)
    from windvane.tasks import tracking

    return tracking.delete(item.place, project.tracking_uri)


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


def _copies(project: Project, wanted: set[int | None]) -> Iterator[Item]:
    """The service's copies of versions that it will not be asked for. What a fetch just writes is left alone."""
    for path in _entries(project, "serving"):
        old = path.name.isdigit() and int(path.name) not in wanted
        part = path.name.startswith(".") and path.suffix == ".part" and _unused(path, DOWNLOAD_SECONDS)
        if old or part:
            yield _item(project, "the service's copy", path)


def _downloads(project: Project, serving: list[Version]) -> Iterator[Item]:
    """Copies of artifacts that lie elsewhere, but for the models and held-out rows of the champions that the service keeps too."""
    folder = project.home / "downloads"
    addressed = [one.model_uri for one in serving]
    addressed += [addresses.join(addresses.parent(one), "record.parquet") for one in addressed]
    wanted = {downloads.place_of(one, folder).name for one in addressed}
    for path in _entries(project, "downloads"):
        if path.name not in wanted and path.suffix != ".lock" and _unused(path, DOWNLOAD_SECONDS):
            yield _item(project, "copy of what lies in MLflow", path)


def _caches(project: Project, champion: int | None) -> Iterator[Item]:
    """What replay, backtest and the watch keep to be faster, and pages of windows that the ledger has let go."""
    for path in _entries(project, "history", "**/*"):
        if path.suffix in (".json", ".skops") and _unused(path, CACHE_SECONDS):
            yield _item(project, "cache of the history", path)
    for path in _entries(project, "watch"):
        if path.name.startswith("source-") and path.stem != f"source-{champion}" and path.is_file():
            yield _item(project, "rows of an earlier champion's watch", path)
    keeps = project.settings.ledger.keeps
    if keeps is not None:
        for path in _entries(project, "watch/reports"):
            if _unused(path, keeps.total_seconds()):
                yield _item(project, "page of a window older than ledger.keep", path)


def _each(project: Project, folder: str, what: str, which: Any) -> Iterator[Item]:
    return (_item(project, what, path) for path in _entries(project, folder) if which(path))


def _entries(project: Project, folder: str, pattern: str = "*") -> list[Path]:
    return sorted((project.home / folder).glob(pattern))


def _item(project: Project, what: str, path: Path) -> Item:
    return Item(what, path.relative_to(project.root).as_posix(), _size(path))


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


def _unused(path: Path, seconds: float) -> bool:
    """Whether nothing in it was written for so long."""
    written = []
    for one in _files(path):
        with suppress(FileNotFoundError):
            written.append(one.stat().st_mtime)
    return time.time() - max(written, default=path.lstat().st_mtime) > seconds


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
