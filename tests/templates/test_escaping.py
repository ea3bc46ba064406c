"""Pages as templates: no string of a user's becomes HTML on any page, and no other code of the product writes HTML."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import jinja2
import pytest

from tests.monitoring.test_decision_policies import look, quality
from tests.project.test_house import SOURCES
from tests.support.projects import ROOT
from tests.support.tables import chosen, houses
from windvane.ledger.decisions import DecisionRecord
from windvane.monitoring.history import replay_report as replay_page
from windvane.monitoring.history.replay_report import ReplayedWindow, ReplayResult
from windvane.monitoring.records import ChangeDiagnosis
from windvane.monitoring.watch import report as monitoring_report
from windvane.tasks.reports import data_report
from windvane.tasks.validate import table_validation
from windvane.templates import render_page

pytestmark = pytest.mark.long

TEMPLATES = sorted((ROOT / "templates").glob("*.html"))
# Ends every context that a value may stand in: text, a title, a style, a script, attributes in either quotes, a comment.
HOSTILE = (
    "\"'></title></style></script>--><script>window.hit=1</script><img src=x onerror='window.hit=1'>&amp;&lt;{{7*7}}"
)
# As long, with digits for the signs that HTML knows.
HARMLESS = HOSTILE.translate(str.maketrans("<>&\"'=/", "0123456"))


def data_page(evil: str) -> str:
    """Columns, categories, project, file, target and every message are called that."""
    names = {"price": f"price {evil}", "town": f"town {evil}", "size": f"size {evil}", "day": f"day {evil}"}
    before = houses(300).rename(columns=names).assign(**{f"gone {evil}": 1.0})
    table = (
        houses(400)
        .rename(columns=names)
        .assign(**{f"one {evil}": evil, f"id {evil}": [f"{i}{evil}" for i in range(400)]})
    )
    table[names["town"]] = [f"{town} {evil}" for town in table[names["town"]]]
    table.loc[:50, names["town"]] = None
    settings = chosen(f"{evil}.csv", target=names["price"], time=names["day"])
    settings = settings.model_copy(update={"project": evil})
    past = table_validation.inspect_table(before, settings).digest
    seen = table_validation.inspect_table(table, settings, None, past)
    found = tuple(
        replace(f, message=f"{f.message} {evil}", figure=evil if i % 2 else f.figure)
        for i, f in enumerate(seen.findings)
    )
    found = (*found, replace(found[0], level="stop", limit=evil, message=evil))
    return data_report.render_data_report(data_report.DataReport(settings, seen.digest, past, found, seen.sample))


def monitoring_page(evil: str) -> str:
    """Columns, project, and all that was said of the check and its decision."""
    one = look(0.2, alarm=True, change="data drift", columns=(evil, "_prediction", f"_p_{evil}"), remedy="refit")
    drift = replace(one.drift, note=evil, findings=tuple(replace(f, said=evil) for f in one.drift.findings))
    one = replace(one, drift=drift, estimate=replace(quality(0.3, estimated=True), how=evil))
    one = replace(
        one,
        quality=replace(one.quality, how=evil),
        diagnosis=ChangeDiagnosis("data drift", 0.9, (evil,), evil, "refit"),
    )
    entry = DecisionRecord(evil, 1, "2026-05-01", "2026-06-01", "retrain", evil, gain=0.8, cost=0.5, realised=0.6)
    return monitoring_report.render_window_report(one, entry, evil, "ledger", (evil,), [look(0.1, n) for n in (2, 3)])


def replay(evil: str) -> str:
    """Project, policy, loss, window, and the reasons of every decision."""
    chapters = [
        ReplayedWindow(f"{evil}"[:10] if at else evil, evil, 100, 1, 1.0, 1.5, action, evil, evil, True, ending, evil)  # type: ignore[arg-type]
        for at, (action, ending) in enumerate(
            [("wait", None), ("retrain", "promoted"), ("retrain", "refused"), ("stop", None)]
        )
    ]
    return replay_page.render_replay_page(ReplayResult(evil, evil, evil, evil, True, 2000, tuple(chapters)), b"picture")


PAGES: dict[str, Callable[[str], str]] = {"data": data_page, "monitoring": monitoring_page, "replay": replay}


class Read(HTMLParser):
    """A page as a browser reads it: its elements with the names of their attributes, and all text and values that people see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.words += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment",))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("name", PAGES)
def test_no_string_of_a_user_changes_the_elements_of_a_page(name: str) -> None:
    hostile, harmless = Read(PAGES[name](HOSTILE)), Read(PAGES[name](HARMLESS))
    assert hostile.elements == harmless.elements
    assert not {tag for tag, *_ in hostile.elements} & {"script", "iframe", "object", "embed", "base", "form"}
    # Shown as it is, as often as the harmless one: escaped once, and nowhere evaluated or left out.
    shown = [" ".join(word.split()) for word in hostile.words]
    assert sum(HOSTILE in word for word in shown) == sum(HARMLESS in " ".join(w.split()) for w in harmless.words) > 5


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_one_file_that_loads_nothing_and_runs_nothing(name: str) -> None:
    page = PAGES[name]("x")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in page
    assert (ROOT / "templates" / "style.css").read_text(encoding="utf-8").strip() in page
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page)


def test_templates_escape_everything_and_quote_every_attribute() -> None:
    for path in TEMPLATES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*(safe|forceescape)|autoescape|Markup", text), path.name
        assert not re.search(r"=\s*\{[{%]", re.sub(r"\{%.*?%\}", "", text)), f"{path.name}: an attribute without quotes"
        for script in re.findall(r"<script.*?</script>", text, re.DOTALL):
            assert not re.search(r"\{[{%]", script), (
                f"{path.name}: a value in a script, where HTML's escapes do not help"
            )
        assert path.name == "base.html" or "<style" not in text, f"{path.name}: all pages share style.css"


def test_a_value_that_is_missing_is_an_error_and_no_gap() -> None:
    with pytest.raises(jinja2.UndefinedError, match="project"):
        render_page("data_report.html")


def test_jinja_is_imported_only_when_a_page_is_asked_for() -> None:
    pages = (
        "serving.http.app",
        "tasks.reports.data_report",
        "monitoring.watch.report",
        "monitoring.history.replay_report",
    )
    modules = ", ".join(f"windvane.{name}" for name in pages)
    code = f"import sys, {modules}; assert 'jinja2' not in sys.modules"
    code += "; from windvane.templates import render_page; render_page('scoring_service.html'); assert 'jinja2' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Strings that hold signs of HTML and make none, each with its reason.
NO_HTML = {
    "tasks/ingest/readers.py": "knows an HTML page that was downloaded instead of a table",
    "serving/compiled/agreement.py": "a hostile category with which a compiled model is tried",
    "flows/lap/model_steps.py": "escapes Markdown, whose readers obey tags too",
}


def strings(path: str) -> list[str]:
    """All strings of a module that are no docstrings, pieces of f-strings among them."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs]
    return [
        n.value.decode("latin-1") if isinstance(n.value, bytes) else n.value
        for n in found
        if isinstance(n.value, str | bytes)
    ]


def test_no_other_code_of_the_product_writes_html() -> None:
    # Not HTML's: groups of regular expressions, and pandas' word for a missing value.
    sign = re.compile(r"(?<!\(\?)(?<!\(\?P)<(?!na>)[a-z/!]|/>|&(?:lt|gt|amp|quot|#\w+);", re.IGNORECASE)
    writing = {str(p.relative_to(ROOT)) for p in SOURCES if any(map(sign.search, strings(str(p.relative_to(ROOT)))))}
    assert writing == set(NO_HTML)
