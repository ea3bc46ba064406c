"""Columns -> inputs: which teach, what any frame is made into, and dates as points on circles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from windvane.tasks.errors import InputError
from windvane.tasks.models import features
from windvane.tasks.models.features import DateEncoder, FeatureColumns, conform_frame
from windvane.tasks.settings import project_params
from windvane.tasks.validate import table_profile

ALL = FeatureColumns(("n",), ("b",), ("c",), ("h",), ("d",))


def table(rows: int = 200) -> pd.DataFrame:
    """Every column type, with gaps."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "n": rng.normal(size=rows),
            "b": pd.array(rng.integers(0, 2, rows).astype(bool)).astype("boolean"),
            "c": rng.choice(["x", "y", "z"], rows),
            "h": [f"v{i}" for i in rng.integers(0, 40, rows)],
            "d": pd.date_range("2020-01-01", periods=rows, freq="7h"),
            "y": rng.normal(size=rows),
        }
    )
    for step, name in zip((3, 5, 7, 11, 13), "nbchd", strict=True):
        frame.loc[::step, name] = None
    return frame


def parsed(**problem: Any) -> project_params.Settings:
    split = {"strategy": "group"} if "group" in problem else {}
    return project_params.parse_settings(
        {
            "project": "p",
            "data": {"source": "t.csv"},
            "problem": {"kind": "regression", "target": "y", **problem},
            "split": split,
        }
    )


def test_columns_follow_the_profile() -> None:
    tales = [f"the tale of row {i}" for i in range(200)]
    frame = table().assign(one=1, empty=np.nan, story=tales, who=range(200), _row=1)
    found = features.select_feature_columns(parsed(id="who"), table_profile.profile_table(frame))
    assert found == ALL
    assert found.names == ("n", "b", "c", "h", "d")
    assert (
        features.select_feature_columns(parsed(id="who", ignore=["n"]), table_profile.profile_table(frame)).numbers
        == ()
    )


def test_the_group_does_not_teach_when_whole_groups_are_held_out() -> None:
    assert features.select_feature_columns(parsed(group="c"), table_profile.profile_table(table())).low == ()


def test_no_column_left_is_the_users_turn() -> None:
    with pytest.raises(InputError, match=r"t\.csv: no column is left to learn 'y' from"):
        features.select_feature_columns(parsed(ignore=list("nbchd")), table_profile.profile_table(table()))


def test_a_csv_is_made_into_the_same_frame_as_a_parquet() -> None:
    written = table()[["d", "h", "n", "c", "b"]].assign(extra=1)
    text = written.astype("str").replace("nan", "").replace("<NA>", "").replace("NaT", "")
    pd.testing.assert_frame_equal(conform_frame(text, ALL, "x.csv"), conform_frame(written, ALL, "x.parquet"))


def test_conform_reads_what_people_write() -> None:
    frame = pd.DataFrame(
        {
            "n": ["1", "inf", None],
            "b": ["Yes", 0, ""],
            "c": [98001.0, np.nan, 98002.0],
            "h": [1, 2, 3],
            "d": ["2024-05-31T12:00:00+02:00", "2024-05-31", None],
        }
    )
    made = conform_frame(frame, ALL, "x")
    assert made["n"].tolist()[0] == 1
    assert made["n"].isna().tolist() == [False, True, True]
    assert made["b"].tolist()[:2] == [1, 0]
    assert made["c"].tolist() == ["98001", made["c"][1], "98002"]
    assert made["h"].tolist() == ["1", "2", "3"]
    assert made["d"].tolist()[:2] == [pd.Timestamp("2024-05-31 10:00"), pd.Timestamp("2024-05-31")]
    assert str(made["d"].dtype) == "datetime64[us]"


def test_c4_n8_what_came_as_a_word_stays_a_word_and_no_zero_has_a_sign() -> None:
    frame = pd.DataFrame({"c": pd.Series(["0.0", 98001.0, -0.0, None], dtype=object)})
    made = conform_frame(frame, FeatureColumns(low=("c",)), "x")
    assert made["c"].tolist()[:3] == ["0.0", "98001", "0"]


def test_aware_dates_become_utc() -> None:
    aware = pd.DataFrame({"d": pd.date_range("2024-01-01", periods=2, tz="America/New_York")})
    assert conform_frame(aware, FeatureColumns(dates=("d",)), "x")["d"][0] == pd.Timestamp("2024-01-01 05:00")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("n", "cheap", "'cheap' in row 2"),
        ("b", "perhaps", "true or false"),
        ("d", "yesterday", "as a date"),
        ("d", 7, "as a date"),
    ],
)
def test_an_unreadable_value_is_named(column: str, value: object, said: str) -> None:
    frame = table(3).astype(object)
    frame[column] = [None, value, None] if isinstance(value, str) else value
    if not isinstance(value, str):
        frame[column] = frame[column].astype("int64")
    with pytest.raises(InputError, match=rf"new\.csv: column '{column}'.*{said}"):
        conform_frame(frame, ALL, "new.csv")


def test_missing_and_doubled_columns_are_named() -> None:
    with pytest.raises(InputError, match=r"new\.csv: column 'h', 'd' is missing"):
        conform_frame(table().drop(columns=["h", "d"]), ALL, "new.csv")
    with pytest.raises(InputError, match="'n' appears twice"):
        conform_frame(pd.concat([table(), table()[["n"]]], axis=1), ALL, "new.csv")


@pytest.mark.parametrize("scaled", [True, False])
def test_unseen_values_and_gaps_pass_through(scaled: bool) -> None:
    full = table().ffill().bfill()
    inputs = conform_frame(full, ALL, "x")
    made = features.build_feature_transformer(ALL, scaled=scaled, continuous=True, seed=0).fit(inputs, full["y"])
    new = inputs.head(3).copy()
    new["c"], new["h"] = "never seen", np.nan
    new[["n", "b"]], new["d"] = np.nan, pd.NaT
    out = made.transform(conform_frame(new, ALL, "x"))
    assert out.shape == (3, made.transform(inputs).shape[1])
    assert np.isfinite(out).all() == scaled
    assert len(made.get_feature_names_out()) == out.shape[1]


def test_only_circles_on_which_dates_differ_are_kept() -> None:
    monthly = pd.DataFrame({"d": pd.date_range("2000-01-01", periods=30, freq="MS")})
    names = list(DateEncoder().fit(monthly).get_feature_names_out())
    assert names == ["d_days", "d_weekday_sin", "d_weekday_cos", "d_month_sin", "d_month_cos"]
    out = DateEncoder().fit(monthly).transform(monthly)
    assert out[0, 0] == 0
    december, january, july = out[11, 3:], out[12, 3:], out[6, 3:]
    assert np.linalg.norm(december - january) < np.linalg.norm(december - july)


def test_a_column_empty_in_these_rows_is_left_out() -> None:
    assert ALL.filled(table().assign(n=np.nan, c=None)) == FeatureColumns((), ("b",), (), ("h",), ("d",))


def test_numbers_written_as_text_are_read_to_the_last_bit() -> None:
    """pandas' own reading is off by one bit in some of a hundred: enough to cross a tree's threshold."""
    numbers = np.random.default_rng(0).normal(100, 20, 5_000)
    frame = pd.DataFrame({"n": [repr(n) for n in numbers.tolist()]})
    assert (conform_frame(frame, FeatureColumns(("n",)), "x")["n"].to_numpy() == numbers).all()
