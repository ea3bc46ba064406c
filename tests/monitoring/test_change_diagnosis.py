"""The diagnosis: each cause is named on made tables, whatever the order of rows, and odd tables end in an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.monitored_tables import COLUMNS, answered, kind_of, problem, rows, watched
from windvane.monitoring import window_frames, window_loss
from windvane.monitoring.diagnosis import broken_columns, window_states
from windvane.monitoring.diagnosis.evidence import DiagnosisCase, gather_evidence
from windvane.monitoring.diagnosis.explanations import choose_remedy, diagnose_change
from windvane.monitoring.diagnosis.window_states import WindowState
from windvane.monitoring.records import ChangeDiagnosis, DriftFinding, DriftResult, PerformanceResult
from windvane.tasks.models.features import FeatureColumns

pytestmark = pytest.mark.long

KINDS = ("regression", "classification")
MOVED = DriftResult(True, 9.0, 3.0, 0.001, 0.01, (), 1500, 800)
QUIET = DriftResult(False, 1.0, 3.0, 0.4, 0.01, (), 1500, 800)
# No alarm, and the inputs are hardly less suspicious for that: the evidence alone decides.
NEARLY = DriftResult(False, 2.9, 3.0, 1e-9, 1e-10, (), 1500, 800)


def window(kind: str = "regression", seed: int = 100, count: int = 800) -> pd.DataFrame:
    return rows(count, seed, kind)


def say(
    frame: pd.DataFrame,
    kind: str = "regression",
    known: tuple[WindowState, ...] = (),
    drift: DriftResult = MOVED,
    columns: FeatureColumns = COLUMNS,
    labelled: float = 0.6,
) -> ChangeDiagnosis:
    record, model = watched(kind)
    seen = answered(frame, kind)
    seen["y"] = seen["y"].where(np.arange(len(seen)) < labelled * len(seen))
    measured = window_loss.measure_window_loss(record, seen, kind_of(kind), problem(kind))
    return diagnose_change(
        DiagnosisCase(record, seen, columns, kind_of(kind), problem(kind), model, known_states=known, seed=0),
        drift,
        measured,
    )


def tilted(kind: str, by: str, strength: float, seed: int = 7) -> pd.DataFrame:
    """Rows drawn by a column's ranks."""
    pool = rows(8000, seed, kind)
    weight = np.exp(strength * (2 * pool[by].rank(pct=True) - 1))
    return pool.sample(800, weights=weight, random_state=seed, ignore_index=True)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_window_is_none(kind: str) -> None:
    for drift in (QUIET, NEARLY):
        found = say(window(kind), kind, drift=drift)
        assert (found.change, found.remedy, found.columns) == ("none", "wait", ())
        assert found.sure > 0.5


@pytest.mark.parametrize("labelled", [0.0, 0.6])
@pytest.mark.parametrize("kind", KINDS)
def test_f4_an_alarm_is_never_beside_as_on_the_record(kind: str, labelled: float) -> None:
    found = say(window(kind), kind, drift=MOVED, labelled=labelled)
    assert found.change != "none"
    assert "as on the champion's record" not in found.why


@pytest.mark.parametrize(
    "write",
    [
        lambda code: code.lstrip("0"),
        lambda code: f"{code}.0",
        lambda code: f" {code.lower()} ",
    ],
    ids=["without zeros", "as floats", "other blanks and case"],
)
def test_f4_n1_codes_written_otherwise_are_broken_data(write: Any) -> None:
    """Many words at once, none of which has a partner by its share alone."""
    rng = np.random.default_rng(3)
    codes = np.array([f"0{n}AB" if n % 2 else f"0{n}" for n in range(1000, 1090)])
    columns = FeatureColumns(numbers=("size", "age", "rooms"), low=("town",), high=("zip",))
    record = answered(rows(1500, 0).assign(zip=rng.choice(codes, 1500)), record=True)
    record = record[[n for n in record if n[0] != "_"] + [n for n in record if n[0] == "_"]]
    frame = answered(window().assign(zip=[write(str(c)) for c in rng.choice(codes, 800)]))
    kind, chosen = kind_of("regression"), problem("regression")
    model = window_loss.fit_loss_model(record, columns, kind, chosen, 0)
    known = window_loss.measure_window_loss(record, frame, kind, chosen)
    for drift in (MOVED, NEARLY):
        found = diagnose_change(DiagnosisCase(record, frame, columns, kind, chosen, model), drift, known)
        assert (found.change, found.columns) == ("broken data", ("zip",))
        assert "written otherwise" in found.why


def test_f4_n2_too_few_rows_to_diagnose_an_alarm_is_what_is_said() -> None:
    found = say(window(count=25), drift=MOVED)
    assert found.change == "none"
    assert "too few rows" in found.why
    assert "as on the champion's record" not in found.why


def test_f1_n3_a_thermometer_of_another_scale_is_a_unit_and_a_season_is_none() -> None:
    rng = np.random.default_rng(0)
    summer = 273.15 + rng.normal(19, 3, 1500)
    scales = {
        "x 1.8 -459.7": (summer, 1.8 * summer[:800] - 459.67),
        "x 1 -273.1": (summer, summer[:800] - 273.15),
        "x 1.8 +32": (summer - 273.15, 1.8 * (summer[:800] - 273.15) + 32),
    }
    for formula, (record, now) in scales.items():
        (found,) = broken_columns.find_broken_columns((window_frames.PairedColumn("temp", True, record, now),), 0.3)
        assert formula in found.text
        assert not found.seasonal
    winter = window_frames.PairedColumn("temp", True, summer - 273.15, rng.normal(3, 2, 800))
    assert all(b.seasonal for b in broken_columns.find_broken_columns((winter,), 0.3))
    snow = window_frames.PairedColumn(
        "snow", True, np.where(rng.random(1500) < 0.6, 0.0, rng.gamma(2, 3, 1500)), np.zeros(800)
    )
    assert all(b.seasonal for b in broken_columns.find_broken_columns((snow,), 0.3))


def find_unit(record: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> list[str]:
    column = window_frames.PairedColumn("v", True, record, now)
    return [b.text for b in broken_columns.find_broken_columns((column,), 0.3) if "unit" in b.text and not b.seasonal]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("cap", "before", "after", "reach"), [(10, 0.6, 0.2, 1.4), (7, 0.6, 0.2, 1.4), (30, 0.6, 0.25, 1.4)]
)
def test_a_gauge_that_reads_its_cap_less_often_is_in_no_other_unit(
    cap: float, before: float, after: float, reach: float, seed: int
) -> None:
    """Visibility on clear and on foggy days, and a new station that sees further: the heap at the cap stays where it was."""
    rng = np.random.default_rng(seed)
    record = np.where(rng.random(1500) < before, cap, rng.uniform(1, cap, 1500)).round(1)
    now = np.where(rng.random(800) < after, cap, rng.uniform(1, reach * cap, 800)).round(1)
    assert find_unit(record, now) == []


@pytest.mark.parametrize(("factor", "share"), [(2.54, 1.0), (1 / 3.28084, 1.0), (1.609344, 0.4), (1000.0, 0.3)])
def test_a_gauge_that_is_read_in_another_unit_is_still_found(factor: float, share: float) -> None:
    """Its heap is scaled with all else; also where only some of the rows are, and the weather changed a little beside it."""
    rng = np.random.default_rng(3)
    record = np.where(rng.random(1500) < 0.6, 10.0, rng.uniform(1, 10, 1500)).round(1)
    now = np.where(rng.random(800) < 0.55, 10.0, rng.uniform(1, 10, 800)).round(1)
    now = np.where(rng.random(800) < share, now * factor, now)
    (text,) = find_unit(record, now)
    assert f"x {factor:.4g}" in text


@pytest.mark.parametrize("clock", ["dates", "numbers"])
def test_f1_n12_what_rises_with_the_clock_is_in_no_other_unit(clock: str) -> None:
    """A counter, and the time itself as an input: each window lies beyond all before it."""
    place = np.arange(2300)
    times = pd.Timestamp("2026-01-01") + pd.to_timedelta(place, unit="h") if clock == "dates" else 100.0 + place
    columns = FeatureColumns(numbers=("size", "age", "rooms", "counter"), low=("town",), high=())
    record = answered(rows(1500, 0).assign(counter=place[:1500] + 400.0, t=times[:1500]), record=True)
    record = record[[n for n in record if n[0] != "_"] + [n for n in record if n[0] == "_"]]
    frame = answered(window().assign(counter=place[1500:] + 400.0, t=times[1500:]))
    kind, chosen = kind_of("regression"), problem("regression").model_copy(update={"time": "t"})
    model = window_loss.fit_loss_model(record, columns, kind, chosen, 0)
    found = gather_evidence(DiagnosisCase(record, frame, columns, kind, chosen, model))
    assert found.broken == ()
    shuffled = record.assign(counter=np.random.default_rng(0).permutation(record["counter"]))
    found = gather_evidence(DiagnosisCase(shuffled, frame, columns, kind, chosen, model))
    assert [b.column for b in found.broken] == ["counter"]


def test_f2_n3_what_a_season_resembles_is_not_called_broken_where_no_year_was_seen() -> None:
    frame = window().assign(size=lambda w: 0.7 * w["size"] - 40)
    assert say(frame).change == "broken data"
    short = DriftResult(
        True, 9.0, 3.0, 0.001, 0.01, (), 1500, 800, undecided="cannot tell a season from drift: size moved"
    )
    assert say(frame, drift=short).change != "broken data"
    inches = window().assign(size=lambda w: w["size"] / 2.54)
    assert say(inches, drift=short).change == "broken data", "no season does that"


@pytest.mark.parametrize("kind", KINDS)
def test_other_customers_are_data_drift(kind: str) -> None:
    found = say(tilted(kind, "age", 1.0), kind)
    assert (found.change, found.remedy) == ("data drift", "refit")
    assert found.columns[0] == "age"
    assert found.sure > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_labels_drawn_otherwise_are_label_drift(kind: str) -> None:
    if kind == "regression":
        frame = tilted(kind, "y", 1.0)
    else:
        pool = rows(8000, 7, kind)
        frame = pool.sample(800, weights=np.where(pool["y"] == "yes", 4.0, 1.0), random_state=1, ignore_index=True)
    found = say(frame, kind)
    assert (found.change, found.remedy) == ("label drift", "labels")


@pytest.mark.parametrize("kind", KINDS)
def test_other_labels_for_the_same_inputs_are_concept_drift(kind: str) -> None:
    frame = window(kind)
    if kind == "regression":
        frame["y"] += np.where(frame["town"] == "Ulm", 40, 0)
    else:
        turned = (frame["town"] == "Ulm") & (np.random.default_rng(0).random(len(frame)) < 0.6)
        frame["y"] = np.where(turned, np.where(frame["y"] == "yes", "no", "yes"), frame["y"])
    found = say(frame, kind)
    assert (found.change, found.remedy) == ("concept drift", "search")
    assert "town" in found.columns


@pytest.mark.parametrize("begin", [0.0, 0.4])
@pytest.mark.parametrize(
    ("column", "how"),
    [
        ("age", lambda v: np.nan),
        ("size", lambda v: v * 2.54),
        ("size", lambda v: v / 1000),
        ("age", lambda v: v * 365.25),
        ("town", lambda v: v.replace("Ulm", "ULM")),
        ("size", lambda v: 80.0),
    ],
    ids=["silent", "inch", "thousand", "days", "renamed", "stuck"],
)
def test_broken_columns_are_named(column: str, how: Any, begin: float) -> None:
    frame = window()
    after = np.arange(len(frame)) >= begin * len(frame)
    broken = [how(v) for v in frame[column]]
    frame[column] = frame[column].where(~after, pd.Series(broken))
    found = say(frame)
    assert (found.change, found.remedy) == ("broken data", "person")
    assert found.columns[0] == column
    assert column in found.why


def test_a_column_that_is_gone_or_unreadable_is_broken() -> None:
    record, model = watched()
    for frame in (answered(window()).drop(columns="age"), answered(window()).assign(age="n/a")):
        known = window_loss.measure_window_loss(record, frame, kind_of("regression"), problem("regression"))
        found = diagnose_change(
            DiagnosisCase(record, frame, COLUMNS, kind_of("regression"), problem("regression"), model), MOVED, known
        )
        assert (found.change, found.columns) == ("broken data", ("age",))


def test_a_known_season_is_recognised_and_a_new_one_is_not() -> None:
    record, _ = watched()
    known = tuple(
        window_states.build_window_state(
            answered(frame), record, COLUMNS, kind_of("regression"), problem("regression"), name
        )
        for name, frame in (("March", rows(800, 50)), ("July", tilted("regression", "age", 2.0, seed=51)))
    )
    found = say(tilted("regression", "age", 2.0, seed=52), known=known)
    assert found.change == "seasonal return"
    assert "July" in found.why
    assert found.remedy == "refit", "older houses cost more, and the labels have shown it"
    assert say(tilted("regression", "size", 1.0), known=known).change == "data drift"
    assert say(window(), known=known, drift=NEARLY).change == "none"


def test_a_season_in_which_the_champion_does_well_is_waited_out() -> None:
    worse = PerformanceResult(2.0, 1.0, 0.5, 1.5, 100, False, "")
    same = PerformanceResult(1.0, 1.0, -0.5, 0.5, 100, False, "")
    unknown = PerformanceResult(None, 1.0, None, None, 0, False, "")
    assert [choose_remedy("seasonal return", q) for q in (worse, same, unknown)] == ["refit", "wait", "wait"]


def test_states_survive_being_written_down() -> None:
    record, _ = watched()
    state = window_states.build_window_state(
        answered(window()), record, COLUMNS, kind_of("regression"), problem("regression"), "March"
    )
    import json

    assert WindowState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_inputs_that_move_no_more_than_usual_are_no_data_drift() -> None:
    quiet = DriftResult(False, 1.0, 3.0, 0.4, 0.01, (), 1500, 800)
    assert say(tilted("regression", "age", 0.6), drift=MOVED).change == "data drift"
    assert say(tilted("regression", "age", 0.6), drift=quiet).change == "none"


def test_a_month_that_stands_still_is_no_break() -> None:
    """Within a window the month is one; in the record it was so too for as long."""
    rng = np.random.default_rng(0)
    month = window_frames.PairedColumn("month", True, np.repeat(np.arange(10.0), 80), np.full(80, 10.0))
    dice = window_frames.PairedColumn("dice", True, rng.integers(0, 10, 800).astype(float), np.full(80, 3.0))
    stretch = np.repeat(np.arange(10), 80)
    assert [b.column for b in broken_columns.find_broken_columns((month, dice), 1.0, stretch)] == ["dice"]


def test_a_break_without_drifts_alarm_is_none() -> None:
    quiet = DriftResult(False, 1.0, 3.0, 0.4, 0.01, (), 1500, 800)
    assert say(window().assign(size=100.0), drift=quiet).change != "broken data"


def test_a_silent_column_that_drift_reports_counts() -> None:
    told = DriftResult(
        True, 9.0, 3.0, 0.001, 0.01, (DriftFinding("built", "silent", 9, 3, True, "built fell silent"),), 1500, 800
    )
    assert say(window(), drift=told).columns == ("built",)


def test_without_labels_the_diagnosis_says_what_it_cannot_see() -> None:
    found = say(tilted("regression", "age", 1.0), labelled=0.0)
    assert found.change == "data drift"
    assert "concept drift cannot be seen" in found.why
    frame = window()
    frame["y"] += 1000
    unseen = say(frame, labelled=0.0, drift=QUIET)
    assert unseen.change == "none"
    assert "concept drift cannot be seen" in unseen.why
    assert "inputs and labels" not in unseen.why


@pytest.mark.parametrize("count", [0, 1, 5, 29])
def test_too_few_rows_are_none_and_not_sure(count: int) -> None:
    found = say(window(count=count))
    assert (found.change, found.sure, found.remedy) == ("none", 0.0, "wait")
    assert "too few rows" in found.why


def test_few_rows_make_less_sure_than_many() -> None:
    few, many = (say(tilted("regression", "age", 1.0).head(n)) for n in (60, 800))
    assert many.change == "data drift"
    assert few.change == "none" or few.sure < many.sure


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KINDS))
def test_the_order_of_rows_does_not_matter(seed: int, kind: str) -> None:
    record, _ = watched(kind)
    frame = answered(tilted(kind, "age", 0.7).head(400), kind)
    frame.loc[frame.index[::3], "y"] = None
    rng = np.random.default_rng(seed)
    found = []
    for own, seen in (
        (record, frame),
        (record.sample(frac=1, random_state=rng), frame.sample(frac=1, random_state=rng)),
    ):
        model = window_loss.fit_loss_model(own, COLUMNS, kind_of(kind), problem(kind), 0)
        known = window_loss.measure_window_loss(own, seen, kind_of(kind), problem(kind))
        found.append(
            diagnose_change(DiagnosisCase(own, seen, COLUMNS, kind_of(kind), problem(kind), model), MOVED, known)
        )
    assert found[0].change == found[1].change
    assert found[0].sure == pytest.approx(found[1].sure, abs=1e-6)


def odd_tables() -> dict[str, FeatureColumns]:
    return {
        "one number": FeatureColumns(numbers=("size",)),
        "one category": FeatureColumns(low=("town",)),
        "numbers": FeatureColumns(numbers=("size", "age", "rooms")),
        "categories": FeatureColumns(low=("town",), high=("street",)),
        "dates alone": FeatureColumns(dates=("day",)),
        "many": FeatureColumns(numbers=tuple(f"n{i}" for i in range(40)), low=tuple(f"c{i}" for i in range(10))),
        "empty": FeatureColumns(numbers=("void", "size")),
    }


@pytest.mark.parametrize("labels", ["some", "none", "all"])
@pytest.mark.parametrize("name", list(odd_tables()))
@pytest.mark.parametrize("kind", KINDS)
def test_any_columns_end_in_an_answer(kind: str, name: str, labels: str) -> None:
    def more(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        wide = {f"n{i}": rng.normal(size=len(frame)) for i in range(40)}
        wide |= {f"c{i}": rng.choice(["a", "b", "c"], len(frame)) for i in range(10)}
        wide |= {"street": rng.choice([f"s{i}" for i in range(60)], len(frame)), "void": np.nan}
        wide |= {"day": pd.date_range("2024-01-01", periods=len(frame), freq="h")}
        return frame.assign(**wide)

    columns = odd_tables()[name]
    record = more(answered(rows(300, 0, kind), kind, record=True), 1)
    names = [n for n in record.columns if n.startswith("_")]
    record = record[[n for n in record.columns if n not in names] + names]
    frame = more(answered(rows(150, 1, kind), kind), 2)
    if labels != "all":
        frame["y"] = frame["y"].where(np.arange(150) < (75 if labels == "some" else 0))
    model = window_loss.fit_loss_model(record, columns, kind_of(kind), problem(kind), 0)
    known = window_loss.measure_window_loss(record, frame, kind_of(kind), problem(kind))
    drift = DriftResult(False, None, None, None, 0.01, (), 300, 150)
    found = diagnose_change(DiagnosisCase(record, frame, columns, kind_of(kind), problem(kind), model), drift, known)
    assert found.change == "none" or found.sure < 0.6, found
    assert 0 < found.sure < 1


def test_dependent_rows_speak_less_loudly() -> None:
    """Ten rows of one group that are alike are worth about one."""
    kind, chosen = kind_of("regression"), problem("regression", group="house")
    alone = answered(rows(60, 3), record=True).assign(house=range(60))
    frame = answered(rows(60, 4)).assign(house=range(100, 160))
    many = [
        pd.concat([f] * 10, ignore_index=True)[[*[c for c in f if c[0] != "_"], *[c for c in f if c[0] == "_"]]]
        for f in (alone, frame)
    ]
    model = window_loss.fit_loss_model(many[0], COLUMNS, kind, chosen, 0)
    known = window_loss.measure_window_loss(*many, kind, chosen)
    found = diagnose_change(DiagnosisCase(*many, COLUMNS, kind, chosen, model), NEARLY, known)
    assert found.change == "none", found


def test_misfit_is_small_for_one_distribution_and_large_for_two() -> None:
    rng = np.random.default_rng(0)
    same = [
        window_states.compute_misfit(*(rng.multinomial(500, [0.2] * 5).astype(float) for _ in range(2)))
        for _ in range(300)
    ]
    assert np.mean(np.array(same) > 1.92) < 0.08, "half the square of 1.96, one-sided"
    assert window_states.compute_misfit(np.array([300.0, 200]), np.array([200.0, 300])) > 10


@pytest.mark.slow
@pytest.mark.skipif("WINDVANE_DATA" not in __import__("os").environ, reason="needs the whole tables")
def test_injected_changes_are_named_on_a_real_table() -> None:
    from benchmarks import diagnosis, injections

    judged = [j for seed in range(2) for j in diagnosis.look(injections.REPORTED[1], seed, (1,)) if j.labelled]
    assert diagnosis.f1(judged) >= 0.75, [(j.cause, j.how, j.named) for j in judged if j.cause != j.named]
