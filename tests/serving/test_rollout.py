"""A new champion that answers silently or for a share first, and goes back by itself when it does badly."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.served_models import PROJECT, ROW, Client, Site, writer
from windvane.ledger import versions
from windvane.ledger.labels import PredictionQuery, read_labelled_predictions
from windvane.serving.compiled.engine import EnginePredictions
from windvane.serving.model_cache import ModelCache
from windvane.serving.rollout import MAX_CHALLENGER_FAILURES, MIN_LATENCY_REQUESTS, ChallengerTrial, ChampionFollower
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.settings import project_params
from windvane.tasks.settings.serving_section import RolloutRule, parse_rollout

pytestmark = pytest.mark.long

SHADOW, CANARY = parse_rollout("shadow:1d"), parse_rollout("canary:50%")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Version 1 serves, version 2 was promoted by a lap."""
    made = Site(tmp_path)
    for number in (1, 2):
        made.register(number, learning_rate=0.05 * number)
        move = versions.make_promotion(None if number == 1 else 1, number, "lap", "better")
        versions.record_promotion(made.ledger, PROJECT, move)
    (tmp_path / "serving").mkdir()
    return made


def followed(site: Site, way: RolloutRule) -> ChampionFollower:
    following = ChampionFollower(site.ledger, PROJECT, ModelCache(site.root / "serving", Path), way)
    following.poll()
    return following


def spoil(following: ChampionFollower, engine: Any) -> None:
    """Give the challenger another engine."""
    assert following.lineup is not None
    assert following.lineup.challenger is not None
    object.__setattr__(following.lineup.challenger.loaded, "engine", engine)


class Failing:
    form = "failing"

    def predict(self, columns: Any) -> EnginePredictions:
        raise ZeroDivisionError


class Slow:
    form = "slow"

    def predict(self, columns: Any) -> EnginePredictions:
        time.sleep(0.06)  # clearly slower than the champion, also on a busy machine
        return EnginePredictions([1.0] * len(columns[0]))


async def many(http: httpx.AsyncClient, times: int = 200) -> list[dict[str, Any]]:
    answers = [await http.post("/invocations", json={"inputs": [ROW]}) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json() for answer in answers]


def test_a_shadow_answers_nobody_but_stands_in_the_ledger(site: Site) -> None:
    following, recorder = followed(site, SHADOW), writer(site)
    client = Client(site, following, recorder)
    said = client.run(lambda http: many(http, 20))
    recorder.close()
    assert {one["model_version"] for one in said} == {1}
    shadow = list(read_labelled_predictions(site.ledger, PROJECT, PredictionQuery(role="shadow", unlabelled=True)))
    assert {one.version for one in shadow} == {2}
    assert {one.id for one in shadow} == {one["ids"][0] for one in said}
    assert shadow[0].output["prediction"] == pytest.approx(site.says(2, [ROW])[0])
    told = client.ask("GET", "/model").json()
    assert (told["version"], told["challenger"]["version"], told["challenger"]["role"]) == (1, 2, "shadow")


def test_a_canary_takes_its_share_and_each_answer_is_one_versions(site: Site) -> None:
    recorder = writer(site)
    said = Client(site, followed(site, CANARY), recorder).run(many)
    recorder.close()
    numbers = [one["model_version"] for one in said]
    assert 60 < numbers.count(2) < 140  # of 200: six standard deviations
    for number in (1, 2):
        expected = site.says(number, [ROW])
        assert all(one["predictions"] == pytest.approx(expected) for one in said if one["model_version"] == number)
    roles = {
        role: len(list(read_labelled_predictions(site.ledger, PROJECT, PredictionQuery(role=role, unlabelled=True))))
        for role in ("champion", "canary")
    }
    assert roles == {"champion": numbers.count(1), "canary": numbers.count(2)}


@pytest.mark.parametrize("way", [SHADOW, CANARY], ids=["shadow", "canary"])
@pytest.mark.parametrize("engine", [Failing(), Slow()], ids=["failing", "slow"])
def test_a_bad_challenger_goes_back_by_itself_and_nobody_notices(site: Site, way: RolloutRule, engine: Any) -> None:
    following = followed(site, way)
    spoil(following, engine)
    client = Client(site, following, None)
    # A verdict needs MIN_LATENCY_REQUESTS on both sides; a slow one is not asked for more than that.
    client.run(lambda http: many(http, 150 if way is CANARY else MIN_LATENCY_REQUESTS + 10))
    following.poll()
    last = versions.find_last_promotion(site.ledger, PROJECT)
    assert last is not None
    assert (last.from_version, last.to_version, last.cause) == (2, 1, "rollback")
    assert last.reason.startswith(way.way)
    assert client.predict([ROW])["model_version"] == 1
    assert client.ask("GET", "/model").json()["challenger"] is None


@pytest.mark.parametrize("outage", [False, True])
def test_after_a_return_mlflow_is_told_and_need_not_answer(site: Site, outage: bool) -> None:
    asked = threading.Event()

    def tell() -> None:
        last = versions.find_last_promotion(site.ledger, PROJECT)
        assert last is not None
        assert last.to_version == 1  # the ledger knows first
        asked.set()
        if outage:
            raise Outage("MLflow does not respond")

    following = ChampionFollower(site.ledger, PROJECT, ModelCache(site.root / "serving", Path), CANARY, tell)
    following.poll()
    spoil(following, Failing())
    Client(site, following, None).run(many)
    following.poll()
    assert asked.wait(10)
    assert following.current is not None
    assert following.current.number == 1


def test_when_its_time_is_over_it_answers_alone(site: Site) -> None:
    following = followed(site, RolloutRule("shadow", 0.0, timedelta(seconds=-1)))
    assert following.current is not None
    assert following.current.number == 2


def test_what_a_person_moves_answers_at_once(site: Site) -> None:
    following = followed(site, SHADOW)
    site.promote(1)
    following.poll()
    assert following.lineup is not None
    assert (following.lineup.champion.number, following.lineup.challenger) == (1, None)
    site.promote(2)
    following.poll()
    assert (following.lineup.champion.number, following.lineup.challenger) == (2, None)


def test_a_verdict_needs_failures_or_a_clear_difference() -> None:
    trial = ChallengerTrial()
    for _ in range(MIN_LATENCY_REQUESTS - 1):
        trial.count_response(False, 0.001)
        trial.count_response(True, 1.0)
    assert trial.verdict() is None
    trial.count_response(False, 0.001)
    trial.count_response(True, 1.0)
    assert "1000.0 ms" in str(trial.verdict())
    close = ChallengerTrial()
    for _ in range(MIN_LATENCY_REQUESTS):
        close.count_response(False, 0.001)
        close.count_response(True, 0.006)
    assert close.verdict() is None
    for _ in range(MAX_CHALLENGER_FAILURES):
        close.failed()
    assert "failed 3 times" in str(close.verdict())


@pytest.mark.parametrize(
    "text", ["", "shadow", "shadow:0d", "canary:0%", "canary:100%", "canary:10", "direct:1d", "canary:x%:1d"]
)
def test_a_rollout_that_cannot_be_is_refused_with_its_path(text: str) -> None:
    content = {"project": "p", "problem": {"kind": "regression", "target": "y"}, "data": {"source": "t.csv"}}
    with pytest.raises(InputError, match=r"serve\.rollout: is no way"):
        project_params.parse_settings({**content, "serve": {"rollout": text}})
    assert parse_rollout("canary:2.5%:6h") == RolloutRule("canary", 0.025, timedelta(hours=6))
