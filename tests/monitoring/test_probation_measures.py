"""Probation after metric or loss were changed: old record and new window are in one measure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from tests.support.own_models import METRICS, read_measured_settings
from windvane.monitoring import window_frames
from windvane.monitoring.watch import probation
from windvane.tasks.evaluation.scores import BASELINE_LOSS_COLUMN, LOSS_COLUMN, PREDICTION_COLUMN


def make_frame(seed: int, error: float) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=200)
    frame = pd.DataFrame({"y": truth, PREDICTION_COLUMN: truth + error * draw.normal(size=200)})
    return frame.assign(**{window_frames.INPUTS_STORED_COLUMN: False, LOSS_COLUMN: 1e6, BASELINE_LOSS_COLUMN: 1e6})


def test_a_changed_loss_is_no_change_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, window = make_frame(0, 1.0), make_frame(1, 1.5)
    settings = read_measured_settings(tmp_path, METRICS, loss="metrics.py:loss")
    project = SimpleNamespace(settings=settings, record=lambda _: record)
    production: Any = SimpleNamespace(
        project=project, record=record, count=lambda place: place, frame=lambda _: window, hidden=()
    )
    monkeypatch.setattr(probation, "_compute_old_losses", lambda *_: (None, "against its own record"))
    seen: Any = SimpleNamespace(start="2024-01-01", end="2024-01-02", closed=True)
    found, saved = probation._compare_versions(production, [seen], cast("Any", SimpleNamespace(version=1)), 0.05)
    assert found.excess == pytest.approx(0.5, abs=0.3)  # of the recorded losses it would be near -1
    assert saved == pytest.approx(-found.excess)
