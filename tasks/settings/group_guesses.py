"""Whether rows of a table belong together: one column names a subject, such as a person, of which there are a few rows each."""

from __future__ import annotations

import re
from collections.abc import Collection

import pandas as pd

from windvane.tasks.settings.column_guesses import ID_NAME, InspectedTable, is_time_name

# So many rows belong to each subject, and of so many subjects; what may be a category has more rows each, or is not of so many.
_ROWS_EACH, _SUBJECTS, _UNNAMED_SUBJECTS = (2, 20), 10, 50
# Of nearly all subjects there are as many rows, and of no other more.
_FULL_SHARE = 0.9
_SUBJECT_NAME = re.compile(
    r"(^|[_. ])(subjects?|subj|individuals?|indiv|persons?|people|patients?|participants?|respondents?|households?|famil(y|ies)|users?|"
    r"customers?|clients?|members?|students?|pupils?|child|animals?|case|chid|session|trip)([_. ]?(id|no|nr|num|number|key|code))?$",
    re.IGNORECASE,
)


def guess_group_column(inspected: InspectedTable, taken: Collection[str | None]) -> tuple[str, str] | None:
    """The column whose values are subjects, and why in words; None: no column clearly is one. Of several that with the fewest subjects,
    which holds the others together.

    A subject has a small and fixed number of rows, and is named as one; or its numbers count up through the file, and another column
    is the same in all rows of each. Categories of words are none, however many rows they have.
    """
    found = list[tuple[int, str, str]]()
    for name, column in inspected.columns.items():
        if name in taken or name == inspected.target or column.type in ("date", "boolean") or is_time_name(name):
            continue
        named = _SUBJECT_NAME.search(name) is not None or ID_NAME.search(name) is not None
        if not named and column.type != "number":
            continue
        values = inspected.frame[name]
        if (each := _count_rows_each(values)) is None:
            continue
        if named or (_counts_up(values) and _find_attribute(inspected, name) is not None):
            subjects = values.nunique()
            found.append((subjects, name, f"{subjects:,} values with {each} rows each"))
    return None if not found else min(found)[1:]


def _count_rows_each(values: pd.Series) -> int | None:
    """How many rows each value has, where these are as few and as many as a subject's, and the values are no measurements; else None."""
    if values.isna().any() or (values.dtype.kind == "f" and (values % 1 != 0).any()):
        return None
    counts = values.value_counts()
    each = int(counts.max()) if len(counts) else 0
    fits = _ROWS_EACH[0] <= each <= _ROWS_EACH[1] and len(counts) >= max(_SUBJECTS, each)
    return each if fits and (counts == each).mean() >= _FULL_SHARE else None


def _counts_up(values: pd.Series) -> bool:
    """Whether numbers begin at 0 or 1, and rise by one from each subject to the next in the order of the file."""
    starts = values[values != values.shift()]
    return bool(len(starts) >= _UNNAMED_SUBJECTS and starts.iloc[0] in (0, 1) and (starts.diff().iloc[1:] == 1).all())


def _find_attribute(inspected: InspectedTable, name: str) -> str | None:
    """A column that differs between subjects and is the same in all rows of each."""
    subjects = inspected.frame[name]
    for other, column in inspected.columns.items():
        if other in (name, inspected.target) or column.constant:
            continue
        values = inspected.frame[other]
        if values.nunique() < len(values) and (values.groupby(subjects).nunique(dropna=False) == 1).all():
            return other
    return None
