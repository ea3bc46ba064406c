"""The ledger's tables: names and types of columns. The migrations in ledger/migrations bring a database to them."""

from __future__ import annotations

import sqlalchemy as sa

# The migrations. The newest is compared with the database's own at every start, so that Alembic is imported only when they
# differ; one that is not among them was written by a newer Windvane.
REVISIONS = ("0001", "0002", "0003", "0004")
HEAD_REVISION = REVISIONS[-1]

metadata = sa.MetaData()


def _make_table(name: str, *parts: sa.schema.SchemaItem, indexed: bool = False) -> sa.Table:
    """A table whose rows belong to a project, by which it is `indexed` where that does not lead its key."""
    project = sa.Column("project", sa.String(100), nullable=False, index=indexed)
    return sa.Table(name, metadata, project, *parts)


# Text that is compared by its bytes in SQLite and PostgreSQL alike, so that both agree on which of two is the greater.
BYTEWISE_TEXT = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")
LABEL_TEXT = sa.String(1300).with_variant(sa.String(1300, collation="C"), "postgresql")

# Times are ISO 8601 text in UTC: they sort, and a person reads them, in SQLite and PostgreSQL alike.
leases = _make_table(
    "leases",
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("holder", sa.JSON, nullable=True),
    sa.Column("expires", sa.String(32), nullable=True),
    sa.PrimaryKeyConstraint("project"),
)

laps = _make_table(
    "laps",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started", sa.String(32), nullable=False),
    sa.Column("ended", sa.String(32), nullable=True),
    sa.Column("mlflow_run", sa.String(64), nullable=True),
    sa.Column("prefect_run", sa.String(64), nullable=True),
    sa.Column("outcome", sa.JSON, nullable=True),
    indexed=True,
)

openings = _make_table(
    "openings",
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("opened", sa.String(32), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("rows", sa.Integer, nullable=True),
    sa.Column("record_sha256", sa.String(64), nullable=True),
    sa.PrimaryKeyConstraint("project", "fingerprint"),
)

judged_rows = _make_table(
    "judged_rows",
    sa.Column("row", sa.BigInteger, nullable=False),
    sa.Column("times", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("project", "row"),
)

versions = _make_table(
    "versions",
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("model_uri", sa.Text, nullable=False),
    sa.Column("manifest_sha256", sa.String(64), nullable=False),
    sa.Column("record_sha256", sa.String(64), nullable=False),
    sa.Column("data_version", sa.String(64), nullable=False),
    sa.Column("taught_until", sa.String(64), nullable=True),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("registered", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("project", "version"),
    sa.Index("ix_versions_fingerprint", "project", "fingerprint", unique=True),
)

judgements = _make_table(
    "judgements",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("against", sa.Integer, nullable=True),
    sa.Column("gate", sa.String(64), nullable=False),
    sa.Column("accepted", sa.Boolean, nullable=False),
    sa.Column("verdict", sa.JSON, nullable=False),
    sa.Column("judged", sa.String(32), nullable=False),
    indexed=True,
)

promotions = _make_table(
    "promotions",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("from_version", sa.Integer, nullable=True),
    sa.Column("to_version", sa.Integer, nullable=False),
    sa.Column("cause", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("promoted", sa.String(32), nullable=False),
    # Whether MLflow's alias is set: separates a crash in between from an alias that somebody moved manually.
    sa.Column("told", sa.Boolean, nullable=False),
    indexed=True,
)

# A prediction is named by its id, version, role and content: a request sent again is stored once, another one is kept.
predictions = _make_table(
    "predictions",
    sa.Column("id", BYTEWISE_TEXT, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("role", sa.String(8), nullable=False),
    sa.Column("content", sa.BigInteger, nullable=False),
    sa.Column("time", sa.String(32), nullable=False),
    sa.Column("received", sa.String(32), nullable=False),
    sa.Column("inputs", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("output", sa.JSON, nullable=False),
    # How rare the row is in a fixed random order (ledger/predictions.py): those of a tier and above are an even sample.
    sa.Column("tier", sa.SmallInteger, nullable=False, server_default="0"),
    sa.PrimaryKeyConstraint("project", "id", "version", "role", "content"),
    sa.Index("ix_predictions_tier", "project", "version", "tier", "time"),
)

# Statements, only ever added: the label of an id is the one stated last (`at`), the greater text where two are level.
labels = _make_table(
    "labels",
    sa.Column("id", BYTEWISE_TEXT, nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("label", LABEL_TEXT, nullable=False),
    sa.Column("received", sa.String(32), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.PrimaryKeyConstraint("project", "id", "at", "label"),
)

# That something was erased, when, and how many rows; never what.
erasures = _make_table(
    "erasures",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("erased", sa.String(32), nullable=False),
    sa.Column("by", sa.String(16), nullable=False),
    sa.Column("predictions", sa.Integer, nullable=False),
    sa.Column("labels", sa.Integer, nullable=False),
    indexed=True,
)

# A stretch of production that was checked, once per version that predicted in it. `looks` counts checks of drift, of which
# each spends a part of the window's false alarms; labels that come later change `labelled`, `known` and the quality.
windows = _make_table(
    "windows",
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("start", sa.String(32), nullable=False),
    sa.Column("end", sa.String(32), nullable=False),
    sa.Column("origin", sa.String(8), nullable=False),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("labelled", sa.Integer, nullable=False),
    sa.Column("closed", sa.Boolean, nullable=False),
    sa.Column("looks", sa.Integer, nullable=False),
    # What was checked, as a hash: the same again is no new check.
    sa.Column("mark", sa.String(64), nullable=False),
    sa.Column("look", sa.JSON, nullable=False),
    sa.Column("looked", sa.String(32), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=True),
    sa.PrimaryKeyConstraint("project", "version", "start"),
)


def _make_unique_index(name: str, *columns: str, where: sa.TextClause) -> sa.Index:
    """An index over the rows for which the condition holds: both databases know such."""
    return sa.Index(name, *columns, unique=True, sqlite_where=where, postgresql_where=where)


IS_OPEN_RETRAINING = sa.text("action = 'retrain' AND state IN ('recorded', 'told', 'claimed')")
IS_NOT_WAIT = sa.text("action <> 'wait'")

# What was decided, and what became of it: recorded -> `told` -> claimed -> done | skipped. `at` is in the events' own
# time, `recorded` in that of the wall. Waiting is decided at each check, anything else once per window.
decisions = _make_table(
    "decisions",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("window", sa.String(32), nullable=False),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("recorded", sa.String(32), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("depth", sa.String(8), nullable=True),
    sa.Column("remedy", sa.String(8), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("gain", sa.Float, nullable=True),
    sa.Column("cost", sa.Float, nullable=True),
    sa.Column("known_until", sa.String(32), nullable=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("told", sa.String(32), nullable=True),
    sa.Column("lap", sa.String(32), nullable=True),
    sa.Column("token", sa.Integer, nullable=True),
    sa.Column("claims", sa.Integer, nullable=False),
    sa.Column("ended", sa.String(32), nullable=True),
    sa.Column("note", sa.Text, nullable=True),
    # The version that came of it, and what it saved in its probation, in the units of `gain`.
    sa.Column("made", sa.Integer, nullable=True),
    sa.Column("realised", sa.Float, nullable=True),
    sa.Index("ix_decisions_project", "project", "recorded"),
    _make_unique_index("ix_decisions_open", "project", where=IS_OPEN_RETRAINING),
    _make_unique_index("ix_decisions_once", "project", "version", "window", "action", where=IS_NOT_WAIT),
)

# What people are notified of when the state changes, recorded before it is sent; `told` is empty until the webhook has taken it.
notices = _make_table(
    "notices",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("state", sa.String(100), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("recorded", sa.String(32), nullable=False),
    sa.Column("told", sa.String(32), nullable=True),
    sa.Column("tries", sa.Integer, nullable=False),
    indexed=True,
)
