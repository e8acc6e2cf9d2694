"""Which node a folder is."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import frozen

from hoft import config, exposure
from hoft.config import CONFIGURATION_FILE, Config
from hoft.errors import ConfigurationError
from hoft.identity import IDENTITY_FILE
from hoft.running import running_process


@frozen
class Place:
    """A node's folder, as commands are given it."""

    state: Path
    """Where its key, journal and socket are."""
    config: Config | None
    """
    C{None} for the state folder of a node that was told by options (C{twistd hoft --state}), and where
    there is a L{mistake}.
    """
    mistake: ConfigurationError | None = None
    """What is wrong with the file: it is no reason not to ask the node that runs there."""

    @classmethod
    def of(cls, folder: Path) -> Place:
        """
        Blocks on the disk.

        @param folder: of a C{hoft.toml}, or that file, or a state folder.
        @raise ConfigurationError: it is none of these; or the file has a mistake, and no node runs beside it.
        """
        # Not Path's own, which raise what these take for a no.
        file = folder if os.path.isfile(folder) else folder / CONFIGURATION_FILE
        if not os.path.exists(file) and os.path.exists(folder / IDENTITY_FILE):
            return cls(Path(os.path.realpath(folder)), None)
        try:
            current = config.read(file)
            exposure.check(current)
        except ConfigurationError as error:
            state = Path(os.path.realpath(file.parent))
            if running_process(state) is None:
                raise
            return cls(state, None, error)
        return cls(current.state, current)

    def names(self) -> dict[bytes, str]:
        """What its peers are called, by their UUIDs."""
        peers = () if self.config is None else self.config.peers
        return {peer.card.uuid.bytes: peer.name for peer in peers}
