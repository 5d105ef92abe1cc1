"""The promises of node/network.py, asked of every implementation."""

import pytest
import trio
from network_swarm import Member, all_connected, running_swarm, until

from ledger.errors import PeerError, UnavailableError
from node.network import (
    FETCH_PROTOCOL,
    GOSSIP_BYTES_MAX,
    REQUEST_BYTES_MAX,
    REQUEST_PROTOCOLS,
)

kinds = pytest.mark.parametrize("kind", ["memory", "libp2p"])


async def gossip_works(members: list[Member]) -> None:
    """Gossip is best effort: what counts is that it works again within seconds."""
    sender, *others = members
    with trio.fail_after(15):
        for attempt in range(1000):
            message = b"does gossip work? %d" % attempt
            await sender.network.broadcast(message)
            try:
                await until(
                    lambda m=message: all((sender.index, m) in o.service.gossip for o in others),
                    s=0.5,
                )
            except trio.TooSlowError:
                continue
            return


@kinds
async def test_gossip_reaches_every_other_member_once(kind: str) -> None:
    async with running_swarm(kind, 4) as members:
        await gossip_works(members)
        await gossip_works(members[::-1])
        for number in range(10):
            await members[1].network.broadcast(b"record %d" % number)
        await members[1].network.broadcast(b"x" * GOSSIP_BYTES_MAX)
        await members[1].network.broadcast(b"record 3")
        expected = {b"record %d" % n for n in range(10)} | {b"x" * GOSSIP_BYTES_MAX}
        for member in (members[0], members[2], members[3]):
            await until(lambda m=member: expected <= {text for _, text in m.service.gossip})
        await trio.sleep(0.1)
        for member in (members[0], members[2], members[3]):
            from_one = [text for peer, text in member.service.gossip if peer == 1]
            assert len(from_one) == len(set(from_one)), "arrived twice"
        assert not members[1].service.gossip or all(p != 1 for p, _ in members[1].service.gossip)


@kinds
async def test_a_request_is_answered_by_whom_it_was_sent_to(kind: str) -> None:
    async with running_swarm(kind, 3) as members:
        assert await members[0].ask(2, b"hello") == b"hello"
        assert members[2].service.requests == [(0, FETCH_PROTOCOL, b"hello")]
        assert await members[2].ask(0, b"") == b""
        body = bytes(range(256)) * (REQUEST_BYTES_MAX // 256)
        assert await members[1].ask(0, body, bytes_max=REQUEST_BYTES_MAX) == body


@kinds
async def test_every_protocol_reaches_the_handler_under_its_own_name(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        for protocol in REQUEST_PROTOCOLS:
            reply = await members[0].network.request(
                1, protocol, b"hello", reply_bytes_max=1024, timeout_s=5
            )
            assert reply == b"hello"
        assert members[1].service.requests == [(0, one, b"hello") for one in REQUEST_PROTOCOLS]


@kinds
async def test_many_requests_at_once_are_all_answered(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        wrong: list[int] = []

        async def ask(number: int) -> None:
            if (
                await members[number % 2].ask(1 - number % 2, b"%d" % number, s=10)
                != b"%d" % number
            ):
                wrong.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(ask, number)
        assert not wrong


@kinds
async def test_a_reply_longer_than_asked_for_is_refused(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        with pytest.raises(PeerError, match="at most 1024"):
            await members[0].ask(1, b"zeros 1025")
        assert len(await members[0].ask(1, b"zeros 1024")) == 1024


@kinds
async def test_a_handler_that_raises_does_not_stop_the_network(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        with pytest.raises(PeerError, match="failed to answer"):
            await members[0].ask(1, b"raise")
        with pytest.raises(PeerError, match="failed to answer"):
            await members[0].ask(1, b"zeros %d" % (REQUEST_BYTES_MAX + 1))
        await gossip_works(members)
        await members[0].network.broadcast(b"raise, please")
        await until(lambda: (0, b"raise, please") in members[1].service.gossip)
        await gossip_works(members)
        assert await members[0].ask(1, b"still there?") == b"still there?"
        assert len(members[1].log.named("handler_failed")) == 3


@kinds
async def test_an_error_reply_says_whose_fault_it_is(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        with pytest.raises(PeerError, match=r"that is not a request$"):
            await members[0].ask(1, b"refuse")
        with pytest.raises(UnavailableError, match="ask me later"):
            await members[0].ask(1, b"later")
        assert not members[1].log.named("handler_failed")


@kinds
async def test_a_request_has_a_deadline(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        with trio.fail_after(2), pytest.raises(UnavailableError, match=r"no reply in 0.2 s"):
            await members[0].ask(1, b"sleep 5", s=0.2)
        assert await members[0].ask(1, b"next") == b"next"


@kinds
async def test_a_cancelled_request_leaves_the_connection_usable(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        for wait_s in (0, 0.001, 0.003, 0.01, 0.03):
            with trio.move_on_after(wait_s):
                await members[0].ask(1, bytes(REQUEST_BYTES_MAX), bytes_max=REQUEST_BYTES_MAX)
        assert await members[0].ask(1, b"next") == b"next"
        assert members[0].network.connected() == {1}


@kinds
async def test_a_request_to_an_absent_member_is_unavailable(kind: str) -> None:
    async with running_swarm(kind, 2, start=False) as members:
        await members[0].start()
        with trio.fail_after(2), pytest.raises(UnavailableError, match="not connected"):
            await members[0].ask(1, b"hello")
        assert members[0].network.connected() == frozenset()
        assert not members[0].network.last_seen_s()


@kinds
async def test_our_own_mistakes_are_value_errors(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        network = members[0].network
        for message in (b"", b"x" * (GOSSIP_BYTES_MAX + 1)):
            with pytest.raises(ValueError, match="gossip"):
                await network.broadcast(message)
        with pytest.raises(ValueError, match="does not ask itself"):
            await members[0].ask(0, b"me")
        with pytest.raises(ValueError, match="bytes"):
            await members[0].ask(1, bytes(REQUEST_BYTES_MAX + 1))
        with pytest.raises(ValueError, match="protocol"):
            await network.request(1, "/other/1", b"", reply_bytes_max=1, timeout_s=1)


@kinds
async def test_a_member_that_restarts_is_met_again_without_anybody_asking(kind: str) -> None:
    async with running_swarm(kind, 3) as members:
        await gossip_works(members)
        await members[1].stop()
        await until(lambda: 1 not in members[0].network.connected())
        with pytest.raises(UnavailableError):
            await members[0].ask(1, b"gone?")
        await members[1].start()
        await all_connected(members)
        assert await members[0].ask(1, b"back?") == b"back?"
        await gossip_works([members[1], members[0], members[2]])
        await gossip_works([members[0], members[1], members[2]])


@kinds
async def test_a_request_in_flight_fails_soon_when_the_peer_leaves(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        members[0].nursery.start_soon(leave_soon, members[1])
        with trio.fail_after(5), pytest.raises(UnavailableError):
            await members[0].ask(1, b"sleep 30", s=30)


async def leave_soon(member: Member) -> None:
    await trio.sleep(0.2)
    await member.stop()


@kinds
async def test_a_network_under_load_leaves_cleanly(kind: str) -> None:
    async with running_swarm(kind, 3) as members:

        async def load(member: Member, peer: int) -> None:
            for number in range(10_000):
                try:
                    await member.ask(peer, b"zeros 300000", bytes_max=300_000)
                    await member.network.broadcast(b"%d %d" % (member.index, number))
                except UnavailableError:
                    return

        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(load, member, (member.index + 1) % 3)
                nursery.start_soon(load, member, (member.index + 2) % 3)
            await trio.sleep(0.5)
            for member in members:
                nursery.start_soon(member.stop)
    assert not [m.log.named("leave_failed") for m in members if m.log.named("leave_failed")]


@kinds
async def test_traffic_and_last_seen_tell_what_happened(kind: str) -> None:
    async with running_swarm(kind, 2) as members:
        before = members[0].network.traffic()
        await members[0].ask(1, b"zeros 1000", bytes_max=1000)
        after = members[0].network.traffic()
        assert after.bytes_sent - before.bytes_sent == 5 + 10
        assert after.bytes_received - before.bytes_received == 6 + 1000
        seen_s = members[0].network.last_seen_s()[1]
        assert 0 <= trio.current_time() - seen_s < 1
