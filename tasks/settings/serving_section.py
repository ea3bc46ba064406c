"""The serve, ledger and ports sections of params.yaml: where services listen, how a new champion is rolled out, what
is kept of each prediction. Also sizes of memory such as 512MB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from windvane.tasks.settings.data_section import SettingsSection
from windvane.tasks.settings.monitoring_section import DurationText, keep_if_parsed, parse_duration

_SIZE_UNITS = {"MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """The bytes that `text` names. Raises ValueError for anything else, and for none at all."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?) ?(MB|GB)", text.strip())
    if found is None or float(found[1]) == 0:
        raise ValueError(f"{text!r} is no size. Write megabytes or gigabytes, such as 512MB or 2GB")
    return round(float(found[1]) * _SIZE_UNITS[found[2]])


def format_size(size: float) -> str:
    """Bytes for people: 380 MB, 1.4 GB."""
    return f"{size / 10**9:.1f} GB" if size >= 999_500_000 else f"{max(1, size / 10**6):.0f} MB"


Port = Annotated[int, Field(ge=1, le=65535)]


class PortSettings(SettingsSection):
    """A port that is set must be free; null: the usual one (5000, 4200), or the next free one."""

    mlflow: Port | None = None
    prefect: Port | None = None

    @field_validator("mlflow", "prefect", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("is no port. Write a number from 1 to 65535, or null")
        return value


class LedgerSettings(SettingsSection):
    """What is remembered of each prediction, and for how long."""

    keep: DurationText | None = "365d"
    sample: float = Field(1.0, ge=0, le=1)
    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> LedgerSettings:
        if both := sorted(set(self.drop) & set(self.hash)):
            raise ValueError(f"hash: {both[0]!r} is in ledger.drop too. Take it out of one of them")
        return self

    @property
    def keeps(self) -> timedelta | None:
        """How long predictions are kept; None: for ever."""
        return None if self.keep is None else parse_duration(self.keep)

    def agree_with(self, id: str | None, time: str | None) -> None:
        """Raise ValueError where problem.id or problem.time is to be hidden: labels and windows need them as they are."""
        for key, names in (("drop", self.drop), ("hash", self.hash)):
            if id in names:
                raise ValueError(
                    f"ledger.{key}: {id!r} is problem.id, by which labels find their predictions. Take it out of the list, or "
                    "set problem.id to null: then ids are made"
                )
            if time in names:
                raise ValueError(
                    f"ledger.{key}: {time!r} is problem.time, which is stored with every prediction. Take it out of the list"
                )


_PORT = re.compile(r"[^:]+:\d+")
# A name as in an address, or an IP address.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_ROLLOUT_FORMS = "Write direct, shadow:1d, canary:10% or canary:10%:6h"


@dataclass(frozen=True)
class RolloutRule:
    """How a version that a lap promoted takes over: at once, or `lasting` silently (shadow) or for a share (canary)."""

    way: Literal["direct", "shadow", "canary"] = "direct"
    share: float = 1.0
    lasting: timedelta = timedelta(days=1)


def parse_rollout(text: str) -> RolloutRule:
    """`direct`, `shadow:SPAN`, `canary:SHARE%` (a day) or `canary:SHARE%:SPAN`. Raises ValueError."""
    way, *rest = text.strip().split(":")
    try:
        if way == "direct" and not rest:
            return RolloutRule()
        if way == "shadow" and len(rest) == 1:
            return RolloutRule("shadow", 0.0, parse_duration(rest[0]))
        if way == "canary" and len(rest) in (1, 2) and rest[0].endswith("%") and 0 < float(rest[0][:-1]) < 100:
            return RolloutRule("canary", float(rest[0][:-1]) / 100, parse_duration(rest[1] if rest[1:] else "1d"))
    except ValueError:
        pass
    raise ValueError(f"is no way to roll out a version. {_ROLLOUT_FORMS}")


class ServeSettings(SettingsSection):
    """Where the scoring service listens, and how a new champion takes over."""

    host: str = "127.0.0.1"
    port: Port = 8000
    hosts: tuple[str, ...] = ()
    rollout: Annotated[str, AfterValidator(keep_if_parsed(parse_rollout))] = "direct"
    memory: Annotated[str, AfterValidator(keep_if_parsed(parse_size))] | None = "1GB"

    @field_validator("hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _NAME.fullmatch(name) or _PORT.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no name of a machine. Write the names that clients use, without http:// and port, such as "
                    "[scores.example.org]"
                )
        return value

    @property
    def most_memory(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else parse_size(self.memory)

    @property
    def rolls_out(self) -> RolloutRule:
        """`rollout`, read."""
        return parse_rollout(self.rollout)
