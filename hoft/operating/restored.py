"""
C{hoft restored}: after the restore of a node's state, have nobody believe that it goes on where it was.

A node that was restored alone is found out by its peers.  Where both sides were
restored nobody is left who knows better; this command says it for them.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from hoft.errors import JournalInUse, LocalError
from hoft.operating.places import Place
from hoft.operating.wording import counted, size
from hoft.protocols import log
from hoft.protocols.database import Database, Transaction
from hoft.protocols.inspection import Waiting, waiting
from hoft.protocols.segments import INLINE, SEGMENT_SIZE
from hoft.running import running_process


def restored(options: Namespace) -> int:
    """C{hoft restored}."""
    place = Place.of(options.folder)
    try:
        dropped = begin_anew(place.state)
    except JournalInUse:
        process = running_process(place.state)
        how = f"'kill {process}' or " if process is not None else ""
        raise LocalError(
            f"a node runs on {place.state}: stop it first ({how}as its supervisor does), then do this again"
        ) from None
    names = place.names()
    print("the journal has a new incarnation, and every log begins anew")
    for peer, one in dropped.items():
        name = names.get(peer, str(UUID(bytes=peer)))
        if one.records or one.received:
            print(
                f"  {name}: dropped are {counted(one.records, 'record')} ({size(one.payload)}) that waited"
                f" to be sent, and {one.received} received"
            )
        else:
            print(f"  {name}: nothing was under way")
    print("calls that were under way are reported as uncertain when the node and its peers have started")
    return 0


def begin_anew(state: Path) -> Mapping[bytes, Waiting]:
    """
    Mint an incarnation, begin every log anew, and leave word for the layer above.
    Blocks.

    @return: by peer, what was under way and is dropped: some of it may have been
        acted on in the life that was lost.
    @raise JournalInUse: a node runs.
    @raise hoft.errors.JournalError: the journal cannot be used.
    """

    def operation(transaction: Transaction, _: Sequence[Any]) -> list[Mapping[bytes, Waiting]]:
        before = waiting(transaction)
        log.begin_all_logs(transaction, log.last_outbox_ids(transaction))
        return [before]

    # The tables of the upper layers, and the room kept back, are as the node's last start left them.
    database = Database(state, (log.SCHEMA,), os.urandom, reserve=0, segment_size=SEGMENT_SIZE, inline=INLINE)
    database.open()
    done = database.commit([(operation, None, Deferred(), True)])
    database.close()
    [(_, result)] = done.durable or done.ordered
    if isinstance(result, Failure):
        result.raiseException()
    dropped: Mapping[bytes, Waiting] = result
    return dropped
