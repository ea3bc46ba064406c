"""A frame from anywhere, as a model expects it: what a stored model reads beyond files of Windvane's own."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from windvane.tasks.ingest.text_parsing import list_date_forms
from windvane.tasks.models.frame_reading import UnreadableFrame, list_plain_values, read_frame


def read(values: list[Any], kind: Any, known: tuple[str, ...] = ()) -> list[Any]:
    frame = read_frame(pd.DataFrame({"x": values}), {"x": kind}, {"x": known}, list_date_forms())
    return list_plain_values(frame, {"x": kind})[0]


@pytest.mark.parametrize(
    ("values", "known", "expected"),
    [
        ([1067, 10115], ("01067", "10115"), ["01067", "10115"]),
        ([1067.0, None], ("01067",), ["01067", None]),
        ([1, 2], ("1", "01", "2"), ["1", "2"]),
        ([7], ("07", "007"), ["7"]),  # which of the two is unknown
        ([1.5], ("1.50", "2.00"), ["1.50"]),
        ([99], ("01067",), ["99"]),
        ([True, False], ("true", "false", "maybe"), ["true", "false"]),
        (["1067"], ("01067",), ["1067"]),  # a text stays as it is
    ],
)
def test_a_number_in_a_column_of_words_is_the_word_that_reads_so(
    values: list[Any], known: tuple[str, ...], expected: list[Any]
) -> None:
    assert read(values, "category", known) == expected


def test_c4_n7_words_behind_a_blank_are_the_words_of_training() -> None:
    assert read([" US", "DE ", "  ", None], "category") == ["US", "DE", None, None]


def test_a_column_of_dates_has_one_form() -> None:
    day = 86_400_000_000
    assert read(["01.02.1970", None, "25.12.1970"], "date") == [31 * day, None, 358 * day]
    assert read(["1/2/1970", "12/25/1970"], "date") == [day, 358 * day]  # month first: there is no month 25
    assert read(["1970-01-02", "1970-01-03T12:00:00Z"], "date") == [day, 2.5 * day]
    with pytest.raises(UnreadableFrame, match=r"'x' has 2 value\(s\) that cannot be read as a date"):
        read(["1/2/1970", "3/4/1970"], "date")
    with pytest.raises(UnreadableFrame, match="row 2"):
        read(["1970-01-02", "25.12.1970"], "date")
