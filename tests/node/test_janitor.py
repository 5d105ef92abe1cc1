"""Payloads of finished rounds go, through restarts and full quotas, and no round ever misses one."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from network_swarm import Log

from ledger.record import Aggregation, Contribution, Record, decode_record
from ledger.store import Store
from node.blobs import BlobStore
from node.janitor import Janitor
from scenarios.simulator import Outcome, Swarm, simulate
from swarm.protocol.payload import manifest_of
from swarm.protocol.retention import KEEP_ROUNDS, Keep
from tests.simulated import swarm_of

SEED = 11
ROUNDS = 5
MEMBERS = 4


def rounds_of(directory: Path, index: int) -> dict[str, int]:
    """Newest round in which the ledger names each payload."""
    named: dict[str, int] = {}
    with Store.open(directory / f"{index}.db", read_only=True) as store:
        for signed in store.records():
            record = Record.from_value(decode_record(signed.record_bytes))
            match record.body:
                case Contribution() as body:
                    digests = [body.update_digest, body.base_digest]
                case Aggregation() as body:
                    digests = [body.result_digest]
                case _:
                    continue
            for digest in digests:
                named[digest.hex()] = max(record.round, named.get(digest.hex(), 0))
    return named


def kept(directory: Path, index: int) -> dict[int, int]:
    """How many payloads of each round lie on a member's disk."""
    counts: dict[int, int] = {}
    named = rounds_of(directory, index)
    for path in (directory / f"{index}.blobs").iterdir():
        if path.stem in named:
            counts[named[path.stem]] = counts.get(named[path.stem], 0) + 1
    return counts


def assert_all_agreed(outcome: Outcome) -> None:
    assert outcome.failures == ()
    assert set(outcome.rounds_agreed) == {ROUNDS}
    assert len(set(outcome.results)) == 1


def test_payloads_of_finished_rounds_are_gone_and_newer_ones_are_there(tmp_path: Path) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=ROUNDS)
    assert_all_agreed(simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED))
    for index in range(MEMBERS):
        counts = kept(tmp_path, index)
        assert counts[ROUNDS] == MEMBERS + 2, "every update, their base, and the result"
        assert all(counts.get(r, 0) == MEMBERS + 1 for r in range(ROUNDS - KEEP_ROUNDS, ROUNDS))
        # Round zero's result is the moments, round one's base the initial model; nothing else of old rounds.
        old = {r: count for r, count in counts.items() if r < ROUNDS - KEEP_ROUNDS}
        assert old == {0: 1, 1: 1}


def test_members_that_die_and_come_back_miss_no_payload(tmp_path: Path) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=ROUNDS)

    async def faults(swarm: Swarm) -> None:
        await trio.sleep(1)
        for index in (1, 2, 3):
            while swarm.services[index].machine.round < index + 1:  # noqa: ASYNC110 - from outside
                await trio.sleep(0.1)
            await swarm.kill(index)
            await trio.sleep(3)
            swarm.start(index)

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    assert outcome.failures == ()
    assert len(set(outcome.results)) == 1
    for index in range(MEMBERS):
        assert set(kept(tmp_path, index)) <= {0, 1, *range(ROUNDS - KEEP_ROUNDS, ROUNDS + 1)}


def test_a_quota_with_room_for_the_kept_rounds_alone_is_enough(tmp_path: Path) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=ROUNDS)
    taken: list[tuple[int, int]] = []  # bytes, of how many that are allowed

    async def faults(swarm: Swarm) -> None:
        await trio.sleep(1)
        services = list(swarm.services.values())
        sizes = {size for _, size in services[0].transfer.blobs.stored().values()}
        model, moments = min(sizes), max(sizes)
        for service in services:
            # Round zero and two more, every member's payload and the result; and the initial model.
            bytes_max = (MEMBERS + 1) * (moments + KEEP_ROUNDS * model) + model
            service.transfer.blobs.bytes_max = bytes_max
        while any(service.machine.round < ROUNDS for service in services):
            await trio.sleep(0.1)
            blobs = [service.transfer.blobs for service in services]
            taken.extend((one.bytes_stored, one.bytes_max) for one in blobs)

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    assert_all_agreed(outcome)
    assert all(stored <= allowed for stored, allowed in taken)
    # It was tight: without a janitor it would not do.
    assert max(stored / allowed for stored, allowed in taken) > 0.9


def test_a_quota_that_is_too_small_stops_one_node_in_one_line_and_nobody_else(
    tmp_path: Path,
) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=3)

    async def faults(swarm: Swarm) -> None:
        await trio.sleep(1)
        while swarm.services[3].machine.round < 2:  # noqa: ASYNC110 - looks from outside
            await trio.sleep(0.05)
        blobs = swarm.services[3].transfer.blobs
        blobs.bytes_max = blobs.bytes_stored // 10

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    (failure,) = outcome.failures
    assert "storage.payload_bytes_max" in failure
    assert "\n" not in failure
    assert outcome.rounds_agreed[:3] == (3, 3, 3)


@pytest.mark.parametrize("index", [3])
def test_what_nobody_named_before_a_crash_is_removed_at_the_next_start(
    tmp_path: Path, index: int
) -> None:
    charter, sites = swarm_of(MEMBERS, rounds=1)
    directory = tmp_path / f"{index}.blobs"
    directory.mkdir()
    orphan = directory / f"{bytes(range(32)).hex()}.1"
    orphan.write_bytes(b"an update whose record was never written")
    part = directory / f"{bytes(range(1, 33)).hex()}.incoming"
    part.write_bytes(b"half")
    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED)
    assert outcome.failures == ()
    assert not orphan.exists()
    assert not part.exists()


async def test_a_fetch_that_begins_while_the_disk_is_tidied_keeps_its_part(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    old, coming = blobs.put(1, b"old"), manifest_of(1, b"coming in")
    blobs.begin(coming).close()

    waiting = [lambda: blobs.begin(coming).close()]

    class Disk:
        async def run(self, function: Callable[..., Any], *args: Any) -> Any:
            result = function(*args)
            while waiting:
                waiting.pop()()
            return result

    janitor = Janitor(
        world=SimpleNamespace(disk=Disk(), log=Log()), blobs=blobs, keep=Keep(rounds=1), own=0,
        machine=SimpleNamespace(release=lambda _: None), pinned=frozenset(), in_use=frozenset,
    )  # type: ignore[arg-type] # fmt: skip
    await janitor._remove([old], [coming.digest])
    assert blobs.stored() == {}
    assert blobs.incoming() == {coming.digest}
    assert blobs.resume(coming.digest) is not None
