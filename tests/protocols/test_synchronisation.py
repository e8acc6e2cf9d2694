"""Who is who, after restarts, restores, clones and late files: each row of the table, and in stories."""

from __future__ import annotations

import os
from random import Random
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.synchronisation import CANDIDATES, Judgement, Sighting, Synchronisation, random64
from tests.protocols.engines import Letter, Side, pair, pass_time, settle, synchronised

US, OUR_BOOT = 0xA, 0xA1
THEM, THEIR_BOOT = 0xB, 0xB1

STORIES = 300 * int(os.environ.get("HOFT_SOAK", "1"))
ACTIONS = {
    "send": 30,
    "write": 40,
    "deliver": 60,
    "again": 8,
    "lose": 6,
    "wait": 12,
    "restart": 3,
    "back_up": 4,
    "restore": 2,
}
"""How often each happens in a story."""


def synchronisation(**changes: Any) -> Synchronisation:
    """Ours, just started, at a clock of 50; the peer's incarnation is known."""
    values: dict[str, Any] = {
        "incarnation": US,
        "boot": OUR_BOOT,
        "clock": 50,
        "peer_incarnation": THEM,
        "peer_clock": 70,
        "peer_boot": THEIR_BOOT,
        "retired": (),
        "boots": (),
        "entropy": Random(1).randbytes,
        **changes,
    }
    return Synchronisation(**values)


def sighting(to: Synchronisation, *, fresh: bool = True, **changes: Any) -> Sighting:
    """A packet of theirs; if it is fresh, it echoes our present challenge."""
    values: dict[str, Any] = {
        "incarnation": THEM,
        "boot": THEIR_BOOT,
        "recipient_incarnation": US,
        "challenge": 0xC0,
        "echo": to.challenge if fresh else 0xDEAD,
        "number": 1,
        "clock": 70,
        "peer_clock": 50,
        "recipient_boot": OUR_BOOT,
        "retired": 0,
        **changes,
    }
    return Sighting(**values)


def adopted(**changes: Any) -> Synchronisation:
    """Ours, with their first boot adopted."""
    sync = synchronisation(**changes)
    sync.adopt(sighting(sync))
    return sync


class TableTests(SynchronousTestCase):
    """What an authenticated packet means."""

    def test_fresh_is_adopted(self) -> None:
        """What echoes our challenge was made after we chose it: its sender is whom we talk to."""
        sync = synchronisation()
        seen = sighting(sync)
        self.assertIs(sync.judge(seen), Judgement.ADOPT)
        self.assertFalse(sync.is_new_log(seen))
        sync.adopt(seen)
        self.assertEqual(sync.adopted, (THEM, THEIR_BOOT))

    def test_not_fresh_is_void(self) -> None:
        """Anything else from somebody not adopted counts for nothing; its challenge is echoed, once."""
        sync = synchronisation()
        self.assertIs(sync.judge(sighting(sync, fresh=False, challenge=7)), Judgement.VOID)
        self.assertIsNone(sync.adopted)
        self.assertTrue(sync.owes_answer())
        self.assertEqual(sync.next_echo(), (7, 0))
        self.assertFalse(sync.owes_answer())
        self.assertEqual(sync.next_echo(), (0, 0))

    def test_the_adopted_go_on(self) -> None:
        """Packets of the adopted incarnation and boot count, whatever they echo."""
        sync = adopted()
        self.assertIs(sync.judge(sighting(sync, fresh=False, number=9)), Judgement.CURRENT)
        self.assertIs(sync.judge(sighting(sync, fresh=True, number=10)), Judgement.CURRENT)

    def test_adoption_renews_the_challenge(self) -> None:
        """So that what made one adoption never makes another."""
        sync = synchronisation()
        seen = sighting(sync)
        sync.adopt(seen)
        self.assertIs(sync.judge(evolve(seen, boot=0xB2)), Judgement.VOID)

    def test_known_to_have_done_more(self) -> None:
        """A packet, however late, that knows a later clock of ours than our journal had: we were restored."""
        sync = synchronisation()
        for fresh in (True, False):
            self.assertIs(sync.judge(sighting(sync, fresh=fresh, peer_clock=51)), Judgement.MINT)
        self.assertIs(sync.judge(sighting(sync, peer_clock=50)), Judgement.ADOPT)

    def test_known_of_an_earlier_boot(self) -> None:
        """Also when we have adopted the peer already: it tells of a boot before this one."""
        sync = adopted(boots=[0xA0])
        seen = sighting(sync, recipient_boot=0xA0, peer_clock=51, number=2)
        self.assertIs(sync.judge(seen), Judgement.MINT)
        self.assertIs(sync.judge(evolve(seen, peer_clock=50)), Judgement.CURRENT)

    def test_clocks_of_another_incarnation(self) -> None:
        """What is known of an earlier incarnation of ours says nothing of this one."""
        sync = synchronisation()
        seen = sighting(sync, peer_clock=51, recipient_incarnation=0xA0)
        self.assertIs(sync.judge(seen), Judgement.ADOPT)

    def test_stale_orders_are_not_obeyed(self) -> None:
        """A replayed packet does not make us mint where the journal has all that it knows."""
        sync = synchronisation()
        self.assertIs(sync.judge(sighting(sync, fresh=False, peer_clock=50)), Judgement.VOID)
        self.assertIs(sync.judge(sighting(sync, fresh=False, retired=US)), Judgement.VOID)

    def test_our_own_commits_since(self) -> None:
        """Once synchronised the peer comes to know later clocks than that of our start."""
        sync = adopted()
        self.assertIs(sync.judge(sighting(sync, peer_clock=99, number=2)), Judgement.CURRENT)

    def test_told_that_we_are_retired(self) -> None:
        """The peer has seen a later incarnation of us: mint, also when already synchronised."""
        for sync in (synchronisation(), adopted()):
            self.assertIs(sync.judge(sighting(sync, retired=US)), Judgement.MINT)
            sync.reincarnate(0xA9, 0)
            self.assertIsNone(sync.adopted)
            self.assertEqual(sync.incarnation, 0xA9)

    def test_after_minting(self) -> None:
        """The packet that made us mint is void for the new incarnation, and cannot make us mint again."""
        sync = synchronisation()
        seen = sighting(sync, retired=US)
        sync.judge(seen)
        sync.reincarnate(0xA9, 0)
        self.assertIs(sync.judge(seen), Judgement.VOID)

    def test_a_retired_incarnation_comes_back(self) -> None:
        """The peer was restored to a journal that has been replaced: tell it, at once, and nothing else."""
        sync = synchronisation(retired=[0xB0])
        for fresh in (False, True):
            seen = sighting(sync, fresh=fresh, incarnation=0xB0, boot=0xB7, challenge=8)
            self.assertIs(sync.judge(seen), Judgement.VOID)
            self.assertEqual(sync.next_echo(), (8, 0xB0))

    def test_a_new_incarnation(self) -> None:
        """It begins a new log; the old incarnation is retired from then on."""
        sync = adopted()
        seen = sighting(sync, incarnation=0xB9, boot=0xB2, clock=3)
        self.assertIs(sync.judge(seen), Judgement.ADOPT)
        self.assertTrue(sync.is_new_log(seen))
        sync.adopt(seen)
        self.assertEqual(sync.peer_clock, 3)
        back = sighting(sync, boot=0xB3, challenge=9)
        self.assertIs(sync.judge(back), Judgement.VOID)
        self.assertEqual(sync.next_echo(), (9, THEM))

    def test_a_clone(self) -> None:
        """A boot that was replaced and is alive to echo: two run side by side, a person must decide."""
        sync = adopted()
        sync.adopt(sighting(sync, boot=0xB2))
        self.assertIs(sync.judge(sighting(sync, fresh=False, number=9)), Judgement.VOID)
        self.assertFalse(sync.stopped)
        self.assertIs(sync.judge(sighting(sync, number=10)), Judgement.CLONE)
        self.assertTrue(sync.stopped)
        self.assertIs(sync.judge(sighting(sync, number=11)), Judgement.VOID)

    def test_a_boot_that_we_never_had(self) -> None:
        """The peer adopted one of our incarnation that our journal does not know: somebody has a copy."""
        for sync in (synchronisation(boots=[0xA0]), adopted()):
            for fresh in (True, False):
                seen = sighting(sync, fresh=fresh, recipient_boot=0xA2, number=9)
                self.assertIs(sync.judge(seen), Judgement.MINT)
        known = synchronisation(boots=[0xA0])
        self.assertIs(known.judge(sighting(known, recipient_boot=0xA0)), Judgement.ADOPT)
        another = synchronisation()
        seen = sighting(another, recipient_boot=0xA2, recipient_incarnation=0xA8)
        self.assertIs(another.judge(seen), Judgement.ADOPT)

    def test_minting_in_one_boot_is_no_clone(self) -> None:
        """A peer that mints goes on in the same process."""
        sync = adopted()
        self.assertIs(sync.judge(sighting(sync, incarnation=0xB9)), Judgement.ADOPT)
        sync.adopt(sighting(sync, incarnation=0xB9))
        self.assertIs(sync.judge(sighting(sync, incarnation=0xB9, number=5)), Judgement.CURRENT)

    def test_doubt(self) -> None:
        """
        We echo a further boot, with all that we know.  If the peer was restored,
        what its earlier boot has left behind must not count from then on: the further
        boot gives the same numbers anew.  Nothing counts until one proves to be alive.
        """
        sync = adopted()
        before = sync.challenge
        self.assertIs(sync.judge(sighting(sync, fresh=False, boot=0xB2, clock=70)), Judgement.VOID)
        self.assertTrue(sync.in_doubt)
        self.assertNotEqual(sync.challenge, before)
        late = evolve(sighting(sync, number=20, clock=75), echo=before)
        self.assertIs(sync.judge(late), Judgement.VOID)
        self.assertEqual(sync.peer_clock, 70)
        seen = sighting(sync, boot=0xB2)
        self.assertIs(sync.judge(seen), Judgement.ADOPT)
        sync.adopt(seen)
        self.assertFalse(sync.in_doubt)

    def test_doubt_that_was_nothing(self) -> None:
        """The adopted boot echoes the new challenge: the other is older, and raises no doubt again."""
        sync = adopted()
        old = sighting(sync, fresh=False, boot=0xB0)
        sync.judge(old)
        self.assertIs(sync.judge(sighting(sync, number=2)), Judgement.CURRENT)
        self.assertFalse(sync.in_doubt)
        sync.judge(old)
        self.assertFalse(sync.in_doubt)
        self.assertIs(sync.judge(sighting(sync, fresh=False, number=3)), Judgement.CURRENT)

    def test_a_doubt_that_was_a_clone(self) -> None:
        """The adopted boot has answered, and then so does the one that was there before it did."""
        sync = adopted()
        sync.judge(sighting(sync, fresh=False, boot=0xB2))
        self.assertIs(sync.judge(sighting(sync, number=9)), Judgement.CURRENT)
        self.assertFalse(sync.in_doubt)
        self.assertIs(sync.judge(sighting(sync, boot=0xB2, number=2)), Judgement.CLONE)

    def test_no_doubt(self) -> None:
        """Not for a boot that was replaced, nor for another incarnation, with which a new log would begin."""
        sync = adopted()
        sync.adopt(sighting(sync, boot=0xB2))
        sync.judge(sighting(sync, fresh=False))
        sync.judge(sighting(sync, fresh=False, incarnation=0xB9, boot=0xB9))
        self.assertFalse(sync.in_doubt)

    def test_addressed_to_an_incarnation_we_had(self) -> None:
        """The adopted peer has not heard of our present incarnation: void, but its challenge is echoed."""
        sync = adopted()
        seen = sighting(sync, recipient_incarnation=0xA0, number=3, challenge=6)
        self.assertIs(sync.judge(seen), Judgement.VOID)
        self.assertEqual(sync.next_echo(), (6, 0))


class EchoTests(SynchronousTestCase):
    """Whose challenge is echoed."""

    def test_the_newest_of_the_adopted(self) -> None:
        """An older packet that arrives late does not bring its challenge back."""
        sync = adopted()
        sync.judge(sighting(sync, number=9, challenge=9))
        sync.judge(sighting(sync, number=4, challenge=4))
        self.assertEqual(sync.next_echo(), (9, 0))
        self.assertEqual(sync.next_echo(), (9, 0))

    def test_the_newest_of_a_candidate(self) -> None:
        """Nor for one that is not adopted yet."""
        sync = synchronisation()
        sync.judge(sighting(sync, fresh=False, number=9, challenge=9))
        sync.judge(sighting(sync, fresh=False, number=4, challenge=4))
        self.assertEqual(sync.next_echo(), (9, 0))

    def test_candidates_take_turns(self) -> None:
        """Each once for each packet of its own, before the adopted one; a crowd pushes out the oldest."""
        sync = adopted()
        for boot in range(CANDIDATES + 2):
            sync.judge(sighting(sync, fresh=False, boot=0x100 + boot, challenge=boot + 1))
        echoes = [sync.next_echo()[0] for _ in range(CANDIDATES + 1)]
        self.assertEqual(echoes, [*range(3, CANDIDATES + 3), 0xC0])

    def test_never_zero(self) -> None:
        """0 says "none" on the wire."""
        self.assertEqual(random64(lambda count: bytes(count)), 1)


class StoryTests(SynchronousTestCase):
    """Two engines that talk."""

    def assertSynchronised(self, near: Side, far: Side) -> None:
        self.assertTrue(found(near, far))

    def assertDelivered(self, sender: Side, receiver: Side) -> None:
        """All that is not said to be uncertain, and nothing twice."""
        self.assertEqual(sender.disk.sent - set(receiver.disk.delivered), set())
        self.assertEqual(len(receiver.disk.delivered), len(set(receiver.disk.delivered)))

    def test_either_greets_first(self) -> None:
        """One round trip and a half, whoever begins; records that waited follow."""
        for first in (0, 1):
            sides = pair()
            one, other = sides[first], sides[1 - first]
            one.send(1)
            other.send(2)
            [hello] = one.letters()
            self.assertIs(other.receive(hello), Judgement.VOID)
            answer = other.letters()
            self.assertEqual([letter.frames for letter in answer], [()])
            self.assertIs(one.receive(answer[0]), Judgement.VOID)  # addressed to nobody known yet
            self.assertIsNotNone(one.engine and one.engine.synchronisation.adopted)
            settle(one, other)
            self.assertSynchronised(one, other)
            self.assertEqual((one.disk.delivered, other.disk.delivered), ([2], [1]))
            self.assertEqual((one.rolled_back, other.rolled_back), (0, 0))

    def test_lost_greetings(self) -> None:
        """Whichever of the first packets are lost: they are repeated until both know."""
        for lost in range(1 << 6):
            near, far = pair(lost)
            count = 0
            for _ in range(40):
                for one, other in ((near, far), (far, near)):
                    for letter in one.letters():
                        if count >= 6 or not lost >> count & 1:
                            other.receive(letter)
                        count += 1
                pass_time(near, far, 1.0)
            self.assertSynchronised(near, far)

    def test_no_records_before(self) -> None:
        """Until synchronised nothing is numbered and nothing accepted."""
        near, _ = pair()
        near.send(1)
        letters = near.letters()
        pass_time(near, near.peer, 5.0)
        letters += near.letters()
        self.assertTrue(letters)
        self.assertFalse(any(letter.frames for letter in letters))

    def test_a_restart_of_either(self) -> None:
        """The log goes on: nothing is uncertain, nothing is sent to be dropped, late files are void."""
        for which in (0, 1):
            sides = synchronised(which)
            one, other = sides[which], sides[1 - which]
            one.send(1)
            other.send(2)
            late = one.letters()
            one.crash()
            one.start()
            one.send(3)
            settle(one, other)
            self.assertSynchronised(one, other)
            self.assertIs(other.receive(late[0]), Judgement.VOID)
            settle(one, other)
            self.assertEqual(sorted(other.disk.delivered), [1, 3])
            self.assertEqual(one.disk.delivered, [2])
            self.assertEqual((one.rolled_back, other.rolled_back), (0, 0))

    def test_a_restore_of_either(self) -> None:
        """The restored side mints, both begin anew, and what is sent at once after it arrives."""
        for which in (0, 1):
            sides = synchronised(which)
            one, other = sides[which], sides[1 - which]
            copy = one.backup()
            one.send(1)
            other.send(2)
            settle(one, other)
            old = one.disk.incarnation
            one.restore(copy)
            one.start()
            for burst in range(10, 20):
                one.send(burst)
            other.send(3)
            settle(one, other)
            self.assertNotEqual(one.disk.incarnation, old)
            self.assertSynchronised(one, other)
            self.assertEqual((one.rolled_back, other.rolled_back), (1, 1))
            self.assertLess({*range(10, 20)}, set(other.disk.delivered))
            self.assertDelivered(one, other)

    def test_a_restore_to_an_incarnation_before(self) -> None:
        """A copy from before the last minting: the other side knows it as retired, and says so."""
        near, far = synchronised()
        ancient = near.backup()
        near.send(1)
        settle(near, far)
        near.restore(ancient)
        near.start()
        settle(near, far)
        self.assertEqual(near.rolled_back, 1)
        near.restore(ancient)
        near.start()
        near.send(7)
        settle(near, far)
        self.assertSynchronised(near, far)
        self.assertIn(7, far.disk.delivered)
        self.assertEqual((near.rolled_back, far.rolled_back), (2, 2))

    def test_a_restore_that_nobody_can_tell(self) -> None:
        """To a copy after which nothing was said: there is nothing to be uncertain of."""
        near, far = synchronised()
        near.send(1)
        settle(near, far)
        near.restore(near.backup())
        near.start()
        near.send(2)
        settle(near, far)
        self.assertEqual((near.rolled_back, far.rolled_back), (0, 0))
        self.assertEqual(far.disk.delivered, [1, 2])

    def test_late_files_between_echo_and_adoption(self) -> None:
        """See L{TableTests.test_doubt}: the numbers are given anew, and nothing is lost."""
        near, far = synchronised()
        copy = near.backup()
        near.send(1)
        late = near.letters()
        near.restore(copy)
        near.start()
        near.send(2)
        for letter in near.letters():
            far.receive(letter)
        pass_time(near, far, 0.1)
        for letter in far.letters():
            near.receive(letter)  # near adopts far, and gives its record the number that was given before
        for letter in late:
            self.assertIs(far.receive(letter), Judgement.VOID)
        settle(near, far)
        self.assertSynchronised(near, far)
        self.assertEqual(far.disk.delivered, [2])
        self.assertEqual((near.rolled_back, far.rolled_back), (0, 0))

    def test_old_files_in_a_running_log(self) -> None:
        """Files of earlier boots cost a round trip once each, in which what is under way does not count."""
        near, far = synchronised()
        old = []
        for _ in range(3):
            old += near.letters()
            near.send(len(old))
            old += near.letters()
            near.crash()
            near.start()
            settle(near, far)
        assert near.engine is not None
        crossed = 0
        for content in range(100, 130):
            near.send(content)
            for letter in old:
                far.receive(letter)
            crossed += len(settle(near, far))
        self.assertLess(crossed, 30 * 5)
        self.assertLessEqual(sum(near.engine.sender.path.retransmitted.values()), 3)
        self.assertDelivered(near, far)

    def test_a_journal_that_is_new(self) -> None:
        """One side has lost everything: the other is told; the new one has nothing to be uncertain of."""
        near, far = synchronised()
        near.send(1)
        settle(near, far)
        empty = Side("near", 99)
        empty.peer, far.peer, empty.now = far, empty, far.now
        empty.start()
        empty.send(2)
        far.send(3)
        settle(empty, far)
        self.assertSynchronised(empty, far)
        self.assertEqual((empty.rolled_back, far.rolled_back), (0, 1))
        self.assertEqual(far.disk.delivered, [1, 2])

    def test_clones(self) -> None:
        """Two copies of one node side by side: the far side stops the link, and says nothing more."""
        near, far = synchronised()
        clone = Side("near", 5)
        clone.peer, clone.now, clone.disk = far, far.now, near.backup()
        clone.start()
        for _ in range(20):
            for letter in far.letters():
                near.receive(letter)
                clone.receive(letter)
            near.send(near.chance.getrandbits(30))
            for letter in [*near.letters(), *clone.letters()]:
                far.receive(letter)
            pass_time(near, far, 1.0)
            clone.now += 1.0
        assert far.engine is not None
        self.assertTrue(far.engine.synchronisation.stopped)
        self.assertFalse(far.engine.synchronised)
        self.assertIsNone(far.engine.deadline())
        self.assertEqual(far.letters(), [])

    def test_every_old_file_again(self) -> None:
        """All that ever crossed is put back after a restart: it moves nothing, and is delivered no more."""
        near, far = synchronised()
        crossed: list[Letter] = []
        for content in range(5):
            near.send(content)
            crossed += settle(near, far)
        far.crash()
        far.start()
        for letter in crossed:
            if letter.header.recipient == far.uuid:
                self.assertIs(far.receive(letter), Judgement.VOID)
        settle(near, far)
        for letter in crossed:
            if letter.header.recipient == far.uuid:
                far.receive(letter)
        settle(near, far)
        self.assertEqual(far.disk.delivered, [*range(5)])
        self.assertEqual((near.rolled_back, far.rolled_back), (0, 0))
        self.assertSynchronised(near, far)

    def test_any_story(self) -> None:
        """
        Whatever happens in whatever order: nothing is lost or delivered twice unless
        its sender is told that it is uncertain, and it ends in quiet.  (A restore
        follows only once both have found each other after the last: two that are
        rolled back together is what nobody can detect.)
        """
        for seed in range(STORIES):
            fault = Story(seed).tell()
            self.assertIsNone(fault, f"story {seed}: {fault}")


def found(near: Side, far: Side) -> bool:
    """Whether each has adopted the other as it is now."""
    return all(
        one.engine is not None and one.engine.synchronisation.adopted == (other.disk.incarnation, other.boot)
        for one, other in ((near, far), (far, near))
    )


class Story:
    """Two nodes and a carrier that delivers in any order, late, twice or never; from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.sides = pair(seed)
        self.way: list[Letter] = []
        self.past: list[Letter] = []
        self.copies: dict[str, list[Any]] = {"near": [], "far": []}
        self.content = 0
        self.restored = False

    def tell(self) -> str | None:
        """Live through it; what is wrong at its end, if anything."""
        chance = self.chance
        for action in chance.choices(list(ACTIONS), list(ACTIONS.values()), k=chance.randrange(300)):
            getattr(self, action)(chance.choice(self.sides), chance.randrange(1000))
        near, far = self.sides
        settle(near, far, rounds=400)
        for one, other in ((near, far), (far, near)):
            lost = one.disk.sent - set(other.disk.delivered)
            if lost:
                return f"{one.name} to {other.name}: {lost} are lost"
            if len(other.disk.delivered) > len(set(other.disk.delivered)):
                return f"{one.name} to {other.name}: some are there twice"
            if one.disk.outbox:
                return f"{one.name} goes on sending"
            if one.rolled_back and not self.restored:
                return f"{one.name} is uncertain of what nobody has restored"
        return None

    def send(self, side: Side, _: int) -> None:
        self.content += 1
        side.send(self.content)

    def write(self, side: Side, _: int) -> None:
        self.way += side.letters()

    def deliver(self, side: Side, which: int) -> None:
        for_side = [letter for letter in self.way if letter.header.recipient == side.uuid]
        if for_side:
            letter = for_side[which % len(for_side)]
            self.way.remove(letter)
            self.past.append(letter)
            side.receive(letter)

    def again(self, side: Side, which: int) -> None:
        for_side = [letter for letter in self.past if letter.header.recipient == side.uuid]
        if for_side:
            side.receive(for_side[which % len(for_side)])

    def lose(self, side: Side, which: int) -> None:
        if self.way:
            self.past.append(self.way.pop(which % len(self.way)))

    def wait(self, side: Side, thousandths: int) -> None:
        pass_time(*self.sides, 3 * (thousandths / 1000) ** 3)

    def restart(self, side: Side, _: int) -> None:
        side.crash()
        side.start()

    def back_up(self, side: Side, _: int) -> None:
        self.copies[side.name].append(side.backup())

    def restore(self, side: Side, which: int) -> None:
        copies = self.copies[side.name]
        if copies and found(*self.sides):
            self.restored = True
            side.restore(copies[which % len(copies)])
            side.start()
