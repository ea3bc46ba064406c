"""The problem section of params.yaml: what to learn, and by which metric and loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PrivateAttr, model_validator

from windvane.tasks.settings import own_code_names
from windvane.tasks.settings.data_section import ColumnName, SettingsSection, list_choices
from windvane.tasks.settings.own_code_names import OwnCodeRole

ProblemKind = Literal["regression", "classification"]

METRICS_BY_KIND: dict[str, tuple[str, ...]] = {
    "regression": ("mae", "rmse", "r2"),
    "classification": ("log_loss", "roc_auc", "average_precision", "f1", "accuracy", "precision", "recall"),
}
# Of two classes these are of one of them, the positive class.
_METRICS_OF_POSITIVE = ("average_precision", "f1", "precision", "recall")


def name_metric(metric: str, positive: bool | float | str | None) -> str:
    """A metric as people see it: with the positive class, where the metric is of that class; None: there are not two classes."""
    return f"{metric} of {positive!r}" if metric in _METRICS_OF_POSITIVE and positive is not None else metric


class ProblemSettings(SettingsSection):
    """What to learn."""

    kind: ProblemKind
    target: ColumnName
    positive: bool | int | float | str | None = None
    merge_spellings: bool = True
    time: ColumnName | None = None
    id: ColumnName | None = None
    group: ColumnName | None = None
    weight: ColumnName | None = None
    ignore: tuple[ColumnName, ...] = ()
    metric: str | None = None
    greater_is_better: bool | None = None
    loss: str | None = None
    goal: float | None = None
    # No key: see Settings.own_sources.
    _own_sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _measured(self) -> ProblemSettings:
        allowed, own = METRICS_BY_KIND[self.kind], own_code_names.is_own_function(self.metric)
        if self.metric is not None and not own and self.metric not in allowed:
            raise ValueError(
                f"metric: {self.metric!r} is not a metric of {self.kind}. Allowed: {list_choices(allowed, self.metric)}, FILE.py:FUNCTION"
            )
        for key, name in (("metric", self.metric if own else None), ("loss", self.loss)):
            if name is not None:
                refuse_function_name(key, name)
        if own and self.headline in allowed:
            raise ValueError(
                f"metric: {self.headline} is the name of a metric of Windvane's. Give the function another name"
            )
        if own and self.greater_is_better is None:
            raise ValueError(
                "greater_is_better: is missing, and problem.metric is your own. Write true if more of it is better, else false"
            )
        if not own and self.greater_is_better is not None:
            raise ValueError(
                "greater_is_better: is of a metric of your own, and problem.metric is Windvane's. Set it to null"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> ProblemSettings:
        seen: dict[str, str] = {}
        roles = (("target", self.target), ("time", self.time), ("id", self.id), ("weight", self.weight))
        for role, column in roles:
            if column is not None and seen.setdefault(column, role) != role:
                raise ValueError(
                    f"{role}: column {column!r} is already problem.{seen[column]}. Name another column, or null"
                )
        for role, column in (("target", self.target), ("time", self.time), ("weight", self.weight)):
            if column in self.ignore:
                raise ValueError(
                    f"ignore: holds problem.{role}, column {column!r}. Take it out of the list, or name another {role}"
                )
        if self.positive is not None and self.kind == "regression":
            raise ValueError("positive: is for classes, and problem.kind is regression. Set it to null")
        return self

    @property
    def headline(self) -> str:
        """The metric that ranks candidates, by the name that people see: the user's, else the problem type's first."""
        return self.metric.rpartition(":")[2] if self.metric else METRICS_BY_KIND[self.kind][0]

    @property
    def built_in_metric(self) -> str:
        """Windvane's metric whose loss is compared where the user has no loss: of a metric of their own the problem type's first."""
        return METRICS_BY_KIND[self.kind][0] if own_code_names.is_own_function(self.metric) else self.headline

    @property
    def own_functions(self) -> dict[OwnCodeRole, str]:
        """The user's own metric and loss, by what they are."""
        named: dict[OwnCodeRole, str | None] = {"metric": self.metric, "loss": self.loss}
        return {role: name for role, name in named.items() if name is not None and own_code_names.is_own_function(name)}

    @property
    def own_sources(self) -> dict[str, str]:
        """The texts that metric and loss are of."""
        return self._own_sources

    def with_sources(self, files: Mapping[str, str]) -> ProblemSettings:
        """The same with other texts of some files."""
        changed = self.model_copy()
        changed._own_sources = {**self._own_sources, **files}
        return changed


def refuse_function_name(key: str, name: str) -> None:
    """Raise ValueError where `name` cannot be a function of the user's own."""
    if ":" not in name:
        raise ValueError(f"{key}: {name!r} names no function. Write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION")
    try:
        own_code_names.parse_code_place(name)
    except ValueError as e:
        raise ValueError(f"{key}: {e}") from None
