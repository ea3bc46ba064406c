"""params.yaml as frozen values that are read once: keys, limits and defaults. Knows no file but its own."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from windvane.tasks.errors import InputError
from windvane.tasks.settings import own_code_names
from windvane.tasks.settings.data_section import DataSettings, SettingsSection, expand_variables, list_choices
from windvane.tasks.settings.monitoring_section import MonitorSettings, RetrainSettings, ScheduleSettings
from windvane.tasks.settings.own_code_names import BUILT_IN_CANDIDATES, OwnCodeRole
from windvane.tasks.settings.problem_section import ProblemSettings, refuse_function_name
from windvane.tasks.settings.serving_section import LedgerSettings, PortSettings, ServeSettings

PARAMS_FILE = "params.yaml"
# Kept as written, and replaced only while they are used (tasks/settings/data_section.py): they may hold secrets.
_AS_WRITTEN = ("data.source", "data.query", "data.parameters.", "data.http.headers.", "data.remote", "monitor.webhook")

SplitStrategy = Literal["time", "stratified", "random", "group", "kfold"]
SearchMethod = Literal["bayesian", "random", "grid", "manual"]
ImbalanceTreatment = Literal["weights", "oversample", "undersample", "smote"]
ThresholdMetric = Literal["f1", "accuracy"]
GateRuleName = Literal["auto", "superior", "not_worse"]


class SplitSettings(SettingsSection):
    """Which rows train, which rows test."""

    strategy: SplitStrategy = "random"
    validation: float = Field(0.15, gt=0, lt=0.5)
    test: float = Field(0.15, gt=0, lt=0.5)
    folds: int | None = Field(None, ge=2, le=20)
    seed: int = Field(0, ge=0, lt=2**32)


class SearchSettings(SettingsSection):
    """Which algorithms are tried, and for how long."""

    candidates: tuple[str, ...] = BUILT_IN_CANDIDATES
    method: SearchMethod = "bayesian"
    trials: int = Field(30, ge=1, le=10_000)
    timeout: float = Field(300, gt=0)
    manual: tuple[dict[str, Any], ...] = ()
    grid: dict[str, dict[str, tuple[Any, ...]]] = Field(default_factory=dict)
    spaces: dict[str, dict[str, Any]] = Field(default_factory=dict)
    trusted: tuple[str, ...] = ()
    imbalance: ImbalanceTreatment | None = None
    threshold: ThresholdMetric | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        if not self.candidates:
            raise ValueError(f"candidates: is empty. Name at least one of {', '.join(BUILT_IN_CANDIDATES)}")
        for name in self.own_candidates:
            try:
                own_code_names.parse_code_place(name)
            except ValueError as e:
                raise ValueError(f"candidates: {e}") from None
        if strange := [name for name in self.spaces if name not in self.own_candidates]:
            raise ValueError(
                f"spaces: {strange[0]} is no candidate of your own in search.candidates. Add it there; Windvane's own take search.grid"
            )
        if len(set(self.candidates)) != len(self.candidates):
            raise ValueError("candidates: names one twice. Take it out")
        if self.method == "manual" and not self.manual:
            raise ValueError(
                "manual: is empty, but search.method is manual. List configurations such as {candidate: forest, max_depth: 8}"
            )
        if self.grid and self.method != "grid":
            raise ValueError("grid: counts only with search.method grid. Choose it, or write {}")
        if unknown := [name for name in self.grid if name not in self.candidates]:
            raise ValueError(f"grid: {unknown[0]} is not in search.candidates. Add it there, or take it out here")
        for name, values in self.grid.items():
            if empty := [key for key, given in values.items() if not given]:
                raise ValueError(f"grid.{name}.{empty[0]}: is empty. List values, such as [4, 8, 16]")
        others = len(self.candidates) - len(self.grid)
        if (
            planned := others + sum(math.prod(map(len, v.values())) for v in self.grid.values())
        ) > self.trials and self.grid:
            raise ValueError(
                f"grid: makes {planned} configurations, with the defaults of other candidates, and search.trials is {self.trials}. "
                "Raise search.trials, or list fewer values"
            )
        return self

    @property
    def own_candidates(self) -> tuple[str, ...]:
        """The candidates that are not Windvane's: tried by the search, or listed in search.manual."""
        listed = [str(entry.get("candidate")) for entry in self.manual if ":" in str(entry.get("candidate"))]
        return tuple(dict.fromkeys(name for name in (*self.candidates, *listed) if name not in BUILT_IN_CANDIDATES))


class GateSettings(SettingsSection):
    """What a challenger must show."""

    rule: GateRuleName = "auto"
    confidence: float = Field(0.95, ge=0.5, lt=1)
    margin: float = Field(0.01, ge=0, le=1)
    slices: tuple[str, ...] = ()


class RetentionSettings(SettingsSection):
    """How long what versions left behind is kept."""

    versions: int | None = Field(None, ge=1)


class Settings(SettingsSection):
    """The whole of params.yaml."""

    project: str
    problem: ProblemSettings
    data: DataSettings
    features: str | None = None
    split: SplitSettings = SplitSettings()
    search: SearchSettings = SearchSettings()
    gate: GateSettings = GateSettings()
    monitor: MonitorSettings = MonitorSettings()
    retrain: RetrainSettings = RetrainSettings()
    serve: ServeSettings = ServeSettings()
    ledger: LedgerSettings = LedgerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    ports: PortSettings = PortSettings()
    retention: RetentionSettings = RetentionSettings()
    # No key: the text of the user's own files, read together with params.yaml, so that all of a lap has the same.
    _own_sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def own_sources(self) -> dict[str, str]:
        """The text of the user's own files by path, as it was when params.yaml was read."""
        return self._own_sources

    @property
    def own_names(self) -> tuple[str, ...]:
        """All that is the user's own, as params.yaml names it."""
        features = () if self.features is None else (self.features,)
        return (*self.search.own_candidates, *self.problem.own_functions.values(), *features)

    @property
    def lacks_sources(self) -> bool:
        """Whether a file is gone that the user's features, metric or loss are of."""
        functions = (*self.problem.own_functions.values(), *(() if self.features is None else (self.features,)))
        files = {own_code_names.parse_code_place(name).file for name in functions}
        return not files <= {None, *self._own_sources}

    def fill_sources(self, stored: Mapping[str, str]) -> Settings:
        """These settings with other texts in place of files that are gone."""
        lacking = {file: text for file, text in stored.items() if file not in self._own_sources}
        changed = self.model_copy(update={"problem": self.problem.with_sources(lacking)})
        changed._own_sources = {**self._own_sources, **lacking}
        return changed

    def use_stored_measure(self, role: OwnCodeRole, name: str, files: Mapping[str, str]) -> Settings:
        """These settings with a metric or loss as the text has it that a version was stored with, if it has the same name."""
        if self.problem.own_functions.get(role) != name:
            return self
        return self.model_copy(update={"problem": self.problem.with_sources(files)})

    def defines_candidate(self, name: str) -> bool:
        """Whether search.candidates and the files of today give this candidate, as far as can be seen without a run of their code. Raises
        ValueError for a name that nothing installed offers any more.
        """
        place = own_code_names.parse_code_place(name)
        if name not in self.search.own_candidates or place.file is None:
            return name in self.search.own_candidates
        return own_code_names.defines_class(self.own_sources.get(place.file, ""), place.attribute)

    def use_stored_code(self, name: str, files: Mapping[str, str], trusted: Sequence[str]) -> Settings:
        """These settings with the candidate `name` as the only one of the user's own, defined by the text that it was stored with."""
        own = set(self.search.own_candidates)
        changes = {
            "candidates": (*(one for one in self.search.candidates if one not in own), name),
            "method": "bayesian",
            "manual": (),
            "grid": {},
            "spaces": {},
            "trusted": (*self.search.trusted, *trusted),
        }
        changed = self.model_copy(update={"search": self.search.model_copy(update=changes)})
        changed._own_sources = {**self._own_sources, **files}
        return changed

    @field_validator("project")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError(f"{value!r} cannot name a registered model. Use letters, digits, '-', '_' or '.'")
        return value

    @model_validator(mode="after")
    def _transformed(self) -> Settings:
        if self.features is not None:
            refuse_function_name("features", self.features)
            if self.search.imbalance == "smote":
                raise ValueError(
                    "search.imbalance: smote draws rows between others by Windvane's own features, and features is set. Choose weights, "
                    "oversample, undersample or null"
                )
        return self

    @model_validator(mode="after")
    def _weighted(self) -> Settings:
        if self.problem.weight is not None and self.search.imbalance not in (None, "weights"):
            raise ValueError(
                f"search.imbalance: {self.search.imbalance} draws rows as if all counted alike, and problem.weight is set. Choose "
                "weights, or null"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        p, s = self.problem, self.split
        ports = {"serve.port": self.serve.port, "ports.mlflow": self.ports.mlflow, "ports.prefect": self.ports.prefect}
        for one, other in (("mlflow", "serve.port"), ("mlflow", "ports.prefect"), ("prefect", "serve.port")):
            port = ports[f"ports.{one}"]
            if port is not None and port == ports[other]:
                raise ValueError(f"ports.{one}: {port} is {other} too. Choose another, or null")
        if s.strategy == "time" and p.time is None:
            raise ValueError(
                "split.strategy: time needs problem.time. Name the time column, or choose stratified, random, group or kfold"
            )
        if s.strategy == "group" and p.group is None:
            raise ValueError(
                "split.strategy: group needs problem.group. Name the group column, or choose another strategy"
            )
        if s.strategy == "stratified" and p.kind != "classification":
            raise ValueError(
                "split.strategy: stratified needs classes. For regression choose random, time, group or kfold"
            )
        for key, value in (("imbalance", self.search.imbalance), ("threshold", self.search.threshold)):
            if value is not None and p.kind == "regression":
                raise ValueError(
                    f"search.{key}: {value} is for classes, and problem.kind is regression. Set it to null"
                )
        if s.validation + s.test >= 0.8:
            raise ValueError(
                "split: validation and test together leave less than a fifth of the rows to learn from. Make them smaller"
            )
        if s.folds is not None and s.strategy != "kfold":
            raise ValueError("split.folds: counts only with split.strategy kfold. Set it to null, or choose kfold")
        if self.retrain.history != "expanding" and s.strategy != "time":
            raise ValueError(
                f"retrain.history: {self.retrain.history} needs split.strategy time. Choose it, or write expanding"
            )
        if self.retrain.combined is not None and self.search.imbalance is not None:
            raise ValueError(
                f"retrain.history: {self.retrain.history} does not go with search.imbalance. Set that to null, or write expanding"
            )
        self.ledger.agree_with(p.id, p.time)
        return self


def load_settings(path: Path | str = PARAMS_FILE) -> Settings:
    """Read and check params.yaml; `${NAME}` takes its value from the environment.

    Raises InputError naming the path of the wrong key, the allowed values and the nearest right name.
    """
    path = Path(path)
    return parse_settings(read_params(path), path)


def require_recorded_sections(path: Path) -> None:
    """Raise InputError where params.yaml leaves out what dvc.yaml has DVC record with the data, though it has a default."""
    if "split" not in read_params(path):
        raise InputError(
            f"{path}: split: is missing, with which DVC records the data. Add the line: split: {{strategy: random}}"
        )


def read_params(path: Path) -> dict[str, Any]:
    """params.yaml as written, `${NAME}` not replaced: what may be logged."""
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: not found. Run `windvane init TABLE --target COLUMN` here, or name a project's folder with --project"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no settings. Run `windvane init TABLE --target COLUMN` to write one")
    return content


def read_yaml(path: Path) -> Any:
    """The content of a YAML file that a person edits. Raises InputError with line and column, or FileNotFoundError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: is not UTF-8 text (byte {e.start}). Save it as UTF-8") from None
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        position = getattr(e, "problem_mark", None)
        where = f" line {position.line + 1}, column {position.column + 1}" if position else ""
        tab = position is not None and "\t" in text.splitlines()[min(position.line, len(text.splitlines()) - 1)]
        what = "a tab; YAML is indented with spaces" if tab else getattr(e, "problem", None) or "not valid YAML"
        raise InputError(f"{path}{where}: {what}. Fix that line") from None


def parse_settings(content: dict[str, Any], path: Path | str = PARAMS_FILE) -> Settings:
    """Settings from already read content; see load()."""
    try:
        settings = Settings.model_validate(_expand(content, "", path))
    except ValidationError as e:
        problems = [describe_validation_error(error, Settings) for error in e.errors()]
        raise InputError(f"{path}: " + "; ".join(problems)) from None
    if settings.own_names:
        settings._own_sources.update(own_code_names.read_own_sources(Path(path).parent, settings.own_names))
        settings.problem._own_sources.update(settings._own_sources)
    return settings


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where YAML itself would keep the last one in silence."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} appears twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _expand(value: Any, at: str, path: Path | str) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, f"{at}.{k}" if at else str(k), path) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, f"{at}[{i}]", path) for i, v in enumerate(value)]
    return value if at.startswith(_AS_WRITTEN) else expand_variables(value, at, path)


def describe_validation_error(error: Any, whole: type[SettingsSection]) -> str:
    """One pydantic error in `whole` as: path, what is wrong, what is allowed. Never shows the value: it may be a secret."""
    loc = [str(part) for part in error["loc"]]
    at = ".".join(loc)
    kind = error["type"]
    if kind == "extra_forbidden":
        known = list(_section(whole, loc[:-1]).model_fields)
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        return f"{at}: unknown key." + (
            f" Did you mean {'.'.join([*loc[:-1], near[0]])}?" if near else f" Known here: {', '.join(known)}"
        )
    if kind == "missing":
        return f"{at}: is missing. Add it, or let `windvane init` write the file"
    if kind == "literal_error":
        allowed = [a.strip().strip("'") for a in re.split(r",| or ", error["ctx"]["expected"])]
        return f"{at}: not an allowed value. Allowed: {list_choices(allowed, str(error['input']))}"
    if kind == "value_error":
        text = str(error["ctx"]["error"])
        return f"{at}.{text}" if at and re.match(r"^[a-z_.]+: ", text) else f"{at}: {text}" if at else text
    return f"{at}: {error['msg'][0].lower()}{error['msg'][1:]}. Fix the value"


def _section(whole: type[SettingsSection], loc: list[str]) -> Any:
    """The model at a path of keys; `Http | None` counts as Http, and below a mapping every key leads to what it holds."""
    section: Any = whole
    for part in loc:
        if get_origin(section) is dict:
            section = get_args(section)[1]
            continue
        annotation = section.model_fields[part].annotation
        models = [a for a in get_args(annotation) if hasattr(a, "model_fields")]
        section = models[0] if models and get_origin(annotation) is not dict else annotation
    return section
