"""What the rules of the log make of carriers: two engines in virtual time."""

from __future__ import annotations

from math import ceil
from statistics import mean, median

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from hoft.protocols.pacing import Limits
from hoft.protocols.sending import PROBE_FILES
from hoft.protocols.settings import Settings
from hoft.protocols.sizing import PacketSizes
from hoft.testing.channel import Faults
from hoft.testing.simulation import Simulation

MIB = 1 << 20


class EfficiencyTests(SynchronousTestCase):
    """Useful bytes by bytes written."""

    def test_cut_and_lost(self) -> None:
        """Hardly below what is possible, whatever part of the files is cut or lost."""
        for cut, lost in ((0.05, 0.0), (0.5, 0.0), (0.2, 0.05)):
            found = [
                Simulation(Faults(truncate=cut, lose=lost), seed=seed).transfer(192 * MIB) for seed in (1, 2)
            ]
            self.assertGreater(mean(found), 0.95 * (1 - lost) * (1 - cut / 2))

    def test_a_carrier_that_passes_a_mebibyte(self) -> None:
        """Nine tenths of what is written are of use, though nothing longer passes whole."""
        self.assertGreater(Simulation(Faults(ceiling=MIB)).transfer(256 * MIB), 0.9)

    def test_files_that_overtake_each_other(self) -> None:
        """Next to nothing is sent again for having been overtaken."""
        for delay, spread in ((0.05, 1.0), (1.0, 1.0)):
            simulation = Simulation(Faults(delay=delay, spread=spread))
            simulation.transfer(640 * MIB)
            sender = simulation.near.engine.sender
            self.assertLess(sender.path.spurious_bytes, 0.02 * simulation.far.counts.useful)


class SlowMirrorTests(SynchronousTestCase):
    """A carrier that takes half a second for each file."""

    def _delays(self, simulation: Simulation, seconds: float, rate: int = 100) -> list[float]:
        """Of so many records a second, from commit to arrival."""
        for number in range(int(seconds * rate)):
            simulation.run(1 / rate)
            simulation.near.send(1000, flow=number)
        return simulation.near.delays[3]

    def test_a_hundred_records_a_second(self) -> None:
        """They share files, and arrive within a second or two; without the pace it would be minutes."""
        delays = self._delays(Simulation(Faults(per_file=0.5)), 60)
        self.assertLess(median(delays), 3.0)
        self.assertLess(max(delays[-500:]), 3.0)

    def test_becomes_slow(self) -> None:
        """A carrier that was quick for a while is found out as well."""
        simulation = Simulation(Faults(delay=0.001))
        self._delays(simulation, 5)
        simulation.channel.faults = evolve(simulation.channel.faults, per_file=0.5)
        delays = self._delays(simulation, 120)
        self.assertLess(median(delays[-2000:]), 3.0)

    def test_becomes_quick(self) -> None:
        """And one that gets quicker is used."""
        simulation = Simulation(Faults(per_file=0.5))
        self._delays(simulation, 30)
        simulation.channel.faults = Faults(delay=0.001)
        delays = self._delays(simulation, 90)
        self.assertLess(median(delays[-1000:]), 0.3)

    def test_a_local_folder(self) -> None:
        """Nobody waits for anything."""
        delays = self._delays(Simulation(Faults(delay=0.0005)), 10)
        self.assertLess(max(delays), 0.05)


class OutageTests(SynchronousTestCase):
    """A carrier that loses everything for long."""

    def _day(self, simulation: Simulation, times: int) -> int:
        """How many files were written after a day in which 10,000 records were sent, few at a time."""
        near = simulation.near
        near.send(*[1000] * 100)
        simulation.drain()
        simulation.outage = True
        for _ in range(times):
            simulation.run(86_400 / times)
            near.send(*[1000] * (10_000 // times))
        self.assertLess(near.counts.files, 200)
        before = near.counts.files_with_records
        simulation.outage = False
        simulation.drain()
        self.assertEqual(simulation.far.counts.delivered, 10_100)
        return near.counts.files_with_records - before

    def test_what_waited(self) -> None:
        """It goes in hardly more files than it fills, and meanwhile few were written."""
        simulation = Simulation(Faults())
        least = 10_000 * 1014 / simulation.near.engine.sender.path.sizes.current
        self.assertLessEqual(self._day(simulation, 10_000), 1.5 * least)

    def test_what_waited_where_large_files_pass(self) -> None:
        """In as few as it fills, and one that found out that the carrier is back."""
        simulation = Simulation(Faults())
        sender = simulation.near.engine.sender
        sender.path.sizes = PacketSizes(current=4 * MIB)
        least = ceil(10_000 * 1014 / (4 * MIB))
        self.assertEqual(self._day(simulation, 100), least + 1)


class LimitTests(SynchronousTestCase):
    """What the user allows."""

    def test_in_transit(self) -> None:
        """Never more files or bytes on their way than allowed, but for a few that ask for an answer."""
        limits = Limits(files_in_transit=5, bytes_in_transit=2 * MIB)
        simulation = Simulation(Faults(delay=1.0), settings=Settings(limits=limits))
        sender = simulation.near.engine.sender
        simulation.near.send(*[60_000] * 500)
        while sender.records:
            simulation.clock.step()
            self.assertLessEqual(sender.files_in_transit(), 5 + PROBE_FILES + 1)
            self.assertLess(sender.bytes_in_transit(), 3 * MIB)

    def test_a_full_peer(self) -> None:
        """Probes, and nothing else, until there is room; then all of it."""
        simulation = Simulation(Faults())
        near, far = simulation.near, simulation.far
        far.engine.receiver.room(False, simulation.clock.seconds())
        far.full = True
        far.pump()
        simulation.run(1)
        near.send(*[1000] * 500)
        simulation.run(600)
        self.assertEqual(far.counts.delivered, 0)
        self.assertLess(near.counts.files_with_records, 60)
        far.full = False
        far.engine.receiver.room(True, simulation.clock.seconds())
        far.pump()
        self.assertLess(simulation.drain(), 30.0)
