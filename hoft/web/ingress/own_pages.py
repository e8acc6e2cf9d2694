"""
What a gateway shows of itself: C{/_hoft/status} and C{/_hoft/metrics}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from hoft.web.http.problems import Refused, internal_error, not_allowed, not_found
from hoft.web.ingress.calls import Call
from hoft.web.measuring import CONTENT_TYPE

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress


class OwnPages:
    """Answers calls to the gateway itself."""

    log = Logger()

    def __init__(self, ingress: Ingress, status: Callable[[], Deferred[dict[str, Any]]]) -> None:
        """@param status: what C{GET /_hoft/status} shows, ready for JSON."""
        self._ingress = ingress
        self._status = status

    def serve(self, call: Call, caller: str | None, path: bytes) -> None:
        """
        @param path: what follows C{/_hoft}, without query; C{*} for C{OPTIONS *}.
        @raise Refused: there is no such page, or not for this caller.
        """
        ingress, metrics = self._ingress, self._ingress.accounts.metrics
        pages = [b"/status"] if metrics is None else [b"/status", b"/metrics"]
        if path == b"*":
            ingress.respond(call, 204, [(b"Allow", b"*")], b"")
        elif path not in pages:
            there = ", ".join(f"/_hoft{page.decode()}" for page in [*pages, b"/requests"])
            raise Refused(not_found(f"of /_hoft/ there is only {there}"))
        elif call.request.method not in (b"GET", b"HEAD"):
            problem = evolve(not_found(f"/_hoft{path.decode()} can be read, with GET or HEAD"), status=405)
            ingress.answer(call, problem, [(b"Allow", b"GET, HEAD")])
        elif not ingress.routing.known_callers.operates(caller):
            raise Refused(not_allowed(f"/_hoft{path.decode()} is for callers with 'operator = true' only"))
        elif path == b"/metrics" and metrics is not None:
            fields = [(b"Content-Type", CONTENT_TYPE), (b"Cache-Control", b"no-store")]
            shown = metrics.exposition().addCallback(partial(ingress.respond, call, 200, fields))
            shown.addErrback(self._not_shown, call)
        else:
            fields = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
            encoded = self._status().addCallback(_encoded)
            shown = encoded.addCallback(partial(ingress.respond, call, 200, fields))
            shown.addErrback(self._not_shown, call)

    def _not_shown(self, failure: Failure, call: Call) -> None:
        self.log.failure("Status or metrics could not be shown", failure)
        self._ingress.answer(call, internal_error("the log of this node says why"))


def _encoded(status: Mapping[str, Any]) -> Deferred[bytes]:
    # With indent the encoder is Python: it lets other threads run before it is done.
    return deferToThread(lambda: json.dumps(status, indent=1).encode("ascii") + b"\n")
