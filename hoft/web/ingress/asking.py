"""
C{/_hoft/requests}: what callers may ask about, and do with, requests whose results are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.threads import deferToThread

from hoft.web.history import unwell
from hoft.web.http.heads import Field
from hoft.web.http.problems import (
    REQUEST_ID,
    Problem,
    Refused,
    malformed_request,
    not_found,
    peer_silent,
    unknown_request,
)
from hoft.web.ingress.calls import Call, CallReceiver
from hoft.web.ingress.events import Events
from hoft.web.ingress.keeping import Kept
from hoft.web.ingress.kept_rows import Stage
from hoft.web.ingress.replaying import Replay

if TYPE_CHECKING:
    from hoft.web.ingress.ingress import Ingress

REQUESTS = b"/requests"
"""Where they are, below C{/_hoft}."""

MOST = 1000
"""How many are listed."""

RETRY = 1
"""Seconds after which a caller may ask again."""

_PATH = re.compile(rb"/requests(?:/([0-9a-f]{32})(?:/(result|events))?)?(?:\?(.*))?")
_WAIT = re.compile(rb"wait=([0-9]{1,5})")
_ALLOWED = {None: (b"GET", b"HEAD", b"DELETE"), b"result": (b"GET", b"HEAD"), b"events": (b"GET", b"HEAD")}


class Asking:
    """Answers such calls."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    def serve(self, call: Call, caller: str | None, path: bytes) -> CallReceiver | None:
        """
        @param path: what follows C{/_hoft}, query included.
        @raise Refused: there is nothing of that name, for this caller.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            raise Refused(not_found("of /_hoft/requests there is /ID, /ID/result and /ID/events"))
        id, what, query = match.groups()
        method = call.request.method
        allowed = _ALLOWED[what] if id is not None else (b"GET", b"HEAD")
        if method not in allowed:
            names = b", ".join(allowed)
            problem = evolve(not_found(f"this can be asked with {names.decode()}"), status=405)
            self._ingress.answer(call, problem, [(b"Allow", names)])
            return None
        if id is None:
            self._list(call, caller)
            return None
        kept = self._ingress.keeper.find(id.decode("ascii"), caller)
        if kept is None:
            raise Refused(unknown_request())
        if what == b"result":
            return self._result(call, kept, query or b"")
        if what == b"events":
            return Events(self._ingress, kept, call, self.described).start()
        if method == b"DELETE":
            self._delete(call, kept)
        else:
            self._respond(call, 200, self.described(kept, call))
        return None

    # --- answers ----------------------------------------------------------------------------

    def accepted(self, call: Call, kept: Kept, fields: Sequence[Field] = ()) -> None:
        """202: the result is not there yet."""
        where = self.url(call, kept).encode("ascii")
        more = [(b"Location", where), (b"Retry-After", b"%d" % RETRY), *fields]
        more.append((REQUEST_ID, kept.id.hex().encode("ascii")))
        self._respond(call, 202, self.described(kept, call), more)

    def late(self, call: Call, kept: Kept, waited: float) -> Problem:
        """504: it is not there yet, and the caller wanted it."""
        keeper = self._ingress.keeper
        link = keeper.link(kept)
        why = "" if link is None else unwell(link)
        problem = peer_silent(keeper.name(kept), waited, self.url(call, kept), why)
        return problem.during(kept.id)

    def url(self, call: Call, kept: Kept) -> str:
        """Where this caller finds its status: a path, or for one that uses us as its proxy, a URL."""
        path = f"/_hoft/requests/{kept.id.hex()}"
        return path if call.request.target.startswith(b"/") else call.gateway + path

    def described(self, kept: Kept, call: Call) -> dict[str, Any]:
        """All that its caller may know of it, ready for JSON."""
        url = self.url(call, kept)
        values: dict[str, Any] = {
            "id": kept.id.hex(),
            "state": kept.stage.value,
            "method": kept.method.decode("ascii"),
            "url": kept.url,
            "stages": {stage: shown_time(at) for stage, at in kept.stages.items()},
            "request_bytes": kept.request_size,
            "response_bytes": kept.response_size,
            "response_status": kept.status,
            "expires": shown_time(kept.expires),
            "status_url": url,
            "result_url": url + "/result",
            "events_url": url + "/events",
        }
        if kept.problem is not None:
            values["problem"] = kept.problem.members()
        if kept.delivery is not None:
            values["callback"] = kept.delivery.described()
        return values

    # --- what there is ------------------------------------------------------------------------

    def _list(self, call: Call, caller: str | None) -> None:
        found = self._ingress.keeper.of(caller, MOST)
        listed = self._ingress.slices.gather(partial(self.described, kept, call) for kept in found)
        # On a thread: that of a thousand takes longer than others should have to wait.
        shown = listed.addCallback(lambda requests: deferToThread(_encoded, {"requests": requests}))
        shown.addCallback(lambda body: self._show(call, 200, body))
        shown.addErrback(lambda failure: self._ingress.log.failure("Requests could not be listed", failure))

    def _result(self, call: Call, kept: Kept, query: bytes) -> CallReceiver:
        seconds = 0
        if query:
            match = _WAIT.fullmatch(query)
            if match is None:
                raise Refused(malformed_request("a result is asked for with ?wait=SECONDS, or without"))
            seconds = int(match[1])
        due = self._ingress.keeper.clock() + seconds
        return Replay(self._ingress, kept, call, due, self.accepted).start()

    def _delete(self, call: Call, kept: Kept) -> None:
        keeper = self._ingress.keeper
        if kept.stage is not Stage.CANCELLED and not kept.over:
            done = keeper.cancel(kept)
            done.addCallback(lambda _: self._respond(call, 200, self.described(kept, call)))
            return
        if kept.readers:
            problem = evolve(not_found("its result is being read; ask again"), status=409)
            self._ingress.answer(call, problem)
            return
        keeper.forget(kept)
        self._ingress.respond(call, 204, [], b"")

    def _respond(self, call: Call, status: int, body: Any, fields: Sequence[Field] = ()) -> None:
        self._show(call, status, _encoded(body), fields)

    def _show(self, call: Call, status: int, encoded: bytes, fields: Sequence[Field] = ()) -> None:
        kind = [(b"Content-Type", b"application/json"), (b"Cache-Control", b"no-store")]
        self._ingress.respond(call, status, [*kind, *fields], encoded)


def _encoded(body: Any) -> bytes:
    return json.dumps(body, indent=1).encode("ascii") + b"\n"


def shown_time(at: float) -> str:
    """As callers read it (RFC 3339), with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
