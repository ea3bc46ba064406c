"""The data page: it says the verdict first, is the same each time, and takes no name or value of a table for HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from tests.support.tables import chosen, houses
from windvane.tasks.reports import data_report
from windvane.tasks.settings.data_section import DataSettings
from windvane.tasks.validate import table_validation

HOSTILE = '<script>alert("1")</script>\n&amp; "quote" \' </style><img src=x onerror=y>'
DRAWN = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "footer", "h1", "h2", "h3", "p", "b", "i", "u", "em",
    "table", "tr", "th", "td", "span", "div", "svg", "rect", "polyline", "text",
}  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.titles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}


def page(table: pd.DataFrame, before: pd.DataFrame | None = None, **problem: object) -> data_report.DataReport:
    mine = chosen(**{"time": "day", **problem})
    past = None if before is None else table_validation.inspect_table(before, mine).digest
    seen = table_validation.inspect_table(table, mine, None, past)
    return data_report.DataReport(mine, seen.digest, past, seen.findings, seen.sample)


@pytest.mark.parametrize("second", [False, True])
def test_no_name_or_value_of_a_table_becomes_html(second: bool) -> None:
    table = (
        houses(400).rename(columns={"town": HOSTILE}).assign(**{f"{HOSTILE}2": [HOSTILE, "b"] * 200, "size": np.nan})
    )
    table[f"{HOSTILE}3"] = np.arange(400.0) % 7
    table.loc[:50, HOSTILE] = None
    text = data_report.render_data_report(page(table, houses(400).assign(**{HOSTILE: "x"}) if second else None))
    tags = Tags()
    tags.feed(text)
    assert tags.seen <= DRAWN, tags.seen - DRAWN
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("src", "href")}
    assert "default-src 'none'" in text


def test_the_verdict_stands_first_and_the_page_is_the_same_each_time() -> None:
    table = houses(400).assign(country="DE")
    text = data_report.render_data_report(page(table))
    assert text == data_report.render_data_report(page(table))
    assert "This table can train a model, with 1 warning." in text
    assert text.index("can train a model") < text.index("Findings") < text.index("Columns")
    assert "What changed" not in text
    assert "What changed" in data_report.render_data_report(page(table, houses(300)))


def test_two_hundred_columns_make_a_page_of_bearable_size() -> None:
    rng = np.random.default_rng(0)
    wide = houses(500).join(pd.DataFrame(rng.normal(0, 1, (500, 200)), columns=[f"x{i}" for i in range(200)]))
    assert len(data_report.render_data_report(page(wide))) < 1_500_000


def test_secrets_of_an_address_are_not_shown() -> None:
    address = "postgresql://me:${SECRET}@db.example/sales?password=${UNSEEN}"
    mine = chosen("t.csv", time="day").model_copy(update={"data": DataSettings(source=address, query="SELECT 1")})
    seen = table_validation.inspect_table(houses(), mine)
    text = data_report.render_data_report(data_report.DataReport(mine, seen.digest, None, seen.findings, seen.sample))
    assert "postgresql://db.example/sales" in text
    assert "SECRET" not in text
    assert "UNSEEN" not in text
