"""Ground truth in any order: the join never depends on it. On SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.ledgers import answer, put
from windvane.ledger import database, labels
from windvane.ledger.database import to_timestamp
from windvane.ledger.labels import (
    ContradictingLabels,
    LabelCounts,
    LabelStatement,
    PredictionQuery,
    read_labelled_predictions,
    record_labels,
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    url = f"sqlite:///{file}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = database.connect_ledger(url)
    yield engine
    engine.dispose()


@pytest.fixture
def project() -> str:
    return f"p{uuid4().hex}"


def labels_of(engine: sa.Engine, project: str, **which: Any) -> dict[str, Any]:
    return {judged.id: judged.label for judged in read_labelled_predictions(engine, project, PredictionQuery(**which))}


def record_in_turn(engine: sa.Engine, project: str, statements: list[LabelStatement]) -> None:
    """Statements, those that contradict an earlier one in a hand-in of their own."""
    while statements:
        first = {(s.id, s.at): s.label for s in reversed(statements)}
        record_labels(engine, project, [s for s in statements if s.label == first[s.id, s.at]])
        statements = [s for s in statements if s.label != first[s.id, s.at]]


# Few ids, moments and labels, so that repeats, corrections and ties are the rule.
words = st.sampled_from(["late", "on time", "Zürich", "zu spät", "𝄞"])
dated = st.builds(
    LabelStatement,
    id=st.sampled_from(["a", "b", "c", "never predicted"]),
    label=words | st.sampled_from([0.0, -1.5, 10.0, 9.0]),
    at=st.sampled_from([to_timestamp(f"2026-01-0{day}") for day in (1, 2, 3)]),
)
arrivals = st.lists(st.lists(dated | st.sampled_from(["a", "b", "c"]), max_size=6), min_size=1, max_size=4)


@pytest.mark.long
@given(arrivals, st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_join_does_not_depend_on_the_order_of_arrival(
    engine: sa.Engine, batches: list[list[Any]], chance: Any
) -> None:
    """80 sets of statements and predictions (text: the id of one), in two orders each: the second shuffled, with repeats."""
    everything = [one for batch in batches for one in batch]
    again = everything + chance.choices(everything, k=len(everything) // 2) if everything else []
    chance.shuffle(again)
    cuts = sorted(chance.randrange(len(again) + 1) for _ in range(2))
    expected = {id: None for id in everything if isinstance(id, str)}
    for id in expected:
        said = [
            (s.at, json.dumps(s.label, ensure_ascii=False)) for s in everything if not isinstance(s, str) and s.id == id
        ]
        expected[id] = json.loads(max(said)[1]) if said else None
    for order in (batches, [again[: cuts[0]], again[cuts[0] : cuts[1]], again[cuts[1] :]]):
        project, past = uuid4().hex, []
        for batch in order:
            put(engine, project, *(answer(id) for id in batch if isinstance(id, str)))
            record_in_turn(engine, project, [s for s in batch if not isinstance(s, str)])
            past.append((database.now_timestamp(), labels_of(engine, project, unlabelled=True)))
        assert past[-1][1] == expected
        for then, known in past:
            assert labels_of(engine, project, unlabelled=True, known=then) == known


def test_what_came_of_statements_is_counted(engine: sa.Engine, project: str) -> None:
    put(engine, project, answer("a"), answer("b"))
    early, late = to_timestamp("2026-01-01"), to_timestamp("2026-01-02")
    first = [LabelStatement("a", 1.0, early), LabelStatement("a", 1.0, early), LabelStatement("x", 2.0)]
    assert record_labels(engine, project, first) == LabelCounts(matched=1, unmatched=1, duplicates=1, changed=0)
    assert record_labels(engine, project, first) == LabelCounts(duplicates=3)
    # A correction, one that is out of date before it arrives, and a first label.
    more = [LabelStatement("a", 5.0, late), LabelStatement("b", 3.0, late), LabelStatement("b", 4.0, early)]
    assert record_labels(engine, project, more) == LabelCounts(matched=3, changed=1)
    assert labels_of(engine, project) == {"a": 5.0, "b": 3.0}


def test_without_a_moment_the_last_word_counts_and_a_retry_changes_nothing(engine: sa.Engine, project: str) -> None:
    put(engine, project, answer("a"))
    outcomes = [record_labels(engine, project, [LabelStatement("a", word)]) for word in ("no", "yes", "yes", "no")]
    assert [(o.matched, o.duplicates, o.changed) for o in outcomes] == [(1, 0, 0), (1, 0, 1), (0, 1, 0), (1, 0, 1)]
    assert labels_of(engine, project) == {"a": "no"}


def test_a_label_waits_for_its_prediction_and_holds_for_every_answer(engine: sa.Engine, project: str) -> None:
    assert record_labels(engine, project, [LabelStatement("a", "late")]).unmatched == 1
    put(engine, project, answer("a"), answer("a", version=2), answer("a", role="shadow"))
    assert [(j.version, j.label) for j in read_labelled_predictions(engine, project)] == [(1, "late"), (2, "late")]
    assert [
        (j.version, j.label) for j in read_labelled_predictions(engine, project, PredictionQuery(role="shadow"))
    ] == [(1, "late")]


def test_a_window_is_a_stretch_of_the_predictions_own_time(engine: sa.Engine, project: str) -> None:
    days = [f"2026-01-0{n}" for n in (3, 1, 2)]
    put(engine, project, *(answer(day, time=day) for day in days))
    record_labels(engine, project, [LabelStatement(day, "late") for day in days[1:]])
    window = {"since": "2026-01-01", "until": "2026-01-03"}
    assert [j.id for j in read_labelled_predictions(engine, project, PredictionQuery(**window))] == [
        "2026-01-01",
        "2026-01-02",
    ]
    assert [j.id for j in read_labelled_predictions(engine, project, PredictionQuery(unlabelled=True))] == sorted(days)


def test_numbers_that_order_the_rows_are_times_too(engine: sa.Engine, project: str) -> None:
    put(
        engine, project, *(answer(n, time=time) for n, time in (("10", 10), ("9", 9), ("-1.5", -1.5), ("2015", "2015")))
    )
    assert [j.id for j in read_labelled_predictions(engine, project, PredictionQuery(unlabelled=True))] == [
        "-1.5",
        "9",
        "10",
        "2015",
    ]
    assert [
        j.id for j in read_labelled_predictions(engine, project, PredictionQuery(until=2015, since=9, unlabelled=True))
    ] == [
        "9",
        "10",
    ]


def test_a_long_read_holds_up_no_writer(engine: sa.Engine, project: str) -> None:
    put(engine, project, *(answer(str(n)) for n in range(3)))
    reading = read_labelled_predictions(engine, project, PredictionQuery(unlabelled=True))
    next(reading)
    put(engine, project, answer("later"))
    assert "later" not in {j.id for j in reading}
    assert len(labels_of(engine, project, unlabelled=True)) == 4


def test_either_all_statements_of_a_hand_in_count_or_none(engine: sa.Engine, project: str) -> None:
    def broken() -> Iterator[LabelStatement]:
        yield LabelStatement("a", 1.0)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        record_labels(engine, project, broken())
    put(engine, project, answer("a"))
    assert labels_of(engine, project) == {}


def test_more_ids_than_a_statement_holds_are_handed_in_together(engine: sa.Engine, project: str) -> None:
    many = [LabelStatement(str(n), float(n)) for n in range(12_000)]
    assert record_labels(engine, project, many).unmatched == 12_000
    assert record_labels(engine, project, reversed(many)).duplicates == 12_000


def test_a_large_hand_in_is_not_held_in_memory_and_its_mistakes_are_still_found(
    engine: sa.Engine, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "CHUNK_ITEMS", 500)

    def many(last: float) -> Iterator[LabelStatement]:
        yield LabelStatement("000017", 2.0, to_timestamp("2026-01-01"))
        yield from (LabelStatement(f"{n % 8000:06d}", float(n % 8000)) for n in range(48_000))
        yield LabelStatement("000017", last)  # far from its like

    put(engine, project, *(answer(f"{n:06d}") for n in range(0, 8000, 1000)))
    with pytest.raises(ContradictingLabels, match=r"id '000017' has two labels: 17.0 and 5.0"):
        record_labels(engine, project, many(5.0))
    assert labels_of(engine, project) == {}
    tracemalloc.start()
    try:
        counts = record_labels(engine, project, many(17.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts == LabelCounts(matched=8, unmatched=7993, duplicates=40_001)
    assert peak < 4e6, f"{peak:,} bytes: 48,000 statements as a list alone take 12 MB"


def test_of_several_who_hand_in_the_same_at_once_one_is_first(engine: sa.Engine, project: str) -> None:
    many, outcomes = [LabelStatement(str(n), float(n)) for n in range(500)], list[LabelCounts]()
    started = [threading.Thread(target=lambda: outcomes.append(record_labels(engine, project, many))) for _ in range(4)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert sorted(outcome.unmatched for outcome in outcomes) == [0, 0, 0, 500]
    assert sum(outcome.duplicates for outcome in outcomes) == 1500
