"""Where predictions may be written: never over the rows that are scored, and in a folder that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from windvane.flows import score_files
from windvane.tasks.errors import InputError


@pytest.mark.parametrize("target", ["new.csv", "./new.csv", "link.csv"])
def test_the_file_that_is_scored_is_not_written_over(tmp_path: Path, target: str) -> None:
    (tmp_path / "new.csv").write_text("size\n1\n")
    (tmp_path / "link.csv").symlink_to("new.csv")
    with pytest.raises(InputError, match="is the file that is scored"):
        score_files.check_score_files(tmp_path / "new.csv", tmp_path / target)


def test_no_folder_is_made_for_a_slip(tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("size\n1\n")
    with pytest.raises(InputError, match="Make it first"):
        score_files.check_score_files(tmp_path / "new.csv", tmp_path / "nope" / "out.csv")
    assert not (tmp_path / "nope").exists()
