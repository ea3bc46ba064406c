"""The data section of params.yaml: where rows come from, and what is secret about it.

`${NAME}` is replaced only while a source is read, so that no record or message shows a secret.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from windvane.tasks.errors import InputError
from windvane.tasks.ingest.cell_reading import (
    ABSENT_IF_KEPT,
    ABSENT_WORDS,
    NumberForm,
    call_column,
    is_plain_number,
)

# ${NAME} comes from the environment; $${NAME} is ${NAME} itself.
_ENV = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_EITHER = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
SourceKind = Literal["local", "glob", "s3", "http", "sqlite", "postgresql", "duckdb"]
DATABASE_KINDS = ("sqlite", "postgresql", "duckdb")
_SCHEMES: dict[str, SourceKind] = {
    "s3": "s3",
    "http": "http",
    "https": "http",
    "sqlite": "sqlite",
    "duckdb": "duckdb",
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "postgresql+psycopg": "postgresql",
}
# Names of headers and of parts of an address whose values open doors.
_SECRET = re.compile(
    r"(^|[-_])(auth|authorization|(api)?key|token|secret|cookie|(ssl)?password|passwd|pwd|sig|signature|credentials?)($|[-_])",
    re.IGNORECASE,
)


class SettingsSection(BaseModel):
    """A frozen part of params.yaml; an unknown key is an error, not a silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PagingSettings(SettingsSection):
    """How an API hands out its rows: numbered pages, a cursor to the next, or a Link header."""

    by: Literal["page", "cursor", "link"]
    parameter: str | None = None
    first: int = 1
    next: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> PagingSettings:
        if self.by == "cursor" and self.next is None:
            raise ValueError("next: is missing. Name where a response has its cursor, such as meta.next")
        if self.by != "link" and self.parameter is None:
            raise ValueError(f"parameter: is missing. Name the parameter of the address that takes the {self.by}")
        return self


class HttpSettings(SettingsSection):
    """What only an HTTP source needs."""

    hosts: tuple[str, ...] = ()
    private: bool = False
    headers: dict[str, str] = Field(default_factory=dict)
    records: str | None = None
    paging: PagingSettings | None = None
    megabytes: int = Field(1000, ge=1)

    @field_validator("headers")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if _SECRET.search(name) and not _ENV.search(text):
                raise ValueError(
                    f"{name}: holds a secret in plain words. Write {name}: ${{NAME}}, and export NAME in the environment"
                )
        return value


# A column is called as it is read.
ColumnName = Annotated[str, AfterValidator(call_column)]


# Which comes first in dates such as 01/02/2024.
DateOrder = Literal["day_first", "month_first"]


class FormatSettings(SettingsSection):
    """How cells are read where that cannot be known from the table."""

    keep_words: tuple[ColumnName, ...] = ()
    missing_words: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...] = ()
    dates: DateOrder | None = None
    decimal: Literal[".", ","] | None = None
    thousands: Literal[",", ".", "'", " "] | None = None
    signs: tuple[Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)], ...] = ()
    header: bool | tuple[ColumnName, ...] = True
    comment: Annotated[str, StringConstraints(min_length=1)] | None = None
    skip_rows: int = Field(0, ge=0, le=400)
    sheet: str | None = None
    total_rows: Literal["drop", "keep"] | None = None

    @field_validator("missing_words", mode="before")
    @classmethod
    def _quoted(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not all(isinstance(word, str) and word.strip() for word in value):
            raise ValueError(
                "must be a list of words; YAML takes signs such as ? for something else. Quote them: ['?', unknown]"
            )
        return value

    @field_validator("missing_words", mode="after")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if number := next(filter(is_plain_number, value), None):
            raise ValueError(
                f"{number!r} is a number, and means one wherever it comes as such. Leave its cells empty in the source"
            )
        return value

    @model_validator(mode="after")
    def _distinct(self) -> FormatSettings:
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError(
                f"decimal and thousands are both {self.decimal!r}. Set one of them to another sign, or to null"
            )
        return self

    def list_absent_words(self, column: str) -> frozenset[str]:
        """The words, without blanks around them, that mean no value in a column."""
        return (ABSENT_IF_KEPT if column in self.keep_words else ABSENT_WORDS) | frozenset(self.missing_words)

    @property
    def numbers(self) -> NumberForm | None:
        """How numbers are written; None: as programs write them."""
        if not (self.decimal or self.thousands or self.signs):
            return None
        return NumberForm(self.decimal or ("," if self.thousands == "." else "."), self.thousands, self.signs)


# As programs write tables.
PLAIN_FORMAT = FormatSettings()


def parse_format_options(options: Sequence[str]) -> dict[str, Any]:
    """Keys of data.format as they are typed, KEY=VALUE. Raises InputError where there is no such key."""
    found = dict[str, Any]()
    for option in options:
        key, given, text = option.partition("=")
        if not given or key not in FormatSettings.model_fields:
            raise InputError(
                f"--format {option}: is no KEY=VALUE. Name one of {', '.join(FormatSettings.model_fields)}"
            )
        if isinstance(FormatSettings.model_fields[key].default, tuple) and not text.startswith("["):
            found[key] = [part.strip() for part in text.split(",") if part.strip()]
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:  # a comma and a percent sign mean something there
            value = text
        if value is None and text not in ("", "null", "~"):
            value = text  # what begins with #
        found[key] = value
    return found


class DataSettings(SettingsSection):
    """Where the rows come from."""

    source: str
    query: str | None = None
    parameters: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    key: str | None = None
    format: FormatSettings = PLAIN_FORMAT
    refresh: Literal["incremental", "full"] = "incremental"
    timeout: float = Field(60, gt=0)
    http: HttpSettings | None = None
    feedback: bool = True
    max_rows: int | None = Field(1_000_000, ge=1000)
    remote: str | None = None

    @field_validator("source")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty. Name a file, a folder, a glob, s3://…, http(s)://… or a database URL")
        if secret := _open_secret(value):
            raise ValueError(f"holds {secret} in plain words. Write ${{NAME}} in its place, and export NAME")
        return value

    @field_validator("remote")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and not value.startswith("s3://"):
            raise ValueError("is neither a folder nor s3://bucket/prefix. Name one of them")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> DataSettings:
        if "://" in self.source or not _ENV.search(self.source):
            check_source_keys(self, infer_source_kind(self.source))
        return self

    @property
    def where(self) -> str:
        """The source as people may see it: without user, password and parameters."""
        if "://" not in self.source or self.source.startswith("s3://"):
            return self.source  # in storage a question mark is part of a glob
        parts = urlsplit(self.source)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def identity(self) -> str:
        """A hash of what is requested: while it stays the same, rows that were read before still count."""
        asked: list[Any] = [self.source, self.query, sorted(self.parameters.items()), self.key]
        asked += [self.http.records, self.http.paging] if self.http else []
        return hashlib.sha256(repr(asked).encode()).hexdigest()

    @property
    def local(self) -> bool:
        """Whether ingest reads the source itself: one file or folder of this machine."""
        return infer_source_kind(expand_variables(self.source, "data.source")) == "local"


@dataclass(frozen=True)
class RevealedData:
    """The data section with its secrets in place, for the moment of reading. Never printed, logged or stored."""

    data: DataSettings
    kind: SourceKind
    where: str
    secrets: tuple[tuple[str, str], ...]

    def hide(self, text: str) -> str:
        """A driver's or server's words with every secret in them replaced by its name."""
        for name, value in self.secrets:
            text = text.replace(value, f"${{{name}}}")
        return text

    def __repr__(self) -> str:
        return f"Revealed({self.where})"


def reveal_secrets(data: DataSettings) -> RevealedData:
    """The section with every `${NAME}` replaced. Raises InputError when the environment lacks one."""
    source = expand_variables(data.source, "data.source")
    written = data.http.headers if data.http else {}
    headers = {k: expand_variables(v, f"data.http.headers.{k}") for k, v in written.items()}
    changes: dict[str, Any] = {
        "source": source,
        "parameters": {k: expand_variables(v, f"data.parameters.{k}") for k, v in data.parameters.items()},
        "http": data.http.model_copy(update={"headers": headers}) if data.http else None,
    }
    kind = infer_source_kind(source)
    full = data.model_copy(update=changes)
    try:
        check_source_keys(full, kind)
    except ValueError as e:
        raise InputError(f"params.yaml: data.{e}") from None
    texts = [data.source, *written.values(), *(v for v in data.parameters.values() if isinstance(v, str))]
    names = {match.group(1) for text in texts for match in _ENV.finditer(text)}
    # The longest first: one secret may be part of another.
    values = sorted(((name, os.environ[name]) for name in names if os.environ[name]), key=lambda item: -len(item[1]))
    return RevealedData(full, kind, data.where, tuple(values))


def expand_variables(value: Any, at: str, path: Path | str = "params.yaml") -> Any:
    """A text with each `${NAME}` replaced from the environment; anything else as it is."""
    if not isinstance(value, str):
        return value

    def substitute(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        if escaped:
            return match.group(0)[1:]
        if name not in os.environ:
            raise InputError(f"{path}: {at}: the environment has no {name}. Set it: export {name}=…")
        return os.environ[name]

    return _EITHER.sub(substitute, value)


def escape_variables(value: str) -> str:
    """A name as params.yaml must hold it, so that what looks like ${NAME} in it is not taken from the environment."""
    return _EITHER.sub(lambda match: f"${match.group(0)}", value)


def infer_source_kind(source: str) -> SourceKind:
    """Which type of source an address names. Raises ValueError for a scheme that nothing here reads."""
    scheme, found, _ = source.partition("://")
    if not found:
        # Square brackets alone occur in the names of real files.
        return "glob" if "*" in source or "?" in source else "local"
    if scheme.lower() not in _SCHEMES:
        raise ValueError(
            f"source: nothing here reads {scheme}://. Known: a path, s3://, http(s)://, sqlite:///, postgresql://, duckdb:///"
        )
    return _SCHEMES[scheme.lower()]


def check_source_keys(data: DataSettings, kind: SourceKind) -> None:
    """Raise ValueError where a key does not go with the type of source: `key: what. What to do`."""
    database = kind in DATABASE_KINDS
    if database and not data.query:
        raise ValueError(f"query: is missing. Name the rows of the database: query: SELECT … (source is {kind})")
    for name, value in {"query": data.query, "parameters": data.parameters, "key": data.key}.items():
        if value and not database:
            raise ValueError(f"{name}: counts only for a database. Set it to null, or name a database in data.source")
    if kind != "http" and data.http is not None:
        raise ValueError("http: counts only for http(s)://. Take it out, or name an address in data.source")
    if kind == "http":
        host = urlsplit(data.source).hostname or ""
        if host.lower() not in [name.lower() for name in (data.http.hosts if data.http else ())]:
            raise ValueError(
                f"http.hosts: {host!r} is not among the hosts that are allowed. Add it: http: {{hosts: [{host}]}}"
            )


def _open_secret(address: str) -> str | None:
    """What in an address is a secret in plain words; None when nothing is."""
    if "://" not in address:
        return None
    parts = urlsplit(address)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    if password and not _ENV.search(password):
        return "a password"
    if user and parts.scheme.startswith("http") and not _ENV.search(user):
        return "a user or token"
    for name, value in parse_qsl(parts.query):
        if _SECRET.search(name) and value and not _ENV.search(value):
            return f"the secret {name!r}"
    return None


def list_choices(allowed: tuple[str, ...] | list[str], given: str) -> str:
    """Allowed values for a message, with the one that is nearest to what was given."""
    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return ", ".join(allowed) + (f". Did you mean {near[0]}?" if near else "")
