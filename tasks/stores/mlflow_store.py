"""MLflow's store: addresses of artifacts, the project's own SQLite file, whole or absent, and errors of every store in words."""

from __future__ import annotations

import os
import posixpath
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from windvane.ledger import sqlite_files
from windvane.ledger.failpoints import hit_failpoint
from windvane.ledger.sqlite_files import DatabaseContents
from windvane.tasks import errors
from windvane.tasks.errors import Corrupted, InputError, Outage, WindvaneError
from windvane.tasks.io import cache_folder

# At least two letters before the colon, so that C:/models is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?=/)")
# The end of an address without its query and fragment, which some stores use for settings.
_QUERY_START = re.compile(r"[?#]")


def get_scheme(address: str) -> str:
    """The scheme in small letters; empty for a path."""
    found = _SCHEME.match(address)
    return found[1].lower() if found else ""


def find_local_path(address: str) -> Path | None:
    """The path that an address means on this machine; None: it is elsewhere, and must be downloaded."""
    kind = get_scheme(address)
    if kind == "":
        return Path(address)
    return Path(unquote(urlsplit(address).path)) if kind == "file" else None


def join_address(address: str, name: str) -> str:
    """The address of `name` (a relative path with slashes) below an address."""
    base, tail = _split_query(address)
    return f"{base.rstrip('/')}/{quote(name) if get_scheme(address) == 'file' else name}{tail}"


def get_parent_address(address: str) -> str:
    """The address one step up."""
    base, tail = _split_query(address)
    return posixpath.dirname(base.rstrip("/")) + tail


def redact_address(address: str) -> str:
    """An address for people and logs: without a password that is in it."""
    if "://" not in address:
        return address
    parts = urlsplit(address)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=place, query="")) if place else address


def _split_query(address: str) -> tuple[str, str]:
    """An address and its query; a path may hold any sign, and has none."""
    if get_scheme(address) in ("", "file"):
        return address, ""
    found = _QUERY_START.search(address)
    return (address, "") if found is None else (address[: found.start()], address[found.start() :])


NOT_FOUND_CODE, ALREADY_EXISTS_CODE = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"

# What clients raise, by module: only those that are loaded can have raised it. None of them is imported for this.
_RAISED = {
    "mlflow.exceptions": ("MlflowException",),
    "requests.exceptions": ("RequestException",),
    "sqlalchemy.exc": ("SQLAlchemyError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
# Words of the S3 protocol. MLflow hands on some errors as text only.
_NO_KEYS = re.compile(r"NoCredentials|PartialCredentials|Unable to locate credentials")
_BAD_KEYS = re.compile(
    r"AccessDenied|InvalidAccessKeyId|InvalidClientTokenId|SignatureDoesNotMatch|ExpiredToken|InvalidToken"
    r"|AllAccessDisabled|\(403\)|\b403 Forbidden"
)
_STORAGE_ERROR = re.compile(
    r"botocore|boto3|ClientError\(|NoCredentialsError|S3UploadFailedError|EndpointConnectionError"
)
_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerification|SSL validation failed")
_CAUSE = re.compile(
    r"\[Errno -?\d+\] ([^'\")\]]+)|(timed out)|(Connection refused)|(Could not connect to the endpoint)"
)
_STATUS = re.compile(r"failed with error code (\d{3})")
_SHOWN_LETTERS = 200
# Codes of requests that would be refused again.
_REFUSED_CODES = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_CONFLICT")


class MlflowRefused(WindvaneError):
    """MLflow responded with one of its error codes (`code`)."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def translate_store_errors(where: str, own: bool = False) -> Iterator[None]:
    """Raise what MLflow's clients raise as errors of ours. `where`: the tracking URI; own: it is the project's own store."""
    try:
        yield
    except (WindvaneError, FileNotFoundError):
        raise
    except Exception as e:
        if not isinstance(e, (OSError, ImportError, *_find_loaded_error_types())):
            raise
        raise _translate_error(e, where, own) from e


def _find_loaded_error_types() -> tuple[type[Exception], ...]:
    found = (getattr(sys.modules.get(module), name, None) for module, names in _RAISED.items() for name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def _translate_error(error: Exception, where: str, own: bool) -> WindvaneError:
    chain = _chain(error)
    text = " ".join(f"{type(e).__module__}.{type(e).__name__} {e}" for e in chain)
    code, status = str(getattr(error, "error_code", "")), _status(chain)
    brief = _brief(error, text)
    at = f"MLflow's store {redact_address(where)}" if own else f"MLflow at {redact_address(where)}"
    if _STORAGE_ERROR.search(text) and status is None:
        return _explain_storage_error(text, brief, at)
    if (barred := _explain_refused_access(text, code, status, brief)) is not None:
        return InputError(f"{at} {barred}")
    if code in (NOT_FOUND_CODE, ALREADY_EXISTS_CODE, *_REFUSED_CODES) or status == 404:
        return MlflowRefused(f"{at} refused this: {brief}", code or NOT_FOUND_CODE)
    if any(isinstance(e, ImportError) for e in chain):
        return InputError(f"{at}: its artifact store needs a library: {brief}. Install it: pip install 'windvane[s3]'")
    remedy = "Check its file and the disk" if own else "Start it, or fix MLFLOW_TRACKING_URI"
    return Outage(f"{at} does not respond: {brief}. {remedy}")


def _explain_refused_access(text: str, code: str, status: int | None, brief: str) -> str | None:
    """Why MLflow's server lets no client in, or not this one; None: that is not it."""
    if _CERTIFICATE.search(text):
        return "shows a certificate that is not trusted. Set MLFLOW_TRACKING_SERVER_CERT_PATH to its authority's file"
    if status == 401 or code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"):
        return _check_credentials()
    if status == 403 or code == "PERMISSION_DENIED":
        return (
            f"does not allow this ({brief}). Have its administrator grant EDIT on the experiment and the registered model, or "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user who has it"
        )
    return None


def _explain_storage_error(text: str, brief: str, at: str) -> WindvaneError:
    """An error of S3 itself, to which this machine wrote directly."""
    store = f"the artifact store of {at}"
    if _NO_KEYS.search(text):
        return InputError(f"{store}: no credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if _CERTIFICATE.search(text):
        return InputError(f"{store}: its certificate is not trusted. Set AWS_CA_BUNDLE to the file of its authority")
    if found := _BAD_KEYS.search(text):
        return InputError(
            f"{store}: refuses these credentials ({found[0]}). Fix AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or have "
            "them allowed to list, read and write there"
        )
    if "NoSuchBucket" in text:
        return InputError(f"{store}: its bucket is not there ({brief}). Make it, or fix the server's artifact root")
    return Outage(f"{store} does not respond: {brief}. Start it, or fix MLFLOW_S3_ENDPOINT_URL")


def _check_credentials() -> str:
    """What is wrong with the credentials that are set, if any are."""
    if os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get("MLFLOW_TRACKING_PASSWORD"):
        return "does not accept these credentials. Fix MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return "does not accept this token. Fix MLFLOW_TRACKING_TOKEN"
    return "requires credentials. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def _chain(error: BaseException) -> list[BaseException]:
    found = [error]
    while (one := found[-1].__cause__ or found[-1].__context__) is not None and one not in found:
        found.append(one)
    return found


def _status(chain: list[BaseException]) -> int | None:
    """The HTTP status that MLflow's server responded with."""
    for one in chain:
        if (number := getattr(getattr(one, "response", None), "status_code", None)) is not None:
            return int(number)
        if found := _STATUS.search(str(one)):
            return int(found[1])
    return None


def _brief(error: BaseException, text: str) -> str:
    """The reason in a few words."""
    if found := _CAUSE.search(text):
        return next(part for part in found.groups() if part).strip()
    line = " ".join(str(error).split()) or type(error).__name__
    return line[:_SHOWN_LETTERS].rstrip(". ")


MLFLOW_DATABASE = "mlflow.db"
# Tables that hold what people would miss.
_HISTORY_TABLES = ("runs", "registered_models", "model_versions", "logged_models")


def prepare_mlflow_store(path: Path, note: Callable[[str], None]) -> None:
    """Bring the store into being, or to what the installed MLflow reads. Call under the store's lock, before MLflow opens it.

    note: is called for a copy that was taken, or of what was healed. Raises Corrupted for a damaged store, WindvaneError for one
    that a newer MLflow wrote; sqlite3.Error and OSError where the disk does not let it.
    """
    try:
        known = sqlite_files.inspect_database(path)
        if known is not None and not known.half_made and known.revision == _read_template_revision():
            return
        if known is None or not any(_count_history_rows(path, known).values()):
            if known is None or known.half_made or known.revision != _find_newest_revision():
                sqlite_files.create_database(path, _fill)
            return
    except sqlite3.DatabaseError as e:
        if errors.is_database_damaged(e):
            raise Corrupted(errors.describe_damaged_database(path)) from e
        raise
    if not known.half_made and known.revision == _find_newest_revision():
        return
    if not known.half_made and not _knows_revision(str(known.revision)):
        copies = sqlite_files.list_backups(path)
        raise WindvaneError(
            f"{path}: was written by a newer MLflow than the {version('mlflow')} that is installed. Install that one again, or "
            f"restore a copy from before{f', such as {copies[0].name}' if copies else ''}"
        )
    _upgrade(path, known, note)


def check_mlflow_store(path: Path) -> None:
    """For `check`: read every page of the store, without MLflow. Raises Corrupted. Half-made is sound: it heals."""
    if path.exists() and path.stat().st_size and not sqlite_files.is_database_sound(path):
        raise Corrupted(errors.describe_damaged_database(path))


def read_champion_alias(path: Path, name: str) -> str | None:
    """The version that carries the alias champion, read without MLflow; None where there is none, or no store."""
    query = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'champion'"
    return _read_value(path, "registered_model_aliases", query, name)


# The key by which MLflow's page of an experiment finds the columns of its list of runs (MlflowTracker.choose_run_columns).
RUN_VIEW = "laps"
RUN_VIEW_TAG = f"mlflow.sharedViewState.{RUN_VIEW}"


def read_experiment_with_view(path: Path, name: str) -> str | None:
    """The id of the experiment, once it has its view of the runs, read without MLflow; None where there is none, or no store."""
    query = (
        "SELECT experiment_id FROM experiments WHERE name = ? "
        f"AND experiment_id IN (SELECT experiment_id FROM experiment_tags WHERE key = '{RUN_VIEW_TAG}')"
    )
    return _read_value(path, "experiment_tags", query, name)


def _read_value(path: Path, table: str, query: str, name: str) -> str | None:
    """The one value that the query finds; None: none, no such table, or no store."""
    try:
        known = sqlite_files.inspect_database(path)
        if known is None or table not in known.tables:
            return None
        with sqlite_files.open_database(path) as db:
            row = db.execute(query, (name,)).fetchone()
    except sqlite3.Error:  # damaged: opening it reports so
        return None
    return None if row is None else str(row[0])


def _fill(part: Path) -> None:
    """An empty store: from the template of this MLflow, or by its migrations, which then become the template."""
    if sqlite_files.copy_template(_template(), part) and _complete(part):
        return
    part.write_bytes(b"")
    _migrate(part)
    sqlite_files.save_template(part, _template())


def _upgrade(path: Path, known: DatabaseContents, note: Callable[[str], None]) -> None:
    """Bring a store with history to this MLflow: on a copy, which takes its place only when nothing is missing in it."""
    copy = sqlite_files.back_up_database(path, f"mlflow-{version('mlflow')}")
    counted = _count_history_rows(path, known)

    def work(part: Path) -> None:
        sqlite_files.vacuum_into(copy, part)
        _undo_cut_migration(part)
        hit_failpoint("store: copied")
        _migrate(part)
        if not _complete(part) or _count_history_rows(part, known) != counted:
            raise _Incomplete

    try:
        sqlite_files.create_database(path, work)
    except Exception as e:  # whatever a migration raises; the store itself was not touched
        if errors.is_disk_full(e) or errors.is_access_denied(e):
            copy.unlink(missing_ok=True)
            raise
        earlier = [one.name for one in sqlite_files.list_backups(path) if one != copy]
        raise WindvaneError(
            f"{path}: an upgrade of it was cut short once, and MLflow cannot finish it; nothing was changed now. Restore "
            + (f"the copy {earlier[-1]} beside it" if earlier else "it from a backup")
            + f", then run the command again ({copy.name} is as it is now)"
        ) from e
    note(f"MLflow's store was brought to MLflow {version('mlflow')}; as it was before: {copy}")


class _Incomplete(RuntimeError):
    """A migrated store that lacks tables or rows."""


def _undo_cut_migration(part: Path) -> None:
    """Take away what a migration that was cut short left: its copy of a table, or give that the name of the one already gone."""
    known = sqlite_files.inspect_database(part)
    tables = known.tables if known else frozenset()
    with sqlite_files.open_database(part) as db:
        for name in sorted(name for name in tables if name.startswith("_alembic_tmp_")):
            table = name.removeprefix("_alembic_tmp_")
            db.execute(f'DROP TABLE "{name}"' if table in tables else f'ALTER TABLE "{name}" RENAME TO "{table}"')
        db.commit()


def _count_history_rows(path: Path, known: DatabaseContents) -> dict[str, int]:
    """Rows of the tables that hold history, a table's unfinished copy counted for it where it alone is left."""
    counts = {}
    tables = sqlite_files.inspect_database(path)
    assert tables is not None
    with sqlite_files.open_database(path) as db:
        for name in _HISTORY_TABLES:
            here = next((t for t in (name, f"_alembic_tmp_{name}") if t in tables.tables), None)
            if name in known.tables or f"_alembic_tmp_{name}" in known.tables:
                counts[name] = 0 if here is None else int(db.execute(f'SELECT count(*) FROM "{here}"').fetchone()[0])
    return counts


def _migrate(part: Path) -> None:
    from mlflow.store.db import utils

    engine = _create_engine(part)
    if utils._is_empty_database(engine):
        utils._initialize_tables(engine)
    else:
        utils._upgrade_db(engine)


def _complete(part: Path) -> bool:
    """Whether MLflow would find all that it needs."""
    from mlflow.store.db import utils

    engine = _create_engine(part)
    return bool(utils._all_tables_exist(engine) and utils._get_schema_version(engine) == _find_newest_revision())


def _create_engine(part: Path) -> sa.Engine:
    """An engine that leaves nothing open."""
    return sa.create_engine(f"sqlite:///{part}", poolclass=NullPool)


def _find_newest_revision() -> str:
    from mlflow.store.db import utils

    return str(utils._get_latest_schema_revision())


def _knows_revision(revision: str) -> bool:
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError
    from mlflow.store.db import utils

    try:
        return ScriptDirectory.from_config(utils._get_alembic_config("")).get_revision(revision) is not None
    except CommandError:
        return False


def _template() -> Path:
    """An empty, migrated store of the installed MLflow: spares each further new project its migrations."""
    return cache_folder() / f"mlflow-{version('mlflow')}.db"


def _read_template_revision() -> str | None:
    try:
        known = sqlite_files.inspect_database(_template())
    except (OSError, sqlite3.Error):
        return None
    return None if known is None else known.revision
