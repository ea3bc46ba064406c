"""S3-compatible storage: which objects there are, and copies of them, streamed. Needs windvane[s3].

Endpoint, keys and region come from the usual AWS_* variables (AWS_ENDPOINT_URL for another service than Amazon's).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from windvane.tasks.data_settings import Revealed
from windvane.tasks.errors import InputError, Outage
from windvane.tasks.origins.files import Listed, endings, suffix

_ATTEMPTS = 3
_CONNECT_SECONDS = 10


class Files:
    """The objects below a prefix, or that a glob matches."""

    def __init__(self, source: Revealed, _: Path) -> None:
        self._source = source
        try:
            import s3fs
        except ImportError:
            raise InputError(
                f"data.source: {source.where} needs s3fs. Install it: pip install 'windvane[s3]'"
            ) from None
        times = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": source.data.timeout}
        config = {**times, "retries": {"max_attempts": _ATTEMPTS}}
        # Not from fsspec's caches: instances of another endpoint, and listings of earlier.
        self._storage = s3fs.S3FileSystem(config_kwargs=config, skip_instance_cache=True, use_listings_cache=False)
        self._storage.retries = _ATTEMPTS

    def listed(self) -> tuple[Listed, ...]:
        """The tables there, by name, with their ETags. Raises InputError when there is none."""
        place = self._source.data.source.removeprefix("s3://").rstrip("/")
        look = self._storage.glob if any(mark in place for mark in "*?[") else self._storage.find
        with self._explained():
            found = look(place, detail=True)
        files = [
            Listed(name, _etag(facts), int(facts["size"]))
            for name, facts in sorted(found.items())
            if facts.get("type") == "file" and suffix(name)
        ]
        if not files:
            raise InputError(f"data.source: {self._source.where}: holds no table. Its objects must end in {endings()}")
        return tuple(files)

    def copy(self, file: Listed, to: Path) -> None:
        """Stream one object to a file. Raises Outage when it breaks off, or changes meanwhile."""
        with self._explained():
            self._storage.get_file(file.name, str(to))
            now = self._storage.info(file.name, refresh=True)
        if _etag(now) != file.etag or to.stat().st_size != file.bytes:
            raise Outage(f"data.source: s3://{file.name}: changed while it was read. Run again when its writer is done")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A storage's errors in words: whose fault it is and what to do."""
        import botocore.exceptions as aws

        where = self._source.where
        try:
            yield
        except (aws.NoCredentialsError, aws.PartialCredentialsError, PermissionError) as e:
            raise InputError(
                f"data.source: {where}: is not yours to read ({_said(e)}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except FileNotFoundError as e:
            raise InputError(f"data.source: {where}: is not there ({_said(e)}). Mend bucket or prefix") from None
        except (OSError, aws.BotoCoreError, aws.ClientError) as e:
            raise Outage(
                f"data.source: {where}: the storage does not answer ({_said(e)}). Start it, or mend AWS_ENDPOINT_URL"
            ) from None


def _etag(facts: Any) -> str:
    return str(facts.get("ETag", "")).strip('"')


def _said(error: BaseException) -> str:
    """The kind of error and its first words; storage errors name buckets and endpoints, never keys."""
    return " ".join([type(error).__name__, *str(error).split()])[:200].rstrip(".")
