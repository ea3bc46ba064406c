"""Predictions in a fixed random order: an even sample of a stretch is read without reading the stretch."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_FIRST_BITS = "length(ltrim((('x' || substr(md5(id || ':' || content::text), 1, 4))::bit(16))::text, '0'))"


def upgrade() -> None:
    """Add the tier of each prediction: 16 less the length in bits of the first 16 bits of md5("id:content"), at most 15."""
    op.add_column("predictions", sa.Column("tier", sa.SmallInteger(), nullable=False, server_default="0"))
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.create_function("draw_tier", 2, _draw_tier, deterministic=True)
        op.execute("UPDATE predictions SET tier = draw_tier(id, content)")
    else:
        op.execute(f"UPDATE predictions SET tier = 16 - greatest({_FIRST_BITS}, 1)")
    op.drop_index("ix_predictions_time", "predictions")
    op.create_index("ix_predictions_tier", "predictions", ["project", "version", "tier", "time"])


def _draw_tier(id: str, content: int) -> int:
    first = hashlib.md5(f"{id}:{content}".encode(), usedforsecurity=False).digest()[:2]
    return 16 - max(int.from_bytes(first, "big").bit_length(), 1)
