"""The scoring service described in OpenAPI 3.1, with rows typed by the signature of the version that serves."""

from __future__ import annotations

from typing import Any, get_args

from windvane.ledger.labels import LabelCounts
from windvane.serving.compiled.explanations import ExplanationScale
from windvane.serving.signature import InputColumn, ModelSignature

_TYPES: dict[str, list[str]] = {
    "number": ["number"],
    "boolean": ["boolean", "number", "string"],
    "category": ["string", "number"],
    "date": ["string"],
}


EXPLAIN_PARAMETER = {
    "name": "explain",
    "in": "query",
    "description": "Name so many columns with the largest effects on each prediction, and their effects",
    "schema": {"type": "integer", "minimum": 0, "maximum": 999_999},
}

INTERVAL_PARAMETER = {
    "name": "interval",
    "in": "query",
    "description": "The level, such as 0.9, at which the response gives what each prediction may be",
    "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
}


def build_openapi(signature: ModelSignature | None) -> dict[str, Any]:
    """The document; rows are typed by the signature of the version that serves."""
    row = _typed("object") if signature is None else _object({c.name: _cell(c) for c in signature.inputs})
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/row"}, "minItems": 1, "maxItems": 10_000}
    split = _object({"columns": {"type": "array", "items": _typed("string")}, "data": _typed("array")})
    formats = {"dataframe_records": rows, "instances": rows, "inputs": rows, "dataframe_split": split}
    params = _object({}, unknown_columns={"const": "ignore"})
    body = {
        "oneOf": [
            _object({name: schema}, params=params) | {"additionalProperties": False} for name, schema in formats.items()
        ]
    }
    given = {"id": _typed("string", "integer"), "label": _typed("number", "string", "boolean", "null")}
    label = _object(given, at=_typed("string")) | {"additionalProperties": False}
    labels = {"type": "array", "items": label, "maxItems": 10_000}
    number = _typed("number")
    effects = {"type": "array", "items": _object({"column": _typed("string"), "effect": number})}
    predictions = _object(
        {
            "predictions": _typed("array"),
            "ids": {"type": "array", "items": _typed("string")},
            "model_version": _typed("integer"),
        },
        classes=_typed("array"),
        probabilities={"type": "array", "items": {"type": "array", "items": _typed("number")}},
        explanations=_object(
            {
                "scale": {"enum": list(get_args(ExplanationScale))},
                "exact": _typed("boolean"),
                "rows": {"type": "array", "items": _object({"base": number, "effects": effects, "rest": number})},
            }
        ),
    )
    bound = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    predictions["properties"]["intervals"] = _object(
        {"level": number},
        adjusted=number,
        bounds={"type": "array", "items": bound},
        sets={"type": "array", "items": _typed("array")},
    )
    counts = _object({name: _typed("integer") for name in LabelCounts.__dataclass_fields__})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Windvane scoring service", "version": "1"},
        "paths": {
            "/invocations": {
                "post": _post("Predictions for rows, in MLflow's scoring protocol", body, predictions, csv=True)
                | {"parameters": [EXPLAIN_PARAMETER, INTERVAL_PARAMETER]}
            },
            "/labels": {
                "post": _post("Labels of predictions, by their ids. Always needs a key", labels, counts, csv=True)
                | {"security": [{"key": []}, {"header": []}]}
            },
            "/model": _get("Which version serves, since when, and the columns it takes", "application/json"),
            "/metrics": _get("Prometheus metrics"),
            "/ping": _get("200 while a version serves"),
            "/health": _get("200 while a version serves"),
            "/version": _get("The version of MLflow whose protocol this is"),
        },
        "components": {
            "schemas": {"row": row, "fault": _object({"error_code": _typed("string"), "message": _typed("string")})},
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"key": []}, {"header": []}],
    }


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _cell(column: InputColumn) -> dict[str, Any]:
    # Codes of different lengths cannot be named by numbers.
    types = ["string"] if column.code_width == 0 else _TYPES[column.type]
    cell = _typed(*types, *(["null"] if column.missing else []))
    return {**cell, "description": "a date, such as 2024-05-31T12:00:00Z"} if column.type == "date" else cell


def _typed(*types: str) -> dict[str, Any]:
    return {"type": list(types) if len(types) > 1 else types[0]}


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"schema": schema}}


def _faults(*codes: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/fault"}
    return {str(code): {"description": "refused", "content": _content("application/json", schema)} for code in codes}


def _post(summary: str, body: dict[str, Any], response: dict[str, Any], csv: bool = False) -> dict[str, Any]:
    content = _content("application/json", body) | (_content("text/csv", {"type": "string"}) if csv else {})
    done = {"200": {"description": "done", "content": _content("application/json", response)}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": done | _faults(400, 401, 403, 408, 413, 415, 503),
    }


def _get(summary: str, kind: str = "text/plain") -> dict[str, Any]:
    done = {"description": "done", "content": _content(kind, {})}
    responses = {"200": done, "503": {**done, "description": "no version serves"}} | _faults(401, 403)
    return {"get": {"summary": summary, "responses": responses}}
