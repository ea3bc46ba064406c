"""The engine files beside a stored model: signature, compiled form, agreement and a sample. Without a form scikit-learn serves."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windvane.serving.compiled.agreement import (
    EngineSpeed,
    convert_to_plain_columns,
    make_synthetic_rows,
    measure_agreement,
)
from windvane.serving.compiled.engine import (
    ENGINE_FILE,
    TREES_FILE,
    CompiledEngine,
    EnginePredictions,
    PlainColumns,
    PredictionEngine,
)
from windvane.serving.compiled.explanations import NODES_FILE, PredictionExplainer, pack_arrays
from windvane.serving.compiled.intervals import (
    DISTANCE_FILE,
    SCORES_FILE,
    HeldOutRows,
    PredictionIntervals,
    build_interval_files,
)
from windvane.serving.signature import InputColumn, InputType, ModelSignature
from windvane.tasks.ingest.cell_reading import NumberForm, find_code_width
from windvane.tasks.models.problem_types.definitions import Predictions, ProblemType, load_problem_type
from windvane.tasks.stores import model_files

if TYPE_CHECKING:
    import pandas as pd

    from windvane.tasks.models import features

ENGINE_FILES = (ENGINE_FILE, TREES_FILE, NODES_FILE, SCORES_FILE, DISTANCE_FILE)
ENGINE_FORMAT = 1
# Rows of the smoke test; rows that a compiled form is judged on, at most, and as many made up.
STORED_SAMPLE_ROWS = 20
MAX_AGREEMENT_ROWS, SYNTHETIC_ROWS = 20_000, 10_000
SCIKIT_LEARN_FORM = "scikit-learn"
# The groups of tasks.models.features.FeatureColumns, and how a client sends a column of each.
INPUT_TYPES: dict[str, InputType] = {
    "numbers": "number",
    "booleans": "boolean",
    "low": "category",
    "high": "category",
    "dates": "date",
}


@dataclass(frozen=True)
class StoredEngine:
    """A stored version as it can serve. compiled None: scikit-learn itself must, and `why` gives the reason. recipe, nodes: what its
    compiled form is made of, for explanations. scores, distances: what intervals are made from.
    """

    signature: ModelSignature
    compiled: PredictionEngine | None
    why: str
    sample: PlainColumns
    expected: EnginePredictions
    recipe: Mapping[str, Any] | None = None
    nodes: bytes | None = None
    scores: bytes | None = None
    distances: bytes | None = None

    def make_explainer(self, engine: PredictionEngine) -> PredictionExplainer:
        """engine: the one that predicts."""
        return PredictionExplainer(engine, self.signature, self.recipe, self.nodes, self.sample)

    def make_intervals(self, engine: PredictionEngine | None) -> PredictionIntervals | None:
        """None for a version that was stored without scores. engine: the one that predicts, None: it is not compiled."""
        if self.scores is None:
            return None
        return PredictionIntervals(engine, self.signature.classes, self.scores, self.distances)


@dataclass(frozen=True)
class ComparisonRows:
    """Conformed rows that a pipeline was fitted on (`training_rows`), and those on which forms of it are compared: `parity_rows`, and
    `made_up` more that chance makes of them by `seed`. held: conformed rows that the evaluated model was not fitted on, its
    predictions, and what was true; None: intervals cannot be made.
    """

    training_rows: pd.DataFrame
    parity_rows: pd.DataFrame
    seed: int
    made_up: int = SYNTHETIC_ROWS
    held: tuple[pd.DataFrame, Predictions, NDArray[Any]] | None = None


@dataclass(frozen=True)
class TableCells:
    """What a table decided about its cells: all its columns, those with rows without a value, and those in which words such as
    NA are values. The rest is as data.format has it: keep_words, missing_words, dates, and how numbers are written.
    """

    columns: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    keep_words: frozenset[str] = frozenset()
    missing_words: tuple[str, ...] = ()
    dates: str | None = None
    numbers: NumberForm | None = None


def build_engine_files(
    model: Any,
    kind: ProblemType,
    columns: features.FeatureColumns,
    rows: ComparisonRows,
    pace: EngineSpeed | None = None,
    cells: TableCells | None = None,
) -> dict[str, bytes]:
    """The files for a fitted pipeline. pace: is called with the cost of large batches. cells None: only the rows are known.

    A form that does not agree is not stored; the reason is.
    """
    from windvane.serving.compiled.compiler import compile_pipeline
    from windvane.serving.compiled.onnx_trees import CannotCompile

    sample, cells = rows.training_rows.tail(STORED_SAMPLE_ROWS), cells or TableCells()
    inputs = tuple(
        _describe_input(name, type, rows.training_rows[name], cells) for name, type in list_input_types(columns).items()
    )
    classes = tuple(model.classes_.tolist()) if hasattr(model, "classes_") else None
    signature = ModelSignature(inputs, classes, cells.columns)
    predictions = kind.predict(model, sample)
    content: dict[str, Any] = {
        "format": ENGINE_FORMAT,
        "kind": kind.name,
        "signature": asdict(signature),
        "agreement": None,
        "compiled": None,
        "sample": convert_to_plain_columns(sample, signature),
        "expected": predictions.value.tolist(),
        "expected_proba": None if predictions.proba is None else predictions.proba.tolist(),
    }
    written: dict[str, bytes] = {}
    compiled: CompiledEngine | None = None
    try:
        made = compile_pipeline(model, columns.names)
    except CannotCompile as e:
        content["why"] = f"{e}: scikit-learn predicts"
    else:
        engine = CompiledEngine(made.recipe, made.trees, signature.classes)
        compared = rows.parity_rows.iloc[:: max(1, len(rows.parity_rows) // MAX_AGREEMENT_ROWS)]
        synthetic = make_synthetic_rows(compared, signature, rows.made_up, rows.seed)
        found = measure_agreement(engine, model, kind.predict, compared, signature, pace)
        found += measure_agreement(engine, model, kind.predict, synthetic, signature, pace)
        content |= {"agreement": found.to_json(), "why": f"compared with scikit-learn: {found}"}
        if found.accepted:
            content["compiled"], compiled = made.recipe, engine
            if made.trees is not None and made.nodes is not None:
                written = {TREES_FILE: made.trees, NODES_FILE: pack_arrays(made.nodes)}
            elif "weights" in made.recipe["model"]:
                center = engine.matrix(convert_to_plain_columns(compared, signature)).mean(axis=0)
                content["compiled"] = {**made.recipe, "center": center.tolist()}
    if rows.held is not None:
        held, said, truth = rows.held
        plain = convert_to_plain_columns(held, signature)
        written |= build_interval_files(compiled, HeldOutRows(plain, said, truth))
    written[ENGINE_FILE] = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    return written


def has_compiled_form(written: Mapping[str, bytes]) -> bool:
    """Whether there is a compiled form that agrees, as files() wrote it and read() knows it."""
    if ENGINE_FILE not in written:
        return False
    settings = json.loads(written[ENGINE_FILE])
    return settings["format"] == ENGINE_FORMAT and settings["compiled"] is not None


def read_engine_files(content: Mapping[str, bytes]) -> StoredEngine | None:
    """The form in a folder's checked bytes; None for a version that was stored without one."""
    if ENGINE_FILE not in content:
        return None
    settings = json.loads(content[ENGINE_FILE])
    if settings["format"] != ENGINE_FORMAT:
        return None
    classes, recipe, proba = settings["signature"]["classes"], settings["compiled"], settings["expected_proba"]
    inputs = tuple(
        InputColumn(
            **{
                **column,
                "numbers": NumberForm.from_json(column.get("numbers")),
                "missing_words": tuple(column.get("missing_words", ())),
            }
        )
        for column in settings["signature"]["inputs"]
    )
    signature = ModelSignature(
        inputs, None if classes is None else tuple(classes), tuple(settings["signature"].get("table", ()))
    )
    compiled = None if recipe is None else CompiledEngine(recipe, content.get(TREES_FILE), signature.classes)
    expected = EnginePredictions(settings["expected"], None if proba is None else np.array(proba, dtype="float64"))
    more = (content.get(name) for name in (NODES_FILE, SCORES_FILE, DISTANCE_FILE))
    return StoredEngine(signature, compiled, settings["why"], settings["sample"], expected, recipe, *more)


def _describe_input(name: str, type: InputType, values: pd.Series, cells: TableCells) -> InputColumn:
    missing = name in cells.missing or bool(values.isna().any())
    width = find_code_width(values.dropna().unique()) if type == "category" else None
    dates, numbers = cells.dates if type == "date" else None, cells.numbers if type == "number" else None
    return InputColumn(name, type, missing, name in cells.keep_words, width, dates, numbers, cells.missing_words)


# What a stored model carries so that MLflow loads it by itself: the file with _load_pyfunc first, below windvane/.
_MODEL_CODE = (
    "serving/compiled/mlflow_model.py",
    "serving/compiled/engine.py",
    "tasks/models/frame_reading.py",
    "tasks/ingest/cell_reading.py",
)
_OWN_IMPORT = re.compile(r"^from windvane\.[\w.]+\.(\w+) import", re.MULTILINE)


def bundle_model_code() -> dict[str, str]:
    """The files of a package that loads a compiled version, by path. Its name carries their hash: MLflow imports it by name, and
    versions of different releases may be loaded side by side.
    """
    root = Path(__file__).parents[2]
    texts = [_OWN_IMPORT.sub(r"from .\1 import", (root / name).read_text(encoding="utf-8")) for name in _MODEL_CODE]
    package = f"compiled_model_{hashlib.sha256(''.join(texts).encode()).hexdigest()[:8]}"
    names = ["__init__.py", *(name.rpartition("/")[2] for name in _MODEL_CODE[1:])]
    return {f"{package}/{name}": text for name, text in zip(names, texts, strict=True)}


def _load_pyfunc(path: str) -> Any:
    """What MLflow calls with the folder of a version that has no compiled form: it can be loaded where Windvane is installed."""
    from windvane.serving.compiled.mlflow_model import FrameModel

    folder = Path(path)
    digest = model_files.hash_file(folder / model_files.MANIFEST_FILE)
    content = model_files.read_verified_files(folder, digest, ENGINE_FILES)
    stored, settings = read_engine_files(content), json.loads(content[ENGINE_FILE])
    assert stored is not None
    return FrameModel(settings, ScikitLearnEngine(folder, digest, settings["kind"], stored.signature))


def list_input_types(columns: features.FeatureColumns) -> dict[str, InputType]:
    """Each column's type, as a client must send it."""
    return {name: INPUT_TYPES[group] for group, names in asdict(columns).items() for name in names}


class ScikitLearnEngine:
    """Predictions of the stored pipeline."""

    form = SCIKIT_LEARN_FORM

    def __init__(self, folder: Path, manifest_sha256: str, kind: str, signature: ModelSignature) -> None:
        self._model, self._kind = model_files.load_model(folder, manifest_sha256), load_problem_type(kind)
        self._signature = signature

    def predict(self, columns: PlainColumns) -> EnginePredictions:
        """See serving.compiled.engine.PredictionEngine."""
        predictions = self._kind.predict(self._model, build_plain_frame(columns, self._signature))
        return EnginePredictions(predictions.value.tolist(), predictions.proba)


def build_plain_frame(given: PlainColumns, signature: ModelSignature) -> pd.DataFrame:
    """Plain columns as the frame that a pipeline was trained on (tasks.models.features.conform_frame)."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for column, values in zip(signature.inputs, given, strict=True):
        if column.type == "category":
            columns[column.name] = np.array([np.nan if v is None else v for v in values], dtype=object)
        else:  # None becomes NaT or NaN
            dtype = "datetime64[us]" if column.type == "date" else "float64"
            columns[column.name] = np.array(values, dtype=dtype)
    return pd.DataFrame(columns)
