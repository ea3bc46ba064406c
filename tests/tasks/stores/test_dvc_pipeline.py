"""What the stages of dvc.yaml follow: a change that moves their outputs is a change to DVC."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from windvane.tasks import project_files
from windvane.tasks.split import data_split
from windvane.tasks.stores import dvc_pipeline

pytestmark = pytest.mark.long

PARAMS = """\
project: late
problem: {kind: regression, target: price, time: day}
data: {source: t.csv}
split: {strategy: time}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project of 200 days, with all stages run."""
    days = pd.date_range("2020-01-01", periods=200, freq="D").strftime("%Y-%m-%d")
    pd.DataFrame({"day": days, "size": [37 * i % 101 for i in range(200)], "price": range(200)}).to_csv(
        tmp_path / "t.csv", index=False
    )
    (tmp_path / "params.yaml").write_text(PARAMS)
    project_files.write_stage_inputs(tmp_path)
    return tmp_path


def run_stages(root: Path) -> list[str]:
    """Run what changed; the names of what ran."""
    ran = []
    with dvc_pipeline.open_dvc_pipeline(root) as stages:
        for name in stages.names:
            if stages.changed(name):
                stages.run(name, lambda name=name: project_files.run_stage(name, root))  # type: ignore[misc]
                ran.append(name)
        assert stages.clean()
    return ran


def count_gap_rows(root: Path) -> int:
    codes = pd.read_parquet(root / data_split.SPLIT_FOLDER / data_split.SPLIT_CODES_FILE)[data_split.SPLIT_COLUMN]
    return int((codes == data_split.GAP_CODE).sum())


def test_a_label_delay_is_a_change_of_the_split_and_may_be_left_out(root: Path) -> None:
    params, pipeline = root / "params.yaml", root / "dvc.yaml"
    (root / "schema.yaml").write_text("columns: {}\n")
    assert run_stages(root) == ["ingest", "validate", "split"]
    assert (count_gap_rows(root), "label_delay" in pipeline.read_text()) == (0, False)
    params.write_text(PARAMS + "monitor: {label_delay: 7d}\n")
    assert run_stages(root) == ["split"]
    assert count_gap_rows(root) == 12
    assert pipeline.read_text() == dvc_pipeline.PIPELINE_TEMPLATE.read_text()
    params.write_text(PARAMS + "monitor: {label_delay: 7d, false_alarms: 0.02}\n")
    assert run_stages(root) == []
    params.write_text(PARAMS + "monitor: {false_alarms: 0.02}\n")
    assert run_stages(root) == ["split"]
    assert count_gap_rows(root) == 0


def test_of_dvc_yaml_only_the_entry_of_the_label_delay_moves(root: Path) -> None:
    template, path = dvc_pipeline.PIPELINE_TEMPLATE.read_text(), root / "dvc.yaml"
    mine = template.replace(
        "      - problem\n      - split\n    outs:\n      - .windvane/data/split",
        "      - split   # mine\n      - problem\n    outs:\n      - .windvane/data/split",
    )
    assert mine != template
    path.write_text(mine)
    with dvc_pipeline.open_dvc_pipeline(root):
        assert path.read_text() == mine.replace("      - monitor.label_delay\n", "")
    (root / "params.yaml").write_text(PARAMS + "monitor: {label_delay: 7d}\n")
    with dvc_pipeline.open_dvc_pipeline(root):
        assert path.read_text() == mine
    assert yaml.safe_load(mine)["stages"]["split"]["params"] == ["monitor.label_delay", "split", "problem"]
