"""Stage 3: which rows teach, which tune, which judge. Owns that record and the seal on the test side.

The rows themselves stay in table.parquet and are read through it. Leaves the strategies to tasks/partition.py,
and which rows of a large side are used to tasks/sampling.py.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from windvane.tasks import history, profile, sampling, settings, tables
from windvane.tasks.checks import overlap
from windvane.tasks.errors import SealedError
from windvane.tasks.partition import Sides, Time, divide
from windvane.tasks.places import DATA

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SPLIT = DATA / "split"
TAUGHT_UNTIL = DATA / "taught_until.json"
SIDES, RECORD = "sides.parquet", "split.json"
# What the column `side` says of the row at the same place in table.parquet; 0: it has no label.
SIDE = "side"
TRAIN, VALIDATION, TEST = 1, 2, 3


@dataclass(frozen=True)
class Permit:
    """Leave to open the test side, given by the ledger for one fingerprint."""

    fingerprint: str


def run(root: Path, chosen: settings.Settings) -> None:
    """Give each row of table.parquet that has a label a side; write sides.parquet and split.json to split."""
    import numpy as np
    import polars as pl

    table, path = root / profile.TABLE, root / TAUGHT_UNTIL
    with ThreadPoolExecutor(1) as beside:
        content = beside.submit(_content, table, chosen.problem)
        whole = tables.read_parquet(table, _columns(chosen, unlabelled := tables.gaps(table)[chosen.problem.target]))
        labelled = whole[chosen.problem.target].notna().to_numpy() if unlabelled else np.ones(len(whole), dtype=bool)
        frame = whole if labelled.all() else whole[labelled].reset_index(drop=True)
        again = "Delete it: the next lap writes it again"
        until = tables.read_record(path, lambda c: c["taught_until"], again) if path.exists() else None
        parted = divide(frame, chosen, until)
        codes = np.zeros(len(frame), dtype=np.uint8)
        for code, rows in ((TRAIN, parted.train), (VALIDATION, parted.validation), (TEST, parted.test)):
            codes[rows] = code
        side = codes
        if len(codes) < len(whole):
            side = np.zeros(len(whole), dtype=np.uint8)
            side[labelled] = codes
        tables.write_whole(root / SPLIT / SIDES, lambda part: tables.sink(pl.LazyFrame({SIDE: side}), part))
        found = [asdict(finding) for finding in overlap.find(tables.scan(table), side, chosen)]
        # The hash of the rows: DVC's hash of split stands for both, rows and sides.
        record = {"table": content.result(), **_record(frame, chosen, parted), "findings": found}
    tables.write_json(record, root / SPLIT / RECORD)


def _columns(chosen: settings.Settings, unlabelled: int) -> list[str]:
    """The columns by which rows are parted: time needs no keys, and amounts that are all there part nothing."""
    problem, by_time = chosen.problem, chosen.split.strategy == "time"
    target = problem.target if unlabelled or problem.kind == "classification" else None
    wanted = (target, problem.time, *((tables.ROW, problem.group) if not by_time else ()))
    return list(dict.fromkeys(name for name in wanted if name is not None))


def _content(table: Path, problem: settings.Problem) -> str:
    """SHA-256 of the table: of its columns' names and types and its rows' keys, which without an id are made from every
    cell and are a tenth of the bytes; else of the file.
    """
    if problem.id is not None:
        with table.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    scan = tables.scan(table)
    content = hashlib.sha256(repr(list(scan.collect_schema().items())).encode())
    content.update(scan.select(tables.ROW).collect(engine="streaming")[tables.ROW].to_numpy().data)
    return content.hexdigest()


def _record(frame: pd.DataFrame, chosen: settings.Settings, sides: Sides) -> dict[str, Any]:
    """What a person needs to see which rows judge."""
    import pandas as pd

    times = frame[chosen.problem.time].to_numpy() if chosen.problem.time else None

    def side(mask: NDArray[np.bool_]) -> dict[str, Any]:
        # By numpy: pandas would copy the labels of ten million rows too.
        some = None if times is None else times[mask]
        ends = None if some is None else pd.Series([some.min(), some.max()] if len(some) else [])
        return {"rows": int(mask.sum()), "from": _time(ends, "min"), "to": _time(ends, "max")}

    return {
        "strategy": chosen.split.strategy,
        "train": side(sides.train),
        "validation": side(sides.validation),
        "test": side(sides.test),
        "taught_until": sides.taught_until,
        "reason": sides.reason,
    }


def taught_until(frame: pd.DataFrame, chosen: settings.Settings) -> Time:
    """Newest problem.time of the given rows: ISO 8601 in UTC, a number, or None without problem.time."""
    return None if chosen.problem.time is None else _time(frame[chosen.problem.time], "max")


def _time(times: pd.Series | None, end: str) -> Time:
    if times is None or not len(times):
        return None
    value = getattr(times, end)()
    return str(value.isoformat()) if hasattr(value, "isoformat") else cast("int | float", value.item())


def sides(root: Path, chosen: settings.Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that teach (retrain.history: how far back) and those that tune (none with kfold); of a large side a sample."""
    return history.recent(_rows(root, chosen, (TRAIN,)), chosen), _rows(root, chosen, (VALIDATION,))


def open_test(root: Path, chosen: settings.Settings, permit: Permit) -> pd.DataFrame:
    """The rows that judge; of a large side a sample. Opened once per fingerprint: only the ledger gives a Permit.
    Raises SealedError without one.
    """
    _require(permit)
    return _rows(root, chosen, (TEST,))


def final_rows(root: Path, chosen: settings.Settings, permit: Permit) -> pd.DataFrame:
    """What the registered version is fitted on: train and validation; with strategy time the newest of all rows, now
    that the test rows have judged.
    """
    import pandas as pd

    if chosen.split.strategy != "time":
        return pd.concat([part for part in sides(root, chosen) if len(part)], ignore_index=True)
    _require(permit)
    return history.recent(_rows(root, chosen, (TRAIN, VALIDATION, TEST)), chosen)


def sampled(root: Path, chosen: settings.Settings) -> str | None:
    """That the rows which teach or judge are a sample, in words; None: they are all there are."""
    sides = ("train", "validation", "test")
    rows = tables.read_record(root / SPLIT / RECORD, lambda c: {name: int(c[name]["rows"]) for name in sides})
    return sampling.said(rows, chosen)


def _require(permit: Permit) -> None:
    if not isinstance(permit, Permit) or not permit.fingerprint:
        raise SealedError("split: the test side is sealed. Only the evaluation opens it, with the ledger's permit")


def _rows(root: Path, chosen: settings.Settings, codes: tuple[int, ...]) -> pd.DataFrame:
    """Rows of some sides, in the table's order. Only those wanted are ever in memory as a frame."""
    import numpy as np
    import polars as pl

    table = root / profile.TABLE
    side = pl.read_parquet(root / SPLIT / SIDES, glob=False)[SIDE].to_numpy()
    wanted = np.isin(side, codes)
    most = sampling.most(chosen, judging=TRAIN not in codes)
    if most is not None and wanted.sum() > most:
        known = pl.read_parquet(table, columns=sampling.columns(chosen), glob=False).filter(pl.Series(wanted))
        places = np.flatnonzero(wanted)
        wanted[:] = False
        wanted[places[sampling.pick(known, chosen, most, newest=TRAIN in codes)]] = True
    rows = pl.concat([tables.scan(table), pl.LazyFrame({SIDE: wanted})], how="horizontal")
    frame = rows.filter(pl.col(SIDE)).drop(SIDE).collect(engine="streaming")
    return tables.pandas(frame, tables.gaps(table))
