"""The sample of labelled rows by which challengers and champion are compared: fixed, even, and within its error of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from windvane.monitoring.watch.challenger_losses import scale_row_limits
from windvane.monitoring.window_frames import read_labelled_sample
from windvane.tasks.ingest import row_keys, table_io
from windvane.tasks.settings import project_params


def table(path: Path, rows: int, seed: int = 0, unlabelled: int = 0) -> pd.DataFrame:
    """Rows in time order whose losses by two models are heavy-tailed, depend on each other, and grow with time."""
    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 1, rows) * np.linspace(1, 3, rows)
    frame = pd.DataFrame({"t": np.arange(rows), "one": base, "two": base * rng.uniform(0.5, 1.4, rows), "y": 1.0})
    frame.loc[frame.index[rows - unlabelled :], "y"] = np.nan
    keys = row_keys.hash_rows(frame, ("t", "one"))
    frame[table_io.ROW_KEY] = keys
    table_io.write_parquet(frame, path)
    return frame


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2_000, 20_000), drawn=st.integers(0, 1000))
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_saving_in_the_sample_is_within_its_error_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, drawn: int
) -> None:
    path = tmp_path_factory.mktemp("table") / "table.parquet"
    whole = table(path, rows, seed)
    sample, share = read_labelled_sample(path, "y", 1500, drawn)
    assert share == 0.5 ** np.ceil(np.log2(rows / 1500))
    for start in (0, rows // 2):  # of all windows, and of the newer half
        saved, seen = ((f["one"] - f["two"])[f["t"] >= start] for f in (whole, sample))
        assert abs(len(seen) - share * len(saved)) <= 5 * np.sqrt(share * len(saved))
        error = float(saved.std()) * np.sqrt((1 - share) / (share * len(saved)))
        assert abs(float(seen.mean()) - float(saved.mean())) <= 5 * error + 1e-9


def test_few_rows_are_all_read_and_rows_without_a_label_never(tmp_path: Path) -> None:
    whole = table(tmp_path / "t.parquet", 400, unlabelled=100)
    found, share = read_labelled_sample(tmp_path / "t.parquet", "y", 300, 0)
    assert share == 1
    pd.testing.assert_frame_equal(found, whole.iloc[:300])


def test_a_row_stays_in_the_sample_while_the_table_grows_and_a_smaller_share_is_part_of_a_larger(
    tmp_path: Path,
) -> None:
    path, kept = tmp_path / "t.parquet", dict[float, set[int]]()
    for rows in (1_100, 1_900, 2_100, 3_900, 4_100):
        table(path, 4_100).iloc[:rows].pipe(table_io.write_parquet, path)
        found, share = read_labelled_sample(path, "y", 1_000, 7)
        seen = set(found["t"])
        assert found["t"].is_monotonic_increasing
        assert kept.get(share, set()) <= seen
        assert all({t for t in seen if t < 1_100} <= more for other, more in kept.items() if other > share)
        kept[share] = seen
    assert sorted(kept) == [0.125, 0.25, 0.5]


def test_what_settings_count_in_rows_is_counted_in_the_sample(tmp_path: Path) -> None:
    content = {
        "project": "p",
        "problem": {"kind": "regression", "target": "y", "time": "t"},
        "data": {"source": "t.csv"},
    }
    settings = project_params.parse_settings({**content, "monitor": {"window": 4000}})
    assert scale_row_limits(settings, 1.0) is settings
    quarter = scale_row_limits(settings, 0.25)
    assert (quarter.monitor.cut.rows, quarter.data.max_rows) == (1000, 250_000)
    weekly = project_params.parse_settings({**content, "monitor": {"window": "7d"}})
    assert scale_row_limits(weekly, 0.25).monitor == weekly.monitor
