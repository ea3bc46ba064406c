"""The first ledger: leases, laps, openings of the test split, versions, judgements, promotions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables. Written out, not taken from ledger/schema.py: a migration never changes afterwards."""
    project = ("project", sa.String(100))
    _table(
        "leases",
        project,
        ("token", sa.Integer()),
        ("holder?", sa.JSON()),
        ("expires?", sa.String(32)),
        key=("project",),
    )
    _table(
        "laps",
        ("id", sa.String(32)),
        project,
        ("token", sa.Integer()),
        ("cause", sa.Text()),
        ("state", sa.String(16)),
        ("started", sa.String(32)),
        ("ended?", sa.String(32)),
        ("mlflow_run?", sa.String(64)),
        ("prefect_run?", sa.String(64)),
        ("outcome?", sa.JSON()),
        key=("id",),
    )
    _table(
        "openings",
        project,
        ("fingerprint", sa.String(64)),
        ("opened", sa.String(32)),
        ("attempts", sa.Integer()),
        ("rows?", sa.Integer()),
        ("record_sha256?", sa.String(64)),
        key=("project", "fingerprint"),
    )
    _table("judged_rows", project, ("row", sa.BigInteger()), ("times", sa.Integer()), key=("project", "row"))
    _table(
        "versions",
        project,
        ("version", sa.Integer()),
        ("fingerprint", sa.String(64)),
        ("run_id", sa.String(64)),
        ("model_uri", sa.Text()),
        ("manifest_sha256", sa.String(64)),
        ("record_sha256", sa.String(64)),
        ("data_version", sa.String(64)),
        ("taught_until?", sa.String(64)),
        ("facts", sa.JSON()),
        ("registered", sa.String(32)),
        key=("project", "version"),
    )
    op.create_index("ix_versions_fingerprint", "versions", ["project", "fingerprint"], unique=True)
    _table(
        "judgements",
        ("id", sa.Integer()),
        project,
        ("version", sa.Integer()),
        ("against?", sa.Integer()),
        ("gate", sa.String(64)),
        ("accepted", sa.Boolean()),
        ("verdict", sa.JSON()),
        ("judged", sa.String(32)),
        key=("id",),
    )
    _table(
        "promotions",
        ("id", sa.Integer()),
        project,
        ("from_version?", sa.Integer()),
        ("to_version", sa.Integer()),
        ("cause", sa.String(16)),
        ("reason", sa.Text()),
        ("promoted", sa.String(32)),
        ("told", sa.Boolean()),
        key=("id",),
    )
    for table in ("laps", "judgements", "promotions"):
        op.create_index(f"ix_{table}_project", table, ["project"])


def _table(name: str, *columns: tuple[str, sa.types.TypeEngine[Any]], key: tuple[str, ...]) -> None:
    """A table from (name, type) pairs; a name that ends in `?` may be null."""
    op.create_table(
        name,
        *(sa.Column(column.rstrip("?"), kind, nullable=column.endswith("?")) for column, kind in columns),
        sa.PrimaryKeyConstraint(*key),
    )
