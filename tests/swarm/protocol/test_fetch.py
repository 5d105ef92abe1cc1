"""A download asks for every chunk once, from whoever has it, rarest first; and twice only when it is late."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import PeerError
from swarm.protocol.fetch import (
    STEAL_AFTER_S,
    WINDOW_MAX,
    Download,
    Window,
    pack_chunks,
    unpack_chunks,
)
from swarm.protocol.payload import CHUNK_BYTES, Manifest, manifest_of

PAYLOAD = bytes(range(251)) * 9_000  # two chunks and a bit
MANIFEST = manifest_of(1, PAYLOAD)


def download(chunks: int, *, held: tuple[int, ...] = ()) -> Download:
    manifest = Manifest(
        codec=1, bytes_count=chunks * CHUNK_BYTES - 7, chunks=tuple([bytes(32)] * chunks)
    )
    return Download(manifest, held, random=Random(1))


def test_every_chunk_is_asked_for_once_and_counted_when_it_is_here() -> None:
    incoming = Download(MANIFEST, (), random=Random(1))
    asked = {incoming.take(0, now_s=0) for _ in range(3)}
    assert asked == {0, 1, 2}
    assert incoming.take(0, now_s=100) is None, "nobody asks himself twice"
    assert incoming.received(2) == (0,)
    assert incoming.bytes_held == len(PAYLOAD) - 2 * CHUNK_BYTES
    assert (incoming.holds(2), incoming.holds(1), incoming.holds(3)) == (True, False, False)
    incoming.received(0)
    incoming.received(1)
    assert incoming.is_complete
    assert incoming.bytes_held == len(PAYLOAD)


def test_what_is_on_the_disk_already_is_not_asked_for_again() -> None:
    incoming = download(5, held=(0, 3, 4))
    assert {incoming.take(0, now_s=0) for _ in range(3)} == {1, 2, None}


def test_the_rarest_chunk_comes_first_and_only_from_who_has_it() -> None:
    incoming = download(4)
    incoming.announce(1, frozenset({0, 1, 2}))
    incoming.announce(2, frozenset({0, 1}))
    incoming.announce(3, frozenset({0}))
    assert incoming.take(9, now_s=0) == 3, (
        "who presumably has all is asked for what nobody else has"
    )
    assert incoming.take(1, now_s=0) == 2
    assert incoming.take(2, now_s=0) == 1
    assert incoming.take(3, now_s=0) == 0
    assert incoming.can_come_from(3)
    incoming.received(0)
    assert not incoming.can_come_from(3)


def test_a_late_chunk_is_asked_of_one_more_source_and_never_of_a_third() -> None:
    incoming = download(1)
    assert incoming.take(1, now_s=0) == 0
    assert incoming.take(2, now_s=STEAL_AFTER_S - 0.1) is None
    assert incoming.take(2, now_s=STEAL_AFTER_S, usual_s=5) is None, "slow is not late"
    assert incoming.take(2, now_s=STEAL_AFTER_S) == 0
    assert incoming.take(3, now_s=100) is None
    assert sorted(incoming.received(0)) == [1, 2], "the slower one is told to stop"


def test_what_a_lost_source_was_asked_for_is_free_again() -> None:
    incoming = download(2)
    assert {incoming.take(1, now_s=0), incoming.take(1, now_s=0)} == {0, 1}
    incoming.leave(1)
    assert {incoming.take(2, now_s=0), incoming.take(2, now_s=0)} == {0, 1}


def test_two_downloads_hold_different_halves_so_that_they_can_serve_each_other() -> None:
    halves = []
    for seed in (1, 2):
        manifest = Manifest(codec=1, bytes_count=100 * CHUNK_BYTES, chunks=tuple([bytes(32)] * 100))
        incoming = Download(manifest, (), random=Random(seed))
        halves.append({incoming.take(0, now_s=0) for _ in range(50)})
    assert len(halves[0] & halves[1]) < 40


@given(st.sets(st.integers(0, 40)), st.integers(0, 3))
def test_a_list_of_chunks_survives_the_wire(held: set[int], more: int) -> None:
    count = max(held, default=-1) + 1 + more
    assert unpack_chunks(pack_chunks(held, count), count) == held


@pytest.mark.parametrize(("data", "count"), [(b"", 1), (b"\0\0", 8), (b"\1", 7), (b"\0\x01", 15)])
def test_a_list_of_chunks_that_cannot_be_is_refused(data: bytes, count: int) -> None:
    with pytest.raises(PeerError):
        unpack_chunks(data, count)


def test_a_window_grows_with_a_quick_source_and_shrinks_with_a_slow_one() -> None:
    window = Window()
    for _ in range(20):
        window.took(0.01)
    assert window.size == WINDOW_MAX
    for _ in range(20):
        window.took(10)
    assert window.size == 1
    window.took(0.01)
    window.failed()
    assert window.size == 1
