"""schema.yaml as frozen values: the columns, types and limits that a table must keep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, StrictBool, StrictStr, ValidationError, field_validator, model_validator

from windvane.tasks.errors import InputError
from windvane.tasks.settings import project_params
from windvane.tasks.settings.data_section import SettingsSection
from windvane.tasks.validate.table_profile import ColumnType

SCHEMA_FILE = "schema.yaml"

ColumnBound = float | StrictStr | None


class RowLimits(SettingsSection):
    """How many rows there must be."""

    at_least: int = Field(50, ge=0)
    share_of_last: float = Field(0.5, ge=0)


class ColumnLimits(SettingsSection):
    """What holds for every column that sets nothing else."""

    outside: float = Field(0.01, ge=0, le=1)
    new_values: float = Field(0.2, ge=0, le=1)


class SchemaColumn(SettingsSection):
    """One column. `outside`: the share of rows that may lie outside the range; `new_values`: that may hold a value not
    among the categories. Fewer are warned of, more stop the lap.
    """

    type: ColumnType
    required: StrictBool = True
    unique: StrictBool = False
    missing: float = Field(1.0, ge=0, le=1)
    range: tuple[ColumnBound, ColumnBound] | None = None
    outside: float | None = Field(None, ge=0, le=1)
    categories: tuple[StrictStr, ...] | None = None
    new_values: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> SchemaColumn:
        if self.range is not None and self.type not in ("number", "date"):
            raise ValueError(f"range: a column of type {self.type} has none. Take it out, or set type: number or date")
        if self.range is not None:
            low, high = self.range
            if self.type == "number" and (isinstance(low, str) or isinstance(high, str)):
                raise ValueError("range: the ends of a number's range are numbers or null")
            if self.type == "date" and any(isinstance(end, float) for end in (low, high)):
                raise ValueError("range: the ends of a date's range are dates in quotes, or null")
            if low is not None and high is not None and low > high:  # type: ignore[operator]
                raise ValueError("range: begins above its end. Exchange the two")
        if self.categories is not None and self.type not in ("category", "text"):
            raise ValueError(f"categories: a column of type {self.type} has none. Take them out, or set type: category")
        return self


class TableSchema(SettingsSection):
    """The whole of schema.yaml."""

    rows: RowLimits = RowLimits()
    time_order: StrictBool = True
    limits: ColumnLimits = ColumnLimits()
    accept: tuple[StrictStr, ...] = ()
    columns: dict[StrictStr, SchemaColumn]

    @field_validator("accept")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.match(r"[a-z_]+(:|$)", name):
                raise ValueError(
                    f"{name!r} names no check. Write check:column as the finding has it, such as leak:price"
                )
        # The one detector of leaks has a second, older name in people's files.
        return tuple(re.sub(r"^giveaway(?=:|$)", "leak", name) for name in value)


def load_schema(path: Path | str = SCHEMA_FILE) -> TableSchema | None:
    """Read and check schema.yaml; None where there is none. Raises InputError naming the path of the wrong key."""
    path = Path(path)
    try:
        content = project_params.read_yaml(path)
    except FileNotFoundError:
        return None
    return parse_schema(content, path)


def parse_schema(content: Any, path: Path | str = SCHEMA_FILE) -> TableSchema:
    """A contract from already read content; see load_schema()."""
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no contract. Delete it, and the next lap proposes one")
    try:
        return TableSchema.model_validate(content)
    except ValidationError as e:
        raise InputError(
            f"{path}: "
            + "; ".join(dict.fromkeys(project_params.describe_validation_error(x, TableSchema) for x in e.errors()))
        ) from None
