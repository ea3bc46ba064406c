"""Production rows whose labels came back, as a table to learn from. The scoring service writes predictions and labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa

# The column of each batch that says when a row's label came, as ledger text (ledger/store.py). It is no feature.
LABELLED = "_labelled"


def labelled_rows(engine: sa.Engine, project: str, since: str | None) -> Iterator[Any]:
    """Arrow record batches of rows labelled after `since` (ledger text; None: all), oldest label first.

    A batch has the columns of the table as they were scored, the target with its label, and LABELLED. Nothing records
    predictions yet, so there are none.
    """
    return iter(())
