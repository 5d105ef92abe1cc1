"""Framing, back-off and limits, alone."""

import pytest

from ledger.errors import PeerError, UnavailableError
from node.backoff import FIRST_S, LAST_S, Backoff
from node.framing import (
    PIECE_BYTES_MAX,
    Status,
    error_text,
    raise_for_status,
    read_reply,
    read_request,
    reply_frame,
    request_frame,
)
from node.limits import Deduplicator, TokenBucket
from node.network import Peer


class Source:
    """Gives what it has, at most step bytes at once, and notes the largest demand."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.step, self.asked = data, step, 0

    async def read(self, n: int) -> bytes:
        self.asked = max(self.asked, n)
        out, self.data = self.data[: min(n, self.step)], self.data[min(n, self.step) :]
        return out


@pytest.mark.parametrize("step", [1, 7, 65536, 10**9])
async def test_frames_survive_any_split(step: int) -> None:
    body = bytes(range(256)) * 8
    assert await read_request(Source(request_frame(body), step), bytes_max=len(body)) == body
    frame = Source(reply_frame(Status.OK, body), step)
    assert await read_reply(frame, bytes_max=len(body)) == (Status.OK, body)
    assert await read_request(Source(request_frame(b""), step), bytes_max=0) == b""


async def test_a_length_is_refused_before_it_is_read() -> None:
    source = Source(request_frame(b"")[:1] + b"\xff\xff\xff\xff" + b"x" * 100, 1000)
    with pytest.raises(PeerError, match="4294967295"):
        await read_request(source, bytes_max=1000)
    assert source.asked == 5
    error = Source(reply_frame(Status.FAILED, b"x" * 257), 1000)
    with pytest.raises(PeerError, match="at most 256"):
        await read_reply(error, bytes_max=10**6)


async def test_a_stream_that_ends_early_is_nobodys_fault() -> None:
    with pytest.raises(UnavailableError, match="after 3 of 4"):
        await read_request(Source(request_frame(b"abcd")[:-1], 2), bytes_max=4)


async def test_noise_is_refused() -> None:
    with pytest.raises(PeerError, match="version 255"):
        await read_request(Source(b"\xff" * 64, 64), bytes_max=2**32)
    with pytest.raises(PeerError, match="status 9"):
        await read_reply(Source(b"\x01\x09\0\0\0\0", 64), bytes_max=9)


async def test_no_read_asks_for_more_than_a_chunk() -> None:
    source = Source(request_frame(bytes(3 * PIECE_BYTES_MAX)), 10**9)
    assert len(await read_request(source, bytes_max=3 * PIECE_BYTES_MAX)) == 3 * PIECE_BYTES_MAX
    assert source.asked == PIECE_BYTES_MAX


def test_an_error_reply_cannot_write_into_our_terminal() -> None:
    with pytest.raises(PeerError) as caught:
        raise_for_status(Status.REFUSED, b"bad\x1b[2J\xff\n", name="site 1")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert error_text(PeerError("one\ntwo")) == b"one"
    assert error_text(PeerError()) == b"PeerError"
    assert len(error_text(PeerError("x" * 1000))) == 256


def test_back_off_starts_fast_doubles_and_is_bounded() -> None:
    slowest, quickest = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
    waits = [slowest.next_s() for _ in range(2000)]
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[0] <= 0.3
    assert waits[-1] == LAST_S == max(waits)
    assert quickest.next_s() == FIRST_S / 2
    slowest.reset()
    assert slowest.next_s() == FIRST_S


def test_the_deduplicator_forgets_by_age_and_by_number() -> None:
    seen = Deduplicator(keep_s=10, entries_max=3)
    assert seen.is_new(0, b"a", now_s=0)
    assert not seen.is_new(0, b"a", now_s=9.9)
    assert seen.is_new(1, b"a", now_s=9.9), "another author"
    assert seen.is_new(0, b"a", now_s=10)
    for message in (b"b", b"c", b"d"):
        assert seen.is_new(0, message, now_s=11)
    assert seen.is_new(0, b"a", now_s=12), "pushed out"


def test_the_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    bucket = TokenBucket(rate_per_s=2, burst=3)
    assert [bucket.take(now_s=0) for _ in range(4)] == [True, True, True, False]
    assert bucket.take(now_s=0.5)
    assert not bucket.take(now_s=0.5)
    assert [bucket.take(now_s=100) for _ in range(4)] == [True, True, True, False]


def test_a_peer_is_checked_at_birth() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Peer(index=0, name="a", network_key=b"short")
    with pytest.raises(ValueError, match="roster"):
        Peer(index=-1, name="a", network_key=bytes(32))
