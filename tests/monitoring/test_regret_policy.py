"""The policy `regret` in the live loop: challengers that are taught once and kept, and what `windvane monitor` makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.monitoring.test_decision_policies import FORBIDDEN, LIMITS, NOW, look, month, quality
from tests.monitoring.test_loss_history import CHOSEN, SPEC, table
from tests.support.projects import quick_project
from windvane.ledger import database, decisions, versions
from windvane.ledger.database import to_timestamp
from windvane.ledger.versions import VersionFacts
from windvane.monitoring.history import loss_matrix
from windvane.monitoring.history.challenger_store import ChallengerStore
from windvane.monitoring.history.loss_matrix import WindowedTable
from windvane.monitoring.policy.decision import decide_action
from windvane.monitoring.records import DecisionHistory, DecisionLimits, PolicyAdvice
from windvane.monitoring.watch.challenger_losses import ChallengerLosses
from windvane.tasks.evaluation.scores import LOSS_COLUMN
from windvane.tasks.settings import project_params

pytestmark = pytest.mark.long

REGRET = replace(LIMITS, policy="regret")
YES, NO = PolicyAdvice(True, "a challenger shows it", 0.8), PolicyAdvice(False, "no challenger shows it", 0.1)
NAME = "towns"


def test_a_decision_is_what_challengers_advise() -> None:
    said = decide_action(look(few=True, excess=None), DecisionHistory(advice=YES), REGRET, NOW)
    assert (said.action, said.depth, said.gain, said.cost) == ("retrain", "refit", 0.8, LIMITS.cost)
    assert said.reason.startswith("a challenger shows it")
    said = decide_action(look(0.9, alarm=True), DecisionHistory(advice=NO), REGRET, NOW)
    assert (said.action, said.gain) == ("wait", 0.1)
    assert "no challenger shows it" in said.reason


def test_without_labels_staleness_decides_by_its_estimate_and_the_reason_names_it() -> None:
    blind = DecisionHistory(advice=PolicyAdvice(False, "no labelled rows of a whole window", blind_since=""))
    guessed = quality(0.9, estimated=True)
    confirmed = look(None, alarm=True, change="concept drift", remedy="search", estimate=guessed)
    said = decide_action(confirmed, blind, REGRET, NOW)
    assert (said.action, said.depth) == ("retrain", "search")
    assert said.reason.startswith("no labelled rows of a whole window, so staleness decides: in 1 window")
    quiet = decide_action(look(None, estimate=guessed), blind, REGRET, NOW)
    assert quiet.action == "wait"
    assert "its labels have not come, and no drift alarm confirms an estimate" in quiet.reason
    assert "so staleness decides: too few rows" in decide_action(look(None, few=True), blind, REGRET, NOW).reason


def test_where_labels_ceased_only_the_windows_since_count_for_staleness() -> None:
    labelled = tuple(look(0.4, n) for n in (2, 3))  # challengers were no better there
    ceased = DecisionHistory(labelled, advice=replace(NO, blind_since=month(4)))
    said = decide_action(look(None, 4, alarm=True, estimate=quality(0.1, estimated=True)), ceased, REGRET, NOW)
    assert said.action == "wait"
    assert said.reason.startswith("no labels to learn from since 2026-04-01, so staleness decides: ")
    assert "+0.10 mean losses" in said.reason
    shown = decide_action(look(None, 4), replace(ceased, advice=replace(YES, blind_since=month(4))), REGRET, NOW)
    assert (shown.action, shown.gain) == ("retrain", 0.8)


@pytest.mark.parametrize("written", [{}, {"policy": "regret"}])
def test_without_a_time_regret_leaves_it_to_staleness(written: dict[str, Any]) -> None:
    content = {"project": "p", "problem": {"kind": "regression", "target": "y"}, "data": {"source": "t.csv"}}
    content |= {"split": {"strategy": "random"}, "retrain": written}
    limits = DecisionLimits.of(project_params.parse_settings(content))
    said = decide_action(look(0.9), DecisionHistory(), limits, NOW)
    assert (said.action, limits.policy) == ("retrain", "regret")
    assert said.reason.startswith("regret needs problem.time, so staleness decides: ")


@pytest.mark.parametrize("reason", FORBIDDEN)
def test_advice_overrules_nothing_that_forbids_a_lap(reason: str) -> None:
    said = decide_action(look(), replace(FORBIDDEN[reason], advice=YES), REGRET, NOW)
    assert said.action == "wait"
    assert reason in said.reason
    assert "Otherwise: a challenger shows it" in said.reason


def test_broken_data_stop_whatever_challengers_advise() -> None:
    broken = look(0.9, alarm=True, change="broken data", remedy="person")
    assert decide_action(broken, DecisionHistory(advice=YES), REGRET, NOW).action == "stop"


def test_other_policies_hear_no_advice() -> None:
    assert decide_action(look(), DecisionHistory(advice=YES), LIMITS, NOW).action == "wait"


def cut(windows: int = 6, rows: int = 40, first: int = 100, noise: int = 0) -> WindowedTable:
    """`first` rows that only teach, then windows of so many; `noise`: this window's rows and all after it are others."""
    frame = table(first + windows * rows)
    edges = first + rows * np.arange(windows + 1)
    if noise:
        frame.loc[edges[noise] :, "y"] = np.random.default_rng(1).normal(0, 50, len(frame) - edges[noise])
    starts = tuple(str(frame["t"].iloc[min(e, len(frame) - 1)]) for e in edges[:-1])
    return WindowedTable(frame, edges.astype(np.int64), starts)


def grown(one: WindowedTable, windows: int) -> WindowedTable:
    """The same, known up to fewer windows."""
    return WindowedTable(one.rows.iloc[: one.edges[windows]], one.edges[: windows + 1], one.starts[:windows])


def shelf(folder: Path) -> tuple[ChallengerStore, list[str]]:
    taught: list[str] = []
    return ChallengerStore(folder, CHOSEN, SPEC, taught.append), taught


def test_a_challengers_losses_are_those_of_the_matrix(tmp_path: Path) -> None:
    made, (one, _) = cut(), shelf(tmp_path)
    found = one.challenger(made, made.digests(), 2)
    whole = np.arange(0, len(made.rows) + 1, 20)  # the same rows in windows of 20: window 2 begins at the ninth
    rows = loss_matrix.compute_matrix_row(
        loss_matrix.MatrixJob(WindowedTable(made.rows, whole, ("",) * (len(whole) - 1)), CHOSEN, SPEC, None), 9
    )
    assert np.isnan(found[:2]).all()
    np.testing.assert_allclose(found[2:], rows.reshape(-1, 2).mean(axis=1))


def test_a_challenger_is_taught_once_and_meets_new_windows_as_it_was(tmp_path: Path) -> None:
    made = cut()
    early, late = grown(made, 4), made
    one, taught = shelf(tmp_path)
    first = one.challenger(early, early.digests(), 2)
    assert len(taught) == 1
    again, taught = shelf(tmp_path)  # another process
    then = again.challenger(late, late.digests(), 2)
    assert taught == []
    np.testing.assert_array_equal(first, then[:4])
    fresh, taught = shelf(tmp_path / "elsewhere")
    np.testing.assert_array_equal(fresh.challenger(late, late.digests(), 2), then)
    assert len(taught) == 1


def test_what_comes_later_changes_no_loss_before(tmp_path: Path) -> None:
    made, other = cut(), cut(noise=4)
    one, two = (shelf(tmp_path / name)[0] for name in ("one", "two"))
    for window in (1, 3):
        a, b = one.challenger(made, made.digests(), window), two.challenger(other, other.digests(), window)
        np.testing.assert_array_equal(a[:4], b[:4])
        assert (a[4:] != b[4:]).all()


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [_cut_short, lambda path: path.write_text("garbage"), lambda path: path.unlink()])
@pytest.mark.parametrize("what", ["*.skops", "*.json"])
def test_what_is_kept_and_damaged_is_made_again(tmp_path: Path, damage: Callable[[Path], Any], what: str) -> None:
    made = cut()
    early = grown(made, 4)
    one, _ = shelf(tmp_path)
    first = one.challenger(early, early.digests(), 2)
    (path,) = tmp_path.rglob(what)
    damage(path)
    again, taught = shelf(tmp_path)
    np.testing.assert_array_equal(first, again.challenger(made, made.digests(), 2)[:4])
    assert len(taught) == 1


def test_many_rows_that_came_late_teach_a_challenger_anew_and_few_do_not(tmp_path: Path) -> None:
    made = cut()
    one, _ = shelf(tmp_path)
    one.challenger(made, made.digests(), 2)
    for late, times in ((5, 0), (40, 1)):
        older = made.rows.iloc[:late].assign(t=made.rows["t"].iloc[0] - timedelta(days=1))
        more = WindowedTable(pd.concat([older, made.rows], ignore_index=True), made.edges + late, made.starts)
        again, taught = shelf(tmp_path)
        again.challenger(more, more.digests(), 2)
        assert len(taught) == times


def test_a_window_without_labels_has_no_loss(tmp_path: Path) -> None:
    made = cut()
    gap = WindowedTable(made.rows, made.edges[[0, 1, 2, 3, 3, 4, 5]], made.starts)
    found = shelf(tmp_path)[0].challenger(gap, gap.digests(), 1)
    assert np.isnan(found).tolist() == [True, False, False, True, False, False]


def asked(folder: Path, rows: pd.DataFrame, born: int = 4, windows: int = 14, chosen: Any = CHOSEN) -> ChallengerLosses:
    """Challengers of a champion taught on the first 100 rows and `born` windows of 20, asked about the windows from there on."""
    from dataclasses import asdict

    pipeline, columns = loss_matrix.fit_configuration(CHOSEN, SPEC, rows.iloc[: 100 + 20 * born])
    facts = VersionFacts(spec=SPEC.to_json(), columns=asdict(columns), taught_until="any")
    home = SimpleNamespace(settings=chosen, home=folder, model=lambda champion: pipeline)
    record = pd.DataFrame({LOSS_COLUMN: [0.5, 0.7]})
    champion = SimpleNamespace(version=3, facts=facts)
    made = ChallengerLosses(
        SimpleNamespace(project=home, champion=champion, record=record), SimpleNamespace(working=print)
    )  # type: ignore[arg-type]
    starts = [to_timestamp(t) for t in rows["t"].iloc[100::20].tolist()[: windows + 1]]
    places = list(itertools.pairwise(starts))
    vars(made).update(_learnable=(rows[rows["y"].notna()], 1.0), _lineage=[places[:born], places[born:]])
    return made


def ends(rows: pd.DataFrame) -> list[str]:
    """The ends of the fourteen windows."""
    return [to_timestamp(t) for t in rows["t"].iloc[120::20].tolist()[:14]]


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(t=np.arange(len(rows), dtype=float))


@pytest.mark.parametrize("time", [lambda rows: rows, numbered], ids=["dates", "numbers"])
def test_advice_knows_nothing_of_what_comes_later(tmp_path: Path, time: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    rows = time(table(400))
    other = rows.copy()
    other.loc[300:, ["x", "y"]] = np.random.default_rng(3).normal(5, 20, (100, 2))
    one, two = asked(tmp_path / "one", rows), asked(tmp_path / "two", other)
    told = [(one.advice(at), two.advice(at)) for at in ends(rows)]
    assert all(a == b for a, b in told[:10])
    assert any(a != b for a, b in told[10:])
    # Asked window by window or all at once, in one process or another: the same.
    again = asked(tmp_path / "one", rows)
    assert [again.advice(at) for at in reversed(ends(rows))] == [a for a, _ in reversed(told)]
    fresh = asked(tmp_path / "three", rows.iloc[:301])
    assert [fresh.advice(at) for at in ends(rows)[:10]] == [a for a, _ in told[:10]]


def test_the_turn_of_a_slope_is_advised_to_be_learned(tmp_path: Path) -> None:
    rows = table(400)  # the slope turns at row 200, in the champion's second window
    told = asked(tmp_path, rows, born=4)
    advised = [told.advice(at).retrain for at in ends(rows)]
    assert not any(advised[:5])
    assert any(advised[5:8])


def test_labels_that_are_late_by_their_delay_are_not_looked_at(tmp_path: Path) -> None:
    rows = table(400)
    monitor = CHOSEN.monitor.model_copy(update={"label_delay": "20h"})  # a window's time
    late = asked(tmp_path / "late", rows, chosen=CHOSEN.model_copy(update={"monitor": monitor}))
    prompt = asked(tmp_path / "prompt", rows)
    assert [late.advice(at) for at in ends(rows)[5:]] == [prompt.advice(at) for at in ends(rows)[4:-1]]


def test_windows_without_labels_count_as_if_they_were_not_there(tmp_path: Path) -> None:
    rows = table(400)
    rows.loc[200:239, "y"] = np.nan  # two windows of the champion
    told = asked(tmp_path, rows)
    blind = replace(told.advice(ends(rows)[4]), blind_since=to_timestamp(rows["t"].iloc[200]))
    assert [told.advice(at) for at in ends(rows)[5:7]] == [blind] * 2
    assert told.advice(ends(rows)[7]).blind_since is None
    assert any(told.advice(at).retrain for at in ends(rows)[7:11])
    rows.loc[180:, "y"] = np.nan
    never = asked(tmp_path, rows).advice(ends(rows)[-1])
    assert "no labelled rows of a whole window since version 3" in never.reason
    assert never.blind_since == ""


def test_without_a_price_any_saving_is_worth_a_lap_and_without_a_loss_none_is(tmp_path: Path) -> None:
    rows = table(400)
    free = CHOSEN.model_copy(update={"retrain": CHOSEN.retrain.model_copy(update={"cost": 0.0})})
    assert asked(tmp_path, rows, chosen=free).advice(ends(rows)[8]).retrain
    perfect = asked(tmp_path, rows)
    perfect._production.record[LOSS_COLUMN] = 0.0
    assert not perfect.advice(ends(rows)[8]).retrain


def sales(start: str, days: int, slope: float = 3.0, seed: int = 0) -> pd.DataFrame:
    """Prices that follow size and age, eight a day; `slope`: what a size is worth."""
    rng, rows = np.random.default_rng(seed), days * 8
    at = pd.date_range(start, periods=days, freq="D").repeat(8) + pd.to_timedelta(np.tile(np.arange(8), days), "h")
    size, age = rng.normal(100, 20, rows), rng.uniform(0, 40, rows)
    price = slope * size - 2 * age + rng.normal(0, 12, rows)
    return pd.DataFrame({"at": at, "size": size.round(2), "age": age.round(2), "price": price.round(2)})


@pytest.mark.slow
def test_a_growing_table_is_taught_again_once_challengers_show_what_that_saves(
    tmp_path: Path, prefect_server: str
) -> None:
    folder = quick_project(tmp_path / "project")
    path, home = folder.path / "data" / "sales.csv", folder.path / ".windvane"
    (folder.path / "data" / "txhousing.csv").unlink()
    known = sales("2025-01-01", 180)  # to Sunday, the 29th of June
    known.to_csv(path, index=False)
    folder.set(
        project=NAME,
        problem__target="price",
        problem__time="at",
        problem__ignore=[],
        data__source="data/sales.csv",
        search__candidates=["linear"],
        search__trials=1,
        monitor__window="7d",
        retrain__policy="regret",
        retrain__cooldown="0d",
    )
    env = {"PREFECT_API_URL": prefect_server}
    assert folder.train(env=env)["verdict"] == "promoted"

    def grows(more: pd.DataFrame) -> dict[str, Any]:
        nonlocal known
        known = pd.concat([known, more])
        known.to_csv(path, index=False)
        ran = folder.run("monitor", "--json", env=env)
        assert ran.status == 0, ran.err
        return ran.json

    def kept() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in home.rglob("challengers/*/*.skops")}

    calm = grows(sales("2025-06-30", 17, seed=2))  # two weeks are over, and a third has begun
    assert (calm["decision"], len(kept())) == ("wait", 1), calm
    before = kept()
    open_ = grows(sales("2025-07-17", 2, seed=3))
    assert open_["decision"] == "wait"
    assert kept() == before, "no window is over since: nothing is taught"
    grows(sales("2025-07-19", 3, seed=4))
    assert len(kept()) == 2
    assert before.items() <= kept().items()
    said = grows(sales("2025-07-22", 42, slope=4.5, seed=5))
    assert (said["decision"], said["retrained"]) == ("retrain", "done"), said
    assert "of a lap's price" in said["reason"]
    assert said["gain"] > 0
    engine = database.connect_ledger(f"sqlite:///{home / 'ledger.db'}")
    (one,) = [d for d in decisions.list_decisions(engine, NAME, acting=True) if d.action == "retrain"]
    assert (one.state, one.made) == ("done", 2)
    champion = versions.find_champion(engine, NAME)
    assert champion is not None
    assert champion.version == 2
    taught = kept()
    after = grows(sales("2025-09-02", 8, slope=4.5, seed=6))  # one of its weeks is over
    assert after["version"] == 2, after
    assert taught.items() <= kept().items(), "challengers of before serve the new champion too"
    assert len(kept()) - len(taught) <= 2
