"""Which node a folder is."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from hoft import config
from hoft.config import CONFIGURATION_FILE, Config
from hoft.identity import IDENTITY_FILE


@frozen
class Place:
    """A node's folder, as commands are given it."""

    state: Path
    """Where its key, journal and socket are."""
    config: Config | None
    """C{None} for the state folder of a node that was told by options (C{twistd hoft --state})."""

    @classmethod
    def of(cls, folder: Path) -> Place:
        """
        Blocks on the disk.

        @param folder: of a C{hoft.toml}, or that file, or a state folder.
        @raise hoft.errors.ConfigurationError: it is none of these, or the file has a mistake.
        """
        # Not Path's own, which raise what these take for a no.
        file = folder if os.path.isfile(folder) else folder / CONFIGURATION_FILE
        if not os.path.exists(file) and os.path.exists(folder / IDENTITY_FILE):
            return cls(Path(os.path.realpath(folder)), None)
        current = config.read(file)
        return cls(current.state, current)

    def names(self) -> dict[bytes, str]:
        """What its peers are called, by their UUIDs."""
        peers = () if self.config is None else self.config.peers
        return {peer.card.uuid.bytes: peer.name for peer in peers}
