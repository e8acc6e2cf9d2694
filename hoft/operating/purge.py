"""
C{hoft purge}: what routes with a cache have stored is not used any more.
"""

from __future__ import annotations

import json
from argparse import Namespace

from hoft.local_socket import ask
from hoft.operating.places import Place
from hoft.operating.wording import counted


def purge(options: Namespace) -> int:
    """C{hoft purge}."""
    gone = ask(Place.of(options.folder).state, "purge", what=options.what)
    print(json.dumps(gone) if options.json else f"{counted(gone['purged'], 'stored response')} purged")
    return 0
