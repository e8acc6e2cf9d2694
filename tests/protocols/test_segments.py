"""Payloads in append-only files."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import JournalError, PayloadLost
from hoft.protocols.segments import Location, Segments


class Table:
    """Table C{segment} in memory: what L{Segments.save} writes and L{Segments.open} is given."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[int, int, int]] = {}

    def execute(self, sql: str, parameters: Sequence[int]) -> None:
        if sql.startswith("DELETE"):
            self.rows.pop(parameters[0], None)
        else:
            self.rows[parameters[0]] = (parameters[0], parameters[1], parameters[2])


class SegmentsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.table = Table()
        self.segments = self.opened()

    def opened(self) -> Segments:
        segments = Segments(self.folder, 1000)
        self.leftovers = segments.open(self.table.rows.values())
        return segments

    def commit(self) -> list[int]:
        self.segments.keep()
        doomed = self.segments.save(self.table.execute)
        self.segments.committed(doomed)
        return doomed

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def test_read_what_was_stored(self) -> None:
        payloads = [random.Random(size).randbytes(size) for size in (0, 1, 300, 999, 5000)]
        locations = [self.segments.append(payload) for payload in payloads]
        self.assertEqual(self.segments.read_all(locations), payloads)
        self.commit()
        again = self.opened()
        self.assertEqual(again.read_all(Location.parse(bytes(location)) for location in locations), payloads)

    def test_a_new_file_when_one_is_full(self) -> None:
        for _ in range(4):
            self.segments.append(bytes(400))
        self.assertEqual(self.files(), ["000000000001.segment", "000000000002.segment"])

    def test_private_files(self) -> None:
        self.segments.append(b"secret")
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual([path.stat().st_mode & 0o777 for path in self.folder.iterdir()], [0o600])

    def test_removed_when_empty(self) -> None:
        """A segment goes with its last payload, and not while it is being filled."""
        locations = [self.segments.append(bytes(400)) for _ in range(5)]
        self.assertEqual(self.commit(), [])
        self.segments.discard(locations[0])
        self.assertEqual(self.commit(), [])
        self.segments.discard(locations[1])
        self.segments.discard(locations[4])
        doomed = self.commit()
        self.assertEqual(doomed, [1])
        # Readable until the disk knows of the commit.
        self.assertEqual(self.segments.read(locations[0]), bytes(400))
        self.segments.remove(doomed)
        self.assertRaises(PayloadLost, self.segments.read, locations[0])
        self.assertEqual(self.files(), ["000000000002.segment", "000000000003.segment"])

    def test_emptied_while_it_was_filled(self) -> None:
        """An empty segment goes when the next one is begun."""
        self.segments.discard(self.segments.append(bytes(900)))
        self.assertEqual(self.commit(), [])
        self.segments.append(bytes(900))
        self.assertEqual(self.commit(), [1])
        self.assertEqual(list(self.table.rows), [2])

    def test_undo(self) -> None:
        """What a failed operation stored and discarded is taken back; its room is used again."""
        kept = self.segments.append(b"kept")
        self.segments.keep()
        lost = self.segments.append(b"lost")
        self.segments.discard(kept)
        self.segments.undo()
        other = self.segments.append(b"take")
        self.commit()
        self.assertEqual(other.offset, lost.offset)
        self.assertEqual(self.segments.read_all([kept, other]), [b"kept", b"take"])
        self.assertRaises(PayloadLost, self.segments.read, lost)
        self.assertEqual(self.table.rows[1][2], 2)

    def test_rolled_back_transaction(self) -> None:
        first = self.segments.append(b"first")
        self.commit()
        before = dict(self.table.rows)
        self.segments.discard(first)
        for _ in range(4):
            self.segments.append(bytes(600))
            self.segments.keep()
        self.segments.rolled_back()
        self.assertEqual(self.segments.read(first), b"first")
        self.segments.append(b"second")
        self.commit()
        self.assertEqual(self.table.rows[1], before[1])
        self.assertEqual(sum(live for _, _, live in self.table.rows.values()), 2)
        # Segments begun in vain go with the next commit's leftovers, at the latest when reopened.
        self.opened().remove(self.leftovers)
        self.assertEqual(self.files(), [f"{number:012}.segment" for number in self.table.rows])

    def test_tail_of_a_crash(self) -> None:
        """What was written but not committed is dropped when the journal is opened."""
        kept = self.segments.append(b"kept")
        self.commit()
        for _ in range(5):
            self.segments.append(bytes(600))
        self.segments = self.opened()
        self.segments.remove(self.leftovers)
        self.assertEqual(self.files(), ["000000000001.segment"])
        self.assertEqual((self.folder / self.files()[0]).stat().st_size, self.table.rows[1][1])
        self.assertEqual(self.segments.read(kept), b"kept")
        self.assertEqual(self.segments.verify(), 0)

    def test_numbers_of_leftovers_are_not_used_again(self) -> None:
        for _ in range(3):
            self.segments.append(bytes(900))
        self.segments = self.opened()
        fresh = self.segments.append(b"fresh")
        self.assertEqual(self.leftovers, [1, 2, 3])
        self.segments.remove(self.leftovers)
        self.assertEqual(self.segments.read(fresh), b"fresh")

    def test_every_damage_is_noticed(self) -> None:
        """Cut anywhere, or one byte changed anywhere: the payload is lost, never wrong."""
        payloads = [random.Random(number).randbytes(30) for number in range(3)]
        locations = [self.segments.append(payload) for payload in payloads]
        self.commit()
        path = self.folder / self.files()[0]
        whole = path.read_bytes()

        def damaged(content: bytes) -> None:
            path.write_bytes(content)
            self.assertEqual(self.segments.verify(), 1)
            for payload, location in zip(payloads, locations, strict=True):
                try:
                    self.assertEqual(self.segments.read(location), payload)
                except PayloadLost:
                    pass

        for place in range(len(whole)):
            damaged(whole[:place])
            damaged(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            damaged(whole[:place] + bytes(len(whole) - place))  # a hole, as a power cut leaves it
        path.unlink()
        self.assertEqual(self.segments.verify(), 1)

    def test_a_damaged_segment_takes_no_more(self) -> None:
        """After a power cut cost the tail of a segment, nothing is appended behind the hole."""
        self.segments.append(bytes(100))
        self.commit()
        os.truncate(self.folder / self.files()[0], 50)
        self.segments = self.opened()
        self.assertEqual(self.segments.append(b"next").segment, 2)

    def test_twice_discarded(self) -> None:
        location = self.segments.append(b"payload")
        self.segments.discard(location)
        self.assertRaises(JournalError, self.segments.discard, location)

    def test_more_segments_than_open_files(self) -> None:
        payloads = [random.Random(number).randbytes(900) for number in range(60)]
        locations = [self.segments.append(payload) for payload in payloads]
        self.commit()
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        order = random.Random(1).sample(range(60), 60)
        self.assertEqual(
            self.segments.read_all(locations[number] for number in order),
            [payloads[number] for number in order],
        )
        self.segments.sync()
        if before:
            self.assertLessEqual(len(os.listdir("/proc/self/fd")), before + 1)

    def test_reads_while_segments_come_and_go(self) -> None:
        """A thread that reads gets the right bytes or PayloadLost, whatever the others do."""
        stored: list[tuple[Location, bytes]] = []
        stop = False
        wrong: list[object] = []
        right = 0

        def read() -> None:
            nonlocal right
            chance = random.Random(7)
            while not stop:
                if not stored:
                    continue
                location, payload = chance.choice(stored)
                try:
                    if self.segments.read(location) != payload:
                        wrong.append(location)
                    right += 1
                except PayloadLost:
                    pass
                except BaseException as error:
                    wrong.append(error)

        thread = Thread(target=read)
        thread.start()
        try:
            chance = random.Random(8)
            for number in range(400):
                payload = chance.randbytes(200)
                location = self.segments.append(payload)
                doomed = self.commit()
                stored.append((location, payload))
                if number >= 30:
                    self.segments.discard(stored[-30][0])
                    doomed += self.commit()
                self.segments.sync()
                self.segments.remove(doomed)
                del stored[:-60]
        finally:
            stop = True
            thread.join()
        self.assertEqual(wrong, [])
        self.assertGreater(right, 0)


class LocationTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        for location in (
            Location(0, b""),
            Location(3, b"abc"),
            Location(65536, None, 2**40, 16 << 20, 0xFFFFFFFF),
        ):
            self.assertEqual(Location.parse(bytes(location)), location)

    def test_nonsense(self) -> None:
        good = bytes(Location(10, None, 1, 8, 99))
        for bad in (b"", good[:-1], good + b"\0", b"\x02" + good[1:]):
            self.assertRaises(JournalError, Location.parse, bad)

    def test_a_payload_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(Location(6, b"secret")))
