"""
What the tests of callbacks share: callers that want one, a receiver with real sockets, and what
the Standard Webhooks specification says of signatures, done with the whole body at once.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from twisted.internet.defer import Deferred, inlineCallbacks

from hoft.config import Callback
from hoft.web.ingress.callbacks import rows as callback_rows
from hoft.web.ingress.callbacks.registrations import Registrations
from hoft.web.ingress.callbacks.signing import Key, SigningKey, SymmetricKey
from tests.web.callers import Response
from tests.web.listening import Test
from tests.web.loopback import Transaction
from tests.web.services import RawService, Received
from tests.web.test_keeping import KeepingCase


def verified(shared: str, request: Received, now: float) -> bool:
    """Whether one of a callback's signatures is by the key of which the receiver was given this."""
    [id] = request.values(b"webhook-id")
    [timestamp] = request.values(b"webhook-timestamp")
    [signatures] = request.values(b"webhook-signature")
    if abs(now - int(timestamp)) > 300:
        return False
    signed = id + b"." + timestamp + b"." + request.body
    kind, _, encoded = shared.partition("_")
    key = b64decode(encoded)
    for one in signatures.split(b" "):
        version, _, signature = one.partition(b",")
        if (kind, version) == ("whsec", b"v1"):
            if hmac.compare_digest(hmac.digest(key, signed, hashlib.sha256), b64decode(signature)):
                return True
        elif (kind, version) == ("whpk", b"v1a"):
            try:
                VerifyKey(key).verify(signed, b64decode(signature))
            except BadSignatureError:
                continue
            return True
    return False


class CallbackCase(KeepingCase):
    """
    A receiver is registered at an ingress.

    @ivar keys: sign what goes to it.
    """

    keys: Sequence[Key] = (SymmetricKey(bytes(range(32))), SigningKey(bytes(32)))

    def setUp(self) -> None:
        super().setUp()
        self.near.create(callback_rows.SCHEMA)
        self.receiver = RawService()
        self.receiver.says(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.hooks = self.receiver.listen(self)
        self.addCleanup(self.hang_up)
        self.url = b"http://127.0.0.1:%d/hooks/order?id=7" % self.hooks
        self.register(f"http://127.0.0.1:{self.hooks}/hooks")

    def hang_up(self) -> Deferred[None]:
        return self.ingress.callbacks.stop(0.0)

    def register(self, url: str, **more: Any) -> None:
        """Let that be all that is registered."""
        registration = Callback("shop", url, Path("unused"), **more)
        self.registrations = Registrations([registration], {"shop": self.keys})
        self.ingress.callbacks.reconfigure(self.registrations)

    def begin(self) -> None:
        super().begin()
        self.ingress.callbacks.load(callback_rows.load(Transaction(self.near.database)))
        self.ingress.callbacks.reconfigure(self.registrations)

    def order(self, *fields: bytes, url: bytes | None = None) -> Deferred[Response]:
        """A call that wants a callback."""
        return self.post(b"order", b"Hoft-Callback: " + (url or self.url), *fields)

    @inlineCallbacks
    def delivered(self, count: int = 1) -> Test:
        """So many callbacks have come as a whole."""

        def come() -> bool:
            self.ingress.callbacks.tick(time.monotonic())
            return len(self.receiver.requests) >= count

        yield self.until(come)

    def row(self) -> callback_rows.Row:
        """The only one in the journal."""
        [row] = callback_rows.load(Transaction(self.near.database))
        return row

    def verify(self, request: Received) -> None:
        """Each key has signed it."""
        for key in self.keys:
            self.assertTrue(verified(key.shared(), request, time.time()), key.identifier)
