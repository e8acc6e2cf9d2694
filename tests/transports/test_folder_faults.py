"""
The folder carrier while its file system fails: each call, in each way, once and for good.

In virtual time, over a file system in memory; what a real one can show is in
L{tests.transports.test_folder}.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from itertools import pairwise
from random import Random
from uuid import UUID

from twisted.internet.defer import Deferred

from hoft.errors import CarrierError, CarrierFull
from hoft.interfaces import MAX_PIECE, Verdict
from hoft.testing.harness import ALICE, BOB, CAROL, RecordingReceiver, pattern
from hoft.transports.armour import Armour
from hoft.transports.filenames import FileName
from hoft.transports.folder import FolderCarrier
from hoft.transports.writing import FolderTransport

from .filesystem import VirtualFolderTestCase

SOAK = int(os.environ.get("HOFT_SOAK", "0"))

ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EBUSY,
    errno.ESTALE,
    errno.EACCES,
    errno.EPERM,
    errno.EINTR,
)

LETTERS = (pattern(3000, 1), pattern(MAX_PIECE + 5000, 2), pattern(100, 3))


class Post:
    """
    As a link does: writes each letter into one file after another until it has
    arrived, and then removes them.

    @ivar failed: how often a file could not be written.
    """

    def __init__(
        self, case: VirtualFolderTestCase, transport: FolderTransport, at: RecordingReceiver
    ) -> None:
        self.failed = 0
        self._clock = case.clock
        self._transport = transport
        self._at = at
        self._names: dict[bytes, list[str]] = {}
        self._wait = 0.5

    def send(self, letter: bytes) -> None:
        """See that it arrives."""
        names = self._names.setdefault(letter, [])
        if letter in self._at.consumed.values():
            self._transport.remove(names)
            return
        pause = 3.0
        try:
            writer = self._transport.create()
            try:
                for start in range(0, len(letter), MAX_PIECE):
                    writer.write(letter[start : start + MAX_PIECE])
                writer.finish()
                names.append(writer.name)
                self._wait = 0.5
            except CarrierError:
                writer.abandon()
                raise
        except CarrierError:
            self.failed += 1
            pause, self._wait = self._wait, min(2 * self._wait, 60.0)
        self._clock.callLater(pause, self.send, letter)


def name(number: int) -> str:
    """A packet's name."""
    return str(FileName(ALICE, BOB, 7, number))


class EveryCallTests(VirtualFolderTestCase):
    """Whichever call fails, all letters arrive, and nothing is left behind."""

    def live(self, fault: tuple[int, int, bool] | None = None) -> int:
        """
        Two nodes, three letters.

        @param fault: which call fails, counted from the carriers' start; how; and
            whether all that follow fail too, for ten minutes.
        @return: how many calls it took.
        """
        self.begin()
        calls = 0

        def fails(_: str) -> int | None:
            nonlocal calls
            calls += 1
            if fault is not None and (calls == fault[0] or (fault[2] and fault[0] <= calls < limit)):
                return fault[1]
            return None

        limit = 1 << 62
        alice, at_alice = self.node(ALICE)
        bob, at_bob = self.node(BOB)
        self.clock.advance(1)
        self.files.fault = fails
        at_bob.complete = lambda content: content in LETTERS
        transport = alice.transport(BOB)
        post = Post(self, transport, at_bob)
        for letter in LETTERS:
            post.send(letter)
        if fault is not None and fault[2]:
            self.clock.advance(300)
            self.assertLess(calls, fault[0] + 4000, "calls that fail are not made in haste")
            limit = 0
        done = lambda: set(LETTERS) <= set(at_bob.consumed.values())  # noqa: E731  # shorter than a function
        self.until(done, 130, "all letters arrive")
        self.clock.advance(100)
        self.assertEqual(self.files.folder(BOB), {})
        self.assertEqual(self.files.open_files, {})
        for carrier, receiver in ((alice, at_alice), (bob, at_bob)):
            self.assertEqual(receiver.faults, [])
            self.assertEqual(receiver.health, ["up", *["down", "up"] * (len(receiver.health) // 2)])
            self.stop(carrier)
        return calls

    def stop(self, carrier: FolderCarrier) -> None:
        """And nothing of it goes on."""
        carrier.stop()
        self.clock.advance(10)
        self.assertEqual(self.flushLoggedErrors(), [])

    def each(self, lasting: bool) -> None:
        """A share of all, another with each C{HOFT_SOAK}; with a large one all of them."""
        calls = self.live()
        self.assertGreater(calls, 80)
        share = max(1, 70 // (1 + SOAK))
        cases = [(number, error) for number in range(1, 81) for error in ERRORS]
        for number, error in cases[SOAK % share :: share]:
            try:
                self.live((number, error, lasting))
            except BaseException as wrong:
                wrong.add_note(
                    f"call {number}: {errno.errorcode[error]}, {'for good' if lasting else 'once'}"
                )
                raise

    def test_once(self) -> None:
        """One call fails, in turn each call in each way."""
        self.each(lasting=False)

    def test_forGood(self) -> None:
        """From some call on all fail, for minutes; then all goes on by itself."""
        self.each(lasting=True)


class FullTests(VirtualFolderTestCase):
    """A folder without room."""

    def test_full(self) -> None:
        """
        It is down and says why, keeps no stump, is tried every ten seconds,
        and all goes on by itself once there is room.
        """
        alice, at_alice = self.node(ALICE)
        _, at_bob = self.node(BOB)
        at_bob.complete = lambda content: content in LETTERS
        transport = alice.transport(BOB)
        self.clock.advance(1)
        self.files.room = 2000
        post = Post(self, transport, at_bob)
        post.send(LETTERS[0])
        self.clock.advance(1200)
        self.assertEqual(at_alice.health, ["up", "down"])
        self.assertIn("No space left", at_alice.reasons[0])
        self.assertIn("No space left", alice.examples()["write_errors"][0])
        self.assertLess(alice.examples()["write_errors"][1], 11)
        self.assertEqual(self.files.folder(BOB), {})
        tries = self.files.created
        self.assertLess(max(later - sooner for sooner, later in pairwise(tries)), 11)
        self.assertLess(len(tries), 240)
        self.assertGreater(post.failed, 10)
        self.files.room = 1 << 40
        self.until(lambda: at_alice.health[-1] == "up", 11, "it is up again")
        self.until(lambda: LETTERS[0] in at_bob.consumed.values(), 61, "the letter arrives")

    def test_room_for_shorter_files(self) -> None:
        """A folder that takes 64 KiB and no more is not down: who writes is told how much it took."""
        alice, at_alice = self.node(ALICE)
        transport = alice.transport(BOB)
        self.clock.advance(1)
        self.files.room = 100_000
        writer = transport.create()
        writer.write(bytes(60_000))
        with self.assertRaises(CarrierFull) as raised:
            writer.write(bytes(60_000))
        writer.abandon()
        self.assertEqual(raised.exception.written, 100_000)
        self.clock.advance(1)
        self.assertEqual(at_alice.health, ["up"])
        self.assertEqual(alice.counters()["write_errors"], 1)


class OneSubfolderTests(VirtualFolderTestCase):
    """What somebody has put in the place of one recipient's subfolder."""

    def spoil(self, recipient: UUID) -> None:
        entries = self.files.root.entries or {}
        entries.pop(str(recipient), None)
        self.files.put(None, str(recipient), b"no folder")

    def test_others_are_written_to_and_the_one_at_fault_is_named(self) -> None:
        alice, at_alice = self.node(ALICE)
        bob, carol = alice.transport(BOB), alice.transport(CAROL)
        self.spoil(BOB)
        self.clock.advance(1)
        with self.assertRaises(CarrierError) as raised:
            bob.create()
        self.assertEqual(str(raised.exception), f"outbox /exchange/{BOB}: Not a directory")
        carol.create().finish()
        self.clock.advance(60)
        self.assertEqual(at_alice.health, ["up"])

    def test_where_no_recipient_can_be_written_to_each_of_them_is_tried(self) -> None:
        """It is up again once one of them can, whichever was the last to fail."""
        alice, at_alice = self.node(ALICE)
        transports = {recipient: alice.transport(recipient) for recipient in (BOB, CAROL)}
        self.clock.advance(1)
        for recipient, transport in transports.items():
            self.spoil(recipient)
            self.assertRaises(CarrierError, transport.create)
        self.clock.advance(300)
        self.assertEqual(at_alice.health, ["up", "down"])
        for mended in (BOB, CAROL):
            (self.files.root.entries or {}).pop(str(mended))
            self.until(lambda: at_alice.health[-1] == "up", 11, "it is up again")
            self.spoil(mended)
            self.assertRaises(CarrierError, transports[mended].create)
            self.until(lambda: at_alice.health[-1] == "down", 1, "it is down")

    def test_where_files_are_written_in_place(self) -> None:
        """No file is made to try it, and what is wrong is not forgotten in between."""
        self.options = "?poll=1&rename=no"
        alice, at_alice = self.node(ALICE)
        transport = alice.transport(BOB)
        self.spoil(BOB)
        self.clock.advance(1)
        self.assertRaises(CarrierError, transport.create)
        self.clock.advance(300)
        self.assertEqual(at_alice.health, ["up", "down"])
        (self.files.root.entries or {}).pop(str(BOB))
        self.until(lambda: at_alice.health[-1] == "up", 11, "it is up again")
        self.assertEqual(self.files.folder(BOB), {})

    def test_a_folder_that_was_full_beside(self) -> None:
        """That there is room again is found out at a recipient who can be written to."""
        alice, at_alice = self.node(ALICE)
        bob, carol = alice.transport(BOB), alice.transport(CAROL)
        self.clock.advance(1)
        self.spoil(BOB)
        self.files.room = 100
        self.assertRaises(CarrierError, bob.create)
        self.assertRaises(CarrierFull, carol.create().write, bytes(200))
        self.until(lambda: at_alice.health[-1] == "down", 1, "it is down")
        self.files.room = 1 << 30
        self.until(lambda: at_alice.health[-1] == "up", 11, "it is up again")


class ListingTests(VirtualFolderTestCase):
    """Folders whose listings are old, as on NFS, SMB and rclone's mounts, or cannot be had."""

    def test_forbidden(self) -> None:
        """What is told is for a person: which folder, and why."""
        _, receiver = self.node(BOB)
        self.clock.advance(1)
        self.files.fault = lambda call: errno.EACCES if call == "scandir" else None
        self.clock.advance(120)
        self.assertEqual(receiver.reasons, ["inbox /exchange: Permission denied"])

    def test_stale(self) -> None:
        """Files arrive once each, and those that are only listed still are not run after."""
        for stale in (10.0, 60.0):
            self.begin()
            self.files.stale = stale
            bob, receiver = self.node(BOB)
            for number in range(50):
                self.files.put(BOB, name(number), b"%d" % number)
            self.clock.advance(2 * stale)
            for number in range(50, 100):
                self.files.put(BOB, name(number), b"%d" % number)
            before = self.files.calls["open"]
            self.clock.advance(4 * stale)
            self.assertEqual(len(receiver.pieces), 100)
            self.assertEqual(len(receiver.consumed), 100)
            self.assertEqual(self.files.folder(BOB), {})
            scans = 2 * (4 * stale + 200)
            self.assertLess(self.files.calls["open"] - before, scans + 50 * 30)
            self.assertEqual(bob.counters()["read_errors"], 0)

    def test_otherTenants(self) -> None:
        """
        A hundred thousand files of others in the inbox itself are gone through
        once a minute, and otherwise when something changes among them.
        """
        for number in range(100_000):
            self.files.put(None, f"{number:06}.dat", b"")
        bob, receiver = self.node(BOB)
        self.clock.advance(60)
        listed = self.files.listed
        self.clock.advance(180)
        self.assertLess((self.files.listed - listed) / 100_000, 5)
        self.assertEqual(bob.counters()["files_ignored"], 0)
        self.files.put(None, name(1), b"flat")
        self.files.put(BOB, name(2), b"in its place")
        self.until(lambda: len(receiver.consumed) == 2, 2, "both arrive")
        self.files.put(None, name(3), b"at once after the last listing")
        self.until(lambda: len(receiver.consumed) == 3, 2, "it arrives")

    def test_broughtBack(self) -> None:
        """A file that the mirror brings back, even as the same inode, is handed over and deleted again."""
        _, receiver = self.node(BOB)
        node = self.files.put(BOB, name(1), b"once")
        for times in range(1, 5):
            self.until(partial(self.came, receiver, times), 70, "it arrives")
            self.clock.advance(0.2)
            self.assertEqual(self.files.folder(BOB), {})
            entries = (self.files.root.entries or {})[str(BOB)].entries
            assert entries is not None
            entries[name(1)] = node
        self.assertEqual(receiver.faults, [])

    def came(self, receiver: RecordingReceiver, times: int) -> bool:
        return len(receiver.pieces) == times


class CrashTests(VirtualFolderTestCase):
    """What is left when a process or a machine stops."""

    def test_keptUntilAnswered(self) -> None:
        """A file stays until its receiver has committed: whoever dies before reads it again."""
        bob, receiver = self.node(BOB)
        answer: Deferred[Verdict] = Deferred()
        receiver.answer = lambda *_: answer
        self.files.put(BOB, name(1), b"letter")
        self.clock.advance(60)
        self.assertEqual(len(receiver.pieces), 1)
        self.assertEqual(list(self.files.folder(BOB)), [name(1)])
        bob.stop()
        answer.callback(Verdict.CONSUMED)
        self.clock.advance(60)
        _, again = self.node(BOB, boot=2)
        self.until(lambda: again.consumed == {name(1): b"letter"}, 5, "it is read again")
        self.until(lambda: not self.files.folder(BOB), 5, "and goes")

    def test_powerCut(self) -> None:
        """
        Whatever a power cut leaves of files that nobody synced, each comes to
        an end, what was being written is cleared away, and letters arrive.
        """
        for seed in range(6 * (1 + SOAK)):
            self.begin()
            random = Random(seed)
            alice, _ = self.node(ALICE, boot=1)
            transport = alice.transport(BOB)
            self.clock.advance(1)
            for _ in range(8):
                transport.write(pattern(random.randrange(5000), random.randrange(100)))
            self.clock.advance(0.1)
            writer = transport.create()
            writer.write(pattern(3000))
            self.assertEqual(len(self.files.folder(BOB)), 9)
            self.files.cut_power(random)
            alice, _ = self.node(ALICE, boot=2)
            _, at_bob = self.node(BOB)
            at_bob.complete = lambda content: content in LETTERS
            self.clock.advance(1)
            Post(self, alice.transport(BOB), at_bob).send(LETTERS[0])
            self.clock.advance(30)
            self.assertIn(LETTERS[0], at_bob.consumed.values())
            self.assertEqual(self.files.folder(BOB), {})


class ArmourTests(VirtualFolderTestCase):
    """Armoured files, as carriers for text bring them."""

    def arrives(self, *stages: bytes) -> RecordingReceiver:
        """What the receiver hears of a file that is seen in these stages, a third of a second apart."""
        self.begin()
        _, receiver = self.node(BOB)
        receiver.complete = lambda content: content in LETTERS
        for content in stages:
            self.files.put(BOB, name(1), content)
            self.clock.advance(0.3)
        self.clock.advance(60)
        self.assertEqual(receiver.faults, [])
        self.assertEqual(list(receiver.consumed), [name(1)])
        self.assertEqual(self.files.folder(BOB), {})
        return receiver

    def test_converted(self) -> None:
        """The reader needs no option for it, and other line ends do no harm."""
        for letter in (LETTERS[0], LETTERS[2]):
            armour = Armour()
            text = armour.put_on(letter) + armour.close()
            for changed in (text, text.replace(b"\n", b"\r\n"), text + b"\r\n\n", text.rstrip(b"\n")):
                self.assertEqual(self.arrives(changed).consumed[name(1)], letter)

    def test_grows(self) -> None:
        """It is handed over as it grows, whole lines at a time, also where zeros come first."""
        letter = LETTERS[0]
        armour = Armour()
        text = (armour.put_on(letter) + armour.close()).replace(b"\n", b"\r\n")
        for step in (5, 700, 1357):
            grown = self.arrives(*[text[:size] for size in range(step % 7, len(text) + step, step)][-50:])
            self.assertEqual(grown.consumed[name(1)], letter)
        filled = self.arrives(
            *(text[:size] + bytes(len(text) - size) for size in (0, 4, 900, 2000, len(text)))
        )
        self.assertEqual(filled.consumed[name(1)], letter)
        self.assertEqual([piece[1] for piece in filled.pieces].count(0), 1)

    def test_cut(self) -> None:
        """A cut file settles, and brings all that is left of it."""
        armour = Armour()
        text = armour.put_on(LETTERS[1])
        for size in (len(text) // 2, 100_000, 9 + 76 * 10, 9 + 76 * 10 + 33, 20):
            receiver = self.arrives(text[:size])
            arrived = receiver.consumed[name(1)]
            self.assertTrue(receiver.pieces[-1][3])
            self.assertGreaterEqual(len(arrived), (size - 9) // 76 * 60)
            sure = len(arrived) - 4 if len(arrived) % 60 else len(arrived)
            self.assertEqual(arrived[:sure], LETTERS[1][:sure])

    def test_halfAMark(self) -> None:
        """What might begin as armour and goes no further settles as it is; endless lines come to an end."""
        self.assertEqual(self.arrives(b"~hof").consumed[name(1)], b"~hof")
        for endless in (b"A", b"\n", b" \n"):
            receiver = self.arrives(b"~hoft85~" + endless * (MAX_PIECE + 5000))
            self.assertLess(len(receiver.consumed[name(1)]), 1000)


class LockedTests(VirtualFolderTestCase):
    """A file that cannot be read for a while: a scanner holds it, or the network does not answer."""

    def test_goes_on(self) -> None:
        """It is tried again, ever less often, and read on from where that ended."""
        content = pattern(3 * MAX_PIECE)
        _, receiver = self.node(BOB)
        receiver.complete = lambda so_far: len(so_far) == len(content)
        tries: list[float] = []

        def locked(call: str) -> int | None:
            if call != "pread" or not receiver.pieces or len(tries) >= 8:
                return None
            tries.append(self.clock.seconds())
            return errno.EBUSY

        self.files.fault = locked
        self.files.put(BOB, name(1), content)
        self.until(lambda: name(1) in receiver.consumed, 60, "it arrives")
        self.assertEqual(receiver.consumed[name(1)], content)
        self.assertEqual([offset for _, offset, _, _ in receiver.pieces].count(0), 1)
        waits = [after - before for before, after in pairwise(tries)]
        self.assertEqual(waits, sorted(waits))
        self.assertGreater(waits[-1], 8 * waits[0])


class WriteOnlyTests(VirtualFolderTestCase):
    """Outboxes where nothing can be listed, renamed or deleted."""

    options = "?poll=1&rename=no"

    def test_dropBox(self) -> None:
        """Files are written in place, and nothing else is needed; trials leave nothing lying about."""
        refused = {"listdir", "rename", "unlink"}
        alice, at_alice = self.node(ALICE)
        self.clock.advance(1)
        self.files.fault = lambda call: errno.EACCES if call in refused else None
        transport = alice.transport(BOB)
        for letter in LETTERS:
            transport.writeSequence([letter[:MAX_PIECE]])
        transport.remove([name(1)])
        transport.sweep()
        self.clock.advance(1)
        self.assertEqual(len(self.files.folder(BOB)), 3)
        self.files.room = 0
        with self.assertRaises(CarrierError):
            transport.create().write(b"no room")
        self.clock.advance(100)
        self.assertEqual(len(self.files.folder(BOB)), 4)
        self.assertEqual(at_alice.health, ["up", "down", "up"])
        self.files.room = 1 << 40
        self.files.fault = lambda call: None
        _, at_bob = self.node(BOB)
        self.clock.advance(5)
        self.assertEqual(
            sorted(at_bob.consumed.values()), sorted([b"", *(each[:MAX_PIECE] for each in LETTERS)])
        )
