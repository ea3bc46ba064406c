"""How the user's own code is run: candidates, features, metrics and losses come through here.

A file is run as a module that is named by its text: versions that were trained with other texts live side by side in a process, and none
runs what lies in the folder today.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from types import ModuleType
from typing import Any

from windvane.tasks import errors
from windvane.tasks.errors import InputError
from windvane.tasks.models.problem_types.definitions import OwnCode, OwnCodeError
from windvane.tasks.settings.own_code_names import (
    CodePlace,
    OwnCodeRole,
    describe_installed_module,
    parse_code_place,
)

_MODULE_PREFIX = "windvane_own_"
# The key of params.yaml that names the code of a role.
_KEYS: dict[OwnCodeRole, str] = {
    "candidate": "search.candidates",
    "features": "features",
    "metric": "problem.metric",
    "loss": "problem.loss",
}
_loading = RLock()


def load_own_function(role: OwnCodeRole, name: str, sources: Mapping[str, str]) -> tuple[Any, OwnCode]:
    """The function that params.yaml names for this role, and its code. sources: texts of files by path. Raises OwnCodeError."""
    place = parse_code_place(name)
    files = read_own_files(role, place, sources)
    found = load_own_attribute(role, place, files)
    if not callable(found) or isinstance(found, type):
        raise OwnCodeError(f"{_KEYS[role]}: {name} is no function. Name one that is defined with def")
    return found, describe_own_code(role, name, files)


def read_own_files(role: OwnCodeRole, place: CodePlace, sources: Mapping[str, str]) -> dict[str, str]:
    """The file that a name is of, as path and text; {} of an installed one. Raises OwnCodeError for a file that is not there."""
    if place.file is None:
        return {}
    if place.file not in sources:
        raise OwnCodeError(f"{_KEYS[role]}: {place.file} is no file in the project's folder. Put it beside params.yaml")
    return {place.file: sources[place.file]}


def describe_own_code(
    role: OwnCodeRole,
    name: str,
    files: Mapping[str, str],
    types: Iterable[Any] = (),
    trusted: Sequence[str] = (),
) -> OwnCode:
    """The code of a role. types: classes and functions that skops may build for it; trusted: more of them, as search.trusted has them."""
    named = [f"{one.__module__}.{one.__qualname__}" for one in types]
    named += [_name_trusted_type(one, files) for one in trusted]
    packages = () if files else describe_installed_module(parse_code_place(name).module)[0]
    return OwnCode(name, tuple(files.items()), tuple(dict.fromkeys(named)), packages, role)


def load_own_attribute(role: OwnCodeRole, place: CodePlace, files: Mapping[str, str]) -> Any:
    """What a file's text, or an installed module, defines under a name. Raises OwnCodeError for what cannot be imported or is not there."""
    where = place.file or place.module
    code = OwnCode(where, tuple(files.items()), role=role)
    try:
        with explain_own_errors((code,), "importing it"):
            module = (
                importlib.import_module(place.module)
                if place.file is None
                else _define_module(place.file, files[place.file])
            )
    except OwnCodeError as e:
        if isinstance(lacking := e.__cause__, ModuleNotFoundError):
            raise OwnCodeError(
                f"{where}: imports {lacking.name!r}, which is no installed package. Install it; what lies beside a file of the project is "
                "not stored with a model, so what it needs from there belongs into the file itself"
            ) from lacking
        raise
    found = getattr(module, place.attribute, None)
    if found is None:
        raise OwnCodeError(f"{_KEYS[role]}: {where} has no {place.attribute}. Fix the name")
    return found


def run_stored_code(codes: Iterable[OwnCode]) -> None:
    """Define the modules of the files that a version was stored with, so that skops finds their classes."""
    for code in codes:
        for file, text in code.files:
            _define_module(file, text)


def name_own_module(text: str) -> str:
    """The name of the module that a file's text is run as."""
    return _MODULE_PREFIX + hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def explain_own_errors(codes: Sequence[OwnCode], doing: str) -> Iterator[None]:
    """Within: whatever the user's own code raises becomes an OwnCodeError with the line of its file.

    Of several codes it is the one whose file the error passed last, else the candidate. Without any, errors pass as they are.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as e:
        passed = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(e.__traceback__)]
        of_file = {file: code for code in reversed(codes) for file, _ in code.files}
        lines = [(of_file[file], line) for file, line in passed if file in of_file]
        code = lines[-1][0] if lines else next((c for c in codes if c.role == "candidate" or not c.files), None)
        if code is None:
            raise
        at = f" (line {lines[-1][1]})" if lines else ""
        text = f"{type(e).__name__}: {errors.read_first_line(e)}"
        raise OwnCodeError(
            f"{code.name}: {doing} raised {text}{at}. Fix the code, or take it out of {_KEYS[code.role]}"
        ) from e


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


def _name_trusted_type(name: str, files: Mapping[str, str]) -> str:
    """A type of search.trusted as skops names it: models.py:Helper is in the module of that file's text."""
    file, _, attribute = name.partition(":")
    return f"{name_own_module(files[file])}.{attribute}" if file in files else name.replace(":", ".")
