"""What replay and backtest show: gaps as gaps, one word one number, every decision and every policy, and how long they take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tests.monitoring.test_loss_history import table
from windvane.cli.main import main
from windvane.flows.replay import history_replay, policy_backtest
from windvane.monitoring.history import backtest, loss_matrix, replay_report
from windvane.monitoring.history.loss_matrix import LossMatrix
from windvane.monitoring.history.replay_report import ReplayedWindow, ReplayResult
from windvane.tasks import console as consoles
from windvane.tasks.console import SilentConsole, TimeLeft, count_noun, format_span
from windvane.tasks.errors import Outage


def months(*numbers: int, loss: float = 1.0) -> list[ReplayedWindow]:
    """Windows of these months of 2020 and after, all of which waited."""

    def begin(month: int) -> str:
        return f"{2020 + month // 12}-{month % 12 + 1:02d}-01T00:00:00.000000+00:00"

    return [ReplayedWindow(begin(m), begin(m + 1), 10, 1, loss + m / 100, loss + m / 50) for m in numbers]


def story(chapters: list[ReplayedWindow]) -> ReplayResult:
    return ReplayResult("sales", "staleness", "absolute error", "1mo", True, 100, tuple(chapters))


class Offline:
    """A project whose MLflow does not respond."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def tracker(self) -> Any:
        raise Outage("MLflow does not respond")


class Heard(SilentConsole):
    """A console that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = list[str]()

    def print(self, text: str = "") -> None:
        self.lines.append(text)


def lines_of(figure: Any) -> list[list[float]]:
    """What is drawn as lines in the first axes, longer than a legend's."""
    return [list(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_ydata()) > 1]


def test_f7_ten_months_without_a_window_are_a_gap_and_all_decisions_are_told(tmp_path: Path) -> None:
    one = story(months(0, 1, 2, 13, 14, 15))
    assert [len(part) for part in one.stretches()] == [3, 3]
    assert {len(line) for line in lines_of(replay_report.draw_replay(one))} == {3}, "a line over the gap has six points"
    heard = Heard()
    told = history_replay.report_replay(Offline(tmp_path), one, heard)  # type: ignore[arg-type]
    assert [d["action"] for d in told["decisions"]] == ["wait"] * 6
    refused = replace(one.chapters[0], action="retrain", ending="refused", price=0.5)
    shown = replay_report.draw_replay(story([refused, *one.chapters[1:]]))
    title = " ".join(text.get_text() for text in [*shown.texts, *shown.axes[0].texts])
    assert "1 lap refused" in title
    assert "1 laps" not in title


def test_f7_n1_a_word_on_the_screen_has_its_number_in_the_json(tmp_path: Path) -> None:
    heard = Heard()
    told = history_replay.report_replay(Offline(tmp_path), story(months(*range(40))), heard)  # type: ignore[arg-type]
    never = told["policies"]["never"]
    assert never["loss"] == pytest.approx(40 * never["loss_per_window"])
    screen = next(line for line in heard.lines if "policy" in line).split("\n")
    assert "loss per window" in screen[0]
    assert "total per window" in screen[0]
    row = next(line.split() for line in screen if line.strip().startswith("never"))
    assert float(row[1]) == pytest.approx(never["loss_per_window"], abs=0.005)
    assert float(row[-1]) == pytest.approx(never["total_per_window"], abs=0.005)


def test_f7_n2_windows_without_labels_and_single_ones_are_drawn_as_they_are() -> None:
    silent = [replace(c, loss=float("nan"), never=float("nan")) for c in months(3)]
    one = story([*months(0, 1, 2), *silent, *months(4), *months(8, 9)])
    assert [[c.start[5:7] for c in part] for part in one.stretches()] == [["01", "02", "03"], ["05"], ["09", "10"]]
    drawn = replay_report.draw_replay(one)
    alone = [line for line in drawn.axes[0].lines if len(line.get_ydata()) == 1 and line.get_marker() == "."]
    assert len(alone) == 2, "a window between two gaps would be invisible"
    assert story([]).stretches() == []


def test_f7_n3_backtest_draws_a_gap_where_the_table_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = pd.date_range("2020-01-05", "2021-12-30", freq="D")
    rows = pd.DataFrame({"t": at, "y": 1.0})[(at < "2020-11-01") | (at >= "2021-06-01")]
    cut = loss_matrix.cut_into_windows(rows, "t", "1mo")
    assert cut.gaps == {10}
    assert loss_matrix.cut_into_windows(rows, "t", 30).gaps == frozenset()
    losses = np.where(np.tri(cut.count, k=-1) == 1, np.nan, 1.0)
    found = backtest.compare_policies({"expanding": LossMatrix(losses, 4, None)}, 0.5)
    drawn = list[Any]()
    monkeypatch.setattr(policy_backtest.io, "write_whole", lambda _path, write: write(tmp_path / "part"))
    monkeypatch.setattr(policy_backtest.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    policy_backtest.draw_backtest_result(found, cut, "t", 4, tmp_path / "x" / "picture.png")
    assert {len(line) for line in lines_of(drawn[0])} == {6}, "a line over the gap has twelve points"


def test_f7_n4_how_long_it_takes_is_told_as_people_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(consoles.time, "monotonic", lambda: now[0])
    left = TimeLeft(10)
    assert left.describe(0) == ""
    now[0] += 30
    assert left.describe(2) == ", about 2 min left"
    assert left.describe(10) == ""
    assert [format_span(s) for s in (0.2, 45, 200, 7_200)] == ["1 s", "45 s", "3 min", "2.0 h"]
    assert [count_noun(n, "lap") for n in (0, 1, 2, 1_000)] == ["0 laps", "1 lap", "2 laps", "1,000 laps"]


PARAMS = """project: turning
problem: {kind: regression, target: y, time: t}
data: {source: t.csv}
split: {strategy: time}
monitor: {window: 20}
retrain: {policy: performance, history: "trailing:5"}
"""


@pytest.fixture(scope="module")
def backtested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    folder = tmp_path_factory.mktemp("turning")
    table(400).drop(columns="word").to_csv(folder / "t.csv", index=False)
    (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first = CliRunner().invoke(main, ["backtest", "--json"])
        return first, CliRunner().invoke(main, ["backtest", "--json"])


@pytest.mark.long
def test_f7_n5_backtest_tells_every_policy_under_every_history_with_its_optimum(
    backtested: tuple[Result, Result],
) -> None:
    assert backtested[0].exit_code == 0, backtested[0].output
    told = json.loads(backtested[0].stdout)
    assert set(told["histories"]) >= {"expanding", "trailing:5"}
    for one in told["histories"].values():
        assert {"never", "schedule", "performance", "staleness", "regret"} <= set(one["policies"])
        assert all(p["total"] >= one["oracle"]["total"] - 1e-9 for p in one["policies"].values())
        assert all(p["loss"] == pytest.approx(p["loss_per_window"] * told["windows"]) for p in one["policies"].values())
    assert told["configured"] == {"policy": "performance", "history": "trailing:5", "played": True}
    assert told["default"]["history"] == "expanding"
    assert told["default"]["played"]
    recommended = told["histories"][told["recommended"]["history"]] if told["recommended"]["window"] == "20" else told
    assert told["policies"] == recommended["policies"]
    assert "configured: performance, trailing:5: total per window" in backtested[0].stderr


@pytest.mark.long
def test_f7_n6_backtest_tells_how_long_it_will_take_and_nothing_where_all_is_kept(
    backtested: tuple[Result, Result],
) -> None:
    first, again = backtested
    assert "models to train: about" in first.stderr
    before = first.stderr.index("models to train: about")
    assert before < first.stderr.index("windows of 20 played")
    assert again.exit_code == 0
    assert "to train: about" not in again.stderr
    a, b = json.loads(first.stdout), json.loads(again.stdout)
    assert a["histories"] == b["histories"]
