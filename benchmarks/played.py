"""A stream played through everything that `windvane up` runs: traffic, labels later, the shift, the lap, the swap.

`python benchmarks/played.py [--table FILE] [--windows N] [--no-labels] [--shift W]`: a project on the first part of a table
(default: Texas house prices), `windvane up --clock events`, then a window of traffic after the other through the scoring service,
each window's labels one window later. From window W on prices are another (1.6 times) and half the listings are gone; W 0: the
stream as it is. A line a window is printed: what the watch saw and decided, and which version answered.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tests.support.projects import ROOT, Folder
from tests.support.running_up import Up, standing, until
from windvane.ledger import database, decisions, windows
from windvane.ledger.decisions import DecisionRecord

TARGET, TIME = "median", "ts"
# What only names the time of a row is never as it was.
IGNORE = ["volume", "year", "month", "date"]
SHIFTED = {TARGET: 1.6, "listings": 0.5}


@dataclass(frozen=True)
class Played:
    """One window: its start, the version that answered, what was decided by the time the next one began, and why."""

    start: str
    version: int
    decided: tuple[DecisionRecord, ...]

    @property
    def actions(self) -> set[str]:
        """What was decided."""
        return {entry.action for entry in self.decided}


def prepare(path: Path, table: Path, until_: str, **changes: Any) -> Folder:
    """A project that learns the rows of a table before a moment, with a quick search."""
    folder = Folder(path)
    (path / "data").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, path / name)
    rows = pd.read_csv(table)
    rows[rows[TIME] < until_].to_csv(path / "data" / "txhousing.csv", index=False)
    folder.set(
        problem__ignore=IGNORE,
        search__candidates=["linear", "boosting"],
        search__trials=4,
        # A look a day of the stream, on the day's first moment.
        schedule__monitor="0 0 * * *",
        **{"retrain__cooldown": "0d", "retrain__policy": "staleness", **changes},
    )
    return folder


def again(table: Path, before: str, months: int, first: str, rows: int, seed: int = 0) -> list[pd.DataFrame]:
    """Windows in which nothing changed: rows drawn from the year before a moment, as if they came in the months from `first` on."""
    known = pd.read_csv(table, parse_dates=[TIME])
    known = known[(known[TIME] < before) & known[TARGET].notna()].sort_values(TIME)
    year = known[known[TIME] >= pd.Timestamp(before) - pd.DateOffset(months=12)]
    made = []
    for month in range(months):
        start = pd.Timestamp(first) + pd.DateOffset(months=month)
        drawn = year.sample(rows, replace=True, random_state=seed + month)
        made.append(drawn.assign(**{TIME: pd.date_range(start, periods=rows, freq=pd.Timedelta(days=27) / rows)}))
    return made


def shifted(frame: pd.DataFrame) -> pd.DataFrame:
    """Other prices, fewer listings."""
    return frame.assign(**{name: frame[name] * by for name, by in SHIFTED.items()})


class Player:
    """Traffic for a standing project."""

    def __init__(self, up: Up, labels: bool) -> None:
        self.up, self.labels = up, labels
        self.engine = database.connect_ledger(f"sqlite:///{up.folder.path / '.windvane' / 'ledger.db'}")
        self.name = str(up.told["project"])
        self._owed: list[dict[str, Any]] = []

    def play(self, frame: pd.DataFrame) -> Played:
        """A window: the labels of the one before, its own rows, and then until the watch has looked and acted."""
        before = {entry.id for entry in decisions.list_decisions(self.engine, self.name)}
        if self._owed:
            told = self.up.service("POST", "/labels", json=self._owed)
            assert told.status_code == 200, told.text
        asked = frame.drop(columns=[TARGET, *IGNORE])
        asked[TIME] = asked[TIME].dt.strftime("%Y-%m-%dT%H:%M:%S")
        answer = self._ask(asked)
        if self.labels:
            pairs = zip(answer["ids"], frame[TARGET], strict=True)
            self._owed = [{"id": id_, "label": label} for id_, label in pairs]
        start, version = frame[TIME].min().strftime("%Y-%m"), int(answer["model_version"])
        self._settled(start, version, len(frame))
        entries = decisions.list_decisions(self.engine, self.name)
        return Played(start, version, tuple(e for e in entries if e.id not in before))

    def _ask(self, frame: pd.DataFrame) -> dict[str, Any]:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        answer = self.up.service("POST", "/invocations", json={"dataframe_records": rows})
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def _settled(self, start: str, version: int, rows: int) -> None:
        """Until the window was looked at with all its rows, and what was decided then is done."""

        def done() -> bool:
            seen = [s for s in windows.list_windows(self.engine, self.name, version) if s.start.startswith(start)]
            said = [e for e in decisions.list_decisions(self.engine, self.name) if e.window.startswith(start)]
            looked = bool(seen) and seen[-1].rows >= rows and bool(said) and said[-1].recorded >= seen[-1].looked
            return looked and decisions.find_pending_retraining(self.engine, self.name) is None

        until(done, 400, f"the watch looks at the window from {start}, and what it decides is done")
        # Whoever was promoted answers before the next window comes.
        time.sleep(2)


def main() -> int:
    """Print what happened, a line a window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=ROOT / "data" / "txhousing.csv")
    parser.add_argument("--until", default="2010-01-01", help="The rows before are learned.")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument(
        "--rows", type=int, default=0, help="Rows a window, drawn from the last year; 0: the stream as it was."
    )
    parser.add_argument("--shift", type=int, default=0, help="The first window that is another; 0: none.")
    parser.add_argument("--no-labels", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = prepare(Path(name) / "project", chosen.table, chosen.until)
        if chosen.rows:
            stream = again(chosen.table, chosen.until, chosen.windows, chosen.until, chosen.rows)
        else:
            known = pd.read_csv(chosen.table, parse_dates=[TIME])
            known = known[(known[TIME] >= chosen.until) & known[TARGET].notna()]
            stream = [frame for _, frame in known.groupby(known[TIME].dt.to_period("M"))][: chosen.windows]
        print("| window | version | decided | why |\n|---|---|---|---|")
        with standing(folder, "--clock", "events") as up:
            folder.train()
            until(lambda: up.service("GET", "/ping").status_code == 200, what="a champion answers")
            player = Player(up, not chosen.no_labels)
            for number, frame in enumerate(stream, 1):
                played = player.play(shifted(frame) if chosen.shift and number >= chosen.shift else frame)
                why = "; ".join(e.reason for e in played.decided)
                print(
                    f"| {played.start} | {played.version} | {', '.join(sorted(played.actions))} | {why} |", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
