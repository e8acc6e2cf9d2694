"""What the system tells the folder carrier of files that appear, and what it costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from functools import partial
from typing import Any

from twisted.internet.defer import inlineCallbacks

from hoft.testing.harness import ALICE, BOB, RecordingReceiver, pattern
from hoft.transports.folder import FolderCarrier
from hoft.transports.scanning import Entry
from hoft.transports.watching import Watch
from tests.transports.test_folder import FolderTestCase, Steps, name


class NoticingTests(FolderTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.elsewhere = tempfile.mkdtemp(dir=os.path.dirname(self.root))

    def link(self, number: int, content: bytes) -> None:
        """Publish a file as into a maildir: whole at once, and neither renamed nor closed there."""
        path = os.path.join(self.elsewhere, "new")
        with open(path, "wb") as file:
            file.write(content)
        os.link(path, os.path.join(self.inbox(), name(number)))
        os.unlink(path)

    @inlineCallbacks
    def watched(self) -> Generator[Any, Any, tuple[FolderCarrier, RecordingReceiver]]:
        """A node whose inbox has been looked at often enough."""
        self.inbox()
        carrier, receiver = yield self.node(BOB)
        for _ in range(2):
            yield self.scanned(carrier)
        return carrier, receiver

    def poll_no_more(self, carrier: FolderCarrier) -> None:
        """What arrives from now on is what the system has told of."""
        self.patch(carrier, "_look", lambda delay: None)
        carrier._timers.cancel("look")

    @inlineCallbacks
    def test_what_is_linked_is_noticed_at_once_when_it_was_found_so_before(self) -> Steps:
        carrier, receiver = yield self.watched()
        watches: list[Watch] = []
        watching = carrier._notices._watching

        def asked(watch: Watch) -> None:
            watching(watch)
            watches.append(watch)

        self.patch(carrier._notices, "_watching", asked)
        self.link(1, pattern(1000))
        yield self.until(lambda: watches, "the system is asked for more")
        yield self.scanned(carrier)
        self.poll_no_more(carrier)
        for number in range(2, 6):
            self.link(number, pattern(1000, number))
            yield self.until(partial(lambda one: one in receiver.consumed, name(number)), "it arrives")
            self.assertEqual(receiver.consumed[name(number)], pattern(1000, number))
        # What has only begun is waited for, as ever: zeros first, and then what belongs there.
        assert carrier._delivery is not None
        with open(os.path.join(self.inbox(), name(9)), "wb", buffering=0) as file:
            file.write(bytes(500))
            yield self.until(lambda: name(9) in carrier._delivery._files, "it is noticed")
            file.seek(0)
            file.write(pattern(500))
        yield self.until(lambda: name(9) in receiver.consumed, "it arrives")
        self.assertEqual(receiver.consumed[name(9)], pattern(500))

    @inlineCallbacks
    def test_nothing_more_is_told_of_what_is_renamed_or_written_in_place(self) -> Steps:
        carrier, receiver = yield self.watched()
        alice, _ = yield self.node(ALICE)
        transport = alice.transport(BOB)
        told: list[str] = []
        appeared = carrier._notices._report

        def report(entry: Entry, whole: bool) -> None:
            told.append(entry.text)
            appeared(entry, whole)

        self.patch(carrier._notices, "_report", report)
        for number in range(1, 11):
            self.put(name(number), pattern(1000))
            yield self.send(transport, b"by renaming")
            yield self.until(partial(lambda most: len(receiver.consumed) == most, 2 * number), "it arrives")
            yield self.scanned(carrier)
        self.assertEqual(len(told), len(set(told)))
        self.assertEqual(len(told), 20)
