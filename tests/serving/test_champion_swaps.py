"""Which version answers: swaps that mix nothing, versions that are refused, starts without the store."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import threading
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from tests.support.projects import Folder
from tests.support.served_models import PROJECT, ROW, Client, Site, houses, made_project, serving, taught, writer
from windvane.ledger.labels import PredictionQuery
from windvane.serving import service_state
from windvane.serving.compiled import engine_files
from windvane.serving.model_cache import CACHED_VERSIONS, ModelCache
from windvane.serving.rollout import ChampionFollower
from windvane.tasks.errors import WindvaneError

pytestmark = pytest.mark.long


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return made_project(tmp_path)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_promotion_is_followed_and_a_rollback_too(site: Site) -> None:
    for number in (1, 2):
        site.register(number, learning_rate=0.05 * number)
    site.promote(1)
    following = site.following()
    client = Client(site, following, None)
    for number in (1, 2, 1):
        if number != following.current.number:  # type: ignore[union-attr]
            site.promote(number)
            following.poll()
        said = client.predict([ROW])
        assert (said["model_version"], said["predictions"]) == (number, pytest.approx(site.says(number, [ROW])))


def test_fifty_swaps_under_load_drop_and_mix_nothing(site: Site) -> None:
    for number in (1, 2):
        site.register(number, learning_rate=0.05 * number)
    site.promote(1)
    following, recorder = site.following(), writer(site)
    client = Client(site, following, recorder)
    rows = json.loads(houses(8).drop(columns=["price", "dear"]).to_json(orient="records", date_format="iso"))
    expected = {number: site.says(number, rows) for number in (1, 2)}
    assert expected[1] != pytest.approx(expected[2], rel=1e-3)
    seen: list[int] = []

    async def ask(http: httpx.AsyncClient, over: asyncio.Event) -> None:
        while not over.is_set():
            response = await http.post("/invocations", json={"dataframe_records": rows})
            assert response.status_code == 200
            said = response.json()
            assert said["predictions"] == pytest.approx(expected[said["model_version"]], rel=1e-9)
            seen.append(said["model_version"])

    async def main(http: httpx.AsyncClient) -> None:
        over = asyncio.Event()
        asking = [asyncio.create_task(ask(http, over)) for _ in range(4)]
        for i in range(50):
            site.promote(2 - i % 2)
            await asyncio.to_thread(following.poll)
            await asyncio.sleep(0.005)
        over.set()
        await asyncio.gather(*asking)

    # The first of the fifty promotes 2.
    client.run(main)
    recorder.close()
    assert set(seen) == {1, 2}


def test_a_version_with_other_bytes_is_refused_and_the_one_before_goes_on(site: Site) -> None:
    for number in (1, 2):
        site.register(number)
    site.promote(1)
    following = site.following()
    client = Client(site, following, None)
    path = site.root / "models" / "2" / engine_files.TREES_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    site.promote(2)
    following.poll()
    assert client.predict([ROW])["model_version"] == 1
    refused = client.ask("GET", "/model").json()["refused"]
    assert refused["version"] == 2
    assert engine_files.TREES_FILE in refused["reason"]
    assert "windvane_refused_version 2.0" in client.ask("GET", "/metrics").text
    told = service_state.read_service_state(site.root / "serving")
    assert told is not None
    assert (told["version"], told["refused"]["version"]) == (1, 2)
    site.promote(1)
    following.poll()
    assert client.ask("GET", "/model").json()["refused"] is None


def test_a_version_that_answers_otherwise_than_in_training_is_refused(site: Site) -> None:
    site.register(1)
    site.promote(1)
    following = site.following()
    shutil.copytree(site.root / "models" / "1", site.root / "models" / "2")
    told = json.loads((site.root / "models" / "2" / engine_files.ENGINE_FILE).read_bytes())
    told["expected"][3] += 1
    (site.root / "models" / "2" / engine_files.ENGINE_FILE).write_text(json.dumps(told))
    site.add(2, site.root / "models" / "2")
    site.promote(2)
    following.poll()
    assert following.current is not None
    assert following.current.number == 1
    assert following.refusal is not None
    assert "otherwise than in training" in following.refusal.reason


def test_it_starts_with_the_version_before_when_the_champion_is_refused(site: Site) -> None:
    for number in (1, 2):
        site.register(number)
        site.promote(number)
    (site.root / "models" / "2" / engine_files.ENGINE_FILE).write_bytes(b"{}")
    following = ChampionFollower(site.ledger, PROJECT, ModelCache(site.root / "serving", Path))
    following.start()
    try:
        assert following.current is not None
        assert following.current.number == 1
        assert following.refusal is not None
        assert following.refusal.version == 2
    finally:
        following.stop()


def test_a_copy_on_disk_serves_while_the_store_is_away(site: Site) -> None:
    site.register(1)
    site.promote(1)
    site.following()
    shutil.rmtree(site.root / "models")
    assert site.following().current is not None
    shutil.rmtree(site.root / "serving")
    following = site.following()
    assert following.current is None
    assert following.refusal is not None


def test_a_spoilt_copy_is_fetched_again(site: Site) -> None:
    site.register(1)
    site.promote(1)
    site.following()
    (site.root / "serving" / "1" / engine_files.ENGINE_FILE).write_bytes(b"")
    assert site.following().current is not None


def test_only_the_newest_copies_are_kept(site: Site) -> None:
    site.register(1)
    shelf = ModelCache(site.root / "serving", Path)
    for number in range(2, CACHED_VERSIONS + 4):
        shutil.copytree(site.root / "models" / "1", site.root / "models" / str(number))
        shelf.load(site.add(number, site.root / "models" / str(number)))
    kept = sorted(int(path.name) for path in (site.root / "serving").iterdir())
    assert kept == list(range(4, CACHED_VERSIONS + 4))


def test_a_version_without_a_compiled_form_is_answered_by_scikit_learn(site: Site) -> None:
    site.register(1)
    shutil.copytree(site.root / "models" / "1", site.root / "models" / "2")
    for name in (engine_files.ENGINE_FILE, engine_files.TREES_FILE):
        (site.root / "models" / "2" / name).unlink()
    site.add(2, site.root / "models" / "2")
    site.promote(2)
    client = Client(site, site.following(), None)
    rows = [ROW, {**ROW, "garden": None, "town": None, "day": None}, {**ROW, "town": "never seen"}]
    assert client.predict(rows)["predictions"] == pytest.approx(site.says(1, rows), rel=1e-12)
    engine = client.ask("GET", "/model").json()["engine"]
    assert engine["form"] == "scikit-learn"
    assert "without a compiled form" in engine["why"]


def mutate(folder: Path, chance: random.Random) -> str:
    """One random change to a file of a stored model; what was done."""
    path = chance.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    content, how = bytearray(path.read_bytes()), chance.choice(["flip", "cut", "add", "drop", "new", "swap"])
    at = chance.randrange(len(content))
    if how == "flip":
        content[at] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del content[at:]
    elif how == "add":
        content[at:at] = chance.randbytes(3)
    elif how == "new":
        path = path.with_name("extra.py")
    elif how == "swap":
        content[:] = b"cos\nsystem\n(S'touch EXECUTED'\ntR."
    path.unlink(missing_ok=True)
    if how != "drop":
        path.write_bytes(bytes(content))
    return f"{how} {path.name}"


def test_every_mutation_of_stored_files_is_refused_and_none_runs(site: Site) -> None:
    """100 at random (seed 0); WINDVANE_MUTATIONS=1000 asks for more."""
    version = site.register(1)
    whole, chance = site.root / "whole", random.Random(0)
    folder = site.root / "models" / "1"
    folder.rename(whole)
    for _ in range(int(os.environ.get("WINDVANE_MUTATIONS", "100"))):
        shutil.copytree(whole, folder)
        what = mutate(folder, chance)
        try:
            ModelCache(site.root / "serving", Path).load(version)
        except WindvaneError:
            pass
        else:
            pytest.fail(f"{what} was loaded")
        shutil.rmtree(folder)
        shutil.rmtree(site.root / "serving", ignore_errors=True)
    assert not list(Path.cwd().glob("EXECUTED"))


@pytest.mark.slow
def test_a_real_service_from_its_start_to_its_end(folder: Folder) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    with serving(folder) as (process, port):
        http = httpx.Client(base_url=f"http://127.0.0.1:{port}")
        assert http.get("/model").json()["engine"]["form"] == "trees"
        expected = http.post("/invocations", json={"inputs": [ROW]}).json()["predictions"][0]
        said = ScoringServerClient("127.0.0.1", port).invoke(pd.DataFrame([ROW] * 3))
        assert said.get_predictions()[0].tolist() == [expected] * 3
        shown = folder.type("status", "--json").json["services"]["serving"]
        assert (shown["version"], shown["refused"]) == (1, None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    log = (folder.path / "serve.log").read_text()
    assert '"event": "stopped"' in log
    assert "Traceback" not in log
    imported = {line.rsplit("|", 1)[-1].strip() for line in log.splitlines() if line.startswith("import time:")}
    assert "onnxruntime" in imported
    assert not imported & {
        "prefect",
        "dvc",
        "evidently",
        "mlflow",
        "sklearn",
        "pandas",
        "polars",
        "pyarrow",
        "scipy",
        "optuna",
        "matplotlib",
        "jinja2",
    }


@pytest.mark.slow
def test_mlflows_own_clients_work_unchanged(folder: Folder) -> None:
    """MLflow's client of scoring servers, which its deployments use, and requests as its documentation sends them."""
    import requests
    from mlflow.deployments import PredictionsResponse
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    rows = houses(40).drop(columns=["price", "dear"])
    rows["day"], rows["size"] = rows["day"].dt.strftime("%Y-%m-%d"), rows["size"].round(2)  # to_json rounds too
    with serving(folder) as (process, port):
        client = ScoringServerClient("127.0.0.1", port)
        client.wait_server_ready(timeout=30, scoring_server_proc=process)
        assert client.get_version() == version("mlflow")
        said = client.invoke(rows)
        site = Site(folder.path / ".windvane")
        site.models[1], _ = taught(1, "boosting", "regression", ())
        expected = site.says(1, rows.to_dict(orient="records"))
        assert said.get_predictions("ndarray").tolist() == pytest.approx(expected, rel=1e-9)
        assert list(said.get_predictions()[0]) == said["predictions"]
        with pytest.raises(Exception, match=r"size.*must be a number"):
            client.invoke(rows.assign(size="large"))
        split = json.loads(rows.to_json(orient="split", index=False))
        records = json.loads(rows.to_json(orient="records"))
        for body in ({"dataframe_split": split}, {"dataframe_records": records}, {"instances": records}):
            answer = requests.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=30)
            assert PredictionsResponse.from_json(answer.text)["predictions"] == said["predictions"]
        csv = requests.post(
            f"http://127.0.0.1:{port}/invocations",
            data=rows.to_csv(index=False),
            headers={"Content-Type": "text/csv"},
            timeout=30,
        )
        assert csv.json()["predictions"] == said["predictions"]


@pytest.mark.slow
def test_no_answered_prediction_is_lost_to_a_kill(folder: Folder) -> None:
    """Three kills; `WINDVANE_KILLS=100 pytest -s` asks for more, and shows how much was at stake."""
    from windvane.ledger import database
    from windvane.ledger.labels import read_labelled_predictions

    answered: list[str] = []
    for _ in range(int(os.environ.get("WINDVANE_KILLS", "3"))):
        with serving(folder) as (process, port):
            http = httpx.Client(base_url=f"http://127.0.0.1:{port}")
            killer = threading.Timer(0.5, process.kill)
            killer.start()
            with suppress(httpx.TransportError):
                while True:
                    answered += http.post("/invocations", json={"inputs": [ROW] * 3}).json()["ids"]
            killer.join()
    kept = [
        one.id
        for one in read_labelled_predictions(
            database.connect_ledger(f"sqlite:///{folder.path}/.windvane/ledger.db"),
            PROJECT,
            PredictionQuery(unlabelled=True),
        )
    ]
    print(f"{len(answered):,} answered, {len(set(answered) - set(kept))} of them lost, {len(kept):,} stored")
    assert answered
    assert set(answered) <= set(kept)
    assert len(kept) == len(set(kept))


def test_no_address_but_loopback_without_keys(folder: Folder) -> None:
    ran = folder.type("serve", "--host", "0.0.0.0")
    assert ran.status == 2
    assert "WINDVANE_API_KEYS" in ran.err
    assert "Traceback" not in ran.err
