"""Windows that were checked, what was decided about them, and which notices people got."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables. Written out, not taken from ledger/schema.py: a migration never changes afterwards."""
    project = ("project", sa.String(100))
    op.create_table(
        "windows",
        *_columns(
            project,
            ("version", sa.Integer()),
            ("start", sa.String(32)),
            ("end", sa.String(32)),
            ("origin", sa.String(8)),
            ("rows", sa.Integer()),
            ("labelled", sa.Integer()),
            ("closed", sa.Boolean()),
            ("looks", sa.Integer()),
            ("mark", sa.String(64)),
            ("look", sa.JSON()),
            ("looked", sa.String(32)),
            ("run_id?", sa.String(64)),
        ),
        sa.PrimaryKeyConstraint("project", "version", "start"),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(32), primary_key=True),
        *_columns(
            project,
            ("version", sa.Integer()),
            ("window", sa.String(32)),
            ("at", sa.String(32)),
            ("recorded", sa.String(32)),
            ("action", sa.String(16)),
            ("depth?", sa.String(8)),
            ("remedy", sa.String(8)),
            ("reason", sa.Text()),
            ("evidence", sa.JSON()),
            ("gain?", sa.Float()),
            ("cost?", sa.Float()),
            ("known_until?", sa.String(32)),
            ("state", sa.String(16)),
            ("told?", sa.String(32)),
            ("lap?", sa.String(32)),
            ("token?", sa.Integer()),
            ("claims", sa.Integer()),
            ("ended?", sa.String(32)),
            ("note?", sa.Text()),
            ("made?", sa.Integer()),
            ("realised?", sa.Float()),
        ),
    )
    op.create_index("ix_decisions_project", "decisions", ["project", "recorded"])
    _unique("ix_decisions_open", ["project"], "action = 'retrain' AND state IN ('recorded', 'told', 'claimed')")
    _unique("ix_decisions_once", ["project", "version", "window", "action"], "action <> 'wait'")
    op.create_table(
        "notices",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        *_columns(
            project,
            ("state", sa.String(100)),
            ("text", sa.Text()),
            ("recorded", sa.String(32)),
            ("told?", sa.String(32)),
            ("tries", sa.Integer()),
        ),
    )
    op.create_index("ix_notices_project", "notices", ["project"])


def _columns(*columns: tuple[str, sa.types.TypeEngine[Any]]) -> list[sa.Column[Any]]:
    """Columns from (name, type) pairs; a name that ends in `?` may be null."""
    return [sa.Column(name.rstrip("?"), kind, nullable=name.endswith("?")) for name, kind in columns]


def _unique(name: str, columns: list[str], where: str) -> None:
    """An index over the rows for which the condition holds: both databases know such."""
    op.create_index(
        name, "decisions", columns, unique=True, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )
