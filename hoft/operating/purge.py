"""
C{hoft purge}: what routes with a cache have stored is not used any more.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from hoft.local_socket import ask
from hoft.operating.places import Place
from hoft.operating.wording import counted


def purge(options: Namespace) -> int:
    """C{hoft purge}."""
    state = Place.of(options.folder).state
    gone = ask(state, "purge", what=options.what)
    shown = False
    while gone["left"]:
        if sys.stderr.isatty():
            shown = True
            far = f"{counted(gone['purged'], 'stored response')} purged, {gone['left']} to be looked at"
            print(f"\r{far}\x1b[K", end="", file=sys.stderr, flush=True)
        gone = ask(state, "purge", number=gone["number"])
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    gone = {"purged": gone["purged"]}
    print(json.dumps(gone) if options.json else f"{counted(gone['purged'], 'stored response')} purged")
    return 0
