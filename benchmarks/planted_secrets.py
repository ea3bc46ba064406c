"""Secrets planted wherever one can be, the whole loop run on them, and then everything searched that it left or showed.

`python -m benchmarks.planted_secrets`: a project on a PostgreSQL table, with a webhook, keys, and stores of its own; init, check,
laps, score, labels, monitor and `windvane up`. Searched: every file below the project and its home folder (databases row by row,
Parquet and packed files opened), what every command printed, the command lines of all processes while they ran, and what the
servers answer. A table is printed; the exit status is 1 if a secret was found where it must not be.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import secrets
import sqlite3
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import sqlalchemy as sa

from tests.support import postgres_server
from tests.support.projects import ROOT, Folder
from tests.support.running_up import standing
from windvane.tasks import project_secrets

# Where a secret that Windvane makes itself is kept.
KEPT = {"the project's secret": ".windvane/secret"}
PLANTED = ("database", "webhook", "score", "label", "ledger", "mlflow", "aws")
SAMPLE_SECONDS = 0.1


@dataclass
class Search:
    """Planted secrets by name, and every place where one was found."""

    planted: dict[str, str]
    found: list[tuple[str, str]] = field(default_factory=list)
    # Where one belongs: a search that does not find it there finds nothing anywhere.
    kept: list[tuple[str, str]] = field(default_factory=list)
    searched: dict[str, int] = field(default_factory=dict)

    def look(self, where: str, place: str, content: bytes) -> None:
        """Search some bytes; `where` is a kind of place, for the table."""
        self.searched[where] = self.searched.get(where, 0) + 1
        for name, value in self.planted.items():
            forms = (value.encode(), base64.b64encode(value.encode()).rstrip(b"="))
            if any(form in content for form in forms):
                found = self.kept if place == KEPT.get(name) else self.found
                found.append((name, f"{where}: {place}"))

    def files(self, where: str, root: Path) -> None:
        """Every file below a folder, opened where it is packed."""
        for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
            place, content = path.relative_to(root).as_posix(), path.read_bytes()
            self.look(where, place, content)
            for inner in _opened(path, content):
                self.look(f"{where}, opened", place, inner)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _opened(path: Path, content: bytes) -> Iterator[bytes]:
    if content.startswith(b"SQLite format 3\0"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            yield "\n".join(db.iterdump()).encode(errors="replace")
    elif content.startswith(b"PAR1"):
        yield pd.read_parquet(io.BytesIO(content)).to_csv().encode()
    elif content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)
    elif content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            for name in packed.namelist():
                yield packed.read(name)


@contextmanager
def command_lines() -> Iterator[set[str]]:
    """The command lines of all processes below this one, for as long as this lasts."""
    seen: set[str] = set()
    stop, me = threading.Event(), psutil.Process()

    def watch() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            for process in me.children(recursive=True):
                with suppress(psutil.Error):
                    seen.add(" ".join(process.cmdline()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@contextmanager
def listener() -> Iterator[str]:
    """An address for the webhook."""

    class Taking(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def run(path: Path) -> Search:
    """The loop in a new folder, and the search."""
    plant = {name: f"planted-{name}-{secrets.token_hex(12)}" for name in PLANTED}
    search = Search(plant)
    (path / "home").mkdir(parents=True)
    folder = Folder(path / "project")
    folder.path.mkdir()
    with postgres_server.running(fsync=False) as database, listener() as hook, command_lines() as lines:
        whole = pd.read_csv(ROOT / "data" / "txhousing.csv").sort_values("ts", kind="stable")
        engine = sa.create_engine(database.url)
        whole[whole["ts"] >= "2010"].to_sql("houses", engine, index_label="id")
        engine.dispose()
        env = {
            "HOME": str(path / "home"),
            "XDG_CACHE_HOME": str(path / "home" / "cache"),
            "DB_PASSWORD": plant["database"],
            "HOOK": f"{hook}/{plant['webhook']}",
            "WINDVANE_API_KEYS": ",".join(f"{scope}:{_digest(plant[scope])}" for scope in ("score", "label")),
            "WINDVANE_LEDGER_KEY": plant["ledger"],
            "MLFLOW_TRACKING_PASSWORD": plant["mlflow"],
            "AWS_ACCESS_KEY_ID": "planted",
            "AWS_SECRET_ACCESS_KEY": plant["aws"],
        }
        address = database.url.replace("postgresql+psycopg://windvane@", "postgresql://windvane:${DB_PASSWORD}@")

        def typed(*arguments: str, ends: tuple[int, ...] = (0,)) -> None:
            ran = folder.run(*arguments, env=env)
            assert ran.status in ends, ran.err
            search.look("what commands print", " ".join(arguments), (ran.out + ran.err).encode())

        typed(
            "init",
            address,
            "--query",
            "SELECT * FROM houses",
            "--key",
            "id",
            "--target",
            "median",
            "--ignore",
            "volume",
        )
        folder.set(
            search__candidates=["linear", "boosting"],
            search__trials=3,
            monitor__webhook="${HOOK}",
            ledger__hash=["city"],
            schedule__monitor="* * * * *",
        )
        typed("check")
        typed("train")
        whole.tail(100).drop(columns="median").to_csv(folder.path / "new.csv", index_label="id")
        typed("score", "new.csv", "scored.csv", "--log")
        typed("monitor")
        typed("versions")
        typed("status")
        # What goes wrong is told, too.
        env["DB_PASSWORD"] = plant["database"] + "x"
        folder.set(data__source=address.replace("/postgres", "/nowhere"))
        typed("check", "--json", ends=(2,))
        typed("train", ends=(1, 2))
        folder.set(data__source=address)
        env["DB_PASSWORD"] = plant["database"]
        search.planted["the project's secret"] = project_secrets.read_project_secret(folder.path / ".windvane")
        with standing(folder, **env) as up:
            typed("monitor")
            _ask(up, search, project_secrets.read_project_secret(folder.path / ".windvane"))
        for line in lines:
            search.look("command lines of processes", line[:120], line.encode())
    search.look("what commands print", "up", up.log.read_bytes() + json.dumps(up.told).encode())
    search.files("files of the project", folder.path)
    search.files("files of the home folder", path / "home")
    return search


def _ask(up: Any, search: Search, own: str) -> None:
    """What servers answer to whoever may ask."""
    with httpx.Client(auth=("windvane", own), timeout=60, follow_redirects=True) as client:
        for name in ("mlflow", "prefect"):
            search.look("pages and answers", f"{name} /", client.get(up.address(name) + "/").content)
        for kind in (
            "flow_runs",
            "task_runs",
            "deployments",
            "logs",
            "artifacts",
            "events",
            "variables",
            "block_documents",
        ):
            answer = client.post(f"{up.address('prefect')}/api/{kind}/filter", json={})
            search.look("pages and answers", f"prefect {kind}", answer.content)
        at = f"{up.address('mlflow')}/api/2.0/mlflow"
        runs = client.post(f"{at}/runs/search", json={"experiment_ids": ["0", "1", "2"]})
        search.look("pages and answers", "mlflow runs", runs.content)
        versions = client.get(f"{at}/model-versions/search")
        search.look("pages and answers", "mlflow versions", versions.content)
    for path in ("/", "/docs", "/openapi.json", "/model", "/metrics", "/version", "/nothing"):
        answer = up.service("GET", path)
        search.look("pages and answers", f"service {path}", answer.content)


def main() -> int:
    """Run, search, and print."""
    with tempfile.TemporaryDirectory(prefix="windvane-planted-") as name:
        search = run(Path(name))
    print("| searched | places |\n|---|---|")
    for where, count in search.searched.items():
        print(f"| {where} | {count:,} |")
    print(f"\n{len(search.planted)} secrets planted, {len(search.kept)} found where it belongs", end=", ")
    print(f"{len(search.found)} found where they must not be")
    for name, place in search.found:
        print(f"- {name}: {place}")
    return 1 if search.found or not search.kept else 0


if __name__ == "__main__":
    sys.exit(main())
