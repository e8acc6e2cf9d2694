"""
From what people agreed on, as the configuration has it, to the suites that seal and open.
"""

from __future__ import annotations

from collections.abc import Sequence

from hoft.config import Peer
from hoft.errors import IdentityError
from hoft.identity import Identity, load_psk
from hoft.protocols.sealing import CHECKSUM_SUITE, AuthenticatedSuite, BoxSuite, Suite


def suites_of(peers: Sequence[Peer], identity: Identity) -> dict[str, list[Suite]]:
    """
    What seals for each peer, by its name: by each of our keys, the newest first.
    Takes some 0.2 ms a peer, and blocks on the disk.

    @raise IdentityError: a card or a shared secret cannot be used.
    """
    found: dict[str, list[Suite]] = {}
    for peer in peers:
        if peer.suite == CHECKSUM_SUITE.name:
            found[peer.name] = [CHECKSUM_SUITE]
            continue
        kind = BoxSuite if peer.suite == BoxSuite.name else AuthenticatedSuite
        psk = b"" if peer.psk_file is None else load_psk(peer.psk_file)
        cards = [peer.card] if peer.older_card is None else [peer.card, peer.older_card]
        try:
            found[peer.name] = [
                kind(secret, *(card.public_key for card in cards), psk=psk) for secret in identity.secret_keys
            ]
        except IdentityError as error:
            raise IdentityError(f"the card of {peer.name}: {error}") from error
    return found
