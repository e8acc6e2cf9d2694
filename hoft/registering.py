"""
The command by which people say where responses may be sent to: C{hoft callback}.

As in L{hoft.commands}, it returns the process's exit code, or raises L{LocalError}
with the one line to show.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from hoft import config, editing
from hoft.addresses import check_url
from hoft.changing import replace, write
from hoft.commands import read_node, showing, taken_up
from hoft.config import CONFIGURATION_FILE, Callback
from hoft.errors import ConfigurationError
from hoft.identity import check_name
from hoft.tables import check_reference
from hoft.web.ingress.callbacks.registrations import read_keys
from hoft.web.ingress.callbacks.signing import Key, SigningKey, new_key


def callback(options: Namespace) -> int:
    """C{hoft callback}: register a receiver, give it another secret, or forget it."""
    current = read_node(options.folder)
    path, name = options.folder / CONFIGURATION_FILE, options.name
    if options.action != "add":
        given = [option for option in ("url", "callers", "private", "ed25519") if getattr(options, option)]
        if given:
            wanted = f"a change of [callbacks.{name}] in {path} instead"
            raise ConfigurationError(config.COMMAND_LINE, "", f"--{given[0]} with {options.action}", wanted)
    if options.action == "remove":
        return _remove(current, path, name)
    key = _renew(current, path, name) if options.action == "renew" else _add(current, path, options)
    kept = isinstance(key, SigningKey)
    _say(
        current,
        f"by this key {name} verifies what it gets: it is no secret"
        if kept
        else f"this is the secret of {name}: give it to nobody else",
    )
    return 0


def _add(current: config.Config, path: Path, options: Namespace) -> Key:
    name = check_name(options.name)
    if options.url is None:
        raise ConfigurationError(config.COMMAND_LINE, "--url", "not given", "where its callbacks may go")
    values: dict[str, Any] = {"url": check_url(config.COMMAND_LINE, "--url", options.url)}
    secret = _secret_file(name)
    values["secret_file"] = secret.name
    callers = [caller.name for caller in current.callers]
    if options.callers:
        values["callers"] = [
            check_reference(config.COMMAND_LINE, "--caller", one, callers, "callers")
            for one in options.callers
        ]
    if options.private:
        values["private"] = True
    key = new_key(os.urandom, options.ed25519)
    if name in [one.name for one in current.callbacks]:
        editing.callback(path, name, values)  # which refuses it
    file = path.parent / secret
    write(file, _secrets(key), 0o600)
    try:
        editing.callback(path, name, values, showing(key.shared()))
    except BaseException:
        file.unlink()
        raise
    return key


def _renew(current: config.Config, path: Path, name: str) -> Key:
    """Another key of the same kind as the newest; the one of before signs beside it."""
    registered = _registered(current, path, name)
    newest = read_keys(registered.secret_file)[0]
    key = new_key(os.urandom, isinstance(newest, SigningKey))
    file = Path(os.path.realpath(registered.secret_file))
    replace(file, _secrets(key, newest), current.state, showing(key.shared()))
    return key


def _remove(current: config.Config, path: Path, name: str) -> int:
    registered = _registered(current, path, name)
    editing.remove_callback(path, name)
    if registered.secret_file == path.absolute().parent / _secret_file(name):
        registered.secret_file.unlink(missing_ok=True)
    _say(current, f"nothing is sent to {name} any more")
    return 0


def _registered(current: config.Config, path: Path, name: str) -> Callback:
    names = [one.name for one in current.callbacks]
    check_reference(str(path), "callbacks", name, names, "callbacks")
    return current.callbacks[names.index(name)]


def _secret_file(name: str) -> Path:
    return Path(f"callback-{name}.secret")


def _secrets(*keys: Key) -> str:
    """What is in a secret file."""
    return "".join(f"{key.secret()}\n" for key in keys)


def _say(current: config.Config, line: str) -> None:
    """To people: standard output has the key."""
    print(line, *taken_up(current), sep="\n", file=sys.stderr)
