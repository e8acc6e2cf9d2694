"""
What lies in the folder carrier's inbox: listing it cheaply, and deleting from it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from uuid import UUID

from attrs import define, field, frozen

from hoft.transports.directories import Root, subfolder
from hoft.transports.filenames import LONG, FileName, Naming

MAX_ENTRIES = 100_000
"""Names remembered of one directory; those beyond wait until others are gone."""

_SHARE = 20
"""Our subfolder is left alone for this many times as long as it took to list."""

_FLAT_SHARE = 100
"""The same of the inbox itself: most of what lies there may be other people's."""

_SURE = 3.0
"""Seconds after which another change shows in a directory's time of change, on every file system."""

_UNSURE = 60.0
"""Seconds for which an unchanged time of change is believed."""


_GONE = (1.0, 60.0)
"""Seconds for which a file that was gone is not looked for again, from the first to the longest."""


@frozen
class Entry:
    """
    A file in the inbox.

    @ivar text: its base name.
    @ivar name: what that tells.
    @ivar flat: it lies in the inbox itself, not in our subfolder.
    """

    text: str
    name: FileName
    flat: bool


@define
class Scan:
    """
    What a look at the inbox brought.

    @ivar added: files not seen before, oldest first.
    @ivar replaced: names whose inode is another one now.
    @ivar vanished: names that are gone, and whether they lay flat.
    @ivar strange: what is not a packet, each only once; shown as C{repr} would.
    @ivar beyond: how many are not looked at, since L{MAX_ENTRIES} lie there.
    @ivar more: the budget was spent; there are more to be told of.
    @ivar places: tells one directory from another that took its place: device
        and inode of the inbox and, if it is there, of our subfolder.
    """

    added: list[Entry] = field(factory=list)
    replaced: list[str] = field(factory=list)
    vanished: list[tuple[str, bool]] = field(factory=list)
    strange: list[str] = field(factory=list)
    beyond: int = 0
    more: bool = False
    places: tuple[tuple[int, int], ...] = ()


class Fate(Enum):
    """What became of a file that was to be deleted."""

    GONE = "gone"
    KEPT = "kept"
    """We have no right to delete it."""
    CHANGED = "changed"
    """It is not what was read any more; it is still there."""


@frozen
class Condemned:
    """A file to be deleted, if it still has this size and time of change."""

    entry: Entry
    size: int
    modified: int


@frozen
class _Gone:
    """A file that is not there any more, though a listing may go on to show it for minutes."""

    inode: int
    wait: float
    """Seconds for which such a listing was not believed."""
    until: float


class _Listing:
    """
    One directory as last seen.

    @ivar inodes: names that were told of.
    @ivar strange: names that are no packets'.
    @ivar gone: names that were told of and turned out not to be there.
    @ivar not_before: when it may be listed again.
    @ivar took: seconds that its last listing took.
    @ivar modified: its time of change, as the file system says, and when we saw
        that first.
    @ivar complete_until: as long as C{modified} stays, nothing is new there before this.
    """

    def __init__(self, flat: bool) -> None:
        self.flat = flat
        self.inodes: dict[str, int] = {}
        self.strange: dict[str, int] = {}
        self.gone: dict[str, _Gone] = {}
        self.not_before = float("-inf")
        self.took = 0.0
        self.modified = (0, float("-inf"))
        self.complete_until = float("-inf")

    def bury(self, name: str, now: float) -> None:
        """Tell of it again if it is there, but run ever more slowly after what an old listing shows."""
        inode = self.inodes.pop(name, None)
        if inode is not None:
            last = self.gone.get(name)
            wait = _GONE[0] if last is None or last.inode != inode else min(2 * last.wait, _GONE[1])
            self.gone[name] = _Gone(inode, wait, now + wait)
            self.complete_until = now

    def unchanged(self, modified: int, now: float) -> bool:
        """Take in its time of change, and tell whether it need not be listed."""
        if modified != self.modified[0]:
            self.modified = (modified, now)
            return False
        return now < self.complete_until

    def is_gone(self, name: str, inode: int, now: float) -> bool:
        """Whether this is only an old listing's word for it."""
        gone = self.gone.get(name)
        return gone is not None and gone.inode == inode and now < gone.until


class Scanner:
    """
    Looks into the inbox, for files with our name as the recipient: in our own
    subfolder and lying flat.  Used on one worker thread, where it blocks.

    @param clock: monotonic seconds.
    @param naming: how files are called.
    """

    def __init__(self, root: Root, node: UUID, clock: Callable[[], float], naming: Naming = LONG) -> None:
        self._root = root
        self._node = node
        self._naming = naming
        self._own = naming.folder(node)
        self._clock = clock
        self._subfolder = _Listing(flat=False)
        self._flat = _Listing(flat=True)
        self._told = False

    def scan(self, forget: Iterable[str], budget: int) -> Scan:
        """
        Compare with the last look.  A directory so large that listing it takes
        long is not listed each time.

        @param forget: names that are to be told of again if they are there.
        @param budget: the most new names to tell of.
        @raise CarrierDown: there is no inbox.
        @raise OSError: it cannot be listed.
        """
        for name in forget:
            for listing in (self._subfolder, self._flat):
                listing.bury(name, self._clock())
        found = Scan()
        with self._root.opened(listable=True) as root:
            places = [_place(root)]
            try:
                with subfolder(root, self._own, listable=True) as own:
                    places.append(_place(own))
                    self._list(own, self._subfolder, found, budget)
                self._told = False
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                self._nothing(self._subfolder, found)
                if error.errno != errno.ENOENT and not self._told:
                    self._told = True
                    found.strange.append(repr(self._own))
            self._list(root, self._flat, found, budget - len(found.added))
        found.places = tuple(places)
        found.added.sort(key=lambda entry: (entry.name.boot, entry.name.number))
        return found

    def delete(self, condemned: Sequence[Condemned]) -> list[Fate]:
        """
        Delete files that were read, each only if it did not change since.

        @raise CarrierDown: there is no inbox.
        """
        with self._root.opened() as root:
            return [self._delete(root, each) for each in condemned]

    def _delete(self, root: int, condemned: Condemned) -> Fate:
        name = condemned.entry.text
        try:
            if condemned.entry.flat:
                fate = _unlink_unchanged(root, name, condemned)
            else:
                with subfolder(root, self._own) as own:
                    fate = _unlink_unchanged(own, name, condemned)
        except FileNotFoundError:
            fate = Fate.GONE
        except OSError:
            fate = Fate.KEPT
        if fate is Fate.GONE:
            here, there = self._subfolder, self._flat
            if condemned.entry.flat:
                here, there = there, here
            here.bury(name, self._clock())
            # What the other directory has under this name gets its turn now.
            if there.inodes.pop(name, None) is not None:
                there.complete_until = self._clock()
        return fate

    def _list(self, folder: int, listing: _Listing, found: Scan, budget: int) -> None:
        began = self._clock()
        modified = os.fstat(folder).st_mtime_ns if listing.flat else 0
        if began < listing.not_before or (listing.flat and listing.unchanged(modified, began)):
            return
        before, now = listing.inodes, {}
        strange_now, gone_now = {}, {}
        naming, mark = self._naming, self._naming.mark(self._node)
        room = MAX_ENTRIES
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                # In a shared folder most entries are other nodes': pass those at once.
                if listing.flat and mark not in name:
                    continue
                if name in before:
                    now[name] = inode = entry.inode()
                    if inode != before[name]:
                        found.replaced.append(name)
                elif name in listing.strange and listing.strange[name] == entry.inode():
                    strange_now[name] = listing.strange[name]
                elif listing.is_gone(name, entry.inode(), began):
                    gone_now[name] = listing.gone[name]
                elif room <= len(now) + len(strange_now):
                    found.beyond += 1
                elif not naming.is_temporary(name) and not (listing.flat and name == self._own):
                    parsed = naming.parse(name)
                    others = parsed is not None and parsed.recipient not in (None, self._node)
                    if parsed is None or others or not _maybe_regular(entry):
                        # Without a mark, what is no packet in a shared folder is other people's.
                        if not listing.flat or (mark and not others):
                            strange_now[name] = entry.inode()
                            found.strange.append(repr(os.fsencode(name))[1:])
                    elif budget > 0:
                        budget -= 1
                        now[name] = entry.inode()
                        if name in listing.gone:
                            gone_now[name] = listing.gone[name]
                        found.added.append(Entry(name, parsed, listing.flat))
                    else:
                        found.more = True
        found.vanished.extend((name, listing.flat) for name in before.keys() - now.keys())
        listing.inodes, listing.strange, listing.gone = now, strange_now, gone_now
        ended = self._clock()
        # What took long once may have had to wait for the machine, or for the network.
        cost, listing.took = min(listing.took, ended - began), ended - began
        share = _FLAT_SHARE if listing.flat else _SHARE
        listing.not_before = ended + share * cost if cost > 0.002 else ended
        if not found.more and not gone_now and began >= listing.modified[1] + _SURE:
            listing.complete_until = ended + _UNSURE

    def _nothing(self, listing: _Listing, found: Scan) -> None:
        found.vanished.extend((name, listing.flat) for name in listing.inodes)
        listing.inodes, listing.strange, listing.gone = {}, {}, {}


def _place(folder: int) -> tuple[int, int]:
    status = os.fstat(folder)
    return status.st_dev, status.st_ino


def _maybe_regular(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:
        return True  # opening it will tell


def _unlink_unchanged(folder: int, name: str, condemned: Condemned) -> Fate:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (status.st_size, status.st_mtime_ns) != (condemned.size, condemned.modified):
        return Fate.CHANGED
    os.unlink(name, dir_fd=folder)
    return Fate.GONE
