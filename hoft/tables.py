"""
One table of C{hoft.toml}, read key by key, each value checked as it is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from attrs import Factory, frozen

from hoft.errors import ConfigurationError
from hoft.identity import NAME, NAME_WANTED

T = TypeVar("T")

LEAST_RATE = 0.00001
"""A second: about one a day."""

_MOST = 10**15

_SIZE = re.compile(r"([0-9]{1,15})\s*(|[KMGT]i?)B?", re.IGNORECASE)


def check_reference(where: str, key: str, name: str, names: Sequence[str], kind: str = "peer") -> str:
    """
    @param kind: of what the names are: the table that has them.
    @return: C{name}.
    @raise ConfigurationError: it is none of C{names}.
    """
    if name not in names:
        missing = (
            "a peer; none is trusted yet ('hoft trust')" if kind == "peer" else f"[{kind}.{name}] as well"
        )
        known = f"one of {', '.join(sorted(names))}" if names else missing
        raise ConfigurationError(
            where, key, f"no {kind.removesuffix('s')} is called {name!r}", known + _nearest(name, names)
        )
    return name


def _nearest(word: str, words: Iterable[str]) -> str:
    close = get_close_matches(word, list(words), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@frozen
class Table:
    """
    A table of the file; remembers which keys were asked for, so that the others are mistakes.

    @ivar where: the file, for messages.
    @ivar prefix: the table's own dotted key, C{""} for the whole file.

    Every method that takes a value raises L{ConfigurationError} if it is not
    what the method promises.
    """

    where: str
    prefix: str
    values: Mapping[str, Any]
    asked: set[str] = Factory(set)

    def _key(self, key: str) -> str:
        return f"{self.prefix}.{key}" if self.prefix else key

    def _take(self, key: str) -> Any:
        self.asked.add(key)
        return self.values.get(key)

    def _wrong(self, key: str, given: object, wanted: str) -> ConfigurationError:
        return ConfigurationError(self.where, self._key(key), _shown(given), wanted)

    def finish(self) -> None:
        """@raise ConfigurationError: there is a key that nobody asked for."""
        for key in self.values:
            if key not in self.asked:
                known = f"one of {', '.join(sorted(self.asked))}"
                raise ConfigurationError(
                    self.where, self._key(key), "no such key", known + _nearest(key, self.asked)
                )

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key)
        if value is None:
            if default is None:
                near = get_close_matches(key, list(self.values), n=1)
                given = f"is missing (there is {near[0]!r})" if near else "is missing"
                raise ConfigurationError(self.where, self._key(key), given, "a text in quotes")
            return default
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text in quotes")
        if not value.isprintable():
            raise self._wrong(key, value, "a text without control characters")
        return value

    def has(self, key: str) -> bool:
        return self._take(key) is not None

    def path(self, key: str, folder: Path, default: str | None = None) -> Path:
        """@param folder: where it starts, if it is relative."""
        text = self.text(key, default)
        if not text:
            raise self._wrong(key, text, "a path")
        try:
            return folder / Path(text).expanduser()
        except RuntimeError:
            raise self._wrong(key, text, "a path; of that user no home is known") from None

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts; a single one may stand without brackets."""
        value = self._take(key)
        if value is None:
            return default
        values = value if isinstance(value, list) else [value]
        for one in values:
            if not isinstance(one, str):
                raise self._wrong(key, one, "a text in quotes, or several in brackets")
        return tuple(values)

    def located(self, key: str) -> tuple[str, str, str]:
        """Where, key and text: the arguments of a check."""
        return self.where, self._key(key), self.text(key)

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of these texts; the first if nothing is said."""
        value = self.text(key, choices[0])
        if value not in choices:
            raise self._wrong(key, value, f"one of {', '.join(choices)}{_nearest(value, choices)}")
        return value

    def name(self, key: str) -> str:
        value = self.text(key)
        if not NAME.fullmatch(value):
            raise self._wrong(key, value, NAME_WANTED)
        return value

    @property
    def own_name(self) -> str:
        """The last part of this table's own key, as in C{[peers.NAME]}."""
        return self.prefix.partition(".")[2]

    def reference(self, key: str, names: Sequence[str]) -> str:
        return check_reference(self.where, self._key(key), self.text(key), names)

    def optional_reference(self, key: str, names: Sequence[str], kind: str = "peer") -> str | None:
        if self._take(key) is None:
            return None
        return check_reference(self.where, self._key(key), self.text(key), names, kind)

    def references(self, key: str, names: Sequence[str], kind: str) -> tuple[str, ...]:
        """Names of C{[kind.NAME]}; none if nothing is said."""
        found = self.texts(key, ())
        return tuple(check_reference(self.where, self._key(key), name, names, kind) for name in found)

    def truth(self, key: str, default: bool = False) -> bool:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false, without quotes")
        return value

    def seconds(self, key: str, default: float, least: float = 0.0, zero: bool = False) -> float:
        """@param zero: 0 will do, too, whatever the least."""
        value = self._take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, value, "seconds, as a number")
        if not least <= value <= 31536000 and not (zero and value == 0):
            raise self._wrong(key, value, f"seconds, from {least:g} to 31536000{', or 0' if zero else ''}")
        return float(value)

    def rate(self, key: str) -> float | None:
        """So many a second; no limit if nothing is said."""
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not LEAST_RATE <= value <= _MOST:
            wanted = f"a number from {LEAST_RATE:.5f} (about one a day) to {_MOST}, or nothing for no limit"
            raise self._wrong(key, value, wanted)
        return value

    def count(self, key: str) -> int | None:
        """A whole number above 0; no limit if nothing is said."""
        value = self._take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST:
            raise self._wrong(key, value, f"a whole number from 1 to {_MOST}, or nothing for no limit")
        return value

    def size(self, key: str, default: int, least: int = 0, most: int = (1 << 63) - 1) -> int:
        """Bytes: a number, or a text such as C{"512 MiB"}."""
        value = self._take(key)
        if value is None:
            return default
        size = value if isinstance(value, int) and not isinstance(value, bool) else -1
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is not None:
            unit = match[2].upper()
            base = 1024 if unit.endswith("I") else 1000
            power = " KMGT".index(unit[0]) if unit else 0
            size = int(match[1]) * int(base**power)
        elif size < 0:
            raise self._wrong(key, value, 'bytes, as a number or as "512 MiB" or "4 GB"')
        if not least <= size <= most:
            raise self._wrong(key, value, f"from {least} to {most} bytes")
        return size

    def named(self, key: str, read: Callable[[Table], T]) -> tuple[T, ...]:
        """What C{read} makes of each table C{[key.NAME]}."""
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, dict):
            raise self._wrong(key, value, f"tables, each [{key}.NAME]")
        found = []
        for name, values in value.items():
            if not NAME.fullmatch(name):
                raise ConfigurationError(self.where, key, f"{name!r} as a name", NAME_WANTED)
            if not isinstance(values, dict):
                raise self._wrong(f"{key}.{name}", values, f"a table [{key}.{name}]")
            found.append(Table(self.where, f"{key}.{name}", values)._read_whole(read))
        return tuple(found)

    def table(self, key: str, read: Callable[[Table], T]) -> T | None:
        """What C{read} makes of the table C{key} in this one; C{None} if there is none."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, value, f"a table [{self._key(key)}]")
        return Table(self.where, self._key(key), value)._read_whole(read)

    def array(self, key: str, read: Callable[[Table], T]) -> tuple[T, ...]:
        """What C{read} makes of each table C{[[key]]}, in order."""
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self._wrong(key, value, f"tables, each [[{key}]]")
        return tuple(
            Table(self.where, f"{key}[{number}]", one)._read_whole(read)
            for number, one in enumerate(value, 1)
        )

    def _read_whole(self, read: Callable[[Table], T]) -> T:
        value = read(self)
        self.finish()
        return value
