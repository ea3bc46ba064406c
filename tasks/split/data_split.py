"""Stage 3: which rows train, validate and test, the record of it, and the seal on the test rows."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray

from windvane.tasks import io
from windvane.tasks.errors import SealedError
from windvane.tasks.ingest import table_io
from windvane.tasks.io import DATA_FOLDER
from windvane.tasks.settings import problem_section, project_params
from windvane.tasks.split import strategies, time_windows
from windvane.tasks.split.strategies import SplitMasks, TimeValue, split_rows
from windvane.tasks.validate import table_profile
from windvane.tasks.validate.checks import duplicate_checks
from windvane.tasks.validate.checks.duplicate_checks import GAP_CODE, TEST_CODE, TRAIN_CODE, VALIDATION_CODE

SPLIT_FOLDER = DATA_FOLDER / "split"
SPLIT_CODES_FILE, SPLIT_RECORD_FILE = "sides.parquet", "split.json"
# Its column holds the split of the row at the same place in table.parquet; 0: it has no label.
SPLIT_COLUMN = "side"


@dataclass(frozen=True)
class TestPermit:
    """Leave to open the test split, given by the ledger for one fingerprint."""

    fingerprint: str


def run_split(root: Path, chosen: project_params.Settings) -> None:
    """Give each row of table.parquet that has a label a split, but for classes that validate set aside; write sides.parquet and
    split.json to split.
    """
    table, path = root / table_profile.TABLE_FILE, root / io.TRAINED_UNTIL_FILE
    with ThreadPoolExecutor(1) as beside:
        content = beside.submit(_hash_table, table, chosen.problem)
        unlabelled = table_io.count_missing(table)[chosen.problem.target]
        whole = table_io.read_parquet(table, _columns(chosen, unlabelled))
        labelled = whole[chosen.problem.target].notna().to_numpy() if unlabelled else np.ones(len(whole), dtype=bool)
        profile = _read_profile(root)
        if profile is not None and (apart := profile.set_aside) and chosen.problem.kind == "classification":
            labelled &= ~whole[chosen.problem.target].isin(apart).to_numpy()
        frame = whole if labelled.all() else whole[labelled].reset_index(drop=True)
        again = "Delete it: the next lap writes it again"
        until = io.read_record(path, lambda c: c["taught_until"], again) if path.exists() else None
        categories = profile is not None and strategies.holds_categories(c.distinct for c in profile.columns)
        parted = split_rows(frame, chosen, until, categories=categories)
        codes = np.zeros(len(frame), dtype=np.uint8)
        masks = (parted.train, parted.validation, parted.test, parted.gap)
        for code, mask in zip((TRAIN_CODE, VALIDATION_CODE, TEST_CODE, GAP_CODE), masks, strict=True):
            codes[mask] = code
        side = np.zeros(len(whole), dtype=np.uint8)
        side[labelled] = codes
        io.write_whole(
            root / SPLIT_FOLDER / SPLIT_CODES_FILE,
            lambda part: table_io.sink_parquet(pl.LazyFrame({SPLIT_COLUMN: side}), part),
        )
        found = [asdict(f) for f in duplicate_checks.find_overlap(table_io.scan_parquet(table), side, chosen)]
        # The hash of the rows: DVC's hash of split covers both, rows and splits.
        record = {"table": content.result(), **_build_split_record(frame, chosen, parted), "findings": found}
    io.write_json(record, root / SPLIT_FOLDER / SPLIT_RECORD_FILE)


def _read_profile(root: Path) -> table_profile.TableProfile | None:
    """What validate wrote; None: nothing."""
    path = root / table_profile.PROFILE_FILE
    return table_profile.read_profile(path) if path.exists() else None


def _columns(chosen: project_params.Settings, unlabelled: int) -> list[str]:
    """The columns by which rows are parted: time needs no keys, and amounts that are all there part nothing."""
    problem, by_time = chosen.problem, chosen.split.strategy == "time"
    target = problem.target if unlabelled or problem.kind == "classification" else None
    wanted = (target, problem.time, *((table_io.ROW_KEY, problem.group) if not by_time else ()))
    return list(dict.fromkeys(name for name in wanted if name is not None))


def _hash_table(table: Path, problem: problem_section.ProblemSettings) -> str:
    """SHA-256 of the table: of its columns' names and types and its rows' keys, which without an id are made from every
    cell and are a tenth of the bytes; else of the file.
    """
    if problem.id is not None:
        with table.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    scan = table_io.scan_parquet(table)
    content = hashlib.sha256(repr(list(scan.collect_schema().items())).encode())
    content.update(scan.select(table_io.ROW_KEY).collect(engine="streaming")[table_io.ROW_KEY].to_numpy().data)
    return content.hexdigest()


def _build_split_record(frame: pd.DataFrame, chosen: project_params.Settings, sides: SplitMasks) -> dict[str, Any]:
    """What a person needs to see which rows judge."""
    times = frame[chosen.problem.time].to_numpy() if chosen.problem.time else None

    def side(mask: NDArray[np.bool_]) -> dict[str, Any]:
        # By numpy: pandas would copy the labels of ten million rows too.
        some = None if times is None else times[mask]
        ends = None if some is None else pd.Series([some.min(), some.max()] if len(some) else [])
        return {"rows": int(mask.sum()), "from": _time(ends, "min"), "to": _time(ends, "max")}

    names = ("train", "validation", "test", *(("gap",) if sides.gap.any() else ()))
    parts = {name: side(getattr(sides, name)) for name in names}
    return {"strategy": chosen.split.strategy, **parts, "taught_until": sides.taught_until, "reason": sides.reason}


def find_trained_until(frame: pd.DataFrame, chosen: project_params.Settings) -> TimeValue:
    """Newest problem.time of the given rows: ISO 8601 in UTC, a number, or None without problem.time."""
    return None if chosen.problem.time is None else _time(frame[chosen.problem.time], "max")


def _time(times: pd.Series | None, end: str) -> TimeValue:
    if times is None or not len(times):
        return None
    value = getattr(times, end)()
    return str(value.isoformat()) if hasattr(value, "isoformat") else cast("int | float", value.item())


def read_training_rows(root: Path, chosen: project_params.Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training rows (retrain.history: how far back) and those for validation (none with kfold); of a large side a sample."""
    train, validation = (_rows(root, chosen, (code,)) for code in (TRAIN_CODE, VALIDATION_CODE))
    return time_windows.select_recent_rows(train, chosen), validation


def open_test_rows(root: Path, chosen: project_params.Settings, permit: TestPermit) -> pd.DataFrame:
    """The test rows; of a large side a sample. Opened once per fingerprint: only the ledger gives a permit.
    Raises SealedError without one.
    """
    _require_permit(permit)
    return _rows(root, chosen, (TEST_CODE,))


def read_final_rows(root: Path, chosen: project_params.Settings, permit: TestPermit) -> pd.DataFrame:
    """What the registered version is fitted on: train and validation; with strategy time the newest of all rows, those of
    the gaps too, now that the test rows have judged.
    """
    if chosen.split.strategy != "time":
        return pd.concat([part for part in read_training_rows(root, chosen) if len(part)], ignore_index=True)
    _require_permit(permit)
    every = (TRAIN_CODE, VALIDATION_CODE, TEST_CODE, GAP_CODE)
    return time_windows.select_recent_rows(_rows(root, chosen, every), chosen)


def describe_sampled_split(root: Path, chosen: project_params.Settings) -> str | None:
    """That the training or test rows are a sample, in words; None: they are all there are."""
    sides = ("train", "validation", "test")
    record = root / SPLIT_FOLDER / SPLIT_RECORD_FILE
    rows = io.read_record(record, lambda c: {name: int(c[name]["rows"]) for name in sides})
    return strategies.describe_sampling(rows, chosen)


def _require_permit(permit: TestPermit) -> None:
    if not isinstance(permit, TestPermit) or not permit.fingerprint:
        raise SealedError("split: the test split is sealed. Only the evaluation opens it, with the ledger's permit")


def _rows(root: Path, chosen: project_params.Settings, codes: tuple[int, ...]) -> pd.DataFrame:
    """Rows of some splits, in the table's order. Only those wanted are ever in memory as a frame."""
    table = root / table_profile.TABLE_FILE
    side = pl.read_parquet(root / SPLIT_FOLDER / SPLIT_CODES_FILE, glob=False)[SPLIT_COLUMN].to_numpy()
    wanted = np.isin(side, codes)
    most = strategies.choose_row_limit(chosen, judging=TRAIN_CODE not in codes)
    if most is not None and wanted.sum() > most:
        known = pl.read_parquet(table, columns=strategies.list_sampling_columns(chosen), glob=False)
        picked = strategies.pick_rows(known.filter(wanted), chosen, most, newest=TRAIN_CODE in codes)
        wanted = np.isin(np.arange(len(wanted)), np.flatnonzero(wanted)[picked])
    rows = pl.concat([table_io.scan_parquet(table), pl.LazyFrame({SPLIT_COLUMN: wanted})], how="horizontal")
    frame = rows.filter(pl.col(SPLIT_COLUMN)).drop(SPLIT_COLUMN).collect(engine="streaming")
    return table_io.convert_to_pandas(frame, table_io.count_missing(table))
