"""The tokens of callers."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable

from hoft.config import TOKEN_HASH


def make_token(entropy: Callable[[int], bytes]) -> str:
    """A token that nobody has had before: letters, digits, C{-} and C{_}."""
    return urlsafe_b64encode(entropy(32)).rstrip(b"=").decode("ascii")


def hash_token(token: bytes) -> str:
    """What the configuration keeps of a token."""
    return TOKEN_HASH + hashlib.sha256(token).hexdigest()
