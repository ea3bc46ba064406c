"""The ports section of params.yaml: where `windvane up` puts MLflow's and Prefect's pages on loopback."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1, le=65535, strict=True)]


class Ports(BaseModel):
    """A port that is set must be free; null: the usual one (5000, 4200), or the next free one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mlflow: Port | None = None
    prefect: Port | None = None
