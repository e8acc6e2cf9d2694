"""
The node's side of L{hoft.local_socket}: a listening Unix socket in the state folder.

All is called on the reactor thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from hoft.errors import LocalError
from hoft.local_socket import LONGEST_ANSWER, LONGEST_QUESTION, SocketAddress

Answerer = Callable[[Mapping[str, Any]], Any]
"""
From a question to its answer, ready for JSON, or a Deferred of it, which is
cancelled if nobody waits for it any more.

@raise LocalError: (also as failure) there is none; the message is for the asker.
"""

CONNECTIONS = 32
"""Questions that are answered at once; further ones are turned away."""

QUESTION_TIME = 10.0
"""Seconds in which a question must have come."""


class _Conversation(LineOnlyReceiver, TimeoutMixin):
    """One connection: a question, its answer."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST_QUESTION
    transport: Any
    _log = Logger()

    def __init__(self, conversations: _Conversations) -> None:
        self._conversations = conversations
        self._asked = False
        self._turned_away = False
        self._answer: Deferred[Any] | None = None

    def connectionMade(self) -> None:
        self._conversations.open.add(self)
        self._turned_away = len(self._conversations.open) > CONNECTIONS
        if len(self._conversations.open) > 2 * CONNECTIONS:
            self.transport.abortConnection()
        self.setTimeout(QUESTION_TIME)

    def lineReceived(self, line: bytes) -> None:
        if self._asked:
            return
        self._asked = True
        self.setTimeout(None)
        if self._turned_away:
            # Not before it has asked: closed with something unread, the socket would lose what we say.
            self._send(_error(f"{CONNECTIONS} others are asking already"))
            return
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            question = None
        if not isinstance(question, dict):
            self._send(_error("a question is a JSON object on one line"))
            return
        answer = self._answer = maybeDeferred(self._conversations.answer, question)
        answer.addCallback(self._conversations.encode).addErrback(self._failed)
        answer.addCallback(self._send)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._asked = True
        self._send(_error(f"a question has at most {LONGEST_QUESTION} bytes"))

    def _failed(self, failure: Failure) -> bytes:
        if failure.check(LocalError, CancelledError) is None:
            self._log.failure("A question could not be answered", failure)
        return _error(failure.getErrorMessage())

    def _send(self, line: bytes) -> None:
        if self in self._conversations.open:
            self.sendLine(line if len(line) < LONGEST_ANSWER else _error("the answer is too long"))
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._conversations.open.discard(self)
        self.setTimeout(None)
        if self._answer is not None:
            self._answer.cancel()


def _encoded(answer: Any) -> bytes:
    # Not dumps(), which is quicker, but lets no other thread run before it is done.
    return "".join(json.JSONEncoder().iterencode(answer)).encode("ascii")


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode("ascii")


class _Conversations(Factory):
    """@ivar open: those there are now."""

    noisy = False

    def __init__(self, reactor: Any, answer: Answerer) -> None:
        self.answer = answer
        self._reactor = reactor
        self.open: set[_Conversation] = set()

    def encode(self, answer: Any) -> Deferred[bytes]:
        """The line that brings C{answer}; made on a thread, since that of a thousand peers takes 0.1 s."""
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), _encoded, {"answer": answer})

    def buildProtocol(self, addr: IAddress | None) -> _Conversation:
        """See L{IProtocolFactory<twisted.internet.interfaces.IProtocolFactory>}."""
        return _Conversation(self)


class LocalServer:
    """
    Answers commands on this machine.

    @param state: the state folder, which this process has locked.
    """

    def __init__(self, reactor: Any, state: Path, answer: Answerer) -> None:
        self._reactor = reactor
        self._state = state
        self._conversations = _Conversations(reactor, answer)
        self._address: SocketAddress | None = None
        self._port: IListeningPort | None = None

    def start(self) -> None:
        """
        Begin to answer, in place of whatever an earlier process has left.

        @raise LocalError: no socket can be had here.
        """
        try:
            self._address = address = SocketAddress(self._state)
            try:
                os.unlink(address.path)
            except FileNotFoundError:
                pass
            self._port = self._reactor.listenUNIX(address.path, self._conversations, mode=0o600)
        except (OSError, CannotListenError) as error:
            if self._address is not None:
                self._address.close()
            raise LocalError(f"no socket can be made in {self._state}: {error}") from error

    def stop(self) -> Deferred[None]:
        """Take the socket away, and leave whoever still asks; fires once it is gone."""
        if self._port is None or self._address is None:
            return succeed(None)
        port, address = self._port, self._address
        self._port = None
        for conversation in list(self._conversations.open):
            conversation.transport.abortConnection()

        def stopped(_: object) -> None:
            address.close()

        return maybeDeferred(port.stopListening).addCallback(stopped)
