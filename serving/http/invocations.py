"""POST /invocations: MLflow's protocol, read as rows, predicted, recorded, returned. Errors name column and row, never a value."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import orjson

from windvane.ledger.database import make_ids, to_timestamp
from windvane.ledger.prediction_writer import LedgerClosed, LedgerFailed, LedgerFull, PredictionWriter
from windvane.ledger.predictions import MAX_ID_CHARACTERS, InvalidPrediction, Prediction, check_prediction_id
from windvane.serving.compiled.engine import EnginePredictions
from windvane.serving.compiled.engine_files import SCIKIT_LEARN_FORM
from windvane.serving.compiled.explanations import Explanations
from windvane.serving.compiled.intervals import PredictionBounds, TooFewScores
from windvane.serving.rollout import ChampionFollower, ServingLineup, ServingVersion
from windvane.serving.signature import (
    CellRefused,
    InputColumn,
    ModelSignature,
    PlainValue,
    RequestRefused,
    quote_safely,
)
from windvane.tasks.ingest.cell_reading import UNNAMED, call_column, detect_delimiter, name_columns

# As many as a response in a second or two can hold; more is a matter for `windvane score`.
MAX_REQUEST_ROWS = 10_000
# Rows whose predictions are explained in one response: an explanation takes a millisecond, of a forest a hundred.
MAX_EXPLAINED_ROWS = 100
BODY_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
# With this, in `params` or behind the content type, unknown columns are dropped, as MLflow's server drops them.
UNKNOWN_COLUMNS, DROP_UNKNOWN = "unknown_columns", "ignore"
_IGNORED_FIELDS = {"params", "signature_name"}
_EPOCH = datetime(1970, 1, 1)

RequestColumns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class IdTimeColumns:
    """Columns that a row may have beside the model's: what names it, and its time (problem.id, problem.time)."""

    id: str | None = None
    time: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """Those there are."""
        return frozenset(name for name in (self.id, self.time) if name is not None)


@dataclass(frozen=True)
class PredictionRequest:
    """Rows of a request: a list of plain values per column of the signature, values by column for the record, ids and times.

    dropped: how many columns were sent that the model does not see.
    """

    plain: list[list[PlainValue]]
    given: RequestColumns
    ids: list[str | None]
    times: list[Any]
    dropped: int = 0

    def records(self) -> list[dict[str, Any]]:
        """The rows for the record, one object each: as they were sent, but categories and missing values as they were read."""
        # Rows that make a frame are of one length already.
        return [dict(zip(self.given, row)) for row in zip(*self.given.values(), strict=True)]  # noqa: B905


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


def parse_invocation(
    body: bytes, content_type: str, signature: ModelSignature, roles: IdTimeColumns
) -> PredictionRequest:
    """The rows of a request, one at least. Raises RequestRefused: 415 for another content type, 413 for too many rows, else 400."""
    kind, _, options = content_type.lower().partition(";")
    drop = f"{UNKNOWN_COLUMNS}={DROP_UNKNOWN}" in options
    if kind.strip() == "application/json":
        content = _parse_json(body)
        params = content.get("params") if type(content) is dict else None
        drop = drop or (type(params) is dict and params.get(UNKNOWN_COLUMNS) == DROP_UNKNOWN)
        match = partial(_match_columns, signature, roles, drop)
        sent, readers = _read_columns(content, signature, match), signature.from_json
    elif kind.strip() == "text/csv":
        sent, readers = _parse_csv(body), signature.from_text
    else:
        raise RequestRefused("Content-Type must be application/json or text/csv", 415)
    rows = max(map(len, sent.values()), default=0)
    if rows > MAX_REQUEST_ROWS:
        raise RequestRefused(
            f"at most {MAX_REQUEST_ROWS:,} rows at a time: send them in pieces, or use `windvane score`", 413
        )
    if sent.keys() == signature.names:  # those of most requests
        given = dict(sent)
    else:
        given = {column: sent[name] for column, name in _match_columns(signature, roles, drop, sent).items()}
    if rows == 0:
        raise RequestRefused("there is no row in the body")
    if not signature.names <= given.keys():
        _refuse_missing_column(next(column.name for column in signature.inputs if column.name not in given), 0)
    plain: list[list[PlainValue]] = []
    try:
        for reader in readers:
            column = reader.column
            values = reader.read(given[column.name])
            given[column.name] = choose_recorded_values(column, given[column.name], values)
            plain.append(values)
    except CellRefused as e:
        raise RequestRefused(f"column {quote_safely(e.column)!r}, row {e.row}: {e.reason}") from None
    own = given.get(roles.id) if roles.id else None
    ids = [_read_id(value, i, roles.id) for i, value in enumerate(own or [None] * rows)]
    return PredictionRequest(
        plain, given, ids, _read_times(given, rows, plain, signature, roles), len(sent) - len(given)
    )


def choose_recorded_values(column: InputColumn, given: Sequence[Any], plain: list[PlainValue]) -> Sequence[Any]:
    """What the ledger keeps of a column: categories, missing values, and numbers that people write, as they were read."""
    if column.type == "category" or column.numbers is not None:
        return plain
    if not column.missing or None not in plain:
        return given
    return [None if v is None else g for v, g in zip(plain, given, strict=True)]


def _parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as e:
        if b"NaN" not in body:
            raise RequestRefused(f"the body is not JSON: {quote_safely(e)}") from None
    # json.dumps of a frame with missing values writes NaN, which is not JSON, but what MLflow's clients send.
    try:
        return json.loads(body, parse_constant=_refuse_infinity)
    except (ValueError, RecursionError) as e:
        raise RequestRefused(f"the body is not JSON: {quote_safely(e)}") from None


def _refuse_infinity(name: str) -> None:
    if name != "NaN":
        raise ValueError("a number is infinite")


def _read_columns(
    content: Any, signature: ModelSignature, match: Callable[[Iterable[str]], dict[str, str]]
) -> RequestColumns:
    """Values by column, whichever of the protocol's formats they came in."""
    given = [name for name in BODY_FORMATS if name in content] if isinstance(content, dict) else []
    if len(given) != 1:
        raise RequestRefused(f"the body must be a JSON object with one of {', '.join(BODY_FORMATS)}")
    for name in content.keys() - _IGNORED_FIELDS - set(BODY_FORMATS):
        raise RequestRefused(
            f"{quote_safely(name)} is not part of the protocol: the body may hold {', '.join((*BODY_FORMATS, 'params'))}"
        )
    name, rows = given[0], content[given[0]]
    if name == "dataframe_split":
        return _read_split(rows)
    if name != "dataframe_records" and isinstance(rows, dict):
        return _read_columnar(rows, name)
    if not isinstance(rows, list) or not all(type(row) is dict for row in rows):
        raise RequestRefused(f"{name}: must be a list of objects, one a row, each with a value per column")
    return _transpose_records(rows, signature, match)


def _transpose_records(
    records: list[dict[str, Any]], signature: ModelSignature, match: Callable[[Iterable[str]], dict[str, str]]
) -> RequestColumns:
    """A list per column; a row that lacks one of the model's is refused, others may be lacking."""
    if not records:
        return {}
    first = records[0].keys()
    if not first:
        _refuse_missing_column(signature.inputs[0].name, 0)
    if all(record.keys() == first for record in records):
        return {name: [record[name] for record in records] for name in first}
    names = dict.fromkeys(name for record in records for name in record)
    for column, name in match(names).items():
        for at, record in enumerate(records):
            if column in signature.names and name not in record:
                _refuse_missing_column(column, at)
    return {name: [record.get(name) for record in records] for name in names}


def _read_split(frame: Any) -> RequestColumns:
    if not isinstance(frame, dict) or not all(isinstance(frame.get(name), list) for name in ("columns", "data")):
        raise RequestRefused("dataframe_split: must be an object with the lists `columns` and `data`")
    for name in frame.keys() - {"columns", "data", "index"}:
        raise RequestRefused(f"dataframe_split: {quote_safely(name)} is not part of the protocol")
    columns, rows = _check_names(frame["columns"], "dataframe_split: columns"), frame["data"]
    for i, row in enumerate(rows):
        if type(row) is not list or len(row) != len(columns):
            raise RequestRefused(
                f"dataframe_split: row {i + 1} of data must be a list of {len(columns)} values, one per column"
            )
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}


def _read_columnar(columns: dict[str, Any], format: str) -> RequestColumns:
    """An object with a list per column."""
    lengths = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise RequestRefused(f"{format}: must hold a list per column, all of one length")
    return columns


def _parse_csv(body: bytes) -> RequestColumns:
    try:
        text = body.decode("utf-8-sig")
        delimiter = detect_delimiter(text[: text.find("\n")])
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = _check_names(name_columns(next(lines, [])), "the first line")
        rows = [row for row in lines if row]  # without empty lines
    except UnicodeDecodeError:
        raise RequestRefused("the body is not UTF-8 text") from None
    except csv.Error as e:
        raise RequestRefused(f"the body is not CSV: {quote_safely(e)}") from None
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise RequestRefused(f"row {i + 1} has {len(row)} cells, the first line names {len(columns)} columns")
    return dict(zip(columns, zip(*rows, strict=True), strict=True)) if rows else {}


def _check_names(given: Iterable[Any], where: str) -> list[str]:
    seen: dict[str, None] = {}
    for name in given:
        if not isinstance(name, str):
            raise RequestRefused(f"{where}: a column's name must be text")
        if name in seen:
            raise RequestRefused(f"{where}: column {quote_safely(name)!r} appears twice")
        seen[name] = None
    return list(seen)


def _match_columns(signature: ModelSignature, roles: IdTimeColumns, drop: bool, given: Iterable[str]) -> dict[str, str]:
    """What each column that is read is called in the request: blanks around a name mean nothing.

    Other columns of the table are left out, and with `drop` any other; else RequestRefused, since a misspelt column that may
    be missing would give wrong predictions for months.
    """
    allowed = signature.names | roles.names
    found: dict[str, str] = {}
    for name in given:
        column = name if name in allowed else call_column(name)
        if column in found:
            raise RequestRefused(f"column {quote_safely(column)!r} appears twice")
        if column in allowed:
            found[column] = name
        elif not drop and column not in signature.unread and not column.startswith(UNNAMED.format("")):
            takes = ", ".join(map(quote_safely, sorted(allowed)))[:1000]
            raise RequestRefused(
                f"column {quote_safely(name)!r} is unknown: the model takes {takes}. Leave it out, or send "
                f"params: {{{UNKNOWN_COLUMNS}: {DROP_UNKNOWN}}}"
            )
    return found


def _refuse_missing_column(name: str, at: int) -> NoReturn:
    raise RequestRefused(
        f"column {quote_safely(name)!r} is missing in row {at + 1}. Send it; null where its value is unknown"
    )


def _read_id(value: Any, at: int, column: str | None) -> str | None:
    """The id that a row was sent with; None: one must be made."""
    if value is None or value == "":
        return None
    text = str(value) if type(value) is int else value
    try:
        check_prediction_id(text)
    except InvalidPrediction:
        raise RequestRefused(
            f"column {quote_safely(column)!r}, row {at + 1}: an id is text of 1 to {MAX_ID_CHARACTERS} characters"
        ) from None
    return text


def _read_times(
    given: RequestColumns, rows: int, plain: list[list[PlainValue]], signature: ModelSignature, roles: IdTimeColumns
) -> list[Any]:
    """Each row's own time as the ledger takes it, None where it has none."""
    if roles.time is None:
        return [None] * rows
    place = {column.name: i for i, column in enumerate(signature.inputs) if column.type == "date"}.get(roles.time)
    if place is not None:
        return [None if at is None else _to_datetime(at) for at in plain[place]]
    times = list(given.get(roles.time, [None] * rows))
    for i, moment in enumerate(times):
        try:
            times[i] = None if moment is None or moment == "" else to_timestamp(moment) and moment
        except (ValueError, TypeError):
            raise RequestRefused(
                f"column {quote_safely(roles.time)!r}, row {i + 1}: must be a moment, such as 2026-01-31T12:00:00Z"
            ) from None
    return times


@lru_cache(4096)  # rows of a request are of the same days
def _to_datetime(at: PlainValue) -> datetime:
    return _EPOCH + timedelta(microseconds=int(at))  # type: ignore[arg-type]


# Smaller bodies are predicted in the event loop itself: a thread would cost more.
MAX_INLINE_BYTES = 10_000
# From so many rows on, what the ledger keeps of them is put together in a thread: milliseconds that others would wait.
MIN_THREADED_ROWS = 1_000
# Requests that a shadow may be behind; those beyond it does not see.
MAX_SHADOW_REQUESTS = 200
log = logging.getLogger("windvane.serving")


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
