"""A stored version as MLflow loads it by itself: in any environment, for frames as pandas reads them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from tests.support.projects import missing
from tests.support.waiting import free_port, until
from windvane.serving.compiled import agreement, engine_files
from windvane.serving.compiled.engine_files import bundle_model_code
from windvane.tasks import process_environment
from windvane.tasks.models import model_pipeline
from windvane.tasks.models.features import FeatureColumns, conform_frame
from windvane.tasks.models.model_pipeline import FitOptions, ModelConfiguration
from windvane.tasks.models.problem_types import definitions
from windvane.tasks.stores import model_files

pytestmark = pytest.mark.long

COLUMNS = FeatureColumns(("rooms", "size"), ("garden",), ("zip",), (), ("day",))
ZIPS = ["01067", "10115", "80331", "04109"]


def flats(rows: int = 400) -> pd.DataFrame:
    """Whole rooms, a size that is missing at times, a garden, a zip code that may begin with a zero, a day, and a price."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "rooms": rng.integers(1, 7, rows),
            "size": rng.normal(90, 20, rows).round(1),
            "garden": pd.array(rng.integers(0, 2, rows).astype(bool), dtype="boolean"),
            "zip": rng.choice(ZIPS, rows),
            "day": pd.date_range("2022-01-01", periods=rows, freq="D").as_unit("us"),
        }
    )
    town = frame["zip"].map(dict(zip(ZIPS, [50, 200, 300, 80], strict=True)))
    price = frame["rooms"] * 20 + frame["size"] + town + frame["garden"].astype(float) * 40 + rng.normal(0, 3, rows)
    frame.loc[::7, "size"], frame.loc[::11, "garden"], frame.loc[::13, "day"] = np.nan, pd.NA, pd.NaT
    return frame.assign(price=price, dear=np.where(price > price.median(), "yes", "no"))


@cache
def fitted(kind: str) -> tuple[Any, dict[str, bytes]]:
    """A fitted pipeline and its engine files."""
    frame, k = flats(), definitions.load_problem_type(kind)
    target = "price" if kind == "regression" else "dear"
    model = model_pipeline.fit_pipeline(
        ModelConfiguration("boosting", {"max_iter": 30}), k, COLUMNS, frame, FitOptions(target, 0, 1)
    )
    inputs = conform_frame(frame, COLUMNS, "x")
    return model, engine_files.build_engine_files(
        model, k, COLUMNS, engine_files.ComparisonRows(inputs, inputs, 0, 300)
    )


def stored(folder: Path, kind: str = "regression", code: dict[str, str] | None = None) -> str:
    """A version's folder, as a lap stores it; its manifest's sha256."""
    process_environment.set_library_environment()
    model, files = fitted(kind)
    sample = conform_frame(flats().tail(20), COLUMNS, "x")
    predicted = definitions.load_problem_type(kind).predict(model, sample).value
    return model_files.save_model(model, folder, sample, predicted, files, code or bundle_model_code())


def ours(frame: pd.DataFrame, kind: str = "regression") -> list[Any]:
    """Windvane's own predictions."""
    form = engine_files.read_engine_files(fitted(kind)[1])
    assert form is not None
    assert form.compiled is not None
    rows = conform_frame(frame, COLUMNS, "x")
    return form.compiled.predict(agreement.convert_to_plain_columns(rows, form.signature)).values


def theirs(folder: Path, frame: Any) -> list[Any]:
    """What MLflow's own client gets."""
    import mlflow.pyfunc

    predicted: list[Any] = mlflow.pyfunc.load_model(str(folder)).predict(frame).tolist()
    return predicted


def read_back(frame: pd.DataFrame, tmp_path: Path, **more: Any) -> pd.DataFrame:
    """A frame as `pandas.read_csv` reads the file of it."""
    frame.to_csv(tmp_path / "table.csv", index=False, **more)
    return pd.read_csv(tmp_path / "table.csv")


PREDICT = """
import json, sys
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(json.dumps(model.predict(pandas.read_csv(sys.argv[2])).tolist()))
"""


@pytest.mark.slow
def test_c5_a_model_loads_and_serves_in_an_environment_of_its_requirements_alone(tmp_path: Path) -> None:
    folder, table = tmp_path / "model", tmp_path / "flats.csv"
    stored(folder)
    flats().to_csv(table, index=False)
    requirements = (folder / "requirements.txt").read_text().split()
    assert requirements == [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "onnxruntime", "pandas")]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "--no-compile", "-r", folder / "requirements.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stderr + done.stdout:
        missing("a package registry")
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [python, "-I", "-c", PREDICT, folder, table], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = ours(flats())
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    port = free_port()
    serve = [python.with_name("mlflow"), "models", "serve", "-m", folder, "--env-manager", "local", "-p", str(port)]
    with (tmp_path / "serve.log").open("w") as log:
        path = f"{python.parent}:/usr/bin:/bin"
        server = subprocess.Popen(serve, cwd=tmp_path, env={"PATH": path}, stdout=log, stderr=log)
    try:
        until(lambda: server.poll() is not None or answers(port), what="the server answers")
        rows = json.loads(pd.read_csv(table).head(50).drop(columns=["price", "dear"]).to_json(orient="split"))
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"dataframe_split": rows}, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == expected[:50]
    finally:
        server.terminate()
        server.wait(30)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200
    except httpx.TransportError:
        return False


def test_c5_n1_the_code_of_a_model_imports_only_what_it_requires() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "pandas"}
    for name, text in bundle_model_code().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed, name
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert str(node.module).partition(".")[0] in allowed, name


def test_c5_n2_versions_of_different_releases_are_loaded_side_by_side(tmp_path: Path) -> None:
    stored(tmp_path / "one")
    changed = {
        name.replace("compiled_model_", "compiled_model_0"): text.replace(".values)", ".values) * 2")
        for name, text in bundle_model_code().items()
    }
    stored(tmp_path / "two", code=changed)
    one, two = theirs(tmp_path / "one", flats()), theirs(tmp_path / "two", flats())
    assert two == [2 * value for value in one]


def test_c5_n3_a_model_that_was_loaded_where_it_lies_is_still_whole(tmp_path: Path) -> None:
    from mlflow import MlflowClient, set_tracking_uri
    from mlflow.pyfunc import load_model

    folder = tmp_path / "model"
    digest = stored(folder)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(store)
    client.create_registered_model("flats")
    client.create_model_version("flats", folder.as_uri())
    set_tracking_uri(store)
    try:
        load_model("models:/flats/1")
    finally:
        set_tracking_uri(None)
    (folder / "code" / "__pycache__").mkdir(exist_ok=True)
    (folder / "code" / "__pycache__" / "x.pyc").write_bytes(b"")
    assert (folder / "registered_model_meta").exists()
    model_files.verify_folder(folder, digest)


def test_c5_n4_a_version_without_a_compiled_form_loads_where_windvane_is(tmp_path: Path) -> None:
    model, files = fitted("classification")
    settings = {**json.loads(files[engine_files.ENGINE_FILE]), "compiled": None}
    sample = conform_frame(flats().tail(20), COLUMNS, "x")
    plain = {engine_files.ENGINE_FILE: json.dumps(settings).encode()}
    model_files.save_model(model, tmp_path / "model", sample, model.predict(sample), plain)
    assert theirs(tmp_path / "model", flats()) == model.predict(conform_frame(flats(), COLUMNS, "x")).tolist()


def test_c5_n5_the_lock_file_of_the_project_does_not_travel_with_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv.lock").write_text("version = 1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'mine'\n")
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "model")
    assert not list((tmp_path / "model").rglob("uv.lock"))


def test_c4_a_table_that_pandas_reads_is_predicted_as_it_is(tmp_path: Path) -> None:
    stored(tmp_path / "model")
    frame = read_back(flats(), tmp_path)
    assert frame["rooms"].dtype == "int64"
    assert frame["day"].dtype == "str"
    assert theirs(tmp_path / "model", frame) == ours(flats())
    assert theirs(tmp_path / "model", frame.head(1)) == ours(flats().head(1))


def test_c4_n1_codes_that_pandas_reads_as_numbers_are_the_codes_of_training(tmp_path: Path) -> None:
    stored(tmp_path / "model")
    frame = read_back(flats(), tmp_path)
    assert frame["zip"].dtype == "int64"  # 01067 is 1067 there
    assert theirs(tmp_path / "model", frame) == ours(flats())
    assert theirs(tmp_path / "model", frame.assign(zip=frame["zip"].astype(float))) == ours(flats())


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%Y/%m/%d", "%d %b %Y", "%m/%d/%Y"])
def test_c4_n2_dates_in_every_form_that_training_reads(tmp_path: Path, form: str) -> None:
    stored(tmp_path / "model")
    frame = read_back(flats(), tmp_path, date_format=form)
    assert theirs(tmp_path / "model", frame) == ours(flats())


def test_c4_n3_a_date_whose_day_and_month_cannot_be_told_apart_is_refused_by_name(tmp_path: Path) -> None:
    stored(tmp_path / "model")
    with pytest.raises(ValueError, match=r"'day'.*write 2024-05-31"):
        theirs(tmp_path / "model", flats().head(1).assign(day="02/01/2024"))
    assert theirs(tmp_path / "model", flats().head(1).assign(day="02/02/2024")) == ours(
        flats().head(1).assign(day="2024-02-02")
    )


@pytest.mark.parametrize("words", [("yes", "no"), (1, 0), (1.0, 0.0), ("TRUE", "FALSE"), (True, False)])
def test_c4_n4_truth_values_as_words_and_numbers_some_missing(tmp_path: Path, words: tuple[Any, Any]) -> None:
    stored(tmp_path / "model", "classification")
    garden = flats()["garden"]
    frame = flats().assign(garden=garden.astype(object).map({True: words[0], False: words[1]}))
    assert theirs(tmp_path / "model", read_back(frame, tmp_path)) == ours(flats(), "classification")


def test_c4_n5_a_column_that_is_wholly_missing_and_one_that_is_not_there(tmp_path: Path) -> None:
    stored(tmp_path / "model")
    frame = flats().assign(size=None, zip=None)
    assert theirs(tmp_path / "model", read_back(frame, tmp_path)) == ours(flats().assign(size=np.nan, zip=np.nan))
    with pytest.raises(Exception, match="zip"):
        theirs(tmp_path / "model", flats().drop(columns="zip"))


def test_c4_n6_no_rows_are_no_predictions(tmp_path: Path) -> None:
    stored(tmp_path / "model")
    assert theirs(tmp_path / "model", flats().head(0)) == []


def test_the_example_and_the_columns_that_mlflow_shows(tmp_path: Path) -> None:
    from mlflow.models import Model
    from mlflow.models.utils import validate_serving_input

    stored(tmp_path / "model")
    model = Model.load(str(tmp_path / "model"))
    assert model.signature is not None
    assert model.signature.inputs.input_names() == list(COLUMNS.names)
    example = (tmp_path / "model" / "serving_input_example.json").read_text()
    predicted = validate_serving_input(str(tmp_path / "model"), example)
    assert list(predicted) == ours(flats().tail(20).head(3))
