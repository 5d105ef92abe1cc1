"""Whole nodes in one simulated swarm: late updates, withheld payloads, required members, newer peers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from ledger.bundle import export_bundle
from ledger.canonical import encode
from ledger.charter import Charter
from ledger.errors import ConfigError
from ledger.record import Kind, Rule, open_record
from ledger.roster import Roster
from ledger.store import Store
from ledger.verify import verify_bundles
from node.compute import Compute, InlineCompute
from node.network_memory import MemoryHub
from node.service import Service
from scenarios.simulation.swarm import TRAIN_S, VIRTUAL_S_MAX, Calm, Faults, SimulatedSite, Swarm
from swarm.protocol.phases import Phase
from tests.federation import Author
from tests.simulated import swarm_of

SEED = 23
SLOW = LIAR = 3
SHORT = {"deadline_min_s": 1.0, "deadline_max_s": 4.0, "grace_s": 1.0}
EXTENSION_KIND = 40_000


class Uneven:
    """A calm world in which members train at a pace of their own, and may be tampered with."""

    def __init__(
        self,
        calm: Calm,
        train_s: Mapping[int, float],
        tamper: Callable[[int, Service], None],
    ) -> None:
        self._calm = calm
        self._train_s = train_s
        self._tamper = tamper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._calm, name)

    def compute(self, index: int) -> Compute:
        return Trainer(self._train_s.get(index, TRAIN_S))

    def started(self, index: int, service: Service) -> None:
        self._tamper(index, service)


class Trainer:
    """Training takes its time; everything else what it takes in any simulation."""

    def __init__(self, train_s: float) -> None:
        self._train, self._other = InlineCompute(train_s), InlineCompute(TRAIN_S)

    async def run(self, function: Any, *arguments: Any) -> Any:
        is_training = getattr(function, "__name__", "") == "train"
        return await (self._train if is_training else self._other).run(function, *arguments)


def run(
    charter: Charter,
    sites: list[SimulatedSite],
    directory: Path,
    *,
    train_s: Mapping[int, float] | None = None,
    tamper: Callable[[int, Service], None] = lambda _index, _service: None,
    faults: Faults | None = None,
) -> tuple[Swarm, float]:
    """Run a swarm to its end; return it and how long that took in virtual seconds."""
    hub = MemoryHub(seed=SEED)
    around = Uneven(Calm(hub, directory), train_s or {}, tamper)
    swarm = Swarm(charter, sites, directory, hub, SEED, around)
    return swarm, swarm.run_to_end(faults, virtual_s_max=VIRTUAL_S_MAX)


def assert_every_bundle_verifies(directory: Path, charter: Charter, members: int) -> None:
    for index in range(members):
        with Store.open(directory / f"{index}.db", read_only=True) as store:
            bundle = export_bundle(store, charter.source_bytes, directory / f"bundle{index}")
        report = verify_bundles([bundle], charter.source_bytes, charter.digest_hex)
        assert report.verdict == "VERIFIED", report.to_text()


def inputs_of(swarm: Swarm, index: int = 0) -> dict[int, dict[int, int]]:
    """Agreed round → author → round of what was merged of it."""
    book = swarm.services[index].book
    found = {}
    for round_ in book.agreed_rounds():
        agreed = book.agreed(round_)
        assert agreed is not None
        offers = [book.offer(one.id) for one in agreed.proposal.inputs]
        found[round_] = {offer.author: offer.round for offer in offers if offer}
    return found


def test_a_late_update_is_merged_with_its_discount_and_every_auditor_agrees(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=6, **SHORT)
    swarm, _ = run(charter, sites, tmp_path, train_s={SLOW: 6.0})
    assert swarm.failures == []
    late = {r: by[SLOW] for r, by in inputs_of(swarm).items() if by.get(SLOW, r) < r}
    assert late, inputs_of(swarm)
    assert len({service.machine.model for service in swarm.services.values()}) == 1
    assert_every_bundle_verifies(tmp_path, charter, 4)


def test_a_member_that_never_serves_costs_the_others_less_than_one_deadline(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=4)

    def withhold(index: int, service: Service) -> None:
        if index == LIAR:
            service.transfer._part = lambda _request: None  # type: ignore[method-assign]

    swarm, taken_s = run(charter, sites, tmp_path, tamper=withhold)
    assert swarm.failures == []
    assert max(inputs_of(swarm)) == 4
    assert all(LIAR not in by for by in inputs_of(swarm).values())
    assert taken_s < charter.rounds.deadline_max_s, "all rounds together"


@pytest.mark.parametrize("at_s", [0.6, 1.1, 1.6])
def test_a_member_lost_in_round_zero_halts_nobody(tmp_path: Path, at_s: float) -> None:
    charter, sites = swarm_of(4, rounds=2, **SHORT)

    async def lose_one(swarm: Swarm) -> None:
        await trio.sleep(at_s)
        assert swarm.services[0].book.agreed(0) is None, "too late to test anything"
        await swarm.kill(1)

    swarm, _ = run(charter, sites, tmp_path, faults=lose_one)
    assert swarm.failures == []
    left = [swarm.services[index] for index in (0, 2, 3)]
    assert all(service.machine.phase is Phase.DONE for service in left)
    assert len({service.machine.moments() for service in left}) == 1
    assert len({service.machine.model for service in left}) == 1


def test_a_run_without_a_required_member_fails_and_says_whom_it_misses(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=3, required='["hospital-d"]', **SHORT)

    async def end_when_all_others_have(swarm: Swarm) -> None:
        for index in range(3):
            await swarm.ended[index].wait()
        await swarm.kill(SLOW)

    train_s = {SLOW: 10_000.0}
    swarm, _ = run(charter, sites, tmp_path, train_s=train_s, faults=end_when_all_others_have)
    assert len(swarm.failures) == 3, swarm.failures
    for failure in swarm.failures:
        assert "cannot close without hospital-d, whom the charter requires" in failure
    assert not any(isinstance(error, ConfigError) for error in swarm.errors.values()), "status 1"


def test_no_log_merges_a_contribution_twice_whoever_is_killed_and_when(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=5, **SHORT)

    async def kill_now_and_then(swarm: Swarm) -> None:
        for victim in (0, 3, 1):
            await trio.sleep(3.7)
            if not swarm.ended[victim].is_set():
                await swarm.kill(victim)
                await trio.sleep(1.3)
                swarm.start(victim)

    swarm, _ = run(charter, sites, tmp_path, train_s={SLOW: 5.0}, faults=kill_now_and_then)
    assert swarm.failures == []
    with Store.open(tmp_path / "0.db", read_only=True) as store:
        roster = Roster.from_charter(charter)
        values = [open_record(signed, roster=roster).value for signed in store.records()]
    for author in range(4):
        used = [
            (one.author, one.seq)
            for value in values
            if value.author == author and value.kind == Kind.AGGREGATION
            if value.body.rule == Rule.MEAN  # type: ignore[union-attr]
            for one in value.body.inputs  # type: ignore[union-attr]
        ]
        assert len(used) == len(set(used))
    assert_every_bundle_verifies(tmp_path, charter, 4)


def test_a_record_of_a_kind_that_only_newer_nodes_know_is_stored_acked_and_relayed(
    tmp_path: Path,
) -> None:
    """A rolling upgrade: member 3 runs a newer version; only member 0 is connected to it."""
    charter, sites = swarm_of(4, rounds=3)
    written = {}

    class Newer:
        async def on_gossip(self, _peer: int, _message: bytes) -> None:
            """Hear it."""

        async def on_request(self, _peer: int, _protocol: str, _body: bytes) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

    async def write(swarm: Swarm) -> None:
        pen = Author(Roster.from_charter(charter), LIAR, seed=1)
        network = swarm.hub.network(LIAR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.run, Newer())
            await trio.sleep(0.01)
            for other in (1, 2):
                swarm.hub.block(LIAR, other)
                swarm.hub.block(other, LIAR)
            extension = pen.write  # kinds of the extension range carry bytes that nobody reads
            records = [pen.open(), extension(EXTENSION_KIND, 0, b"from the future")]  # type: ignore[arg-type]
            for record in records:
                # A newer node's message may go on after what this version knows.
                await network.broadcast(encode([1, [record.signed.envelope()], b"and more"]))
            written["id"] = records[1].id
            for index in range(3):
                await swarm.ended[index].wait()
            nursery.cancel_scope.cancel()

    swarm, _ = run(charter, sites[:3], tmp_path, faults=write)
    assert swarm.failures == []
    for index in range(3):
        with Store.open(tmp_path / f"{index}.db", read_only=True) as store:
            assert store.get(written["id"]) is not None, f"hospital {index} lacks it"
            roster = Roster.from_charter(charter)
            values = [open_record(signed, roster=roster).value for signed in store.records()]
        acks = {(ack.author, ack.seq) for value in values for ack in value.acks}
        assert (LIAR, 1) in acks
    assert_every_bundle_verifies(tmp_path, charter, 3)
