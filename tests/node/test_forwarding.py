"""Members without a connection reach each other through others, who can read and change nothing."""

from pathlib import Path

import pytest
import trio
from forwarding_swarm import forwarding_swarm, sealer_of
from network_swarm import Member, until

from ledger.canonical import encode
from ledger.errors import PeerError, UnavailableError
from node.carrier import BURST_S, PAIR_MAX, TARGET_MAX, Carrier
from node.forwarding import DISTRUST_S, FORWARDED_BYTES_MAX, ForwardingNetwork
from node.network import (
    FETCH_PROTOCOL,
    FORWARD_PROTOCOL,
    REQUEST_BYTES_MAX,
    SERVICE_PROTOCOLS,
    SYNC_PROTOCOL,
)
from node.reaching import DIAL_AGAIN_S
from node.sealed import NO_SESSION, Asked
from swarm.protocol.reach import Reach, Sight, decode_reach, encode_reach

kinds = pytest.mark.parametrize("kind", ["memory", "libp2p"])


def network_of(member: Member) -> ForwardingNetwork:
    assert isinstance(member.network, ForwardingNetwork)
    return member.network


class Tapped:
    """Between a carrier's network and its node: what a malicious carrier would do with boxes."""

    def __init__(self, carrier: Member) -> None:
        self.boxes: list[bytes] = []
        self.alter = lambda reply: reply
        self._carry = network_of(carrier).carrier.carry
        network_of(carrier).carrier.carry = self.carry  # type: ignore[method-assign]

    async def carry(self, peer: int, box: bytes) -> bytes:
        self.boxes.append(box)
        return self.alter(await self._carry(peer, box))


@kinds
async def test_two_members_that_accept_no_connection_reach_each_other_through_a_third(
    kind: str,
) -> None:
    async with forwarding_swarm(kind, 3, outbound_only={1, 2}) as members:
        assert network_of(members[1]).inner.connected() == {0}
        assert network_of(members[1]).carriers() == {2: 0}
        assert network_of(members[0]).carriers() == {}
        for protocol in SERVICE_PROTOCOLS:
            reply = await members[1].network.request(
                2, protocol, b"hello", reply_bytes_max=99, timeout_s=5
            )
            assert reply == b"hello"
        assert members[2].service.requests == [(1, one, b"hello") for one in SERVICE_PROTOCOLS]
        assert not members[0].service.requests
        assert trio.current_time() - members[1].network.last_seen_s()[2] < 5
        body = bytes(range(256)) * (FORWARDED_BYTES_MAX // 256)
        assert await members[2].ask(1, body, bytes_max=REQUEST_BYTES_MAX) == body
        with pytest.raises(UnavailableError, match="too long"):
            await members[2].ask(1, bytes(FORWARDED_BYTES_MAX + 1))


@kinds
async def test_errors_arrive_through_a_carrier_as_they_do_without(kind: str) -> None:
    async with forwarding_swarm(kind, 3, outbound_only={1, 2}) as members:
        with pytest.raises(PeerError, match="site 2: that is not a request"):
            await members[1].ask(2, b"refuse")
        with pytest.raises(UnavailableError, match="site 2: ask me later"):
            await members[1].ask(2, b"later")
        with pytest.raises(PeerError, match="failed to answer"):
            await members[1].ask(2, b"raise")
        with pytest.raises(PeerError, match="at most 1024"):
            await members[1].ask(2, b"zeros 1025")
        assert len(await members[1].ask(2, b"zeros 1024")) == 1024
        assert network_of(members[1]).carriers() == {2: 0}, "an answer is no failure of its carrier"


async def test_gossip_of_one_reaches_the_other_over_the_only_common_member() -> None:
    async with forwarding_swarm("libp2p", 3, outbound_only={1, 2}) as members:
        for number in range(100):
            await members[1].network.broadcast(b"record %d" % number)
            with trio.move_on_after(0.2):
                await until(lambda: bool(members[2].service.gossip))
            if members[2].service.gossip:
                break
        assert members[2].service.gossip[0][0] == 1, "named after its author, not its carrier"


async def test_an_outbound_only_member_has_no_listening_socket() -> None:
    async with forwarding_swarm("libp2p", 3, outbound_only={1, 2}) as members:
        assert network_of(members[1]).inner.listening() == ()  # type: ignore[attr-defined]
        (address,) = network_of(members[0]).inner.listening()  # type: ignore[attr-defined]
        assert listening_ports() == [int(address.rsplit("/", 1)[1])]


def listening_ports() -> list[int]:
    """Ports of TCP that the kernel says this process listens on."""
    sockets = {
        str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()
    }
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[1].split(":")[1], 16)
        for row in rows
        if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    ]


async def test_a_carrier_that_dies_is_replaced_by_another() -> None:
    async with forwarding_swarm("libp2p", 4, outbound_only={2, 3}) as members:
        first = network_of(members[2]).carriers()[3]
        assert await members[2].ask(3, b"one") == b"one"
        await members[first].stop()
        await until(lambda: network_of(members[2]).carriers().get(3) == 1 - first)
        assert await members[2].ask(3, b"two") == b"two"
        await members[first].start()
        await until(lambda: first in network_of(members[2]).inner.connected(), s=15)


async def test_a_carrier_sees_neither_protocol_nor_content() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        tapped = Tapped(members[0])
        replies: list[bytes] = []
        tapped.alter = lambda reply: (replies.append(reply), reply)[1]
        assert await members[1].ask(2, b"a secret of patients") == b"a secret of patients"
        for seen in (*tapped.boxes, *replies):
            assert b"secret" not in seen
            assert FETCH_PROTOCOL.encode() not in seen
        assert len(set(tapped.boxes)) == len(tapped.boxes)


@pytest.mark.parametrize("where", [0, 1, 33, 57, -1])
async def test_a_carrier_that_alters_a_reply_is_noticed_and_passed_over(where: int) -> None:
    async with forwarding_swarm("memory", 4, outbound_only={2, 3}) as members:
        tapped = Tapped(members[0])
        tapped.alter = lambda reply: _flipped(reply, where)
        assert await members[2].ask(3, b"hello") == b"hello", "through the honest one"
        log = members[2].log
        assert [one["peer"] for one in log.named("carrier_distrusted")] == [0]
        count = len(tapped.boxes)
        for _ in range(3):
            assert await members[2].ask(3, b"again") == b"again"
        assert len(tapped.boxes) == count, f"not asked again for {DISTRUST_S:g} s"


def _flipped(data: bytes, where: int) -> bytes:
    changed = bytearray(data)
    changed[where] ^= 1
    return bytes(changed)


async def test_an_altered_request_never_reaches_the_service() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        assert await members[1].ask(2, b"first") == b"first"
        box, _ = network_of(members[1])._sealer.seal_request(2, _asked(members, b"second"))
        for where in range(0, len(box), 7):
            with pytest.raises((PeerError, UnavailableError)):
                await _bring(members, _flipped(box, where))
        assert [body for _, _, body in members[2].service.requests] == [b"first"]


async def test_a_box_is_opened_once_whoever_brings_it() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        tapped = Tapped(members[0])
        await members[1].ask(2, b"hello")
        served = len(members[2].service.requests)
        for box in tapped.boxes[-1:] * 30:
            with pytest.raises(PeerError, match="opened before"):
                await _bring(members, box)
        assert len(members[2].service.requests) == served
        told = members[2].log.named("replay_refused")
        assert told == [{"peer": 0}], "who brought it, not who once sealed it; and not 30 times"


async def test_a_status_that_nobody_knows_is_the_targets_fault_for_it_is_sealed() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:

        async def answer(*_: object) -> tuple[int, bytes]:
            return 77, b""

        desk = network_of(members[2])._desk
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(desk, "answer", answer)
            with pytest.raises(PeerError, match="site 2: reply with the unknown status 77"):
                await members[1].ask(2, b"hello")
        assert not members[1].log.named("carrier_distrusted")
        assert await members[1].ask(2, b"hello") == b"hello", "its carrier is as good as before"


async def test_a_box_of_before_a_restart_is_not_opened_after_it() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        tapped = Tapped(members[0])
        await members[1].ask(2, b"hello")
        box = tapped.boxes[-1]
        await members[2].stop()
        await members[2].start()
        await until(lambda: 2 in members[0].network.connected())
        members[2].service.requests.clear()
        await _bring(members, box)  # answered "ask anew", sealed for the one who asked
        assert not members[2].service.requests
        await until(lambda: 2 in members[1].network.connected())
        assert await members[1].ask(2, b"after") == b"after"
        assert [body for _, _, body in members[2].service.requests] == [b"after"]


async def test_a_requester_that_restarts_is_understood_again() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        for _ in range(3):
            await members[1].ask(2, b"hello")
        await members[1].stop()
        await members[1].start()
        await until(lambda: 2 in members[1].network.connected())
        assert await members[1].ask(2, b"after") == b"after"


async def test_nobody_speaks_for_another_not_even_a_carrier() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        await members[1].ask(2, b"hello")
        forger = sealer_of(0, 3)
        forger.own = 1  # type: ignore[misc]
        forger._names = {**forger._names, 1: forger._names[0]}
        box, _ = forger.seal_request(2, _asked(members, b"I am 1"))
        with pytest.raises(PeerError, match="not from whom it says"):
            await _bring(members, box)
        assert [body for _, _, body in members[2].service.requests] == [b"hello"]


async def test_a_box_makes_one_hop_and_only_for_who_sealed_it() -> None:
    async with forwarding_swarm("memory", 4, outbound_only={2, 3}) as members:
        box, _ = sealer_of(2, 4).seal_request(3, _asked(members, b"hello"))
        inner = network_of(members[0]).inner
        with pytest.raises(PeerError, match="carried once"):
            await inner.request(1, FORWARD_PROTOCOL, box, reply_bytes_max=999, timeout_s=5)
        assert not members[3].service.requests


async def test_a_pair_has_so_many_boxes_under_way_and_the_rest_waits_for_its_turn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        await members[1].ask(2, b"hello")
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, members[2].network._desk._serving[1])  # type: ignore[attr-defined]
                await trio.sleep(0.01)

        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            async with trio.open_nursery() as nursery:
                for _ in range(PAIR_MAX + 2):
                    nursery.start_soon(members[1].ask, 2, b"sleep 0.3")
            watching.cancel_scope.cancel()
        assert most == PAIR_MAX - 1, "one is kept for what is not a part of a payload"


async def test_a_stream_of_payloads_holds_no_small_request_up_and_breaks_no_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        await members[1].ask(2, b"hello")
        async with trio.open_nursery() as nursery:
            for _ in range(2 * PAIR_MAX):
                nursery.start_soon(members[1].ask, 2, b"sleep 1")
            await until(lambda: len(members[2].service.requests) == PAIR_MAX)
            with trio.fail_after(0.5):
                reply = await members[1].network.request(
                    2, SYNC_PROTOCOL, b"heads", reply_bytes_max=99, timeout_s=5
                )
            assert reply == b"heads"
            with pytest.raises(UnavailableError, match="too many requests are under way"):
                await members[1].ask(2, b"a part", s=0.1)
            assert 2 in members[1].network.connected()


async def test_a_carrier_that_is_busy_refuses_and_is_not_passed_over_for_it() -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        await members[1].ask(2, b"hello")
        carrier = network_of(members[0]).carrier
        carrier._pairs[1, 2] = PAIR_MAX
        with pytest.raises(UnavailableError, match="too many boxes"):
            await members[1].ask(2, b"hello")
        assert 2 in members[1].network.connected()
        carrier._pairs[1, 2] = 0
        assert await members[1].ask(2, b"again") == b"again"


async def test_a_pair_has_its_pace_and_one_that_carries_nothing_says_so(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}, bytes_per_s=100_000) as members:
        started_s = trio.current_time()
        for _ in range(10):
            await members[1].ask(2, b"zeros 100000", bytes_max=100_000)
        # A million bytes, of which the first 400,000 and the last debt are free.
        assert 4.5 < trio.current_time() - started_s < 8
        nothing = Carrier(members[0].network, own=0, bytes_per_s=0)
        with pytest.raises(PeerError, match="carries nothing"):
            await nothing.carry(1, b"")


async def test_boxes_that_wait_for_their_pairs_turn_keep_no_target_from_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding_swarm("memory", 4, outbound_only={2, 3}) as members:
        carrier = network_of(members[0]).carrier
        box, _ = sealer_of(2, 4).seal_request(3, _asked(members, b"hello"))
        now_s = trio.current_time()
        carrier._meters[2, 3].charge(int(carrier._bytes_per_s * (BURST_S + 5)), now_s=now_s)
        async with trio.open_nursery() as nursery:
            for _ in range(PAIR_MAX):
                nursery.start_soon(carrier.carry, 2, box)
            await trio.testing.wait_all_tasks_blocked()
            assert (carrier._pairs[2, 3], carrier._targets[3]) == (PAIR_MAX, 0)
            with pytest.raises(UnavailableError, match="too many boxes"):
                await carrier.carry(2, box)
            nursery.cancel_scope.cancel()
        assert carrier._pairs[2, 3] == 0
        carrier._targets[3] = TARGET_MAX
        with pytest.raises(UnavailableError, match="too many boxes"):
            await carrier.carry(2, box)


def _asked(members: list[Member], body: bytes) -> Asked:
    talk = network_of(members[1])._talks.get(2)
    return Asked(
        session=talk.session if talk else NO_SESSION,
        sequence=(talk.number if talk else 0) + 1,
        protocol=FETCH_PROTOCOL,
        reply_bytes_max=99,
        body=body,
    )


async def _bring(members: list[Member], box: bytes) -> bytes:
    """Be member 0 and bring a box to member 2."""
    return await network_of(members[0]).inner.request(
        2, FORWARD_PROTOCOL, box, reply_bytes_max=999, timeout_s=5
    )


class Dials:
    """Notes what a network is told to dial."""

    def __init__(self) -> None:
        self.redialled: list[int] = []

    def redial(self, peer: int) -> None:
        self.redialled.append(peer)

    def failures(self) -> dict[int, str]:
        return {}


async def test_a_member_that_somebody_has_just_met_is_dialled_at_once_but_not_on_and_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with forwarding_swarm("memory", 3, outbound_only={1, 2}) as members:
        dials = Dials()
        reaching = network_of(members[1]).reaching
        reaching._dialling = dials  # type: ignore[assignment]
        met = Reach(sights={2: Sight.CONNECTED}, carries=True)
        lost = Reach(sights={2: Sight.UNKNOWN}, carries=True)
        for _ in range(20):
            await reaching.on_request(0, encode_reach(lost))
            await reaching.on_request(0, encode_reach(met))
        assert dials.redialled == [2]
        await trio.sleep(DIAL_AGAIN_S)
        await reaching.on_request(0, encode_reach(lost))
        await reaching.on_request(0, encode_reach(met))
        assert dials.redialled == [2, 2]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x00", encode([2, [], 0, [], []]), encode([1, [], 2, [], []]),
        encode([1, [[0]], 0, [], []]), encode([1, [[99_999, 0]], 0, [], []]),
        encode([1, [], 0, [[0, 0]], []]), encode([1, [], 0, [], [7]]),
        encode([1, [], 0, [], [b""] * 257]), encode([1, [], 0, []]),
    ],
)  # fmt: skip
async def test_a_view_that_breaks_the_shape_or_the_bounds_is_refused(body: bytes) -> None:
    async with forwarding_swarm("memory", 3, outbound_only=()) as members:
        before = network_of(members[1]).reaching.views()
        with pytest.raises(PeerError):
            await network_of(members[1]).reaching.on_request(0, body)
        assert network_of(members[1]).reaching.views() == before


def test_a_reason_of_a_later_version_is_one_that_is_not_known() -> None:
    assert decode_reach(encode([1, [[0, 200]], 0, [], []])).sights == {0: Sight.UNKNOWN}
