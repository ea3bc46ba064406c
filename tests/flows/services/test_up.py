"""`windvane up` with everything real: from nothing to a champion that serves, through kills, and down again."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.projects import Folder, quick_project
from tests.support.running_up import Up, mine, standing, until

pytestmark = pytest.mark.slow


def prefect(folder: Folder, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder.path / ".windvane" / "prefect" / "prefect.db")) as db:
        return db.execute(query).fetchall()


def test_from_nothing_to_a_champion_that_serves_and_down_again(tmp_path: Path) -> None:
    folder = quick_project(tmp_path / "project")
    folder.set(schedule__monitor=None, search__candidates=["linear"])
    with standing(folder) as up:
        assert {name: told["state"] for name, told in up.told["services"].items()} == dict.fromkeys(
            ("mlflow", "prefect", "service", "runner"), "ready"
        )
        assert up.service("GET", "/ping").status_code == 503
        second = folder.run("up")
        assert second.status == 2
        assert f"process {up.process.pid}" in second.err
        ran = folder.run("train", "--json")
        assert ran.json["verdict"] == "promoted", ran.err
        # Nobody has to be told how to see what stands in a browser already.
        assert "windvane up" not in ran.err
        # The lap used the server that stands, and the service swapped by itself.
        assert prefect(folder, "select state_name from flow_run") == [("Completed",)]
        until(lambda: up.service("GET", "/ping").status_code == 200, what="the service takes the champion")
        for name in ("mlflow", "prefect", "service", "runner"):
            psutil_kill(up, name)
        until(lambda: everybody_well(up), what="all that was killed is there again")
        up.process.kill()  # and now the supervisor itself
        until(lambda: not mine(folder), 30, "a process outlived `up`")
    with standing(folder) as up:
        assert up.service("GET", "/ping").status_code == 200
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(timeout=90) == 0


def psutil_kill(up: Up, name: str) -> None:
    import psutil

    psutil.Process(up.pid(name)).kill()


def everybody_well(up: Up) -> bool:
    import httpx

    try:
        answers = [
            httpx.get(up.address("mlflow") + "/health"),
            httpx.get(up.address("prefect") + "/api/health"),
            httpx.get(up.address("service") + "/ping"),
        ]
    except httpx.HTTPError:
        return False
    return all(answer.status_code == 200 for answer in answers)


def test_of_many_ticks_that_were_missed_one_is_run(tmp_path: Path) -> None:
    folder = quick_project(tmp_path / "project")
    folder.set(schedule__monitor="0 0 1 1 *")
    with standing(
        folder,
        PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS="24",
        PREFECT_SERVER_SERVICES_SCHEDULER_MAX_SCHEDULED_TIME="P36500D",
    ):
        ticks = "select count(*) from flow_run where auto_scheduled and state_type = 'SCHEDULED'"
        until(lambda: prefect(folder, ticks) == [(24,)], what="24 ticks are written down")
    with closing(sqlite3.connect(folder.path / ".windvane" / "prefect" / "prefect.db")) as db:
        # Nobody can wait that long: the ticks come to the present instead.
        past = "strftime('%Y-%m-%d %H:%M:%f000', {}, '-200 years')"
        for column in ("expected_start_time", "next_scheduled_start_time"):
            db.execute(f"update flow_run set {column} = {past.format(column)}")
        told = "json_extract(state_details, '$.scheduled_time')"
        told = f"strftime('%Y-%m-%dT%H:%M:%SZ', {told}, '-200 years')"
        db.execute(f"update flow_run_state set state_details = json_set(state_details, '$.scheduled_time', {told})")
        db.commit()
    with standing(folder):
        done = "select count(*) from flow_run where auto_scheduled and state_type in ('COMPLETED', 'FAILED')"
        until(lambda: prefect(folder, done) != [(0,)], what="a tick is run")
        states = (
            "select state_type, count(*) from flow_run where expected_start_time < datetime() group by 1 order by 1"
        )
        assert prefect(folder, states) == [("CANCELLED", 23), ("COMPLETED", 1)]
