"""Comparing heads: what one lacks, and never more than a message carries."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.canonical import ITEMS_MAX
from swarm.protocol.messages import (
    MESSAGE_BYTES_MAX,
    RECORDS_BYTES_MAX,
    Head,
    Hello,
    SyncReply,
    decode_sync_reply,
    encode_sync_reply,
)
from swarm.protocol.sync import Gap, fit, gaps

heads = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 1)), st.integers(0, 2**53 - 1), max_size=8
)


@given(heads, heads)
def test_gaps_are_exactly_what_is_missing(have: dict, lacks: dict) -> None:  # type: ignore[type-arg]
    filled = dict(lacks)
    for gap in gaps(have=have, lacks=lacks):
        assert gap.from_seq == lacks.get((gap.author, gap.epoch), 0) < gap.to_seq
        filled[gap.author, gap.epoch] = gap.to_seq
    assert all(filled.get(log, 0) >= count for log, count in have.items())
    assert gaps(have=have, lacks=have) == []


def test_gaps_come_in_a_fixed_order() -> None:
    assert gaps(have={(1, 0): 5, (0, 0): 2}, lacks={(1, 0): 3}) == [
        Gap(0, 0, 0, 2),
        Gap(1, 0, 3, 5),
    ]


@given(st.lists(st.integers(1, 400_000), max_size=40))
def test_what_fits_stays_within_the_bytes_and_keeps_its_order(sizes: list[int]) -> None:
    envelopes = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    passed = list(fit(envelopes))
    assert passed == envelopes[: len(passed)]
    assert sum(map(len, passed)) <= RECORDS_BYTES_MAX


def test_a_flood_of_tiny_records_still_makes_a_message() -> None:
    """A liar's 5,000 short records in the way must not make every sync reply impossible to encode."""
    passed = tuple(fit(bytes(150) for _ in range(5_000)))
    assert len(passed) == ITEMS_MAX
    hello = Hello(
        heads={(i, 0): Head(2**53 - 1, bytes(32)) for i in range(256)}, round=0, phase=0, time_ms=0
    )
    reply = SyncReply(hello=hello, envelopes=passed)
    assert decode_sync_reply(encode_sync_reply(reply)) == reply


def test_the_fullest_reply_is_not_longer_than_a_message() -> None:
    hello = Hello(
        heads={(i, 0): Head(2**53 - 1, bytes(32)) for i in range(256)},
        round=2**32,
        phase=8,
        time_ms=2**53 - 1,
    )
    per_record = RECORDS_BYTES_MAX // ITEMS_MAX
    envelopes = tuple(fit(bytes(per_record) for _ in range(ITEMS_MAX)))
    assert len(encode_sync_reply(SyncReply(hello=hello, envelopes=envelopes))) < MESSAGE_BYTES_MAX
