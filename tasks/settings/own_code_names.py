"""Names of the user's own code in params.yaml, and its source text. Runs none of it, and imports no package for it.

`models.py:Mine` is a class or function of a file below the project's folder, `mypkg.models:Other` of an installed package. A name that
Windvane does not know is one that a package offers by an entry point.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

# What the user's own code may be in place of.
OwnCodeRole = Literal["candidate", "features", "metric", "loss"]
BUILT_IN_CANDIDATES = ("linear", "tree", "forest", "boosting")
ENTRY_POINT_GROUP = "windvane.candidates"


@dataclass(frozen=True)
class CodePlace:
    """Where an attribute is defined: in `file`, a path below the project's folder, or (None) in the installed `module`."""

    file: str | None
    module: str
    attribute: str


def parse_code_place(name: str) -> CodePlace:
    """The place that `models.py:Mine`, `mypkg.models:Other` or a plain name of an entry point names. Raises ValueError in words."""
    left, colon, attribute = name.partition(":")
    if not colon:
        offered = {point.value for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP, name=name)}
        if len(offered) != 1:
            near = difflib.get_close_matches(name, BUILT_IN_CANDIDATES, n=1, cutoff=0.5)
            raise ValueError(
                f"{name!r} is not an allowed value. Allowed: {', '.join(BUILT_IN_CANDIDATES)}, FILE.py:CLASS, PACKAGE.MODULE:CLASS"
                + (f". Did you mean {near[0]}?" if near else "")
                if not offered
                else f"{name!r} is offered by several packages: {', '.join(sorted(offered))}. Write one of these instead"
            )
        left, _, attribute = offered.pop().partition(":")
    if not attribute.isidentifier():
        raise ValueError(f"{name!r} names nothing in a file. Write FILE.py:NAME or PACKAGE.MODULE:NAME")
    if left.endswith(".py"):
        path = PurePosixPath(left)
        if path.is_absolute() or "\\" in left or ":" in left or not {"..", "."}.isdisjoint(left.split("/")):
            raise ValueError(f"{name!r} leads out of the project's folder. Put the file beside params.yaml")
        return CodePlace(path.as_posix(), "", attribute)
    if not all(part.isidentifier() for part in left.split(".")):
        raise ValueError(f"{name!r} names no module. Write FILE.py:NAME or PACKAGE.MODULE:NAME")
    return CodePlace(None, left, attribute)


def is_own_candidate(name: str) -> bool:
    """Whether a candidate is not one of Windvane's."""
    return name not in (*BUILT_IN_CANDIDATES, "dummy")


def is_own_function(name: str | None) -> bool:
    """Whether a metric, a loss or features are of the user's own code."""
    return name is not None and ":" in name


def read_own_sources(root: Path, names: Iterable[str]) -> dict[str, str]:
    """The text of the files that these names are of, by path below `root`. A file that is not there, or is a link out of the folder, is
    left out: only what needs it reports it, for the service goes on without.
    """
    root, found = root.resolve(), {}
    for file in {place.file for place in map(parse_code_place, names) if place.file is not None}:
        path = (root / file).resolve()
        if path.is_relative_to(root) and path.is_file():
            found[file] = path.read_text(encoding="utf-8", errors="replace")
    return found


def defines_class(text: str, name: str) -> bool:
    """Whether a source text binds this name, or may do so by `import *`. One that cannot be parsed does: its run reports that."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return True
    bound = {n.name for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    bound |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}
    return name in bound or "*" in bound


def hash_own_source(text: str) -> str:
    """What of a source text can change a model, as a hash: not its comments and line breaks."""
    with contextlib.suppress(SyntaxError, ValueError):  # the run of it reports that
        text = ast.dump(ast.parse(text))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache
def describe_installed_module(module: str) -> tuple[tuple[str, ...], str]:
    """What an installed module is: its distributions as `name==version`, and the hash of its own text where that is a file. Empty: it
    is not installed. Imports nothing.
    """
    top, *rest = module.split(".")
    names = sorted(set(importlib.metadata.packages_distributions().get(top, ())))
    versions = tuple(f"{name}=={importlib.metadata.version(name)}" for name in names)
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return versions, ""
    place = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
    paths = (place, place.with_suffix(".py"), place / "__init__.py")
    path = next((p for p in paths if p.suffix == ".py" and p.is_file()), None)
    return versions, "" if path is None else hash_own_source(path.read_text(encoding="utf-8", errors="replace"))
