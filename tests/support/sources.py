"""Sources that tests start and stop: settings for them, and a web server that can be told what to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import polars as pl

from windvane.tasks.ingest import ingestion, table_io
from windvane.tasks.settings import project_params
from windvane.tasks.settings.data_section import DataSettings
from windvane.tasks.sources import snapshot


def data(**section: Any) -> DataSettings:
    """The data section, as params.yaml would give it."""
    content = {"project": "p", "problem": {"kind": "regression", "target": "y"}, "data": section}
    return project_params.parse_settings(content).data


def ingest(root: Path, form: dict[str, Any] | None = None, name: str = "t.csv", **problem: Any) -> pd.DataFrame:
    """The table that ingest makes of the file `name`, whose target is price, without its row keys."""
    params = {
        "project": "t",
        "problem": {"kind": "regression", "target": "price", **problem},
        "data": {"source": name, "format": form or {}},
    }
    ingestion.write_table(root, project_params.parse_settings(params), root / "table", root)
    return table_io.read_parquet(root / "table").drop(columns=table_io.ROW_KEY)


def write_book(path: Path, **sheets: list[list[Any]]) -> Path:
    """A workbook of these sheets."""
    book = openpyxl.Workbook()
    book.remove(book.active)  # type: ignore[arg-type]
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def held(root: Path) -> pl.DataFrame:
    """All rows of the snapshot, in the order of its parts."""
    record = snapshot.read_snapshot(root)
    assert record is not None
    return pl.concat([pl.read_parquet(root / part.path) for part in record.own], how="diagonal_relaxed")


def state(root: Path) -> dict[str, bytes]:
    """Every file below .windvane/data/raw with its bytes."""
    folder = root / snapshot.SNAPSHOT_FOLDER
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*"))} if folder.exists() else {}


class Web:
    """A server on a free port of loopback. `answer` gets a request's handler and writes what it likes."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None], port: int = 0) -> None:
        web = self
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                web.answer(self)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Web]:
    server = Web(answer)
    try:
        yield server
    finally:
        server.stop()


def send(
    to: BaseHTTPRequestHandler, body: bytes, kind: str = "application/json", status: int = 200, **more: str
) -> None:
    """A whole answer; `Retry_After="1"` is the header Retry-After."""
    to.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()
    to.wfile.write(body)
