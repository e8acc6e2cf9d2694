"""Two nodes in virtual time, with a program on each that takes messages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hoft.interfaces import (
    IMessage,
    IMessageLink,
    IMessageReceiver,
    IRecordReceiver,
    ITransaction,
    LinkState,
    OutgoingMessage,
)
from hoft.messages import ledger
from hoft.messages.links import MessageLink, MessageLinks
from hoft.protocols import log
from hoft.protocols.schema import Schema
from tests.protocols.nodes import Node, Pair

NOTES = Schema("program", (("CREATE TABLE note (text TEXT)",),))
"""A program's own table."""


@implementer(IMessageReceiver)
class MessageProgram:
    """
    A program that writes down what it hears.

    @ivar keep: leave messages as they come; otherwise each is consumed at once.
    @ivar error: raised by C{messageReceived}.
    @ivar greeting: sent within C{peerRolledBack}.
    """

    def __init__(self) -> None:
        self.keep = False
        self.error: Exception | None = None
        self.greeting = b""
        self.messages: list[IMessage] = []
        self.payloads: list[bytes | None] = []
        self.states: list[LinkState] = []
        self.rollbacks = 0

    def messageReceived(self, link: IMessageLink, message: IMessage) -> None:
        self.messages.append(message)
        self.payloads.append(message.payload)
        if self.error is not None:
            raise self.error
        if not self.keep:
            message.consume()

    def linkChanged(self, link: IMessageLink) -> None:
        self.states.append(link.state)

    def peerRolledBack(self, link: IMessageLink) -> None:
        self.rollbacks += 1
        if self.greeting:
            link.commit([OutgoingMessage(self.greeting)])


class MessageNode(Node):
    """
    A node whose records are those of messages.

    @ivar mind: its program, until a crash; C{None} to run without one.
    """

    schemas = (log.SCHEMA, ledger.SCHEMA, NOTES)

    def __init__(self, pair: Pair, name: str) -> None:
        super().__init__(pair, name)
        self.mind: MessageProgram | None = MessageProgram()
        self.messages: MessageLinks

    @property
    def heard(self) -> MessageProgram:
        """Its program."""
        assert self.mind is not None
        return self.mind

    @property
    def messenger(self) -> MessageLink:
        """What its program has of the link."""
        return self.messages.of(self.link)

    def receiver(self) -> IRecordReceiver:
        self.messages = MessageLinks(self.mind, self.pair.clock.seconds, self.pair.random.randbytes)
        return self.messages

    def opened(self) -> None:
        self.pair.result(self.messages.attach(self.link))

    def crash(self) -> None:
        super().crash()
        self.mind = MessageProgram()

    def tell(self, *payloads: bytes) -> list[Deferred[UUID]]:
        """Send each."""
        return [self.messenger.send(payload) for payload in payloads]

    def notes(self) -> list[str]:
        """What the program has written into its table."""
        rows = self.journal.transact(lambda t: t.execute("SELECT text FROM note").fetchall())
        return [text for (text,) in self.pair.result(rows)]


class MessagePair(Pair):
    """Two of them."""

    near: MessageNode
    far: MessageNode

    def __init__(self, case: SynchronousTestCase, seed: int = 1) -> None:
        super().__init__(case, seed, MessageNode)


def note(text: str) -> Any:
    """An C{also} that writes it down."""

    def write(transaction: ITransaction) -> None:
        transaction.execute("INSERT INTO note VALUES (?)", (text,))

    return write
