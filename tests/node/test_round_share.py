"""A log may hold so much of one round and no more: nobody fills the others' disks with records."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ledger.record import Kind, Record, Rejection, Verified
from ledger.store import Store
from node.compute import ThreadCompute
from node.journal import Ingested, Journal
from node.round_share import (
    ROUND_BYTES,
    ROUND_BYTES_MEMBER,
    ROUND_RECORDS,
    ROUND_RECORDS_MEMBER,
)
from tests.federation import Author, Federation, digest_of

MEMBERS: Final = 4
RECORDS_MAX: Final = ROUND_RECORDS + ROUND_RECORDS_MEMBER * MEMBERS
BYTES_MAX: Final = ROUND_BYTES + ROUND_BYTES_MEMBER * MEMBERS
LARGE_BYTES: Final = 32_000
FLOODER: Final = 3


@contextmanager
def journal_of(path: Path, federation: Federation) -> Iterator[Journal]:
    with Store.open(path) as store:
        journal = Journal(
            store=store, roster=federation.roster, own=0, signer=federation[0].signer,
            disk=ThreadCompute(), time_ms=lambda: 1_000, rounds=2,
        )  # fmt: skip
        for _ in journal.replay():
            pass
        yield journal


async def ingest(journal: Journal, *records: Verified[Record]) -> Ingested:
    return await journal.ingest([record.signed.envelope() for record in records])


def flood(author: Author, round_: int, count: int) -> list[Verified[Record]]:
    return [
        author.write(Kind.REJECTION, round_, Rejection(target_id=digest_of(number), reason=1))
        for number in range(count)
    ]


def codes(result: Ingested) -> list[str]:
    return [refusal.code for refusal in result.refused]


async def test_a_log_ends_where_its_round_is_full_on_every_disk_also_after_a_restart(
    tmp_path: Path,
) -> None:
    federation = Federation(MEMBERS)
    liar, honest = federation[FLOODER], federation[1]
    records = [liar.open(), *flood(liar, 0, RECORDS_MAX)]
    with journal_of(tmp_path / "a.db", federation) as journal:
        result = await ingest(journal, *records)
        assert codes(result) == ["E_FLOOD"]
        assert journal.counts() == {(FLOODER, 0): RECORDS_MAX}
        assert codes(await ingest(journal, honest.open())) == []
    with journal_of(tmp_path / "a.db", federation) as journal:
        assert codes(await ingest(journal, records[-1])) == ["E_FLOOD"]
        await ingest(journal, *flood(liar, 1, 3))
        assert journal.counts() == {(1, 0): 1, (FLOODER, 0): RECORDS_MAX}, "nothing follows it"
        assert journal.intake.waiting <= 3
    with journal_of(tmp_path / "b.db", federation) as one_by_one:
        for record in records:
            await ingest(one_by_one, record)
        assert one_by_one.counts() == {(FLOODER, 0): RECORDS_MAX}


async def test_each_round_has_its_share_and_there_are_no_more_rounds_than_the_charters(
    tmp_path: Path,
) -> None:
    federation = Federation(MEMBERS)
    liar = federation[FLOODER]
    records = [liar.open(), *flood(liar, 0, RECORDS_MAX - 1)]
    for round_ in (1, 2, 3):
        records += flood(liar, round_, RECORDS_MAX)
    with journal_of(tmp_path / "a.db", federation) as journal:
        assert codes(await ingest(journal, *records)) == []
        assert codes(await ingest(journal, *flood(liar, 4, 1))) == ["E_FLOOD"]
        assert journal.counts() == {(FLOODER, 0): 4 * RECORDS_MAX}


async def test_large_records_fill_a_round_sooner(tmp_path: Path) -> None:
    federation = Federation(MEMBERS)
    liar = federation[FLOODER]
    records = [liar.open()]
    records += [liar.write(40_000, 1, bytes(LARGE_BYTES)) for _ in range(RECORDS_MAX // 4)]  # type: ignore[arg-type]
    with journal_of(tmp_path / "a.db", federation) as journal:
        assert codes(await ingest(journal, *records)) == ["E_FLOOD"]
        held = sum(len(one.signed.record_bytes) for one in records[: journal.counts()[FLOODER, 0]])
        assert BYTES_MAX - 2 * LARGE_BYTES < held <= BYTES_MAX + LARGE_BYTES
