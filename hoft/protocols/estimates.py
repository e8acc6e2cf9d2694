"""What was learned of a carrier, as it is kept over restarts; pure."""

from __future__ import annotations

import json

from attrs import asdict, frozen


@frozen
class Estimates:
    """
    Seconds and bytes.  Waits that grew because nothing was heard are not among them: a
    start is a reason to try again.
    """

    smoothed: float
    """The round trip."""
    variation: float
    slowest: float
    """The 99th percentile."""
    per_file: float
    per_byte: float
    packet_size: int

    def encode(self) -> bytes:
        """For the journal."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Estimates:
        """
        @raise ValueError: not what L{encode} gave.
        """
        try:
            return cls(**json.loads(data))
        except TypeError as error:
            raise ValueError(str(error)) from error
