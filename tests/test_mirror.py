"""The careless mirror: what it carries, what it does to files on the way, and that it counts all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hoft.errors import ConfigurationError
from hoft.mirror import PIECE, Chance, Counts, Faults, Mirror

from .processes import PATIENCE, command, environment, hoft


class ChanceTests(SynchronousTestCase):
    FAULTS = Faults(truncate=0.3, lose=0.1, duplicate=0.2, corrupt=0.05, delay=2.0)

    def test_one_seed_gives_one_sequence_of_fates(self) -> None:
        first, second, other = (Chance(self.FAULTS, seed) for seed in (5, 5, 6))
        fates = [first.next() for _ in range(200)]
        self.assertEqual(fates, [second.next() for _ in range(200)])
        self.assertNotEqual(fates, [other.next() for _ in range(200)])

    def test_each_fault_strikes_as_often_as_asked(self) -> None:
        chance = Chance(self.FAULTS, 1)
        fates = [chance.next() for _ in range(20000)]
        for share, probability in (
            (sum(fate.cut is not None for fate in fates), 0.3),
            (sum(fate.lost for fate in fates), 0.1),
            (sum(fate.again is not None for fate in fates), 0.2),
            (sum(fate.flip is not None for fate in fates), 0.05),
        ):
            self.assertApproximates(share / len(fates), probability, 0.015)

    def test_one_fault_does_not_change_where_the_others_strike(self) -> None:
        with_loss, without = Chance(self.FAULTS, 3), Chance(Faults(truncate=0.3, delay=2.0), 3)
        for _ in range(200):
            one, other = with_loss.next(), without.next()
            self.assertEqual((one.cut, one.wait), (other.cut, other.wait))

    def test_waits_are_half_to_one_and_a_half_times_the_delay(self) -> None:
        chance = Chance(self.FAULTS, 2)
        waits = [chance.next().wait for _ in range(2000)]
        self.assertGreaterEqual(min(waits), 1.0)
        self.assertLess(max(waits), 3.0)
        self.assertApproximates(sum(waits) / len(waits), 2.0, 0.05)

    def test_without_faults_nothing_happens_to_files(self) -> None:
        chance = Chance(Faults(), 4)
        for _ in range(100):
            fate = chance.next()
            self.assertEqual(
                (fate.wait, fate.lost, fate.cut, fate.flip, fate.again), (0, False, None, None, None)
            )


class MirrorTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        self.source, self.target = root / "source", root / "target"
        for folder in (self.source, self.target):
            folder.mkdir(parents=True)
        self.clock = Clock()
        self.said: list[str] = []

    def mirror(self, both: bool = False, copy: bool = False, seed: int = 1, **faults: float) -> Mirror:
        mirror = Mirror(
            self.source, self.target, Faults(**faults), seed, both, copy,
            now=self.clock.seconds, say=self.said.append,
        )  # fmt: skip
        self.addCleanup(mirror.close)
        return mirror

    def put(self, name: str, content: bytes = b"content", folder: Path | None = None) -> Path:
        path = (folder or self.source) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def names(self, folder: Path) -> list[str]:
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())

    def test_files_move_with_their_subfolders(self) -> None:
        self.put("a")
        self.put("one/two/b", b"deep" * PIECE)
        self.put("empty", b"")
        mirror = self.mirror()
        mirror.look()
        self.assertEqual(self.names(self.target), ["a", "empty", "one/two/b"])
        self.assertEqual(self.names(self.source), [])
        self.assertEqual((self.target / "one/two/b").read_bytes(), b"deep" * PIECE)
        self.assertEqual(mirror.counts, Counts(files=3, bytes=7 + 4 * PIECE))

    def test_copying_leaves_them_and_carries_each_once_until_it_changes(self) -> None:
        path = self.put("a")
        mirror = self.mirror(copy=True)
        mirror.look()
        (self.target / "a").unlink()
        mirror.look()
        self.assertEqual((self.names(self.source), self.names(self.target)), (["a"], []))
        path.write_bytes(b"longer content")
        mirror.look()
        self.assertEqual((self.target / "a").read_bytes(), b"longer content")

    def test_names_with_a_leading_dot_are_not_ready(self) -> None:
        self.put(".a.tmp")
        self.put(".sub/b")
        mirror = self.mirror()
        mirror.look()
        self.assertEqual(self.names(self.target), [])
        (self.source / ".a.tmp").rename(self.source / "a")
        mirror.look()
        self.assertEqual(self.names(self.target), ["a"])

    def test_links_fifos_and_what_they_lead_to_stay(self) -> None:
        secret = self.put("secret", folder=self.source.parent / "elsewhere")
        (self.source / "link").symlink_to(secret.absolute())
        (self.source / "folder").symlink_to(secret.parent.absolute())
        os.mkfifo(self.source / "fifo")
        self.mirror().look()
        self.assertEqual(list(self.target.iterdir()), [])

    def test_the_other_way_too_but_nothing_is_carried_back(self) -> None:
        self.put("there")
        self.put("back", folder=self.target)
        mirror = self.mirror(both=True)
        for _ in range(3):
            mirror.look()
        self.assertEqual((self.names(self.source), self.names(self.target)), (["back"], ["there"]))
        self.assertEqual(mirror.counts.files, 2)
        # A file of the same name that somebody there makes later is another file.
        (self.target / "there").unlink()
        self.put("there", b"answer", folder=self.target)
        mirror.look()
        self.assertEqual((self.source / "there").read_bytes(), b"answer")

    def test_copying_both_ways_comes_to_rest(self) -> None:
        self.put("there")
        self.put("back", folder=self.target)
        mirror = self.mirror(both=True, copy=True)
        for _ in range(4):
            mirror.look()
        self.assertEqual(
            (self.names(self.source), self.names(self.target)), (["back", "there"], ["back", "there"])
        )
        self.assertEqual(mirror.counts.files, 2)

    def test_files_wait_for_their_time(self) -> None:
        self.put("a")
        mirror = self.mirror(delay=10.0)
        due = mirror.look()
        assert due is not None
        self.assertEqual(self.names(self.target), [])
        self.clock.advance(due - 0.001)
        mirror.look()
        self.assertEqual(self.names(self.target), [])
        self.clock.advance(0.002)
        self.assertIsNone(mirror.look())
        self.assertEqual(self.names(self.target), ["a"])

    def test_what_its_owner_takes_away_meanwhile_is_not_carried(self) -> None:
        path = self.put("a")
        mirror = self.mirror(delay=10.0)
        mirror.look()
        path.unlink()
        self.clock.advance(20)
        self.assertIsNone(mirror.look())
        self.assertEqual((self.names(self.target), mirror.counts.files), ([], 0))

    def test_lost_files_are_gone_or_when_copying_never_come(self) -> None:
        self.put("a")
        mirror = self.mirror(lose=1.0)
        mirror.look()
        self.assertEqual((self.names(self.source), self.names(self.target)), ([], []))
        self.assertEqual(mirror.counts, Counts(lost=1))
        self.put("b")
        mirror = self.mirror(lose=1.0, copy=True)
        mirror.look()
        mirror.look()
        self.assertEqual((self.names(self.source), self.names(self.target)), (["b"], []))
        self.assertEqual(mirror.counts, Counts(lost=1))

    def test_cut_files_are_the_beginning_of_what_they_were(self) -> None:
        content = os.urandom(1000)
        for number in range(40):
            self.put(f"{number:02}", content)
        mirror = self.mirror(truncate=1.0)
        mirror.look()
        lengths = []
        for path in self.target.iterdir():
            found = path.read_bytes()
            lengths.append(len(found))
            self.assertEqual(found, content[: len(found)])
        self.assertLess(max(lengths), 1000)
        self.assertGreater(len(set(lengths)), 20)
        self.assertEqual(mirror.counts, Counts(files=40, bytes=sum(lengths), cut=40))

    def test_corrupt_files_have_one_bit_flipped(self) -> None:
        for size in (1, 1000, PIECE + 5):
            content = os.urandom(size)
            self.put(str(size), content)
            mirror = self.mirror(corrupt=1.0, seed=size)
            mirror.look()
            found = (self.target / str(size)).read_bytes()
            difference = int.from_bytes(found, "big") ^ int.from_bytes(content, "big")
            self.assertEqual((len(found), difference.bit_count()), (size, 1))
            self.assertEqual(mirror.counts, Counts(files=1, bytes=size, corrupted=1))

    def test_a_duplicate_comes_whole_even_when_the_first_was_taken_and_the_original_is_gone(self) -> None:
        self.put("a", b"x" * 100)
        mirror = self.mirror(duplicate=1.0, truncate=1.0)
        self.assertIsNotNone(mirror.look())
        self.assertLess((self.target / "a").stat().st_size, 100)
        (self.target / "a").unlink()
        self.clock.advance(60)
        self.assertIsNone(mirror.look())
        self.assertEqual((self.target / "a").read_bytes(), b"x" * 100)
        self.assertEqual((mirror.counts.files, mirror.counts.duplicated, mirror.counts.cut), (2, 1, 1))

    def test_what_has_grown_since_is_carried_anew(self) -> None:
        path = self.put("a", b"first ")
        mirror = self.mirror()
        grown = False

        def grow() -> bool:
            nonlocal grown
            if not grown:
                grown = True
                with path.open("ab") as file:
                    file.write(b"second")
            return False

        mirror.look()
        self.assertEqual((self.target / "a").read_bytes(), b"first ")
        path.write_bytes(b"first ")
        mirror.stopping = grow
        mirror.look()
        mirror.look()
        self.assertTrue(grown)
        self.assertEqual((self.target / "a").read_bytes(), b"first second")
        self.assertEqual(self.names(self.source), [])

    def test_what_cannot_be_written_is_tried_again(self) -> None:
        self.put("a/b")
        obstacle = self.put("a", folder=self.target)
        mirror = self.mirror()
        self.assertIsNotNone(mirror.look())
        self.assertEqual((self.names(self.source), mirror.counts.files), (["a/b"], 0))
        obstacle.unlink()
        self.clock.advance(5)
        mirror.look()
        self.assertEqual((self.names(self.source), self.names(self.target)), ([], ["a/b"]))

    def test_a_target_that_vanishes_is_waited_for_and_not_made_anew(self) -> None:
        mirror = self.mirror()
        self.put("a")
        self.target.rmdir()
        mirror.look()
        self.assertFalse(self.target.exists())
        self.target.mkdir()
        self.clock.advance(5)
        mirror.look()
        self.assertEqual(self.names(self.target), ["a"])

    def test_folders_that_cannot_be_mirrored_are_refused(self) -> None:
        file = self.put("file")
        for source, target, pattern in (
            (self.source / "nowhere", self.target, "SRC: .* is not there"),
            (self.source, self.target / "nowhere", "DST: .* is not there"),
            (file, self.target, "SRC: .* is no folder"),
            (self.source, self.source, "two folders beside each other"),
            (self.source.parent, self.target, "two folders beside each other"),
            (self.source, self.source.parent, "two folders beside each other"),
        ):
            with self.assertRaisesRegex(ConfigurationError, pattern):
                Mirror(source, target, Faults(), 1)


class MirrorProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        self.source, self.target = root / "a", root / "b"
        for folder in (self.source, self.target):
            folder.mkdir(parents=True)

    def carry(self, ending: int, *options: str) -> tuple[dict[str, int], str]:
        """Run C{hoft mirror} until 100 files are gone from the source; its summary and its standard error."""
        for number in range(100):
            (self.source / f"{number:03}").write_bytes(b"x" * 1000)
        process = subprocess.Popen(
            command("mirror", self.source, self.target, "--every", "0.01", *options),
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while any(self.source.iterdir()) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(ending)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0, err)
        summary = json.loads(out)
        self.assertEqual(out.count("\n"), 1)
        return summary, err

    def test_it_says_at_the_end_what_it_did_and_that_is_what_happened(self) -> None:
        faults = ("--lose", "0.1", "--truncate", "0.3", "--corrupt", "0.1", "--seed", "7")
        summary, err = self.carry(signal.SIGTERM, *faults)
        arrived = [path.read_bytes() for path in self.target.iterdir()]
        self.assertEqual(summary["seed"], 7)
        self.assertEqual(summary["files"], len(arrived))
        self.assertEqual(summary["bytes"], sum(map(len, arrived)))
        self.assertEqual(summary["lost"], 100 - len(arrived))
        self.assertEqual(summary["cut"], sum(len(content) < 1000 for content in arrived))
        self.assertEqual(summary["corrupted"], sum(bool(content.strip(b"x")) for content in arrived))
        self.assertEqual(summary["duplicated"], 0)
        for fault in ("lost", "cut", "corrupted"):
            self.assertGreater(summary[fault], 0)
        self.assertIn("seed 7", err)
        for path in self.target.iterdir():
            path.unlink()
        again, _ = self.carry(signal.SIGINT, *faults)
        self.assertEqual(again, summary)

    def test_bad_folders_and_probabilities_are_one_line(self) -> None:
        for arguments, pattern in (
            ((self.source, "/nowhere"), "DST: '/nowhere' is not there; wanted: a folder that exists"),
            ((self.source, self.target, "--lose", "1.5"), "--lose: '1.5'; wanted: a probability from 0 to 1"),
            (
                (self.source, self.target, "--truncate", "x"),
                "--truncate: 'x'; wanted: a probability from 0 to 1",
            ),
            ((self.source, self.target, "--every", "-1"), "--every: '-1'; wanted: seconds"),
        ):
            done = hoft("mirror", *arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(pattern, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)
