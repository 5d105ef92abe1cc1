"""The journal: on the disk before anybody hears of it, causes before effects, one pen."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from ledger.canonical import UINT_MAX
from ledger.chain import LAMPORT_STEP_MAX
from ledger.errors import StoreError
from ledger.record import (
    Ack,
    Kind,
    Record,
    Rejection,
    SignedRecord,
    Verified,
)
from ledger.store import Store
from node import intake as intake_module
from node.compute import ThreadCompute
from node.intake import OwnLogAheadError
from node.journal import ACKS_ALL, Ingested, Journal
from swarm.protocol.messages import RECORDS_BYTES_MAX
from swarm.protocol.sync import gaps
from tests.federation import Federation, ack_of, digest_of, input_of


@contextmanager
def opened(path: Path, federation: Federation, own: int = 0) -> Iterator[Journal]:
    with Store.open(path) as store:
        journal = Journal(
            store=store,
            roster=federation.roster,
            own=own,
            signer=federation[own].signer,
            disk=ThreadCompute(),
            time_ms=lambda: 1_000,
        )
        for _ in journal.replay():
            pass
        yield journal


async def ingest(journal: Journal, *records: Verified[Record]) -> Ingested:
    return await journal.ingest([record.signed.envelope() for record in records])


def codes(result: Ingested) -> list[str]:
    return [refusal.code for refusal in result.refused]


def rejection(number: int) -> Rejection:
    return Rejection(target_id=digest_of(number), reason=1)


async def test_a_record_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    federation = Federation(4)
    with opened(tmp_path / "a.db", federation) as journal:
        record = await journal.append(Kind.OPEN, 0, federation[0].open_body())
        with Store.open(tmp_path / "a.db", read_only=True) as reader:
            assert reader.get(record.id) == record.signed


async def test_a_cancelled_writer_still_finishes_its_record_and_the_next_continues_it(
    tmp_path: Path,
) -> None:
    federation = Federation(4)
    with opened(tmp_path / "a.db", federation) as journal:
        body = federation[0].open_body()
        with trio.CancelScope() as scope:
            scope.cancel()
            await journal.append(Kind.OPEN, 0, body)
        assert journal.counts() == {(0, 0): 1}
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(journal.append, Kind.REJECTION, 1, rejection(number))
        assert journal.counts() == {(0, 0): 11}


async def test_a_restart_continues_the_log_and_its_acknowledgements(tmp_path: Path) -> None:
    federation = Federation(4)
    opening = federation[1].open()
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, opening)
        first = await journal.append(Kind.REJECTION, 1, rejection(1), acks_max=ACKS_ALL)
        assert first.value.acks == (ack_of(opening),)
    with opened(tmp_path / "a.db", federation) as journal:
        second = await journal.append(Kind.REJECTION, 1, rejection(2), acks_max=ACKS_ALL)
        assert second.value.acks == (), "acknowledged already"
        assert (second.value.seq, second.value.prev) == (2, first.id)


async def test_where_few_logs_are_acknowledged_at_a_time_all_have_their_turn(
    tmp_path: Path,
) -> None:
    """Those that waited longest first, from the next member on; a restart goes on where it stopped."""
    federation = Federation(6)
    openings = federation.open_all()
    turns: list[list[int]] = []
    for _ in range(2):
        with opened(tmp_path / "a.db", federation, own=2) as journal:
            if not turns:
                await journal.append(Kind.OPEN, 0, federation[2].open_body())
                await ingest(journal, *(one for one in openings if one.value.author != 2))
            for _ in range(2):
                round_ = len(turns) + 1
                mine = await journal.append(Kind.REJECTION, round_, rejection(round_), acks_max=2)
                turns.append([ack.author for ack in mine.value.acks])
                others = [federation[at].contribute(round_) for at in (0, 1, 3, 4, 5)]
                await ingest(journal, *others)
    assert turns == [[3, 4], [0, 5], [1, 3], [4, 5]], "each log once before any log twice"


async def test_causes_come_before_effects_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    federation = Federation(4)
    cause = federation[1].open()
    effect_open = federation[2].open()
    effect = federation[2].contribute(1, acks=[ack_of(cause)])
    with opened(tmp_path / "a.db", federation) as journal:
        early = await ingest(journal, effect_open, effect)
        assert [record.id for record in early.stored] == [effect_open.id]
        assert early.gap
        late = await ingest(journal, cause)
        assert [record.id for record in late.stored] == [cause.id, effect.id]
        assert not late.gap


async def test_a_merge_waits_for_the_contributions_that_it_names(tmp_path: Path) -> None:
    """An exported ledger must not hold a result without its inputs, or an auditor refutes its author."""
    federation = Federation(4)
    opens = federation.open_all()
    offers = [federation[index].contribute(1) for index in (1, 2)]
    vote = federation[1].vote(1, offers)
    with opened(tmp_path / "a.db", federation, own=3) as journal:
        await ingest(journal, *opens[:3], offers[0])
        assert (await ingest(journal, vote)).stored == ()
        assert [r.id for r in (await ingest(journal, offers[1])).stored] == [offers[1].id, vote.id]


async def test_our_own_merge_comes_after_its_inputs_on_everybodys_clock(tmp_path: Path) -> None:
    federation = Federation(4)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, federation[1].open(lamport=1_000))
        record = await journal.append(Kind.REJECTION, 1, rejection(1))
        assert record.value.lamport == 1_001


@pytest.mark.parametrize("seq", [0, 1, 2])
async def test_a_record_acknowledging_a_false_id_waits_and_blocks_only_its_author(
    tmp_path: Path, seq: int
) -> None:
    """It may be honest and have seen another branch; a fabricated id never turns up."""
    federation = Federation(4)
    federation[1].open()
    federation[1].contribute(1)
    federation[1].contribute(2)
    liar_open = federation[2].open()
    lies = [
        federation[2].write(
            Kind.REJECTION, 1, rejection(9), acks=[Ack(1, 0, seq, lie)], checked=False
        )
        for lie in (digest_of("nothing"), federation[1].records[(seq + 1) % 3].id)
    ]
    with opened(tmp_path / "a.db", federation) as journal:
        await ingest(journal, *federation[1].records, liar_open)
        result = await ingest(journal, lies[0])
        assert (codes(result), result.stored, result.ask) == ([], (), {2})
        result = await ingest(journal, federation[3].open())
        assert (len(result.stored), result.ask) == (1, frozenset()), "the liar is asked once"
        result = await ingest(journal, lies[1])
        assert [fork.author for fork in result.forks] == [2], "the lies themselves are a fork"
        assert journal.counts() == {(1, 0): 3, (2, 0): 1, (3, 0): 1}


def forked(federation: Federation, author: int, record: Verified[Record]) -> Verified[Record]:
    """A second record of one author for a slot that is taken."""
    pen = federation[author]
    head = pen.head
    assert head is not None
    earlier = pen.records[record.value.seq - 1] if record.value.seq else None
    pen.head = type(head)(
        author, 0, record.value.seq, earlier.id if earlier else bytes(32), 1, 1_000, 0, 0
    )
    twin = pen.write(Kind.REJECTION, 1, rejection(77), checked=False)
    pen.head = head
    return twin


async def test_a_second_record_for_a_slot_is_refused_and_the_first_stays(tmp_path: Path) -> None:
    federation = Federation(4)
    federation[1].open()
    first = federation[1].contribute(1)
    twin = forked(federation, 1, first)
    with opened(tmp_path / "a.db", federation) as journal:
        await ingest(journal, *federation[1].records)
        assert codes(await ingest(journal, twin)) == ["E_FORK"]
        assert journal.heads()[1, 0].prev_id == first.id


async def test_a_merge_of_a_contribution_that_nobody_made_waits_for_ever(tmp_path: Path) -> None:
    federation = Federation(4)
    opens = federation.open_all()
    offer = federation[1].contribute(1)
    forged = input_of(offer)
    forged = type(forged)(author=1, epoch=0, seq=1, id=digest_of("x"), weight_micro=0)
    vote = federation[2].vote(1, [forged])
    with opened(tmp_path / "a.db", federation) as journal:
        result = await ingest(journal, *opens[1:], offer, vote)
        assert (vote.id in {one.id for one in result.stored}, result.ask) == (False, {2})


async def test_our_own_log_ahead_of_this_directory_stops_with_one_line(tmp_path: Path) -> None:
    federation = Federation(4)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await journal.append(Kind.REJECTION, 1, rejection(1))
        late = await journal.append(Kind.REJECTION, 1, rejection(2))
    with opened(tmp_path / "restored.db", federation) as journal:
        with pytest.raises(OwnLogAheadError, match="restored backup") as raised:
            await ingest(journal, late)
        assert len(str(raised.value).splitlines()) == 1
        assert journal.counts() == {}


async def test_a_second_copy_of_this_site_that_signs_too_stops_it(tmp_path: Path) -> None:
    federation = Federation(4)
    body = federation[0].open_body()
    with opened(tmp_path / "copy.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, body)
        twin = await journal.append(Kind.REJECTION, 1, rejection(1))
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, body)
        await journal.append(Kind.REJECTION, 1, rejection(2))
        with pytest.raises(OwnLogAheadError):
            await ingest(journal, twin)


async def test_what_is_heard_again_costs_no_second_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation(4)
    stored = federation[1].open()
    federation[2].open()
    waiting = federation[2].contribute(1)
    real, opened_ids = intake_module.open_record, []

    def counting(signed: SignedRecord, **keywords: object) -> Verified[Record]:
        opened_ids.append(signed.id)
        return real(signed, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(intake_module, "open_record", counting)
    with opened(tmp_path / "a.db", federation) as journal:
        for _ in range(5):
            await ingest(journal, stored, waiting)
    assert sorted(opened_ids) == sorted([stored.id, waiting.id])


async def test_a_bad_signature_does_not_keep_the_good_record_out(tmp_path: Path) -> None:
    federation = Federation(4)
    record = federation[1].open()
    spoiled = SignedRecord(record.signed.record_bytes, bytes(64)).envelope()
    with opened(tmp_path / "a.db", federation) as journal:
        assert codes(await journal.ingest([spoiled, b"junk"])) == ["E_SIGNATURE", "E_ENVELOPE"]
        assert len((await ingest(journal, record)).stored) == 1


async def test_a_dangling_record_asks_for_a_comparison_once_and_not_for_ever(
    tmp_path: Path,
) -> None:
    federation = Federation(4)
    federation[1].open()
    federation[1].contribute(1)
    dangling = federation[1].contribute(2)
    other = federation[2].open()
    with opened(tmp_path / "a.db", federation) as journal:
        assert (await ingest(journal, dangling)).gap
        assert not (await ingest(journal, dangling)).gap
        assert not (await ingest(journal, other)).gap
        assert not (await journal.ingest([])).gap


async def test_one_authors_flood_of_dangling_records_crowds_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "PENDING_MAX", 40)
    federation = Federation(4)
    honest_open = federation[1].open()
    honest = federation[1].contribute(1)
    federation[2].open()
    flood = [federation[2].contribute(round_) for round_ in range(1, 200)]
    with opened(tmp_path / "a.db", federation) as journal:
        await ingest(journal, honest)
        await ingest(journal, *flood)
        assert len(journal.intake._pending) == 11
        assert len((await ingest(journal, honest_open)).stored) == 2


async def test_a_liar_whose_clock_runs_away_stops_nobody(tmp_path: Path) -> None:
    """Lamport times may grow by 2^32 a record; an honest log follows step by step and goes on."""
    federation = Federation(4)
    liar = [federation[1].open(lamport=LAMPORT_STEP_MAX)]
    liar += [
        federation[1].write(Kind.REJECTION, 0, rejection(step), lamport=step * LAMPORT_STEP_MAX)
        for step in range(2, 5)
    ]
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        await ingest(journal, *liar)
        acked: Sequence[Ack] = ()
        for round_ in range(1, 6):
            record = await journal.append(
                Kind.REJECTION, round_, rejection(round_), acks_max=ACKS_ALL
            )
            acked = acked or record.value.acks
        assert acked == (ack_of(liar[-1]),), "acknowledged once it can be reached"


async def test_a_liar_at_the_end_of_the_numbers_is_not_followed(tmp_path: Path) -> None:
    federation = Federation(4)
    with opened(tmp_path / "a.db", federation) as journal:
        await journal.append(Kind.OPEN, 0, federation[0].open_body())
        opening = federation[1].open()
        await ingest(journal, opening)
        head = journal.heads()[1, 0]
        journal._heads[1, 0] = type(head)(1, 0, 1, head.prev_id, UINT_MAX, 1_000, 0, 0)
        mine = journal._heads[0, 0]
        near = (1 << 52) - 2
        journal._heads[0, 0] = type(mine)(0, 0, 1, mine.prev_id, near, 1_000, 0, 0)
        record = journal._due_acks(near, ACKS_ALL)
        assert record == ()


async def test_a_comparison_answers_in_bytes_that_fit_and_completes_over_several(
    tmp_path: Path,
) -> None:
    federation = Federation(4)
    federation.open_all()
    for round_ in range(1, 1_700):
        for index in (1, 2):
            body = federation[index].write(Kind.REJECTION, round_, rejection(round_))
            assert body.value.round == round_
    with (
        opened(tmp_path / "full.db", federation, own=3) as full,
        opened(tmp_path / "new.db", federation, own=0) as new,
    ):
        logs = [author.records for author in federation.authors[1:3]]
        for log in logs:
            for at in range(0, len(log), 500):
                await ingest(full, *log[at : at + 500])
        requests = 0
        while gaps(have=full.counts(), lacks=new.counts()):
            envelopes = await full.envelopes(new.counts())
            assert sum(map(len, envelopes)) <= RECORDS_BYTES_MAX
            result = await new.ingest(envelopes)
            assert len(result.stored) == len(envelopes), "whatever fits is of use at once"
            requests += 1
        assert requests >= 2
        assert new.counts() == full.counts()


async def test_a_full_disk_is_a_store_error_and_nothing_half_is_kept(tmp_path: Path) -> None:
    federation = Federation(4)
    with Store.open(tmp_path / "a.db") as store:
        journal = Journal(
            store=store,
            roster=federation.roster,
            own=0,
            signer=federation[0].signer,
            disk=ThreadCompute(),
            time_ms=lambda: 1_000,
        )
        body = federation[0].open_body()
        await journal.append(Kind.OPEN, 0, body)
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="full"):
            await fill(journal)
        written = journal.counts()[0, 0]
    with Store.open(tmp_path / "a.db", read_only=True) as reader:
        assert reader.heads()[0, 0].next_seq == written


async def fill(journal: Journal) -> None:
    for number in range(200):
        await journal.append(Kind.REJECTION, 1, rejection(number))
