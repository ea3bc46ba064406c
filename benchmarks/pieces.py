"""Long benchmarks in pieces: side by side, and each piece's result kept in a file, so that a run that was killed goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.kept_cells import read_commit
from windvane.monitoring.drift import binning, calibration, compared_rows, count_tests, detector, distances, permutation

# Kept results are those of this code, and of no other.
MEASURED = (calibration, binning, compared_rows, count_tests, distances, detector, permutation)
Cell = TypeVar("Cell", bound=tuple[Any, ...])
# Windows in a piece.
PIECE = 50


@dataclass(frozen=True)
class Work:
    """`jobs` processes, and the folder in which results are kept, if they are to be."""

    jobs: int
    kept: Path | None = None

    def sums(
        self, play: Callable[..., list[int]], cells: Iterable[Cell], windows: int, presets: int
    ) -> dict[Cell, list[int]]:
        """Of each cell the sum of play(*cell, first, last, presets) over its windows, counts each."""
        pieces = [(c, i, min(i + PIECE, windows)) for c in cells for i in range(0, windows, PIECE)]
        found: dict[Cell, Any] = {}
        with ProcessPoolExecutor(self.jobs) as pool:
            waiting = [(c, pool.submit(self._piece, play, (*c, first, last, presets))) for c, first, last in pieces]
            for cell, piece in waiting:
                found[cell] = np.add(found.get(cell, 0), piece.result())
        return {cell: [int(n) for n in counts] for cell, counts in found.items()}

    def each(self, play: Callable[..., Any], pieces: Iterable[tuple[Any, ...]]) -> list[Any]:
        """What play(*piece) found for each, in order: plain values. Where there is time, seasons play a part."""
        with ProcessPoolExecutor(self.jobs) as pool:
            waiting = [pool.submit(self._piece, play, piece, True) for piece in pieces]
            return [piece.result() for piece in waiting]

    def _piece(self, play: Callable[..., Any], asked: tuple[Any, ...], timed: bool = False) -> Any:
        if self.kept is None:
            return play(*asked)
        path = self.kept / f"{_mark(timed, play.__name__, asked)}.json"
        if path.exists():
            return json.loads(path.read_text())["counts"]
        counts = play(*asked)
        self.kept.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"asked": asked, "commit": read_commit(), "counts": counts}, default=repr))
        part.replace(path)
        return counts


def _mark(timed: bool, *what: Any) -> str:
    digest = hashlib.sha256(repr(what).encode())
    for module in (*MEASURED, calibration) if timed else MEASURED:
        digest.update(Path(str(module.__file__)).read_bytes())
    return f"{what[0]}-{digest.hexdigest()[:16]}"
