"""POST /labels: ground truth in a request's body -> the ledger. What a label may be is asked of a given function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson
import sqlalchemy as sa

from windvane.ledger.labels import Statement, hand_in
from windvane.serving.signature import Refused, shown

MOST_LABELS = 10_000
_KEYS = {"id", "label", "at"}

# (id, label, at) as they were sent -> a statement; raises ValueError saying which is wrong, and how.
Check = Callable[[Any, Any, Any], Statement]


class Labelling:
    """Hands in the labels of one project."""

    def __init__(self, engine: sa.Engine, project: str, check: Check) -> None:
        self._engine, self._project, self._check = engine, project, check

    async def hand_in(self, body: bytes) -> dict[str, int]:
        """What came of `[{"id": …, "label": …, "at": …}]`; all of them are recorded or none. Raises Refused."""
        return await asyncio.to_thread(self._hand_in, body)

    def _hand_in(self, body: bytes) -> dict[str, int]:
        statements = self._read(body)
        try:
            return asdict(hand_in(self._engine, self._project, statements, "service"))
        except sa.exc.SQLAlchemyError as e:
            raise Refused("the ledger did not take the labels. Try again later", 503) from e

    def _read(self, body: bytes) -> list[Statement]:
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as e:
            raise Refused(f"the body is not JSON: {shown(e)}") from None
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise Refused('the body must be a list of objects: [{"id": …, "label": …}]')
        if len(given) > MOST_LABELS:
            raise Refused(
                f"at most {MOST_LABELS:,} labels at a time: send them in pieces, or use `windvane labels`", 413
            )
        return [self._one(one, i) for i, one in enumerate(given)]

    def _one(self, one: dict[str, Any], at: int) -> Statement:
        for name in one.keys() - _KEYS:
            raise Refused(
                f"label {at + 1}: {shown(name)!r} is unknown; a label has id, label, and at where it is known"
            )
        for name in ("id", "label"):
            if one.get(name) is None:
                raise Refused(f"label {at + 1}: has no {name}")
        try:
            return self._check(one["id"], one["label"], one.get("at"))
        except ValueError as e:
            raise Refused(f"label {at + 1}: {shown(e, 200)}") from None
