"""Pages in a real browser: the service's, and that no page runs what it shows."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.projects import missing
from tests.support.served_models import ROW, made_project, serving
from tests.templates.test_escaping import HARMLESS, HOSTILE, PAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("a Chromium (CHROMIUM names it)")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--disable-gpu", "--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any) -> Iterator[Any]:
    """A page that is closed also where a test fails: its script would go on to ask a server that is gone."""
    page = browser.new_page()
    try:
        yield page
    finally:
        page.unroute_all(behavior="ignoreErrors")
        page.close()


def test_the_page_tells_what_serves_and_tries_a_row(browser: Any, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"open").hexdigest()
    with serving(made_project(tmp_path), WINDVANE_API_KEYS=f"score:{digest}") as (_, port), opened(browser) as page:
        faults: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_label("Key").fill("open")
        page.get_by_label("Key").press("Tab")
        page.get_by_text("price (regression)").wait_for()
        for name, value in ROW.items():
            page.locator(f"input[name={name}]").fill(str(value).lower() if value is True else str(value))
        page.get_by_role("button", name="Predict").click()
        page.get_by_text("Prediction:").wait_for()
        page.locator("input[name=garden]").fill("<b>perhaps</b>")
        page.get_by_role("button", name="Predict").click()
        page.get_by_text("must be true or false").wait_for()
        page.goto(f"http://127.0.0.1:{port}/docs")
        page.get_by_text("POST /invocations").wait_for()
        assert faults == []
        assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in asked)


def renamed(content: Any, word: str) -> Any:
    """JSON with every string prefixed, but for those that the page decides by."""
    if isinstance(content, dict):
        return {
            key: value if key in ("type", "since", "until") else renamed(value, word) for key, value in content.items()
        }
    if isinstance(content, list):
        return [renamed(value, word) for value in content]
    return f"{word} {content}" if isinstance(content, str) else content


def drawn(browser: Any, port: int, word: str) -> tuple[dict[str, int], str, str]:
    """How many elements of each tag the service's pages have, and their texts, where everything is called `word`."""
    more = {
        "refused": {"version": 2, "reason": "it is"},
        "challenger": {"version": 3, "role": "canary", "share": 0.1, "until": "2030-01-01T00:00:00Z"},
    }

    def model(route: Any) -> None:
        route.fulfill(json=renamed({**route.fetch().json(), **more}, word))

    def predicted(route: Any) -> None:
        (asked,) = json.loads(route.request.post_data)["dataframe_records"]
        answer = {"predictions": ["a"], "classes": ["a"], "probabilities": [[1.0]], "ids": ["b"], "model_version": "c"}
        assert all(word in name for name in asked)
        route.fulfill(json=renamed(answer, word))

    def described(route: Any) -> None:
        document = route.fetch().json()
        for methods in document["paths"].values():
            for one in methods.values():
                one["summary"] = word
        document["components"]["schemas"]["row"] = {"properties": {word: {"type": "string", "description": word}}}
        document["paths"] = {f"{path}{word}": methods for path, methods in document["paths"].items()}
        route.fulfill(json=document)

    counts: dict[str, int] = {}
    texts = []
    with opened(browser) as page:
        page.route("**/model", model)
        page.route("**/invocations", predicted)
        page.route("**/openapi.json", described)
        for path, ready in (("", "was refused"), ("docs", "A row")):
            page.goto(f"http://127.0.0.1:{port}/{path}")
            page.get_by_text(ready).first.wait_for()
            if not path:
                for field in page.locator("form input").all():
                    field.fill("1")
                page.get_by_role("button", name="Predict").click()
                page.get_by_text("Prediction:").wait_for()
            for tag in page.evaluate("[...document.querySelectorAll('*')].map(e => e.tagName)"):
                counts[tag] = counts.get(tag, 0) + 1
            texts.append(page.inner_text("body"))
            assert page.evaluate("window.hit") is None
    return counts, texts[0], texts[1]


def test_nothing_that_a_model_or_an_answer_is_called_becomes_html(browser: Any, tmp_path: Path) -> None:
    with serving(made_project(tmp_path)) as (_, port):
        hostile, harmless = (drawn(browser, port, word) for word in (HOSTILE, HARMLESS))
    assert hostile[0] == harmless[0]
    for evil, good in zip(hostile[1:], harmless[1:], strict=True):
        assert evil.count(HOSTILE) == good.count(HARMLESS) > 5


@pytest.mark.parametrize("name", PAGES)
def test_a_written_page_runs_and_loads_nothing(name: str, browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[name](HOSTILE), encoding="utf-8")
    requested: list[str] = []
    with opened(browser) as page:
        page.on("request", lambda request: requested.append(request.url))
        page.goto(path.as_uri())
        assert page.evaluate("window.hit") is None
    assert [url for url in requested if not url.startswith("data:image/png")] == [path.as_uri()]
