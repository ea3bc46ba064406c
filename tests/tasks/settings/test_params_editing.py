"""Single values of params.yaml are changed, and nothing else."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from tests.support.projects import ROOT
from windvane.tasks.errors import InputError
from windvane.tasks.settings import project_params
from windvane.tasks.settings.yaml_files import edit_params

HEAD = "project: p\nproblem: {kind: regression, target: y, time: t}\ndata: {source: t.csv}\nsplit: {strategy: time}\n"
WANTED: dict[str, Any] = {
    "retrain.policy": "performance",
    "retrain.cost": 2.0,
    "retrain.history": "trailing:12",
    "monitor.window": "7d",
}


def written(path: Path, text: str) -> Path:
    (path / "params.yaml").write_bytes(text.encode("utf-8"))
    return path / "params.yaml"


def chosen(path: Path) -> tuple[str, float, str, str | int]:
    made = project_params.load_settings(path)
    return made.retrain.policy, made.retrain.cost, made.retrain.history, made.monitor.window


def test_the_default_file_keeps_every_other_byte(tmp_path: Path) -> None:
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = written(tmp_path, before)
    changed = edit_params(path, WANTED)
    assert changed["retrain.cost"] == (0.5, 2.0)
    assert set(changed) == set(WANTED)
    after = path.read_text(encoding="utf-8")
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert len(lines) == 2 * len(WANTED)
    assert all(
        line.index("#") == before.splitlines()[before.splitlines().index(line[2:])].index("#") + 2
        for line in lines
        if line[0] == "-"
    )
    assert [line[2:].partition("#")[2] for line in lines if line[0] == "-"] == [
        line[2:].partition("#")[2] for line in lines if line[0] == "+"
    ]
    assert chosen(path) == ("performance", 2.0, "trailing:12", "7d")


def test_what_is_so_already_is_not_written(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + "retrain: {policy: never}\n")
    stamp = path.stat().st_mtime_ns
    assert edit_params(path, {"retrain.policy": "never"}) == {}
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "retrain:\n",
        "retrain: {}\n",
        "retrain: {policy: never, cost: 1} # why\n",
        "retrain: {cooldown: 2d}\nmonitor: {window: 500}\n",
        "retrain:\n    # first\n    cooldown: 2d   # rest\n    cost: 1     # dear\nmonitor:\n  window:   500\n",
        "retrain:\n  policy: \"staleness\"\n  history: 'expanding'",
        "monitor: {window: '1mo'}",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_however_it_is_written(tmp_path: Path, tail: str, end: str, bom: str) -> None:
    text = bom + (HEAD + tail).replace("\n", end)
    path = written(tmp_path, text)
    kept = {line for line in text.removeprefix("\ufeff").splitlines() if "#" in line and ":" not in line}
    edit_params(path, WANTED)
    assert chosen(path) == ("performance", 2.0, "trailing:12", "7d")
    after = path.read_bytes().decode("utf-8")
    assert after.startswith(bom + HEAD.splitlines()[0])
    assert kept <= set(after.splitlines())
    assert ("\r\n" in after) == (end == "\r\n")
    assert after.count("\n") == after.count(end)
    assert after.count("#") == text.count("#")


@tries(deadline=None)
@given(
    st.sampled_from(["regret", "never", "schedule"]),
    st.floats(0.01, 99),
    st.integers(1, 500),
    st.sampled_from(["7d", "1mo", "500"]),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, policy: str, cost: float, windows: int, window: str
) -> None:
    path = written(tmp_path_factory.mktemp("p"), HEAD)
    edit_params(
        path,
        {
            "retrain.policy": policy,
            "retrain.cost": cost,
            "retrain.history": f"trailing:{windows}",
            "monitor.window": window,
        },
    )
    assert chosen(path) == (policy, pytest.approx(cost, rel=1e-5), f"trailing:{windows}", window)


def test_an_alias_is_left_to_a_person(tmp_path: Path) -> None:
    text = HEAD.replace("project: p", "project: &name never") + "retrain: {policy: *name}\n"
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=r"Write retrain\.policy: regret yourself"):
        edit_params(path, {"retrain.policy": "regret"})
    assert path.read_text(encoding="utf-8") == text


def test_what_params_yaml_may_not_hold_is_not_written(tmp_path: Path) -> None:
    path = written(tmp_path, HEAD)
    with pytest.raises(InputError):
        edit_params(path, {"retrain.policy": "sometimes"})
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["project"] == "p"
    assert path.read_text(encoding="utf-8") == HEAD
