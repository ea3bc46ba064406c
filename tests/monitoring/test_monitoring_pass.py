"""The watch from end to end: traffic in the ledger and rows in the source, real laps, real MLflow, a real webhook."""

from __future__ import annotations

import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from tests.monitoring.test_evidently_report import break_distances
from tests.support.ledgers import put
from tests.support.projects import Folder, quick_project
from windvane.ledger import database, decisions, versions, windows
from windvane.ledger.labels import LabelStatement, record_labels
from windvane.ledger.predictions import Prediction
from windvane.monitoring.records import Clock
from windvane.tasks.console import SilentConsole

pytestmark = pytest.mark.slow
NAME = "towns"
TOWNS = ["Ulm", "Bonn", "Kiel", "Jena"]
# The table ends here; what comes later is production.
TAUGHT = "2025-06-30"


def stream(
    start: str, days: int, a_day: int = 8, seed: int = 0, shift: float = 0.0, slope: float = 3.0
) -> pd.DataFrame:
    """Sales: a price that follows size, age and town. `shift` moves the sizes, `slope` is what a size is worth."""
    rng = np.random.default_rng(seed)
    rows = days * a_day
    at = pd.date_range(start, periods=days, freq="D").repeat(a_day) + pd.to_timedelta(
        np.tile(np.arange(a_day), days), "h"
    )
    size, age = rng.normal(100 + shift, 20, rows), rng.uniform(0, 40, rows)
    town = rng.choice(TOWNS, rows)
    worth = pd.Series(town).map(dict(zip(TOWNS, (0.0, 40.0, 80.0, 20.0), strict=True))).to_numpy()
    price = slope * size - 2 * age + worth + rng.normal(0, 12, rows)
    return pd.DataFrame({"at": at, "size": size.round(2), "age": age.round(2), "town": town, "price": price.round(2)})


def larger(days: int) -> pd.DataFrame:
    """From July on only larger sizes are sold, at the same prices: other inputs, and nothing is wrong with them."""
    rows = stream("2025-07-01", days, a_day=20, seed=5)
    return rows[rows["size"] > 108].reset_index(drop=True)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Path:
    """A project after its first lap; tests take copies."""
    folder = quick_project(tmp_path_factory.mktemp("taught") / "project")
    (folder.path / "data" / "txhousing.csv").unlink()
    stream("2025-01-01", 181).to_csv(folder.path / "data" / "sales.csv", index=False)
    folder.set(
        project=NAME,
        problem__target="price",
        problem__time="at",
        problem__ignore=[],
        data__source="data/sales.csv",
        search__candidates=["linear"],
        search__trials=1,
        monitor__window="7d",
        retrain__policy="staleness",
    )
    assert folder.train(env={"PREFECT_API_URL": prefect_server})["verdict"] == "promoted"
    return folder.path


@pytest.fixture
def project(taught: Path, tmp_path: Path) -> Folder:
    shutil.copytree(taught, tmp_path / "copy")
    return Folder(tmp_path / "copy")


def ledger(folder: Folder) -> sa.Engine:
    return database.connect_ledger(f"sqlite:///{folder.path / '.windvane' / 'ledger.db'}")


def serve(folder: Folder, rows: pd.DataFrame, version: int = 1, hide: bool = False) -> list[LabelStatement]:
    """What the scoring service records of these rows, with a version's own answers; the labels that will come."""
    from windvane.tasks import project_secrets
    from windvane.tasks.models.features import FeatureColumns, conform_frame
    from windvane.tasks.project import Project

    project = Project(folder.path)
    made = versions.find_version(project.ledger, NAME, version)
    assert made is not None
    columns = FeatureColumns(**{k: tuple(v) for k, v in made.facts.columns.items()})
    said = project.model(made).predict(conform_frame(rows, columns, "a test"))
    inputs = rows.drop(columns=["price"]).assign(at=rows["at"].map(lambda t: t.isoformat())).to_dict("records")
    ids = [f"{version}-{t.isoformat()}" for t in rows["at"]]
    given = [
        Prediction(id, version, row, {"prediction": float(p)}, time=t)
        for id, row, p, t in zip(ids, inputs, said, rows["at"], strict=True)
    ]
    put(
        project.ledger,
        NAME,
        *given,
        privacy=project_secrets.build_privacy_rules(project.settings, project.home) if hide else None,
    )
    return [LabelStatement(id, float(y)) for id, y in zip(ids, rows["price"], strict=True)]


def look(folder: Folder, server: str, **env: str) -> dict[str, Any]:
    ran = folder.run("monitor", "--json", env={"PREFECT_API_URL": server, **env})
    assert ran.status == 0, ran.err
    return ran.json


class Heard(SilentConsole):
    """A console that keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = list[str]()

    def print(self, text: str = "") -> None:
        self.lines.append(text)


def passed(folder: Folder, clock: Clock = "wall") -> dict[str, Any]:
    """A pass in this process, where parts of it can be replaced."""
    from windvane.flows.monitoring import monitor_production
    from windvane.tasks.project import Project

    return monitor_production(Project(folder.path), SilentConsole(), clock=clock)


class Hook:
    """A webhook that keeps what it was told, and refuses the first `deaf` times."""

    def __init__(self, deaf: int = 0) -> None:
        told = self.told = list[str]()
        left = [deaf]

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                left[0] -= 1
                self.send_response(500 if left[0] >= 0 else 200)
                self.end_headers()
                if left[0] < 0:
                    told.append(json.loads(body)["text"])

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret"


@contextmanager
def hook(deaf: int = 0) -> Iterator[Hook]:
    one = Hook(deaf)
    threading.Thread(target=one.server.serve_forever, daemon=True).start()
    try:
        yield one
    finally:
        one.server.shutdown()
        one.server.server_close()


def test_a_shift_is_seen_taught_again_from_labels_and_proves_itself(project: Folder, prefect_server: str) -> None:
    """Labels come back, the relation changes, the lap learns it from the ledger, and the new version serves."""
    with hook(deaf=1) as told:
        project.set(monitor__webhook="${HOOK}")
        env = {"HOOK": told.url}
        calm = serve(project, stream("2025-07-01", 14, seed=1))
        record_labels(ledger(project), NAME, calm)
        first = look(project, prefect_server, **env)
        assert (first["decision"], first["drift"]["alarm"], first["retrained"]) == ("wait", False, "no")
        record_labels(ledger(project), NAME, serve(project, stream("2025-07-15", 28, seed=2, slope=4.5)))
        second = look(project, prefect_server, **env)
        assert second["decision"] == "retrain", second
        assert second["retrained"] == "done"
        made = [d for d in decisions.list_decisions(ledger(project), NAME, acting=True) if d.action == "retrain"]
        assert [(d.state, d.made) for d in made] == [("done", 2)], made
        assert made[0].gain is not None
        assert made[0].gain > made[0].cost > 0  # type: ignore[operator]
        # Its own traffic, as the world is now: nothing to do, and in the end it says what was really saved.
        record_labels(ledger(project), NAME, serve(project, stream("2025-08-12", 35, seed=3, slope=4.5), version=2))
        third = look(project, prefect_server, **env)
        assert (third["decision"], third["version"]) == ("wait", 2), third
        realised = decisions.find_decision(ledger(project), made[0].id).realised  # type: ignore[union-attr]
        assert realised is not None
        assert realised > made[0].cost  # type: ignore[operator]
        states = [n.state for n in decisions.list_notices(ledger(project), NAME)]
        # The relation changed: most values lie outside their intervals, which one notice tells with what is done about it.
        assert states.index("retraining, intervals too narrow") < states.index("promoted 2")
        assert len(told.told) == len(states)
        assert all(text.startswith(f"{NAME}: ") for text in told.told)
    stored = [p for p in (project.path / ".windvane").rglob("*") if p.is_file() and b"/secret" in p.read_bytes()]
    assert stored == []
    _mlflow_tells(project, made[0].id)


def _mlflow_tells(project: Folder, decision: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.path}/.windvane/mlflow.db")
    experiment = client.get_experiment_by_name(NAME)
    runs = client.search_runs([experiment.experiment_id], f"tags.`windvane.decision` = '{decision}'")
    watched = [run for run in runs if "windvane.watch" in run.data.tags]
    laps = [run for run in runs if "windvane.fingerprint" in run.data.tags]
    assert (len(watched), len(laps)) == (1, 1)
    assert laps[0].data.tags["windvane.cause"] == watched[0].data.tags["windvane.cause"]
    kept = {item.path for item in client.list_artifacts(watched[0].info.run_id, "watch")}
    assert any(path.endswith(".html") for path in kept)
    assert watched[0].info.status == "FINISHED"


def test_the_same_data_again_is_no_new_look_and_imports_nothing_heavy(project: Folder, prefect_server: str) -> None:
    record_labels(ledger(project), NAME, serve(project, stream("2025-07-01", 10, seed=1)))
    first = look(project, prefect_server)
    before = (windows.list_windows(ledger(project), NAME, 1), decisions.list_decisions(ledger(project), NAME))
    ran = project.run("monitor", "--json", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.json == first
    assert (windows.list_windows(ledger(project), NAME, 1), decisions.list_decisions(ledger(project), NAME)) == before
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert not imported & {"pandas", "numpy", "sklearn", "mlflow", "prefect", "evidently", "dvc.repo", "jinja2"}
    # Without the shortcut the ledger says the same.
    (project.path / ".windvane" / "watch" / "last.json").unlink()
    assert look(project, prefect_server) == first
    assert (windows.list_windows(ledger(project), NAME, 1), decisions.list_decisions(ledger(project), NAME)) == before


def test_a_pass_that_was_killed_behind_its_looks_decides_about_each_of_them(
    project: Folder, prefect_server: str
) -> None:
    record_labels(ledger(project), NAME, serve(project, stream("2025-07-01", 24, seed=1)))
    look(project, prefect_server)
    engine, table = ledger(project), sa.table("decisions")
    made = decisions.list_decisions(engine, NAME)
    looked = windows.list_windows(engine, NAME, 1)
    assert len(made) == len(looked) >= 3
    with engine.begin() as db:  # as if it had been killed between the looks and what follows from them
        db.execute(sa.delete(table))
    (project.path / ".windvane" / "watch" / "last.json").unlink()
    look(project, prefect_server)
    again = decisions.list_decisions(ledger(project), NAME)
    assert [(d.window, d.action, d.reason) for d in again] == [(d.window, d.action, d.reason) for d in made]
    assert windows.list_windows(ledger(project), NAME, 1) == looked


@pytest.mark.parametrize("damage", ["", "garbage", '{"state": '])
def test_what_the_watch_keeps_for_itself_is_made_again_where_it_is_damaged(
    damage: str, project: Folder, prefect_server: str
) -> None:
    serve(project, stream("2025-07-01", 10, seed=1))
    first = look(project, prefect_server)
    for path in (project.path / ".windvane" / "watch").glob("*.json"):
        path.write_text(damage)
    assert look(project, prefect_server) == first


def test_late_labels_fill_old_windows_and_change_later_decisions_only(project: Folder, prefect_server: str) -> None:
    told = serve(project, stream("2025-07-01", 15, seed=4, slope=4.5))
    first = look(project, prefect_server)
    assert first["decision"] == "wait"
    assert first["known_until"] is None
    kept = decisions.list_decisions(ledger(project), NAME)
    record_labels(ledger(project), NAME, told)
    second = look(project, prefect_server)
    assert second["decision"] == "retrain"
    assert second["known_until"] is not None
    old = windows.list_windows(ledger(project), NAME, 1)[0]
    assert (old.labelled, old.looks) == (old.rows, 1)
    # The intervals of none of these predictions were requested: they are made from the inputs in the ledger.
    found = second["coverage"]
    assert (found["rows"], found["left_out"]) == (second["window"]["labelled"], 0)
    assert found["share"] < 0.7
    assert found["alarm"]
    assert found["adjusted"] > 0.9
    assert "counts" not in found
    assert decisions.list_decisions(ledger(project), NAME)[: len(kept)] == kept


def test_f4_n3_labels_that_came_late_to_the_newest_window_are_shown_whatever_the_policy(
    project: Folder, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    project.set(retrain__policy="never")
    labels = serve(project, stream("2025-07-01", 6, a_day=20, seed=1))
    # The newest window is open by the events' clock, and no more rows come.
    first = passed(project, clock="events")
    assert (first["window"]["labelled"], first["window"]["closed"]) == (0, False)
    record_labels(ledger(project), NAME, labels)
    second = passed(project, clock="events")
    assert second["window"]["labelled"] == second["window"]["rows"] == len(labels)
    assert second["quality"]["estimated"] is False
    assert first["coverage"] is None
    assert second["coverage"]["share"] == pytest.approx(0.9, abs=0.1)
    assert not second["coverage"]["alarm"]
    last = decisions.find_last_decision(ledger(project), NAME)
    assert last is not None
    assert last.evidence["interval"] == {"level": 0.9, "adjusted": second["coverage"]["adjusted"]}
    record_labels(ledger(project), NAME, labels)  # sent again
    assert passed(project, clock="events")["coverage"] == second["coverage"]
    (seen,) = windows.list_windows(ledger(project), NAME, 1)
    assert seen.looks == 1, "labels cost no false alarms"


def test_without_any_labels_a_shift_alarms_and_waits_for_a_named_reason(project: Folder, prefect_server: str) -> None:
    """A line goes on: the estimate sees no loss in larger sizes, and says so."""
    serve(project, larger(15))
    said = look(project, prefect_server)
    assert said["drift"]["alarm"]
    assert "size" in said["drift"]["columns"]
    assert said["decision"] == "wait"
    # A change that goes on is no return of a known state, whichever kind it is.
    first, second = (w.look for w in windows.list_windows(ledger(project), NAME, 1)[:2])
    assert first["drift"]["alarm"]
    assert second["drift"]["alarm"]
    assert not {first["diagnosis"]["change"], second["diagnosis"]["change"]} & {"none", "seasonal return"}


def test_without_any_labels_the_policy_of_drift_begins_a_lap_that_finds_nothing_to_learn_from(
    project: Folder, prefect_server: str
) -> None:
    project.set(retrain__policy="drift")
    serve(project, larger(15))
    said = look(project, prefect_server)
    # The lap says that there is nothing new, and none follows it.
    (one,) = [d for d in decisions.list_decisions(ledger(project), NAME, acting=True) if d.action == "retrain"]
    assert (one.state, str(one.note)[:11]) == ("skipped", "no new rows")
    assert said["retrained"] == "no"
    assert versions.find_champion(ledger(project), NAME).version == 1  # type: ignore[union-attr]


def test_the_page_is_evidentlys_report_behind_ours_and_alarms_without_our_distances(
    project: Folder, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, where our distances raise: a live pass over a plain shift. And a quiet window lets its report go."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    serve(project, stream("2025-07-01", 6, a_day=20, seed=1))
    break_distances(monkeypatch)
    quiet = passed(project)
    assert quiet["drift"]["alarm"] is False
    assert "<iframe" in Path(quiet["report"]).read_text(encoding="utf-8")
    serve(project, larger(14).assign(at=lambda rows: rows["at"] + pd.Timedelta(days=6)))
    said = passed(project)
    assert said["drift"]["alarm"] is True
    assert "size" in said["drift"]["columns"]
    assert "RuntimeError: this distance is broken" in said["drift"]["note"]
    page = Path(said["report"]).read_text(encoding="utf-8")
    ours, report = page.split("<iframe", 1)
    assert "since 2025-07-07" in ours.split("</header>")[0]
    theirs = html.unescape(report.split('srcdoc="', 1)[1].split('"', 1)[0])
    assert "Drift in column 'size'" in theirs
    assert "town: rows of categories that the reference has not" in theirs
    assert theirs.count("The drift detection method is Wasserstein distance (normed)") >= 3
    assert not re.search(r"""<(script|link)[^>]+(src|href)=["'](https?:)?//""", theirs)
    # Two pages for an alarm that goes on, and none for what was quiet before it.
    reports = sorted(p.name for p in (project.path / ".windvane" / "watch" / "reports").iterdir())
    kept = [name for name in reports if name.endswith(".gz")]
    assert [name.replace(".report.gz", ".html") for name in kept] == [n for n in reports if n.endswith(".html")][1:]
    assert "<iframe" not in Path(quiet["report"]).read_text(encoding="utf-8")


def test_a_report_that_fails_is_no_quiet_window(
    project: Folder, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so with its reason, in the answer, the record and the status; the next pass tries again; nothing is spent."""
    from windvane.cli.status import show_status
    from windvane.monitoring.drift import evidently
    from windvane.tasks.project import Project

    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    serve(project, stream("2025-07-01", 6, a_day=20, seed=5, shift=40))
    with monkeypatch.context() as broken:
        broken.setattr(evidently, "Report", lambda *_, **__: 1 / 0)
        said = passed(project)
        assert (said["drift"]["alarm"], said["drift"]["columns"], said["decision"]) == (None, [], "wait")
        reason = "cannot tell whether anything moved: its report failed: ZeroDivisionError: division by zero"
        assert reason in said["drift"]["note"]
        assert reason in said["reason"]
        assert "Cannot tell whether anything moved" in Path(said["report"]).read_text(encoding="utf-8")
        made = decisions.list_decisions(ledger(project), NAME)
        assert passed(project) == said
        assert decisions.list_decisions(ledger(project), NAME) == made
    (seen,) = windows.list_windows(ledger(project), NAME, 1)
    assert (seen.looks, seen.look["drift"]["alarm"]) == (0, None)
    console = Heard()
    shown = show_status(Project(project.path), console)["last_window"]
    assert (shown["alarm"], reason in shown["note"]) == (None, True)
    assert any(reason in line for line in console.lines)
    assert decisions.list_notices(ledger(project), NAME)[-1].state == "cannot tell"
    mended = passed(project)
    assert mended["drift"]["alarm"] is True
    (seen,) = windows.list_windows(ledger(project), NAME, 1)
    assert (seen.looks, seen.look["drift"]["alarm"]) == (1, True)


def test_data_that_broke_stop_the_watch_until_a_person_has_looked(project: Folder, prefect_server: str) -> None:
    project.set(retrain__policy="drift")
    silent = stream("2025-07-01", 13, seed=9).assign(age=np.nan)
    record_labels(ledger(project), NAME, serve(project, silent))
    said = look(project, prefect_server)
    assert (said["decision"], said["diagnosis"], said["retrained"]) == ("stop", "broken data", "no"), said
    assert "age" in said["drift"]["columns"]
    assert look(project, prefect_server)["decision"] == "stop"
    stops = [d for d in decisions.list_decisions(ledger(project), NAME, acting=True) if d.action == "stop"]
    assert {d.state for d in stops} == {"told"}
    assert decisions.list_notices(ledger(project), NAME)[-1].state == "stopped, intervals too narrow"
    ran = project.run("monitor", "--json", "--acknowledge", env={"PREFECT_API_URL": prefect_server})
    assert "acknowledged" in ran.err
    (one, *_) = decisions.list_decisions(ledger(project), NAME, acting=True)
    assert (one.state, one.note) == ("done", "acknowledged")


def test_what_the_ledger_does_not_keep_is_no_drift(project: Folder, prefect_server: str) -> None:
    project.set(ledger__drop=["age"], ledger__hash=["town"])
    rows = stream("2025-07-01", 13, seed=1)
    told = serve(project, rows, hide=True)
    record_labels(ledger(project), NAME, told)
    said = look(project, prefect_server)
    assert (said["decision"], said["drift"]["alarm"]) == ("wait", False), said
    assert said["drift"]["left_out"] == ["age", "town"]


def test_new_rows_of_the_source_are_watched_where_the_ledger_has_none(project: Folder, prefect_server: str) -> None:
    whole = pd.concat([stream("2025-01-01", 181), stream("2025-07-01", 21, seed=6)])
    whole.to_csv(project.path / "data" / "sales.csv", index=False)
    said = look(project, prefect_server)
    assert (said["decision"], said["drift"]["alarm"]) == ("wait", False), said
    assert {w.origin for w in windows.list_windows(ledger(project), NAME, 1)} == {"source"}
    assert said["quality"]["estimated"] is False
    assert said["window"]["rows"] == said["window"]["labelled"] > 0


def test_labels_that_came_back_teach_challengers_and_judge_them(project: Folder, prefect_server: str) -> None:
    project.set(retrain__policy="regret")
    told = serve(project, stream("2025-07-01", 20, seed=6))
    assert "no labelled rows of a whole window" in look(project, prefect_server)["reason"]
    record_labels(ledger(project), NAME, told)
    said = look(project, prefect_server)
    assert "retraining 1 window ago would have saved" in said["reason"], said
    assert len(list((project.path / ".windvane").rglob("challengers/*/*.skops"))) == 1


def test_a_champion_that_turns_worse_is_rolled_back_in_its_probation_and_stays_so(
    project: Folder, prefect_server: str
) -> None:
    project.set(
        search__candidates=["tree"], search__manual=[{"candidate": "tree", "max_depth": 2}], search__method="manual"
    )
    assert project.train(env={"PREFECT_API_URL": prefect_server})["version"] == 2
    engine = ledger(project)
    if versions.find_champion(engine, NAME).version == 1:  # type: ignore[union-attr]
        versions.record_promotion(
            engine, NAME, versions.make_promotion(1, 2, "lap", "as if a lucky lap had promoted it")
        )
    record_labels(engine, NAME, serve(project, stream("2025-07-01", 20, seed=7), version=2))
    said = look(project, prefect_server)
    assert said["decision"] == "rollback", said
    last = versions.find_last_promotion(engine, NAME)
    assert last is not None
    assert (last.from_version, last.to_version, last.cause, last.told) == (2, 1, "probation", True)
    assert "on the same inputs" in last.reason
    for _ in range(2):
        look(project, prefect_server)
    assert versions.find_last_promotion(engine, NAME) == last
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.path}/.windvane/mlflow.db")
    assert int(client.get_model_version_by_alias(NAME, "champion").version) == 1


@pytest.mark.parametrize(
    "spoilt",
    [
        {"search__candidates": ["tree"], "search__manual": [{"candidate": "tree", "max_depth": 2}]},
        pytest.param({"problem__ignore": ["size"]}, marks=pytest.mark.trial),
    ],
    ids=["two cuts", "without its best column"],
)
def test_a_challenger_made_worse_on_purpose_never_serves(
    project: Folder, prefect_server: str, tmp_path: Path, spoilt: dict[str, Any]
) -> None:
    project.set(search__method="manual" if "search__manual" in spoilt else "bayesian", **spoilt)
    env = {"PREFECT_API_URL": prefect_server}
    made = project.train(env=env)
    assert (made["version"], made["verdict"]) == (2, "refused"), made["reason"]
    engine, asked, answered = ledger(project), tmp_path / "asked.csv", tmp_path / "answered.csv"
    # Nor by the watch: its pass finds the champion that was there, and judges it alone.
    record_labels(engine, NAME, serve(project, stream("2025-07-01", 14, seed=1)))
    assert look(project, prefect_server)["version"] == 1
    stream("2025-07-15", 2).drop(columns="price").to_csv(asked, index=False)
    scored = project.run("score", str(asked), str(answered), "--json", env=env)
    assert scored.json["version"] == 1, scored.err
    assert versions.find_champion(engine, NAME).version == 1  # type: ignore[union-attr]
    assert versions.find_last_promotion(engine, NAME).to_version == 1  # type: ignore[union-attr]
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.path}/.windvane/mlflow.db")
    aliases = {a: int(client.get_model_version_by_alias(NAME, a).version) for a in ("champion", "challenger")}
    assert aliases == {"champion": 1, "challenger": 2}


def test_a_decision_that_was_told_and_never_begun_is_carried_out_by_the_next_look(
    project: Folder, prefect_server: str
) -> None:
    from windvane.ledger.decisions import DecisionRecord

    engine = ledger(project)
    rows = pd.concat([stream("2025-01-01", 181), stream("2025-07-01", 30, seed=8)])
    rows.to_csv(project.path / "data" / "sales.csv", index=False)
    made = decisions.record_decision(
        engine, DecisionRecord(NAME, 1, "2025-06-01", "2025-06-30", "retrain", "an earlier pass", "refit", "refit")
    )
    decisions.record_announcement(engine, made.id)
    said = look(project, prefect_server)
    ended = decisions.find_decision(engine, made.id)
    assert ended is not None
    assert (said["retrained"], ended.state, ended.claims) == ("done", "done", 1)
    assert versions.find_newest_version(engine, NAME).version == 2  # type: ignore[union-attr]


def test_too_few_rows_need_no_report(project: Folder, prefect_server: str) -> None:
    serve(project, stream("2025-07-01", 2))
    ran = project.run("monitor", "--json", env={"PREFECT_API_URL": prefect_server, "PYTHONPROFILEIMPORTTIME": "1"})
    assert ran.json["drift"]["alarm"] is False
    assert "too few rows" in ran.json["drift"]["note"]
    imported = {line.rsplit("|", 1)[-1].strip() for line in ran.err.splitlines() if line.startswith("import time:")}
    assert "pandas" in imported
    assert "evidently" not in imported


def test_no_rows_and_no_champion_are_answers(project: Folder, empty: Folder, prefect_server: str) -> None:
    said = look(project, prefect_server)
    assert (said["window"]["rows"], said["decision"]) == (0, "wait")
    assert "no rows yet" in said["reason"]
    fresh = quick_project(empty.path / "new")
    ran = fresh.run("monitor", "--json")
    assert ran.status == 2
    assert "windvane train" in ran.err


def test_while_a_pass_looks_another_ends_at_once_and_says_so(project: Folder) -> None:
    from filelock import FileLock

    looking = FileLock(project.path / ".windvane" / "watch.lock")
    with looking:
        ran = project.run("monitor", "--json")
        assert (ran.status, ran.json["decision"], ran.json["retrained"]) == (0, "wait", "no")
        assert "another pass" in ran.json["reason"]
        assert ran.json["reason"] in ran.err
        assert not (project.path / ".windvane" / "watch" / "last.json").exists()
        # What a person acknowledges is not lost: that waits for the other one.
        waiting = project.start("monitor", "--json", "--acknowledge")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=5)
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, err
    assert "another pass" not in json.loads(out)["reason"]
