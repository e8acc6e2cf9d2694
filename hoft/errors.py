"""
Everything hoft raises, as one tree that tells whose fault it is.

- L{LocalError}: we, our user or our machine.  The message says what, where
  and what to do next; the command line prints it as one line and exits 2.
- L{PeerError}: what arrived is not what the protocol allows.  It never harms
  the node; it is counted by its C{reason}.
- L{CarrierError}: what lies between the nodes (a folder, a bucket) failed.
  It is retried.
"""

from __future__ import annotations

import re
from enum import StrEnum

_LONGEST = 600
"""Characters of each part of a message that says what was given."""

_USER = re.compile(r"(://)[^\s'\"]*@")


class HoftError(Exception):
    """The root: catch it to catch all that hoft raises on purpose."""


class LocalError(HoftError):
    """Our side is wrong: configuration, key files, journal, a refused call."""


class ConfigurationError(LocalError):
    """
    One mistake in a configuration, named so that it can be mended.

    @param where: the file, or C{"command line"}.
    @param key: dotted name of the key or option, C{""} for the whole file.
    @param given: what was found there, never a secret: who stands before the host of a URL is left out.
    @param wanted: what would be right.
    """

    def __init__(self, where: str, key: str, given: str, wanted: str) -> None:
        self.where = where
        self.key = key
        self.given = given = _USER.sub(r"\1...@", given)
        self.wanted = wanted
        place = f"{where}: {_shortened(key)}" if key else where
        super().__init__(f"{place}: {_shortened(given)}; wanted: {_shortened(wanted)}")


def _shortened(text: str) -> str:
    """Both ends of it: what was given stands at the one, what is wrong with it at the other."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"


class IdentityError(LocalError):
    """The node's key or a card is missing, malformed or readable by others."""


class JournalError(LocalError):
    """The journal cannot be opened or written."""


class JournalInUse(JournalError):
    """Another process holds this node's state; two would corrupt the log."""


class JournalFull(JournalError):
    """A commit was refused for want of space; nothing of it was written."""


class PayloadLost(JournalError):
    """A payload is not there, or not what was stored: discarded, lost in a power cut, or a bad disk."""


class PayloadDamaged(PayloadLost):
    """
    What the journal's files hold is not what was stored there.

    @ivar found: what they hold in its place, at most as many bytes; C{b""} where the file is gone, or
        the disk does not give it.
    """

    def __init__(self, message: str, found: bytes = b"") -> None:
        self.found = found
        super().__init__(message)


class RecordDamaged(PayloadDamaged):
    """
    So it is with a record that is to be sent.

    @ivar number: of the record.
    """

    def __init__(self, number: int, damage: PayloadDamaged) -> None:
        self.number = number
        super().__init__(str(damage), damage.found)


class NodeNotRunning(LocalError):
    """No node runs on this state folder."""


class NodeSilent(LocalError):
    """A process holds this state folder, but does not answer."""


class NodeRefuses(LocalError):
    """A node that runs does not do what it was asked to, and says why."""


class WorkerStopped(LocalError):
    """Work was given to a thread that has been stopped."""


class LinkClosed(LocalError):
    """The link was closed before this was committed or, of a message, known to be delivered."""


class UnknownPeer(LocalError):
    """The running node has no link of that name."""


class MessageTooLarge(LocalError):
    """More than one message, or one commit, may have."""


class MessageConsumed(LocalError):
    """A message was to be consumed a second time."""


class MessageExpired(LocalError):
    """A message was not sent within its time, and will not be."""


class MessageUncertain(HoftError):
    """The log began anew under a message: it may have been delivered, or not."""


class PacketReason(StrEnum):
    """Why a packet, or what followed its last good frame, was not accepted."""

    TOO_SHORT = "too-short"
    NOT_HOFT = "not-hoft"
    VERSION = "version"
    SUITE = "suite"
    GEOMETRY = "geometry"
    RECIPIENT = "recipient"
    REFLECTED = "reflected"
    STRANGER = "stranger"
    KEY = "key"
    UNKNOWN_KEY = "unknown-key"
    FORGED = "forged"
    MALFORMED = "malformed"


class PeerError(HoftError):
    """The other side, or somebody posing as it, sent what it must not."""


class PacketError(PeerError):
    """
    A packet is refused.

    @ivar reason: what was wrong, a stable word that is also the counter's.
    """

    def __init__(self, reason: PacketReason, detail: str = "") -> None:
        self.reason = reason
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)


class RecordError(PeerError):
    """An authenticated record does not have the form its channel requires."""


class CarrierError(HoftError):
    """The carrier failed: a missing root, no space, no right, a stale mount."""


class CarrierFull(CarrierError):
    """
    There was no room for all of a file, nor for all that lies there.

    @ivar written: bytes of it that there was room for.
    """

    def __init__(self, message: str, written: int) -> None:
        self.written = written
        super().__init__(message)


class CarrierDown(CarrierError):
    """The carrier as a whole is unusable for now, for instance unmounted."""
