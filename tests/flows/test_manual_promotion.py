"""Promotions and rollbacks to versions that cannot serve any more: nothing moves, and the message names one that can."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.many_versions import Many
from tests.support.served_models import PROJECT
from windvane.flows import model_promotion, monitoring
from windvane.flows.model_promotion import VersionUnfit
from windvane.ledger import decisions, versions
from windvane.ledger.database import now_timestamp
from windvane.ledger.decisions import DecisionRecord
from windvane.tasks.console import SilentConsole
from windvane.tasks.project import Project
from windvane.tasks.stores import mlflow_client
from windvane.tasks.stores.mlflow_client import MlflowTracker, RegisteredVersion

pytestmark = pytest.mark.long


@pytest.fixture
def many(tmp_path: Path) -> Many:
    """Versions 1, 2 and 3 served one after the other, and MLflow has them all."""
    many = Many(tmp_path)
    for number in (2, 3):
        many.lap(number, accepted=True)
    known = {
        one.version: RegisteredVersion(one.run_id, one.model_uri, one.fingerprint, one.manifest_sha256)
        for one in versions.list_versions(many.site.ledger, PROJECT)
    }
    mlflow_client.restore_registered_versions(MlflowTracker(PROJECT, tmp_path / ".windvane", None), known)
    return many


def test_g1_n1_a_rollback_to_a_model_whose_files_are_gone_moves_nothing(many: Many) -> None:
    shutil.rmtree(many.model(2))
    for _ in range(2):
        with pytest.raises(VersionUnfit) as refused:
            model_promotion.roll_back_manually(Project(many.root))
        assert "version 2 cannot serve" in str(refused.value)
        assert "Nothing was changed; `windvane promote 1` puts that one back" in str(refused.value)
        assert "windvane rollback" not in str(refused.value)
        assert many.champion == 3


def test_g1_n2_a_promotion_of_a_changed_model_names_no_version_that_cannot_serve_either(many: Many) -> None:
    for number in (1, 2):
        (many.model(number) / "model.skops").write_bytes(b"another")
    with pytest.raises(
        VersionUnfit, match=r"were changed after .* Nothing was changed; `windvane train` makes a new one"
    ):
        model_promotion.promote_manually(Project(many.root), 1, "manual")
    assert many.champion == 3


def test_g1_n3_a_rollback_by_monitoring_that_cannot_be_ends_with_its_reason(many: Many) -> None:
    shutil.rmtree(many.model(2))
    project = Project(many.root)
    entry = decisions.record_decision(
        project.ledger, DecisionRecord(PROJECT, 3, "2026-01", now_timestamp(), "rollback", "it is worse than version 2")
    )
    monitoring.finish_started_actions(project, SilentConsole())
    ended = decisions.find_decision(project.ledger, entry.id)
    assert ended is not None
    assert ended.state == "skipped"
    assert "version 2 cannot serve" in str(ended.note)
    assert many.champion == 3
