"""
How C{hoft.toml} is changed so that its comments and its order stay.

All here blocks on the disk, and those who change files in one folder wait for one another.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, InlineTable, Table

from hoft import config
from hoft.changing import nothing, replace
from hoft.errors import ConfigurationError

Document = MutableMapping[str, Any]


def change(
    path: Path, edit: Callable[[Document, config.Config], None], then: Callable[[], None] = nothing
) -> bool:
    """
    Have C{edit} change a configuration, and the node that runs take it up.

    @param edit: is given the document, and what it says now.
    @param then: called once it is in force.
    @return: whether anything changed.
    @raise ConfigurationError: what comes out has mistakes, or cannot be written.
    @raise LocalError: the node does not take it up, or C{then} says so: then nothing is changed.
    """
    # Through a link, not in its place.
    path = Path(os.path.realpath(path))
    with alone(path.parent):
        current = config.read(path)
        text = path.read_text("utf-8")
        try:
            document = tomlkit.parse(text)
            edit(document, current)
            edited = tomlkit.dumps(document)
        except (TOMLKitError, ValueError) as error:
            # Legal TOML that tomlkit cannot edit, such as some mixes of inline and other tables.
            raise ConfigurationError(
                str(path), "", f"cannot be edited here ({error})", "the change made by hand"
            ) from error
        config.parse(edited, path)
        replace(path, edited, current.state, then)
        return edited != text


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """
    While others that change files in this folder wait.

    @raise ConfigurationError: it cannot be opened.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            str(folder),
            "",
            f"cannot be opened ({error.strerror})",
            "the folder of a node, as 'hoft init' makes it",
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def append(document: Document, key: str, values: Mapping[str, Any]) -> None:
    """One entry more in an array of tables."""
    entries = document.setdefault(key, tomlkit.aot())
    entries.append(_filled(tomlkit.table() if isinstance(entries, AoT) else tomlkit.inline_table(), values))


def put_named(document: Document, key: str, name: str, **values: Any) -> None:
    """A table C{[key.name]}."""
    tables = document.setdefault(key, tomlkit.table(is_super_table=True))
    inline = isinstance(tables, InlineTable)
    tables[name] = _filled(tomlkit.inline_table() if inline else tomlkit.table(), values)


def _filled(table: Table | InlineTable, values: Mapping[str, Any]) -> Table | InlineTable:
    table.update(values)
    if isinstance(table, Table):
        # A blank line before whatever comes next.
        table.add(tomlkit.nl())
    return table


def named(document: Document, path: Path, key: str, name: str, names: Sequence[str]) -> Document:
    """
    The table C{[key.name]}.

    @param names: those that there are.
    @raise ConfigurationError: it is none of them.
    """
    if name not in names:
        known = f"one of {', '.join(sorted(names))}" if names else "(there is none)"
        raise ConfigurationError(str(path), key, f"none is called {name!r}", known)
    table: Document = document[key][name]
    return table


def remove_named(document: Document, path: Path, key: str, name: str, names: Sequence[str]) -> None:
    """Take away what L{named} finds."""
    named(document, path, key, name, names)
    del document[key][name]
    if not document[key]:
        del document[key]


def remove_from_array(document: Document, key: str, unwanted: Callable[[Document], bool]) -> list[Document]:
    """Take away entries of an array of tables; those."""
    entries = document.get(key, ())
    removed: list[Document] = []
    for index in reversed(range(len(entries))):
        if unwanted(entries[index]):
            removed.append(dict(entries[index]))
            del entries[index]
    if removed and not entries:
        del document[key]
    return removed
