"""One request for predictions from its body to its answer: read, predict, record, tell. Knows no HTTP but status codes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from windvane.ledger.moments import make_ids
from windvane.ledger.predictions import BadPrediction, Prediction
from windvane.ledger.writer import LedgerClosed, LedgerFailed, LedgerFull
from windvane.serving.asking import Asked, Roles, read
from windvane.serving.engine import Answer
from windvane.serving.following import Following, Lineup, Serving
from windvane.serving.signature import Refused
from windvane.serving.stored import SCIKIT_LEARN

# Fewer rows than this are answered in the event loop itself: a thread would cost more than they do.
FEW = 50
# From so many rows on, what the ledger keeps of them is put together in a thread: milliseconds that others would wait.
MANY = 1_000
# Requests that a shadow may be behind; those beyond it does not see.
MOST_SILENT = 200
log = logging.getLogger("windvane.serving")


class Recorder(Protocol):
    """Makes predictions durable before they are answered (ledger.writer.Writer)."""

    async def record(self, given: Sequence[Prediction]) -> None:
        """Return when they are durable."""


@dataclass(frozen=True)
class Told:
    """An answer: its bytes, and what is counted of it."""

    body: bytes
    version: int
    role: str
    rows: int


class Answering:
    """Answers with whatever versions `following` holds at the moment a request is read: one version per answer.

    recorder None: nothing is recorded, to measure what recording costs.
    """

    def __init__(self, following: Following, recorder: Recorder | None, roles: Roles) -> None:
        self._following, self._recorder, self._roles = following, recorder, roles
        self._chance = random.Random().random
        self._silent: set[asyncio.Task[None]] = set()

    async def answer(self, body: bytes, content_type: str) -> Told:
        """Predictions for the rows of a body, recorded. Raises Refused."""
        lineup = self._following.lineup
        if lineup is None:
            raise Refused("no version serves yet: run `windvane train`", 503)
        serving, role, predicted = lineup.champion, "champion", None
        if lineup.challenger is not None and lineup.role == "canary" and self._chance() < lineup.share:
            predicted = await self._tried(lineup, lineup.challenger, body, content_type)
            if predicted is not None:
                serving, role = lineup.challenger, "canary"
        if predicted is None:
            began = time.perf_counter()
            predicted = await self._predicted(serving, body, content_type)
            lineup.trial.answered(False, time.perf_counter() - began)
        asked, answer = predicted
        made = iter(make_ids(asked.ids.count(None)))
        ids = [id or next(made) for id in asked.ids]
        await self._record(serving, role, asked, ids, answer)
        if lineup.challenger is not None and lineup.role == "shadow" and len(self._silent) < MOST_SILENT:
            work = self._silently(lineup, lineup.challenger, body, content_type, ids)
            task = asyncio.get_running_loop().create_task(work)
            self._silent.add(task)
            task.add_done_callback(self._silent.discard)
        return Told(_told(serving, answer, ids), serving.number, role, len(ids))

    async def _tried(
        self, lineup: Lineup, challenger: Serving, body: bytes, content_type: str
    ) -> tuple[Asked, Answer] | None:
        """What the challenger predicts; None where it cannot: then the champion answers, and says what is wrong."""
        began = time.perf_counter()
        try:
            predicted = await self._predicted(challenger, body, content_type)
        except Refused:
            return None
        except Exception:
            log.exception("challenger failed", extra={"facts": {"version": challenger.number}})
            lineup.trial.failed()
            return None
        lineup.trial.answered(True, time.perf_counter() - began)
        return predicted

    async def _silently(
        self, lineup: Lineup, challenger: Serving, body: bytes, content_type: str, ids: list[str]
    ) -> None:
        """Have the challenger predict what the champion has answered, and record it under the same ids."""
        predicted = await self._tried(lineup, challenger, body, content_type)
        if predicted is None:
            return
        try:
            await self._record(challenger, "shadow", predicted[0], ids, predicted[1])
        except Refused as e:
            log.warning("shadow not recorded", extra={"facts": {"version": challenger.number, "reason": str(e)}})

    async def _predicted(self, serving: Serving, body: bytes, content_type: str) -> tuple[Asked, Answer]:
        # A small body is a small batch.
        if serving.loaded.engine.form != SCIKIT_LEARN and len(body) < FEW * 200:
            return self._predict(serving, body, content_type)
        return await asyncio.to_thread(self._predict, serving, body, content_type)

    def _predict(self, serving: Serving, body: bytes, content_type: str) -> tuple[Asked, Answer]:
        asked = read(body, content_type, serving.loaded.signature, self._roles)
        return asked, serving.loaded.engine.predict(asked.plain)

    async def _record(self, serving: Serving, role: str, asked: Asked, ids: list[str], answer: Answer) -> None:
        if self._recorder is None:
            return
        parts = (serving, role, asked, ids, answer)
        given = _given(*parts) if len(ids) < MANY else await asyncio.to_thread(_given, *parts)
        try:
            await self._recorder.record(given)
        except BadPrediction:
            raise Refused("a row holds something that cannot be recorded: text that is not Unicode, or such") from None
        except (LedgerFull, LedgerClosed, LedgerFailed) as e:
            raise Refused(
                f"not answered, because it could not be recorded: {type(e).__name__}. Try again later", 503
            ) from e


def _given(serving: Serving, role: str, asked: Asked, ids: list[str], answer: Answer) -> list[Prediction]:
    version, told = serving.number, outputs(answer, serving.loaded.signature.classes)
    return [
        Prediction(id, version, record, output, role, at)
        for id, record, output, at in zip(ids, asked.records(), told, asked.times, strict=True)
    ]


def outputs(answer: Answer, classes: Sequence[Any] | None) -> list[dict[str, Any]]:
    """What the ledger keeps of each prediction: itself, and of classes their probabilities by name."""
    told: list[dict[str, Any]] = [{"prediction": value} for value in answer.values]
    if answer.proba is not None and classes is not None:
        for output, row in zip(told, answer.proba.tolist(), strict=True):
            output["probabilities"] = dict(zip(classes, row, strict=True))
    return told


def _told(serving: Serving, answer: Answer, ids: list[str]) -> bytes:
    content: dict[str, Any] = {"predictions": answer.values, "ids": ids, "model_version": serving.number}
    if answer.proba is not None:
        content["classes"] = serving.loaded.signature.classes
        content["probabilities"] = answer.proba.tolist()
    return orjson.dumps(content)
