"""The ledger's tables: names and types of columns. The migrations in ledger/migrations bring a database to them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

# The migrations. The newest is compared with the database's own at every start, so that Alembic is imported only when they
# differ; one that is not among them was written by a newer Windvane.
REVISIONS = ("0001", "0002", "0003")
HEAD_REVISION = REVISIONS[-1]

metadata = MetaData()

# Text that is compared by its bytes in SQLite and PostgreSQL alike, so that both agree on which of two is the greater.
BYTEWISE_TEXT = String(200).with_variant(String(200, collation="C"), "postgresql")
LABEL_TEXT = String(1300).with_variant(String(1300, collation="C"), "postgresql")

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

# A prediction is named by its id, version, role and content: a request sent again is stored once, another one is kept.
predictions = Table(
    "predictions",
    metadata,
    Column("project", String(100), nullable=False),
    Column("id", BYTEWISE_TEXT, nullable=False),
    Column("version", Integer, nullable=False),
    Column("role", String(8), nullable=False),
    Column("content", BigInteger, nullable=False),
    Column("time", String(32), nullable=False),
    Column("received", String(32), nullable=False),
    Column("inputs", JSON(none_as_null=True), nullable=True),
    Column("output", JSON, nullable=False),
    PrimaryKeyConstraint("project", "id", "version", "role", "content"),
    Index("ix_predictions_time", "project", "time"),
)

# Statements, only ever added: the label of an id is the one stated last (`at`), the greater text where two are level.
labels = Table(
    "labels",
    metadata,
    Column("project", String(100), nullable=False),
    Column("id", BYTEWISE_TEXT, nullable=False),
    Column("at", String(32), nullable=False),
    Column("label", LABEL_TEXT, nullable=False),
    Column("received", String(32), nullable=False),
    Column("source", String(16), nullable=False),
    PrimaryKeyConstraint("project", "id", "at", "label"),
)

# That something was erased, when, and how many rows; never what.
erasures = Table(
    "erasures",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", String(100), nullable=False, index=True),
    Column("erased", String(32), nullable=False),
    Column("by", String(16), nullable=False),
    Column("predictions", Integer, nullable=False),
    Column("labels", Integer, nullable=False),
)

# A stretch of production that was looked at, once per version that answered in it. `looks` counts looks at drift, of which
# each spends a part of the window's false alarms; labels that come later change `labelled`, `known` and the look's quality.
windows = Table(
    "windows",
    metadata,
    Column("project", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("start", String(32), nullable=False),
    Column("end", String(32), nullable=False),
    Column("origin", String(8), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("labelled", Integer, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("looks", Integer, nullable=False),
    # What was looked at, as a hash: the same again is no new look.
    Column("mark", String(64), nullable=False),
    Column("look", JSON, nullable=False),
    Column("looked", String(32), nullable=False),
    Column("run_id", String(64), nullable=True),
    PrimaryKeyConstraint("project", "version", "start"),
)

IS_OPEN_RETRAINING = text("action = 'retrain' AND state IN ('recorded', 'told', 'claimed')")
IS_NOT_WAIT = text("action <> 'wait'")

# What was decided, and what became of it: recorded -> told -> claimed -> done | skipped. `at` is the moment in the events' own
# time, `recorded` that of the wall. Waiting is decided as often as it is looked at, anything else once per window.
decisions = Table(
    "decisions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(100), nullable=False),
    Column("version", Integer, nullable=False),
    Column("window", String(32), nullable=False),
    Column("at", String(32), nullable=False),
    Column("recorded", String(32), nullable=False),
    Column("action", String(16), nullable=False),
    Column("depth", String(8), nullable=True),
    Column("remedy", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("gain", Float, nullable=True),
    Column("cost", Float, nullable=True),
    Column("known_until", String(32), nullable=True),
    Column("state", String(16), nullable=False),
    Column("told", String(32), nullable=True),
    Column("lap", String(32), nullable=True),
    Column("token", Integer, nullable=True),
    Column("claims", Integer, nullable=False),
    Column("ended", String(32), nullable=True),
    Column("note", Text, nullable=True),
    # The version that came of it, and what it saved in its probation, in the units of `gain`.
    Column("made", Integer, nullable=True),
    Column("realised", Float, nullable=True),
    Index("ix_decisions_project", "project", "recorded"),
    Index(
        "ix_decisions_open",
        "project",
        unique=True,
        sqlite_where=IS_OPEN_RETRAINING,
        postgresql_where=IS_OPEN_RETRAINING,
    ),
    Index(
        "ix_decisions_once",
        "project",
        "version",
        "window",
        "action",
        unique=True,
        sqlite_where=IS_NOT_WAIT,
        postgresql_where=IS_NOT_WAIT,
    ),
)

# What people were told when the state changed, recorded before it is told; `told` is empty until the webhook has taken it.
notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("project", String(100), nullable=False, index=True),
    Column("state", String(100), nullable=False),
    Column("text", Text, nullable=False),
    Column("recorded", String(32), nullable=False),
    Column("told", String(32), nullable=True),
    Column("tries", Integer, nullable=False),
)
