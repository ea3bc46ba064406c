"""The live alarm, read from Evidently's report: the same as by our own distances, there without them, and open where it fails."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.monitoring.test_drift_detector import COLUMNS, rows
from windvane.monitoring.drift import binning, detector, distances, evidently
from windvane.monitoring.records import DriftResult
from windvane.tasks.models.features import FeatureColumns

pytestmark = pytest.mark.long

MIXED = FeatureColumns(
    numbers=("size", "income", "rooms", "flat"), booleans=("pool",), dates=("built",), low=("town",), high=("street",)
)


def mixed(count: int, seed: int) -> pd.DataFrame:
    """Rows of every kind of column: also dates, free text, a number that hardly ever varies, and classes as answers."""
    rng, table = np.random.default_rng(seed), rows(count, seed)
    table["built"] = table["at"] - pd.to_timedelta(rng.integers(100, 9000, count), "D")
    table["street"] = [f"<b>Straße</b> {n}" for n in rng.zipf(1.6, count)]
    table["flat"] = (rng.random(count) < 0.004).astype(float)
    yes = 1 / (1 + np.exp(-table["size"]))
    table["_prediction"] = np.where(yes > 0.5, "yes", "no")
    table["_p_no"], table["_p_yes"] = 1 - yes, yes
    table["price"] = np.where(rng.random(count) < yes, "yes", "no").astype(object)
    return table


Change = Callable[[pd.DataFrame], pd.DataFrame]
CHANGES: dict[str, Change] = {
    "nothing": lambda w: w,
    "a shift": lambda w: w.assign(size=w["size"] + 0.6),
    "hardly a shift": lambda w: w.assign(size=w["size"] + 0.12),
    "another scale": lambda w: w.assign(size=w["size"] * 1.8),
    "missing numbers": lambda w: w.assign(income=w["income"].mask(np.arange(len(w)) % 3 == 0)),
    "missing words": lambda w: w.assign(town=w["town"].mask(np.arange(len(w)) % 3 == 0)),
    "no value at all": lambda w: w.assign(income=np.nan, town=None),
    "a column less": lambda w: w.drop(columns="income"),
    "a column twice": lambda w: pd.concat([w, w[["size"]]], axis=1),
    "words for numbers": lambda w: w.assign(income=np.where(np.arange(len(w)) % 2, "12 EUR", "3")),
    "infinite": lambda w: w.assign(income=np.inf),
    "far out": lambda w: w.assign(size=w["size"].mask(np.arange(len(w)) % 40 == 0, 1e6)),
    "beyond all numbers": lambda w: w.assign(size=w["size"].mask(np.arange(len(w)) % 2 == 0, 1e308)),
    "a new word": lambda w: w.assign(town=w["town"].mask(np.arange(len(w)) % 40 == 0, "Rome")),
    "many new words": lambda w: w.assign(town=[f"town {i % 97}" for i in range(len(w))]),
    "another text": lambda w: w.assign(street=[f"</script>{i}" for i in range(len(w))]),
    "other shares": lambda w: w.assign(town=w["town"].replace("Ulm", "Bonn")),
    "all true": lambda w: w.assign(pool=1.0),
    "a constant that moved": lambda w: w.assign(flat=np.where(np.arange(len(w)) % 20 == 0, 1.0, 0.0)),
    "other correlations": lambda w: w.assign(rooms=w["rooms"].sample(frac=1, random_state=0).to_numpy()),
    "younger houses": lambda w: w.assign(built=w["at"] - pd.Timedelta(days=50)),
    "other answers": lambda w: w.assign(_prediction="yes"),
    "late labels": lambda w: w.assign(price=w["price"].where(np.arange(len(w)) < len(w) // 2).replace("no", "yes")),
}


def both(
    reference: pd.DataFrame, window: pd.DataFrame, columns: FeatureColumns, **options: Any
) -> tuple[DriftResult, DriftResult, str]:
    """What our own distances say, what Evidently's report says, and that report."""
    chosen: dict[str, Any] = {"target": "price", "time": None, "level": 0.01, "seed": 0, **options}
    level = chosen.pop("level")
    compared = detector.Comparison(reference, window, columns, **chosen)
    read, page = detector.detect_drift_with_evidently(compared, level)
    return detector.detect_drift(compared, level), read, page or ""


def same(own: DriftResult, read: DriftResult) -> bool:
    def told(one: DriftResult) -> set[tuple[str, str, bool]]:
        return {(f.column, f.aspect, f.alarm) for f in one.findings}

    facts = [(d.alarm, d.columns, d.statistic, d.limit, d.p, told(d), d.note) for d in (own, read)]
    return facts[0] == facts[1]


@pytest.mark.parametrize("time", [None, "at"])
@pytest.mark.parametrize("change", CHANGES)
def test_the_report_gives_the_alarm_of_our_own_distances(change: str, time: str | None) -> None:
    table = mixed(1200, 1)
    own, read, page = both(table[:900], CHANGES[change](table[900:]), MIXED, time=time)
    assert same(own, read), (own, read)
    assert "</script>3" not in page


def test_columns_that_are_not_drawn_are_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = mixed(700, 1)
    window = table[400:].assign(size=table["size"] + 0.5, town=table["town"].replace("Ulm", "Bonn"))
    _, whole, page = both(table[:400], window, MIXED)
    monkeypatch.setattr(evidently, "DRAWN", 1)
    own, read, short = both(table[:400], window, MIXED)
    assert same(own, read), (own, read)
    assert read == whole
    assert page.count("Drift in column") > short.count("Drift in column") > 0
    assert "size: Wasserstein distance (normed)" in short


def test_several_windows_of_a_history_give_the_same_alarms() -> None:
    """Held against earlier stretches, and a past before the reference; some windows alarm, and some do not."""
    table = mixed(4000, 2)
    table["size"] += np.where(np.arange(4000) >= 3400, 1.0, 0.0)
    alarms = []
    for start in range(2800, 4000, 200):
        window = table[start : start + 200]
        own, read, _ = both(table[1500:2700], window, MIXED, time="at", history=table[:1500], level=0.05)
        assert same(own, read), (start, own, read)
        assert "held against" in str(read.note)
        alarms.append(read.alarm)
    assert set(alarms[-3:]) == {True}
    assert False in alarms


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**16),
    reference=st.integers(20, 400),
    window=st.integers(20, 400),
    level=st.sampled_from([0.01, 0.2, 0.5]),
    shift=st.sampled_from([0.0, 0.1, 0.3, 1.0]),
    time=st.sampled_from([None, "at"]),
    coarse=st.booleans(),
)
def test_small_tables_where_values_tie_give_the_same_alarms(
    seed: int, reference: int, window: int, level: float, shift: float, time: str | None, coarse: bool
) -> None:
    table = mixed(reference + window, seed)
    table["size"] = (table["size"] + shift * (np.arange(len(table)) >= reference)).round(0 if coarse else 9)
    own, read, _ = both(table[:reference], table[reference:], MIXED, time=time, level=level, seed=seed)
    assert same(own, read), (own, read)


@hypothesis_settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), cut=st.booleans())
def test_distances_are_evidentlys_on_the_rows_that_it_is_given(seed: int, cut: bool) -> None:
    """Cells counted by our distances, and by SciPy's, against Evidently's functions on the rows, each as its cell's value."""
    from evidently.legacy.calculations.stattests import jensenshannon_stat_test, wasserstein_stat_test
    from evidently.legacy.core import ColumnType

    rng = np.random.default_rng(seed)
    n, m = rng.integers(20, 900, 2)
    values = np.concatenate([rng.standard_normal(n), rng.standard_normal(m) * 1.2 + 0.1])
    found = binning.bin_numbers("x", "numbers", values.round(1) if cut else values, np.zeros(n + m, dtype=bool))
    sides = [found.codes[:n], found.codes[n:]]
    series = [pd.Series(found.stands_for[side]) for side in sides]
    theirs = wasserstein_stat_test(*series, ColumnType.Numerical, 0.1).drift_score
    unit = found.scale / float(series[0].std(ddof=0))
    towns = [rng.choice(list("abcdefg"), size, p=rng.dirichlet(np.ones(7))) for size in (n, m)]
    apart = jensenshannon_stat_test(*map(pd.Series, towns), ColumnType.Categorical, 0.1).drift_score
    counts = pd.DataFrame({i: pd.Series(t).value_counts() for i, t in enumerate(towns)}).fillna(0).to_numpy().T
    for ours in (distances, distances.ScipyDistances()):
        one, other = (np.bincount(side, minlength=found.size) / len(side) for side in sides)
        assert float(ours.compute_wasserstein(one, other, found.gaps)) * unit == pytest.approx(theirs, rel=1e-9)
        assert float(ours.compute_kolmogorov_smirnov(one, other)) == pytest.approx(
            float(distances.compute_kolmogorov_smirnov(one, other))
        )
        said = ours.compute_jensen_shannon(*(side / side.sum() for side in counts))
        assert float(said) == pytest.approx(float(apart), rel=1e-6)


def break_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every function of ours that measures a distance by one that raises."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("this distance is broken")

    found = [name for name, value in vars(distances).items() if isinstance(value, FunctionType)]
    assert {"compute_wasserstein", "compute_kolmogorov_smirnov", "compute_jensen_shannon"} <= set(found)
    for name in found:
        monkeypatch.setattr(distances, name, broken)


@pytest.mark.parametrize("time", [None, "at"])
def test_without_our_distances_the_same_windows_alarm(monkeypatch: pytest.MonkeyPatch, time: str | None) -> None:
    table = rows(1000, 1)
    windows = [table[700:], table[700:].assign(size=table["size"] + 0.8)]
    compared = [detector.Comparison(table[:700], window, COLUMNS, "price", time, 0) for window in windows]
    whole = [detector.detect_drift_with_evidently(one, 0.01)[0] for one in compared]
    break_distances(monkeypatch)
    with pytest.raises(RuntimeError, match="this distance is broken"):
        detector.detect_drift(compared[0], 0.01)
    without = [detector.detect_drift_with_evidently(one, 0.01)[0] for one in compared]
    assert [w.alarm for w in without] == [w.alarm for w in whole] == [False, True]
    assert without[1].columns[0] == "size"
    assert "because the fast ones failed: RuntimeError: this distance is broken" in str(without[1].note)


@pytest.mark.parametrize("error", [RuntimeError("no such\n widget"), MemoryError()])
def test_a_report_that_fails_leaves_the_alarm_open_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(evidently, "Report", broken)
    table = rows(1000, 1)
    found, page = detector.detect_drift_with_evidently(
        detector.Comparison(table[:700], table[700:], COLUMNS, target="price", time=None, seed=0), 0.01
    )
    assert (found.alarm, found.statistic, found.p, found.findings, page) == (None, None, None, (), None)
    assert f"cannot tell whether anything moved: its report failed: {type(error).__name__}" in str(found.note)
    assert "\n" not in str(found.note)
    gone = table[700:].drop(columns="income")
    found, _ = detector.detect_drift_with_evidently(
        detector.Comparison(table[:700], gone, COLUMNS, target="price", time=None, seed=0), 0.01
    )
    assert "income: the column is gone from the window" in str(found.note)


def test_a_test_without_an_answer_is_no_quiet_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from evidently.core.metric_types import MetricTestResult
    from evidently.legacy.tests.base_test import TestStatus

    made = MetricTestResult.__init__
    monkeypatch.setattr(
        MetricTestResult, "__init__", lambda self, **given: made(self, **{**given, "status": TestStatus.ERROR})
    )
    table = rows(300, 1)
    found, _ = detector.detect_drift_with_evidently(
        detector.Comparison(table[:200], table[200:], COLUMNS, target="price", time=None, seed=0), 0.01
    )
    assert found.alarm is None
    assert "gave no result" in str(found.note)


def test_too_few_rows_and_nothing_to_compare_run_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidently, "write_evidently_report", None)
    table = rows(300, 0)
    for window, columns in ((table[:7], COLUMNS), (table[:50], FeatureColumns())):
        found, page = detector.detect_drift_with_evidently(
            detector.Comparison(table.drop(columns=["_prediction"]), window, columns, None, None, 0), 0.01
        )
        assert (found.alarm, found.statistic, page) == (False, None, None)
