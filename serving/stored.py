"""What stands beside a stored model for whoever serves it: engine.json and engine.onnx, written at building time.

engine.json holds the signature, the compiled form or why there is none, how well it agreed with the pipeline, and a few rows
with their answers for the smoke test. Plain JSON and ONNX: opening them runs nothing. Their bytes are in the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from windvane.serving.engine import Answer, Columns, Compiled, Engine
from windvane.serving.signature import Input, Signature, Type

if TYPE_CHECKING:
    import pandas as pd

    from windvane.serving.agreement import Pace
    from windvane.tasks import features
    from windvane.tasks.problems import Kind

ENGINE, TREES = "engine.json", "engine.onnx"
FILES = (ENGINE, TREES)
FORMAT = 1
# Rows of the smoke test; rows that a compiled form is judged on, at most, and as many made up.
SAMPLE_ROWS = 20
ASKED_ROWS, MADE_UP_ROWS = 20_000, 10_000
SCIKIT_LEARN = "scikit-learn"


@dataclass(frozen=True)
class Form:
    """A stored version as it can serve. compiled None: scikit-learn itself must, and `why` says for what reason."""

    signature: Signature
    compiled: Engine | None
    why: str
    sample: Columns
    expected: Answer


def files(
    model: Any,
    kind: Kind,
    columns: features.Columns,
    taught: pd.DataFrame,
    asked: pd.DataFrame,
    seed: int,
    bent: int = MADE_UP_ROWS,
    pace: Pace | None = None,
) -> dict[str, bytes]:
    """The files for a fitted pipeline. taught, asked: conformed rows that it was fitted on, and on which forms are compared.

    bent, seed: how many rows are made up, and by which chance. pace: is told what large batches cost.
    A form that does not agree is not stored; the reason is.
    """
    from windvane.serving.agreement import agree, made_up
    from windvane.serving.compile import compile
    from windvane.serving.trees import CannotCompile

    signature = Signature(_inputs(columns, taught), _classes(model))
    content: dict[str, Any] = {"format": FORMAT, "signature": _signature_json(signature), "agreement": None}
    content |= {"compiled": None, **_sample(model, kind, taught.tail(SAMPLE_ROWS), signature)}
    trees = None
    try:
        made = compile(model, columns.names)
    except CannotCompile as e:
        content["why"] = f"{e}: scikit-learn answers"
    else:
        engine = Compiled(made.recipe, made.trees, signature.classes)
        rows = asked.iloc[:: max(1, len(asked) // ASKED_ROWS)]
        found = agree(engine, model, kind.predict, rows, signature, pace)
        found += agree(engine, model, kind.predict, made_up(rows, signature, bent, seed), signature, pace)
        content |= {"agreement": found.to_json(), "why": f"compared with scikit-learn: {found}"}
        if found.accepted:
            content["compiled"], trees = made.recipe, made.trees
    written = {ENGINE: json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()}
    return written if trees is None else {**written, TREES: trees}


def is_compiled(written: Mapping[str, bytes]) -> bool:
    """Whether there is a compiled form that agrees, as files() wrote it and read() knows it."""
    if ENGINE not in written:
        return False
    told = json.loads(written[ENGINE])
    return told["format"] == FORMAT and told["compiled"] is not None


def read(content: Mapping[str, bytes]) -> Form | None:
    """The form in a folder's checked bytes; None for a version that was stored without one."""
    if ENGINE not in content:
        return None
    told = json.loads(content[ENGINE])
    if told["format"] != FORMAT:
        return None
    signature = _signature(told["signature"])
    recipe = told["compiled"]
    compiled = None if recipe is None else Compiled(recipe, content.get(TREES), signature.classes)
    expected = Answer(told["expected"], _array(told["expected_proba"]))
    return Form(signature, compiled, told["why"], told["sample"], expected)


def types(columns: features.Columns) -> dict[str, Type]:
    """Each column's type, as a client must send it."""
    named: list[tuple[Type, tuple[str, ...]]] = [
        ("number", columns.numbers),
        ("boolean", columns.booleans),
        ("category", columns.low + columns.high),
        ("date", columns.dates),
    ]
    return {name: kind for kind, names in named for name in names}


def _inputs(columns: features.Columns, taught: pd.DataFrame) -> tuple[Input, ...]:
    kinds = types(columns)
    return tuple(Input(name, kinds[name], bool(taught[name].isna().any())) for name in columns.names)


def _classes(model: Any) -> tuple[Any, ...] | None:
    return tuple(model.classes_.tolist()) if hasattr(model, "classes_") else None


def _sample(model: Any, kind: Kind, rows: pd.DataFrame, signature: Signature) -> dict[str, Any]:
    from windvane.serving.agreement import plain

    said = kind.predict(model, rows)
    proba = None if said.proba is None else said.proba.tolist()
    return {"sample": plain(rows, signature), "expected": said.value.tolist(), "expected_proba": proba}


def _signature_json(signature: Signature) -> dict[str, Any]:
    return {"inputs": [asdict(column) for column in signature.inputs], "classes": signature.classes}


def _signature(content: dict[str, Any]) -> Signature:
    classes = content["classes"]
    return Signature(tuple(Input(**c) for c in content["inputs"]), None if classes is None else tuple(classes))


def _array(values: Any) -> Any:
    import numpy as np

    return None if values is None else np.array(values, dtype="float64")
