"""
Where calls go, and what they may take, as the configuration says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from hoft.config import Allowance, Caching, Caller, Config, Forward, Route
from hoft.interfaces import ILink, LinkState
from hoft.web.client.policy import choose_peer
from hoft.web.http.heads import Retry
from hoft.web.http.problems import Refused, peer_unavailable, unknown_route
from hoft.web.http.targets import Mount, Service
from hoft.web.http.targets import Route as RouteTarget
from hoft.web.ingress.callers import Callers


def meter_of_caller(name: str) -> str:
    """What counts for a caller is called."""
    return f"caller {name}"


def meter_of_route(name: str) -> str:
    """What counts for a route is called."""
    return f"route {name}"


@frozen
class Routing:
    """
    Where calls go, and what they may take.

    @ivar deadline: seconds for a whole exchange, unless its caller says otherwise.
    @ivar max_request_body: bytes.
    @ivar async_deadline: seconds for a call that nobody has to wait for, unless its caller says otherwise.
    @ivar result_ttl: seconds for which results are kept; 0: none is.
    @ivar expired_ttl: seconds for which it is known afterwards that there were some.
    @ivar results: the most bytes of results that are kept.
    @ivar cache: the most bytes of responses that are stored.
    """

    routes: Sequence[Route] = ()
    forwards: Sequence[Forward] = ()
    default_peer: str | None = None
    deadline: float = 60.0
    max_request_body: int = 4 << 30
    callers: Sequence[Caller] = ()
    async_deadline: float = 86400.0
    result_ttl: float = 86400.0
    expired_ttl: float = 604800.0
    results: int = 8 << 30
    cache: int = 1 << 30
    mounts: Mapping[str, tuple[Mount, str]] = field(init=False, repr=False)
    """Routes by their name, each with its peer."""
    caches: Mapping[str, Caching] = field(init=False, repr=False)
    """Of routes that have one, by their name."""
    cache_limits: Mapping[str, int] = field(init=False, repr=False)
    """The most bytes of responses that are stored for callers of which that is said."""
    known_callers: Callers = field(init=False, repr=False)

    @mounts.default
    def _mounts(self) -> Mapping[str, tuple[Mount, str]]:
        return {
            route.name: (
                Mount.parse(route.name, route.url, Retry(route.retry), route.websocket),
                route.peer,
            )
            for route in self.routes
        }

    @caches.default
    def _caches(self) -> Mapping[str, Caching]:
        return {route.name: route.cache for route in self.routes if route.cache is not None}

    @cache_limits.default
    def _cache_limits(self) -> Mapping[str, int]:
        return {caller.name: caller.cache for caller in self.callers if caller.cache is not None}

    @known_callers.default
    def _callers(self) -> Callers:
        return Callers(self.callers)

    def allowances(self) -> dict[str, Allowance]:
        """What callers and routes may be asked for, as L{Meters.configure} takes it."""
        callers = {meter_of_caller(caller.name): caller.allowance for caller in self.callers}
        return callers | {meter_of_route(route.name): route.allowance for route in self.routes}

    def results_of(self, caller: str) -> int:
        """The most bytes of results that are kept for a caller."""
        return next((one.results for one in self.callers if one.name == caller), self.results)

    @classmethod
    def of(cls, config: Config) -> Routing:
        """
        What a configuration says of it.

        @raise Refused: the URL of a route is none.
        """
        return cls(
            config.routes,
            config.forwards,
            config.default_peer,
            config.deadline,
            config.max_request_body,
            config.callers,
            config.async_deadline,
            config.result_ttl,
            config.expired_ttl,
            config.results,
            config.cache,
        )

    def resolve(
        self, target: RouteTarget | Service, links: Mapping[str, ILink], waits: bool = True
    ) -> tuple[Mount | None, Service, ILink]:
        """
        Who is to be called, and through whom.

        @param links: by the names of the peers.
        @param waits: see L{usable}.
        @raise Refused: no such route, no peer, or none that can be used.
        """
        if isinstance(target, Service):
            return None, target, usable(self.peer_for(target.authority.host, links), links, waits)
        found = self.mounts.get(target.name)
        if found is None:
            raise Refused(unknown_route(target.name, sorted(self.mounts)))
        mount, peer = found
        return mount, mount.service(target.rest), usable(peer, links, waits)

    def peer_for(self, host: str, links: Mapping[str, ILink]) -> str:
        """
        Who makes calls without a route.

        @raise Refused: nothing says that.
        """
        forwards = [(forward.match, forward.peer) for forward in self.forwards]
        return choose_peer(host, list(links), forwards, self.default_peer)


def usable(peer: str, links: Mapping[str, ILink], waits: bool = True) -> ILink:
    """
    The link to a peer.

    @param waits: somebody waits for the answer, and had better be told at once that none will
        come soon; what nobody waits for lies in the journal until the peer is there again.
    @raise Refused: there is no use in trying.
    """
    link = links.get(peer)
    if link is None:
        raise Refused(peer_unavailable(peer, "this node does not trust it, or not any more"))
    if link.state is LinkState.STOPPED:
        raise Refused(peer_unavailable(peer, "it was stopped; see /_hoft/status and this node's log"))
    if link.state is LinkState.DOWN and waits:
        why = "no files can be exchanged, see /_hoft/status; what need not be answered now is taken, with"
        raise Refused(peer_unavailable(peer, f"{why} 'Prefer: respond-async'", 30))
    return link
