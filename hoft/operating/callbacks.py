"""
C{hoft callbacks}: responses that are to be sent to receivers yet, or that nobody tries to send any more.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from hoft.local_socket import ask
from hoft.operating.places import Place
from hoft.operating.wording import counted, printable

_DEAD, _NONE = 1, 0
"""Exit codes."""


def callbacks(options: Namespace) -> int:
    """C{hoft callbacks}."""
    place = Place.of(options.folder)
    if options.resend is not None:
        sent = ask(place.state, "resend", which=options.resend)
        print(json.dumps({"resent": sent}) if options.json else f"{counted(sent, 'callback')} sent again")
        return 0
    found = ask(place.state, "callbacks")
    listed: Sequence[Mapping[str, Any]] = found["callbacks"]
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(*lines(found["count"], listed), sep="\n")
    return _DEAD if any(one["state"] == "dead" for one in listed) else _NONE


def lines(count: int, listed: Sequence[Mapping[str, Any]]) -> list[str]:
    """
    What a person reads.

    @param count: of all there are.
    @param listed: as L{hoft.web.ingress.callbacks.callbacks.Callbacks.listing} has them.
    """
    if not listed:
        return ["no callback is pending or dead"]
    found = []
    for one in listed:
        caller = f" of {one['caller']}" if one["caller"] is not None else ""
        found.append(f"{one['id']}  {one['state']}{caller}  {printable(one['url'])}")
        tried = f"{counted(one['attempts'], 'attempt')}"
        if one["last_attempt"] is not None:
            tried += f", the last at {one['last_attempt']}"
        if one["next_attempt"] is not None:
            tried += f", the next at {one['next_attempt']}"
        found.append(f"    {tried}")
        if one["reason"] is not None:
            found.append(f"    {printable(one['reason'])}")
    if count > len(listed):
        found.append(f"... and {count - len(listed)} more")
    return found
