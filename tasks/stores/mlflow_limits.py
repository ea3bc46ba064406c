"""What MLflow takes: which keys, and how long names and values may be. What is more is cut: no column's name ends a lap in its log."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from typing import Any

MAX_KEY_LETTERS = 250
MAX_PARAM_LETTERS = 6000
MAX_TAG_LETTERS = 8000
# MLflow counts the names of runs and of datasets less strictly than its database's columns do.
MAX_NAME_LETTERS = 250
MAX_DESCRIPTION_LETTERS = 5000
MAX_DIGEST_LETTERS = 36
# A little less than the limit of a dataset's list of columns.
MAX_SCHEMA_LETTERS = 1_000_000
_HASH_LETTERS = 8


def make_key(name: str) -> str:
    """The key of a metric, param or tag that is called `name`: the name itself where MLflow takes it; else what it takes of it, with a
    hash of the whole name behind, so that different names have different keys.
    """
    valid = re.fullmatch(r"[/\w.\- :]+", name) and posixpath.normpath(name) == name and name[0] not in "./"
    if valid and len(name) <= MAX_KEY_LETTERS:
        return name
    readable = re.sub(r"[^\w.\- :]", "_", name)[: MAX_KEY_LETTERS - _HASH_LETTERS - 1].lstrip(".")
    return f"{readable}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH_LETTERS]}"


def cut_values(content: Mapping[str, Any], most: int) -> dict[str, str]:
    """Names and values as keys and texts of at most so many letters."""
    return {make_key(name): str(value)[:most] for name, value in content.items()}


def format_schema(columns: Mapping[str, str]) -> str:
    """The columns (name to MLflow's type) as a dataset's schema in JSON; of a very wide table the first ones, and how many more."""
    entries, letters = list[dict[str, Any]](), 0
    for name, kind in columns.items():
        entry = {"name": name, "type": kind, "required": True}
        letters += len(json.dumps(entry)) + 2
        if letters > MAX_SCHEMA_LETTERS:
            more = f"... {len(columns) - len(entries):,} more columns"
            entries.append({"name": more, "type": "string", "required": False})
            break
        entries.append(entry)
    return json.dumps({"mlflow_colspec": entries})
