"""Both sides are restored together, which nobody can notice: C{hoft restored} says it for them."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from hoft.cli import main
from hoft.operating.restored import begin_anew
from hoft.protocols.inspection import Waiting, holdings
from tests.protocols.nodes import Node, Pair, lost


class BothRestoredTests(SynchronousTestCase):
    """
    A backup of both is made while records are under way both ways.  Life goes on, the
    records arrive and are acted on; then both are restored from that backup.
    """

    def setUp(self) -> None:
        self.pair = Pair(self)
        self.near, self.far = self.pair.near, self.pair.far
        self.pair.start()
        self.pair.deliver = lost
        self.near.send(b"pay the bill", b"x" * 50_000)
        self.far.send(b"the answer")
        self.pair.advance(1)
        for node in (self.near, self.far):
            shutil.copytree(node.folder, self.backup(node))
        self.pair.deliver = lambda *file: ((0.0, file[3]),)
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [b"pay the bill", b"x" * 50_000])
        self.assertEqual(self.near.program.payloads, [b"the answer"])
        self.late = [(name, data) for by, name, data in self.pair.crossed if by == self.near.uuid]
        for node in (self.near, self.far):
            node.crash()
            shutil.rmtree(node.folder)
            shutil.copytree(self.backup(node), node.folder)

    def backup(self, node: Node) -> Path:
        return node.folder.with_name(f"{node.name} backup")

    def test_unsaid_what_was_done_is_done_again(self) -> None:
        """Why the command is there."""
        self.pair.start()
        self.assertIn(b"pay the bill", self.far.program.payloads)
        self.assertEqual(self.far.program.rollbacks, [])

    def test_nothing_is_done_twice_lost_in_silence_or_stuck(self) -> None:
        peer = {node.uuid.bytes: node for node in (self.near, self.far)}
        for node, waited in ((self.near, Waiting(2, 50_012, 0)), (self.far, Waiting(1, 10, 0))):
            dropped = begin_anew(node.folder)
            self.assertEqual({peer[uuid]: one for uuid, one in dropped.items()}, {node.peer: waited})
        self.pair.start()
        for name, data in self.late:
            self.pair.give(self.far, name, data)
        for node in (self.near, self.far):
            # Whatever was under way is uncertain, and the layer above knows.
            self.assertEqual(node.program.payloads, [])
            self.assertEqual(node.program.rollbacks[0], [])
            self.assertEqual(node.rows("outbox"), 0)
        self.near.send(b"a new day")
        self.far.send(b"here as well")
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [b"a new day"])
        self.assertEqual(self.near.program.payloads, [b"here as well"])
        self.assertEqual(self.near.rows("outbox") + self.far.rows("outbox"), 0)

    def test_said_on_one_side_alone_the_other_learns_it(self) -> None:
        begin_anew(self.near.folder)
        self.pair.start()
        self.assertEqual(self.far.program.payloads, [])
        self.assertTrue(self.far.program.rollbacks)
        self.near.send(b"a new day")
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [b"a new day"])

    def test_said_again_it_changes_nothing_more(self) -> None:
        for node in (self.near, self.far):
            begin_anew(node.folder)
            again = begin_anew(node.folder)
            self.assertEqual(list(again.values()), [Waiting(0, 0, 0)])
        self.pair.start()
        self.near.send(b"a new day")
        self.pair.advance(60)
        self.assertEqual(self.far.program.payloads, [b"a new day"])


class RestoredCommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def run_in(self, *arguments: object) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return code, out.getvalue(), err.getvalue()

    def test_it_says_what_it_did(self) -> None:
        pair = Pair(self)
        pair.start()
        pair.deliver = lost
        pair.near.send(b"x" * 3000)
        pair.near.crash()
        self.assertEqual(self.run_in("init", self.folder / "node", "--folder", "/srv/exchange")[0], 0)
        shutil.copytree(pair.near.folder, self.folder / "node", dirs_exist_ok=True)
        code, out, err = self.run_in("restored", self.folder / "node")
        self.assertEqual((code, err), (0, ""))
        far = UUID(bytes=pair.far.uuid.bytes)
        self.assertIn(
            f"  {far}: dropped are 1 record (2.9 KiB) that waited to be sent, and 0 received\n",
            out,
        )
        self.assertEqual(holdings(self.folder / "node").peers[far.bytes].records, 0)
        _, out, _ = self.run_in("restored", self.folder / "node")
        self.assertIn(f"  {far}: nothing was under way\n", out)

    def test_it_needs_a_node_that_is_there_and_does_not_run(self) -> None:
        code, out, err = self.run_in("restored", self.folder)
        self.assertEqual((code, out), (2, ""))
        self.assertEqual(len(list(self.folder.iterdir())), 0)
        pair = Pair(self)
        pair.start()
        self.assertEqual(self.run_in("init", self.folder / "node", "--folder", "/srv/exchange")[0], 0)
        state = pair.near.folder.absolute()
        (state / "hoft.toml").write_text('name = "near"\n')
        code, out, err = self.run_in("restored", state)
        self.assertEqual((code, out, err.count("\n")), (2, "", 1))
        self.assertIn("a node runs on ", err)
        self.assertIn("stop it first ('kill ", err)
