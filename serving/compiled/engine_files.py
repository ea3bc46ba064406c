"""The engine files beside a stored model, written when it is built: signature, compiled form, agreement and a sample.
scikit-learn itself serves where there is no compiled form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.serving.compiled.engine import CompiledEngine, EnginePredictions, PlainColumns, PredictionEngine
from windvane.serving.signature import InputColumn, InputType, ModelSignature

if TYPE_CHECKING:
    import pandas as pd

    from windvane.serving.compiled.agreement import EngineSpeed
    from windvane.serving.signature import ModelSignature
    from windvane.tasks.models import features
    from windvane.tasks.models.problem_types.definitions import ProblemType

ENGINE_FILE, TREES_FILE = "engine.json", "engine.onnx"
ENGINE_FILES = (ENGINE_FILE, TREES_FILE)
ENGINE_FORMAT = 1
# Rows of the smoke test; rows that a compiled form is judged on, at most, and as many made up.
STORED_SAMPLE_ROWS = 20
MAX_AGREEMENT_ROWS, SYNTHETIC_ROWS = 20_000, 10_000
SCIKIT_LEARN_FORM = "scikit-learn"


@dataclass(frozen=True)
class StoredEngine:
    """A stored version as it can serve. compiled None: scikit-learn itself must, and `why` says for what reason."""

    signature: ModelSignature
    compiled: PredictionEngine | None
    why: str
    sample: PlainColumns
    expected: EnginePredictions


def build_engine_files(
    model: Any,
    kind: ProblemType,
    columns: features.FeatureColumns,
    taught: pd.DataFrame,
    asked: pd.DataFrame,
    seed: int,
    bent: int = SYNTHETIC_ROWS,
    pace: EngineSpeed | None = None,
) -> dict[str, bytes]:
    """The files for a fitted pipeline. taught, asked: conformed rows that it was fitted on, and on which forms are compared.

    bent, seed: how many rows are made up, and by which chance. pace: is told what large batches cost.
    A form that does not agree is not stored; the reason is.
    """
    from windvane.serving.compiled.agreement import make_synthetic_rows, measure_agreement
    from windvane.serving.compiled.compiler import compile_pipeline
    from windvane.serving.compiled.onnx_trees import CannotCompile

    signature = ModelSignature(_make_inputs(columns, taught), _read_classes(model))
    content: dict[str, Any] = {"format": ENGINE_FORMAT, "signature": _encode_signature(signature), "agreement": None}
    content |= {"compiled": None, **_make_sample(model, kind, taught.tail(STORED_SAMPLE_ROWS), signature)}
    trees = None
    try:
        made = compile_pipeline(model, columns.names)
    except CannotCompile as e:
        content["why"] = f"{e}: scikit-learn answers"
    else:
        engine = CompiledEngine(made.recipe, made.trees, signature.classes)
        rows = asked.iloc[:: max(1, len(asked) // MAX_AGREEMENT_ROWS)]
        found = measure_agreement(engine, model, kind.predict, rows, signature, pace)
        found += measure_agreement(
            engine, model, kind.predict, make_synthetic_rows(rows, signature, bent, seed), signature, pace
        )
        content |= {"agreement": found.to_json(), "why": f"compared with scikit-learn: {found}"}
        if found.accepted:
            content["compiled"], trees = made.recipe, made.trees
    written = {ENGINE_FILE: json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()}
    return written if trees is None else {**written, TREES_FILE: trees}


def has_compiled_form(written: Mapping[str, bytes]) -> bool:
    """Whether there is a compiled form that agrees, as files() wrote it and read() knows it."""
    if ENGINE_FILE not in written:
        return False
    told = json.loads(written[ENGINE_FILE])
    return told["format"] == ENGINE_FORMAT and told["compiled"] is not None


def read_engine_files(content: Mapping[str, bytes]) -> StoredEngine | None:
    """The form in a folder's checked bytes; None for a version that was stored without one."""
    if ENGINE_FILE not in content:
        return None
    told = json.loads(content[ENGINE_FILE])
    if told["format"] != ENGINE_FORMAT:
        return None
    signature = _decode_signature(told["signature"])
    recipe = told["compiled"]
    compiled = None if recipe is None else CompiledEngine(recipe, content.get(TREES_FILE), signature.classes)
    expected = EnginePredictions(told["expected"], _to_array(told["expected_proba"]))
    return StoredEngine(signature, compiled, told["why"], told["sample"], expected)


def list_input_types(columns: features.FeatureColumns) -> dict[str, InputType]:
    """Each column's type, as a client must send it."""
    named: list[tuple[InputType, tuple[str, ...]]] = [
        ("number", columns.numbers),
        ("boolean", columns.booleans),
        ("category", columns.low + columns.high),
        ("date", columns.dates),
    ]
    return {name: kind for kind, names in named for name in names}


def _make_inputs(columns: features.FeatureColumns, taught: pd.DataFrame) -> tuple[InputColumn, ...]:
    kinds = list_input_types(columns)
    return tuple(InputColumn(name, kinds[name], bool(taught[name].isna().any())) for name in columns.names)


def _read_classes(model: Any) -> tuple[Any, ...] | None:
    return tuple(model.classes_.tolist()) if hasattr(model, "classes_") else None


def _make_sample(model: Any, kind: ProblemType, rows: pd.DataFrame, signature: ModelSignature) -> dict[str, Any]:
    from windvane.serving.compiled.agreement import convert_to_plain_columns

    said = kind.predict(model, rows)
    proba = None if said.proba is None else said.proba.tolist()
    return {
        "sample": convert_to_plain_columns(rows, signature),
        "expected": said.value.tolist(),
        "expected_proba": proba,
    }


def _encode_signature(signature: ModelSignature) -> dict[str, Any]:
    return {"inputs": [asdict(column) for column in signature.inputs], "classes": signature.classes}


def _decode_signature(content: dict[str, Any]) -> ModelSignature:
    classes = content["classes"]
    return ModelSignature(
        tuple(InputColumn(**c) for c in content["inputs"]), None if classes is None else tuple(classes)
    )


def _to_array(values: Any) -> Any:
    import numpy as np

    return None if values is None else np.array(values, dtype="float64")


class ScikitLearnEngine:
    """Answers from the stored pipeline."""

    form = SCIKIT_LEARN_FORM

    def __init__(self, folder: Path, manifest_sha256: str, kind: str, signature: ModelSignature) -> None:
        from windvane.tasks.models.problem_types import definitions
        from windvane.tasks.stores import model_files

        self._model = model_files.load_model(folder, manifest_sha256)
        self._kind = definitions.load_problem_type(kind)
        self._signature = signature

    def predict(self, columns: PlainColumns) -> EnginePredictions:
        """See serving.compiled.engine.PredictionEngine."""
        said = self._kind.predict(self._model, self._frame(columns))
        return EnginePredictions(said.value.tolist(), said.proba)

    def _frame(self, given: PlainColumns) -> pd.DataFrame:
        """Plain columns as the frame that the pipeline was taught on (tasks.models.features.conform_frame)."""
        import numpy as np
        import pandas as pd

        columns: dict[str, Any] = {}
        for column, values in zip(self._signature.inputs, given, strict=True):
            if column.type == "category":
                columns[column.name] = np.array([np.nan if v is None else v for v in values], dtype=object)
            elif column.type == "date":
                moments = [np.datetime64("NaT") if v is None else np.datetime64(int(v), "us") for v in values]
                columns[column.name] = np.array(moments, dtype="datetime64[us]")
            else:
                columns[column.name] = np.array(values, dtype="float64")
        return pd.DataFrame(columns)
