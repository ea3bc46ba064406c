"""What a lap and an exploring lap ended with, as people read it."""

from __future__ import annotations

from windvane.tasks.lap_outcome import CandidateSummary, ExplorationResult


def test_d2_n6_an_exploring_lap_names_the_class_that_its_metric_is_of() -> None:
    found = ExplorationResult(
        run_id="a",
        data_version="b",
        metric="f1",
        candidates=(CandidateSummary("linear", 0.5, 0.6, 1, 0.4, 0.6),),
        chosen="linear",
        params={},
        rows=100,
        reason="all were tried",
        fits=1,
        seconds=1.0,
        positive="yes",
    )
    assert "validation f1 of 'yes'" in found.text()
    assert found.to_json()["positive"] == "yes"
