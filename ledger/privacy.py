"""Which inputs of a prediction may be stored: columns dropped or hashed, and the share of rows that keep inputs.

Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# In place of a hashed value stands {HASHED: its hash}: nobody takes it for the value.
HASH_KEY = "hashed"


@dataclass(frozen=True)
class PrivacyRules:
    """Columns that are not stored, columns stored as keyed hashes, and the share of predictions that keep inputs."""

    drop: frozenset[str] = frozenset()
    hash: frozenset[str] = frozenset()
    sample: float = 1.0
    key: bytes = b""

    def __post_init__(self) -> None:
        if self.hash and len(self.key) < 16:
            raise ValueError("a hash without a key of at least 16 bytes is undone by guessing")

    def inputs(self, id: str, inputs: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The inputs as they may be stored, or None. The same id is always sampled alike: a repeat stays a repeat."""
        if inputs is None or (self.sample < 1 and _map_id_to_share(id) >= self.sample):
            return None
        if not self.drop and not self.hash:
            return inputs
        kept = {name: value for name, value in inputs.items() if name not in self.drop}
        return kept | {name: {HASH_KEY: self.hashed(name, kept[name])} for name in self.hash if name in kept}

    def hashed(self, column: str, value: Any) -> str | None:
        """The hash that is stored for a value of a column: 32 digits; missing stays missing.

        BLAKE2b with the key, over column and value, so that nobody finds the value by trying all there are.
        """
        if value is None or value != value:  # noqa: PLR0124 (NaN)
            return None
        said = f"{column}\0{self.plain(value)}".encode()
        return hashlib.blake2b(said, digest_size=16, key=self.key[:64]).hexdigest()

    @staticmethod
    def plain(value: Any) -> str:
        """A value as text, whatever type it came in: 1, 1.0 and "1" are the same customer's number."""
        if hasattr(value, "item"):
            value = value.item()
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value) if whole else value)


def _map_id_to_share(id: str) -> float:
    """A number in [0, 1) that only the id decides."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big") / 2**64
