"""A project in a folder, and a way to type commands in it: what tests of whole commands share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

ROOMS = ("cli", "flows", "tasks", "monitoring", "serving", "ledger", "templates")
ROOT = Path(__file__).parents[2]
# Services of the person who runs the tests must not be touched by them.
SERVICES = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "WINDVANE_LEDGER_URL", "WINDVANE_API_KEYS")


def missing(what: str) -> None:
    """Skip, naming what is missing; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"needs {what}")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        content: dict[str, Any] = json.loads(self.out)
        return content


class Folder:
    """A project folder, and commands typed in it, each in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in SERVICES}
        return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}", **(extra or {})}

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "windvane.cli.main", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.path, env=self.environment(env), stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Ran:
        process = self.start(*arguments, env=env)
        out, err = process.communicate(timeout=timeout)
        return Ran(process.returncode, out, err)

    def type(self, *arguments: str, env: Mapping[str, str] | None = None) -> Ran:
        """The command in the tests' own process, in a fraction of the time: where its start is not what is tested."""
        from windvane.cli.main import main

        before = dict(os.environ)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.path)
            try:
                os.environ.clear()
                os.environ.update(self.environment(env))
                done = CliRunner().invoke(main, arguments)
            finally:
                os.environ.clear()
                os.environ.update(before)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    def train(self, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A lap that must end well."""
        ran = self.run("train", "--json", *arguments, env=env)
        assert ran.status == 0, ran.err
        return ran.json

    def dvc(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def set(self, **changes: Any) -> None:
        """Change params.yaml: `search__trials=4` is search.trials."""
        path = self.path / "params.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, value in changes.items():
            *sections, key = name.split("__")
            place = content
            for section in sections:
                place = place.setdefault(section, {})
            place[key] = value
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def quick_project(path: Path) -> Folder:
    """The default project in a new folder, with a search that takes a second."""
    folder = Folder(path)
    (folder.path / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", "data/txhousing.csv"):
        shutil.copy(ROOT / name, folder.path / name)
    folder.set(search__trials=3, search__candidates=["linear", "tree", "boosting"])
    return folder
