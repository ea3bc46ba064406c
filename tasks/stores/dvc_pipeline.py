"""The only door to DVC: the stages, whether one must run, and the version of the data that they made."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

import windvane
from windvane.tasks import errors, io, project_files
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.io import DATA_FOLDER, write_whole
from windvane.tasks.settings import project_params

PIPELINE_FILE = "dvc.yaml"
LOCK_FILE = "dvc.lock"
SPLIT_STAGE = "split"
# What the ingest stage may depend on: the local source, and what was fetched from another (tasks/sources/snapshot.py).
INGEST_INPUTS = ("${data.source}", (DATA_FOLDER / "raw").as_posix())
# Decides the gaps between splits, and may be left out of params.yaml: DVC takes no param that is not there.
LABEL_DELAY_PARAM = "monitor.label_delay"
# What `windvane init` writes into an empty folder: the pipeline of this project itself.
# Not under the name that DVC expects: in a checkout it would be a second pipeline.
PIPELINE_TEMPLATE = Path(windvane.__file__).parent / "pipeline.yaml"
DVC_CONFIG = '[core]\n    analytics = false\n    autostage = false\n[cache]\n    type = "reflink,hardlink,copy"\n'


def prepare_dvc_folder(root: Path) -> tuple[str, ...]:
    """Give a folder what DVC needs, with git or without; the names of the files written."""
    wanted = {PIPELINE_FILE: PIPELINE_TEMPLATE.read_text(encoding="utf-8"), ".dvcignore": "", ".dvc/config": DVC_CONFIG}
    wanted[".dvc/.gitignore"] = "/config.local\n/tmp\n/cache\n"
    missing = {name: text for name, text in wanted.items() if not (root / name).exists()}
    if PIPELINE_FILE not in missing and (both := _with_our_stages(root / PIPELINE_FILE)) is not None:
        missing[PIPELINE_FILE] = both
    for name, text in missing.items():
        write_whole(root / name, lambda part, text=text: part.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    if ".dvc/config" in missing:
        io.apply_user_umask(root / ".dvc")  # git's, and so everybody's; what is private lies in folders of its own
    _configure_without_git(root)
    return tuple(missing)


def _with_our_stages(path: Path) -> str | None:
    """A dvc.yaml of the user's own pipeline with our stages behind theirs; None: it has some of ours, or another form."""
    text = path.read_text(encoding="utf-8")
    try:
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # DVC reports what is wrong with it
        return None
    ours = PIPELINE_TEMPLATE.read_text(encoding="utf-8").partition("stages:\n")[2].splitlines()
    if node is not None and (not isinstance(node, yaml.MappingNode) or node.flow_style):
        return None
    stages = next((value for key, value in node.value if key.value == "stages"), None) if node else None
    if stages is None:
        return (f"{text.rstrip()}\n" if text.strip() else "") + "\n".join(["stages:", *ours]) + "\n"
    known = {key.value for key, _ in stages.value} if isinstance(stages, yaml.MappingNode) else set()
    if not known or stages.flow_style or known & set(_template()):
        return None
    indent, end = " " * stages.value[0][0].start_mark.column, stages.end_mark.index
    before = text[:end].rstrip()
    return before + "\n" + "\n".join(indent + line[2:] for line in ours) + "\n" + text[len(before) :].lstrip("\n")


def _configure_without_git(root: Path) -> None:
    """DVC refuses to work in a folder without git unless its local configuration has it so."""
    local, setting = root / ".dvc" / "config.local", "[core]\n    no_scm = true\n"
    has_git = any((folder / ".git").exists() for folder in (root.resolve(), *root.resolve().parents))
    text = local.read_text(encoding="utf-8") if local.exists() else ""
    if has_git == ("no_scm = true" in text):
        changed = text.replace(setting, "") if has_git else text + setting
        write_whole(local, lambda part: part.write_text(changed, encoding="utf-8"))


def set_ingest_inputs(root: Path, wanted: Sequence[str]) -> None:
    """Let the ingest stage of dvc.yaml depend on `wanted`: of the two that a project may have, no more and no less.

    Only these entries of the file change, character by character: whatever else people wrote there stays as it is.
    """
    path = root / PIPELINE_FILE
    prepare_dvc_folder(root)
    text = path.read_text(encoding="utf-8")
    items = _list_entries(text, "ingest", "deps")
    ours = [item for item in items if item.value in INGEST_INPUTS]
    if not ours or [item.value for item in ours] == list(wanted):
        return
    indent = text[text.rfind("\n", 0, ours[0].start_mark.index) + 1 : ours[0].start_mark.index]
    text, first = _drop_entries(text, ours[1:]), ours[0]
    changed = text[: first.start_mark.index] + f"\n{indent}".join(wanted) + text[first.end_mark.index :]
    write_whole(path, lambda part: part.write_text(changed, encoding="utf-8"))


def _follow_label_delay(root: Path) -> None:
    """Let the split stage of dvc.yaml follow monitor.label_delay where params.yaml gives it, and only there."""
    path = root / PIPELINE_FILE
    text = path.read_text(encoding="utf-8")
    items = _list_entries(text, SPLIT_STAGE, "params")
    ours = [item for item in items if item.value == LABEL_DELAY_PARAM]
    monitor = project_params.read_params(root / project_params.PARAMS_FILE).get("monitor")
    given = isinstance(monitor, dict) and "label_delay" in monitor
    if not items or given == bool(ours):
        return
    changed, at = _drop_entries(text, ours), items[0].start_mark.index
    if given:
        indent = text[text.rfind("\n", 0, at) + 1 : at]
        changed = f"{text[:at]}{LABEL_DELAY_PARAM}\n{indent}{text[at:]}"
    write_whole(path, lambda part: part.write_text(changed, encoding="utf-8"))


def push_outputs(root: Path, remote: str, named: str, hashes: Sequence[str]) -> None:
    """Copy cached outputs to a DVC remote, a folder (from `root` on) or s3://; those already there are passed over.

    `named`: the remote as messages may show it. Raises Outage when it cannot be reached or a file could not be copied.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    place = {"url": remote if "://" in remote else os.fspath((root / remote).resolve())}
    if remote.startswith("s3://"):
        place |= {"connect_timeout": "10", "read_timeout": "60"}
    try:
        with Repo(os.fspath(root.resolve()), config={"remote": {"windvane": place}}) as repo:
            done = repo.cloud.push([HashInfo("md5", value) for value in hashes], remote="windvane")
    except (DvcException, OSError, *_storage_errors()) as e:
        raise Outage(
            f"data.remote: {named}: cannot be reached ({errors.read_first_line(e)}). Start it, or fix its address"
        ) from None
    except ImportError:
        raise Outage(f"data.remote: {named}: needs more of DVC. Install it: pip install 'windvane[s3]'") from None
    if done.failed:
        raise Outage(
            f"data.remote: {named}: {len(done.failed)} files could not be copied. Is there room, and may you write?"
        )


def _storage_errors() -> tuple[type[Exception], ...]:
    """What S3's client raises on its own, where it is installed."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return ()
    return (BotoCoreError, ClientError)


def _list_entries(text: str, stage: str, key: str) -> list[Any]:
    """The plain entries of a stage's list, such as its deps, each with its place in the text; none where there is no such list."""
    try:
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # DVC reports what is wrong with it
        return []
    for name in ("stages", stage, key):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == name), None)
    block = isinstance(node, yaml.SequenceNode) and not node.flow_style
    return [item for item in node.value if isinstance(item, yaml.ScalarNode)] if block else []


def _drop_entries(text: str, items: Sequence[Any]) -> str:
    """The text without the lines of these entries."""
    # From the last to the first, so that earlier places stay where they are.
    for item in reversed(items):
        start = text.rfind("\n", 0, item.start_mark.index)
        end = text.find("\n", item.end_mark.index)
        text = text[:start] + text[end if end >= 0 else len(text) :]
    return text


@contextmanager
def open_dvc_pipeline(root: Path) -> Iterator[DvcPipeline]:
    """The project's stages, read once and locked against other DVC commands while in use."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.output import OutputAlreadyTrackedError
    from dvc.repo import Repo

    for name in ("dvc", "dvc_data", "dvc_objects"):  # DVC sets levels when it is imported
        logging.getLogger(name).setLevel(logging.ERROR)
    project_params.require_recorded_sections(root / project_params.PARAMS_FILE)
    prepare_dvc_folder(root)
    _follow_label_delay(root)
    try:
        with Repo(os.fspath(root.resolve())) as repo, repo.lock:
            if not repo.config["cache"].get("shared"):
                # DVC's own is 0444, and what lies in the workspace is a link to it.
                repo.cache.local.CACHE_MODE = 0o400
            yield DvcPipeline(repo, root.resolve())
    except LockError:
        raise Outage(
            f"{root / PIPELINE_FILE}: another DVC command is at work in this folder. Wait for it to end, then run again"
        ) from None
    except OutputAlreadyTrackedError as e:
        raise project_files.explain_tracked_state(root.resolve()) from e
    except DvcException as e:
        if (known := errors.explain_disk_error(e, root)) is not None:
            raise known from e
        raise InputError(
            f"{root / PIPELINE_FILE}: {errors.read_first_line(e)}. Fix it, or delete it and run `windvane init` again"
        ) from e


class DvcPipeline:
    """Stages in their order, each run in this process exactly as `dvc repro` would record it."""

    def __init__(self, repo: Any, root: Path) -> None:
        self._root = root
        # Others may be beside ours, in this dvc.yaml or in one of a folder below.
        own, file = _template(), os.fspath(root / PIPELINE_FILE)
        graph_order = [s for s in repo.index.stages if getattr(s, "name", None) in own and os.fspath(s.path) == file]
        self._stages = {stage.name: stage for stage in _in_order(graph_order)}
        self._complete()
        self._dropped = self._find_dropped_params()

    def _complete(self) -> None:
        """Refuse a dvc.yaml of an older version, in which a stage lacks a file that it now reads or writes."""
        for name, wanted in _template().items():
            stage = self._stages.get(name)
            if stage is None:
                raise InputError(
                    f"{self._root / PIPELINE_FILE}: has no stage {name}. Rename stages of your own that are called "
                    f"{', '.join(_template())}: then the next lap adds those that it needs"
                )
            named = {file.fs_path for file in (*stage.deps, *stage.outs)}
            for file in (*wanted["deps"], *wanted["outs"]):
                if file not in INGEST_INPUTS and os.fspath(self._root / file) not in named:
                    raise InputError(
                        f"{PIPELINE_FILE}: stage {name} does not name {file}, as this version of Windvane needs. Add it under "
                        f"{'deps' if file in wanted['deps'] else 'outs'}, or delete {PIPELINE_FILE}: the next lap writes it anew"
                    )

    def _find_dropped_params(self) -> set[str]:
        """Stages that ran with a param that dvc.yaml names no more: DVC itself does not compare these."""
        recorded = yaml.safe_load(self.lock_text()) or {}
        known = {
            name: content.get("params", {}).get(project_params.PARAMS_FILE, {})
            for name, content in recorded.get("stages", {}).items()
        }
        named = {
            name: {param for dep in stage.deps if _is_params(dep) for param in dep.params}
            for name, stage in self._stages.items()
        }
        return {name for name in named if not known.get(name, {}).keys() <= named[name]}

    @property
    def names(self) -> tuple[str, ...]:
        """Stage names, each after those it depends on."""
        return tuple(self._stages)

    def changed(self, name: str) -> bool:
        """Whether a stage's code line, parameters, inputs or outputs differ from what dvc.lock records."""
        from dvc.dependency.base import DependencyDoesNotExistError

        if name in self._dropped:
            return True
        # DVC hashes what a stage depends on: a pipe would be waited for, a device read, for ever.
        inputs = [Path(dep.fs_path) for dep in self._stages[name].deps if not _is_params(dep)]
        if any(path.exists() and not (path.is_file() or path.is_dir()) for path in inputs):
            return True
        try:
            return bool(self._stages[name].changed())
        except DependencyDoesNotExistError:
            return True

    def clean(self) -> bool:
        """Whether `dvc status` would have nothing to report."""
        return not any(self.changed(name) for name in self.names)

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Do a stage's work in this process, then record its inputs and outputs in dvc.lock and the cache."""
        stage = self._stages[name]
        missing = [dep for dep in stage.deps if not dep.is_in_repo and not dep.exists]
        for dep in [d for d in stage.deps if not d.exists and not _is_params(d)] or missing:
            raise InputError(
                f"{PIPELINE_FILE}: stage {name} needs {dep}, which is not there. Restore it, or name another file in data.source"
            )
        work()
        stage.save(run_cache=False)
        stage.commit()
        stage.dump(update_pipeline=False)
        self._dropped.discard(name)
        io.apply_user_umask(self._root / LOCK_FILE)

    def version(self) -> str | None:
        """The data version: DVC's hash of the split data, as dvc.lock holds it. None before the first lap."""
        outs = self._stages[SPLIT_STAGE].outs
        return str(outs[0].hash_info.value) if outs and outs[0].hash_info else None

    def hashes(self) -> list[str]:
        """The hash of every recorded file, and of every folder's list: what a remote needs to bring them back."""
        outs = [out for stage in self._stages.values() for out in stage.outs if out.hash_info]
        files = [oid for out in outs for _, oid in _files(out)]
        return [*files, *(str(out.hash_info.value) for out in outs if out.is_dir_checksum)]

    def materialise(self, folder: Path) -> None:
        """Link every recorded output below `folder`, at its path, from the cache where DVC keeps it by its hash."""
        for stage in self._stages.values():
            for out in stage.outs:
                for key, oid in _files(out):
                    target = folder.joinpath(Path(out.fs_path).relative_to(self._root), *key)
                    if not target.exists():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        _link(Path(out.cache.oid_to_path(oid)), target)

    def lock_text(self) -> str:
        """dvc.lock as it is: kept with every lap."""
        path = self._root / LOCK_FILE
        return path.read_text(encoding="utf-8") if path.exists() else ""


@cache
def _template() -> dict[str, dict[str, list[str]]]:
    """The stages that `windvane init` writes, by name."""
    stages: dict[str, dict[str, list[str]]] = yaml.safe_load(PIPELINE_TEMPLATE.read_text(encoding="utf-8"))["stages"]
    return stages


def _files(out: Any) -> list[tuple[tuple[str, ...], str]]:
    """(path inside the output, hash) of each file that an output consists of."""
    if not out.is_dir_checksum:
        return [((), out.hash_info.value)]
    return [(key, info.value) for key, _, info in out.get_obj()]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def _is_params(dep: Any) -> bool:
    from dvc.dependency import ParamsDependency

    return isinstance(dep, ParamsDependency)


def _in_order(stages: list[Any]) -> list[Any]:
    """Topological order by who writes what whom reads."""
    made_by = {out.fs_path: stage for stage in stages for out in stage.outs}
    makers = {
        stage: [made_by[path] for dep in stage.deps for path in made_by if f"{dep.fs_path}/".startswith(f"{path}/")]
        for stage in stages
    }
    return list(TopologicalSorter(makers).static_order())
