"""POST /invocations: rows are predicted by one version, recorded, and returned, with reasons and intervals if wanted."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson

from windvane.ledger.database import make_ids
from windvane.ledger.prediction_writer import LedgerClosed, LedgerFailed, LedgerFull, PredictionWriter
from windvane.ledger.predictions import InvalidPrediction, Prediction
from windvane.serving.compiled.engine import EnginePredictions
from windvane.serving.compiled.engine_files import SCIKIT_LEARN_FORM
from windvane.serving.compiled.explanations import Explanations
from windvane.serving.compiled.intervals import PredictionBounds, TooFewScores
from windvane.serving.http.request_rows import IdTimeColumns, PredictionRequest, parse_invocation
from windvane.serving.rollout import ChampionFollower, ServingLineup, ServingVersion
from windvane.serving.signature import RequestRefused

# Rows whose predictions are explained in one response: an explanation takes a millisecond, of a forest a hundred.
MAX_EXPLAINED_ROWS = 100
# Smaller bodies are predicted in the event loop itself: a thread would cost more.
MAX_INLINE_BYTES = 10_000
# From so many rows on, what the ledger keeps of them is put together in a thread: milliseconds that others would wait.
MIN_THREADED_ROWS = 1_000
# Requests that a shadow may be behind; those beyond it does not see.
MAX_SHADOW_REQUESTS = 200
log = logging.getLogger("windvane.serving")


@dataclass(frozen=True)
class ResponseOptions:
    """What a response holds beside predictions. explain: so many columns with the largest effects on each; 0: none. interval: the
    level at which it gives what may be true; None: it does not.
    """

    explain: int = 0
    interval: float | None = None


PLAIN_RESPONSE = ResponseOptions()
_NUMBER = re.compile(r"[0-9]{0,20}\.?[0-9]{1,40}([eE]-?[0-9]{1,3})?")


def parse_response_options(query: bytes) -> ResponseOptions:
    """The options of a request's query string; others are not ours. Raises RequestRefused."""
    if not query:
        return PLAIN_RESPONSE
    values = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    explain = values.get("explain", "0")
    if not (explain.isascii() and explain.isdigit() and len(explain) < 7):
        raise RequestRefused("explain: must be how many columns are named, such as ?explain=5")
    level = values.get("interval")
    if level is not None and not (_NUMBER.fullmatch(level) and 0 < float(level) < 1):
        raise RequestRefused("interval: must be a level between 0 and 1, such as ?interval=0.9")
    return ResponseOptions(int(explain), None if level is None else float(level))


@dataclass(frozen=True)
class PredictedRequest:
    """The rows of a request with their predictions, and explanations and bounds if they were wanted."""

    request: PredictionRequest
    predictions: EnginePredictions
    explanations: Explanations | None = None
    bounds: PredictionBounds | None = None


@dataclass(frozen=True)
class InvocationResponse:
    """A response: its bytes, and what is counted of it (dropped: columns that the model does not see)."""

    body: bytes
    version: int
    role: str
    rows: int
    dropped: int


class InvocationHandler:
    """Predicts with whatever versions `following` holds at the moment a request is read: one version per response.

    recorder None: nothing is recorded, to measure what recording costs.
    """

    def __init__(self, following: ChampionFollower, recorder: PredictionWriter | None, roles: IdTimeColumns) -> None:
        self._following, self._recorder, self._roles = following, recorder, roles
        self._chance = random.Random().random
        self._silent: set[asyncio.Task[None]] = set()

    async def respond(
        self, body: bytes, content_type: str, options: ResponseOptions = PLAIN_RESPONSE
    ) -> InvocationResponse:
        """Predictions for the rows of a body, recorded. Raises RequestRefused."""
        lineup = self._following.lineup
        if lineup is None:
            raise RequestRefused("no version serves yet: run `windvane train`", 503)
        serving, role, predicted = lineup.champion, "champion", None
        if lineup.challenger is not None and lineup.role == "canary" and self._chance() < lineup.share:
            predicted = await self._try_challenger(lineup, lineup.challenger, body, content_type, options)
            if predicted is not None:
                serving, role = lineup.challenger, "canary"
        if predicted is None:
            started_at = time.perf_counter()
            predicted = await self._predict_inline_or_in_thread(serving, body, content_type, options)
            lineup.trial.count_response(False, time.perf_counter() - started_at)
        request, predictions = predicted.request, predicted.predictions
        made = iter(make_ids(request.ids.count(None)))
        ids = [id or next(made) for id in request.ids]
        await self._record(serving, role, request, ids, predictions)
        if lineup.challenger is not None and lineup.role == "shadow" and len(self._silent) < MAX_SHADOW_REQUESTS:
            work = self._run_shadow(lineup, lineup.challenger, body, content_type, ids)
            task = asyncio.get_running_loop().create_task(work)
            self._silent.add(task)
            task.add_done_callback(self._silent.discard)
        encoded = _encode_response(serving, predicted, ids, options)
        return InvocationResponse(encoded, serving.number, role, len(ids), request.dropped)

    async def _try_challenger(
        self,
        lineup: ServingLineup,
        challenger: ServingVersion,
        body: bytes,
        content_type: str,
        options: ResponseOptions = PLAIN_RESPONSE,
    ) -> PredictedRequest | None:
        """What the challenger predicts; None where it cannot: then the champion predicts. A fault is logged, a refused request is not."""
        started_at = time.perf_counter()
        try:
            predicted = await self._predict_inline_or_in_thread(challenger, body, content_type, options)
        except RequestRefused:
            return None
        except Exception:
            log.exception("challenger failed", extra={"facts": {"version": challenger.number}})
            lineup.trial.failed()
            return None
        lineup.trial.count_response(True, time.perf_counter() - started_at)
        return predicted

    async def _run_shadow(
        self, lineup: ServingLineup, challenger: ServingVersion, body: bytes, content_type: str, ids: list[str]
    ) -> None:
        """Have the challenger predict what the champion has predicted, and record it under the same ids."""
        predicted = await self._try_challenger(lineup, challenger, body, content_type)
        if predicted is None:
            return
        try:
            await self._record(challenger, "shadow", predicted.request, ids, predicted.predictions)
        except RequestRefused as e:
            log.warning("shadow not recorded", extra={"facts": {"version": challenger.number, "reason": str(e)}})

    async def _predict_inline_or_in_thread(
        self, serving: ServingVersion, body: bytes, content_type: str, options: ResponseOptions
    ) -> PredictedRequest:
        # A small body is a small batch.
        quick = serving.loaded.engine.form != SCIKIT_LEARN_FORM and not options.explain
        if quick and len(body) < MAX_INLINE_BYTES:
            return self._predict(serving, body, content_type, options)
        return await asyncio.to_thread(self._predict, serving, body, content_type, options)

    def _predict(
        self, serving: ServingVersion, body: bytes, content_type: str, options: ResponseOptions
    ) -> PredictedRequest:
        request = parse_invocation(body, content_type, serving.loaded.signature, self._roles)
        predictions = serving.loaded.engine.predict(request.plain)
        explanations = _explain(serving, request, predictions) if options.explain else None
        bounds = None
        if options.interval is not None:
            bounds = _find_bounds(serving, request, predictions, options.interval)
        return PredictedRequest(request, predictions, explanations, bounds)

    async def _record(
        self,
        serving: ServingVersion,
        role: str,
        request: PredictionRequest,
        ids: list[str],
        predictions: EnginePredictions,
    ) -> None:
        if self._recorder is None:
            return
        make = partial(_make_predictions, serving, role, request, ids, predictions)
        given = make() if len(ids) < MIN_THREADED_ROWS else await asyncio.to_thread(make)
        try:
            await self._recorder.record(given)
        except InvalidPrediction:
            unfit = "a row holds something that cannot be recorded: text that is not Unicode, or such"
            raise RequestRefused(unfit) from None
        except (LedgerFull, LedgerClosed, LedgerFailed) as e:
            why = f"not served, because it could not be recorded: {type(e).__name__}. Try again later"
            raise RequestRefused(why, 503) from e


def _explain(serving: ServingVersion, request: PredictionRequest, predictions: EnginePredictions) -> Explanations:
    if (explainer := serving.loaded.explainer) is None:
        raise RequestRefused(
            f"version {serving.number} was stored without what explanations need. Train again with `windvane train`"
        )
    if len(predictions.values) > MAX_EXPLAINED_ROWS:
        raise RequestRefused(
            f"at most {MAX_EXPLAINED_ROWS:,} rows at a time are explained: send them in pieces, or use "
            "`windvane score --explain`",
            413,
        )
    return explainer.explain(request.plain, predictions)


def _find_bounds(
    serving: ServingVersion, request: PredictionRequest, predictions: EnginePredictions, level: float
) -> PredictionBounds:
    if (intervals := serving.loaded.intervals) is None:
        raise RequestRefused(
            f"version {serving.number} was stored without what intervals need. Train again with `windvane train`"
        )
    try:
        return intervals.find_bounds(request.plain, predictions, level, serving.levels)
    except TooFewScores as e:
        raise RequestRefused(f"interval: {e}. Choose a lower level") from None


def _make_predictions(
    serving: ServingVersion, role: str, request: PredictionRequest, ids: list[str], predictions: EnginePredictions
) -> list[Prediction]:
    version, outputs = serving.number, make_recorded_outputs(predictions, serving.loaded.signature.classes)
    return [
        Prediction(id, version, record, output, role, at)
        for id, record, output, at in zip(ids, request.records(), outputs, request.times, strict=True)
    ]


def make_recorded_outputs(predictions: EnginePredictions, classes: Sequence[Any] | None) -> list[dict[str, Any]]:
    """What the ledger keeps of each prediction: itself, and of classes their probabilities by name."""
    outputs: list[dict[str, Any]] = [{"prediction": value} for value in predictions.values]
    if predictions.proba is not None and classes is not None:
        for output, row in zip(outputs, predictions.proba.tolist(), strict=True):
            output["probabilities"] = dict(zip(classes, row, strict=True))
    return outputs


def _encode_response(
    serving: ServingVersion, predicted: PredictedRequest, ids: list[str], options: ResponseOptions
) -> bytes:
    predictions, explanations = predicted.predictions, predicted.explanations
    content: dict[str, Any] = {"predictions": predictions.values, "ids": ids, "model_version": serving.number}
    if predictions.proba is not None:
        content["classes"] = serving.loaded.signature.classes
        content["probabilities"] = predictions.proba.tolist()
    if explanations is not None:
        content["explanations"] = {
            "scale": explanations.scale,
            "exact": explanations.exact,
            "rows": explanations.list_reasons(options.explain),
        }
    if predicted.bounds is not None:
        content["intervals"] = predicted.bounds.to_json()
    return orjson.dumps(content)
