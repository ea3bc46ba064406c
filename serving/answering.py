"""One request for predictions from its body to its answer: read, predict, record, tell. Knows no HTTP but status codes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ledger.moments import make_id
from ledger.predictions import BadPrediction, Prediction
from ledger.writer import LedgerClosed, LedgerFailed, LedgerFull
from serving.asking import Asked, Roles, read
from serving.engine import Answer
from serving.following import Following, Serving
from serving.signature import Refused
from serving.stored import SCIKIT_LEARN

# Fewer rows than this are answered in the event loop itself: a thread would cost more than they do.
FEW = 50


class Recorder(Protocol):
    """Makes predictions durable before they are answered (ledger.writer.Writer)."""

    async def record(self, given: Sequence[Prediction]) -> None:
        """Return when they are durable."""


class NoRecorder:
    """Records nothing: for measuring what recording costs."""

    async def record(self, given: Sequence[Prediction]) -> None:
        """Return at once."""


@dataclass(frozen=True)
class Told:
    """An answer: its bytes, and what is counted of it."""

    body: bytes
    version: int
    rows: int


class Answering:
    """Answers with whatever version `following` holds at the moment a request is read: one version per answer."""

    def __init__(self, following: Following, recorder: Recorder, roles: Roles) -> None:
        self._following, self._recorder, self._roles = following, recorder, roles

    async def answer(self, body: bytes, content_type: str) -> Told:
        """Predictions for the rows of a body, recorded. Raises Refused."""
        serving = self._following.current
        if serving is None:
            raise Refused("no version serves yet: run `windvane train`", 503)
        # A row takes at least two bytes, so a small body is a small batch.
        if serving.loaded.engine.form != SCIKIT_LEARN and len(body) < FEW * 200:
            asked, answer = self._predict(serving, body, content_type)
        else:
            asked, answer = await asyncio.to_thread(self._predict, serving, body, content_type)
        ids = [id or make_id() for id in asked.ids]
        await self._record(serving, asked, ids, answer)
        return Told(_told(serving, answer, ids), serving.number, len(ids))

    def _predict(self, serving: Serving, body: bytes, content_type: str) -> tuple[Asked, Answer]:
        asked = read(body, content_type, serving.loaded.signature, self._roles)
        if not asked.plain:
            raise Refused("there is no row in the body")
        return asked, serving.loaded.engine.predict(asked.plain)

    async def _record(self, serving: Serving, asked: Asked, ids: list[str], answer: Answer) -> None:
        classes, version = serving.loaded.signature.classes, serving.number
        outputs: list[dict[str, Any]] = [{"prediction": value} for value in answer.values]
        if answer.proba is not None and classes is not None:
            for output, row in zip(outputs, answer.proba.tolist(), strict=True):
                output["probabilities"] = dict(zip(classes, row, strict=True))
        given = [
            Prediction(id, version, record, output, time=time)
            for id, record, output, time in zip(ids, asked.records, outputs, asked.times, strict=True)
        ]
        try:
            await self._recorder.record(given)
        except BadPrediction:
            raise Refused("a row holds something that cannot be recorded: text that is not Unicode, or such") from None
        except (LedgerFull, LedgerClosed, LedgerFailed) as e:
            raise Refused(
                f"not answered, because it could not be recorded: {type(e).__name__}. Try again later", 503
            ) from e


def _told(serving: Serving, answer: Answer, ids: list[str]) -> bytes:
    content: dict[str, Any] = {"predictions": answer.values, "ids": ids, "model_version": serving.number}
    if answer.proba is not None:
        content["classes"] = serving.loaded.signature.classes
        content["probabilities"] = answer.proba.tolist()
    return orjson.dumps(content)
