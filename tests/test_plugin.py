"""
The wheel, installed elsewhere: commands and plugins are found from it alone.

Runs from the project's folder cannot show that: there everything is importable.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from .processes import PATIENCE

PROJECT = Path(__file__).resolve().parent.parent


def run(*arguments: object, cwd: Path) -> str:
    """Run a program without the settings that would lead it back to the project; its standard output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        raise AssertionError(f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


@frozen
class Installation:
    """A wheel of the project, and an environment in which it is installed."""

    folder: Path
    source: Path
    wheel: Path
    python: Path


@cache
def installation() -> Installation:
    """
    Build from a copy, since a build leaves things behind, and install into a
    fresh environment; once for all tests.

    Nothing is fetched: setuptools and hoft's dependencies are those of the
    environment that runs the tests, whose own hoft is not visible from a C{.pth}
    line if it is editable, and comes last if it is not.
    """
    folder = Path(tempfile.mkdtemp(prefix="hoft-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source = folder / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "dropin.cache")
    for name in ("hoft", "twisted"):
        shutil.copytree(PROJECT / name, source / name, ignore=unwanted)
    for name in ("pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("hoft-*.whl")
    fresh = folder / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=folder)
    python = fresh / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    inside = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    outside = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(inside) / "dependencies.pth").write_text("\n".join(outside) + "\n")
    return Installation(folder, source, wheel, python)


class WheelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.installed = installation()

    def run_installed(self, *arguments: object) -> str:
        return run(self.installed.python, "-P", *arguments, cwd=self.installed.folder)

    def test_hoft_comes_from_the_wheel(self) -> None:
        found = self.run_installed("-c", "import hoft; print(hoft.__file__)")
        self.assertTrue(found.startswith(str(self.installed.folder / "fresh")), found)

    def test_twistd_and_twist_know_hoft(self) -> None:
        twistd = "from twisted.scripts.twistd import run; run()"
        for program in (("-c", twistd), ("-m", "twisted")):
            self.assertRegex(self.run_installed(*program, "--help"), r"(?m)^ +hoft +HTTP over file transfer")
        self.assertIn("--inbox=", self.run_installed("-c", twistd, "hoft", "--help"))

    def test_the_command_is_installed_and_knows_its_version(self) -> None:
        version = self.installed.wheel.name.split("-")[1]
        self.assertEqual(
            run(self.installed.python.with_name("hoft"), "--version", cwd=self.installed.folder),
            f"hoft {version}\n",
        )

    def test_every_module_of_the_project_is_in_the_wheel_and_twisted_stays_twisteds(self) -> None:
        with zipfile.ZipFile(self.installed.wheel) as wheel:
            names = set(wheel.namelist())
        wanted = {
            str(path.relative_to(self.installed.source))
            for package in ("hoft", "twisted")
            for path in (self.installed.source / package).rglob("*.py")
        }
        self.assertEqual({name for name in names if name.endswith(".py")}, wanted)
        self.assertIn("hoft/py.typed", names)
        self.assertEqual(
            {name for name in names if name.endswith("__init__.py") and name.startswith("twisted")}, set()
        )

    def test_looking_for_plugins_stays_cheap_for_every_other_twistd(self) -> None:
        loaded = self.run_installed(
            "-c",
            "import sys\n"
            "from twisted.application.service import IServiceMaker\n"
            "from twisted.plugin import getPlugins\n"
            "assert 'hoft' in {plugin.tapname for plugin in getPlugins(IServiceMaker)}\n"
            "print(*sys.modules)\n",
        ).split()
        for dear in (
            "hoft.tap",
            "hoft.config",
            "hoft.node",
            "nacl",
            "treq",
            "tomlkit",
            "twisted.internet.reactor",
        ):
            self.assertNotIn(dear, loaded)
