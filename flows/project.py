"""One project as the commands see it: its folder, its settings, and the services it uses, each opened when first asked."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windvane.tasks import addresses, places, secret
from windvane.tasks import settings as params
from windvane.tasks.places import HOME
from windvane.tasks.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    import sqlalchemy as sa

    from windvane.ledger.privacy import Privacy
    from windvane.ledger.versions import Version
    from windvane.tasks.tracking import Tracker


class Project:
    """The project in `root`, the folder of params.yaml."""

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        self.root = root.resolve()
        self.settings: Settings = settings or params.load(root / params.PARAMS)
        self.home = self.root / HOME
        places.repair(self.root)

    @property
    def name(self) -> str:
        """`project` of params.yaml: names the experiment, the registered model, and the rows in the ledger."""
        return self.settings.project

    @cached_property
    def secret(self) -> str:
        """The project's own secret: every server that Windvane starts for it asks for it."""
        return secret.of(self.home)

    @cached_property
    def ledger(self) -> sa.Engine:
        """The ledger, migrated. Raises what flows/opening.py says of one that cannot be opened."""
        from windvane.flows import opening

        return opening.ledger(self)

    @cached_property
    def privacy(self) -> Privacy:
        """What of a request the ledger may keep. Raises InputError for a column that neither schema.yaml nor the champion knows."""
        from windvane.ledger import versions
        from windvane.tasks import privacy

        if not (self.settings.ledger.drop or self.settings.ledger.hash):
            return privacy.of(self.settings, self.home)
        from windvane.tasks import contract

        champion, agreed = versions.champion(self.ledger, self.name), contract.load(self.root / contract.SCHEMA)
        known = {name for names in champion.facts["columns"].values() for name in names} if champion else set()
        known |= set(agreed.columns) if agreed else set()
        # Before the first lap nothing is known, and nothing answered.
        return privacy.of(self.settings, self.home, known or None)

    @cached_property
    def tracker(self) -> Tracker:
        """MLflow, at MLFLOW_TRACKING_URI or in .windvane/."""
        from windvane.flows import opening
        from windvane.tasks.tracking import Tracker

        opening.no_store_is_missed(self)
        return Tracker(self.name, self.home, self.tracking_uri)

    @property
    def tracking_uri(self) -> str | None:
        """MLFLOW_TRACKING_URI, or None for the project's own store."""
        return os.environ.get("MLFLOW_TRACKING_URI") or None

    def relative(self, address: str) -> str:
        """An artifact's address as the ledger keeps it: relative to the project where it lies inside, so that the folder may move."""
        path = addresses.on_disk(address)
        inside = path is not None and path.is_absolute() and path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if path is not None and inside else address

    def absolute(self, address: str) -> str:
        """What `relative` returned, as MLflow knows it."""
        path = addresses.on_disk(address)
        return address if path is None else (self.root / path).as_uri()

    def fetch(self, address: str, digest: str | None = None) -> Path:
        """A local path with the content of what `relative` returned. digest: the sha256 that a downloaded copy must have."""
        path = addresses.on_disk(address)
        if path is not None:
            return self.root / path
        from windvane.tasks.downloads import fetched

        return fetched(address, self.home / "downloads", self.tracking_uri, digest)

    def artifact(self, version: Version, name: str, digest: str | None = None) -> Path:
        """An artifact of the run that made a version, as a local path."""
        return self.fetch(addresses.join(addresses.parent(version.model_uri), name), digest)

    def record(self, version: Version) -> pd.DataFrame:
        """A version's held-out rows with its predictions, as stored when the test side was opened. Raises Corrupted."""
        from windvane.tasks.artifacts import sha256
        from windvane.tasks.errors import Corrupted
        from windvane.tasks.tables import read_parquet

        path = self.artifact(version, "record.parquet", version.record_sha256)
        if sha256(path) != version.record_sha256:
            raise Corrupted(
                f"{path}: the held-out predictions of version {version.version} were changed. Restore the file from a backup"
            )
        return read_parquet(path)

    def stored(self, version: Version) -> Path:
        """The local folder of a version's model, its bytes yet to be checked. Raises Corrupted where the store has it no more."""
        from windvane.tasks.errors import Corrupted

        try:
            return self.fetch(version.model_uri, version.manifest_sha256)
        except FileNotFoundError as e:
            raise Corrupted(
                f"version {version.version}: {e}. Restore its run's artifacts from a backup, or serve another version"
            ) from None

    def model(self, version: Version) -> Any:
        """A version's fitted pipeline, its bytes checked first. Raises Corrupted."""
        from windvane.tasks.artifacts import load

        return load(self.stored(version), version.manifest_sha256)
