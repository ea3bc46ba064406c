"""Where Windvane keeps what is its own in a project: below .windvane, and nowhere else but in the files that people edit."""

from __future__ import annotations

from pathlib import Path

HOME = Path(".windvane")
# What DVC's stages write, and what is fetched for them to read.
DATA = HOME / "data"
