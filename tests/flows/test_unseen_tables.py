"""Tables that Windvane has never seen: `init`, then a whole lap."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.projects import Folder

pytestmark = pytest.mark.slow

ROWS = 600


def every_type() -> pd.DataFrame:
    """A column of every type that a Parquet file may hold, and a target that three of them explain."""
    rng = np.random.default_rng(0)
    start, n = pd.Timestamp("2020-01-01"), ROWS
    frame = pd.DataFrame(
        {
            "key": [f"k{i}" for i in range(n)],
            "number": rng.normal(size=n),
            "whole": rng.integers(0, 9, n),
            "flag": rng.random(n) < 0.3,
            "perhaps": pd.array(np.where(rng.random(n) < 0.1, None, rng.random(n) < 0.5), dtype="boolean"),
            "few": rng.choice(list("abc"), n),
            "many": rng.choice([f"c{i}" for i in range(80)], n),
            "categorical": pd.Categorical(rng.choice(["x", "y"], n)),
            "date": start + pd.to_timedelta(rng.integers(0, 900, n), "D"),
            "aware": start.tz_localize("Europe/Berlin") + pd.to_timedelta(rng.integers(0, 9000, n), "h"),
            "duration": pd.to_timedelta(rng.integers(0, 900, n), "s"),
            "price": [decimal.Decimal(int(x)) for x in rng.integers(0, 100, n)],
            "clock": [dt.time(int(h)) for h in rng.integers(0, 24, n)],
            "list": [[1, 2]] * n,
            "binary": [b"x"] * n,
            "struct": [{"a": 1}] * n,
            "constant": 1,
            "empty": np.nan,
            "gaps": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
        }
    )
    effect = frame["few"].map({"a": 0.0, "b": 1.0, "c": 0.5})
    frame["y"] = np.exp(frame["number"] + effect + rng.normal(size=n) * 0.2)
    return frame.assign(copy=frame["y"] * 2)


def lap(folder: Folder, table: Path, target: str, url: str, candidates: list[str]) -> dict[str, object]:
    ran = folder.run("init", str(table), "--target", target, "--json")
    assert ran.status == 0, ran.err
    folder.set(search__trials=len(candidates), search__candidates=candidates)
    said = folder.train(env={"PREFECT_API_URL": url})
    assert "up to date" in folder.dvc("status")
    return {**ran.json, **said}


def test_breast_cancer(empty: Folder, prefect_server: str) -> None:
    from sklearn.datasets import load_breast_cancer

    load_breast_cancer(as_frame=True).frame.to_csv(empty.path / "cancer.csv", index=False)
    said = lap(empty, Path("cancer.csv"), "target", prefect_server, ["linear", "forest"])
    assert said["verdict"] == "promoted"
    assert (said["kind"], said["rows"], said["columns"]) == ("classification", 569, 31)
    ran = empty.run("score", "cancer.csv", "scored.csv")
    assert ran.status == 0, ran.err
    scored = pd.read_csv(empty.path / "scored.csv")
    assert (scored["prediction"] == scored["target"]).mean() > 0.9


def test_every_column_type(empty: Folder, prefect_server: str) -> None:
    every_type().to_parquet(empty.path / "all.parquet")
    said = lap(empty, Path("all.parquet"), "y", prefect_server, ["linear", "tree"])
    assert said["verdict"] == "promoted"
    ignored = said["params"]["problem"]["ignore"]  # type: ignore[index]
    assert {"list", "binary", "struct", "constant", "empty", "copy"} <= set(ignored)
    assert not {"number", "few", "gaps", "date", "clock"} & set(ignored)
    ran = empty.run("score", "all.parquet", "scored.parquet")
    assert ran.status == 0, ran.err


def test_late_flights(empty: Folder, prefect_server: str, whole_table: Callable[[str], Path]) -> None:
    said = lap(empty, whole_table("nycflights13.parquet"), "late15", prefect_server, ["tree"])
    # One untuned tree is no match for the dummy on later flights: a refusal is a lap that ended well.
    assert (said["verdict"], said["champion"]) == ("refused", None)
    ignored = said["params"]["problem"]["ignore"]  # type: ignore[index]
    assert set(ignored) == {"dep_delay", "air_time", "arr_delay", "cancelled"}
