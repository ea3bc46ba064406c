"""Words known from earlier batches: the same words, codes and hashes as without that knowledge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windvane.tasks import io
from windvane.tasks.ingest import row_keys
from windvane.tasks.ingest.row_keys import WordLexicon

# Short and long, of few bytes and of many, one the beginning of another; eleven, twelve and thirteen bytes.
WORDS = ["a", "b", "ab", "ä", "abcd", "abcde", "elevenbytes", "twelve bytes"]
WORDS += ["thirteen byte", "a\x00b", "東京", "x" * 99]
BATCHES = st.lists(st.lists(st.sampled_from([*WORDS, None]), min_size=1, max_size=20), min_size=1, max_size=6)


def same(known: row_keys.EncodedWords, values: pl.Series) -> None:
    """`known` says of `values` what keys.words() does."""
    assert known.values.equals(values, null_equal=True)
    assert known.different.gather(known.codes).to_list() == values.to_list()
    assert (
        row_keys.combine_columns([known], len(values))
        == row_keys.combine_columns([row_keys.encode_words(values)], len(values))
    ).all()


@given(BATCHES, st.sampled_from([3, row_keys.MAX_LEXICON_WORDS]))
@settings(max_examples=150, deadline=None)
def test_a_batch_of_known_words_is_read_as_without_them(batches: list[list[str | None]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_keys, "MAX_LEXICON_WORDS", most)
        seen = WordLexicon()
        for batch in batches:
            values = pl.Series("town", batch, dtype=pl.String)
            if (known := seen.read(values)) is not None:
                same(known, values)
            seen.learn(row_keys.encode_words(values).different)


@pytest.mark.parametrize("number", [1, 12, 400, 500])
def test_few_words_are_known_from_the_second_batch_on_also_in_a_slice(number: int) -> None:
    words = np.array([f"kind {i}" for i in range(number)])
    values = pl.Series("sort", words[np.random.default_rng(number).integers(0, number, 5000)])
    seen = WordLexicon()
    assert seen.read(values) is None
    seen.learn(row_keys.encode_words(values).different)
    for some in (values, values.slice(7, 100), values.reverse()):
        known = seen.read(some)
        assert known is not None
        same(known, some)
    assert seen.read(pl.Series("sort", ["kind 0", "no kind"])) is None
    assert seen.read(pl.Series("sort", ["kind 0", None])) is None


def test_words_that_come_later_are_known_too_and_those_before_stay_as_they_were() -> None:
    seen, batches = WordLexicon(), [[None], ["a", "b"], ["b", "c", "a"], ["c"]]
    for batch in batches:
        seen.learn(row_keys.encode_words(pl.Series(batch, dtype=pl.String)).different)
        before = seen.read(pl.Series(["b"]))
    later = pl.Series(["c", "a", "b"] * 5)
    known = seen.read(later)
    assert known is not None
    assert before is not None
    same(known, later)
    assert (known.different.to_list(), before.different.to_list()) == (["a", "b", "c"], ["a", "b", "c"])


@pytest.mark.parametrize(
    "more", [["much longer than twelve bytes"], [f"w{i}" for i in range(row_keys.MAX_LEXICON_WORDS)]]
)
def test_long_words_and_many_words_are_not_looked_up(more: list[str]) -> None:
    seen, few = WordLexicon(), pl.Series(["a", "b"])
    seen.learn(few)
    assert seen.read(few) is not None
    seen.learn(pl.Series(more))
    seen.learn(few)
    assert seen.read(few) is None


def test_the_file_states_its_words_whatever_the_columns_are_called(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few, many = rng.choice(["x", "ü", ""], 700), [f"name {i}" for i in range(700)]
    gaps = [None if i % 3 else "y" for i in range(700)]
    frame = pl.DataFrame({"a": few, "a.b": many, 'c"[0]': gaps, "none": pl.Series([None] * 700, dtype=pl.String)})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=200)
    expected = {name: frozenset(frame[name].drop_nulls().to_list()) for name in frame.columns}
    assert io.read_distinct_words(tmp_path / "t.parquet", tuple(frame.columns)) == expected
    assert io.read_distinct_words(tmp_path / "t.parquet", ("a",)) == {"a": expected["a"]}
    assert io.read_distinct_words(tmp_path / "t.parquet", ()) == {}
