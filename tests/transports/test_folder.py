"""
The polling folder, where the general suite does not look: hostile entries, roots
that come and go, rights, full disks, and what it costs.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from threading import Event, Lock
from typing import Any, cast
from unittest import SkipTest
from uuid import UUID

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from hoft.errors import CarrierError, ConfigurationError
from hoft.interfaces import MAX_PIECE, Verdict
from hoft.testing.harness import ALICE, BOB, CAROL, CarrierHarness, RecordingReceiver, pattern
from hoft.transports import directories, folder, reading, writing
from hoft.transports.delivery import CONCURRENT
from hoft.transports.filenames import FileName
from hoft.transports.folder import FolderCarrier
from hoft.transports.locations import FolderLocation
from hoft.transports.reading import MAX_FILE, SHORT
from hoft.transports.turns import IN_A_ROW
from tests.mounting import mount

Steps = Generator[Any, Any, None]


def name(number: int, sender: UUID = ALICE, recipient: UUID = BOB) -> str:
    """A packet's name."""
    return str(FileName(sender, recipient, 7, number))


def only_root(why: str) -> None:
    """Skip where it takes root to test it."""
    if os.geteuid() != 0:
        raise SkipTest(f"{why} takes root")


class FolderTestCase(CarrierHarness, TestCase):
    """A folder of its own for each test."""

    timeout = 120
    patience = 60.0
    quiet = 0.15
    poll = 0.05
    watch = True
    file_mode: int | None = None
    patience_of_carrier = 30.0

    def setUp(self) -> None:
        super().setUp()
        self.clock: Callable[[], float] = time.monotonic
        self.root = os.path.abspath(self.mktemp())
        os.mkdir(self.root, 0o755)

    def makeCarrier(self, node: UUID, boot: int) -> FolderCarrier:
        location = FolderLocation(self.root, self.root, self.poll, self.file_mode, self.patience_of_carrier)
        return FolderCarrier(reactor, location, node, boot, lambda: self.clock(), watch=self.watch)

    def inbox(self, node: UUID = BOB) -> str:
        path = os.path.join(self.root, str(node))
        os.makedirs(path, exist_ok=True)
        return path

    def put(self, entry: str, content: bytes, node: UUID = BOB) -> str:
        path = os.path.join(self.inbox(node), entry)
        with open(path, "wb") as file:
            file.write(content)
        return path

    @inlineCallbacks
    def good_arrives(self, receiver: RecordingReceiver, number: int = 999) -> Steps:
        """A good packet arrives in spite of all."""
        self.put(name(number), b"good")
        yield self.until(lambda: name(number) in receiver.consumed, "a good packet arrives")
        self.assertEqual(receiver.consumed[name(number)], b"good")

    def scanned(self, carrier: FolderCarrier) -> Deferred[None]:
        """Wait until what lies there now has been found: by a scan that has begun since."""
        wanted = carrier.counters()["scans"] + 2
        scanned: Deferred[None] = self.until(lambda: carrier.counters()["scans"] >= wanted, "it is found")
        return scanned


class OrderTests(FolderTestCase):
    """Which file is read first."""

    @inlineCallbacks
    def test_short(self) -> Steps:
        """One that is short does not wait behind long ones, but many of them do not hold those up."""
        carrier, receiver = yield self.node(BOB)
        waiting: list[Deferred[Verdict]] = []

        def answer(name: str, offset: int, piece: bytes, settled: bool) -> Deferred[Verdict]:
            waiting.append(Deferred())
            return waiting[-1]

        receiver.answer = answer
        for number in range(2 * CONCURRENT):
            self.put(name(number), pattern(SHORT + 1))
        yield self.until(lambda: len(waiting) == CONCURRENT, "the first are being read")
        yield self.scanned(carrier)
        for number in range(100, 100 + 3 * IN_A_ROW):
            self.put(name(number), b"short")
        yield self.until(lambda: len(waiting) == CONCURRENT + 1, "a short one is handed over at once")
        self.assertEqual(receiver.pieces[-1][2], len(b"short"))
        yield self.scanned(carrier)
        yield self.rest(self.quiet)
        while os.listdir(self.inbox()):
            if waiting:
                waiting.pop(0).callback(Verdict.CONSUMED)
            yield self.rest(0.005)
        sizes = [size for _, _, size, _ in receiver.pieces]
        after = sizes[CONCURRENT : CONCURRENT + IN_A_ROW]
        self.assertEqual(after, [len(b"short")] * IN_A_ROW)
        self.assertIn(SHORT + 1, sizes[CONCURRENT + IN_A_ROW : -IN_A_ROW])


class HostileTests(FolderTestCase):
    """Whatever lies in the folder, nothing blocks, nothing outside is read, and good packets arrive."""

    @inlineCallbacks
    def ignored(self, plant: Callable[[str], object]) -> Steps:
        """What C{plant(path)} puts where a packet should be is left alone, before and after the start."""
        early, late = (os.path.join(self.inbox(), name(number)) for number in (1, 2))
        flat = os.path.join(self.root, name(3))
        plant(early)
        plant(flat)
        carrier, receiver = yield self.node(BOB)
        plant(late)
        yield self.good_arrives(receiver)
        yield self.until(lambda: carrier.counters()["files_ignored"] >= 3, "each is seen")
        yield self.rest(self.quiet)
        self.assertEqual(set(receiver.contents), {name(999)})
        for path in (early, late, flat):
            self.assertTrue(os.path.lexists(path))
        # Told of once each by the scan and at most once more by whoever opened it.
        self.assertLessEqual(carrier.counters()["files_ignored"], 6)

    def test_symlink(self) -> Any:
        """A symbolic link to a secret is not followed."""
        secret = os.path.join(os.path.dirname(self.root), "secret")
        with open(secret, "wb") as file:
            file.write(b"secret")
        return self.ignored(lambda path: os.symlink(secret, path))

    def test_danglingSymlink(self) -> Any:
        """A link to nowhere is not a file that vanished: it is not looked at again and again."""
        return self.ignored(lambda path: os.symlink("/nowhere", path))

    def test_fifo(self) -> Any:
        """A FIFO that nobody writes to does not block."""
        return self.ignored(os.mkfifo)

    def test_directory(self) -> Any:
        """A directory named like a packet is no packet."""
        return self.ignored(os.mkdir)

    def test_socket(self) -> Any:
        """Nor is a socket."""

        def plant(path: str) -> None:
            # Paths of sockets are short: bind from within.
            here = os.getcwd()
            os.chdir(os.path.dirname(path))
            try:
                with socket.socket(socket.AF_UNIX) as listening:
                    listening.bind(os.path.basename(path)[:100])
                os.rename(os.path.basename(path)[:100], path)
            finally:
                os.chdir(here)

        return self.ignored(plant)

    def test_device(self) -> Any:
        """Nor is a device."""
        only_root("making a device")
        try:
            os.mknod(os.path.join(self.root, "try"), stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError as error:
            raise SkipTest("no right to make devices here") from error
        return self.ignored(lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)))

    @inlineCallbacks
    def test_hardlink(self) -> Steps:
        """A hard link is a file like others; when it is refused only the link goes."""
        outside = os.path.join(os.path.dirname(self.root), "outside")
        with open(outside, "wb") as file:
            file.write(b"not a packet")
        os.link(outside, os.path.join(self.inbox(), name(1)))
        _, receiver = yield self.node(BOB)
        receiver.answer = lambda *_: Verdict.REFUSED
        yield self.until(lambda: not os.listdir(self.inbox()), "the link goes")
        self.assertTrue(os.path.exists(outside))

    @inlineCallbacks
    def test_subfolderIsALink(self) -> Steps:
        """Neither is our inbox reached through a link, nor a recipient's."""
        elsewhere = os.path.abspath(self.mktemp())
        os.mkdir(elsewhere)
        with open(os.path.join(elsewhere, name(1)), "wb") as file:
            file.write(b"not ours")
        os.symlink(elsewhere, os.path.join(self.root, str(BOB)))
        carrier, receiver = yield self.node(BOB)
        alice, at_alice = yield self.node(ALICE)
        yield self.until(lambda: carrier.counters()["files_ignored"] == 1, "it is seen")
        yield self.rest(self.quiet)
        self.assertEqual(receiver.pieces, [])
        alice.transport(BOB).write(b"do not follow")
        yield self.until(lambda: alice.counters()["write_errors"] > 0, "it is not written")
        yield self.until(lambda: at_alice.health == ["up", "down"], "it is reported")
        self.assertEqual(os.listdir(elsewhere), [name(1)])
        # The good way round still works: flat files, and other recipients.
        with open(os.path.join(self.root, name(2)), "wb") as flat:
            flat.write(b"flat")
        yield self.until(lambda: name(2) in receiver.consumed, "a flat file arrives")

    @inlineCallbacks
    def test_strangeBytes(self) -> Steps:
        """Names that are not UTF-8, have newlines or are as long as can be are left alone."""
        here = os.fsencode(self.inbox())
        strange = [
            b"\xff\xfe.hoft",
            name(1).encode() + b"\n",
            b"\x1b[2J.hoft",
            b"x" * 255,
            name(2).encode()[:-6] + b"\xff.hoft",
        ]
        for each in strange:
            with open(os.path.join(here, each), "wb") as file:
                file.write(b"strange")
        carrier, receiver = yield self.node(BOB)
        with open(os.path.join(here, b"later\xff.hoft"), "wb") as file:
            file.write(b"strange")
        yield self.good_arrives(receiver)
        yield self.until(lambda: carrier.counters()["files_ignored"] >= 6, "each is seen")
        yield self.rest(self.quiet)
        self.assertEqual(set(receiver.contents), {name(999)})
        yield self.until(lambda: len(os.listdir(here)) == 6, "the good one goes")
        self.assertEqual(carrier.counters()["files_ignored"], 6)
        self.assertRegex(carrier.examples()["files_ignored"][0], "[.]hoft.*': no packet$")

    @inlineCallbacks
    def test_manyStrangers(self) -> Steps:
        """A few are named in the log, and then it is said how many there are."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        here = self.inbox()
        carrier, _ = yield self.node(BOB)
        for number in range(501):
            with open(os.path.join(here, f"{number}.hoft"), "wb"):
                pass
        yield self.until(lambda: carrier.counters()["files_ignored"] == 501, "all are seen")
        said = list(map(formatEvent, events))
        self.assertEqual(sum("is left alone" in line for line in said), folder.NAMED)
        counted = [int(line.split()[0]) for line in said if "are left alone by now" in line]
        self.assertGreater(counted[-1], 250)
        self.assertLess(len(counted), 8)

    @inlineCallbacks
    def test_sparse(self) -> Steps:
        """A file larger than any packet is refused unread; one hole as large as a packet costs little."""
        huge = self.put(name(1), b"x")
        os.truncate(huge, 1 << 40)
        hole = self.put(name(2), b"begins well")
        os.truncate(hole, MAX_FILE)
        carrier, receiver = yield self.node(BOB)
        receiver.answer = lambda name, offset, piece, settled: (
            receiver.consume(name, offset, piece, settled) if settled else Verdict.MORE
        )
        read = 0
        pread = os.pread

        def counted(*arguments: Any) -> bytes:
            nonlocal read
            piece = pread(*arguments)
            read += len(piece)
            return piece

        self.patch(os, "pread", counted)
        yield self.until(lambda: not os.path.exists(huge), "the huge file goes")
        self.assertEqual(carrier.counters()["files_refused"], 1)
        self.assertIn(f"{1 << 40} bytes", carrier.examples()["files_refused"][0])
        yield self.until(lambda: not os.path.exists(hole), "the other settles")
        self.assertEqual(receiver.pieces[0][:3], (name(2), 0, len(b"begins well")))
        self.assertLess(len(receiver.consumed[name(2)]), 100)
        self.assertLess(read, 32 * MAX_PIECE)

    @inlineCallbacks
    def test_growsTooLarge(self) -> Steps:
        """A file that outgrows the limit while it is read is refused, and its receiver told."""
        path = self.put(name(1), b"small")
        _, receiver = yield self.node(BOB)
        receiver.answer = lambda *_: Verdict.MORE
        yield self.until(lambda: receiver.pieces, "it arrives")
        os.truncate(path, MAX_FILE + 1)
        yield self.until(lambda: not os.path.exists(path), "it goes")
        self.assertEqual(receiver.forgotten, [name(1)])

    @inlineCallbacks
    def test_foreignEntries(self) -> Steps:
        """Ten thousand entries of others delay nobody, and nothing is said of them."""
        for number in range(5000):
            with open(os.path.join(self.root, name(number, ALICE, CAROL)), "wb"):
                pass
            with open(os.path.join(self.root, f"somebody-elses-{number}.txt"), "wb"):
                pass
        carrier, receiver = yield self.node(BOB)
        yield self.scanned(carrier)
        self.assertEqual(carrier.counters()["files_ignored"], 0)
        before = carrier.counters()["scans"]
        yield self.good_arrives(receiver)
        self.assertLess(carrier.counters()["scans"] - before, 10)
        self.assertEqual(set(receiver.contents), {name(999)})

    @inlineCallbacks
    def test_forgeries(self) -> Steps:
        """A peer's file waits for a few of a crowd of strangers' forgeries, not for all."""
        for number in range(1500):
            self.put(str(FileName(UUID(int=number + 1), BOB, 1, 1)), b"forged")
        bob = self.makeCarrier(BOB, 1)
        bob.transport(ALICE)
        self.carriers.append(bob)
        self.put(name(1), b"good")
        receiver = RecordingReceiver()
        self.receivers.append(receiver)
        receiver.answer = lambda name, offset, piece, settled: (
            receiver.consume(name, offset, piece, settled) if piece == b"good" else Verdict.REFUSED
        )
        yield bob.start(receiver)
        yield self.until(lambda: receiver.consumed, "the good one arrives")
        self.assertLess([piece[0] for piece in receiver.pieces].index(name(1)), 100)
        yield self.until(lambda: not os.listdir(self.inbox()), "all forgeries go")
        self.assertEqual(bob.counters()["files_refused"], 1500)


class TurnTests(FolderTestCase):
    """Who is read next."""

    @inlineCallbacks
    def test_oneSenderHoldsAllPlaces(self) -> Steps:
        """Large files of one sender make room for another's after their next piece."""
        for number in range(6):
            self.put(name(number, CAROL), pattern(4 * MAX_PIECE))
        bob = self.makeCarrier(BOB, 1)
        bob.transport(CAROL)
        bob.transport(ALICE)
        self.carriers.append(bob)
        receiver = RecordingReceiver()
        self.receivers.append(receiver)
        thinking: list[Deferred[Verdict]] = []

        def think(file: str, offset: int, piece: bytes, settled: bool) -> Deferred[Verdict] | Verdict:
            if piece == b"good":
                return receiver.consume(file, offset, piece, settled)
            thinking.append(Deferred())
            return thinking[-1]

        receiver.answer = think
        yield bob.start(receiver)
        yield self.until(lambda: len(thinking) == 4, "four files are under way")
        yield self.rest(0.1)
        self.assertEqual(len(thinking), 4)
        self.put(name(1), b"good")
        yield self.scanned(bob)
        thinking[0].callback(Verdict.MORE)
        yield self.until(lambda: name(1) in receiver.consumed, "the other sender's file arrives")
        yield self.until(lambda: len(thinking) == 5, "the place is given back")
        # To the file that gave it up, not to one that has not begun.
        self.assertEqual(receiver.pieces[-1][:2], (receiver.pieces[0][0], MAX_PIECE))


class ArrivingTests(FolderTestCase):
    """Files as careless mirrors make them, with real files."""

    def count_looks(self) -> tuple[Callable[[], int], Lock]:
        """How often any file has been looked at, and what is held meanwhile."""
        looking, looks = Lock(), 0
        look = reading._look

        def counted(*arguments: Any) -> Any:
            nonlocal looks
            with looking:
                looks += 1
                return look(*arguments)

        self.patch(reading, "_look", counted)
        return lambda: looks, looking

    @inlineCallbacks
    def test_flat(self) -> Steps:
        """A file lying in the inbox itself is read and deleted as well."""
        path = os.path.join(self.root, name(1))
        _, receiver = yield self.node(BOB)
        with open(path, "wb") as file:
            file.write(b"flat")
        yield self.until(lambda: name(1) in receiver.consumed, "it arrives")
        yield self.until(lambda: not os.path.exists(path), "it goes")

    @inlineCallbacks
    def test_inBothPlaces(self) -> Steps:
        """One name in both places is handed over twice, one after the other."""
        self.put(name(1), b"one")
        with open(os.path.join(self.root, name(1)), "wb") as file:
            file.write(b"another")
        _, receiver = yield self.node(BOB)
        yield self.until(lambda: len(receiver.pieces) == 2, "both arrive")
        yield self.until(lambda: not os.listdir(self.inbox()), "one goes")
        yield self.until(lambda: name(1) not in os.listdir(self.root), "the other goes")

    @inlineCallbacks
    def test_truncatedThenReplaced(self) -> Steps:
        """A cut file that is replaced by the whole one, under another inode, goes on where it stopped."""
        content = pattern(MAX_PIECE + 5000)
        self.put(name(1), content[:5000])
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) == len(content)
        yield self.until(lambda: receiver.pieces, "the beginning arrives")
        whole = self.put(".incoming", content)
        os.rename(whole, os.path.join(self.inbox(), name(1)))
        yield self.until(lambda: name(1) in receiver.consumed, "the rest arrives")
        self.assertEqual(receiver.consumed[name(1)], content)
        self.assertEqual([piece[1] for piece in receiver.pieces].count(0), 1)

    @inlineCallbacks
    def test_shrinks(self) -> Steps:
        """A file that shrinks is another file: it comes from 0."""
        path = self.put(name(1), pattern(5000))
        _, receiver = yield self.node(BOB)
        receiver.answer = lambda *_: Verdict.MORE
        yield self.until(lambda: receiver.pieces, "it arrives")
        os.truncate(path, 3000)
        yield self.until(lambda: receiver.contents[name(1)] == pattern(3000), "the shorter one arrives")

    @inlineCallbacks
    def test_gap(self) -> Steps:
        """What a file has room for is waited for, and arrives in order once it is written there."""
        looks, looking = self.count_looks()
        seconds = 0.0
        self.clock = lambda: seconds
        content = pattern(3 * MAX_PIECE)
        path = self.put(name(1), content[: MAX_PIECE + 5000])
        os.truncate(path, len(content))
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) == len(content)
        yield self.until(lambda: len(receiver.pieces) == 2, "the beginning arrives")
        seen = looks()
        seconds += 0.06
        yield self.until(lambda: looks() > seen, "the gap is looked at")
        self.assertEqual(receiver.contents[name(1)], content[: MAX_PIECE + 5000])
        # No system promises that what is read while it is written is all old or all new.
        with looking, open(path, "r+b") as file:
            file.seek(MAX_PIECE + 5000)
            file.write(content[MAX_PIECE + 5000 :])
            seconds += 0.06
        yield self.until(lambda: name(1) in receiver.consumed, "the rest arrives")
        self.assertEqual(receiver.consumed[name(1)], content)

    @inlineCallbacks
    def test_a_gap_that_fills_between_two_reads_is_no_data(self) -> Steps:
        """Zeros were read, and when it is looked whether the file ends so, it does not any more."""
        content = pattern(3 * MAX_PIECE)
        path = self.put(name(1), content[: MAX_PIECE + 5000])
        os.truncate(path, len(content))
        ends_in_zeros, filled = reading._ends_in_zeros, Event()

        def after_filling(file: int, size: int) -> bool:
            if not filled.is_set():
                filled.set()
                with open(path, "r+b") as writer:
                    writer.seek(MAX_PIECE + 5000)
                    writer.write(content[MAX_PIECE + 5000 :])
            return ends_in_zeros(file, size)

        self.patch(reading, "_ends_in_zeros", after_filling)
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) == len(content)
        yield self.until(lambda: name(1) in receiver.consumed, "it arrives")
        self.assertTrue(filled.is_set())
        self.assertEqual(receiver.consumed[name(1)], content)

    @inlineCallbacks
    def test_a_receiver_that_raises_hears_of_the_next_file(self) -> Steps:
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: False
        path = self.put(name(1), pattern(1000))
        yield self.until(lambda: receiver.pieces, "its beginning arrives")

        def forget(name: str) -> None:
            del receiver.fileForgotten
            raise RuntimeError("a mistake")

        self.patch(receiver, "fileForgotten", forget)
        os.unlink(path)
        yield self.until(lambda: self.flushLoggedErrors(RuntimeError), "it is logged")
        receiver.complete = lambda so_far: True
        yield self.good_arrives(receiver)

    @inlineCallbacks
    def test_zeroByteAtTheEnd(self) -> Steps:
        """A packet that happens to end with a zero byte does not wait for anything."""
        _, receiver = yield self.node(BOB)
        self.put(name(1), b"ends with zero\0")
        yield self.until(lambda: name(1) in receiver.consumed, "it arrives")
        self.assertEqual(receiver.pieces, [(name(1), 0, 15, False)])

    @inlineCallbacks
    def test_empty(self) -> Steps:
        """An empty file settles like any other."""
        _, receiver = yield self.node(BOB)
        self.put(name(1), b"")
        yield self.until(lambda: name(1) in receiver.consumed, "it settles")
        self.assertEqual(receiver.pieces, [(name(1), 0, 0, True)])

    @inlineCallbacks
    def test_writtenInPlace(self) -> Steps:
        """A file that is slowly written in place does not settle while its writer goes on."""
        seconds = 0.0
        self.clock = lambda: seconds
        looks, _ = self.count_looks()
        _, receiver = yield self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) == 1200
        with open(os.path.join(self.inbox(), name(1)), "wb", buffering=0) as file:
            for written in range(100, 1300, 100):
                file.write(b"x" * 100)
                seconds += 0.06
                arrived = partial(lambda size: sum(piece[2] for piece in receiver.pieces) == size, written)
                yield self.until(arrived, "what is written arrives")
                if written < 1200:
                    seen = looks()
                    seconds += 0.06
                    yield self.until(partial(lambda seen: looks() > seen, seen), "nothing new is found")
        yield self.until(lambda: name(1) in receiver.consumed, "it arrives")
        self.assertEqual([piece[3] for piece in receiver.pieces].count(True), 0)

    @inlineCallbacks
    def test_latency(self) -> Steps:
        """Where the system tells of files, a poll is not waited for."""
        self.poll = 3600.0
        self.patch(folder, "QUICK", self.poll)
        alice, _ = yield self.node(ALICE)
        _, receiver = yield self.node(BOB)
        transport = alice.transport(BOB)
        yield self.send(transport, b"makes the subfolder")
        yield self.until(lambda: receiver.pieces, "the first arrives")
        for number in range(2, 30):
            transport.write(b"quick")
            yield self.until(partial(lambda most: len(receiver.pieces) == most, number), "it arrives")

    @inlineCallbacks
    def test_directoryReplaced(self) -> Steps:
        """When our subfolder is replaced by another the system tells of that one's files."""
        self.inbox()
        carrier, receiver = yield self.node(BOB)
        yield self.good_arrives(receiver, 1)
        for number in (2, 3):
            if number == 2:
                shutil.rmtree(self.inbox())
            else:
                os.rename(self.inbox(), os.path.join(self.root, "old"))
            yield self.good_arrives(receiver, number)
            yield self.scanned(carrier)  # now it is known that it is another
            yield self.scanned(carrier)
            looking = self.patch(carrier, "_look", lambda delay: None)
            yield self.good_arrives(receiver, 10 + number)
            looking.restore()
            carrier.wake()


class RootTests(FolderTestCase):
    """Folders that are not there, not any more, or not ours to use."""

    def nothing_stays(self) -> Deferred[None]:
        """No stump is left; what a probe writes is there for a moment only."""
        cleared: Deferred[None] = self.until(lambda: not os.listdir(self.inbox()), "the stump goes")
        return cleared

    @inlineCallbacks
    def test_missingAtStart(self) -> Steps:
        """A root that is not there is a mistake in the configuration, and is not made."""
        missing = os.path.join(self.root, "missing")
        for inbox, outbox, key in ((missing, self.root, "inbox"), (self.root, missing, "outbox")):
            carrier = FolderCarrier(reactor, FolderLocation(inbox, outbox), BOB, 1, time.monotonic)
            self.carriers.append(carrier)
            error = yield self.assertFailure(carrier.start(RecordingReceiver()), ConfigurationError)
            self.assertEqual(error.key, key)
            self.assertIn(missing, str(error))
            self.assertFalse(os.path.exists(missing))

    @inlineCallbacks
    def test_notADirectory(self) -> Steps:
        """A root that is a file is a mistake, too."""
        path = os.path.join(self.root, "file")
        with open(path, "wb"):
            pass
        carrier = FolderCarrier(reactor, FolderLocation(path, path), BOB, 1, time.monotonic)
        self.carriers.append(carrier)
        yield self.assertFailure(carrier.start(RecordingReceiver()), ConfigurationError)

    @inlineCallbacks
    def test_vanishes(self) -> Steps:
        """A root that goes away is down, is not made again, and is up when it is back."""
        alice, at_alice = yield self.node(ALICE)
        _, at_bob = yield self.node(BOB)
        transport = alice.transport(BOB)
        away = self.root + ".away"
        os.rename(self.root, away)
        yield self.until(lambda: at_bob.health == ["up", "down"], "it is down")
        self.assertIn(self.root, at_bob.reasons[0])
        transport.write(b"lost")
        with self.assertRaises(CarrierError):
            yield self.off(transport.create)
        yield self.until(lambda: at_alice.health == ["up", "down"], "it is down for alice")
        self.assertFalse(os.path.exists(self.root))
        os.rename(away, self.root)
        yield self.until(lambda: at_bob.health[-1] == at_alice.health[-1] == "up", "it is up again")
        transport.write(b"not lost")
        yield self.until(lambda: b"not lost" in at_bob.consumed.values(), "files are carried again")

    @inlineCallbacks
    def test_unmounted(self) -> Steps:
        """The empty mount point that an unmounted root leaves behind is not taken for it."""
        mount(self, self.root, "1m")
        alice, receiver = yield self.node(ALICE)
        transport = alice.transport(BOB)
        yield self.send(transport, b"while mounted")
        subprocess.run(["umount", self.root], check=True)
        yield self.until(lambda: receiver.health == ["up", "down"], "it is down")
        self.assertIn("mounted", receiver.reasons[0])
        transport.write(b"not here")
        yield self.until(lambda: alice.counters()["write_errors"], "it is not written")
        self.assertEqual(os.listdir(self.root), [])
        mount(self, self.root, "1m")
        yield self.until(lambda: receiver.health[-1] == "up", "it is up again")

    @inlineCallbacks
    def test_full(self) -> Steps:
        """A full folder is down, keeps no stump, and is up once there is room."""
        mount(self, self.root, "1m")
        alice, receiver = yield self.node(ALICE)
        transport = alice.transport(BOB)
        ballast = os.path.join(self.root, "ballast")
        with open(ballast, "wb") as file:
            file.write(bytes(980 << 10))
        writer = yield self.off(transport.create)
        with self.assertRaises(CarrierError):
            yield self.off(writer.write, bytes(MAX_PIECE))
        yield self.off(writer.abandon)
        transport.write(bytes(300 << 10))
        yield self.until(lambda: receiver.health == ["up", "down"], "it is down")
        self.assertIn("space", receiver.reasons[0])
        yield self.until(lambda: alice.counters()["write_errors"] == 2, "both failed")
        yield self.nothing_stays()
        os.unlink(ballast)
        yield self.until(lambda: receiver.health == ["up", "down", "up"], "it is up again")
        yield self.send(transport, bytes(300 << 10))
        self.assertEqual(len(os.listdir(os.path.join(self.root, str(BOB)))), 1)

    @inlineCallbacks
    def test_fileTooLargeForTheSystem(self) -> Steps:
        """A write that the system cuts short leaves no stump either, without any right to mount."""
        alice, receiver = yield self.node(ALICE)
        transport = alice.transport(BOB)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            transport.write(bytes(200_000))
            yield self.until(lambda: receiver.health == ["up", "down"], "it is down")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, handler)
        yield self.nothing_stays()
        yield self.until(lambda: receiver.health[-1] == "up", "it is up again")

    @inlineCallbacks
    def test_hangs(self) -> Steps:
        """A folder that does not answer is down; it delays neither the reactor nor the end."""
        self.patience_of_carrier = 0.2
        self.patch(folder, "LAST_WORDS", 0.2)
        carrier, receiver = yield self.node(BOB)
        transport = carrier.transport(ALICE)
        answers, hanging = Event(), Event()
        self.addCleanup(answers.set)
        listing = os.scandir

        def hung(*arguments: Any) -> Any:
            hanging.set()
            answers.wait()
            return listing(*arguments)

        self.patch(os, "scandir", hung)
        yield self.until(lambda: hanging.is_set() and receiver.health[-1] == "down", "it is down")
        self.assertIn("does not answer", receiver.reasons[-1])
        self.patch(os, "scandir", listing)
        answers.set()
        yield self.until(lambda: receiver.health[-1] == "up", "it is up again")
        answers.clear()
        hanging.clear()
        creating = directories.create_regular

        def hung_create(folder: int, name: str, mode: int) -> int:
            hanging.set()
            answers.wait()
            return creating(folder, name, mode)

        self.patch(writing, "create_regular", hung_create)
        transport.write(b"hangs")
        yield self.until(lambda: hanging.is_set() and receiver.health[-1] == "down", "it is down")
        yield carrier.stop()  # while it still hangs

    @inlineCallbacks
    def test_hangsAtStart(self) -> Steps:
        """A folder that hangs when we start does not keep us from starting."""
        self.patience_of_carrier = 0.2
        answers = Event()
        self.addCleanup(answers.set)
        access = os.access

        def hung(*arguments: Any, **options: Any) -> bool:
            answers.wait()
            return access(*arguments, **options)

        self.patch(os, "access", hung)
        _, receiver = yield self.node(BOB)
        self.assertEqual(receiver.health, ["down"])
        answers.set()
        yield self.until(lambda: receiver.health[-1] == "up", "it is up")
        yield self.good_arrives(receiver)

    @inlineCallbacks
    def test_leftovers(self) -> Steps:
        """What an earlier process was writing when it died is cleared away; other files are not."""
        self.put("." + str(FileName(ALICE, BOB, 1, 1)), b"ours, of an earlier process")
        others = ["." + str(FileName(CAROL, BOB, 1, 1)), ".hidden", str(FileName(ALICE, BOB, 1, 2))]
        for other in others:
            self.put(other, b"x")
        alice, _ = yield self.node(ALICE, boot=2)
        yield self.send(alice.transport(BOB), b"x")
        yield self.until(lambda: len(os.listdir(self.inbox())) == 4, "it is cleared away")
        self.assertEqual(set(others) - set(os.listdir(self.inbox())), set())


class ModeTests(FolderTestCase):
    """Who may read what we write."""

    def modes(self) -> tuple[int, int]:
        (packet,) = os.listdir(self.inbox())
        return (
            stat.S_IMODE(os.stat(self.inbox()).st_mode),
            stat.S_IMODE(os.stat(os.path.join(self.inbox(), packet)).st_mode),
        )

    @inlineCallbacks
    def follows(self, mode: int, packet: int) -> Steps:
        os.chmod(self.root, mode)
        alice, _ = yield self.node(ALICE)
        umask = os.umask(0o077)
        try:
            yield self.send(alice.transport(BOB), b"x")
        finally:
            os.umask(umask)
        self.assertEqual([oct(each) for each in self.modes()], [oct(mode), oct(packet)])

    def test_public(self) -> Any:
        """In a folder that all may list, all may read packets, whatever the umask."""
        return self.follows(0o755, 0o644)

    def test_group(self) -> Any:
        """In a folder for a group, its members may; setgid is handed on."""
        return self.follows(0o2770, 0o640)

    def test_private(self) -> Any:
        """In a private folder nobody else may."""
        return self.follows(0o700, 0o600)

    def test_fileMode(self) -> Any:
        """C{file_mode} says otherwise."""
        self.file_mode = 0o660
        return self.follows(0o700, 0o660)

    @inlineCallbacks
    def test_group_owner(self) -> Steps:
        """Subfolder and packets have the folder's group, without setgid as well."""
        only_root("changing groups")
        os.chown(self.root, -1, 12345)
        alice, _ = yield self.node(ALICE)
        yield self.send(alice.transport(BOB), b"x")
        (packet,) = os.listdir(self.inbox())
        self.assertEqual(os.stat(self.inbox()).st_gid, 12345)
        self.assertEqual(os.stat(os.path.join(self.inbox(), packet)).st_gid, 12345)

    @inlineCallbacks
    def test_mirrorUnderAnotherUser(self) -> Steps:
        """A mirror that runs as somebody else can read packets."""
        only_root("becoming another user")
        os.chmod(self.root, 0o755)
        alice, _ = yield self.node(ALICE)
        written = yield self.send(alice.transport(BOB), b"for the mirror")
        program = f"os.write(1, os.read(os.open('{BOB}/{written}', os.O_RDONLY), 99))"
        read = yield self.off(as_nobody, program, self.root)
        self.assertEqual(read, b"for the mirror")

    @inlineCallbacks
    def test_readOnlyInbox(self) -> Steps:
        """
        A reader without the right to delete hands each file over once, remembers
        it until it vanishes, and notices when it changes.
        """
        only_root("becoming another user")
        self.put(name(1), b"one")
        os.chmod(self.root, 0o755)
        program = READ_ONLY.format(bob=str(BOB), path=sys.path, drop=DROP)
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.root,
        )
        self.addCleanup(child.kill)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            line = child.stdout.readline
            self.assertEqual((yield self.off(line)), f"{name(1)} one\n")
            yield self.rest(0.3)
            self.put(name(2), b"two")
            self.assertEqual((yield self.off(line)), f"{name(2)} two\n")
            self.put(name(1) + ".new", b"one, whole")
            os.rename(os.path.join(self.inbox(), name(1) + ".new"), os.path.join(self.inbox(), name(1)))
            self.assertEqual((yield self.off(line)), f"{name(1)} one, whole\n")
            os.unlink(os.path.join(self.inbox(), name(1)))
            yield self.rest(0.3)
            self.put(name(1), b"again")
            self.assertEqual((yield self.off(line)), f"{name(1)} again\n")
            self.assertEqual(len(os.listdir(self.inbox())), 2)
        finally:
            child.stdin.close()
            yield self.off(child.wait)
            child.stdout.close()


DROP = """
import os
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""
"""
Become nobody, in a process that root has started in the folder: another user may
not even see the interpreter, or the way to the folder.
"""

READ_ONLY = """
import encodings.idna, linecache, sys, time, traceback
sys.path[:] = {path!r}
from uuid import UUID
from hoft.testing.harness import RecordingReceiver
from hoft.transports.folder import FolderCarrier
from hoft.transports.locations import FolderLocation
from twisted.internet import reactor, stdio
from twisted.internet.protocol import Protocol
{drop}
class Until(Protocol):
    def connectionLost(self, reason):
        reactor.stop()

class Receiver(RecordingReceiver):
    def fileReceived(self, name, offset, piece, settled):
        print(name, piece.decode(), flush=True)
        return super().fileReceived(name, offset, piece, settled)

carrier = FolderCarrier(reactor, FolderLocation(".", "/tmp", 0.05), UUID({bob!r}), 1, time.monotonic)
carrier.start(Receiver()).addErrback(lambda failure: print(failure, flush=True))
stdio.StandardIO(Until())
reactor.run()
"""


def as_nobody(program: str, folder: str) -> bytes:
    """What a Python program prints that runs in a folder as another user."""
    command = [sys.executable, "-c", f"{DROP}{program}"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=20, cwd=folder).stdout
