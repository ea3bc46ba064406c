"""A ledger with registered versions and a service on it, without a lap: what tests of the service share."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import skops.io
import sqlalchemy as sa

from tests.support.projects import Folder
from windvane.ledger import database, versions
from windvane.ledger.prediction_writer import PredictionWriter
from windvane.ledger.schema import versions as versions_table
from windvane.ledger.versions import VersionFacts
from windvane.serving.compiled import engine_files
from windvane.serving.http.access_control import ApiKeys, HostNames
from windvane.serving.http.access_control import parse_api_keys as known
from windvane.serving.http.app import LabelHandler, ScoringApp, ServiceMetrics
from windvane.serving.http.invocations import InvocationHandler
from windvane.serving.http.request_rows import IdTimeColumns
from windvane.serving.model_cache import ModelCache
from windvane.serving.rollout import ChampionFollower
from windvane.tasks.label_parsing import LabelRules
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.stores import model_files

PROJECT = "houses"
SECRET = "5ec2e7" * 10
# What whoever hands in labels sends.
OPEN = {"authorization": f"Bearer {SECRET}"}
COLUMNS = FeatureColumns(("size",), ("garden",), ("town",), (), ("day",))
ROW = {"size": 100.0, "garden": True, "town": "Ulm", "day": "2020-05-01"}


def houses(rows: int = 300) -> pd.DataFrame:
    """A price, a size that is never missing, a garden, a town and a day that sometimes are; and a class."""
    rng = np.random.default_rng(0)
    size = rng.normal(100, 20, rows)
    frame = pd.DataFrame(
        {
            "size": size,
            "garden": pd.array(rng.integers(0, 2, rows).astype(bool)).astype("boolean"),
            "town": rng.choice(["Ulm", "Bonn", "Kiel"], rows),
            "day": pd.date_range("2020-01-01", periods=rows, freq="D").as_unit("us"),
            "price": size * 3 + rng.normal(0, 20, rows),
            "dear": np.where(size > 100, "yes", "no"),
        }
    )
    frame.loc[::7, ["garden", "town"]] = None
    frame.loc[::11, "day"] = pd.NaT
    return frame


@cache
def taught(number: int, candidate: str, kind: str, params: tuple[tuple[str, Any], ...]) -> tuple[Any, dict[str, bytes]]:
    """A fitted pipeline and the files that are stored of it; taught once for all tests."""
    frame, k = houses(), definitions.load_problem_type(kind)
    target = "price" if kind == "regression" else "dear"
    model = model_pipeline.fit_pipeline(
        ModelConfiguration(candidate, dict(params)), k, COLUMNS, frame, FitOptions(target, number, 1)
    )
    inputs = conform_frame(frame, COLUMNS, "x")
    held = (inputs, k.predict(model, inputs), k.truth(frame[target]))
    compared = engine_files.ComparisonRows(inputs, inputs, 0, 300, held)
    files = engine_files.build_engine_files(model, k, COLUMNS, compared)
    return model, {model_files.MODEL_FILE: skops.io.dumps(model), **files}


class Site:
    """A project's ledger and the folder where its models lie."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger: sa.Engine = database.connect_ledger(f"sqlite:///{root / 'ledger.db'}")
        self.models: dict[int, Any] = {}

    def register(
        self, number: int, candidate: str = "boosting", kind: str = "regression", **params: Any
    ) -> versions.Version:
        """Teach, store and register a version, not yet promoted."""
        folder = self.root / "models" / str(number)
        folder.mkdir(parents=True)
        self.models[number], files = taught(number, candidate, kind, tuple(params.items()))
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return self.add(number, folder, kind)

    def add(self, number: int, folder: Path, kind: str = "regression", **more: Any) -> versions.Version:
        """Seal and record a folder as a version; `more` facts than all have."""
        facts = {"kind": kind, "target": "price", "metric": "mae", "columns": asdict(COLUMNS)}
        facts |= {"memory": {"peak": 30_000_000, "kept": 10_000_000}}
        facts |= {**more, "summary": {"chosen": "boosting", "test": 1.0, "interval": [0.5, 1.5]}}
        digest = model_files.seal_folder(folder)
        version = versions.Version(
            number,
            f"f{number}",
            "r",
            str(folder),
            digest,
            "x",
            "d",
            None,
            VersionFacts.from_json(facts),
            database.now_timestamp(),
        )
        with self.ledger.begin() as db:
            db.execute(sa.insert(versions_table).values(project=PROJECT, **version.to_json()))
        return version

    def promote(self, number: int) -> None:
        """Make a version champion."""
        last = versions.find_last_promotion(self.ledger, PROJECT)
        move = versions.make_promotion(None if last is None else last.to_version, number, "manual", "by a test")
        versions.record_promotion(self.ledger, PROJECT, move)

    def following(self) -> ChampionFollower:
        """What follows this site's champion; it has had a first look, and is not started."""
        following = ChampionFollower(self.ledger, PROJECT, ModelCache(self.root / "serving", Path))
        (self.root / "serving").mkdir(exist_ok=True)
        following.poll()
        return following

    def says(self, number: int, rows: list[dict[str, Any]]) -> list[Any]:
        """What a version's pipeline itself says of rows."""
        frame = conform_frame(pd.DataFrame(rows), COLUMNS, "x")
        said: list[Any] = self.models[number].predict(frame).tolist()
        return said


class Client:
    """Requests to a service in this process, through its ASGI interface."""

    def __init__(
        self,
        site: Site,
        following: ChampionFollower,
        recorder: PredictionWriter | None,
        keys: ApiKeys | None = None,
        roles: IdTimeColumns | None = None,
    ) -> None:
        labelling = LabelHandler(site.ledger, PROJECT, LabelRules("regression", "order", "price"))
        answering = InvocationHandler(following, recorder, roles or IdTimeColumns())
        self._answering = answering
        self.service = ScoringApp(
            answering,
            labelling,
            following,
            ServiceMetrics(following),
            keys or known(None, SECRET),
            HostNames("service"),
        )

    def session(self) -> httpx.AsyncClient:
        """A client for several requests."""
        # Faults of ours must come out as answers, not as exceptions in the test.
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.service), base_url="http://service")  # type: ignore[arg-type]

    def run(self, work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        """Run something with a client in an event loop of its own."""

        async def main() -> Any:
            async with self.session() as client:
                found = await work(client)
                async with asyncio.timeout(60):
                    while self._answering._silent:  # a shadow may be behind
                        await asyncio.sleep(0.01)
                return found

        return asyncio.run(main())

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request."""
        response: httpx.Response = self.run(lambda client: client.request(method, path, **more))
        return response

    def predict(self, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """Predictions, which must come."""
        response = self.ask("POST", "/invocations", json={"dataframe_records": rows}, **more)
        assert response.status_code == 200, response.text
        content: dict[str, Any] = response.json()
        return content


def writer(site: Site) -> PredictionWriter:
    """The ledger's writer."""
    return PredictionWriter(site.ledger, PROJECT)


def made_project(path: Path) -> Folder:
    """A project with a champion, as a lap would have left it, but without MLflow."""
    problem = {"kind": "regression", "target": "price"}
    params = {"project": PROJECT, "problem": problem, "data": {"source": "houses.csv"}}
    (path / "params.yaml").write_text(json.dumps(params))
    (path / ".windvane").mkdir()
    site = Site(path / ".windvane")
    site.register(1)
    site.promote(1)
    return Folder(path)


@contextmanager
def serving(folder: Folder, *arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`windvane serve` on a free port, in a process of its own."""
    command = [sys.executable, "-X", "importtime", "-m", "windvane.cli.main", "serve", "--port", "0", *arguments]
    log = folder.path / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder.path, env=folder.environment(env), stderr=out, text=True)
    try:
        deadline = time.monotonic() + 180
        port = None
        while port is None:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
            told = [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"at"')]
            port = next((line["port"] for line in told if line["event"] == "listening"), None)
        yield process, port
    finally:
        process.kill()
        process.wait()
