"""schema.yaml: the table's contract as frozen, closed values. Owns names and limits; how it is proposed and written
stands in tasks/contract_template.py, how it is enforced in tasks/checks/contract.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, StrictBool, StrictStr, ValidationError, field_validator, model_validator

from windvane.tasks import settings
from windvane.tasks.errors import InputError
from windvane.tasks.profile import Type
from windvane.tasks.settings import Section

SCHEMA = "schema.yaml"

Bound = float | StrictStr | None


class Rows(Section):
    """How many rows there must be."""

    at_least: int = Field(50, ge=0)
    share_of_last: float = Field(0.5, ge=0)


class Limits(Section):
    """What holds for every column that does not say otherwise."""

    outside: float = Field(0.01, ge=0, le=1)
    new_values: float = Field(0.2, ge=0, le=1)


class Column(Section):
    """One column. `outside`: the share of rows that may lie outside the range; `new_values`: that may hold a value not
    among the categories. Fewer are warned of, more stop the lap.
    """

    type: Type
    required: StrictBool = True
    unique: StrictBool = False
    missing: float = Field(1.0, ge=0, le=1)
    range: tuple[Bound, Bound] | None = None
    outside: float | None = Field(None, ge=0, le=1)
    categories: tuple[StrictStr, ...] | None = None
    new_values: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _consistent(self) -> Column:
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


class Contract(Section):
    """The whole of schema.yaml."""

    rows: Rows = Rows()
    time_order: StrictBool = True
    limits: Limits = Limits()
    accept: tuple[StrictStr, ...] = ()
    columns: dict[StrictStr, Column]

    @field_validator("accept")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.match(r"[a-z_]+(:|$)", name):
                raise ValueError(
                    f"{name!r} names no check. Write check:column as the finding has it, such as leak:price"
                )
        return value


def load(path: Path | str = SCHEMA) -> Contract | None:
    """Read and check schema.yaml; None where there is none. Raises InputError naming the path of the wrong key."""
    path = Path(path)
    try:
        content = settings.read_yaml(path)
    except FileNotFoundError:
        return None
    return parse(content, path)


def parse(content: Any, path: Path | str = SCHEMA) -> Contract:
    """A contract from already read content; see load()."""
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no contract. Delete it, and the next lap proposes one")
    try:
        return Contract.model_validate(content)
    except ValidationError as e:
        raise InputError(
            f"{path}: " + "; ".join(dict.fromkeys(settings.say(x, Contract) for x in e.errors()))
        ) from None
