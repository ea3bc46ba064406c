"""Sheets of workbooks (.xlsx, .xls, .ods) as text tables, which all that is known of text tables then holds for."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from windvane.tasks.errors import InputError
from windvane.tasks.ingest.cell_reading import format_delimited_rows


def choose_sheet(path: Path, called: Path, named: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The sheet that is read: the one that is `named` (data.format.sheet), else the first of those that are shown and hold cells; and
    all of these. `called`: the file's name for people. Raises InputError.
    """
    from python_calamine import SheetVisibleEnum

    book = _open_workbook(path, called)
    shown = [sheet.name for sheet in book.sheets_metadata if sheet.visible == SheetVisibleEnum.Visible]
    filled = tuple(name for name in shown if book.get_sheet_by_name(name).total_height)
    if named is not None and named not in book.sheet_names:
        raise InputError(
            f"{called}: has no sheet {named!r}, only {', '.join(map(repr, book.sheet_names))}. Name one in data.format: {{sheet: …}}"
        )
    if named is None and not filled:
        raise InputError(f"{called}: is empty. Export the table again, with a header and rows")
    return (named or filled[0]), filled


def require_sheet(path: Path, called: Path, named: str | None) -> str:
    """The sheet that is `named`, or the only one. Raises InputError where there are several: which one is meant is not known."""
    chosen, filled = choose_sheet(path, called, named)
    if named is None and len(filled) > 1:
        raise InputError(
            f"{called}: has the sheets {', '.join(map(repr, filled))}. Name one of them: data.format: {{sheet: {filled[0]}}}"
        )
    return chosen


def render_sheet(path: Path, called: Path, sheet: str) -> str:
    """A sheet as CSV, its rows in their places: numbers with all their digits, dates in ISO 8601, errors and empty cells as nothing."""
    rows = _open_workbook(path, called).get_sheet_by_name(sheet).to_python(skip_empty_area=False)
    return "".join(f"{line}\n" for line in format_delimited_rows([[_write_cell(c) for c in row] for row in rows], ","))


def _open_workbook(path: Path, called: Path) -> Any:
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    try:
        return CalamineWorkbook.from_path(path)
    except PasswordError:
        raise InputError(f"{called}: is locked with a password. Save it without one") from None
    except (CalamineError, OSError) as e:
        if isinstance(e, FileNotFoundError | PermissionError):
            raise
        raise InputError(f"{called}: is damaged, or no workbook ({e}). Export or copy it again") from None


def _write_cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):  # Excel knows no whole numbers
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    if isinstance(value, dt.timedelta):
        return repr(value.total_seconds())
    return str(value)
