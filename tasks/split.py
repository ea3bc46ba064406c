"""Stage 3: which rows teach, which tune, which judge. Owns their files and the seal on the test side.

Leaves the strategies to tasks/partition.py.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tasks import profile, settings, tables
from tasks.checks import overlap
from tasks.errors import SealedError, WindvaneError
from tasks.partition import Sides, Time, divide

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

SPLIT = Path("data/split")
TAUGHT_UNTIL = Path("data/taught_until.json")
TRAIN, VALIDATION, TEST, RECORD = "train.parquet", "validation.parquet", "test.parquet", "split.json"


@dataclass(frozen=True)
class Permit:
    """Leave to open the test side, given by the ledger for one fingerprint."""

    fingerprint: str


def run(root: Path, chosen: settings.Settings) -> None:
    """Part the rows of data/table.parquet that have a label; write the three sides and split.json below data/split."""
    frame = tables.read_parquet(root / profile.TABLE)
    frame = frame[frame[chosen.problem.target].notna()].reset_index(drop=True)
    path = root / TAUGHT_UNTIL
    sides = divide(frame, chosen, tables.read_json(path)["taught_until"] if path.exists() else None)
    for name, mask in ((TRAIN, sides.train), (VALIDATION, sides.validation), (TEST, sides.test)):
        tables.write_parquet(frame[mask].reset_index(drop=True), root / SPLIT / name)
    found = overlap.find(frame, numbered(sides), chosen)
    record = {**_record(frame, chosen, sides), "findings": [asdict(finding) for finding in found]}
    tables.write_json(record, root / SPLIT / RECORD)


def numbered(sides: Sides) -> NDArray[np.uint8]:
    """Sides as one number per row: 1 train, 2 validation, 3 test."""
    import numpy as np

    return (sides.train + 2 * sides.validation + 3 * sides.test).astype(np.uint8)


def _record(frame: pd.DataFrame, chosen: settings.Settings, sides: Sides) -> dict[str, Any]:
    """What a person needs to see which rows judge."""

    def side(mask: NDArray[np.bool_]) -> dict[str, Any]:
        rows = frame[mask]
        return {"rows": len(rows), "from": _time(rows, chosen, "min"), "to": _time(rows, chosen, "max")}

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
    return _time(frame, chosen, "max")


def _time(rows: pd.DataFrame, chosen: settings.Settings, end: str) -> Time:
    if chosen.problem.time is None or not len(rows):
        return None
    value = getattr(rows[chosen.problem.time], end)()
    return str(value.isoformat()) if hasattr(value, "isoformat") else cast("int | float", value.item())


def sides(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that teach and the rows that tune (none of these with kfold)."""
    return tables.read_parquet(root / SPLIT / TRAIN), tables.read_parquet(root / SPLIT / VALIDATION)


def open_test(root: Path, permit: Permit) -> pd.DataFrame:
    """The rows that judge. Opened once per fingerprint: only the ledger gives a Permit. Raises SealedError without
    one.
    """
    if not isinstance(permit, Permit) or not permit.fingerprint:
        raise SealedError(
            "data/split/test.parquet: the test side is sealed. Only the evaluation opens it, with the ledger's permit"
        )
    return tables.read_parquet(root / SPLIT / TEST)


def final_rows(root: Path, chosen: settings.Settings, permit: Permit) -> pd.DataFrame:
    """What the registered version is fitted on: train and validation; with strategy time the test rows too, now that
    they have judged.
    """
    import pandas as pd

    parts = [*sides(root), *([open_test(root, permit)] if chosen.split.strategy == "time" else [])]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def main() -> int:
    """`python -m tasks.split`: the DVC stage."""
    try:
        run(Path(), settings.load())
    except WindvaneError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
