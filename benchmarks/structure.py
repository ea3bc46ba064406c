"""How large is the house, and how hard to find one's way in? `python -m benchmarks.structure [--at COMMIT ...] [--trace]`.

Counts the product's source by its syntax tree, without importing it: the working tree, and with `--at` the named commits
beside it (`--at f421283` is where the house was rebuilt from). `--trace` runs a small project and counts which product files
one lap, one request and one monitoring pass execute (benchmarks/structure_trace.py). Tests and benchmarks are not counted.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import networkx

ROOT = Path(__file__).parent.parent
ROOMS = ("cli", "flows", "tasks", "monitoring", "serving", "ledger")
PACKAGE = "windvane"
MOST_PARAMETERS = 7
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Metrics:
    """What is counted of one tree; where a count has a name to show, `examples` holds it under the same key."""

    counts: Mapping[str, str]
    examples: Mapping[str, str]


@dataclass(frozen=True)
class Import:
    """One imported module of the product, and where the statement stands."""

    module: str
    place: str  # top | function | TYPE_CHECKING


def sources(root: Path) -> dict[str, str]:
    """Path below `root` -> text of every product file; links (those in windvane/) are not followed."""
    found = (path for room in ROOMS for path in sorted((root / room).rglob("*.py")) if not (root / room).is_symlink())
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in found}


def sources_at(commit: str, root: Path = ROOT) -> dict[str, str]:
    """The same of a commit, read from git without a checkout."""
    archive = subprocess.run(["git", "-C", root, "archive", commit], capture_output=True, check=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            room, _, rest = member.name.partition("/")
            if member.isfile() and room in ROOMS and rest.endswith(".py"):
                content = tar.extractfile(member)
                assert content is not None
                found[member.name] = content.read().decode("utf-8")
    return dict(sorted(found.items()))


def measure(files: Mapping[str, str]) -> Metrics:
    """Count a tree, given as path -> text."""
    trees = {path: ast.parse(text, path) for path, text in files.items()}
    lines = {path: len(text.splitlines()) for path, text in files.items()}
    folders = Counter(path.rsplit("/", 1)[0] for path in files)
    largest_file, largest_folder = max(lines, key=lambda path: lines[path]), folders.most_common(1)[0]
    wide = [f"{path}:{f.name}" for path, tree in trees.items() for f in functions(tree) if too_many_parameters(f)]
    classes = defined_twice(trees, ast.ClassDef)
    named = defined_twice(trees, Function)
    imports = {path: list(imported(path, tree, files.keys())) for path, tree in trees.items()}
    circles = {
        "at import": circles_of(imports, {"top"}),
        "with TYPE_CHECKING": circles_of(imports, {"top", "TYPE_CHECKING"}),
        "with functions": circles_of(imports, {"top", "TYPE_CHECKING", "function"}),
    }
    inside = sum(in_functions(tree) for tree in trees.values())
    counts = {
        "product files": f"{len(files):,}",
        "product lines": f"{sum(lines.values()):,}",
        "median file, lines": f"{median(lines.values()):g}",
        "largest file, lines": f"{lines[largest_file]:,}",
        "largest folder, files": f"{largest_folder[1]}",
        f"functions with more than {MOST_PARAMETERS} parameters": f"{len(wide)}",
        "public class names defined twice or more": f"{len(classes)}",
        "public function names defined twice or more": f"{len(named)}",
        "import circles at import (files in them)": told(circles["at import"]),
        "import circles, with TYPE_CHECKING imports": told(circles["with TYPE_CHECKING"]),
        "import circles, with imports inside functions": told(circles["with functions"]),
        "import statements inside functions": f"{inside}",
        "TYPE_CHECKING blocks": f"{sum(len(list(type_checking_blocks(tree))) for tree in trees.values())}",
    }
    examples = {
        "largest file, lines": largest_file,
        "largest folder, files": largest_folder[0],
        f"functions with more than {MOST_PARAMETERS} parameters": ", ".join(wide),
        "public class names defined twice or more": named_with_counts(classes),
        "public function names defined twice or more": named_with_counts(named),
        "import circles at import (files in them)": "; ".join(" ".join(circle) for circle in circles["at import"]),
    }
    return Metrics(counts, {key: value for key, value in examples.items() if value})


def functions(tree: ast.Module) -> Iterator[Function]:
    """Every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def too_many_parameters(function: Function) -> bool:
    """More than seven of all kinds, `self` and `cls` apart. A click command takes what can be typed: it is left out."""
    named = [*function.args.posonlyargs, *function.args.args]
    own = bool(named) and named[0].arg in ("self", "cls")
    rest = sum(one is not None for one in (function.args.vararg, function.args.kwarg))
    many = len(named) - own + len(function.args.kwonlyargs) + rest > MOST_PARAMETERS
    return many and not any(is_click_command(decorator) for decorator in function.decorator_list)


def is_click_command(decorator: ast.expr) -> bool:
    """`@group.command()`, `@click.command(...)`, `@click.group(...)`, called or not."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Attribute) and target.attr in ("command", "group")


def defined_twice(trees: Mapping[str, ast.Module], kind: type | object) -> dict[str, int]:
    """Public names that module bodies of two or more files define as `kind`, with how many files do."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees.items():
        for node in tree.body:
            if isinstance(node, kind) and not node.name.startswith("_"):  # type: ignore[arg-type, attr-defined]
                found[node.name].add(path)  # type: ignore[attr-defined]
    several = {name: len(paths) for name, paths in found.items() if len(paths) > 1}
    return dict(sorted(several.items(), key=lambda item: (-item[1], item[0])))


def named_with_counts(names: Mapping[str, int]) -> str:
    """`read 17, write 12`, the commonest first."""
    return ", ".join(f"{name} {count}" for name, count in names.items())


def type_checking_blocks(tree: ast.Module) -> Iterator[ast.If]:
    """`if TYPE_CHECKING:` and `if typing.TYPE_CHECKING:`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield node


def in_functions(tree: ast.Module) -> int:
    """Import statements that run when a function does, each counted once."""
    inner = {node for function in functions(tree) for node in ast.walk(function)}
    return sum(isinstance(node, ast.Import | ast.ImportFrom) for node in inner)


def imported(path: str, tree: ast.Module, files: Iterable[str]) -> Iterator[Import]:
    """The product's modules that a file names in its imports. `from windvane.tasks import io` names `tasks.io`, not `tasks`."""
    modules = {module_of(file) for file in files}
    hidden = {node for block in type_checking_blocks(tree) for part in block.body for node in ast.walk(part)}
    inner = {node for function in functions(tree) for node in ast.walk(function)}
    package = path.rsplit("/", 1)[0].replace("/", ".")
    for node in ast.walk(tree):
        place = "TYPE_CHECKING" if node in hidden else "function" if node in inner else "top"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = own_name(".".join(part for part in (above, node.module) if part))
            inside = [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
            names = [name if name in modules else base for name in inside]
        else:
            continue
        yield from (Import(own_name(name), place) for name in names if own_name(name) in modules)


def own_name(name: str) -> str:
    """A module without the installed name before it: `windvane.tasks.io` is `tasks.io`."""
    return "" if name == PACKAGE else name.removeprefix(f"{PACKAGE}.")


def module_of(path: str) -> str:
    """`tasks/io.py` is `tasks.io`, `tasks/__init__.py` is `tasks`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def circles_of(imports: Mapping[str, Iterable[Import]], places: set[str]) -> list[list[str]]:
    """Groups of modules of which each reaches all others by imports that stand in `places`; the largest first."""
    graph = networkx.DiGraph()
    for path, found in imports.items():
        graph.add_edges_from((module_of(path), one.module) for one in found if one.place in places)
    groups = [sorted(group) for group in networkx.strongly_connected_components(graph) if len(group) > 1]
    return sorted(groups, key=lambda group: (-len(group), group))


def told(circles: list[list[str]]) -> str:
    """`2 (8, 2)`: how many circles, and how many files are in each."""
    return f"{len(circles)} ({', '.join(str(len(circle)) for circle in circles)})" if circles else "0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at", nargs="*", default=[], metavar="COMMIT", help="commits beside the working tree")
    parser.add_argument("--names", action="store_true", help="also which files, functions and classes were counted")
    parser.add_argument("--trace", action="store_true", help="also the files that a lap, a request and a pass execute")
    chosen = parser.parse_args()
    columns = {commit: measure(sources_at(commit)) for commit in chosen.at} | {"working tree": measure(sources(ROOT))}
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for key in columns["working tree"].counts:
        print(f"| {key} | " + " | ".join(one.counts[key] for one in columns.values()) + " |")
    if chosen.names:
        for name, one in columns.items():
            print(f"\n{name}:" + "".join(f"\n- {key}: {value}" for key, value in one.examples.items()))
    if chosen.trace:
        from benchmarks import structure_trace

        print("\n| executed in the working tree | files whose functions ran | files loaded |\n|---|---|---|")
        for name, executed in structure_trace.trace().items():
            print(f"| {name} | {len(executed.ran)} | {len(executed.loaded)} |", flush=True)
            if chosen.names:
                print("  " + " ".join(sorted(executed.ran)))


if __name__ == "__main__":
    main()
