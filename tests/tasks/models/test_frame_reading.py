"""A frame from anywhere, as a model expects it: what a stored model reads beyond files of Windvane's own."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from windvane.tasks.models.frame_reading import UnreadableFrame, list_plain_values, read_frame


def read(values: list[Any], kind: Any, known: tuple[str, ...] = (), dates: str | None = None) -> list[Any]:
    frame = read_frame(pd.DataFrame({"x": values}), {"x": kind}, {"x": known}, dates)
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


def test_c2_n11_a_quarter_is_its_first_day_in_a_frame_too() -> None:
    day = 86_400_000_000
    assert read(["1970Q1", None, "1970 q2"], "date") == [0, None, 90 * day]
    with pytest.raises(UnreadableFrame, match="'x' has 1 value"):
        read(["1970Q5"], "date")


def test_c2_n12_the_order_of_day_and_month_that_training_knew_holds_in_a_frame() -> None:
    day = 86_400_000_000
    assert read(["02/01/1970", "03/01/1970"], "date", dates="day_first") == [day, 2 * day]
    assert read(["01/02/1970", "01/03/1970"], "date", dates="month_first") == [day, 2 * day]


def test_c2_n13_words_for_no_value_and_blanks_mean_nothing_in_dates_of_a_frame() -> None:
    day = 86_400_000_000
    assert read([" 1970-01-02 ", "NA", "n/a", ""], "date") == [day, None, None, None]
    assert read([" 02.01.1970", "NA", ""], "date") == [day, None, None]
