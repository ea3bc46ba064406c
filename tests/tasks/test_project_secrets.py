"""Secrets that a project makes once: the same for all who ask, for its owner's eyes alone."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from windvane.tasks import project_secrets
from windvane.tasks.errors import InputError


def test_all_who_ask_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: project_secrets.read_project_secret(tmp_path / "home"), range(32)))
    assert len(found) == 1
    assert [p.name for p in (tmp_path / "home").iterdir()] == [project_secrets.SECRET_FILE]


def test_only_its_owner_reads_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        project_secrets.read_project_secret(tmp_path / "home")
        project_secrets.renew_project_secret(tmp_path / "home")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / project_secrets.SECRET_FILE).stat().st_mode) == 0o600


def test_a_new_one_replaces_it(tmp_path: Path) -> None:
    old = project_secrets.read_project_secret(tmp_path)
    new = project_secrets.renew_project_secret(tmp_path)
    assert new != old
    assert project_secrets.read_project_secret(tmp_path) == new
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("junk", [b"", b"short", b"\xff\xfe" * 32, b"0" * 63])
def test_junk_is_no_secret(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / project_secrets.SECRET_FILE).write_bytes(junk)
    with pytest.raises(InputError, match="windvane secret --renew"):
        project_secrets.read_project_secret(tmp_path)
