"""The repository's papers: its licence, and where each table that it holds comes from."""

from __future__ import annotations

import subprocess
import tomllib

from tests.support.projects import ROOT, missing

DATA = {
    ".csv",
    ".tsv",
    ".parquet",
    ".json",
    ".jsonl",
    ".ndjson",
    ".gz",
    ".zst",
    ".xlsx",
    ".db",
    ".sqlite",
    ".duckdb",
    ".arrow",
    ".feather",
}


def test_notice_names_every_data_file() -> None:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing("git and the repository, which say what is shipped")
    shipped = {name for name in done.stdout.split("\0") if name[name.rfind(".") :].lower() in DATA}
    blocks = (ROOT / "NOTICE").read_text(encoding="utf-8").split("\n\n")
    told = {block.splitlines()[0]: block for block in blocks}
    assert shipped >= {"data/txhousing.csv", "examples/king_county_houses.parquet"}
    for name in shipped:
        assert name in told, f"{name}: NOTICE says neither its origin nor its licence"
        assert "Origin: " in told[name]
        assert "Licence: " in told[name]


def test_the_licence_is_whole_and_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text.splitlines()[1]
    assert "Version 2.0, January 2004" in text
    assert all(f"\n   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE", "NOTICE"])
