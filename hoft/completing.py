"""
Completions for shells, by C{argcomplete}: words, options, and the names that a configuration has.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from hoft.errors import LocalError

_NAMES = {
    ("untrust", "name"): "peers",
    ("route", "name"): "routes",
    ("route", "peer"): "peers",
    ("unroute", "name"): "routes",
    ("allow", "peer"): "peers",
    ("disallow", "peer"): "peers",
    ("forward", "peer"): "peers",
    ("caller", "name"): "callers",
    ("requests", "peer"): "peers",
    ("requests", "route"): "routes",
    ("requests", "caller"): "callers",
    ("purge", "what"): "routes",
    ("callback", "name"): "callbacks",
    ("callback", "callers"): "callers",
}
"""Command and argument -> the part of the configuration whose names it may be."""

_VALUES = {
    ("unforward", "local"): ("tcp", "listen"),
    ("disallow", "url"): ("allowed", "url"),
}
"""Of what has no names: the part, and by what its entries are known."""


class _Known:
    """Completes to what one part of the configuration has, of the node that the command line names."""

    def __init__(self, part: str, known_by: str = "name") -> None:
        self._part = part
        self._known_by = known_by

    def __call__(self, *, parsed_args: Namespace, **_: object) -> list[str]:
        from hoft import config  # only here: the shell waits for words and options, too

        try:
            current = config.read(parsed_args.folder / config.CONFIGURATION_FILE)
        except (LocalError, AttributeError):
            return []  # no node, or none named yet
        return list(dict.fromkeys(getattr(one, self._known_by) for one in getattr(current, self._part)))


def call_ids(*, parsed_args: Namespace, prefix: str, **_: object) -> list[str]:
    """The ids of calls that the running node knows of."""
    from hoft.local_socket import ask
    from hoft.operating.places import Place

    try:
        answer = ask(Place.of(parsed_args.folder).state, "requests", 1.0, id=prefix, limit=100)
    except (LocalError, AttributeError):
        return []
    return [call["id"] for call in (*answer["under_way"], *answer["ended"])]


def answer_shell(parser: ArgumentParser, commands: Mapping[str, ArgumentParser]) -> None:
    """
    If it is a shell that runs this process and wants completions, give them and end it.

    @param commands: the parser of each command.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    completers = {
        **{place: _Known(part) for place, part in _NAMES.items()},
        **{place: _Known(*known) for place, known in _VALUES.items()},
        ("requests", "id"): call_ids,
    }
    for (command, argument), completer in completers.items():
        for action in commands[command]._actions:
            if action.dest == argument:
                action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks
    argcomplete.autocomplete(parser, always_complete_options=False)


def completion(options: Namespace) -> int:
    """C{hoft completion}: what a shell is to evaluate at its start."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise LocalError("completions need a further package: pip install 'hoft[completion]'") from None
    print(shellcode(["hoft"], shell=options.shell))
    return 0
