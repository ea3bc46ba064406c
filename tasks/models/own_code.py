"""The user's own candidates: a class with scikit-learn's interface becomes a CandidateModel. Owns how its file's text is run.

A file is run as a module that is named by its text: versions that were trained with other texts live side by side in a process, and none
runs what lies in the folder today.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock
from types import ModuleType
from typing import Any

from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.utils import get_tags

from windvane.tasks import errors
from windvane.tasks.errors import InputError
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
    load_problem_type,
)
from windvane.tasks.settings.own_code_names import CodePlace, describe_installed_module, parse_code_place
from windvane.tasks.settings.project_params import Settings

# The class attribute that holds a search space, as search.spaces does.
SPACE_ATTRIBUTE = "search_space"
_MODULE_PREFIX = "windvane_own_"
_SPACE_KEYS = ("low", "high", "log", "options", "default")
_LOG_TARGET = {"log_target": ChoiceSet((False, True), False)}
_loading = RLock()


def load_project_problem_type(settings: Settings, positive: ClassLabel | None = None) -> ProblemType:
    """The problem type of params.yaml with the user's own candidates among its candidates. Runs their code.

    Raises OwnCodeError naming what cannot be imported or is no candidate.
    """
    kind = load_problem_type(settings.problem.kind, positive)
    own = {name: _load_candidate(name, kind, settings) for name in settings.search.own_candidates}
    return replace(kind, candidates={**kind.candidates, **own}) if own else kind


def load_stored_candidate(own: OwnCode) -> CandidateModel:
    """A candidate from the code that a version was stored with, to fit its configuration again. It has no search space."""
    cls = _load_class(parse_code_place(own.name), dict(own.files))
    default, name = cls(), own.name
    return CandidateModel(name, {}, not _takes_missing(default), None, _make_builder(name, cls), own)


def run_stored_code(own: OwnCode) -> None:
    """Define the modules of the files that a version was stored with, so that skops finds their classes."""
    for file, text in own.files:
        _define_module(file, text)


def name_own_module(text: str) -> str:
    """The name of the module that a file's text is run as."""
    return _MODULE_PREFIX + hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def explain_own_errors(candidate: CandidateModel | None, doing: str) -> Iterator[None]:
    """Within: whatever the user's own code raises becomes an OwnCodeError with the line of its file. Windvane's candidates: nothing."""
    try:
        yield
    except OwnCodeError:
        raise
    except (Exception, SystemExit) as e:
        if candidate is None or candidate.own is None:
            raise
        raise _explain(candidate.name, doing, e, dict(candidate.own.files)) from e


def _explain(name: str, doing: str, error: BaseException, files: Mapping[str, str]) -> OwnCodeError:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    at = f" (line {lines[-1]})" if lines else ""
    text = f"{type(error).__name__}: {errors.read_first_line(error)}"
    return OwnCodeError(f"{name}: {doing} raised {text}{at}. Fix the class, or take it out of search.candidates")


def _load_candidate(name: str, kind: ProblemType, settings: Settings) -> CandidateModel:
    place = parse_code_place(name)
    if place.file is not None and place.file not in settings.own_sources:
        raise OwnCodeError(
            f"search.candidates: {place.file} is no file in the project's folder. Put it beside params.yaml"
        )
    files = {} if place.file is None else {place.file: settings.own_sources[place.file]}
    cls = _load_class(place, files)
    try:
        default = cls()
        given: dict[str, Any] = default.get_params(deep=False)
    except (Exception, SystemExit) as e:
        raise _explain(name, "its constructor without arguments", e, files) from e
    _refuse_other_interface(name, kind, default)
    space = _parse_space(name, settings.search.spaces.get(name), cls, given)
    if kind.continuous:
        space = {**space, **_LOG_TARGET}
    named = [f"{cls.__module__}.{cls.__name__}", *(_name_trusted_type(one, files) for one in settings.search.trusted)]
    packages = () if place.file else describe_installed_module(place.module)[0]
    own = OwnCode(name, tuple(files.items()), tuple(dict.fromkeys(named)), packages)
    return CandidateModel(name, space, not _takes_missing(default), None, _make_builder(name, cls), own)


def _load_class(place: CodePlace, files: Mapping[str, str]) -> Any:
    where = place.file or place.module
    try:
        module = (
            importlib.import_module(place.module)
            if place.file is None
            else _define_module(place.file, files[place.file])
        )
    except InputError:
        raise
    except ModuleNotFoundError as e:
        raise OwnCodeError(
            f"{where}: imports {e.name!r}, which is no installed package. Install it; what lies beside a file of the project is not stored "
            "with a model, so what it needs from there belongs into the file itself"
        ) from e
    except (Exception, SystemExit) as e:
        raise _explain(where, "importing it", e, files) from e
    found = getattr(module, place.attribute, None)
    if found is None:
        raise OwnCodeError(f"search.candidates: {where} has no {place.attribute}. Fix the name")
    if not (isinstance(found, type) and issubclass(found, BaseEstimator)):
        raise OwnCodeError(
            f"{where}:{place.attribute}: is no scikit-learn estimator. Write class {place.attribute}(RegressorMixin or ClassifierMixin, "
            "BaseEstimator)"
        )
    return found


def _define_module(file: str, text: str) -> ModuleType:
    """The module of this text, run if it was not yet."""
    name = name_own_module(text)
    with _loading:
        if name in sys.modules:
            return sys.modules[name]
        module = ModuleType(name, f"{file} of the project")
        module.__file__ = file
        try:
            code = compile(text, file, "exec")
        except (SyntaxError, ValueError) as e:
            line = f" line {e.lineno}" if isinstance(e, SyntaxError) else ""
            raise OwnCodeError(f"{file}{line}: is no Python: {errors.read_first_line(e)}. Fix the file") from None
        sys.modules[name] = module
        try:
            exec(code, module.__dict__)  # the project's own file, or the text that was sealed with a version
        except BaseException:
            del sys.modules[name]
            raise
        return module


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


def _name_trusted_type(name: str, files: Mapping[str, str]) -> str:
    """A type of search.trusted as skops names it: models.py:Helper is in the module of that file's text."""
    file, _, attribute = name.partition(":")
    return f"{name_own_module(files[file])}.{attribute}" if file in files else name.replace(":", ".")


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
