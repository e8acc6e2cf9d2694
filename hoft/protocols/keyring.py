"""
Which of our keys a peer is spoken to with, while we have two; pure.

The rules are in C{docs/protocol.rst}, section "Two keys at once".
"""

from __future__ import annotations

from collections.abc import Sequence

from hoft.errors import PacketError, PacketReason
from hoft.protocols.layout import Header
from hoft.protocols.sealing import Suite


class Keyring:
    """
    The suite that is agreed on with one peer, with each of our keys.

    L{for_opening} may be called on any thread, all else on the reactor thread.
    """

    def __init__(self, suites: Sequence[Suite]) -> None:
        """@param suites: by one of our keys each, the newest first; all of one kind."""
        self._suites = tuple(suites)
        # Until the peer was heard, the older key is the one that it surely has.
        self._current = self._suites[-1]
        self._asked = 0
        self._boot = 0
        self._number = 0

    @property
    def suite(self) -> Suite:
        """The one that is sealed with at present."""
        return self._current

    def replace(self, suites: Sequence[Suite]) -> bool:
        """
        Our keys, the peer's, or what is agreed on may have changed.

        @return: whether they have.
        """
        wanted, before = self._current.own_key_id, self._suites
        self._suites = tuple(suites)
        self._current = next((one for one in self._suites if one.own_key_id == wanted), self._suites[-1])
        return self._suites != before

    def for_sealing(self, asking: bool) -> Suite:
        """
        @param asking: the packet has nothing but C{probe} to say, or what may be lost:
            such go with each of our keys in turn for as long as nothing is heard.
        """
        if not asking or len(self._suites) == 1:
            return self._current
        at = self._suites.index(self._current) + self._asked
        self._asked += 1
        return self._suites[at % len(self._suites)]

    def for_opening(self, header: Header) -> Suite:
        """
        @param header: of a packet of the peer's, by which nothing is proven yet.
        @return: what could open it; its number need not be the packet's.
        @raise PacketError: (C{UNKNOWN_KEY}) it is sealed for a key that is none of ours.
        """
        suites = self._suites
        for suite in suites:
            if suite.own_key_id == header.key_id or suite.number != header.suite:
                return suite
        raise PacketError(PacketReason.UNKNOWN_KEY, f"{header.key_id:04x}")

    def heard(self, header: Header) -> bool:
        """
        A packet of the peer's has authenticated.  Which of our keys it was sealed
        for, the peer has; if packets come out of order, the last that was sent counts.

        @return: whether another of our keys is used from now on.
        """
        self._asked = 0
        if header.boot == self._boot and header.number < self._number:
            return False
        self._boot, self._number = header.boot, header.number
        before = self._current
        for suite in self._suites:
            if suite.own_key_id == header.key_id:
                self._current = suite
        return self._current is not before
