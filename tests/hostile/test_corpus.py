"""Every hostile table has its verdict, in one message that helps, and leaves nothing behind (see case.py)."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from click.testing import CliRunner

from tests.hostile import (
    corpus_encoding,
    corpus_formats,
    corpus_json,
    corpus_names,
    corpus_numbers,
    corpus_parquet,
    corpus_places,
    corpus_public,
    corpus_shape,
    corpus_time,
    corpus_types,
    corpus_values,
)
from tests.hostile.case import Case
from tests.hostile.verdicts import MADE, OUTPUTS, judged, lying, params, shown
from windvane.cli.main import main
from windvane.tasks.ingest.cell_reading import call_column
from windvane.tasks.reports import data_report
from windvane.tasks.settings import project_params
from windvane.tasks.split import data_split
from windvane.tasks.validate import table_validation

pytestmark = pytest.mark.long

THEMES = (
    corpus_encoding,
    corpus_formats,
    corpus_json,
    corpus_names,
    corpus_numbers,
    corpus_parquet,
    corpus_places,
    corpus_public,
    corpus_shape,
    corpus_time,
    corpus_types,
    corpus_values,
)
CASES = {case.name: case for theme in THEMES for case in theme.CASES}

# Each message ends in something to do.
REMEDY = re.compile(
    r"\b(Add|Copy|Delete|Did you mean|Download|Export|Fill|Fetch|Fix|Flatten|Give|Join|join|Lower|Name|Open|Put|put|Raise|"
    r"Remove|Rename|Save|Set|set|Split|Unpack|Write)\b"
)
# What only programmers understand.
INTERNALS = re.compile(r"Traceback|Arrow|pandas|polars|numpy|np\.|<class|object at 0x|Errno|Exception|::")
# What stands in the corpus' names and cells, and must not stand so in a page.
MARKUP = re.compile(r"<(script>alert|img src=x|b>size)")
LONGEST = 1500
SECONDS = 60


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A pipe or a device must not hold us for ever."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def helps(message: str, file: str) -> None:
    """One line, not too long, that names the file and what to do, in words for people."""
    assert message.splitlines() == [message]
    assert message.isprintable()
    assert len(message) <= LONGEST, f"{len(message)} letters: {message[:200]}"
    assert repr(file)[1:-1] in message, message
    assert REMEDY.search(message), message
    assert not INTERNALS.search(message.replace(file, "")), message


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CASES) == sum(len(theme.CASES) for theme in THEMES) >= 70
    assert all(case.why for case in CASES.values())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_verdict(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case.build(tmp_path)
    before = lying(tmp_path)

    found = judged(Path(), params(case))

    assert found.verdict == case.verdict, found.said
    after = lying(tmp_path)
    assert {name: after.get(name) for name in before} == before
    new = [Path(name) for name in after if name not in before]
    assert [p for p in new if not any(p in (m, *m.parents) or m in p.parents for m in MADE)] == []
    if case.verdict == "stop":
        (message,) = found.said
        helps(message, case.names or case.file)
        assert [words for words in case.says if words not in message] == [], message
        assert len([made for made in OUTPUTS if str(made) in after]) in (0, len(OUTPUTS))  # in split: all were written
        assert not [name for name in after if name.startswith(f"{data_split.SPLIT_FOLDER}/")]
    elif case.verdict == "warn":
        assert any(all(words in said for words in case.says) for said in found.said), found.said
        assert all(said.isprintable() and len(said) <= LONGEST for said in found.said)
    pages = [
        path
        for path in (tmp_path / data_report.DATA_REPORT_FILE, tmp_path / table_validation.STOPPED_PAGE_FILE)
        if path.exists()
    ]
    assert case.verdict == "stop" or pages == [tmp_path / data_report.DATA_REPORT_FILE]
    assert not [page for page in pages if MARKUP.search(page.read_text(encoding="utf-8"))]
    for name, cells in case.reads.items():
        assert found.table is not None
        assert shown(found.table, name, len(cells)) == cells


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.init], ids=lambda case: case.name)
def test_init_proposes_or_says_why_not(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case.build(tmp_path)
    given = [f"--{role}={name}" for role, name in {"target": "price", **case.problem}.items()]
    given += [f"--format={key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in case.format.items()]

    ran = CliRunner().invoke(main, ["init", case.file, *given])

    assert ran.exception is None or isinstance(ran.exception, SystemExit), repr(ran.exception)
    assert ran.exit_code in ((0,) if case.verdict != "stop" else (0, 2)), ran.output
    if ran.exit_code == 2:
        (line,) = [line for line in ran.stderr.splitlines() if line.strip()]
        helps(line.removeprefix("windvane: "), case.names or case.file)
        assert not Path(project_params.PARAMS_FILE).exists()
        return
    proposed = project_params.load_settings()
    assert proposed.problem.target == call_column(case.problem.get("target", "price"))
    assert proposed.data.source == case.file
    again = judged(Path(), project_params.read_params(Path(project_params.PARAMS_FILE)))
    assert case.verdict == "stop" or again.verdict != "stop", again.said
