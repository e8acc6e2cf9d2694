"""Which bodies are worth an attempt at compressing them on their way; pure."""

from __future__ import annotations

import re
from typing import Final

from hoft.web.http.heads import Fields

_TEXTUAL: Final = re.compile(
    rb"text/.+|.+\+(?:json|xml|yaml)"
    rb"|application/(?:x-)?(?:javascript|json|jsonl|ndjson|sql|tar|toml|wasm|www-form-urlencoded|xml|yaml)"
)
"""Media types, in lower case and without parameters, of what usually shrinks."""


def compressible(fields: Fields) -> bool:
    """
    Whether the body under these fields may well shrink: neither encoded already
    (RFC 9110 section 8.4), nor of a type that usually is.
    """
    kind = b""
    for name, value in fields:
        if len(name) == 12 and name.lower() == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
        elif len(name) == 16 and name.lower() == b"content-encoding" and value.lower() != b"identity":
            return False
    return _TEXTUAL.fullmatch(kind) is not None
