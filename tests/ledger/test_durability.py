"""What was acknowledged is kept: fsyncs counted, processes killed, disks full, and a ledger from before."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks import ledger_kills
from tests.support.ledgers import answer
from tests.support.projects import ROOT, missing
from windvane.ledger import database, laps
from windvane.ledger.prediction_writer import PredictionWriter

pytestmark = pytest.mark.long

RECORD = """
import asyncio, os, sys
from windvane.ledger import prediction_writer, database, prediction_writer
from tests.support.ledgers import answer
if {careless}:
    def careless(engine, *more, durable=prediction_writer.open_durable_connection):
        connection = durable(engine, *more)
        connection.cursor().execute("PRAGMA synchronous=NORMAL")
        return connection
    prediction_writer.open_durable_connection = careless
made = prediction_writer.PredictionWriter(database.connect_ledger("sqlite:///{file}"), "p")
async def record():
    for group in range(20):
        await asyncio.gather(*(made.record([answer(f"{{group}}-{{i}}")]) for i in range(5)))
        os.write(1, b"acknowledged\\n")
def submit():
    for group in range(20):
        made.submit([answer(f"{{group}}-{{i}}") for i in range(5)]).result()
        os.write(1, b"acknowledged\\n")
asyncio.run(record()) if {looped} else submit()
made.close()
"""


def traced(file: Path, careless: bool, looped: bool) -> list[tuple[int, bool]]:
    """Before each of 20 acknowledgements: fsyncs of the write-ahead log since the one before, and whether it was clean."""
    if not shutil.which("strace"):
        missing("strace")
    trace = file.with_suffix(".trace")
    calls = "trace=pwrite64,write,fsync,fdatasync"
    code = RECORD.format(file=file, careless=careless, looped=looped)
    command = ["strace", "-f", "-y", "-qq", "-e", calls, "-o", str(trace), sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    found, syncs, clean, open_calls = list[tuple[int, bool]](), 0, True, dict[str, str]()
    for line in trace.read_text().splitlines():
        process, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            open_calls[process] = call
            continue
        if "resumed>" in call:
            call = open_calls.pop(process) + call
        if re.search(r"pwrite64\(\d+<.*-wal>", call):
            clean = False
        elif re.search(r"f(data)?sync\(\d+<.*-wal>.*= 0", call):
            syncs, clean = syncs + 1, True
        elif "acknowledged" in call:
            found.append((syncs, clean))
            syncs = 0
    return found


@pytest.mark.parametrize("looped", [False, True], ids=["thread", "event loop"])
def test_an_fsync_precedes_every_acknowledged_group_and_is_the_only_one(tmp_path: Path, looped: bool) -> None:
    first, *others = traced(tmp_path / "ledger.db", False, looped)
    assert first[0] >= 1
    assert first[1]
    assert others == [(1, True)] * 19


@pytest.mark.parametrize("looped", [False, True], ids=["thread", "event loop"])
def test_the_count_of_fsyncs_notices_a_writer_that_spares_them(tmp_path: Path, looped: bool) -> None:
    assert (0, False) in traced(tmp_path / "ledger.db", True, looped)


def test_a_server_that_would_answer_before_its_disk_is_told_to_wait(postgres: str) -> None:
    engine = database.connect_ledger(f"{postgres}?options=-csynchronous_commit%3Doff")
    writer = PredictionWriter(engine, "p")
    writer.submit([answer("a")]).result(10)
    assert writer._committer.connection is not None
    cursor = writer._committer.connection.cursor()
    cursor.execute("SHOW synchronous_commit")
    assert cursor.fetchone() == ("on",)
    writer.close()
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    yield request.getfixturevalue("postgres")
    engine = database.connect_ledger(request.getfixturevalue("postgres"))
    with engine.begin() as db:
        db.execute(sa.delete(ledger_kills.predictions))
    engine.dispose()


def test_after_kills_nothing_acknowledged_is_lost_and_nothing_stands_twice(url: str) -> None:
    result = ledger_kills.trial(5, seed=1, url=url)
    assert result.acknowledged > 0
    assert (result.lost, result.twice) == (0, 0)


def test_two_processes_record_at_once_also_the_same(url: str) -> None:
    both = [ledger_kills.start(url, 0, 400), ledger_kills.start(url, 200, 600)]
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert [len(lines) for lines in said] == [401, 401]
    result = ledger_kills.look(url, {int(line) for lines in said for line in lines})
    assert (result.acknowledged, result.lost, result.stored, result.twice) == (601, 0, 601, 0)


FULL = """
import resource, sys
from windvane.ledger import database
from windvane.ledger.prediction_writer import LedgerFailed, PredictionWriter
from tests.support.ledgers import answer
writer = PredictionWriter(database.connect_ledger("sqlite:///{file}"), "p")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, most))
kept = 0
try:
    while True:
        writer.submit([answer(f"{{kept}}-{{i}}", inputs={{"x": "x" * 1000}}) for i in range(50)]).result()
        kept += 50
except LedgerFailed as e:
    print(kept, e)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.submit([answer("after")]).result()
writer.close()
"""


def test_a_full_disk_is_said_clearly_and_the_next_are_recorded(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(file=file)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept, _, said = done.stdout.partition(" ")
    assert re.search(r"ledger.db did not record predictions \(.*disk.*\)\. Check its disk", said)
    engine = database.connect_ledger(f"sqlite:///{file}")
    with engine.connect() as db:
        assert db.scalar(sa.text("SELECT count(*) FROM predictions")) == int(kept) + 1 > 1
        assert db.scalar(sa.text("PRAGMA integrity_check")) == "ok"
    engine.dispose()


def test_a_ledger_from_before_predictions_keeps_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import command

    upgrade, url = command.upgrade, f"sqlite:///{tmp_path / 'ledger.db'}"
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, _: upgrade(config, "0001"))
        old = database.connect_ledger(url)
    assert not sa.inspect(old).has_table("predictions")
    with laps.hold_lease(old, "p", "lap", lambda _: None) as lease:
        laps.record_lap_start(old, lease, "first", "by hand")
    old.dispose()
    engine = database.connect_ledger(url)
    newest = laps.find_newest_lap(engine, "p")
    assert newest is not None
    assert newest.id == "first"
    writer = PredictionWriter(engine, "p")
    writer.submit([answer("a")]).result(10)
    writer.close()
    engine.dispose()
