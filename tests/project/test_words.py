"""The field's words: what users and newcomers read names things as scikit-learn, MLflow, Prefect, DVC and Evidently do."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.projects import ROOMS, ROOT

# What is not written, and what is written instead.
UNUSED_WORDS = {
    r"teach(es|ing)?|taught|lessons?": "train, fit, training data, trained until",
    r"tells?|telling|told|retell\w*|retold": "log, report, record, explain, notify; distinguish; predict",
    r"says?|said|saying": "log, report, record, show, explain, name; predict",
    r"looks?|looked|looking": "check (of a window), inspect, review, read",
    r"mend(s|ed|ing)?|put right": "fix, repair",
    r"owe[ds]?|begun|standing": "pending, started, is running",
    r"stands?|stood": "is, is running, is recorded",
    r"ask(s|ed|ing)?": "request, require, query, predict",
    r"answer(s|ed|ing)?": "respond, response; predict, prediction; serve",
    r"marks?|marked": "content hash, fingerprint; point or tick of a plot",
    r"by hand": "manual, manually",
    r"rehears\w*|relearn\w*": "simulated project, simulated lap",
    r"(train|training|validation|test|judging) sides?|sides": "train, validation and test split",
    r"kinds?": "problem type, type",
    r"whoever|nobody": "the person, account, client or process that it is",
    r"hand(s|ed|ing)? in": "send, record (labels)",
}

# Where one of these words is right, and why.
ALLOWED = {
    r"look(s|ed)? (like|for|up|upwards)|look-ups?|must look like|look: the stylesheet": "appearance and search, not a monitoring check",
    r"stands? (for|behind)|stand-ins?|side by side": "plain English: represents, follows, a replacement",
    r"cannot tell": "the state that monitoring reports where Evidently's report failed",
    r"both sides|sides are equal": "reference and window of a comparison, the branches of a tree",
    r"(byte order|question) mark|thousands marks|marks of HTML|\(marked\)|(un)?marked rows": "punctuation; a flag on rows",
    r"marked (\"about\"|as one)": "plain English",
    r"problem\.kind(: \w+)?|kind: problem|--kind|Kind\.predict": "the key, the option and the class",
    r"looking\.md|sides\.parquet": "names of files",
    r"(sides|said): |`said`": "names of parameters and fields",
    r"judge: told|unread answer": "a failpoint, a label value of /metrics",
    r"look\(\)": "a function",
}
# Decisions and benchmark pages are records: they keep the words of their day.
TEXT_FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "params.yaml", "schema.yaml", "dvc.yaml")

_ALLOWED = re.compile("|".join(f"(?:{pattern})" for pattern in ALLOWED), re.IGNORECASE)
_CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|tests/\S+", re.DOTALL)  # a command, a key, a path, a link


def find_words(text: str) -> list[str]:
    """Each word that is not used, with what stands around it and the field's word."""
    kept = _ALLOWED.sub(" ", _CODE.sub(" ", text))
    return [
        f"{kept[max(0, found.start() - 40) : found.end() + 30]!r}: write {instead}"
        for pattern, instead in UNUSED_WORDS.items()
        for found in re.finditer(rf"(?<![\w.\-_$])(?:{pattern})(?![\w_(=])", kept, re.IGNORECASE)
    ]


def read_sentences(path: Path) -> Iterator[tuple[int, str]]:
    """All strings of a module that hold a space: messages (f-strings whole), help texts, docstrings. Names of keys hold none."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def read_comments(path: Path) -> Iterator[tuple[int, str]]:
    """All comments of a module; consecutive lines of comments are one text, with the number of its first line."""
    texts: dict[int, str] = {}
    first = last = 0
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type != tokenize.COMMENT:
                continue
            follows = token.start[0] == last + 1 and not token.line[: token.start[1]].strip()
            first, last = first if follows else token.start[0], token.start[0]
            texts[first] = f"{texts.get(first, '')} {token.string.lstrip('# ')}".strip()
    yield from texts.items()


def read_template_text(text: str) -> str:
    """What a page shows, and its comments: without tags, expressions, statements and scripts, but with a script's strings."""
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    shown = [found[1] for part in script for found in re.finditer(r"([\"'])((?:(?!\1).)* (?:(?!\1).)*)\1", part)]
    prose = re.sub(r"<script>.*?</script>|<[^>]*>|\{\{.*?\}\}|\{%.*?%\}", " ", text, flags=re.DOTALL)
    return "\n".join([prose, *shown])


@pytest.mark.parametrize("room", ROOMS)
def test_strings_of_the_product_use_the_fields_words(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, text in read_sentences(path)
        if not text.lstrip().startswith(("SELECT", "BEGIN", "action ="))
        for word in find_words(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ROOMS)
def test_comments_of_the_product_use_the_fields_words(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for line, text in read_comments(path)
        for word in find_words(text)
    ]
    assert not wrong, "\n".join(wrong)


def test_pages_use_the_fields_words() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in sorted((ROOT / "templates").glob("*.html"))
        for word in find_words(read_template_text(path.read_text(encoding="utf-8")))
    ]
    assert not wrong, "\n".join(wrong)


def test_docs_and_params_use_the_fields_words() -> None:
    paths = [
        *(ROOT / name for name in TEXT_FILES),
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    ]
    wrong = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".yaml":
            text = re.sub(r"(?m)^\s*\w+:", "", text)  # the keys stay as they are
        wrong += [f"{path.relative_to(ROOT)}: {word}" for word in find_words(text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "a model is taught on rows",
        "Mend the file",
        "nobody answers",
        "the test side",
        "this kind of change",
        "a look at it",
    ],
)
def test_an_unused_word_is_found(text: str) -> None:
    assert find_words(text)


@pytest.mark.parametrize("text", ["what it looks like", "problem.kind: regression", "stands for a cell", "cannot tell"])
def test_a_legitimate_use_passes(text: str) -> None:
    assert not find_words(text)


def test_a_comment_of_several_lines_is_one_text(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text('a = "# no"  # one\n# two\nb = 1  # three\n\n# four\n', encoding="utf-8")
    assert list(read_comments(tmp_path / "module.py")) == [(1, "one two"), (3, "three"), (5, "four")]
