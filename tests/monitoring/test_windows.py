"""How production is cut into windows, what a look may spend, and the rows of a window as a frame."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.monitoring.test_decision_policies import look
from tests.support.ledgers import answer, put
from tests.support.tables import chosen, houses
from windvane.ledger import database, labels, windows
from windvane.ledger.database import to_timestamp
from windvane.ledger.labels import LabelStatement
from windvane.ledger.predictions import PrivacyRules
from windvane.ledger.versions import VersionFacts
from windvane.ledger.windows import WindowRecord
from windvane.monitoring import window_frames
from windvane.monitoring.records import WindowAssessment
from windvane.monitoring.watch import production
from windvane.monitoring.watch.window_checks import select_known_states
from windvane.monitoring.watch.windows import (
    WindowSpan,
    compute_check_level,
    find_event_time,
    find_first_window_start,
    is_check_due,
    list_calendar_windows,
    list_row_windows,
)
from windvane.tasks.errors import InputError
from windvane.tasks.models.features import FeatureColumns
from windvane.tasks.settings.monitoring_section import WindowLength, parse_window_length
from windvane.tasks.split import time_windows

MONTH = WindowLength(months=1)


def test_months_lie_on_the_calendar_in_utc_and_begin_behind_what_was_taught() -> None:
    begin = find_first_window_start("2026-01-15T00:00:00", "2026-02-02")
    found = list_calendar_windows(
        to_timestamp("2026-01-20"), to_timestamp("2026-03-01"), MONTH, begin, to_timestamp("2026-03-01")
    )
    assert [(p.start[:10], p.end[:10], p.closed) for p in found] == [
        ("2026-01-15", "2026-02-01", True),
        ("2026-02-01", "2026-03-01", True),
        ("2026-03-01", "2026-04-01", False),
    ]
    assert found[0].start > to_timestamp("2026-01-15")
    assert find_first_window_start(None, "2026-02-02") == "2026-02-02"


@pytest.mark.parametrize(
    ("written", "inside", "start", "end"),
    [
        ("7d", "2026-11-25T10:00:00", "2026-11-23", "2026-11-30"),  # from Monday to Monday
        ("1d", "2026-11-25T10:00:00", "2026-11-25", "2026-11-26"),
        ("6h", "2026-11-25T10:00:00", "2026-11-25T06:00:00", "2026-11-25T12:00:00"),
        ("1mo", "2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("3mo", "2026-11-25", "2026-10-01", "2027-01-01"),
        ("1mo", "1969-12-31T23:00:00", "1969-12-01", "1970-01-01"),
    ],
)
def test_spans_are_aligned(written: str, inside: str, start: str, end: str) -> None:
    cut = parse_window_length(written)
    found = time_windows.find_window_start(datetime.fromisoformat(inside).replace(tzinfo=UTC), cut)
    assert (to_timestamp(found), to_timestamp(time_windows.shift_by_windows(found, cut, 1))) == (
        to_timestamp(start),
        to_timestamp(end),
    )


@given(
    st.datetimes(datetime(1900, 1, 2), datetime(2200, 1, 1)),
    st.sampled_from(["1h", "5h", "1d", "7d", "2w", "1mo", "5mo"]),
)
def test_every_moment_lies_in_its_window(at: datetime, written: str) -> None:
    cut, at = parse_window_length(written), at.replace(tzinfo=UTC)
    start = time_windows.find_window_start(at, cut)
    assert start <= at < time_windows.shift_by_windows(start, cut, 1)
    assert time_windows.find_window_start(start, cut) == start


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 12))
def test_windows_of_rows_hold_every_row_once_and_never_part_a_moment(seconds: list[int], rows: int) -> None:
    times = sorted(to_timestamp(s) for s in seconds)
    places = list_row_windows(times, rows, to_timestamp(-1))
    held = [[t for t in times if p.start <= t < p.end] for p in places]
    assert [t for inside in held for t in inside] == times
    assert all(len(inside) >= rows for inside in held[:-1])
    assert [p.closed for p in places] == [True] * (len(places) - 1) + [False] * bool(places) or all(
        p.closed for p in places
    )
    assert all(len(inside) >= rows for inside, p in zip(held, places, strict=True) if p.closed)


def test_windows_of_rows_stay_where_they_are_as_rows_come() -> None:
    times = [to_timestamp(f"2026-01-{d:02d}") for d in range(1, 11)]
    few, more = (
        list_row_windows(times[:7], 3, to_timestamp("2026-01-01")),
        list_row_windows(times, 3, to_timestamp("2026-01-01")),
    )
    assert few[:2] == more[:2]
    assert few[2].start == more[2].start


@pytest.mark.parametrize("looks", range(8))
def test_all_looks_at_a_window_together_spend_its_false_alarms_at_most(looks: int) -> None:
    spent = sum(compute_check_level(0.01, n, closed=False) for n in range(looks)) + compute_check_level(
        0.01, looks, closed=True
    )
    assert spent <= 0.01
    assert spent == 0.01 or looks


def test_an_open_window_is_looked_at_again_when_its_rows_have_doubled_and_once_when_it_is_over() -> None:
    assert is_check_due(0, 0, 3, was_closed=False, closed=False)
    assert not is_check_due(1, 100, 199, was_closed=False, closed=False)
    assert is_check_due(1, 100, 200, was_closed=False, closed=False)
    assert is_check_due(1, 100, 101, was_closed=False, closed=True)
    assert not is_check_due(2, 100, 500, was_closed=True, closed=True)


def test_the_clock_is_the_walls_where_rows_arrive_as_they_happen_and_the_events_where_history_is_played() -> None:
    wall = datetime(2026, 11, 25, tzinfo=UTC)
    live = find_event_time(
        to_timestamp("2026-11-24"), to_timestamp("2026-11-24T01:00:00"), wall, parse_window_length("7d")
    )
    assert live == to_timestamp(wall)
    assert find_event_time(to_timestamp("2015-07-01"), to_timestamp("2026-11-24"), wall, MONTH) == to_timestamp(
        "2015-07-01"
    )
    assert find_event_time(to_timestamp("2015-07-01"), None, wall, parse_window_length(500)) == to_timestamp(
        "2015-07-01"
    )
    assert find_event_time(None, None, wall, MONTH) == to_timestamp(wall)


COLUMNS = FeatureColumns(numbers=("x",), booleans=("new",), low=("city",), dates=("day",))


def record(target: Any = (1.0, 2.0)) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "x": [1.0, 2.0],
            "new": [True, False],
            "city": ["Ulm", "Bonn"],
            "day": pd.to_datetime(["2026-01-01", "2026-01-02"]),
            "y": list(target),
            "_prediction": list(target),
            "_loss": [0.1, 0.2],
            "_baseline_loss": [0.5, 0.5],
        }
    )


def rows(
    tmp_path: Path, *given: Any, told: tuple[LabelStatement, ...] = (), privacy: PrivacyRules | None = None
) -> Any:
    engine = database.connect_ledger(f"sqlite:///{tmp_path / 'l.db'}")
    put(engine, "p", *given, privacy=privacy)
    labels.record_labels(engine, "p", told)
    return labels.read_labelled_predictions(engine, "p", labels.PredictionQuery(version=1, unlabelled=True))


def test_a_frame_from_the_ledger_has_the_records_columns_and_types(tmp_path: Path) -> None:
    day = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp() * 1_000_000)
    one = answer("a", inputs={"x": "1.5", "new": "true", "city": "Ulm", "day": day}, time="2026-02-01")
    two = answer("b", inputs={"x": None, "new": False, "city": None, "day": "2026-02-02"}, time="2026-02-02")
    found = rows(tmp_path, one, two, answer("c", version=2), told=(LabelStatement("b", 7.5),))
    frame = window_frames.build_ledger_frame(found, COLUMNS, record(), chosen(target="y").problem)
    assert list(frame["x"]) == [1.5, pytest.approx(np.nan, nan_ok=True)]
    assert list(frame["new"]) == [1.0, 0.0]
    assert frame["city"].tolist()[0] == "Ulm"
    assert frame["city"].isna().tolist() == [False, True]
    assert list(frame["day"]) == list(pd.to_datetime(["2026-02-01", "2026-02-02"]))
    assert frame["y"].isna().tolist() == [True, False]
    assert frame["_prediction"].tolist() == [2.5, 2.5]
    assert frame[window_frames.LABEL_KNOWN_COLUMN].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("kinds", "said", "label", "wanted"),
    [([True, False], True, "true", True), ([0, 1], 1, "1", 1), (["no", "yes"], "yes", "yes", "yes")],
)
def test_classes_and_probabilities_come_back_as_the_record_has_them(
    tmp_path: Path, kinds: list[Any], said: Any, label: str, wanted: Any
) -> None:
    output = {"prediction": said, "probabilities": {kinds[0]: 0.25, kinds[1]: 0.75}}
    known = record(kinds).assign(**{f"_p_{kinds[0]}": 0.5, f"_p_{kinds[1]}": 0.5})
    one = answer("a", inputs={"x": 1.0, "new": True, "city": "Ulm", "day": "2026-01-01"}, output=output)
    found = rows(tmp_path, one, told=(LabelStatement("a", label),))
    frame = window_frames.build_ledger_frame(found, COLUMNS, known, chosen(target="y", kind="classification").problem)
    assert (frame["y"][0], frame["_prediction"][0]) == (wanted, wanted)
    assert (frame[f"_p_{kinds[0]}"][0], frame[f"_p_{kinds[1]}"][0]) == (0.25, 0.75)


def test_a_column_that_cannot_be_read_keeps_what_it_holds(tmp_path: Path) -> None:
    one = answer("a", inputs={"x": "about five", "new": 1, "city": "Ulm", "day": "2026-01-01"})
    frame = window_frames.build_ledger_frame(rows(tmp_path, one), COLUMNS, record(), chosen(target="y").problem)
    assert frame["x"].tolist() == ["about five"]


def test_columns_that_the_ledger_does_not_keep_are_left_out_and_rows_without_inputs_are_told(tmp_path: Path) -> None:
    inputs = {"x": 1.0, "new": True, "city": "Ulm", "day": "2026-01-01"}
    given = [answer(str(i), inputs=inputs) for i in range(50)]
    found = rows(tmp_path, *given, privacy=PrivacyRules(drop=frozenset({"x"}), sample=0.5))
    facts = VersionFacts(columns={"numbers": ["x"], "booleans": ["new"], "low": ["city"], "high": [], "dates": ["day"]})
    columns = window_frames.read_version_columns(facts, ("x",))
    assert columns.names == ("new", "city", "day")
    frame = window_frames.build_ledger_frame(found, columns, record(), chosen(target="y").problem)
    assert "x" not in frame
    assert 0 < frame[window_frames.INPUTS_STORED_COLUMN].sum() < 50
    assert frame["_prediction"].notna().all()


def test_an_empty_window_is_a_frame(tmp_path: Path) -> None:
    frame = window_frames.build_ledger_frame(rows(tmp_path), COLUMNS, record(), chosen(target="y").problem)
    assert len(frame) == 0
    assert {"x", "y", "_prediction", window_frames.INPUTS_STORED_COLUMN} <= set(frame)


def test_counts_tell_when_a_label_comes_late(tmp_path: Path) -> None:
    engine = database.connect_ledger(f"sqlite:///{tmp_path / 'l.db'}")
    put(engine, "p", *(answer(f"{d}", time=f"2026-01-{d:02d}") for d in range(1, 6)), answer("x", version=2))
    stretch = ("p", 1, to_timestamp("2026-01-02"), to_timestamp("2026-01-05"))
    assert windows.count_window_rows(engine, *stretch) == windows.StretchCount(3, 0, None)
    labels.record_labels(
        engine, "p", [LabelStatement("3", 1.0), LabelStatement("5", 1.0), LabelStatement("unknown", 1.0)]
    )
    found = windows.count_window_rows(engine, *stretch)
    assert (found.rows, found.labelled, found.known is None) == (3, 1, False)
    assert windows.count_labels(engine, "p") == 3
    found = windows.read_traffic(engine, "p", 1, to_timestamp("2026-01-03"))
    assert (found.rows, found.first, found.newest) == (3, to_timestamp("2026-01-03"), to_timestamp("2026-01-05"))


def test_trailing_history_keeps_the_rows_of_the_last_windows() -> None:
    from windvane.tasks.settings import project_params

    whole = houses(200)

    def kept(written: str, cut: str | int) -> pd.DataFrame:
        content = {"project": "p", "problem": {"kind": "regression", "target": "price", "time": "day"}}
        content |= {"data": {"source": "t.csv"}, "split": {"strategy": "time"}}
        content |= {"retrain": {"history": written}, "monitor": {"window": cut}}
        return time_windows.select_recent_rows(whole, project_params.parse_settings(content))

    assert len(kept("expanding", "7d")) == 200
    assert len(kept("trailing:4", "7d")) == 28
    assert kept("trailing:4", "7d")["day"].max() == whole["day"].max()
    assert len(kept("trailing:2", 30)) == 60
    newest = whole["day"].max()
    assert kept("trailing:3", "1mo")["day"].min() > newest - timedelta(days=93)
    with pytest.raises(InputError, match="leaves 7 rows"):
        kept("trailing:1", "7d")


def test_f1_n9_a_broken_window_is_no_known_state_and_no_change_that_goes_on_is_one() -> None:
    def seen(n: int, check: WindowAssessment) -> WindowRecord:
        at = f"2026-{n:02d}-01T00:00:00.000000+00:00"
        return WindowRecord(1, at, at, "ledger", 100, 0, True, 1, "", {**check.to_json(), "state": {"name": at}}, at)

    def known(*checks: WindowAssessment) -> list[int]:
        past = [seen(n, check) for n, check in enumerate(checks, 1)]
        found = select_known_states(past, lambda s: WindowAssessment.from_json(s.look))
        return [int(s.start[5:7]) for s in found]

    quiet, alarm = look(), look(alarm=True, change="data drift", remedy="refit")
    broken, shifted = look(change="broken data", remedy="person"), look(change="concept drift", remedy="search")
    assert known(quiet, alarm, quiet) == [1, 2, 3]
    assert known(quiet, broken) == [1], "the next, equally broken window is no seasonal return"
    assert known(broken, quiet) == [2]
    assert known(quiet, shifted) == [1], "a shift that goes on has not come back, whether drift alarms or not"


def test_of_a_large_window_a_sample_is_read_and_few_labels_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(production, "MAX_WINDOW_ROWS", 50)
    engine = database.connect_ledger(f"sqlite:///{tmp_path / 'l.db'}")
    inputs = {"x": 1.0, "new": True, "city": "Ulm", "day": "2026-01-01"}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    put(engine, "p", *(answer(f"{i:03d}", inputs=inputs, time=start + timedelta(minutes=i)) for i in range(400)))
    labels.record_labels(engine, "p", [LabelStatement(f"{i:03d}", 1.0) for i in range(20, 60)])
    place = WindowSpan(to_timestamp(start), to_timestamp(start + timedelta(days=1)), True)
    project = SimpleNamespace(ledger=engine, name="p", settings=chosen(target="y"))
    champion = SimpleNamespace(version=1)
    mine = SimpleNamespace(project=project, champion=champion, record=record(), columns=lambda _: COLUMNS)
    frame = production.Production.frame(mine, production.WindowCount(place, "ledger", 400, 40, ""))  # type: ignore[arg-type]
    alone = frame[window_frames.LABEL_ALONE_COLUMN]
    assert (~alone).sum() == 50
    assert frame["y"].notna().sum() == 40
    assert frame["y"][alone].notna().all()
