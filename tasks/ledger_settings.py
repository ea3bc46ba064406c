"""The ledger section of params.yaml: what is remembered of each prediction, and for how long."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from windvane.tasks import durations


class Ledger(BaseModel):
    """What is remembered of each prediction, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: str | None = "365d"
    sample: float = Field(1.0, ge=0, le=1)
    drop: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()

    @field_validator("keep")
    @classmethod
    def _span(cls, value: str | None) -> str | None:
        if value is not None:
            durations.parse(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Ledger:
        if both := sorted(set(self.drop) & set(self.hash)):
            raise ValueError(f"hash: {both[0]!r} is in ledger.drop too. Take it out of one of them")
        return self

    @property
    def keeps(self) -> timedelta | None:
        """How long predictions are kept; None: for ever."""
        return None if self.keep is None else durations.parse(self.keep)

    def agree_with(self, id: str | None, time: str | None) -> None:
        """Raise ValueError where problem.id or problem.time is to be hidden: labels and windows need them as they are."""
        for key, names in (("drop", self.drop), ("hash", self.hash)):
            if id is not None and id in names:
                raise ValueError(
                    f"ledger.{key}: {id!r} is problem.id, by which labels find their predictions. Take it out of the list, or "
                    "set problem.id to null: then ids are made"
                )
            if time is not None and time in names:
                raise ValueError(
                    f"ledger.{key}: {time!r} is problem.time, which is stored with every prediction. Take it out of the list"
                )
