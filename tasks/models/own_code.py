"""The user's own candidates: a class with scikit-learn's interface becomes a CandidateModel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils import get_tags

from windvane.tasks import errors
from windvane.tasks.models import own_features, own_metrics
from windvane.tasks.models.own_modules import (
    describe_own_code,
    explain_own_errors,
    load_own_attribute,
    read_own_files,
)
from windvane.tasks.models.problem_types.definitions import (
    CandidateModel,
    ChoiceSet,
    ClassLabel,
    FloatRange,
    Hyperparameter,
    IntRange,
    OwnCode,
    OwnCodeError,
    ProblemType,
)
from windvane.tasks.settings.own_code_names import CodePlace, parse_code_place
from windvane.tasks.settings.project_params import Settings

# The class attribute that holds a search space, as search.spaces does.
SPACE_ATTRIBUTE = "search_space"
_SPACE_KEYS = ("low", "high", "log", "options", "default")
_LOG_TARGET = {"log_target": ChoiceSet((False, True), False)}


def load_project_problem_type(settings: Settings, positive: ClassLabel | None = None) -> ProblemType:
    """The problem type of params.yaml with all that is the user's own: candidates, features, metric and loss. Runs their code.

    Raises OwnCodeError naming what cannot be imported or is not what it must be.
    """
    kind = own_metrics.load_measured_problem_type(settings.problem, positive)
    if settings.features is not None:
        features, code = own_features.load_own_features(
            settings.features, settings.own_sources, settings.search.trusted
        )
        kind = replace(kind, features=features, own=(*kind.own, code))
    own = {name: _load_candidate(name, kind, settings) for name in settings.search.own_candidates}
    return replace(kind, candidates={**kind.candidates, **own}) if own else kind


def use_stored_model_code(kind: ProblemType, stored: Iterable[OwnCode]) -> ProblemType:
    """The problem type with features and candidate as the text has them that a version was stored with."""
    kind = replace(kind, features=None, own=tuple(code for code in kind.own if code.role != "features"))
    for code in stored:
        if code.role == "candidate":
            kind = replace(kind, candidates={**kind.candidates, code.name: load_stored_candidate(code)})
        elif code.role == "features":
            features, _ = own_features.load_own_features(code.name, dict(code.files))
            kind = replace(kind, features=features, own=(*kind.own, code))
    return kind


def load_stored_candidate(own: OwnCode) -> CandidateModel:
    """A candidate from the code that a version was stored with, to fit its configuration again. It has no search space."""
    cls = _load_class(parse_code_place(own.name), dict(own.files))
    default, name = cls(), own.name
    return CandidateModel(name, {}, not _takes_missing(default), None, _make_builder(name, cls), own)


def _load_candidate(name: str, kind: ProblemType, settings: Settings) -> CandidateModel:
    place = parse_code_place(name)
    files = read_own_files("candidate", place, settings.own_sources)
    cls = _load_class(place, files)
    own = describe_own_code("candidate", name, files, (cls,), settings.search.trusted)
    with explain_own_errors((own,), "its constructor without arguments"):
        default = cls()
        given: dict[str, Any] = default.get_params(deep=False)
    _refuse_other_interface(name, kind, default)
    space = _parse_space(name, settings.search.spaces.get(name), cls, given)
    if kind.continuous:
        space = {**space, **_LOG_TARGET}
    return CandidateModel(name, space, not _takes_missing(default), None, _make_builder(name, cls), own)


def _load_class(place: CodePlace, files: Mapping[str, str]) -> Any:
    found = load_own_attribute("candidate", place, files)
    if not (isinstance(found, type) and issubclass(found, BaseEstimator)):
        raise OwnCodeError(
            f"{place.file or place.module}:{place.attribute}: is no scikit-learn estimator. Write class {place.attribute}(RegressorMixin "
            "or ClassifierMixin, BaseEstimator)"
        )
    return found


def _refuse_other_interface(name: str, kind: ProblemType, default: Any) -> None:
    if not (is_regressor(default) if kind.continuous else is_classifier(default)):
        mixin = "RegressorMixin" if kind.continuous else "ClassifierMixin"
        raise OwnCodeError(
            f"{name}: is no scikit-learn estimator for {kind.name}. Let the class inherit from sklearn.base.{mixin}, before BaseEstimator"
        )
    needed = ("fit", "predict") if kind.continuous else ("fit", "predict", "predict_proba")
    if lacking := [method for method in needed if not hasattr(default, method)]:
        raise OwnCodeError(f"{name}: has no {lacking[0]}(). {kind.name} needs {', '.join(needed)}; add it to the class")


def _takes_missing(default: Any) -> bool:
    """Whether features may hold NaN, as for trees; else they are completed and scaled, as for linear models."""
    return bool(get_tags(default).input_tags.allow_nan)


def _make_builder(name: str, cls: Any) -> Any:
    def build(params: Mapping[str, Any], seed: int, cores: int) -> Any:
        known = cls().get_params(deep=False)
        fixed = {key: value for key, value in (("random_state", seed), ("n_jobs", cores)) if key in known}
        try:
            return cls(**{**fixed, **{key: value for key, value in params.items() if key not in _LOG_TARGET}})
        except (Exception, SystemExit) as e:
            raise OwnCodeError(
                f"{name}: its constructor refuses {dict(params)}: {errors.read_first_line(e)}. Fix the space"
            ) from e

    return build


def _parse_space(
    name: str, written: Mapping[str, Any] | None, cls: Any, given: Mapping[str, Any]
) -> dict[str, Hyperparameter]:
    """Hyperparameters from search.spaces, else from the class. given: the constructor's parameters with their defaults."""
    at = f"{name}.{SPACE_ATTRIBUTE}" if written is None else f"search.spaces.{name}"
    found = getattr(cls, SPACE_ATTRIBUTE, {}) if written is None else written
    if not isinstance(found, Mapping):
        raise OwnCodeError(
            f"{at}: must map hyperparameters to values, such as {{alpha: {{low: 0.1, high: 10}}}}. Fix it"
        )
    for key in found:
        if key not in given:
            raise OwnCodeError(
                f"{at}.{key}: the constructor has no such parameter. It has {', '.join(given) or 'none'}"
            )
    return {key: _parse_dimension(f"{at}.{key}", value, given[key]) for key, value in found.items()}


def _parse_dimension(at: str, value: Any, default: Any) -> Hyperparameter:
    """[a, b] or {options: [a, b]}, or {low:, high:, log:}; `default:` where the constructor's own is not within."""
    content = dict(value) if isinstance(value, Mapping) else {"options": value}
    if strange := [key for key in content if key not in _SPACE_KEYS]:
        raise OwnCodeError(f"{at}: unknown key {strange[0]!r}. Known here: {', '.join(_SPACE_KEYS)}")
    default = content.get("default", default)
    if "options" in content:
        options = content["options"]
        plain = isinstance(options, list | tuple) and all(
            isinstance(o, bool | int | float | str | None) for o in options
        )
        if not plain or not options or len(content) > 1 + ("default" in content):
            raise OwnCodeError(f"{at}: must be a list of numbers, words, true, false or null, such as [a, b]. Fix it")
        dimension: Hyperparameter = ChoiceSet(tuple(options), default)
    else:
        low: Any = content.get("low")
        high: Any = content.get("high")
        log = bool(content.get("log", False))
        if not (_is_number(low) and _is_number(high) and low < high and (low > 0 or not log)):
            raise OwnCodeError(
                f"{at}: needs numbers with low below high, and low above 0 with log: true, such as {{low: 0.1, high: 10}}. Fix it"
            )
        whole = all(isinstance(v, int) for v in (low, high, default))
        dimension = IntRange(low, high, default, log) if whole else FloatRange(float(low), float(high), default, log)
    if (wrong := dimension.refuse(default)) is not None:
        raise OwnCodeError(f"{at}: the default {default!r} {wrong}. Add `default:` to it, or change the constructor's")
    return dimension


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
