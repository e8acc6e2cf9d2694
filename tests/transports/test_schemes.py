"""
Transport URLs, and who makes carriers for them.
"""

from __future__ import annotations

import time
from uuid import UUID

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import hoft.interfaces
from hoft.errors import ConfigurationError
from hoft.transports import armour
from hoft.transports.filenames import LongNaming, ShortNaming
from hoft.transports.folder import FolderCarrier
from hoft.transports.locations import FolderLocation
from hoft.transports.memory import MemoryCarrier
from hoft.transports.schemes import maker_for

NODE = UUID(int=1)


class MakerTests(SynchronousTestCase):
    """Carriers are found by their URL's scheme."""

    def test_folder(self) -> None:
        """C{folder:} makes the polling folder; schemes are the same in upper case."""
        for url in ("folder:/srv", "FOLDER:/srv"):
            maker = maker_for(url)
            verifyObject(hoft.interfaces.ICarrierMaker, maker)
            carrier = maker.carrier(Clock(), url, NODE, 1, time.monotonic)
            self.assertIsInstance(carrier, FolderCarrier)

    def test_memory(self) -> None:
        """C{memory:NAME} is the same folder for all who use it at the same time."""
        clock = Clock()
        url = "memory:test"
        one, two, other = (
            maker_for(url).carrier(clock, url, NODE, 1, clock.seconds)
            for url in ("memory:test", "memory:test", "memory:other")
        )
        assert isinstance(one, MemoryCarrier)
        assert isinstance(two, MemoryCarrier)
        assert isinstance(other, MemoryCarrier)
        self.assertIs(one.folder, two.folder)
        self.assertIsNot(one.folder, other.folder)
        for bad in ("memory:", "memory:a?b=c"):
            with self.assertRaises(ConfigurationError):
                maker_for(url).carrier(clock, bad, NODE, 1, clock.seconds)

    def test_unknown(self) -> None:
        """Other schemes are refused, naming those that are known."""
        for url in ("carrier-pigeon:coop", "/srv/exchange", "", ":", "s3"):
            error = self.assertRaises(ConfigurationError, maker_for, url)
            self.assertIn("folder:", error.wanted)
            self.assertIn("memory:", error.wanted)
            self.assertEqual(error.given, repr(url))


class FolderLocationTests(SynchronousTestCase):
    """What a C{folder:} URL says."""

    def test_one(self) -> None:
        """One path is inbox and outbox."""
        self.assertEqual(FolderLocation.parse("folder:/srv/x"), FolderLocation("/srv/x", "/srv/x"))
        self.assertEqual(FolderLocation.parse("folder:///srv/x/"), FolderLocation("/srv/x", "/srv/x"))

    def test_two(self) -> None:
        """Inbox and outbox can be two folders."""
        self.assertEqual(
            FolderLocation.parse("folder:?inbox=/a&outbox=/b"), FolderLocation("/a", "/b", 1.0, None)
        )

    def test_options(self) -> None:
        """Polling and the packets' mode can be set."""
        self.assertEqual(
            FolderLocation.parse("folder:/srv?poll=0.5&file_mode=0640"),
            FolderLocation("/srv", "/srv", 0.5, 0o640),
        )

    def test_oddCarriers(self) -> None:
        """What a carrier does not pass can be said."""
        options = "names=short&rename=no&armour=base85&max_file=200000&max_files=20&patience=5"
        location = FolderLocation.parse(f"folder:/srv?{options}")
        self.assertEqual(location.naming, ShortNaming())
        self.assertEqual((location.rename, location.armoured), (False, True))
        self.assertEqual((location.max_file, location.max_files, location.patience), (200_000, 20, 5.0))
        self.assertEqual(location.max_content, armour.capacity(200_000))
        location = FolderLocation.parse("folder:/srv?prefix=tx_&suffix=.txt&rename=yes&armour=none")
        self.assertEqual(location.naming, LongNaming("tx_", ".txt"))
        self.assertEqual((location.rename, location.armoured), (True, False))
        self.assertEqual(FolderLocation.parse("folder:/srv?max_file=200000").max_content, 200_000)
        self.assertIsNone(FolderLocation.parse("folder:/srv?armour=base85").max_content)

    def test_percent(self) -> None:
        """Percent-encoding reaches every path, those that are not UTF-8 as well."""
        self.assertEqual(FolderLocation.parse("folder:/a%20b%3F%26%23%25").inbox, "/a b?&#%")
        self.assertEqual(FolderLocation.parse("folder:/a+b").inbox, "/a+b")
        self.assertEqual(FolderLocation.parse("folder:/%ff").inbox, "/\udcff")

    def test_mistakes(self) -> None:
        """Each mistake is named by its option."""
        for url, option in (
            ("folder:", "inbox"),
            ("folder:relative", ""),
            ("folder://host/share", ""),
            ("folder:/a#b", ""),
            ("folder:/a%00b", ""),
            ("folder:?inbox=/a", "outbox"),
            ("folder:?outbox=/a", "inbox"),
            ("folder:?inbox=a&outbox=/b", "inbox"),
            ("folder:/a?inbox=/b", "inbox"),
            ("folder:/a?poll=often", "poll"),
            ("folder:/a?poll=0", "poll"),
            ("folder:/a?poll=nan", "poll"),
            ("folder:/a?poll=-1", "poll"),
            ("folder:/a?poll=inf", "poll"),
            ("folder:/a?poll=1&poll=2", "poll"),
            ("folder:/a?poll", "poll"),
            ("folder:/a?file_mode=rw", "file_mode"),
            ("folder:/a?file_mode=0400", "file_mode"),
            ("folder:/a?file_mode=0755", "file_mode"),
            ("folder:/a?pol=1", "pol"),
            ("folder:/a?patience=0", "patience"),
            ("folder:/a?names=tiny", "names"),
            ("folder:/a?rename=maybe", "rename"),
            ("folder:/a?armour=base64", "armour"),
            ("folder:/a?max_file=1000", "max_file"),
            ("folder:/a?max_file=1e9", "max_file"),
            ("folder:/a?max_files=2", "max_files"),
            ("folder:/a?suffix=txt", "suffix"),
            ("folder:/a?suffix=.t/t", "suffix"),
            ("folder:/a?prefix=.x", "prefix"),
            ("folder:/a?prefix=TX", "prefix"),
            ("folder:/a?prefix=seven__", "prefix"),
            ("folder:/a?names=short&prefix=a", "prefix"),
            ("folder:/a?names=short&suffix=.text", "suffix"),
            ("folder:/a?names=short&suffix=.tmp", "suffix"),
        ):
            error = self.assertRaises(ConfigurationError, FolderLocation.parse, url)
            self.assertEqual((error.where, error.key), ("transport", option), url)
