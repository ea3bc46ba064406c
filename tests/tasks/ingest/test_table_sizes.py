"""Tables of any size: the quick way and the careful way agree, files join, rows are sorted and sampled in bounds."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from tests.support.tables import chosen, houses, ingested
from windvane.tasks import io
from windvane.tasks.errors import InputError
from windvane.tasks.ingest import column_types, ingestion, parquet_writer, table_io, text_parsing
from windvane.tasks.ingest.text_files import CsvDialect
from windvane.tasks.io import DATA_FOLDER
from windvane.tasks.settings import project_params
from windvane.tasks.split import data_split, strategies
from windvane.tasks.validate import table_profile

pytestmark = pytest.mark.long

# Cells of one column beside a price of 0, 1, 2, ...; dtype, values and the sum of the row keys, as the first version of
# ingest gave them, which read whole tables with pandas. Keys must never change, or rows change sides.
CELLS: dict[str, tuple[list[str], str, list[Any], int]] = {
    "whole": (["1", "-7", "7", "0"], "int64", [1, -7, 7, 0], -4004632524010039936),
    "gaps": (["1", "NA", "3", ""], "float64", [1.0, None, 3.0, None], 5712798780746858218),
    "past 53 bits": (
        ["9007199254740993", "1", "2", "3"],
        "int64",
        [9007199254740993, 1, 2, 3],
        -4543690748289458717,
    ),
    "past 64 bits": (
        ["9223372036854775808", "1", "2", "3"],
        "str",
        ["9223372036854775808", "1", "2", "3"],
        8296471816585118369,
    ),
    "codes": (["01067", "1067", "2", "3"], "str", ["01067", "1067", "2", "3"], 289557829253155386),
    "floats": (["1.5", ".5", "1e3", "-0"], "float64", [1.5, 0.5, 1000.0, -0.0], 3230625140884535226),
    "infinite": (["1.5", "inf", "-inf", "3"], "float64", [1.5, np.inf, -np.inf, 3.0], 5570314861711033706),
    "not a number": (["1.5", "nan", "NaN", "3"], "float64", [1.5, None, None, 3.0], -7336120717277811300),
    "blanks around": ([" 1", " 2 ", "3 ", "4"], "int64", [1, 2, 3, 4], -3576841261891140863),
    "true or false": (["true", "False", "TRUE", "tRue"], "bool", [True, False, True, True], -4705042898194388768),
    "true with gaps": (["true", "", "null", "false"], "boolean", [True, None, None, False], -1032228177906253778),
    "one and true": (["1", "0", "true", "false"], "str", ["1", "0", "true", "false"], 7680331404493612240),
    "nothing": (["", "NA", "null", " "], "float64", [None] * 4, 8357355115459224899),
    "words": (["b", " a ", "", "N/A"], "str", ["b", "a", None, None], 6507476001370256500),
    "a blank before NA": ([" NA", "a", "b", "c"], "str", [None, "a", "b", "c"], -697585169372019199),
    "iso days": (
        ["2020-01-05", "2020-02-29", "1969-12-31", ""],
        "datetime64[us]",
        [*map(pd.Timestamp, ["2020-01-05", "2020-02-29", "1969-12-31"]), None],
        -1034013100987561706,
    ),
    "iso zones": (
        ["2020-01-05T10:00:00+02:00", "2020-01-05T00Z", "2020-01-05T10:00:00Z", "2020-01-05 10:00+00"],
        "datetime64[us]",
        [*map(pd.Timestamp, ["2020-01-05 08:00", "2020-01-05", "2020-01-05 10:00", "2020-01-05 10:00"])],
        -3320432219167801580,
    ),
    "months": (
        ["2020-01", "2020-02", "2020-03", "2020-04"],
        "datetime64[us]",
        [*map(pd.Timestamp, ["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01"])],
        -5048138321266883594,
    ),
    "german days": (
        ["05.01.2020", "06.01.2020", "", "07.01.2020"],
        "datetime64[us]",
        [pd.Timestamp("2020-01-05"), pd.Timestamp("2020-01-06"), None, pd.Timestamp("2020-01-07")],
        -4655207968742677214,
    ),
    "either": (
        ["01/02/2020", "03/04/2020", "05/06/2020", "07/08/2020"],
        "str",
        ["01/02/2020", "03/04/2020", "05/06/2020", "07/08/2020"],
        -2946209431248128535,
    ),
}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_cells_mean_what_they_always_did(
    name: str, careful: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, dtype, values, keys = CELLS[name]
    if careful:
        monkeypatch.setattr(parquet_writer, "_plan_from_first_rows", lambda *_: None)
    path = tmp_path / "t.csv"
    path.write_text("x,price\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    frame = ingested(path)
    assert str(frame["x"].dtype) == dtype
    assert [None if pd.isna(v) else v for v in frame["x"]] == values
    assert int(frame[table_io.ROW_KEY].to_numpy().sum()) == keys


WORDS = ["", "1", "2.5", "-0", "NA", "nan", " 7", "7 ", "true", "False", "x", '"q"', '"a,b"', 'i"n', "2020-01-05"]
WORDS += ["2020-01-05 10:00:00", "2020-1-5", "03.04.2020", "13/01/2020", "01/02/2020", "$5", "inf", "9" * 20, "ü", '""']


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True).flatmap(
        lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=30)
    ),
    st.lists(st.sampled_from(WORDS), max_size=2),
    st.sampled_from(["", "\n", "short\n", "a,b,c,d\n", ",,\n"]),
    st.sampled_from([2, 5, 1000]),
)
@trying(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_quick_way_and_the_careful_way_agree(cells: list[str], later: list[str], end: str, head: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_types, "HEAD_ROWS", head)
        path = Path(name) / "t.csv"
        rows = [f"{i},{cell},{cells[-i - 1]}" for i, cell in enumerate(cells)] + [f"1,{cell},2" for cell in later]
        path.write_text("price,x,y\n" + "\n".join(rows) + "\n" + end)

        def said() -> tuple[Any, str]:
            try:
                return ingested(path), ""
            except InputError as e:
                return None, str(e)

        quick = said()
        patch.setattr(parquet_writer, "_plan_from_first_rows", lambda *_: None)
        careful = said()
        assert quick[1] == careful[1]
        if quick[0] is not None:
            pd.testing.assert_frame_equal(quick[0], careful[0])


def test_a_value_far_below_changes_the_whole_column_or_is_named(tmp_path: Path) -> None:
    rows = column_types.HEAD_ROWS + 500
    table = pd.DataFrame({"price": range(rows), "size": [str(i) for i in range(rows)], "town": "Ulm"})
    path = tmp_path / "t.csv"
    for late, dtype in (("", "float64"), ("1.5", "float64"), ("NA", "float64")):
        table.loc[rows - 7, "size"] = late
        table.to_csv(path, index=False)
        assert str(ingested(path)["size"].dtype) == dtype
    table.loc[rows - 7, "size"] = "large"
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=f"'size' mixes types.*'large' on line {rows - 5}"):
        ingested(path)
    lines = path.read_text().replace("large", "1").splitlines()
    path.write_text("\n".join([*lines[:-3], "1,2", *lines[-2:]]) + "\n")
    with pytest.raises(InputError, match=f"line {rows - 1} has 2 cells"):
        ingested(path)


@pytest.mark.parametrize("late", ["007", "99999999999999999999"])
@pytest.mark.parametrize("above", ["7", "1.5", ""])
@pytest.mark.parametrize("mark", [",", ";"])
def test_a_code_far_below_keeps_its_digits(late: str, above: str, mark: str, tmp_path: Path) -> None:
    rows = column_types.HEAD_ROWS + 500
    table = pd.DataFrame({"price": range(rows), "zip": [str(i) for i in range(rows)], "town": "Ulm"})
    table.loc[5, "zip"] = above
    table.loc[rows - 7, "zip"] = late
    path = tmp_path / "t.csv"
    table.to_csv(path, index=False, sep=mark)
    read = ingested(path)["zip"]
    if late != "007" and above == "1.5":  # among measured values a large one is a number
        assert str(read.dtype) == "float64"
    else:
        assert read[rows - 7] == late
        assert read[6] == "6"


def test_words_that_begin_with_zeros_make_no_words_of_numbers(tmp_path: Path) -> None:
    rows = column_types.HEAD_ROWS + 500
    table = pd.DataFrame({"price": range(rows), "share": 0.25, "day": "01/02/2020", "code": "x"})
    table.loc[rows - 7, "code"] = "007"
    table.to_csv(tmp_path / "t.csv", index=False)
    read = ingested(tmp_path / "t.csv")
    assert [str(read[name].dtype) for name in ("price", "share")] == ["int64", "float64"]
    assert read["code"][rows - 7] == "007"


CODED = ["1", "0", "0.5", "10", "x", "ü", "2020-01-01", "01/02/2020", "-007", "07x", "a 05", "", "007", "00"]


@given(
    st.lists(st.lists(st.sampled_from(CODED), min_size=2, max_size=2), max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([4, 16, 1 << 20]),
    st.booleans(),
    st.booleans(),
)
@trying(max_examples=200, deadline=None)
def test_a_code_is_seen_wherever_it_stands(
    rows: list[list[str]], mark: str, end: str, block: int, quoted: bool, last: bool
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_parsing, "_SCAN_BLOCK_BYTES", block)
        lines = [mark.join(f'"{cell}"' if quoted else cell for cell in row) for row in (["a", "b"], *rows)]
        path = Path(name) / "t.csv"
        path.write_bytes((end.join(lines) + end * last).encode())
        coded = any(cell in ("007", "00") for row in rows for cell in row)
        assert text_parsing.may_hold_codes(path, CsvDialect(mark, ("a", "b"), "\n", ("a", "b"))) == coded


def test_what_a_killed_ingest_left_is_deleted_and_what_a_living_one_uses_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from windvane.tasks.ingest import ingestion\n"
        f"with ingestion.open_scratch_folder(Path({str(tmp_path)!r})) as folder:\n"
        "    (folder / 'half').write_bytes(b'x'); print(folder.name, flush=True); time.sleep(600)"
    )

    def at_work() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    (killed, left), (living, used) = at_work(), at_work()
    try:
        killed.kill()
        killed.wait()
        assert {left, used} <= {path.name for path in (tmp_path / DATA_FOLDER).iterdir()}
        houses().to_csv(tmp_path / "t.csv", index=False)
        ingestion.run_ingest(tmp_path, chosen("t.csv"))
        assert {path.name for path in (tmp_path / DATA_FOLDER).iterdir()} == {used, f"{used}.lock", "table.parquet"}
    finally:
        living.kill()
        living.wait()
        for process in (killed, living):
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "houses").mkdir()
    return tmp_path / "houses"


def pack(path: Path, how: str) -> Path:
    import pyarrow as pa

    target = path.with_name(f"{path.name}.{how}")
    if how == "gz":
        target.write_bytes(gzip.compress(path.read_bytes()))
    else:
        with pa.output_stream(str(target), compression="zstd") as f:
            f.write(path.read_bytes())
    path.unlink()
    return target


WAYS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, date_format="iso"),
}


@pytest.mark.parametrize("how", ["gz", "zst"])
@pytest.mark.parametrize("way", WAYS)
def test_packed_files_and_folders_of_all_formats(way: str, how: str, folder: Path) -> None:
    whole = houses(90)
    WAYS["csv"](whole, folder.parent / "whole.csv")
    for number, start in enumerate(range(0, 90, 30)):
        path = folder / f"{number}.{way}"
        WAYS[way](whole.iloc[start : start + 30], path)
        if number != 1:
            pack(path, how)
    pd.testing.assert_frame_equal(ingested(folder, time="day"), ingested(folder.parent / "whole.csv", time="day"))


def test_files_that_differ_widen_fill_up_or_are_named(folder: Path) -> None:
    (folder / "a.csv").write_text("price,size\n1,2\n2,3\n")
    (folder / "b.csv").write_text("size,price,town\n2.5,3,Ulm\n,4,Bonn\n")
    (folder / "c.csv").write_text("price,size,town\n5,,\n")
    frame = ingested(folder)
    assert frame["price"].tolist() == [1, 2, 3, 4, 5]
    assert frame["size"].tolist()[:3] == [2.0, 3.0, 2.5]
    assert frame["town"].isna().tolist() == [True, True, False, False, True]
    # A row keeps its key when another file joins.
    alone = ingested(folder / "b.csv")
    assert frame[table_io.ROW_KEY].tolist()[2:4] == alone[table_io.ROW_KEY].tolist()
    (folder / "d.csv").write_text("price,size,town\n5,large,Ulm\n")
    with pytest.raises(InputError, match=r"d\.csv: column 'size' mixes types: text here, numbers in .*a\.csv"):
        ingested(folder)
    (folder / "d.csv").write_text("price,size,town\n5,2\n")
    with pytest.raises(InputError, match=r"d\.csv: line 2 has 2 cells"):
        ingested(folder)


def test_a_record_of_origin_lists_the_parts(tmp_path: Path) -> None:
    (tmp_path / ".windvane/data/raw").mkdir(parents=True)
    (tmp_path / ".windvane/data/raw/2.csv").write_text("price,size\n1,2\n")
    (tmp_path / ".windvane/data/raw/1.csv").write_text("price,size\n3,4\n")
    parts = [
        {
            "path": f".windvane/data/raw/{name}",
            "rows": 1,
            "bytes": (tmp_path / ".windvane/data/raw" / name).stat().st_size,
            "sha256": "",
            "read": "",
        }
        for name in ("2.csv", "1.csv")
    ]
    record = {"kind": "bucket", "where": "s3://bucket/houses.csv", "identity": "", "parts": parts}
    io.write_json(record, tmp_path / ".windvane/data/raw/origin.json")
    ingestion.run_ingest(tmp_path, chosen("s3://bucket/houses.csv"))
    assert table_io.read_parquet(tmp_path / table_profile.TABLE_FILE)["price"].tolist() == [1, 3]
    assert sorted(p.name for p in (tmp_path / DATA_FOLDER).iterdir()) == ["raw", "table.parquet"]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(1, 20))
@trying(max_examples=40, deadline=None)
def test_sorting_in_ranges_is_a_stable_sort(times: list[int], chunk: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_writer, "SORT_CHUNK_ROWS", chunk)
        frame = pl.DataFrame({"time": times, "at": range(len(times))})
        frame.write_parquet(Path(name) / "a")
        parquet_writer.sort_by_time(Path(name) / "a", "time", Path(name) / "b")
        expected = frame.sort("time", maintain_order=True)
        assert pl.read_parquet(Path(name) / "b").equals(expected)
        assert parquet_writer.is_sorted_by_time(Path(name) / "a", "time") == (times == sorted(times))
        assert parquet_writer.is_sorted_by_time(Path(name) / "b", "time")


def limited(mine: project_params.Settings, rows: int | None) -> project_params.Settings:
    return mine.model_copy(update={"data": mine.data.model_copy(update={"max_rows": rows})})


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(strategies, "_MIN_TEST_SAMPLE_ROWS", 100)
    table = houses(6000).assign(town=["Rom"] * 30 + ["Ulm", "Bonn", "Kiel"] * 1990)
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "t.parquet")
    io.write_json({"taught_until": None}, tmp_path / io.TRAINED_UNTIL_FILE)
    return tmp_path


def test_with_time_the_newest_rows_teach_and_it_is_said(large: Path) -> None:
    mine = limited(chosen("t.parquet", time="day", split={"strategy": "time"}), 1000)
    ingestion.run_ingest(large, mine)
    data_split.run_split(large, mine)
    train, validation = data_split.read_training_rows(large, mine)
    whole, _ = data_split.read_training_rows(large, limited(mine, None))
    assert train["day"].tolist() == whole["day"].tolist()[-1000:]
    assert (len(validation), len(data_split.open_test_rows(large, mine, data_split.TestPermit("x")))) == (214, 214)
    final = data_split.read_final_rows(large, mine, data_split.TestPermit("x"))
    assert len(final) == 1000
    assert final["day"].max() == pd.Timestamp("2020-01-01") + pd.Timedelta(days=5999)
    assert "1,000 of 6,000 rows (the newest)" in str(data_split.describe_sampled_split(large, mine))
    assert data_split.describe_sampled_split(large, limited(mine, None)) is None


def test_without_time_a_sample_keeps_classes_and_grows_into_itself(large: Path) -> None:
    problem = {"kind": "classification", "target": "town", "ignore": ["day"]}
    mine = limited(chosen("t.parquet", **problem, split={"strategy": "stratified"}), 1000)
    ingestion.run_ingest(large, mine)
    data_split.run_split(large, mine)
    train, _ = data_split.read_training_rows(large, mine)
    whole, _ = data_split.read_training_rows(large, limited(mine, None))
    assert len(train) == pytest.approx(1000, abs=40)
    assert (train["town"] == "Rom").sum() == (whole["town"] == "Rom").sum()
    more, _ = data_split.read_training_rows(large, limited(mine, 2000))
    assert set(train[table_io.ROW_KEY]) < set(more[table_io.ROW_KEY]) < set(whole[table_io.ROW_KEY])
    assert "stratified by class" in str(data_split.describe_sampled_split(large, mine))


def test_a_table_is_the_same_to_the_byte_on_any_number_of_cores(tmp_path: Path) -> None:
    houses(20_000).to_csv(tmp_path / "t.csv", index=False)
    made = []
    for threads in ("1", "3"):
        code = (
            "from pathlib import Path; from windvane.tasks.ingest import ingestion, table_io; "
            "from tests.support.tables import chosen; "
            f"table_io.ROW_GROUP_ROWS = 3000; ingestion.run_ingest(Path({str(tmp_path)!r}), chosen('t.csv', time='day'))"
        )
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "POLARS_MAX_THREADS": threads})
        made.append((tmp_path / table_profile.TABLE_FILE).read_bytes())
    assert made[0] == made[1]


def test_nothing_stays_behind_when_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(b"no gzip at all")
    with pytest.raises(InputError, match="cannot be unpacked"):
        ingestion.run_ingest(tmp_path, chosen("t.csv.gz"))
    assert [p.name for p in tmp_path.rglob("*")] == ["t.csv.gz"]


@pytest.mark.parametrize("rows", [0, 2])
def test_columns_without_a_single_value_are_read_back(tmp_path: Path, rows: int) -> None:
    """Their row groups state nothing; the source's new rows are such a frame where there are none."""
    frame = pd.DataFrame({"size": [1.0, 2.0], "sold": [True, False], "nothing": [None, None]}).iloc[:rows]
    table_io.write_parquet(frame, tmp_path / "t.parquet")
    assert table_io.count_missing(tmp_path / "t.parquet") == {"size": 0, "sold": 0, "nothing": rows}
    assert table_io.read_parquet(tmp_path / "t.parquet").dtypes["sold"] == "bool"
    assert table_io.read_column_ends(tmp_path / "t.parquet")["nothing"].missing == rows
