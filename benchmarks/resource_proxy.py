"""Another yardstick, Twisted's own proxy: C{python -m benchmarks.resource_proxy PORT URL}."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

from twisted.internet import endpoints, reactor
from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import Site


def main(port: str, base: str) -> None:
    """Serve until killed."""
    url = urlsplit(base)
    site = Site(ReverseProxyResource(url.hostname, url.port, b""))
    endpoints.serverFromString(reactor, f"tcp:{port}:backlog=512:interface=127.0.0.1").listen(site)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
