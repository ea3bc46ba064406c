"""Quality with labels and without: figures that can be worked out by hand, intervals that hold, and what estimates cannot see."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from tests.support.monitored_tables import COLUMNS, answered, kind_of, problem, rows, watched
from windvane.flows.monitoring import describe_quality
from windvane.monitoring import window_frames, window_loss
from windvane.monitoring.records import ESTIMATE_BLIND_SPOT

pytestmark = pytest.mark.long

KINDS = ("regression", "classification")


@pytest.mark.parametrize("kind", KINDS)
def test_loss_of_the_labelled_rows_against_the_record(kind: str) -> None:
    record, _ = watched(kind)
    frame = answered(rows(400, 5, kind), kind)
    frame.loc[200:, "y"] = None
    found = window_loss.measure_window_loss(
        record, frame, kind_of(kind), problem(kind), known_until="2024-05-01T00:00:00Z"
    )
    if kind == "regression":
        loss = (frame["y"][:200].astype(float) - frame["_prediction"][:200]).abs()
    else:
        loss = -np.log(np.where(frame["y"][:200] == "yes", frame["_p_yes"][:200], frame["_p_no"][:200]))
    assert found.loss == pytest.approx(np.mean(loss))
    assert found.reference == pytest.approx(record["_loss"].mean())
    assert (found.rows, found.estimated, found.known_until) == (200, False, "2024-05-01T00:00:00Z")
    assert found.low is not None
    assert found.high is not None
    assert found.excess is not None
    assert found.low < found.excess < found.high
    welch = 1.96 * np.sqrt(np.var(loss) / 200 + record["_loss"].var() / len(record))
    assert (found.high - found.low) / 2 == pytest.approx(welch, rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_as_classes_survive_missing_labels(kind: str) -> None:
    record, _ = watched(kind)
    frame = answered(rows(100, 5, kind), kind)
    if kind == "classification":
        for side in (record, frame):
            side["y"] = np.where(side["y"] == "yes", 1, 0)
            side["_prediction"] = np.where(side["_prediction"] == "yes", 1, 0)
        record, frame = (f.rename(columns={"_p_no": "_p_0", "_p_yes": "_p_1"}) for f in (record, frame))
    whole = window_loss.measure_window_loss(record, frame, kind_of(kind), problem(kind))
    frame["y"] = frame["y"].astype(float).where(frame.index < 60)
    some = window_loss.measure_window_loss(record, frame, kind_of(kind), problem(kind))
    assert whole.rows == 100
    assert some.rows == 60
    assert some.loss == pytest.approx(whole.loss, rel=1.0)


def test_too_few_labels_are_no_figure() -> None:
    record, _ = watched()
    frame = answered(rows(100, 5))
    frame.loc[29:, "y"] = np.nan
    found = window_loss.measure_window_loss(record, frame, kind_of("regression"), problem("regression"))
    assert (found.loss, found.low, found.high, found.rows) == (None, None, None, 29)
    assert "at least 30 are needed" in found.how
    assert (
        window_loss.measure_window_loss(
            record, frame.drop(columns="y"), kind_of("regression"), problem("regression")
        ).loss
        is None
    )


def test_the_interval_of_an_unchanged_window_holds_the_truth() -> None:
    """Independent rows: about one in twenty misses."""
    missed = 0
    for seed in range(200):
        record = answered(rows(300, 1000 + seed), record=True)
        found = window_loss.measure_window_loss(
            record, answered(rows(150, 5000 + seed)), kind_of("regression"), problem("regression")
        )
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 0 <= found.high
    assert missed <= 20, "a share of 5 % gives more than 20 in one of 1,500 runs"


@pytest.mark.parametrize("unit", ["group", "time"])
def test_rows_that_depend_widen_the_interval(unit: str) -> None:
    """Blocks of rows that share an error: row by row most intervals would miss the truth."""
    missed = {unit: 0, "none": 0}
    for seed in range(60):
        sides = []
        for part, count in enumerate((40, 20)):
            frame = answered(rows(count * 20, 100 * seed + part), record=True)
            shared = np.random.default_rng([seed, part]).gamma(1, 1, count).repeat(20)
            y = frame["_prediction"] + (frame["y"] - frame["_prediction"]) * shared
            frame = frame.assign(y=y, _loss=(y - frame["_prediction"]).abs(), unit=np.arange(count).repeat(20))
            sides.append(frame[[*[c for c in frame if c[0] != "_"], "_prediction", "_loss", "_baseline_loss"]])
        for name in missed:
            chosen = problem("regression", **({} if name == "none" else {unit: "unit"}))
            found = window_loss.measure_window_loss(*sides, kind_of("regression"), chosen)
            assert found.low is not None
            assert found.high is not None
            missed[name] += not found.low <= 0 <= found.high
    assert missed[unit] <= 8
    assert missed["none"] > 12


def test_few_blocks_give_a_figure_without_an_interval() -> None:
    record, _ = watched()
    frame = answered(rows(60, 5)).assign(house=np.arange(60) // 20)
    own = record.assign(house=np.arange(len(record)) % 50)
    own = own[[*[c for c in own if c[0] != "_"], "_prediction", "_loss", "_baseline_loss"]]
    found = window_loss.measure_window_loss(own, frame, kind_of("regression"), problem("regression", group="house"))
    assert found.loss is not None
    assert (found.low, found.high) == (None, None)
    assert "needs at least 5" in found.how


@pytest.mark.parametrize("kind", KINDS)
def test_an_estimate_follows_other_customers_and_cannot_see_another_concept(kind: str) -> None:
    record, model = watched(kind)
    pool = answered(rows(20_000, 9, kind), kind)
    hard = pool["age"] if kind == "regression" else -(pool["_p_yes"] - 0.5).abs()
    frame = pool.sample(1500, weights=np.exp(2 * hard.rank(pct=True)), random_state=0)
    true = float(window_frames.compute_frame_losses(frame, record, kind_of(kind), problem(kind)).mean())
    found = model.estimate(frame)
    assert found.estimated
    assert found.loss is not None
    assert found.low is not None
    assert found.high is not None
    assert true > 1.15 * found.reference, "the shift is a real one"
    assert abs(found.loss - true) < 0.5 * abs(found.reference - true), "nearer by half than no estimate"
    assert found.low <= true - found.reference <= found.high
    changed = frame.assign(y=frame["y"] + 100 if kind == "regression" else np.where(frame["y"] == "yes", "no", "yes"))
    assert model.estimate(changed).loss == pytest.approx(found.loss)
    assert model.estimate(frame.drop(columns="y")).loss == pytest.approx(found.loss)


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_of_unchanged_windows_hold_the_truth(kind: str) -> None:
    record, model = watched(kind)
    missed = 0
    for seed in range(100):
        frame = answered(rows(200, 7000 + seed, kind), kind)
        found = model.estimate(frame)
        true = float(window_frames.compute_frame_losses(frame, record, kind_of(kind), problem(kind)).mean())
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= true - found.reference <= found.high
    assert missed <= 14


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_record_gives_no_estimate_and_says_why(kind: str) -> None:
    record = answered(rows(80, 1, kind), kind, record=True)
    model = window_loss.fit_loss_model(record, COLUMNS, kind_of(kind), problem(kind), 0)
    found = model.estimate(answered(rows(50, 2, kind), kind))
    assert (found.loss, found.estimated) == (None, True)
    assert "80 rows" in found.how


def test_an_empty_window_is_no_estimate() -> None:
    _, model = watched()
    empty: pd.DataFrame = answered(rows(50, 2)).head(0)
    assert model.estimate(empty).loss is None


@pytest.mark.slow
@pytest.mark.skipif("WINDVANE_DATA" not in __import__("os").environ, reason="needs the whole tables")
def test_estimates_on_real_tables_follow_inputs_and_not_concepts() -> None:
    """Nearer to the truth than "as on the record" where inputs drift; no help at all where the concept does."""
    from benchmarks import diagnosis, injections

    table = injections.TUNED[0]
    judged = [j for seed in range(2) for j in diagnosis.look(table, seed, (2,))]
    nearer = [
        abs((j.estimated.loss or 0) - j.truth) < abs(j.estimated.reference - j.truth)
        for j in judged
        if j.cause in ("data drift", "seasonal return")
    ]
    assert np.mean(nearer) >= 0.6
    missed = [
        j for j in judged if j.cause == "concept drift" and j.truth > (j.estimated.high or 0) + j.estimated.reference
    ]
    assert missed, "a risen loss that the estimate did not see"


@pytest.mark.parametrize("kind", KINDS)
def test_f5_an_estimate_says_where_it_is_that_it_cannot_see_a_concept_drift(kind: str) -> None:
    """Its text goes with it wherever it goes: the page, the JSON, the ledger."""
    _, model = watched(kind)
    found = model.estimate(answered(rows(400, 5, kind), kind))
    assert found.loss is not None
    assert found.how.endswith(ESTIMATE_BLIND_SPOT)
    assert "concept drift" in ESTIMATE_BLIND_SPOT


def test_f5_n2_the_screen_says_it_beside_the_figure() -> None:
    _, model = watched()
    line = describe_quality(asdict(model.estimate(answered(rows(400, 5)))))
    assert line.startswith("estimated loss: ")
    assert "% against its own held-out rows; " in line
    assert line.endswith(ESTIMATE_BLIND_SPOT)


def test_f5_n3_no_estimate_and_no_labels_is_an_unknown_loss() -> None:
    record, model = watched()
    frame = answered(rows(100, 5)).assign(y=np.nan)
    known = window_loss.measure_window_loss(record, frame, kind_of("regression"), problem("regression"))
    assert describe_quality(asdict(known)).startswith("loss: unknown: labels of 0 of 100 rows")
    assert describe_quality(asdict(model.estimate(frame[:0]))).startswith("estimated loss: unknown: ")


def weighed(frame: pd.DataFrame, *, record: bool = False) -> pd.DataFrame:
    """With a weight: old houses count four times. It stands before what was predicted, as in a record."""
    return answered(frame.assign(w=np.where(frame["age"] > 30, 4.0, 1.0)), record=record)


def test_rows_count_as_their_weight_says_on_both_sides() -> None:
    """A row that counts four times moves figures as four rows would; a constant weight moves none."""
    kind, chosen = kind_of("regression"), problem("regression", weight="w")
    record, window = weighed(rows(1500, 0), record=True), weighed(rows(400, 5))
    found = window_loss.measure_window_loss(record, window, kind, chosen)

    def repeated(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.loc[frame.index.repeat(frame["w"].astype(int))].reset_index(drop=True)

    alike = window_loss.measure_window_loss(repeated(record), repeated(window), kind, problem("regression"))
    assert (found.loss, found.reference) == (pytest.approx(alike.loss), pytest.approx(alike.reference))
    assert found.rows == 400
    assert found.low is not None
    assert alike.low is not None
    assert found.low < alike.low, "repeated rows tell no more than the rows themselves"
    plain = window_loss.measure_window_loss(record, window, kind, problem("regression"))
    assert found.loss is not None
    assert plain.loss is not None
    assert found.loss > 1.1 * plain.loss
    constant = [frame.assign(w=7.0) for frame in (record, window)]
    assert asdict(window_loss.measure_window_loss(*constant, kind, chosen)) == asdict(plain)


def test_where_production_has_no_weights_the_record_counts_alike_too() -> None:
    """Else the weights of the record would be taken for a better model on one side."""
    kind, chosen = kind_of("regression"), problem("regression", weight="w")
    record, window = weighed(rows(1500, 0), record=True), weighed(rows(400, 5)).drop(columns="w")
    found = window_loss.measure_window_loss(record, window, kind, chosen)
    assert asdict(found) == asdict(window_loss.measure_window_loss(record, window, kind, problem("regression")))
    model = window_loss.fit_loss_model(record, COLUMNS, kind, chosen, 0)
    plain = window_loss.fit_loss_model(record, COLUMNS, kind, problem("regression"), 0)
    assert asdict(model.estimate(window)) == asdict(plain.estimate(window))


def test_an_estimate_counts_rows_as_their_weight_says() -> None:
    kind, chosen = kind_of("regression"), problem("regression", weight="w")
    record, window = weighed(rows(1500, 0), record=True), weighed(rows(400, 5))
    found = window_loss.fit_loss_model(record, COLUMNS, kind, chosen, 0).estimate(window)
    assert found.reference == pytest.approx(np.average(record["_loss"], weights=record["w"]))
    assert found.loss is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.loss - found.reference < found.high
    assert abs(found.loss - found.reference) < 0.1 * found.reference, "nothing moved"


def test_a_weight_that_is_no_amount_stops_no_check() -> None:
    """Windows of the source come before a lap's checks have seen their rows."""
    kind, chosen = kind_of("regression"), problem("regression", weight="w")
    record, window = weighed(rows(1500, 0), record=True), weighed(rows(400, 5))
    spoilt = window.assign(w=window["w"].astype(object))
    spoilt.loc[:2, "w"] = ["n/a", -3.0, np.inf]
    missing = window.assign(w=window["w"].where(window.index > 2))
    expected = window_loss.measure_window_loss(record, missing, kind, chosen)
    assert asdict(window_loss.measure_window_loss(record, spoilt, kind, chosen)) == asdict(expected)
    nothing = window_loss.measure_window_loss(record, window.assign(w="n/a"), kind, chosen)
    assert asdict(nothing) == asdict(window_loss.measure_window_loss(record, window, kind, problem("regression")))
