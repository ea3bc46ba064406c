"""Predictions, the labels that arrive for them, and a record of what was erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables. Written out, not taken from ledger/schema.py: a migration never changes afterwards."""
    op.create_table(
        "predictions",
        sa.Column("project", sa.String(100), nullable=False),
        sa.Column("id", _bytewise(200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("content", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.String(32), nullable=False),
        sa.Column("received", sa.String(32), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=True),
        sa.Column("output", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", "version", "role", "content"),
    )
    op.create_index("ix_predictions_time", "predictions", ["project", "time"])
    op.create_table(
        "labels",
        sa.Column("project", sa.String(100), nullable=False),
        sa.Column("id", _bytewise(200), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("label", _bytewise(1300), nullable=False),
        sa.Column("received", sa.String(32), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("project", "id", "at", "label"),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("project", sa.String(100), nullable=False),
        sa.Column("erased", sa.String(32), nullable=False),
        sa.Column("by", sa.String(16), nullable=False),
        sa.Column("predictions", sa.Integer(), nullable=False),
        sa.Column("labels", sa.Integer(), nullable=False),
    )
    op.create_index("ix_erasures_project", "erasures", ["project"])


def _bytewise(length: int) -> sa.types.TypeEngine[str]:
    """Text whose order is that of its bytes, in SQLite and PostgreSQL alike."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
