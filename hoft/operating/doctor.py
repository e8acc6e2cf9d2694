"""
C{hoft doctor}: what keeps a node from its peers, and what to do about it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Generator, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from uuid import UUID

from hoft.config import Config
from hoft.errors import ConfigurationError, HoftError, LocalError, NodeNotRunning, NodeSilent
from hoft.identity import IDENTITY_FILE, Identity
from hoft.local_socket import ask
from hoft.operating import local_checks, terminal
from hoft.operating.diagnosis import DOCTOR, troubles
from hoft.operating.finding import Finding, Level, fail, ok, warn
from hoft.operating.folder_checks import Folders
from hoft.operating.places import Place
from hoft.operating.wording import counted, duration
from hoft.suites import suites_of
from hoft.transports.locations import FolderLocation

PATIENCE = 30.0
"""Seconds after which a file system that does not answer counts as hung."""


def doctor(options: Namespace) -> int:
    """C{hoft doctor}."""
    worst = Level.OK
    for finding in findings(options):
        worst = max(worst, finding.level)
        if options.json:
            told = {"level": finding.level.name.lower(), "what": finding.what, "then": finding.then}
            print(json.dumps(told), flush=True)
        else:
            terminal.tell(str(finding), sys.stdout)
    return int(worst)


def findings(options: Namespace) -> Iterator[Finding]:
    """All there is to find, as it is found."""
    try:
        place = Place.of(options.folder)
    except ConfigurationError as error:
        yield fail("configuration", str(error))
        return
    yield from patiently("the state folder", local_checks.state(place.state))
    config = place.config
    if place.mistake is not None:
        yield fail("configuration", str(place.mistake))
    elif config is None:
        yield warn("there is no hoft.toml here", "what it was told by options cannot be looked at")
    else:
        yield from local_checks.configuration(config)
        yield from local_checks.keys(config)
        for entry in {(one.url, one.private): one for one in config.allowed}.values():
            yield from patiently(f"the name server, for {entry.url},", local_checks.allowed(entry))
    exchanged = list(_exchange(config)) if config is not None and config.transport else []
    yield from exchanged
    folders_fail = any(one.level is Level.FAIL for one in exchanged)
    node = yield from _running(place, folders_fail)
    if node is not None:
        yield from _asked(place, node, options.wait)
    elif config is not None and not folders_fail:
        yield from local_checks.listening(config)
        yield from _greeted(config, options.wait)


def _exchange(config: Config) -> Iterator[Finding]:
    if not config.transport.startswith("folder:"):
        yield ok(f"transport {config.transport}: not a folder, and only its peers' answers are looked at")
        return
    try:
        location = FolderLocation.parse(config.transport)
    except ConfigurationError as error:
        yield fail("configuration", str(error))
        return
    try:
        node = Identity.load(config.state / IDENTITY_FILE).uuid
    except LocalError:
        return  # has been said
    peers = {peer.card.uuid: peer.name for peer in config.peers}
    examined = Folders(location, node, peers, os.urandom).examine()
    yield from patiently(location.folders, examined)


def _running(place: Place, folders_fail: bool) -> Generator[Finding, None, Mapping[str, Any] | None]:
    """As its result: the status of the node, if it runs."""
    if folders_fail:
        seen = "what its folders lack stands above; once that is mended it goes on by itself"
    elif place.config is not None and place.config.transport.startswith("folder:"):
        seen = "the folders were well when they were looked at here: it goes on by itself if they are"
    else:
        seen = "what it says was not looked at here; once that is mended it goes on by itself"
    try:
        node: Mapping[str, Any] = ask(place.state, "status")
    except NodeNotRunning:
        yield warn("no node runs", f"'hoft run {place.state}', or start its service")
        yield from patiently("the journal", local_checks.journal(place.state))
        return None
    except NodeSilent as error:
        yield fail(str(error), "look at its log; if it stands still, restart it")
        return None
    except LocalError as error:
        yield warn(str(error), "run this as the user that the node runs as")
        return None
    for trouble in troubles(node):
        yield fail(trouble.what, seen if trouble.then == DOCTOR else trouble.then)
    for reason, count in node["refused"].items():
        yield warn(f"{counted(count, 'file')} refused: {reason}", "'hoft status' has the last of them")
    return node


def _asked(place: Place, node: Mapping[str, Any], wait: float) -> Iterator[Finding]:
    """Ask the peers through the running node."""
    if not node["peers"]:
        return
    if node["carrier_down"] is not None:
        yield warn("no peer was asked for a sign of life", "it would not come before that is mended")
        return
    answers = ask(place.state, "probe", wait + 10, within=wait)
    # It may have been on its way before.
    heard = {name: peer["heard"] for name, peer in node["peers"].items()}
    asked = {}
    for name, seconds in answers.items():
        if node["peers"].get(name, {}).get("write_error") is None:
            asked[name] = seconds
        else:  # what was heard of it was no answer
            yield warn(f"{name} could not be asked for a sign of life", "it will be once that is mended")
    yield from _answers(asked, wait, "was heard {} after it was asked", heard)


def _greeted(config: Config, wait: float) -> Iterator[Finding]:
    """Ask the peers, for the node that does not run."""
    try:
        identity = Identity.load(config.state / IDENTITY_FILE)
        suites = suites_of(config.peers, identity)
    except LocalError:
        return  # has been said
    if not config.peers:
        return
    from twisted.internet import reactor

    from hoft.operating.greeting import Greeting
    from hoft.protocols.synchronisation import random64
    from hoft.transports.schemes import maker_for

    try:
        carrier = maker_for(config.transport).carrier(
            reactor, config.transport, identity.uuid, random64(os.urandom), time.monotonic
        )
    except ConfigurationError as error:
        yield fail("transport", str(error))
        return
    by_uuid = {peer.card.uuid: suites[peer.name] for peer in config.peers}
    greeting = Greeting(reactor, time.monotonic, os.urandom, carrier, identity.uuid, by_uuid)
    failures: list[str] = []
    run: Any = reactor

    def begin() -> None:
        asked = greeting.ask(wait)
        asked.addErrback(lambda failure: failures.append(failure.getErrorMessage()))
        asked.addCallback(lambda _: run.stop())

    run.callWhenRunning(begin)
    run.run()
    for failure in failures:
        yield fail("the carrier cannot be used", failure)
    names: dict[UUID, str] = {peer.card.uuid: peer.name for peer in config.peers}
    answers = {names[peer]: seconds for peer, seconds in greeting.answers.items()}
    yield from _answers(answers, wait, "answers after {}", {})


def _answers(
    answers: Mapping[str, float | None], wait: float, how: str, heard: Mapping[str, float | None]
) -> Iterator[Finding]:
    """@param heard: how many seconds ago, before they were asked; of whom that is known."""
    for name, seconds in answers.items():
        if seconds is not None:
            yield ok(f"{name} {how.format(duration(seconds))}")
        else:
            before = heard.get(name)
            last = "" if before is None else f", and was last heard {duration(before + wait)} ago"
            yield fail(
                f"{name} has not answered within {duration(wait)}{last}",
                "does its node run, does it trust this node's card, are files carried both ways, and in less"
                " time than this (--wait)?",
            )


def patiently(what: str, found: Iterable[Finding]) -> Iterator[Finding]:
    """
    C{found}, from a thread of its own, which may hang.

    @param what: is looked at, for the line that says so.
    """
    queue: SimpleQueue[Finding | BaseException | None] = SimpleQueue()

    def work() -> None:
        try:
            for one in found:
                queue.put(one)
        except BaseException as error:  # told where somebody waits for it
            queue.put(error)
        queue.put(None)

    Thread(target=work, daemon=True).start()
    while True:
        try:
            one = queue.get(timeout=PATIENCE)
        except Empty:
            yield fail(
                f"{what} does not answer for {duration(PATIENCE)}", "see whether it is mounted, and hung"
            )
            return
        if one is None:
            return
        if isinstance(one, OSError | HoftError):
            yield fail(f"{what} cannot be looked at ({one})", "run this as the user of the node")
            return
        if isinstance(one, BaseException):
            raise one
        yield one
