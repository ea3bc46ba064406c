"""A small seeded part of benchmarks/data_gate.py: what is planted is found, and later honest rows are not stopped."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from benchmarks import data_gate, planted
from tests.support.projects import ROOT

pytestmark = pytest.mark.long


@pytest.mark.slow
def test_every_kind_of_fault_is_found_in_a_made_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "ROWS", 10_000)
    clean = planted.TABLES["made 1"](np.random.default_rng(0))
    found = dict(data_gate.faults(clean, 0, list(planted.KINDS)))
    assert list(found) == list(planted.KINDS)
    assert [kind for kind, was_found in found.items() if not was_found] == []


@pytest.mark.slow
def test_later_rows_of_a_real_table_are_not_stopped() -> None:
    frame = planted.canonical(pl.read_parquet(ROOT / "examples" / "king_county_houses.parquet"))
    named = data_gate.REAL["king_county_houses.parquet"]
    told = [*data_gate.later(frame, "houses", named, "grows"), *data_gate.later(frame, "houses", named, "stretch")]
    assert len(told) == 2 * data_gate.STEPS
    assert [found for found in told if any(level == "stop" for *_, level in found)] == []
