"""The service's pages in a real browser."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.served import ROW, made_project, serving

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


def test_the_page_tells_what_serves_and_tries_a_row(browser: Any, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"open").hexdigest()
    with serving(made_project(tmp_path), WINDVANE_API_KEYS=f"score:{digest}") as (_, port):
        page = browser.new_page()
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
