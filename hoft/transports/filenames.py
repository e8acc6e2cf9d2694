"""
The names of packet files: the only thing about a file that can be known before it is read.

C{<sender>--<recipient>--<boot>-<number>.hoft}, with both UUIDs in their
36 character form and boot and number as 16 hexadecimal digits: 114 characters,
all of them lower-case letters, digits, C{-} and C{.}, so that no file system
folds, shortens or escapes them.  Of one boot, names sort by age.

A name is a hint, for fairness and for finding one's own files; only the
authenticated header decides what a file is.  What does not match in full
(C{.part}, C{~}, C{sync-conflict} and all else that mirrors leave about) is not
a packet.
"""

from __future__ import annotations

import re
from uuid import UUID

from attrs import frozen

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = re.compile(
    f"(?P<sender>{_UUID})--(?P<recipient>{_UUID})--(?P<boot>[0-9a-f]{{16}})-(?P<number>[0-9a-f]{{16}})[.]hoft",
    re.ASCII,
)

SUFFIX = ".hoft"
"""How the name of every packet file ends."""


@frozen
class FileName:
    """
    A packet file's name, taken apart.

    @ivar boot: 64 random bits of the sender's process.
    @ivar number: counts that process's files, 64 bits; never used twice.
    """

    sender: UUID
    recipient: UUID
    boot: int
    number: int

    def __str__(self) -> str:
        return f"{self.sender}--{self.recipient}--{self.boot:016x}-{self.number:016x}{SUFFIX}"

    @property
    def temporary(self) -> str:
        """The hidden name under which the file is written before it is published."""
        return temporary(str(self))

    @classmethod
    def parse(cls, text: str) -> FileName | None:
        """The parts of a base name, or L{None} where it is not exactly a packet's."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        return cls(
            UUID(match["sender"]), UUID(match["recipient"]), int(match["boot"], 16), int(match["number"], 16)
        )


def temporary(name: str) -> str:
    """The hidden name under which the packet file C{name} is written before it is published."""
    return "." + name


def published(text: str) -> FileName | None:
    """The packet that would have been published from this temporary name, or L{None}."""
    return FileName.parse(text[1:]) if text.startswith(".") else None
