"""Comparing heads: whom with and when, how long, what one lacks, and never more than a message carries."""

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
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
from swarm.protocol.sync import (
    LOOK_S,
    SYNC_FANOUT,
    TRANSITIONS,
    Comparison,
    Gap,
    Reply,
    Schedule,
    Standing,
    fit,
    gaps,
    wanted,
)
from tests.federation import Federation
from tests.tables import StateTable

TABLE = StateTable("comparison", start="asking")
REPLIES: Mapping[str, Mapping[str, Any]] = {
    "a reply brings something, and something is missing still": {"new": 1, "lacks": True},
    "a reply brings nothing, and something is missing still": {"new": 0, "lacks": True},
    "nothing is missing any more": {"new": 0, "lacks": False},
}
SHORT = {
    "brings": "a reply brings something, and something is missing still",
    "brings nothing": "a reply brings nothing, and something is missing still",
    "all": "nothing is missing any more",
}
LOG = (2, 0)
INTERVAL_S = 8.0
SOON_S = 0.5
PEERS = frozenset(range(1, 10))

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


# One comparison


@pytest.mark.parametrize("way", TABLE.walks(lambda way, _: TABLE.after(way) == "asking"))
def test_a_comparison_stands_where_the_document_says(way: tuple[str, ...]) -> None:
    comparison = Comparison()
    for event in way:
        comparison.replied(differing=(), **REPLIES[event])
    assert comparison.standing.name.lower() == TABLE.after(way)


def test_the_drawing_shows_the_moves_of_the_table_and_the_code_has_no_others() -> None:
    TABLE.check_drawing(SHORT)
    assert {state.name.lower() for state in TRANSITIONS.values()} == {
        TABLE.after((event,)) for event in REPLIES
    }
    assert set(TRANSITIONS) == {(Standing.ASKING, reply) for reply in Reply}


def test_a_log_that_differs_is_asked_about_once_in_a_comparison() -> None:
    """Or a liar's head would keep the asker there for ever."""
    comparison = Comparison()
    comparison.replied(new=0, lacks=False, differing={LOG})
    assert comparison.standing is Standing.ASKING
    comparison.replied(new=0, lacks=False, differing={LOG, (3, 0)})
    assert comparison.standing is Standing.ASKING
    comparison.replied(new=0, lacks=False, differing={LOG, (3, 0)})
    assert comparison.standing is Standing.BEHIND


def test_nothing_of_a_frozen_log_is_wanted_and_of_unknown_members_all() -> None:
    theirs = {log: Head(5, bytes(32)) for log in [(0, 0), LOG, (9, 7)]}
    assert wanted(theirs, Federation(4).roster, {LOG}) == {(0, 0): 5, (9, 7): 5}


# Whom with, and when


def schedule(seed: int = 0) -> Schedule:
    return Schedule(Random(seed), soon_min_s=lambda: SOON_S)


def chosen(one: Schedule, now_s: float, connected: frozenset[int] = PEERS) -> set[int]:
    """Choose, all having answered before; each comparison ends at once."""
    peers = one.choose(now_s, connected, heard=PEERS, interval_s=INTERVAL_S)
    for peer in peers:
        one.ended(peer)
    return set(peers)


def test_who_has_just_connected_is_asked_at_once_and_then_a_sample_every_interval() -> None:
    one = schedule()
    assert chosen(one, 0.0) == PEERS
    assert chosen(one, 1.0) == set()
    due_s = one.look_s(1.0, is_everyone_heard=True)
    assert 0.75 * INTERVAL_S <= due_s <= 1.25 * INTERVAL_S
    assert chosen(one, due_s - 0.01) == set()
    assert len(chosen(one, due_s)) == SYNC_FANOUT
    assert chosen(one, due_s + 0.1, PEERS | {12}) == {12}
    assert chosen(one, due_s + 0.2) == set()
    assert chosen(one, due_s + 0.3, PEERS | {12}) == {12}, "it has come back"


def test_whom_no_reply_came_from_is_asked_whenever_it_is_due_and_looked_for_often() -> None:
    one = schedule()
    chosen(one, 0.0)
    assert one.look_s(0.0, is_everyone_heard=False) == LOOK_S
    due_s = one.look_s(0.0, is_everyone_heard=True)
    assert {4, 5} <= set(one.choose(due_s, PEERS, heard=PEERS - {4, 5}, interval_s=INTERVAL_S))


def test_who_has_not_answered_yet_is_not_asked_twice_at_once() -> None:
    one = schedule()
    assert one.choose(0.0, PEERS, heard=(), interval_s=INTERVAL_S) == sorted(PEERS)
    due_s = one.look_s(0.0, is_everyone_heard=True)
    one.ended(3)
    assert one.choose(due_s, PEERS, heard=(), interval_s=INTERVAL_S) == [3]


def test_what_seems_to_be_missing_is_asked_for_soon_of_who_is_named() -> None:
    one = schedule()
    chosen(one, 0.0)
    one.hurry({7, 30})
    soon_s = one.pause_until_s(1.0)
    assert 1.0 + SOON_S / 2 <= soon_s <= 1.0 + SOON_S
    assert chosen(one, soon_s - 0.01) == set()
    asked = chosen(one, soon_s)
    assert 7 in asked
    assert 30 not in asked, "it is not connected"
    assert len(asked) <= SYNC_FANOUT + 1
    assert not one.is_hurried


@pytest.mark.parametrize("seed", range(5))
def test_the_pause_of_who_is_hurried_again_and_again_doubles_up_to_the_interval(seed: int) -> None:
    one, now_s, pauses = schedule(seed), 0.0, []
    chosen(one, now_s)
    for _ in range(8):
        one.hurry()
        soon_s = one.pause_until_s(now_s)
        pauses.append(soon_s - now_s)
        now_s = soon_s
        chosen(one, now_s)
    longest = [min(SOON_S * 2**count, INTERVAL_S) for count in range(8)]
    assert all(most / 2 - 1e-9 <= pause <= most + 1e-9 for pause, most in zip(pauses, longest, strict=True))  # fmt: skip
    one.brought_news()
    one.hurry()
    assert one.pause_until_s(now_s) - now_s <= SOON_S


def test_an_interval_without_a_hurry_makes_the_next_one_quick_again() -> None:
    one = schedule()
    chosen(one, 0.0)
    one.hurry()
    now_s = one.pause_until_s(0.0)
    chosen(one, now_s)
    now_s = one.look_s(now_s, is_everyone_heard=True)
    chosen(one, now_s)
    one.hurry()
    assert one.pause_until_s(now_s) - now_s <= SOON_S
