"""The ledger's tables. Owns names and types of columns; the migrations in ledger/migrations bring a database to them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

# The newest migration: compared with the database's own at every start, so that Alembic is imported only when they differ.
HEAD = "0001"

metadata = MetaData()

# Times are ISO 8601 text in UTC: they sort, and a person reads them, in SQLite and PostgreSQL alike.
leases = Table(
    "leases",
    metadata,
    Column("project", String(100), primary_key=True),
    Column("token", Integer, nullable=False),
    Column("holder", JSON, nullable=True),
    Column("expires", String(32), nullable=True),
)

laps = Table(
    "laps",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(100), nullable=False, index=True),
    Column("token", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("started", String(32), nullable=False),
    Column("ended", String(32), nullable=True),
    Column("mlflow_run", String(64), nullable=True),
    Column("prefect_run", String(64), nullable=True),
    Column("outcome", JSON, nullable=True),
)

openings = Table(
    "openings",
    metadata,
    Column("project", String(100), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("opened", String(32), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("rows", Integer, nullable=True),
    Column("record_sha256", String(64), nullable=True),
    PrimaryKeyConstraint("project", "fingerprint"),
)

judged_rows = Table(
    "judged_rows",
    metadata,
    Column("project", String(100), nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("times", Integer, nullable=False),
    PrimaryKeyConstraint("project", "row"),
)

versions = Table(
    "versions",
    metadata,
    Column("project", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("model_uri", Text, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("record_sha256", String(64), nullable=False),
    Column("data_version", String(64), nullable=False),
    Column("taught_until", String(64), nullable=True),
    Column("facts", JSON, nullable=False),
    Column("registered", String(32), nullable=False),
    PrimaryKeyConstraint("project", "version"),
    Index("ix_versions_fingerprint", "project", "fingerprint", unique=True),
)

judgements = Table(
    "judgements",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", String(100), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("against", Integer, nullable=True),
    Column("gate", String(64), nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("verdict", JSON, nullable=False),
    Column("judged", String(32), nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", String(100), nullable=False, index=True),
    Column("from_version", Integer, nullable=True),
    Column("to_version", Integer, nullable=False),
    Column("cause", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("promoted", String(32), nullable=False),
    # Whether MLflow's alias has been told: tells a crash in between from an alias that somebody moved by hand.
    Column("told", Boolean, nullable=False),
)
