"""
The names of packet files: the only thing about a file that can be known before it is read.

L{LONG}: C{<sender>--<recipient>--<boot>-<number>.hoft}, with both UUIDs in their
36 character form and boot and number as 16 hexadecimal digits: 114 characters,
all of them lower-case letters, digits, C{-} and C{.}, so that no file system
folds, shortens or escapes them.  Of one boot, names sort by age.

A name is a hint, for fairness and for finding one's own files; only the
authenticated header decides what a file is.  What does not match in full
(C{.part}, C{~}, C{sync-conflict} and all else that mirrors leave about) is not
a packet.

For carriers that do not pass such names there are other L{Naming}s; both
sides need the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol
from uuid import UUID

from attrs import frozen

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NAME = re.compile(
    f"({_UUID})--({_UUID})--([0-9a-f]{{16}})-([0-9a-f]{{16}})[.]hoft",
    re.ASCII,
)

SUFFIX = ".hoft"
"""How the name of every packet file ends."""


@frozen
class FileName:
    """
    A packet file's name, taken apart.

    @ivar sender: L{None} where the name does not tell; C{recipient} likewise.
    @ivar boot: 64 random bits of the sender's process.
    @ivar number: counts that process's files, 64 bits; never used twice.
    """

    sender: UUID | None
    recipient: UUID | None
    boot: int
    number: int

    def __str__(self) -> str:
        return f"{self.sender}--{self.recipient}--{self.boot:016x}-{self.number:016x}{SUFFIX}"

    @classmethod
    def parse(cls, text: str) -> FileName | None:
        """The parts of a base name, or L{None} where it is not exactly a packet's."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        sender, recipient, boot, number = match.groups()
        return cls(_uuid(sender), _uuid(recipient), int(boot, 16), int(number, 16))


class Naming(Protocol):
    """How packet files are called, and the folders that they lie in."""

    def folder(self, node: UUID) -> str:
        """Of the folder with the files for C{node}."""

    def text(self, name: FileName) -> str:
        """The base name."""

    def parse(self, text: str) -> FileName | None:
        """The parts of a base name, or L{None} where it is not exactly a packet's."""

    def mark(self, node: UUID) -> str:
        """Something that the names of all files for C{node} have in them."""

    def temporary(self, text: str) -> str:
        """The name under which a file is written before it is published under C{text}."""

    def published(self, text: str) -> FileName | None:
        """The packet that would have been published from this temporary name, or L{None}."""

    def is_temporary(self, text: str) -> bool:
        """Whether nobody is to be told of what has this name, since it is not ready."""


@frozen
class LongNaming:
    """
    Names that tell all there is; see this module.

    @ivar prefix: what they begin with.
    @ivar suffix: what they end with.
    """

    prefix: str = ""
    suffix: str = SUFFIX

    def folder(self, node: UUID) -> str:
        """Its UUID."""
        return str(node)

    def text(self, name: FileName) -> str:
        """See L{Naming.text}."""
        return f"{self.prefix}{str(name).removesuffix(SUFFIX)}{self.suffix}"

    def parse(self, text: str) -> FileName | None:
        """See L{Naming.parse}."""
        if self.suffix != SUFFIX or self.prefix:
            if not (text.startswith(self.prefix) and text.endswith(self.suffix)):
                return None
            text = text[len(self.prefix) : len(text) - len(self.suffix)] + SUFFIX
        return FileName.parse(text)

    def mark(self, node: UUID) -> str:
        """Its UUID."""
        return str(node)

    def temporary(self, text: str) -> str:
        """A hidden one."""
        return "." + text

    def published(self, text: str) -> FileName | None:
        """See L{Naming.published}."""
        return self.parse(text[1:]) if text.startswith(".") else None

    def is_temporary(self, text: str) -> bool:
        """All hidden ones, whoever made them."""
        return text.startswith(".")


@frozen
class ShortNaming:
    """
    Names of eight letters and digits, a dot and an extension; upper case is as
    good.  They tell neither sender nor boot, so nobody clears away what an
    earlier process of his left, and all senders share one turn.

    @ivar suffix: what they end with.
    """

    suffix: str = SUFFIX[:4]

    def folder(self, node: UUID) -> str:
        """Eight letters and digits, which come of its UUID."""
        return _base32(_hash(node.bytes))

    def text(self, name: FileName) -> str:
        """Numbers begin anywhere: that two processes use the same is unlikely, and costs a retransmission."""
        begin = _hash(b"%b%d" % (b"" if name.sender is None else name.sender.bytes, name.boot))
        return _base32((begin + name.number) % (1 << 40)) + self.suffix

    def parse(self, text: str) -> FileName | None:
        """See L{Naming.parse}."""
        base = text[:8].lower()
        if text[8:].lower() != self.suffix or len(base) < 8 or not _BASE32.issuperset(base):
            return None
        number = 0
        for letter in base:
            number = number << 5 | _LETTERS.index(letter)
        return FileName(None, None, 0, number)

    def mark(self, node: UUID) -> str:
        """Nothing."""
        return ""

    def temporary(self, text: str) -> str:
        """With another extension."""
        return text[:8] + _TEMPORARY

    def published(self, text: str) -> FileName | None:
        """See L{Naming.published}."""
        return self.parse(text[:8] + self.suffix) if text.endswith(_TEMPORARY) else None

    def is_temporary(self, text: str) -> bool:
        """Hidden ones as well."""
        return text.startswith(".") or text.lower().endswith(_TEMPORARY)


_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32 = frozenset(_LETTERS)
_TEMPORARY = ".tmp"

_uuid = lru_cache(maxsize=256)(UUID)
"""Few nodes send many files."""

LONG = LongNaming()
"""How files are called wherever that can be had."""


def _hash(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=5).digest(), "big")


def _base32(number: int) -> str:
    return "".join(_LETTERS[number >> shift & 31] for shift in range(35, -1, -5))
