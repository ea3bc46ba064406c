"""The serve section of params.yaml: where the scoring service listens and what it is called, and how a new champion comes to
answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from windvane.tasks import durations, sizes

_PORT = re.compile(r"[^:]+:\d+")
# A name as it stands in an address, or an IP address.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_HOW = "Write direct, shadow:1d, canary:10% or canary:10%:6h"


@dataclass(frozen=True)
class Rollout:
    """How a version that a lap promoted comes to answer: at once, or `lasting` silently (shadow) or for a share (canary)."""

    way: Literal["direct", "shadow", "canary"] = "direct"
    share: float = 1.0
    lasting: timedelta = timedelta(days=1)


def rollout(text: str) -> Rollout:
    """`direct`, `shadow:SPAN`, `canary:SHARE%` (a day) or `canary:SHARE%:SPAN`. Raises ValueError."""
    way, *rest = text.strip().split(":")
    try:
        if way == "direct" and not rest:
            return Rollout()
        if way == "shadow" and len(rest) == 1:
            return Rollout("shadow", 0.0, durations.parse(rest[0]))
        if way == "canary" and len(rest) in (1, 2) and rest[0].endswith("%") and 0 < float(rest[0][:-1]) < 100:
            share = float(rest[0][:-1]) / 100
            return Rollout("canary", share, durations.parse(rest[1])) if rest[1:] else Rollout("canary", share)
    except ValueError:
        pass
    raise ValueError(f"is no way to roll out a version. {_HOW}")


class Serve(BaseModel):
    """Where the scoring service listens, and how a new champion comes to answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    hosts: tuple[str, ...] = ()
    rollout: str = "direct"
    memory: str | None = "1GB"

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

    @field_validator("memory")
    @classmethod
    def _sized(cls, value: str | None) -> str | None:
        if value is not None:
            sizes.parse(value)
        return value

    @property
    def most_memory(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else sizes.parse(self.memory)

    @field_validator("rollout")
    @classmethod
    def _known(cls, value: str) -> str:
        rollout(value)
        return value

    @property
    def rolls_out(self) -> Rollout:
        """`rollout`, read."""
        return rollout(self.rollout)
