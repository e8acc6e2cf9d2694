"""
The words and flags of the command C{hoft}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from hoft import __version__, completing
from hoft.arguments import Once, number, path, whole
from hoft.defaults import STAGES, SUITES

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_Add = Callable[..., argparse.ArgumentParser]
"""See C{add} in L{parser}."""

_FIRST_TRY = """\
a first try, on one machine:
  mkdir exchange
  hoft init near --folder exchange > near.card
  hoft init far --folder exchange --listen 8090 > far.card
  hoft trust near far.card && hoft trust far near.card
  hoft allow far http://127.0.0.1:8000/
  hoft route near files --peer far --url http://127.0.0.1:8000/
and then, each in a terminal of its own:
  hoft run near
  hoft run far
  python3 -m http.server 8000 --bind 127.0.0.1
  curl http://127.0.0.1:8080/svc/files/

'hoft COMMAND --help' tells all of a command, with examples.
"""


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see '{self.prog} --help')\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """As inherited, but what cannot be written is no secret."""
        (file or sys.stderr).write(message)


class _Commands(argparse.RawDescriptionHelpFormatter):
    """Begins the help of a command beside its name: argparse forgets that names are indented once more."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = len("    completion")


_probability = number(1, "a probability")
_seconds = number(86400, "seconds")


def parser() -> argparse.ArgumentParser:
    """
    All that can be said to C{hoft}.  A shell that asks for completions gets them, and the process ends.

    @return: what parses a command line; C{command} of what it finds is a module within C{hoft}, a point,
        and the function that does the work.
    """
    made = _Parser(
        prog="hoft",
        description="HTTP over file transfer: calls across a gap that passes nothing but files.",
        epilog=_FIRST_TRY,
        formatter_class=_Commands,
    )
    made.add_argument("--version", action="version", version=f"hoft {__version__}")
    words = made.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str,
        command: str,
        what: str,
        *examples: str,
        folder: bool = True,
    ) -> argparse.ArgumentParser:
        one = words.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.set_defaults(command=command)
        if folder:
            one.add_argument("folder", metavar="DIR", type=path, help="the node's folder")
        return one

    for group in (_node, _peers, _ways, _callers, _operating, _tools):
        group(add)
    completing.answer_shell(made, words.choices)
    return made


def _node(add: _Add) -> None:
    """Making a node."""
    one = add(
        "init", "commands.init", "make a node: its configuration, key and journal",
        "hoft init near --folder /srv/exchange",
        "hoft init far --name far --inbox /srv/in --outbox /srv/out --listen 8090",
    )  # fmt: skip
    one.add_argument(
        "--name", action=Once, metavar="NAME", help="what its card calls it (default: DIR's last part)"
    )
    one.add_argument(
        "--folder", dest="shared", action=Once, metavar="PATH", help="one folder that both nodes see"
    )
    one.add_argument(
        "--inbox", action=Once, metavar="PATH", help="where files for this node arrive; with --outbox"
    )
    one.add_argument("--outbox", action=Once, metavar="PATH", help="where this node leaves files for others")
    one.add_argument("--transport", action=Once, metavar="URL", help="any other carrier")
    one.add_argument(
        "--listen",
        metavar="ENDPOINT",
        action="append",
        help="where callers connect: PORT of this machine, or an endpoint (default: 8080)",
    )

    add(
        "card",
        "commands.card",
        "print the node's card, which is safe to send by mail",
        "hoft card near > near.card",
    )


def _peers(add: _Add) -> None:
    """Whom it exchanges files with."""
    one = add(
        "trust", "trusting.trust", "exchange files with the node whose card this is",
        "hoft trust near far.card", "hoft trust near hoft-card:far:... --name plant",
        "hoft trust near far.card --suite authenticated --psk-file far.psk",
        "hoft trust near new.card --new-key",
    )  # fmt: skip
    one.add_argument("card", metavar="CARD", help="a card, or a file with one")
    one.add_argument("--name", metavar="NAME", help="what to call the peer here (default: as its card does)")
    one.add_argument(
        "--new-key",
        action="store_true",
        help="the card may be of a further key of a known peer: that one is used from then on, and the"
        " old one accepted beside it until 'hoft untrust --old'; without this, both fingerprints are shown"
        " and nothing is changed",
    )
    one.add_argument(
        "--suite",
        choices=SUITES,
        help="how packets are sealed, the same on both sides (default: what it is, box at first)",
    )
    one.add_argument(
        "--psk-file",
        metavar="FILE",
        help="a secret beside the keys, the same on both sides: 32 bytes in base64",
    )

    one = add(
        "untrust", "trusting.untrust", "forget a peer, and what names it; or its older key only",
        "hoft untrust near far", "hoft untrust near far --old",
    )  # fmt: skip
    one.add_argument("name", metavar="NAME", help="what 'hoft list' calls it")
    one.add_argument("--old", action="store_true", help="accept its newest key only, and forget nothing else")

    one = add(
        "key", "trusting.key", "show the node's keys, make a new one, retire the old one",
        "hoft key near", "hoft key near rotate > near.card", "hoft key near retire",
    )  # fmt: skip
    one.add_argument(
        "action",
        nargs="?",
        choices=("rotate", "retire"),
        help="rotate: make a new key beside the old one, and print its card; retire: delete the old one",
    )
    one.add_argument(
        "--anyway", action="store_true", help="retire it although peers may not have the new one yet"
    )


def _ways(add: _Add) -> None:
    """Where calls and connections go."""
    one = add(
        "route", "commands.route", "lead /svc/NAME/... to a service behind a peer",
        "hoft route near stock --peer far --url https://stock.example/api",
        "curl 'http://127.0.0.1:8080/svc/stock/items?size=3'",
        "hoft route near chat --peer far --url https://chat.example --websocket",
    )  # fmt: skip
    one.add_argument("name", metavar="NAME", help="the word after /svc/")
    one.add_argument("--peer", metavar="N", required=True, help="the peer at which the service is")
    one.add_argument("--url", metavar="URL", required=True, help="the service, as that peer reaches it")
    one.add_argument(
        "--websocket", action="store_true", help="WebSocket connections may be made through it, too"
    )

    one = add("unroute", "commands.unroute", "take a route away", "hoft unroute near stock")
    one.add_argument("name", metavar="NAME", help="the word after /svc/")

    for name, command, what in (
        ("allow", "commands.allow", "let peers reach what is under a URL through this node"),
        ("disallow", "commands.disallow", "take back what 'hoft allow' with the same arguments gave"),
    ):
        one = add(
            name, command, what, f"hoft {name} far https://stock.example/api",
            f"hoft {name} far http://127.0.0.1:8000 --peer near",
            f"hoft {name} far http://wiki.plant.lan --private",
            f"hoft {name} far https://chat.example --websocket",
            f"hoft {name} far tcp://127.0.0.1:22 --peer near",
        )  # fmt: skip
        one.add_argument(
            "url",
            metavar="URL-PREFIX",
            help="scheme, host, port and whole path segments; or tcp://HOST:PORT, for streams",
        )
        one.add_argument("--peer", metavar="N", help="only this peer (default: every peer)")
        one.add_argument(
            "--private",
            action="store_true",
            help="also if the name leads to a private address, such as 10.1.2.3 or 192.168.1.5",
        )
        one.add_argument("--websocket", action="store_true", help="also by WebSocket")

    for name, command, what in (
        ("forward", "commands.forward", "lead TCP connections to a target behind a peer, as ssh -L does"),
        ("unforward", "commands.unforward", "take back what 'hoft forward' for this LOCAL gave"),
    ):
        one = add(
            name, command, what,
            f"hoft {name} near 2222" + (" far 127.0.0.1:22" if name == "forward" else ""),
            *(("ssh -p 2222 127.0.0.1",) if name == "forward" else ()),
        )  # fmt: skip
        one.add_argument(
            "local",
            metavar="LOCAL",
            help="where to listen: PORT, a loopback ADDRESS:PORT, or an endpoint such as unix:PATH",
        )
        if name == "forward":
            one.add_argument("peer", metavar="PEER", help="the peer that makes the connections")
            one.add_argument(
                "to", metavar="HOST:PORT", help="where to; it allows that by 'hoft allow DIR tcp://HOST:PORT'"
            )


def _callers(add: _Add) -> None:
    """Who calls, and who gets what comes of it."""
    one = add(
        "caller", "commands.caller", "name who may call, and make or renew its token",
        "hoft caller near add billing > billing.token", "hoft caller near add shop --per-second 5",
        "hoft caller near add watch --operator > watch.token",
        "hoft caller near renew billing", "hoft caller near remove billing",
        "curl -H \"Authorization: Bearer $(cat billing.token)\" \\\n       http://127.0.0.1:8080/svc/stock/",
    )  # fmt: skip
    one.add_argument(
        "action",
        choices=("add", "renew", "remove"),
        help="add: print a new caller's token; renew: print another one, and accept the last beside it",
    )
    one.add_argument("name", metavar="NAME", help="what to call the caller")
    for option, kind, what in (
        ("in-flight", int, "calls at once"),
        ("per-second", float, "calls a second"),
        ("per-day", int, "calls a day"),
        ("bytes-per-day", str, 'bytes of bodies a day, as "10 GiB"'),
    ):
        one.add_argument(f"--{option}", metavar="N", type=kind, help=f"(add) at most so many {what}")
    one.add_argument(
        "--operator", action="store_true", help="(add) it may also see the node's status and metrics"
    )

    one = add(
        "callback", "registering.callback",
        "say where responses may be sent to, and make or renew what signs them",
        "hoft callback near add shop --url https://shop.example/hooks > shop.secret",
        "hoft callback near add plant --url http://hooks.plant.lan --private --ed25519",
        "hoft callback near renew shop > shop.secret", "hoft callback near remove shop",
        "curl -H 'Hoft-Callback: https://shop.example/hooks/7' \\\n       http://127.0.0.1:8080/svc/stock/",
    )  # fmt: skip
    one.add_argument(
        "action",
        choices=("add", "renew", "remove"),
        help="add: print a new receiver's secret; renew: print another one, and sign by the last as well",
    )
    one.add_argument("name", metavar="NAME", help="what to call the receiver")
    one.add_argument("--url", metavar="URL", help="(add) a prefix: callers may name what is below it")
    one.add_argument(
        "--caller", dest="callers", metavar="C", action="append",
        help="(add) only this caller may; may be given several times (default: every caller)",
    )  # fmt: skip
    one.add_argument(
        "--private", action="store_true", help="(add) also if the name leads to a private address"
    )
    one.add_argument(
        "--ed25519", action="store_true",
        help="(add) sign by Ed25519, and print the public key (default: HMAC-SHA256, by a shared secret)",
    )  # fmt: skip

    one = add(
        "callbacks", "operating.callbacks.callbacks",
        "show callbacks that are to be delivered yet, or dead; send the dead ones again",
        "hoft callbacks near", "hoft callbacks near --json", "hoft callbacks near --resend all",
    )  # fmt: skip
    one.add_argument("--json", action="store_true", help="for programs")
    one.add_argument(
        "--resend", metavar="ID", help="begin anew with this dead one, or with all of them: ID is 'all' then"
    )


def _operating(add: _Add) -> None:
    """Running it, and seeing what it does."""
    one = add(
        "list",
        "operating.configuration.list_all",
        "show peers, routes, what is allowed and what is forwarded",
        "hoft list near",
        "hoft list near --json",
    )
    one.add_argument("--json", action="store_true", help="for programs")

    add(
        "run", "operating.process.run", "be the node, in the foreground, until SIGTERM", "hoft run near",
        "twistd --logfile=near.log hoft --config near/hoft.toml     (a daemon)",
    )  # fmt: skip
    add(
        "reload",
        "operating.process.reload",
        "have the running node re-read its file, as SIGHUP does",
        "hoft reload near",
    )

    one = add(
        "status", "operating.status.status",
        "show what a node does and what is stuck, also of one that does not run",
        "hoft status near", "hoft status near --watch", "hoft status near --json || echo look after it",
    )  # fmt: skip
    one.add_argument("--json", action="store_true", help="for programs")
    one.add_argument(
        "--watch", metavar="S", type=_seconds, nargs="?", const=2.0,
        help="show it again and again, so many seconds apart (2), until ^C",
    )  # fmt: skip

    one = add(
        "purge", "operating.purge.purge",
        "have the running node forget what routes with a cache have stored",
        "hoft purge near", "hoft purge near stock",
        "hoft purge near 'https://stock.example/api/items?size=3'", "hoft purge near '/svc/stock/items/*'",
    )  # fmt: skip
    one.add_argument(
        "what", metavar="WHAT", nargs="?",
        help="a route; a URL of its service, or a path below /svc/; all that begins with one, if * stands"
        " behind it (default: everything)",
    )  # fmt: skip
    one.add_argument("--json", action="store_true", help="for programs")

    one = add(
        "requests", "operating.requests.requests",
        "show the calls under way, what each waits for, and those that have ended lately",
        "hoft requests near", "hoft requests near --watch --peer far",
        "hoft requests near 5f0c6b1d     (all of one call, by its Hoft-Request-Id)",
        "hoft requests far --side egress --stage executing --json",
    )  # fmt: skip
    one.add_argument("id", metavar="ID", nargs="?", help="all of the calls whose ids begin so")
    one.add_argument("--json", action="store_true", help="for programs")
    one.add_argument(
        "--watch", metavar="S", type=_seconds, nargs="?", const=2.0,
        help="show them again and again, so many seconds apart (2), until ^C",
    )  # fmt: skip
    one.add_argument(
        "--side", choices=("ingress", "egress"), help="only those made here, or only those made for peers"
    )
    one.add_argument("--peer", metavar="N", help="only those to or from this peer")
    one.add_argument("--route", metavar="N", help="only those by this route")
    one.add_argument("--caller", metavar="N", help="only those of this caller")
    one.add_argument(
        "--stage", metavar="STAGE", choices=(*STAGES, "ended"), help=", ".join((*STAGES, "ended"))
    )
    one.add_argument(
        "--limit",
        metavar="N",
        type=whole(1000),
        help="so many of either kind (20; with --json, and at most: 1000)",
    )

    one = add(
        "doctor", "operating.doctor.doctor",
        "look for what keeps the node from its peers, and say what to do",
        "hoft doctor near", "hoft doctor near --wait 120     (a mirror that runs every minute)",
    )  # fmt: skip
    one.add_argument("--json", action="store_true", help="for programs: an object a line for each finding")
    one.add_argument(
        "--wait", metavar="S", type=number(3600, "seconds"), default=20.0,
        help="so many seconds for the peers' answers (20)",
    )  # fmt: skip

    one = add(
        "packet", "operating.packet.packet",
        "explain a packet file frame by frame: whole, cut, damaged or foreign",
        "hoft packet /srv/exchange/*/*.hoft",
        "hoft packet lost+found/#4711 --config near --json",
        folder=False,
    )  # fmt: skip
    one.add_argument("file", metavar="FILE", type=path, nargs="+", help="a file, whatever its name")
    one.add_argument(
        "--config", metavar="DIR", type=path,
        help="the node that sent it or was to get it: its keys open what is inside",
    )  # fmt: skip
    one.add_argument("--json", action="store_true", help="for programs: an object a line for each file")

    add(
        "restored", "operating.restored.restored",
        "after its state was restored from a backup: begin every log anew",
        "hoft restored near",
    )  # fmt: skip


def _tools(add: _Add) -> None:
    """What goes with it."""
    one = add(
        "completion", "completing.completion", "print what makes a shell complete words, options and names",
        "hoft completion bash >> ~/.bashrc", "hoft completion zsh >> ~/.zshrc     (after compinit)",
        folder=False,
    )  # fmt: skip
    one.add_argument("shell", choices=("bash", "zsh"), help="which one")

    one = add(
        "mirror", "operating.mirror.mirror",
        "carry files between folders, subfolders too, as carelessly as asked",
        "hoft mirror near-outbox far-inbox --every 1",
        "hoft mirror a b --both --delay 0.2 --truncate 0.1 --lose 0.05 --seed 7",
        folder=False,
    )  # fmt: skip
    one.add_argument("source", metavar="SRC", type=path, help="where to take files from")
    one.add_argument("target", metavar="DST", type=path, help="where to bring them")
    one.add_argument("--both", action="store_true", help="also from DST to SRC; nothing is carried back")
    one.add_argument("--copy", action="store_true", help="leave the files in SRC (default: move them)")
    one.add_argument(
        "--every", metavar="S", type=_seconds, default=0.1, help="look for files so often (default: 0.1)"
    )
    one.add_argument(
        "--delay",
        metavar="S",
        type=_seconds,
        default=0.0,
        help="let each file wait about so long, half to 1.5 times",
    )
    for option, what in (
        ("truncate", "cut a file short"),
        ("lose", "lose it"),
        ("duplicate", "bring it twice"),
        ("corrupt", "flip one of its bits"),
    ):
        one.add_argument(
            f"--{option}", metavar="P", type=_probability, default=0.0, help=f"how likely to {what}"
        )
    one.add_argument("--seed", metavar="N", type=int, help="of all chance (default: random, and shown)")
