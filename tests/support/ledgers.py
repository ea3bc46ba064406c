"""What the tests of the ledger share: predictions, and a way to put them in without a writer."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from windvane.ledger import predictions
from windvane.ledger.database import build_upsert
from windvane.ledger.predictions import Prediction, PrivacyRules


def answer(id: str, **more: Any) -> Prediction:
    """A prediction, complete."""
    return Prediction(id, **{"version": 1, "inputs": {"x": 1.5, "city": "Waco"}, "output": {"prediction": 2.5}, **more})


def put(engine: sa.Engine, project: str, *given: Prediction, privacy: PrivacyRules | None = None, **more: str) -> None:
    """Store predictions; with `received`, as if they had arrived then."""
    table = predictions.predictions
    names = [column.name for column in table.columns]
    rows = [
        dict(zip(names, row, strict=True)) | more
        for row in predictions.prepare_prediction_rows(project, given, privacy or PrivacyRules())
    ]
    for row in rows:
        row |= {name: json.loads(row[name] or "null") for name in ("inputs", "output")}
    if rows:
        with engine.begin() as db:
            db.execute(build_upsert(engine.dialect, table).on_conflict_do_nothing(), rows)
