"""Which node a folder is, whoever asks."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from hoft.errors import ConfigurationError
from hoft.identity import IDENTITY_FILE
from hoft.operating.places import Place
from hoft.running import LOCK_FILE
from tests.processes import PATIENCE, environment


class PlaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Outside of trial's folder, which another user may be unable to enter.
        self.folder = Path(os.path.realpath(tempfile.mkdtemp()))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_a_folder_its_file_or_a_state_folder(self) -> None:
        self.assertRaises(ConfigurationError, Place.of, self.folder)
        (self.folder / IDENTITY_FILE).touch()
        self.assertEqual(Place.of(self.folder), Place(self.folder, None))
        file = self.folder / "hoft.toml"
        file.write_text('name = "near"\nstate = "elsewhere"\n')
        for given in (self.folder, file):
            place = Place.of(given)
            self.assertEqual(place.state, self.folder / "elsewhere")
            assert place.config is not None
            self.assertEqual(place.config.name, "near")

    def test_a_mistake_in_the_file_hides_no_node_that_runs(self) -> None:
        (self.folder / "hoft.toml").write_text("nonsense")
        self.assertRaises(ConfigurationError, Place.of, self.folder)
        with open(self.folder / LOCK_FILE, "w") as lock:
            lock.write("1")
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            place = Place.of(self.folder)
        self.assertEqual((place.state, place.config), (self.folder, None))
        self.assertIn("hoft.toml", str(place.mistake))

    def test_another_user_is_told_so_in_one_line(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be two users")
        (self.folder / "hoft.toml").write_text('name = "near"\n')
        probe = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from hoft.errors import LocalError\n"
            "from hoft.operating.places import Place\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: Place.of(Path(sys.argv[1]))\n"
            "except LocalError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", probe, str(self.folder)],
            env=environment(), capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        self.assertIn("hoft.toml: cannot be read (Permission denied)", done.stdout, done.stderr)
