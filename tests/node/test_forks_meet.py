"""Two nodes with different branches of one log: compared, cosigned, proposed to be cut."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from ledger.errors import ConfigError, PeerError
from ledger.fork_store import kept_by_default
from ledger.record import Kind
from ledger.store import Store
from swarm.protocol.messages import (
    Head,
    Hello,
    SyncReply,
    decode_sync_request,
    encode_sync_reply,
)
from tests.federation import Federation, ack_of
from tests.node.exchanging import Mute, nodes
from tests.node.test_journal import ingest
from tests.node.test_journal_forks import LIAR, branched, proof_of
from tests.node.test_witness import node, note_of


@pytest.mark.parametrize("lengths", [(1, 1), (5, 1), (1, 5), (4, 3)])
async def test_comparing_heads_alone_finds_a_fork_whoever_asks_and_whoever_has_more(
    tmp_path: Path, autojump_clock: MockClock, lengths: tuple[int, int]
) -> None:
    for asker in (0, 2):
        federation = Federation(4)
        logs = branched(federation, 2, *lengths)
        directory = tmp_path / str(asker)
        directory.mkdir()
        async with nodes(federation, directory, indices=(0, 2), syncing=False) as (_, made, _n):
            for index, log in zip((0, 2), logs, strict=True):
                await ingest(made[index].journal, *log)
            await made[asker].exchange.sync(2 - asker)
            (fork,) = made[asker].forks
            assert (fork.author, fork.epoch) == (LIAR, 0)
            assert fork.seq >= 2
            assert 2 - asker in made[asker].synced, "a frozen log is complete as it is"
            await made[2 - asker].exchange.sync(asker)
            assert (LIAR, 0) in made[2 - asker].journal.forks.slots


async def test_made_up_heads_of_honest_logs_cost_a_few_requests(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    federation[1].open()

    class Liar(Mute):
        asked = 0

        async def on_request(self, _peer: int, _protocol: str, body: bytes) -> bytes:
            self.asked += 1
            decode_sync_request(body)
            heads = {(1, 0): Head(1, self.asked.to_bytes(32, "big"))}
            hello = Hello(heads=heads, round=0, phase=0, time_ms=0)
            return encode_sync_reply(SyncReply(hello=hello, envelopes=()))

    async with nodes(federation, tmp_path, indices=(0,)) as (hub, made, nursery):
        await ingest(made[0].journal, *federation[1].records)
        liar = Liar()
        await nursery.start(hub.network(3).run, liar)
        await trio.sleep(60)
        assert liar.asked <= 120, "twice for each interval"
        assert dict(made[0].journal.forks.slots) == {}
        assert made[0].synced == set()


async def test_a_witness_cosigns_no_log_that_it_knows_to_fork(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second = branched(federation, 2, 2, 2)
    federation[LIAR].records = first
    with node(federation, tmp_path) as made:
        await made.hear(*first)
        assert await made.ask(note_of(federation, 3), LIAR)
        await made.hear(second[2])
        for ids in ([one.id for one in first], [one.id for one in second]):
            with pytest.raises(PeerError, match="frozen"):
                await made.ask(note_of(federation, 4, ids=ids, author=LIAR), LIAR)
        assert made.state().size == 3


def acking(federation: Federation, member: int, record: object) -> None:
    federation[member].open()
    federation[member].contribute(1, acks=[ack_of(record)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ackers", "others", "kept"),
    [((0, 2), (3,), 4), ((0,), (2,), 2), ((), (), 2), ((3,), (), 2)],
)
async def test_a_cut_of_a_forked_log_keeps_by_default_what_is_final_or_what_is_shared(
    tmp_path: Path, ackers: tuple[int, ...], others: tuple[int, ...], kept: int
) -> None:
    federation = Federation(4)
    first, second = branched(federation, 2, 3, 2)
    for member in ackers:
        acking(federation, member, first[3])
    for member in others:
        acking(federation, member, second[3])
    for member in range(4):
        if member not in (*ackers, *others, LIAR):
            federation[member].open()
    accuser = next(m for m in (0, 2, 3) if federation[m].records)
    federation[accuser].write(Kind.FORK_PROOF, 1, proof_of(first[2], second[2]))
    with Store.open(tmp_path / "b.db") as store:
        honest = [one for index in (0, 2, 3) for one in federation[index].records]
        records = sorted([*first, *honest], key=lambda one: one.value.lamport)
        store.append(records)
        assert kept_by_default(store, federation.roster, (LIAR, 0)) == kept
        assert kept_by_default(store, federation.roster, (0, 0)) == len(federation[0].records)


async def test_whoever_may_hold_the_wrong_branch_does_not_propose_by_default(
    tmp_path: Path,
) -> None:
    federation = Federation(4)
    first, second = branched(federation, 2, 3, 2)
    for member in (0, 2):
        acking(federation, member, second[3])
    federation[0].write(Kind.FORK_PROOF, 1, proof_of(first[2], second[2]))
    with Store.open(tmp_path / "b.db") as store:
        records = [*first, *federation[0].records, *federation[2].records]
        store.append(sorted(records, key=lambda one: one.value.lamport))
        with pytest.raises(ConfigError, match="does not hold"):
            kept_by_default(store, federation.roster, (LIAR, 0))
