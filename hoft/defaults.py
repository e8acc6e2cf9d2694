"""
What holds where nothing is said: for L{hoft.config}, and for the help of L{hoft.cli},
which reads no configuration.
"""

from __future__ import annotations

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"

SUITES = ("box", "authenticated", "checksum")
"""How packets of a peer may be sealed; the first, unless it is said."""
