"""
What the layers are to do, as the configuration says it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from hoft.config import COMMAND_LINE, Config, Traffic
from hoft.errors import ConfigurationError
from hoft.protocols.pacing import Limits as TransitLimits
from hoft.protocols.settings import Settings
from hoft.streams.parts import TCP
from hoft.web.client.policy import Policy, Rule
from hoft.web.egress.surroundings import Limits
from hoft.web.http.heads import Retry
from hoft.web.measuring import Metrics

TOGETHER = 20
"""Links that are opened, or begin to write, in one go."""

GREETING = 0.2
"""Seconds a peer over which they are first greeted, where there are more than can begin in one go."""


def policy_of(config: Config) -> Policy:
    """
    What peers may call by HTTP.

    @raise ConfigurationError: a URL in C{[[allow]]} is none.
    """
    return Policy(
        Rule.parse(
            allow.url,
            allow.peer,
            allow.private,
            allow.credentials,
            None if allow.retry is None else Retry(allow.retry),
            allow.websocket,
        )
        for allow in config.allowed
        if not allow.url.startswith(TCP)
    )


def metrics_of(config: Config, status: Callable[[], Deferred[dict[str, Any]]]) -> Metrics | None:
    """
    Those that somebody scrapes, if anybody does.

    @param status: what the node tells of itself.
    @raise ConfigurationError: they are wanted, and the library for them is missing.
    """
    if not config.metrics:
        return None
    try:
        from hoft.metrics import Metrics
    except ImportError:
        raise ConfigurationError(
            where_of(config), "metrics", "true", "prometheus_client ('pip install hoft[metrics]'), or false"
        ) from None
    return Metrics(status)


def settings_of(config: Config, traffic: Traffic) -> Settings:
    """How a link behaves whose traffic is limited so."""
    limits = TransitLimits(traffic.bytes_per_second, traffic.files_in_transit, traffic.bytes_in_transit)
    return Settings(
        packet_size=traffic.largest_file,
        hello_spread=GREETING * len(config.peers) if len(config.peers) > TOGETHER else 0.0,
        heartbeat=config.heartbeat,
        limits=limits,
        padding=traffic.padding,
        compress=config.compress,
    )


def limits_of(config: Config) -> Limits:
    """What peers may ask of us."""
    return Limits(
        request_body=config.max_request_body,
        response_header=config.max_response_header,
        spool=config.spool,
    )


def where_of(config: Config) -> str:
    """What L{ConfigurationError.where} says of it."""
    return str(config.path or COMMAND_LINE)
