"""Erasing what the ledger holds of one subject, by ids or by the value of a column."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from windvane.flows.console import Console
from windvane.flows.project import Project
from windvane.tasks.errors import InputError, Outage


def erase(project: Project, ids: tuple[str, ...], where: str | None, console: Console) -> dict[str, Any]:
    """Erase predictions and labels of these ids, or of every id whose input was so (`COLUMN=VALUE`); how many went."""
    if bool(ids) == bool(where):
        raise InputError("erase: say whose rows: either --id ID (several times), or --where COLUMN=VALUE")
    from sqlalchemy.exc import DBAPIError

    from windvane.ledger import retention
    from windvane.tasks import statements

    try:
        if where is None:
            removed = retention.erase(project.ledger, project.name, [statements.as_id(id) for id in ids])
        else:
            column, equals, value = where.partition("=")
            if not equals or not column:
                raise InputError(f"erase: --where {where!r} names no column and value. Write --where customer=7")
            removed = retention.erase_subject(project.ledger, project.name, column, value, project.privacy)
    except ValueError as e:
        raise InputError(f"erase: {e}") from None
    except DBAPIError as e:
        raise Outage(f"the ledger erased nothing ({e.orig}). Look at its disk or server, then run again") from e
    console.say(
        f"  erased {removed.predictions:,} predictions and {removed.labels:,} labels; the ledger says when, not whose"
    )
    return asdict(removed)
