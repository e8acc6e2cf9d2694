"""
Whom we are talking to: incarnations, boots and challenges; pure.

A journal has an *incarnation* (64 random bits, minted with it), a process start
a *boot* (64 random bits of its own), and a link a *clock* that every commit
raises which the peer could come to know of; none does before the link is
synchronised.  From these follow the
rules, one table row each (C{docs/protocol.rst}, "Synchronisation", has the
reasons and the faults that each row was found by):

====================================================  ==============================
an authenticated packet ...                           means
====================================================  ==============================
says our incarnation's last boot was one that our     our journal is a copy, or was
journal has not had                                   copied: mint
knows of an earlier boot of ours a clock above the    we were restored: mint
one that this link started with
echoes our challenge and says our incarnation is      we were restored: mint
``retired``
is from an incarnation that was replaced              the peer was restored, or the
                                                      packet is late: tell it
                                                      ``retired``, ignore the rest
echoes our challenge, from a boot that was replaced,  a clone runs beside it: stop
or has raised a doubt that another one ended
echoes our challenge, otherwise                       adopt its incarnation and boot
is from the adopted incarnation and boot              goes on as usual; in doubt only
                                                      if it echoes our challenge
is the first from a further boot of the adopted       doubt: renew the challenge;
incarnation                                           and void, as the next
anything else                                         void; its challenge is echoed
====================================================  ==============================

Doubt: what a further boot hears when its challenge is echoed is all that we know
of its incarnation.  From then on nothing may count that an earlier boot has left
behind: if the peer was restored, what is in late files has the numbers that it
gives anew.  So nothing counts until either boot proves that it is alive.

Clocks tell a copy that is behind; of two copies that both went on, each may have
the later clock.  So a journal keeps its boots, and a peer says which it adopted
last: a boot that is in neither's past proves that there was another one.

Only a packet made after we chose the challenge can echo it, so that no late or
replayed file moves a link; the challenge is renewed with each adoption and doubt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto

from attrs import frozen

CANDIDATES = 4
"""Unadopted boots whose challenge is remembered to be echoed."""

KNOWN_BOOTS = 64
"""Boots that are remembered to have been doubted for."""


class Judgement(Enum):
    """What an authenticated packet means for the link."""

    CURRENT = auto()
    ADOPT = auto()
    VOID = auto()
    MINT = auto()
    CLONE = auto()


@frozen
class Sighting:
    """What a packet says of its sender, and of what the sender knows of us."""

    incarnation: int
    boot: int
    recipient_incarnation: int
    challenge: int
    echo: int
    number: int
    clock: int
    peer_clock: int
    recipient_boot: int
    retired: int


def random64(entropy: Callable[[int], bytes]) -> int:
    """64 random bits that are not zero, since zero says "none" on the wire."""
    return int.from_bytes(entropy(8), "big") or 1


class Synchronisation:
    """
    One link's view of who is who.

    @ivar adopted: the peer's (incarnation, boot) proven in this boot, or None.
    @ivar in_doubt: whether that must be proven again, before anything counts.
    @ivar peer_incarnation: the peer's incarnation our log is with; 0 before first contact.
    """

    def __init__(
        self,
        *,
        incarnation: int,
        boot: int,
        clock: int,
        peer_incarnation: int,
        peer_clock: int,
        peer_boot: int,
        retired: Iterable[int],
        boots: Iterable[int],
        entropy: Callable[[int], bytes],
    ) -> None:
        """
        @param clock: the link's clock when this process opened it.
        @param peer_boot: the peer's boot that was adopted last; 0 before first contact.
        @param retired: incarnations of the peer that were replaced.
        @param boots: those of this node that its journal knows of.
        @param entropy: random bytes for challenges.
        """
        self.incarnation = incarnation
        self.boot = boot
        self.peer_incarnation = peer_incarnation
        self.peer_clock = peer_clock
        self.peer_boot = peer_boot
        self.adopted: tuple[int, int] | None = None
        self.in_doubt = False
        self.stopped = False
        self._clock_at_start = clock
        self._retired = set(retired)
        self._entropy = entropy
        self._boots = {0, boot, *boots}
        self._superseded_boots: set[int] = set()
        # What the adopted boot last asked us to echo, and in which packet.
        self._echo = (0, 0)
        # boot -> (packet number, challenge, incarnation to be told it is retired or 0)
        self._candidates: dict[int, tuple[int, int, int]] = {}
        self._doubted_for: dict[int, None] = {}
        self.challenge = random64(entropy)

    def judge(self, seen: Sighting) -> Judgement:
        """
        What an authenticated packet means.  Nothing changes but what is
        remembered to be echoed; for C{ADOPT} the caller commits, then calls
        L{adopt}; for C{MINT} it commits, then calls L{reincarnate}.
        """
        if self.stopped:
            return Judgement.VOID
        fresh = seen.echo == self.challenge
        if self._knows_more(seen) or (fresh and seen.retired == self.incarnation):
            return Judgement.MINT
        if seen.incarnation in self._retired:
            # If the packet is only late, nobody is left to whom our echo would prove anything.
            self._remember(seen, retired=seen.incarnation)
            return Judgement.VOID
        if fresh and seen.boot in self._superseded_boots:
            self.stopped = True
            return Judgement.CLONE
        if (seen.incarnation, seen.boot) == self.adopted:
            if seen.number > self._echo[0]:
                self._echo = (seen.number, seen.challenge)
            if seen.recipient_incarnation != self.incarnation:
                # It has not adopted our present incarnation yet: let it see the challenge echoed.
                self._remember(seen, retired=0)
                return Judgement.VOID
            if self.in_doubt:
                if not fresh:
                    return Judgement.VOID
                self.in_doubt = False
                # They were there before this packet was made: if one still is, it is a copy.
                self._superseded_boots.update(boot for boot in self._doubted_for if boot != seen.boot)
            self.peer_clock = max(self.peer_clock, seen.clock)
            return Judgement.CURRENT
        if fresh:
            return Judgement.ADOPT
        if self._may_succeed(seen):
            self.in_doubt = True
            self.challenge = random64(self._entropy)
        self._remember(seen, retired=0)
        return Judgement.VOID

    def _knows_more(self, seen: Sighting) -> bool:
        """Whether it has heard, at any time, of a past of our incarnation that our journal does not have."""
        if seen.recipient_incarnation != self.incarnation:
            return False
        if seen.recipient_boot not in self._boots:
            return True
        # Our clock stood still until we adopted it, and it knows later ones only once it has adopted us.
        not_of_this_boot = self.adopted is None or seen.recipient_boot != self.boot
        return not_of_this_boot and seen.peer_clock > self._clock_at_start

    def _may_succeed(self, seen: Sighting) -> bool:
        """Whether this may be a later boot than the adopted one, and is no news of one doubted for."""
        if self.adopted is None or self.adopted[0] != seen.incarnation:
            return False
        if seen.boot in self._superseded_boots or seen.boot in self._doubted_for:
            return False
        self._doubted_for[seen.boot] = None
        while len(self._doubted_for) > KNOWN_BOOTS:
            del self._doubted_for[next(iter(self._doubted_for))]
        return True

    def _remember(self, seen: Sighting, retired: int) -> None:
        known = self._candidates.pop(seen.boot, None)
        if known is not None and known[0] > seen.number:
            self._candidates[seen.boot] = known
            return
        self._candidates[seen.boot] = (seen.number, seen.challenge, retired)
        while len(self._candidates) > CANDIDATES:
            del self._candidates[next(iter(self._candidates))]

    def is_new_log(self, seen: Sighting) -> bool:
        """Whether adopting C{seen} begins a new log, because the peer's incarnation is new to us."""
        return seen.incarnation != self.peer_incarnation

    def adopt(self, seen: Sighting) -> None:
        """The adoption of C{seen}'s sender is committed."""
        if seen.incarnation != self.peer_incarnation:
            if self.peer_incarnation:
                self._retired.add(self.peer_incarnation)
            self.peer_incarnation = seen.incarnation
            self.peer_clock = 0
        self.peer_clock = max(self.peer_clock, seen.clock)
        if self.adopted is not None and self.adopted[1] != seen.boot:
            self._superseded_boots.add(self.adopted[1])
        self.adopted = (seen.incarnation, seen.boot)
        self.peer_boot = seen.boot
        self.in_doubt = False
        self._echo = (seen.number, seen.challenge)
        self._candidates.pop(seen.boot, None)
        self.challenge = random64(self._entropy)

    def reincarnate(self, incarnation: int, clock: int) -> None:
        """We minted a new incarnation, with every log empty; the link's clock is C{clock}."""
        self.incarnation = incarnation
        self._clock_at_start = clock
        self.adopted = None
        self.in_doubt = False
        self._echo = (0, 0)
        self.challenge = random64(self._entropy)

    def owes_answer(self) -> bool:
        """Whether a boot that we have not adopted waits for its challenge to be echoed."""
        return bool(self._candidates)

    def next_echo(self) -> tuple[int, int]:
        """
        The challenge to echo in the next packet and the incarnation it declares retired (0: none).

        Each candidate is echoed once per packet that it sends, the oldest first;
        without one, the adopted boot's latest challenge.
        """
        if self._candidates:
            boot = next(iter(self._candidates))
            _, challenge, retired = self._candidates.pop(boot)
            return challenge, retired
        return self._echo[1], 0
