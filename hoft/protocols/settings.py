"""
How a link behaves; pure.
"""

from __future__ import annotations

from attrs import field, frozen

from hoft.protocols.layout import DEFAULT_STRIDE
from hoft.protocols.pacing import Limits
from hoft.protocols.sizing import LARGEST, SMALLEST
from hoft.protocols.timing import TimingSettings


@frozen
class Settings:
    """Sizes in bytes, times in seconds."""

    packet_size: int = LARGEST
    """No file is to be longer, but for the sake of a single record."""
    stride: int = DEFAULT_STRIDE
    timing: TimingSettings = field(factory=TimingSettings)
    hello_first: float = 1.0
    """Until synchronised: the wait before the greeting is repeated, longer each time."""
    hello_spread: float = 0.0
    """
    Of a node with many peers: the first greeting of each comes within so long, and is repeated
    after that, twice that, and so on, for as long as the peer was not heard of in this boot.
    """
    heartbeat: float = 0.0
    """After so long a silence the peer is asked whether it is there; 0 is never."""
    limits: Limits = field(factory=Limits)
    """What the user allows."""
    padding: int = 0
    """Bytes after the end of each packet, for carriers that lose a few there."""
    compress: bool = True
    """Whether records that ask for it are compressed, where the suite lets that be."""

    @property
    def largest_packet(self) -> int:
        """C{packet_size}, as far as C{limits} let it be."""
        allowed = int(self.limits.bytes_per_second)
        # Else one file would use up the allowance for long, whatever comes after it.
        return min(self.packet_size, max(allowed, SMALLEST)) if allowed else self.packet_size
