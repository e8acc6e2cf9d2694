from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy
from zope.interface.verify import verifyClass

import hoft


def classes() -> Iterator[type]:
    """All of ours, each once."""
    for module in pkgutil.walk_packages(hoft.__path__, "hoft."):
        for _, one in inspect.getmembers(import_module(module.name), inspect.isclass):
            if one.__module__ == module.name:
                yield one


class ImplementationTests(SynchronousTestCase):
    def test_every_class_has_the_methods_of_the_interfaces_that_it_names(self) -> None:
        found = 0
        for one in classes():
            for interface in implementedBy(one).flattened():
                if interface.names():
                    verifyClass(interface, one)
                    found += interface.__module__ == "hoft.interfaces"
        self.assertGreater(found, 20)
