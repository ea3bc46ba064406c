"""A glob of local files: which there are, and copies of them. DVC depends on paths, not on patterns: the copies are those."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

from windvane.tasks.data_settings import Revealed
from windvane.tasks.errors import InputError
from windvane.tasks.origins.files import Listed, endings, suffix


class Files:
    """The files of a glob, which counts from `root`."""

    def __init__(self, source: Revealed, root: Path) -> None:
        self._source, self._root = source, root

    def listed(self) -> tuple[Listed, ...]:
        """The tables that the pattern matches, by name. Raises InputError when there is none."""
        names = sorted(glob.glob(self._source.data.source, root_dir=self._root, recursive=True))
        found = []
        for name in names:
            path = self._root / name
            if path.is_file() and suffix(name):
                state = path.stat()
                found.append(Listed(name, f"{state.st_size}-{state.st_mtime_ns}", state.st_size))
        if not found:
            raise InputError(f"data.source: {self._source.where}: matches no table. Its files must end in {endings()}")
        return tuple(found)

    def copy(self, file: Listed, to: Path) -> None:
        """Copy one file."""
        try:
            shutil.copyfile(self._root / file.name, to)
        except FileNotFoundError:
            raise InputError(f"data.source: {file.name}: vanished while it was read. Run again") from None
