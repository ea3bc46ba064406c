"""Cells of long benchmarks: what is done stays done until the code that it measures changes, and a killed run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kept_cells import KeptCells, hash_code


def not_run() -> int:
    raise AssertionError("the cell was computed again")


def test_a_cell_is_computed_once_per_code(tmp_path: Path) -> None:
    kept = KeptCells(tmp_path / "kept" / "cells.jsonl")
    assert kept.get("one", "code a", lambda: 1) == 1
    assert kept.get("one", "code a", not_run) == 1
    assert kept.get("one", "code b", lambda: 2) == 2
    again = KeptCells(tmp_path / "kept" / "cells.jsonl")
    assert [again.get("one", code, not_run) for code in ("code a", "code b")] == [1, 2]


def test_what_a_cell_printed_is_printed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = KeptCells(tmp_path / "cells.jsonl")
    kept.show("table", "code", lambda: print("| 1 |\n| 2 |"))
    kept.show("table", "code", not_run)
    assert capsys.readouterr().out == "| 1 |\n| 2 |\n" * 2


def test_half_a_line_of_a_killed_run_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    KeptCells(path).get("one", "code", lambda: 1)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + whole.replace("one", "two")[:-5] + "\n", encoding="utf-8")
    kept = KeptCells(path)
    assert kept.has("one", "code")
    assert not kept.has("two", "code")
    assert kept.get("two", "code", lambda: 2) == 2


def test_the_hash_follows_the_script_and_what_it_measures() -> None:
    script = "benchmarks/kept_cells.py"
    seen = {hash_code(script, *names) for names in ((), ("ledger",), ("ledger", "serving"), ("ledger/laps.py",))}
    assert len(seen) == 4
    assert hash_code(script, "ledger") in seen
