"""Bad input as a user meets it: exit status 2, one message that says what, where and what to do, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from tests.support.projects import ROOT, Folder
from windvane.cli.main import main

pytestmark = pytest.mark.long

GOOD = (ROOT / "data" / "txhousing.csv").read_bytes()
HEADER, *ROWS = GOOD.decode().splitlines()


def lines(*rows: str, header: str = HEADER) -> bytes:
    return "\n".join([header, *rows, ""]).encode()


def replaced(column: int, value: Callable[[int, str], str], rows: list[str] = ROWS) -> bytes:
    changed = []
    for i, row in enumerate(rows):
        cells = row.split(",")
        cells[column] = value(i, cells[column])
        changed.append(",".join(cells))
    return lines(*changed)


MEDIAN, LISTINGS, TIME = (HEADER.split(",").index(name) for name in ("median", "listings", "ts"))

# What the table is, and words that the message must hold: the file or key, the column, what to do.
TABLES: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "missing file": (None, ("data/txhousing.csv", "not found")),
    "empty file": (b"", ("data/txhousing.csv", "empty")),
    "header only": (lines(), ("data/txhousing.csv", "no rows")),
    "one column": (b"median\n1\n2\n", ("data/txhousing.csv", "one column")),
    "target absent": (GOOD.replace(b"median", b"midian", 1), ("problem.target", "'median'", "Did you mean", "midian")),
    "target constant": (replaced(MEDIAN, lambda i, v: "5"), ("median", "is constant")),
    "all-missing column": (replaced(LISTINGS, lambda i, v: ""), ("listings", "problem.ignore")),
    "duplicate column names": (GOOD.replace(b"sales", b"listings", 1), ("listings", "2 times")),
    "three rows": (lines(*ROWS[:3]), ("3 rows", "at least")),
    "mixed types": (replaced(LISTINGS, lambda i, v: "many" if i == 700 else v), ("listings", "many", "702")),
    "wrong encoding": (GOOD.replace(b"Abilene", "Abilène".encode("latin-1"), 1), ("UTF-8", "line 2")),
    "dates as text": (replaced(TIME, lambda i, v: "spring 2001"), ("problem.time", "ts", "spring 2001")),
    "ragged line": (lines(*ROWS[:99], ROWS[99] + ",7", *ROWS[100:]), ("line 101",)),
}

PARAMS: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "a tab": (lambda text: text.replace("  kind:", "\tkind:"), ("params.yaml line", "tab")),
    "a typo in a key": (lambda text: text.replace("  target:", "  taget:"), ("problem.taget", "problem.target")),
    "a wrong value": (lambda text: text.replace("kind: regression", "kind: regresion"), ("problem.kind", "regression")),
    "a key twice": (lambda text: text + "\nproject: again\n", ("project", "twice")),
    "a column not there": (lambda text: text.replace("time: ts", "time: tz"), ("problem.time", "'tz'", "ts")),
    "an unset variable": (
        lambda text: text.replace("target: median", "target: ${NOT_SET}"),
        ("problem.target", "NOT_SET"),
    ),
    "a slice not there": (lambda text: text.replace("slices: []", "slices: [town]"), ("gate.slices", "'town'")),
}


def check(project: Folder) -> Result:
    """`windvane check` in this process: a program of its own would be started for each fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        return CliRunner().invoke(main, ["check"])


def left_behind(project: Folder) -> list[str]:
    made = [p for p in project.path.rglob("*") if p.name.endswith(".part") or p.name.startswith(".table")]
    return [str(path) for path in made]


@pytest.mark.parametrize("name", TABLES)
def test_a_bad_table_is_refused_by_check_in_words(project: Folder, name: str) -> None:
    content, words = TABLES[name]
    source = project.path / "data" / "txhousing.csv"
    source.write_bytes(content) if content is not None else source.unlink()
    ran = check(project)
    assert ran.exit_code == 2, ran.output
    assert "Traceback" not in ran.output
    for word in words:
        assert word in ran.output
    assert left_behind(project) == []


@pytest.mark.parametrize("name", PARAMS)
def test_bad_params_are_refused_with_their_path(project: Folder, name: str) -> None:
    change, words = PARAMS[name]
    path = project.path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text(change(text))
    result = check(project)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output


@pytest.mark.slow
def test_bad_tables_register_nothing_and_the_next_good_lap_works(project: Folder, prefect_server: str) -> None:
    env = {"PREFECT_API_URL": prefect_server}
    source = project.path / "data" / "txhousing.csv"
    for name in ("mixed types", "three rows", "target constant"):
        source.write_bytes(TABLES[name][0] or b"")
        ran = project.run("train", "--json", env={**env, "PYTHONPROFILEIMPORTTIME": "1"})
        assert (ran.status, ran.out) == (2, "")
        imported = {line.rsplit("|", 1)[-1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
        assert not imported & {"mlflow", "optuna", "skops"}
        assert ran.err.count("windvane: ") == 1
        assert "Traceback" not in ran.err
        assert left_behind(project) == []
    source.write_bytes(b"\xef\xbb\xbf" + GOOD)  # a byte order mark is no fault
    said = project.train(env=env)
    assert (said["verdict"], said["version"]) == ("promoted", 1)


def test_one_class_is_refused(project: Folder) -> None:
    project.set(problem__kind="classification", problem__target="city", problem__metric=None)
    (project.path / "data" / "txhousing.csv").write_bytes(replaced(0, lambda i, v: "Abilene"))
    ran = project.run("check")
    assert ran.status == 2
    assert "city" in ran.out + ran.err


@pytest.mark.parametrize("line", ["      - .windvane/data/findings.json\n", "      - .windvane/data/accepted.json\n"])
def test_a_dvc_yaml_of_an_older_version_is_refused_with_the_remedy(project: Folder, line: str) -> None:
    path = project.path / "dvc.yaml"
    text = path.read_text()
    assert line in text
    path.write_text(text.replace(line, ""))
    ran = project.run("train", "--json")
    assert (ran.status, ran.out) == (2, "")
    assert "Traceback" not in ran.err
    for word in ("dvc.yaml", "stage validate", line.strip(" -\n"), "delete dvc.yaml"):
        assert word in ran.err


@pytest.mark.parametrize("command", [("score", "a.csv", "b.csv"), ("promote", "1"), ("rollback",)])
def test_without_a_champion_commands_say_what_to_do(project: Folder, command: tuple[str, ...]) -> None:
    (project.path / "a.csv").write_bytes(GOOD)
    ran = project.run(*command)
    assert ran.status == 2
    assert "windvane" in ran.err
    assert "Traceback" not in ran.err
