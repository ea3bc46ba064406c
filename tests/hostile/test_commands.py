"""A handful of hostile tables through `windvane train` itself: status 2, no traceback, nothing registered, and on it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.hostile.case import Case, csv, houses
from tests.hostile.test_corpus import CASES, helps
from tests.hostile.verdicts import lying, params
from tests.support.projects import Folder

pytestmark = pytest.mark.long

# One of each way to fail: bytes, values, names, time, places, leakage. Each costs the imports of a whole lap.
CHOSEN = (
    "UTF-16 little-endian with BOM",
    "past float64",
    "empty column: newline",
    "zones for some",
    "a pipe",
    "a copy of the target",
)
GOOD = Case("good", csv(houses()), "pass", (), "", file="good.csv")


def write(project: Folder, case: Case) -> None:
    search = {"trials": 3, "candidates": ["linear", "tree"]}
    (project.path / "params.yaml").write_text(
        yaml.safe_dump({**params(case), "search": search}, allow_unicode=True), encoding="utf-8"
    )


@pytest.mark.slow
def test_train_refuses_and_goes_on(empty: Folder, prefect_server: str) -> None:
    from windvane.ledger import database, versions

    env = {"PREFECT_API_URL": prefect_server}
    for name in CHOSEN:
        case = CASES[name]
        case.build(empty.path)
        write(empty, case)
        ran = empty.run("train", "--json", env=env, timeout=240)
        assert (ran.status, ran.out) == (2, ""), (name, ran.err)
        assert "Traceback" not in ran.err, name
        (said,) = [line for line in ran.err.splitlines() if line.startswith("windvane: ")]
        helps(said.removeprefix("windvane: "), case.file)
        assert [words for words in case.says if words not in said] == [], (name, said)
        assert [path for path in lying(empty.path) if ".part" in path] == [], name
        (empty.path / case.file).unlink()

    ledger = database.connect_ledger(f"sqlite:///{empty.path / '.windvane' / 'ledger.db'}")
    assert versions.find_champion(ledger, "hostile") is None
    assert registered(empty.path) == 0
    GOOD.build(empty.path)
    write(empty, GOOD)
    said = empty.train(env=env)
    assert (said["verdict"], said["version"]) == ("promoted", 1)
    assert registered(empty.path) == 1


def registered(root: Path) -> int:
    """Versions in MLflow's registry; 0 where no store was made."""
    import sqlite3

    path = root / ".windvane" / "mlflow.db"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as db:
        (count,) = db.execute("select count(*) from model_versions").fetchone()
    db.close()
    return int(count)
