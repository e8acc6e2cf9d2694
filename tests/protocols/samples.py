"""Two nodes with fixed keys, and packets between them, for the tests of layer 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

from nacl.bindings import crypto_scalarmult_base

from hoft.errors import PacketError, PacketReason
from hoft.protocols.packets import (
    DEFAULT_STRIDE,
    Event,
    Header,
    PacketReader,
    PacketWriter,
    Record,
    plan_frames,
)
from hoft.protocols.sealing import AuthenticatedSuite, BoxSuite, ChecksumSuite, Suite


class Node:
    """A node as the reading and writing of packets needs it."""

    def __init__(self, name: str) -> None:
        self.uuid = blake2b(name.encode(), digest_size=16).digest()
        self.secret = blake2b(name.encode(), digest_size=32).digest()
        self.public = crypto_scalarmult_base(self.secret)

    def suite(self, peer: Node) -> Suite:
        return BoxSuite(self.secret, peer.public)

    def accept(self, *peers: Node, agreed: Agreed | None = None) -> Callable[[Header], Suite]:
        """What a router does with a header: one of these peers, to us, by the agreed suite."""
        known = {peer.uuid: (agreed or Node.suite)(self, peer) for peer in peers}

        def accept(header: Header) -> Suite:
            if header.sender == self.uuid:
                raise PacketError(PacketReason.REFLECTED)
            if header.recipient != self.uuid:
                raise PacketError(PacketReason.RECIPIENT)
            suite = known.get(header.sender)
            if suite is None:
                raise PacketError(PacketReason.STRANGER)
            return suite

        return accept


Agreed = Callable[[Node, Node], Suite]
"""Makes what the first node uses with the second."""

PSK = bytes(range(100, 132))

SUITES: dict[str, Agreed] = {
    "box": Node.suite,
    "box with a psk": lambda own, peer: BoxSuite(own.secret, peer.public, psk=PSK),
    "authenticated": lambda own, peer: AuthenticatedSuite(own.secret, peer.public),
    "authenticated with a psk": lambda own, peer: AuthenticatedSuite(own.secret, peer.public, psk=PSK),
    "checksum": lambda own, peer: ChecksumSuite(),
}
"""All that two nodes can agree on."""

NEAR = Node("near")
FAR = Node("far")
THIRD = Node("third")


def chance(seed: int) -> Callable[[int], bytes]:
    """A source of entropy that repeats."""

    def entropy(count: int) -> bytes:
        return blake2b(seed.to_bytes(8, "big"), digest_size=count).digest()

    return entropy


def writer(
    control: bytes,
    frames: Sequence[Sequence[Record]],
    *,
    sender: Node = NEAR,
    recipient: Node = FAR,
    suite: Suite | None = None,
    number: int = 1,
    boot: int = 0x2222,
    stride: int = DEFAULT_STRIDE,
    seed: int = 0,
    hedge: bytes = b"",
) -> PacketWriter:
    return PacketWriter(
        suite or sender.suite(recipient),
        chance(seed),
        control,
        [[len(record.payload) for record in frame] for frame in frames],
        sender=sender.uuid,
        recipient=recipient.uuid,
        incarnation=0x1111,
        boot=boot,
        recipient_incarnation=0x3333,
        challenge=0x4444,
        echo=0x5555,
        number=number,
        hedge=hedge,
        stride=stride,
    )


def parts(made: PacketWriter, frames: Sequence[Sequence[Record]]) -> list[bytes]:
    """The pieces that a packet is written in."""
    return [made.begin(), *(made.frame(frame) for frame in frames), made.end()]


def packet(
    control: bytes,
    frames: Sequence[Sequence[Record]],
    *,
    sender: Node = NEAR,
    recipient: Node = FAR,
    stride: int = DEFAULT_STRIDE,
) -> bytes:
    made = writer(control, frames, sender=sender, recipient=recipient, stride=stride)
    return b"".join(parts(made, frames))


def grouped(records: Sequence[Record], stride: int = DEFAULT_STRIDE) -> list[list[Record]]:
    """Records in frames, as C{plan_frames} has them."""
    frames: list[list[Record]] = []
    at = 0
    for count in plan_frames([len(record.payload) for record in records], stride):
        frames.append(list(records[at : at + count]))
        at += count
    return frames


def read(data: bytes, *, at: Node = FAR, peers: Sequence[Node] = (NEAR,)) -> list[Event]:
    """All that one node reads in these bytes."""
    return PacketReader(at.accept(*peers)).feed(data)
