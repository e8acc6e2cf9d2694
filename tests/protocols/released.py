"""
Journals as releases have left them, as SQL in C{tests/protocols/released/VERSION.sql}.

C{python -m tests.protocols.released VERSION} writes one; until that version is
released, again when its tables change.  After that the file is never changed:
what it holds lies on somebody's disk.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hoft.interfaces import Incoming, Outgoing
from hoft.protocols import log, log_writing
from hoft.protocols.database import DATABASE
from hoft.protocols.log_writing import Accept, Commit
from hoft.protocols.schema import APPLICATION
from tests.protocols.journals import InlineJournal

FOLDER = Path(__file__).parent / "released"

PEER, BOOT, THEIR_INCARNATION, THEIR_BOOT = b"p" * 16, 0xB1, 0xE1, 0xB9
SENT, RECEIVED = (b"numbered", b"and this"), b"received"


def dump() -> str:
    """A journal of this version with something in each table of layer 1."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "state")
        inline = InlineJournal(path, [log.SCHEMA])
        inline.result(inline.journal.open())
        opened = inline.do(lambda t: log.open_log(t, PEER, BOOT))
        link = opened.link
        inline.do(lambda t: log.adopt(t, link, BOOT, 0xE0, THEIR_BOOT, 3))
        adopted = inline.do(lambda t: log.adopt(t, link, BOOT, THEIR_INCARNATION, THEIR_BOOT, 5))
        inline.do(lambda t: log.rollback_told(t, link))
        commit = Commit([Outgoing(payload, 1) for payload in SENT], (), None)
        last = opened.last_inbox + 1
        accept = Accept(adopted.generation, 9, [4], [Incoming(last, 1, len(RECEIVED), RECEIVED)], last)
        inline.do(lambda t: log_writing.write(t, link, BOOT, [commit, accept]))
        inline.result(inline.journal.close())
        with closing(sqlite3.connect(path / DATABASE)) as journal:
            return "\n".join(journal.iterdump()) + "\n"


def load(dumped: str, folder: Path) -> None:
    """Make of it a state folder."""
    folder.mkdir(mode=0o700)
    path = folder / DATABASE
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as journal:
        journal.execute(f"PRAGMA application_id = {APPLICATION}")
        journal.executescript(dumped)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{sys.argv[1]}.sql").write_text(dump())
