"""A member's newest signed word on where to dial it wins; hostile words are refused whole."""

import pytest
import trio
from network_swarm import Log, Member, free_port, peers_on, running_swarm, seeds, until
from trio.testing import MockClock

from ledger.canonical import encode
from ledger.errors import PeerError, StoreError
from ledger.keys import Signer
from ledger.roster import Roster
from node.address_book import TAKE_PAUSE_S, AddressBook
from node.address_record import (
    ADDRESSES_MAX,
    Known,
    is_here,
    open_address_record,
    sign_address_record,
)
from node.addresses import Address, parse_address
from tests.simulated import charter_of, identity_of

IDENTITIES = [identity_of(3, index) for index in range(3)]
CHARTER = charter_of(IDENTITIES)
SIGNERS = [Signer(one.network_seed) for one in IDENTITIES]
NET = CHARTER.net
OUTSIDE = "/dns4/swarm.anna.example/tcp/4001"


def record(
    author: int = 1,
    addresses: tuple[str, ...] = (OUTSIDE,),
    *,
    sequence: int = 1,
    **changed: object,
) -> bytes:
    parts = {"net": NET, "author": author, "epoch": 0, "sequence": sequence} | changed
    signer = parts.pop("signer", SIGNERS[author])
    return sign_address_record(signer, addresses=addresses, **parts)  # type: ignore[arg-type]


def known(*, here: bool = False) -> dict[int, Known]:
    return {
        index: Known(network_key=signer.public_key, epoch=0, here=here)
        for index, signer in enumerate(SIGNERS)
    }


def book(own: int = 0, *, stored: bytes | None = None) -> AddressBook:
    return AddressBook(
        roster=Roster.from_charter(CHARTER), own=own, signer=SIGNERS[own], log=Log(), stored=stored
    )


def texts(addresses: tuple[Address, ...]) -> list[str]:
    return [one.text for one in addresses]


# What a record may say


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::7/tcp/4001", "/dns/swarm.anna.example/tcp/1",
        "/dns6/a-1.example/tcp/65535", "/ip4/10.0.0.7/tcp/4001",
        "/dns4/swarm.anna.example./tcp/4001",
    ],
)  # fmt: skip
def test_addresses_of_other_machines_are_taken(address: str) -> None:
    opened = open_address_record(record(addresses=(address,)), net=NET, known=known())
    assert texts(opened.addresses) == [address]
    assert opened.addresses[0].guarded


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/127.0.0.1/tcp/4001", "/ip4/169.254.169.254/tcp/80", "/ip6/::1/tcp/4001",
        "/ip6/fe80::1/tcp/4001", "/ip6/::ffff:127.0.0.1/tcp/4001", "/dns4/localhost/tcp/4001",
        "/dns4/db.localhost/tcp/5432", "/dns/printer.local/tcp/80",
    ],
)  # fmt: skip
def test_this_machine_and_link_are_taken_only_where_the_charter_dials_them(address: str) -> None:
    with pytest.raises(PeerError):
        open_address_record(record(addresses=(address,)), net=NET, known=known())
    opened = open_address_record(record(addresses=(address,)), net=NET, known=known(here=True))
    assert texts(opened.addresses) == [address]
    assert is_here(address)


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/0.0.0.0/tcp/4001", "/ip4/224.0.0.251/tcp/5353", "/ip6/ff02::fb/tcp/5353",
        "/ip4/192.0.2.7/tcp/0", "/ip4/192.0.2.7/udp/4001", "/ip4/192.0.2.7/tcp/4001/ws",
        "/dns4/127.1/tcp/4001", "/dns4/2130706433/tcp/4001", "/dns4/a.0x7f000001/tcp/4001",
        "/dns4/-a.example/tcp/1", "/dns4/a..b/tcp/1", "/dns4/a b.example/tcp/1",
        "/dns4/" + "a" * 64 + ".example/tcp/1", "/unix/tmp/socket", "", "swarm.anna.example:4001",
        "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWCwPb", "/ip6/fe80::1%eth0/tcp/4001",
        "/ip6/2001:db8::1%eth0/tcp/4001", "/ip6/2001:db8::1%" + "a" * 70 + "/tcp/4001",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_member_spoils_the_record(address: str) -> None:
    for here in (False, True):
        with pytest.raises(PeerError):
            open_address_record(
                record(addresses=(OUTSIDE, address)), net=NET, known=known(here=here)
            )


@pytest.mark.parametrize(
    "envelope",
    [
        record(signer=SIGNERS[2]),
        record(net=bytes(32)),
        record(epoch=1),
        record(addresses=(OUTSIDE,) * (ADDRESSES_MAX + 1)),
        record(addresses=("/dns4/" + "a." * 200 + "example/tcp/1",)),
        record()[:-1],
        record() + b"\x00",
        b"",
        encode([b"", b""]),
        encode([encode([1, NET, 1, 0, 1, [7]]), bytes(64)]),
    ],
    ids=["another's key", "net", "epoch", "many", "long", "cut", "more", "empty", "shape", "type"],
)
def test_a_record_that_is_not_signed_and_bounded_is_refused(envelope: bytes) -> None:
    with pytest.raises(PeerError):
        open_address_record(envelope, net=NET, known=known())


# The book


async def test_the_newest_word_wins_and_goes_before_the_charters(
    autojump_clock: MockClock,
) -> None:
    told: dict[int, list[str]] = {}
    one = book()
    one.attach(redirect=lambda author, found: told.update({author: texts(tuple(found))}), save=None)
    assert told == {1: [], 2: []}
    await one.learn([record(sequence=5), record(sequence=4, addresses=())], source="test")
    assert told[1] == [OUTSIDE]
    later = "/ip4/192.0.2.8/tcp/4002"
    await trio.sleep(TAKE_PAUSE_S)
    await one.learn([record(sequence=6, addresses=(later,))], source="test")
    assert told[1] == [later]
    one.hint(1, [parse_address("/ip4/192.168.0.3/tcp/4001")])
    assert told[1] == [later, "/ip4/192.168.0.3/tcp/4001"], "a hint comes last"
    await trio.sleep(TAKE_PAUSE_S)
    await one.learn([record(sequence=7, addresses=())], source="test")
    assert told[1] == ["/ip4/192.168.0.3/tcp/4001"], "nowhere, says its own word"
    assert one.sequences() == {1: (0, 7)}


async def test_one_who_signs_without_end_costs_the_others_a_write_in_so_long(
    autojump_clock: MockClock,
) -> None:
    kept: list[bytes] = []
    told: list[int] = []

    async def save(envelopes: bytes) -> None:
        kept.append(envelopes)

    one = book()
    one.attach(redirect=lambda author, _: told.append(author), save=save)
    told.clear()
    for sequence in range(1, 50):
        await one.learn([record(sequence=sequence)], source="test")
    await one.learn([record(author=2)], source="test")
    assert one.sequences() == {1: (0, 1), 2: (0, 1)}
    assert (len(kept), told) == (2, [1, 2])
    await trio.sleep(TAKE_PAUSE_S)
    await one.learn([record(sequence=49)], source="test")
    assert one.sequences()[1] == (0, 49), "what was passed over comes again"


async def test_own_words_are_stored_before_anybody_sees_them() -> None:
    one = book()

    async def full(_envelopes: bytes) -> None:
        assert one.sequences().get(0) in (None, (0, 1))
        raise StoreError("disk full")

    async def save(_envelopes: bytes) -> None:
        assert 0 not in one.sequences()

    one.own_addresses = lambda: (OUTSIDE,)
    one.attach(redirect=None, save=full)
    with pytest.raises(StoreError):
        await one.announce()
    assert one.lacking({}) == ()
    one.attach(redirect=None, save=save)
    await one.announce()
    assert one.sequences() == {0: (0, 1)}
    one.attach(redirect=None, save=full)
    with pytest.raises(StoreError):
        await one.learn([record(author=0, sequence=41)], source="test")
    assert one.sequences() == {0: (0, 1)}


async def test_a_refused_record_is_logged_and_the_others_are_taken() -> None:
    one = book()
    await one.learn([record(signer=SIGNERS[2]), record(author=2)], source="peer 1")
    assert list(one.sequences()) == [2]
    assert "did not sign" in str(one._log.named("address_refused"))  # type: ignore[attr-defined]


async def test_refused_records_are_told_in_a_line_for_each_message_and_not_on_and_on() -> None:
    one = book()
    for _ in range(50):
        await one.learn([b"", record(signer=SIGNERS[2])] * 100, source="peer 1")
    told = one._log.named("address_refused")  # type: ignore[attr-defined]
    assert 1 <= len(told) <= 4
    assert told[0]["count"] == 200


async def test_what_was_learnt_and_said_outlives_a_restart() -> None:
    kept: list[bytes] = []

    async def save(envelopes: bytes) -> None:
        kept.append(envelopes)

    one = book()
    one.attach(redirect=None, save=save)
    one.own_addresses = lambda: (OUTSIDE,)
    await one.announce()
    await one.learn([record(author=2)], source="test")
    again = book(stored=kept[-1])
    assert again.sequences() == {0: (0, 1), 2: (0, 1)}
    again.attach(redirect=None, save=save)
    again.own_addresses = lambda: (OUTSIDE,)
    await again.announce()
    assert again.sequences()[0] == (0, 1), "said already"
    again.own_addresses = lambda: None
    await again.announce()
    assert again.sequences()[0] == (0, 2), "as in the charter again, which has to be said"


def test_a_stored_record_that_would_be_refused_today_is_dropped() -> None:
    bad = record(addresses=("/ip6/2001:db8::1%" + "a" * 70 + "/tcp/4001",))
    again = book(stored=encode([bad, record(author=2)]))
    assert again.sequences() == {2: (0, 1)}
    assert again.addresses(1) == ()


async def test_a_site_that_lost_its_store_speaks_above_what_the_others_hold() -> None:
    one = book()
    one.own_addresses = lambda: ("/ip4/192.0.2.9/tcp/4001",)
    await one.announce()
    await one.learn([record(author=0, sequence=41)], source="test")
    assert one.sequences()[0] == (0, 42)
    (envelope,) = one.lacking({0: (0, 41)})
    other = book(own=1)
    await other.learn([record(author=0, sequence=41), envelope], source="test")
    assert texts(other.addresses(0)) == ["/ip4/192.0.2.9/tcp/4001"]
    assert not one.lacking({0: (0, 42)})


async def test_a_name_that_a_peer_told_never_leads_to_this_machine() -> None:
    """DNS rebinding: the name is fine, what it resolves to is not."""
    from dataclasses import replace

    from ledger.errors import UnavailableError
    from node.addresses import resolve

    here = parse_address("/dns4/localhost/tcp/4001")
    assert await resolve(here, timeout_s=5) == ["127.0.0.1"]
    with pytest.raises(UnavailableError, match="not for peers to name"):
        await resolve(replace(here, guarded=True), timeout_s=5)


# Over real sockets


async def test_a_redirected_member_is_dialled_at_once_at_its_new_address() -> None:
    async with running_swarm("libp2p", 2) as members:
        first, second = members
        await second.stop()
        moved = f"/ip4/127.0.0.1/tcp/{free_port()}"
        elsewhere = await _listening(second, moved)
        # Away for long enough that the next dial of its own would be seconds off.
        await until(lambda: len(first.log.named("dial_failed")) >= 3, s=20)
        first.network.redirect(1, [parse_address(moved)])  # type: ignore[attr-defined]
        with trio.fail_after(3):
            await until(lambda: first.network.connected() == {1})
        assert first.network.failures() == {}  # type: ignore[attr-defined]
        elsewhere.cancel()


@pytest.mark.parametrize("is_unknown", [False, True])
async def test_an_address_that_no_socket_takes_is_a_failed_dial_and_no_more(
    monkeypatch: pytest.MonkeyPatch, *, is_unknown: bool
) -> None:
    async def raises(*_: object, **__: object) -> None:
        raise RuntimeError("nobody has thought of this")

    async with running_swarm("libp2p", 2) as members:
        first, second = members
        good = first.network._members.addresses[1]  # type: ignore[attr-defined]
        await second.stop()
        with monkeypatch.context() as patched:
            if is_unknown:
                patched.setattr("node.libp2p.dialler.connect", raises)
            bad = parse_address("/ip6/2001:db8::1%" + "a" * 70 + "/tcp/4001")
            first.network.redirect(1, [bad])  # type: ignore[attr-defined]
            await until(lambda: any("%aaa" in str(one) for one in first.log.named("dial_failed")))
        await second.start()
        first.network.redirect(1, good)  # type: ignore[attr-defined]
        await until(lambda: first.network.connected() == {1})


async def _listening(member: Member, address: str) -> trio.CancelScope:
    """Start a member that dials nobody and listens somewhere new."""
    from node.libp2p import Libp2pNetwork
    from node.network import Peer

    peers = [
        Peer(index=one.index, name=one.name, network_key=one.network_key)
        for one in peers_on([0, 0])
    ]
    network = Libp2pNetwork(
        own_index=1, network_seed=seeds(2)[1], listen=[address], peers=peers,
        net=bytes(range(32)), log=member.log,
    )  # fmt: skip
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            await network.run(member.service, task_status=task_status)

    await member.nursery.start(run)
    return scope
