"""The running service takes the level of intervals from what monitoring has recorded, without a restart and the same after one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.served_models import PROJECT, ROW, Client, Site
from windvane.ledger import windows
from windvane.ledger.database import now_timestamp
from windvane.ledger.windows import CoverageState, WindowRecord
from windvane.tasks.evaluation.adaptive_levels import count_by_level

DAYS = ("2026-01-01", "2026-01-08", "2026-01-15")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.register(1)
    site.promote(1)
    return site


def check(site: Site, start: str, needed: float | None, mark: str = "a", labels: int = 100) -> None:
    """Record a check of a window whose labels all need this level; None: no label has come."""
    counts = () if needed is None else count_by_level(np.full(labels, needed))
    found = {"level": 0.9, "rows": sum(counts), "covered": 0 if needed is None or needed >= 0.9 else labels}
    look = {"coverage": None if needed is None else {**found, "alarm": needed > 0.9, "counts": counts}}
    before = next((w for w in windows.list_windows(site.ledger, PROJECT, 1) if w.start == start), None)
    seen = WindowRecord(1, start, start, "ledger", labels, labels, True, 1, mark, look, now_timestamp())
    assert windows.save_window(site.ledger, PROJECT, seen, before)


def ask(client: Client) -> dict[str, Any]:
    given: dict[str, Any] = client.ask("POST", "/invocations?interval=0.9", json={"inputs": [ROW]}).json()["intervals"]
    return given


def test_the_service_uses_the_level_of_the_windows_so_far_and_reports_it(site: Site) -> None:
    following = site.following()
    client = Client(site, following, None)
    plain = ask(client)
    assert "adjusted" not in plain
    assert "windvane_interval_coverage NaN" in client.ask("GET", "/metrics").text
    check(site, DAYS[0], None)
    following.poll()
    assert ask(client) == plain
    check(site, DAYS[1], 0.95)
    assert ask(client) == plain  # until the service checks the ledger
    following.poll()
    wider = ask(client)
    assert wider["level"] == 0.9
    assert wider["adjusted"] > 0.9
    assert np.ptp(wider["bounds"]) > np.ptp(plain["bounds"])
    metrics = client.ask("GET", "/metrics").text
    assert "windvane_interval_coverage 0.0" in metrics
    assert "windvane_interval_alarm 1.0" in metrics
    assert f"windvane_interval_level {wider['adjusted']}" in metrics
    assert ask(Client(site, site.following(), None)) == wider  # a restart


def test_labels_far_beyond_all_held_out_errors_bring_the_widest_interval_and_no_refusal(site: Site) -> None:
    check(site, DAYS[0], 0.9999, labels=20_000)
    found = ask(Client(site, site.following(), None))
    assert 0.9966 < found["adjusted"] <= 300 / 301  # the 300 held-out rows can promise no more


def test_an_earlier_window_whose_labels_come_last_counts_in_its_place_and_once(site: Site, tmp_path: Path) -> None:
    following = site.following()
    client = Client(site, following, None)
    for start, needed in ((DAYS[1], 0.97), (DAYS[2], 0.5), (DAYS[0], 0.3)):
        check(site, start, needed)
        following.poll()
    late = ask(client)
    check(site, DAYS[0], 0.3, mark="b")  # checked again, with the same labels
    following.poll()
    assert ask(client) == late
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    other.register(1)
    other.promote(1)
    for start, needed in ((DAYS[0], 0.3), (DAYS[1], 0.97), (DAYS[2], 0.5)):
        check(other, start, needed)
    assert ask(Client(other, other.following(), None)) == late


def test_nothing_is_read_again_while_nothing_was_checked(site: Site) -> None:
    following = site.following()
    check(site, DAYS[0], 0.95)
    following.poll()
    lineup = following.lineup
    following.poll()
    assert following.lineup is lineup
    assert lineup is not None
    known = lineup.champion.coverage
    assert windows.read_coverage(site.ledger, PROJECT, 1, known) is known
    assert windows.read_coverage(site.ledger, PROJECT, 2, CoverageState()).windows == ()
