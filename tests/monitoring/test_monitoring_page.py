"""The page of a look: two sentences that say what changed, since when, what was decided and why; and nothing from outside."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.monitoring.test_decision_policies import look, quality
from windvane.ledger.decisions import DecisionRecord
from windvane.monitoring.records import ChangeDiagnosis, CoverageResult, WindowAssessment
from windvane.monitoring.watch import report

SHORT = (
    "cannot tell a season from drift: temp moved, and the history before the window (40 days) is shorter than a year"
)
ENTRY = DecisionRecord(
    "houses", 1, "2026-05-01", "2026-06-01", "wait", "nothing moved", known_until="2026-05-20T10:00:00"
)


def test_nothing_new_is_said_in_two_sentences() -> None:
    assert report.describe_change(look()) == "No change found in 100 rows since 2026-05-01."
    assert report.describe_decision(ENTRY) == "No retraining: nothing moved. Labels were known up to 2026-05-20T10:00Z."
    assert "Too few rows" in report.describe_change(look(few=True))


def test_a_change_is_told_since_the_first_of_the_windows_in_a_row() -> None:
    now = look(0.4, 5, alarm=True, change="data drift", remedy="refit", columns=("size", "town"))
    earlier = [look(0, 1, alarm=True), look(0, 2), look(0.1, 3, alarm=True), look(0.2, 4, alarm=True)]
    said = report.describe_change(now, earlier)
    assert said.startswith("Data drift (90% sure) since 2026-03-01, in size, town: its mean moved.")
    unnamed = replace(now, diagnosis=ChangeDiagnosis("none", 0.5, (), "inputs are as on the record", "wait"))
    assert report.describe_change(unnamed) == "Drift since 2026-05-01: size: moved; town: moved."


@pytest.mark.parametrize(
    ("action", "level"), [("wait", "pass"), ("retrain", "warn"), ("stop", "stop"), ("rollback", "stop")]
)
def test_the_page_opens_alone_and_escapes_what_columns_are_called(action: str, level: str) -> None:
    evil = "<script>alert(1)</script>"
    one = look(0.2, alarm=action != "wait", change="data drift", columns=(evil, "_prediction"), remedy="refit")
    one = replace(one, estimate=quality(0.3, estimated=True))
    entry = replace(ENTRY, action=action, gain=0.8, cost=0.5, realised=0.6, reason=f"{evil} moved")
    text = report.render_window_report(
        one, entry, "houses", "ledger", ("secret column",), [look(0.1, n) for n in (2, 3, 4)]
    )
    assert f'<header class="{level}">' in text
    assert evil not in text
    assert "secret column" in text
    assert "the prediction" in text
    assert text.count("<rect") == 4
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)


def test_f2_n2_the_page_says_that_it_cannot_tell() -> None:
    one = look()
    one = replace(one, drift=replace(one.drift, undecided=SHORT))
    assert report.describe_change(one) == f"C{SHORT[1:]}."
    text = report.render_window_report(one, ENTRY, "houses", "ledger")
    assert '<header class="warn">' in text
    assert "No change found" not in text


def test_f5_n1_the_page_says_beside_an_estimate_what_it_cannot_see() -> None:
    one = replace(look(None), estimate=quality(0.3, estimated=True))
    text = report.render_window_report(one, ENTRY, "houses", "ledger", (), [look(0.1, n) for n in (2, 3, 4)])
    facts = text.split("<h2>")[0]
    assert "estimated without labels: it cannot see a concept drift" in facts
    assert "estimates without labels, which cannot show a concept drift" in text
    assert "it cannot see a concept drift" not in report.render_window_report(look(0.1), ENTRY, "houses", "ledger")


def test_the_page_shows_how_often_intervals_held_the_label_and_warns_of_narrow_ones() -> None:
    found = CoverageResult(0.9, 200, 150, 0.68, 0.81, 1e-9, 0.005, True, 41.234, counts=(200,), adjusted=0.971)
    one = replace(look(), coverage=found)
    text = report.render_window_report(one, ENTRY, "houses", "ledger")
    assert '<header class="warn">' in text
    assert "75.0%" in text
    assert "alarm: too narrow" in text
    assert "Intervals: 75.0% of 200 labels are within, 90 % were promised (95 % interval 68.0% to 81.0%)" in text
    assert "median width 41.23" in text
    assert "after this check 0.971 is the level for 0.9" in text
    assert WindowAssessment.from_json(one.to_json()) == one
    assert WindowAssessment.from_json({k: v for k, v in look().to_json().items() if k != "coverage"}) == look()
    quiet = replace(one, coverage=replace(found, alarm=False))
    assert '<header class="pass">' in report.render_window_report(quiet, ENTRY, "houses", "ledger")
