"""Forks as one node meets them: any order of delivery, restarts, false accusations, its own log."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ledger.bundle import export_bundle
from ledger.fork import fork_proof
from ledger.record import ForkProof, Kind, Record, Verified, sign_record
from ledger.store import Store
from node.forks import Forks, OwnLogForkedError
from node.journal import ACKS_ALL, Journal
from swarm.protocol.messages import Head
from tests.federation import Author, Federation, ack_of
from tests.node.test_journal import codes, ingest, opened, rejection

LIAR = 1
UNKNOWN = 40_000
"""A kind that only a newer program knows."""
Log = Sequence[Verified[Record]]


def branched(federation: Federation, common: int, *lengths: int) -> list[list[Verified[Record]]]:
    """Whole logs of the liar that share their first records and then go their own ways."""
    pen = federation[LIAR]
    pen.open()
    for number in range(1, common):
        pen.write(Kind.REJECTION, 1, rejection(number))
    shared, head = list(pen.records), pen.head
    logs = []
    for branch, length in enumerate(lengths):
        pen.records, pen.head = list(shared), head
        for number in range(length):
            pen.write(Kind.REJECTION, 1, rejection(1_000 * (branch + 1) + number))
        logs.append(pen.records)
    return logs


def proof_of(one: Verified[Record], other: Verified[Record]) -> ForkProof:
    return fork_proof(one.signed, other.signed)


async def deliver(journal: Journal, records: Sequence[Verified[Record]]) -> None:
    for record in records:
        await ingest(journal, record)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_any_order_of_delivery_freezes_the_same_logs_at_the_same_slot(
    seed: int, common: int, one: int, other: int
) -> None:
    federation = Federation(4)
    logs = branched(federation, common, one, other)
    records = {record.id: record for log in logs for record in log}
    order = sorted(records.values(), key=lambda record: record.id)
    Random(seed).shuffle(order)
    with TemporaryDirectory() as directory, opened(Path(directory) / "a.db", federation) as journal:
        trio.run(deliver, journal, order)
        assert dict(journal.forks.slots) == {(LIAR, 0): common}
        assert journal.counts().get((LIAR, 0), 0) >= common, "what lies below the fork is stored"


async def test_the_slot_falls_with_what_is_learned_and_the_proof_stays_one(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second, third = branched(federation, 1, 4, 4, 4)
    with opened(tmp_path / "a.db", federation) as journal:
        await ingest(journal, *first)
        for seq in (4, 3, 2, 1):
            result = await ingest(journal, second[seq])
            assert [(fork.author, fork.seq) for fork in result.forks] == [(LIAR, seq)]
            assert codes(result) == ["E_FORK"]
        assert (await ingest(journal, third[3])).forks == ()
        assert len(journal.forks.unrecorded()) == 1
        assert journal.heads()[LIAR, 0].prev_id == first[-1].id, "what is stored stays"
    with opened(tmp_path / "a.db", federation) as journal:
        assert dict(journal.forks.slots) == {(LIAR, 0): 1}
        (body,) = journal.forks.unrecorded()
        assert body == proof_of(first[1], second[1])


async def test_a_lower_slot_is_remembered_and_not_recorded_again(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second = branched(federation, 1, 4, 4)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, *first, second[3])
        (body,) = journal.forks.unrecorded()
        await journal.append(Kind.FORK_PROOF, 1, body)
        await ingest(journal, second[2])
        assert journal.forks.unrecorded() == ()
    with opened(tmp_path / "a.db", federation) as journal:
        assert dict(journal.forks.slots) == {(LIAR, 0): 2}
        assert journal.forks.unrecorded() == ()


async def test_what_froze_a_log_is_remembered_and_recorded_once(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second = branched(federation, 2, 2, 2)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, *first, second[2])
    with opened(tmp_path / "a.db", federation) as journal:
        assert dict(journal.forks.slots) == {(LIAR, 0): 2}
        (body,) = journal.forks.unrecorded()
        await journal.append(Kind.FORK_PROOF, 1, body)
        assert journal.forks.unrecorded() == ()
    with opened(tmp_path / "a.db", federation) as journal:
        assert journal.forks.unrecorded() == ()
        await ingest(journal, second[3])
        assert journal.forks.unrecorded() == ()


async def test_somebody_elses_proof_is_enough_also_while_its_record_waits(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second = branched(federation, 1, 2, 2)
    federation[2].open()
    federation[2].contribute(1, acks=[ack_of(second[2])])
    federation[2].write(Kind.FORK_PROOF, 1, proof_of(first[1], second[1]))
    opening, acking, proving = federation[2].records
    with opened(tmp_path / "a.db", federation) as journal:
        await ingest(journal, *first, opening)
        waits = await ingest(journal, acking)
        assert (waits.stored, waits.ask, waits.gap) == ((), {2}, True)
        freed = await ingest(journal, proving)
        assert [record.id for record in freed.stored] == [acking.id, proving.id]
        assert journal.forks.unrecorded() == ()


async def test_an_ack_of_another_branch_is_let_in_once_the_fork_is_found(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second = branched(federation, 1, 3, 1)
    federation[2].open()
    acking = federation[2].contribute(1, acks=[ack_of(second[1])])
    with opened(tmp_path / "a.db", federation) as journal:
        await ingest(journal, *first, *federation[2].records)
        assert (2, 0) in journal.counts()
        assert journal.counts()[2, 0] == 1
        theirs = {(LIAR, 0): Head(2, second[1].id)}
        assert await journal.differing(theirs) == {(LIAR, 0): Head(2, first[1].id)}
        result = await ingest(journal, second[1])
        assert [record.id for record in result.stored] == [acking.id]
        assert await journal.differing(theirs) == {}


async def test_a_frozen_log_is_not_acknowledged_and_not_stored_any_further(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second = branched(federation, 2, 3, 1)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, *first[:3], federation[2].open())
        await ingest(journal, second[2])
        record = await journal.append(Kind.REJECTION, 1, rejection(5), acks_max=ACKS_ALL)
        assert [ack.author for ack in record.value.acks] == [2]
        assert codes(await ingest(journal, first[3])) == ["E_FORK"]
        assert journal.counts()[LIAR, 0] == 3


async def test_a_false_accusation_blames_nobody(tmp_path: Path) -> None:
    federation = Federation(4)
    (first,) = branched(federation, 2, 1)
    stranger = Author(federation.roster, LIAR, seed=99)  # knows the number, not the key
    forged = stranger.open()
    federation[2].open()
    head = federation[2].head
    for body in (
        proof_of(first[0], first[0]),
        proof_of(first[0], first[1]),
        proof_of(first[0], forged),
        ForkProof(envelope_a=b"", envelope_b=b"no envelope"),
    ):
        federation[2].head = head
        lie = federation[2].write(Kind.FORK_PROOF, 1, body)
        with opened(tmp_path / f"{lie.id.hex()}.db", federation) as journal:
            result = await ingest(journal, *first, federation[2].records[0], lie)
            assert (codes(result), result.forks) == (["E_FORK_PROOF"], ())
            assert dict(journal.forks.slots) == {}
            assert journal.counts() == {(LIAR, 0): 3, (2, 0): 1}


async def test_a_proof_against_our_own_log_stops_us_now_and_after_a_restart(
    tmp_path: Path,
) -> None:
    federation = Federation(4)
    body = federation[0].open_body()
    with opened(tmp_path / "copy.db", federation) as copy:
        await copy.append(Kind.OPEN, 0, body)
        one = await copy.append(Kind.REJECTION, 1, rejection(1))
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, body)
        other = await journal.append(Kind.REJECTION, 1, rejection(2))
        federation[2].open()
        accusing = federation[2].write(Kind.FORK_PROOF, 1, proof_of(one, other))
        with pytest.raises(OwnLogForkedError, match="key rotation") as raised:
            await ingest(journal, accusing)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(OwnLogForkedError), opened(tmp_path / "a.db", federation):
        pass


async def test_a_reply_begins_with_the_proof_and_ends_before_the_fork(tmp_path: Path) -> None:
    federation = Federation(4)
    first, second = branched(federation, 2, 2, 1)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, *first, second[2])
        (body,) = journal.forks.unrecorded()
        proof = await journal.append(Kind.FORK_PROOF, 1, body)
        sent = await journal.envelopes({})
        assert sent[0] == proof.signed.envelope()
        wanted = {record.signed.envelope() for record in first[:2]}
        assert wanted < set(sent)
        assert not {record.signed.envelope() for record in first[2:]} & set(sent)
        assert proof.signed.envelope() not in await journal.envelopes({(0, 0): 2})


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_an_export_holds_no_contested_record_without_the_proof(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Found, but not yet recorded: what rests on it waits for a later export."""
    federation = Federation(4)
    first, second = branched(federation, 1, 2, 2)
    federation[2].open()
    federation[2].contribute(1, acks=[ack_of(second[2])])
    parts = [first, second, federation[2].records]
    with Store.open(tmp_path / "a.db") as store:
        journal = Journal(
            store=store, roster=federation.roster, own=0, signer=federation[0].signer,
            disk=_Now(), time_ms=lambda: 1_000,
        )  # fmt: skip
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        for part in order:
            await ingest(journal, *parts[part])
        charter = federation.charter.source_bytes
        before = export_bundle(store, charter, tmp_path / "before")
        for body in journal.forks.unrecorded():
            await journal.append(Kind.FORK_PROOF, 1, body)
        after = export_bundle(store, charter, tmp_path / "after")
    held_before = (before / "logs" / "0002-0000.log").stat().st_size
    held_after = (after / "logs" / "0002-0000.log").stat().st_size
    # Who holds the branch that was acked has nothing to excuse.
    assert (held_before < held_after) == (journal.heads()[LIAR, 0].prev_id != second[2].id)


def test_forks_are_read_while_the_disks_thread_finds_more(tmp_path: Path) -> None:
    federation = Federation(4)
    accusations = []
    for liar in (federation[1], federation[2]):
        first = liar.open()
        liar.head = None
        accusations.append(proof_of(first, liar.open(lamport=9)))
    federation[3].open()
    proofs = [federation[3].write(Kind.FORK_PROOF, 1, body) for body in accusations]
    with Store.open(tmp_path / "a.db") as store:
        forks = Forks(store, federation.roster, (0, 0))
        forks.stored(proofs[0])
        slots, places = iter(forks.slots.items()), forks.places({})
        assert next(slots) == ((1, 0), 0)
        assert next(places) == ((3, 0), 1)
        forks.stored(proofs[1])
        assert [*slots, *places] == []
        assert dict(forks.slots) == {(1, 0): 0, (2, 0): 0}
        assert list(forks.places({})) == [((3, 0), 1), ((3, 0), 2)]


class _Now:
    async def run(self, function, *args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
        return function(*args)


async def test_a_fork_of_two_proofs_fits_in_no_record_and_stops_nobody(tmp_path: Path) -> None:
    """The liar signs two FORK_PROOFs of its own log for one slot: together they are too long to publish."""
    federation = Federation(4)
    pen = federation[LIAR]
    pen.open()
    big = [
        sign_record(replace(pen.write(UNKNOWN, 1, bytes([n]) * 32_000, checked=False).value, seq=5),
                    pen.signer)
        for n in (1, 2)
    ]  # fmt: skip
    inner = proof_of(*big)
    twins = [
        sign_record(
            replace(pen.write(Kind.FORK_PROOF, 1, inner, checked=False).value, time_ms=at),
            pen.signer,
        )
        for at in (2_000, 3_000)
    ]
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, pen.records[0], *twins)
        assert dict(journal.forks.slots) == {(LIAR, 0): 1}
        assert journal.forks.unrecorded() == (inner,), "what fits is published"
        await journal.append(Kind.FORK_PROOF, 1, inner)
        assert journal.forks.unrecorded() == ()


async def test_the_own_records_of_a_round_are_counted_also_after_a_restart(tmp_path: Path) -> None:
    federation = Federation(4)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        for number in range(3):
            await journal.append(Kind.REJECTION, 1, rejection(number))
        assert journal.round_records == 3
        await journal.append(Kind.REJECTION, 2, rejection(9))
        assert journal.round_records == 1
    with opened(tmp_path / "a.db", federation) as journal:
        assert journal.round_records == 1
