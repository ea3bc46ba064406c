"""Finished cells of long benchmarks, in a file of JSON lines: each with the commit and a hash of the code that it measures.
A run that was killed goes on, and after a change only the cells whose code has changed are run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Where benchmarks keep their cells unless told otherwise.
KEPT_FOLDER = ROOT / ".windvane" / "benchmarks"


class KeptCells:
    """Results by cell and code. A result is what JSON can hold."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[tuple[str, str], Any] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
                self._known[row["cell"], row["code"]] = row["result"]
            except (ValueError, KeyError, TypeError):
                continue  # half a line of a run that was killed
        self._commit = read_commit()

    def has(self, name: str, code: str) -> bool:
        """Whether this cell of this code is there."""
        return (name, code) in self._known

    def get(self, name: str, code: str, work: Callable[[], Any], commit: str | None = None) -> Any:
        """The result of this cell of this code, computed now if it is not there. commit: that of another checkout, if one is measured."""
        if (name, code) not in self._known:
            text = json.dumps({"cell": name, "code": code, "commit": commit or self._commit, "result": work()})
            with self._path.open("a", encoding="utf-8") as f:
                f.write(f"{text}\n")
            self._known[name, code] = json.loads(text)["result"]
            print(f"  {name}: done", file=sys.stderr, flush=True)
        return self._known[name, code]

    def show(self, name: str, code: str, work: Callable[[], object]) -> None:
        """Print what `work` prints: a cell whose result is text."""

        def capture() -> str:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                work()
            return printed.getvalue()

        print(self.get(name, code, capture), end="", flush=True)


def hash_code(script: str, *names: str) -> str:
    """Hash of the benchmark's own script and of product files and folders, named from the root; 16 hex digits."""
    found = hashlib.sha256(Path(script).read_bytes())
    for name in names:
        path = ROOT / name
        files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix != ".pyc")
        for file in files if path.is_dir() else [path]:  # pages and stylesheets are code too
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def read_commit(folder: Path = ROOT) -> str:
    """The commit that is checked out, with + where files differ from it; empty without git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
