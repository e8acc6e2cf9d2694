"""
What holds where nothing is said, and names that commands take: for L{hoft.config} and others,
and for the help of L{hoft.cli}, which reads no configuration.
"""

from __future__ import annotations

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"

SUITES = ("box", "authenticated", "checksum")
"""How packets of a peer may be sealed; the first, unless it is said."""

STAGES = (
    "receiving", "accepted", "acked", "executing", "responding",
    "gathering", "queued", "draining",
)  # fmt: skip
"""
Where a call can be.  Ingress: its request comes from its caller, is in our journal, is in
that of the peer, the service works, a response comes.  Egress: its request comes from the
peer, waits for its turn, the service works, a response comes, what is left of an answered
request comes.
"""
