"""Each way in which one hospital does not reach another, over real sockets: named, with who changes what."""

import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from network_swarm import Log
from site_factory import Site, make_federation

from ledger.keys import Signer
from ledger.roster import Roster
from node import doctor_network
from node.address_record import sign_address_record
from node.config import load_site, load_site_charter
from node.doctor_network import look
from node.doctor_pairs import (
    Facts,
    clock_findings,
    others_findings,
    own_findings,
)
from node.findings import Finding, Level
from node.identity import load_identity
from node.libp2p import Libp2pNetwork, peer_id_text
from node.line import Line
from node.network import REACH_PROTOCOL, SYNC_PROTOCOL, Peer
from node.networking import peers_of
from swarm.protocol.messages import Hello, SyncReply, encode_sync_reply
from swarm.protocol.reach import Reach, Sight, encode_reach

ANNA, BERTA, CLARA = range(3)


class Member:
    """What a doctor meets at another hospital: a real network, and answers to two questions."""

    def __init__(self, *, ahead_s: float = 0.0, reach: Reach | None = None) -> None:
        self.ahead_s = ahead_s
        self.reach = reach or Reach(sights={}, carries=True)

    async def on_gossip(self, peer: int, message: bytes) -> None: ...

    async def on_request(self, _peer: int, protocol: str, _body: bytes) -> bytes:
        if protocol == REACH_PROTOCOL:
            return encode_reach(self.reach)
        assert protocol == SYNC_PROTOCOL
        now_ms = doctor_now_ms() + int(self.ahead_s * 1000)
        hello = Hello(heads={}, round=0, phase=0, time_ms=now_ms)
        return encode_sync_reply(SyncReply(hello=hello, envelopes=()))


def doctor_now_ms() -> int:
    from node.doctor_visit import _now_ms

    return _now_ms()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Site]:
    return make_federation(tmp_path_factory.mktemp("made"), ("Anna", "Berta", "Clara"))


@pytest.fixture
def sites(made: list[Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Site]:
    monkeypatch.setattr(doctor_network, "DIAL_TIMEOUT_S", 1.0)
    shutil.copytree(made[0].directory.parent, tmp_path / "sites")
    return [Site(tmp_path / "sites" / one.directory.name, one.port) for one in made]


@asynccontextmanager
async def running(
    site: Site,
    own: int,
    *,
    handlers: Member | None = None,
    port: int | None = None,
    **options: object,
) -> AsyncIterator[None]:
    """A member's network for as long as the block lasts."""
    config = load_site(site.config)
    roster = Roster.from_charter(load_site_charter(config))
    peers = options.pop("peers", None) or peers_of(roster)
    network = Libp2pNetwork(
        own_index=own,
        network_seed=load_identity(config.paths).network_seed,
        listen=[f"/ip4/127.0.0.1/tcp/{port or site.port}"],
        peers=peers,  # type: ignore[arg-type]
        net=options.pop("net", roster.net),  # type: ignore[arg-type]
        log=Log(),
        **options,  # type: ignore[arg-type]
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run, handlers or Member())
        yield
        nursery.cancel_scope.cancel()


async def facts_of(site: Site, own: int = ANNA) -> Facts:
    config = load_site(site.config)
    roster = Roster.from_charter(load_site_charter(config))
    names = {member.index: member.name for member in roster.active}
    keys = {peer_id_text(member.network_key): member.index for member in roster.active}
    return await look(config, roster, load_identity(config.paths), own, names, keys)


def line(findings: object, name: str) -> Finding:
    """The one line that begins with a name."""
    (found,) = [one for one in findings if one.what.startswith(name)]  # type: ignore[attr-defined]
    return found  # type: ignore[no-any-return]


def set_address(sites: list[Site], number: int, address: str) -> None:
    """Another address for one member in everybody's charter."""
    old = f"/ip4/127.0.0.1/tcp/{sites[number].port}"
    for site in sites:
        site.charter.write_text(site.charter.read_text().replace(f'"{old}"', address))


async def test_nothing_listens_and_who_is_to_start_it(sites: list[Site]) -> None:
    found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert found.level is Level.WARN
    assert f"refused: nothing listens on 127.0.0.1:{sites[1].port}" in found.what
    assert found.change.startswith("Berta: it may not run yet")


async def test_a_name_that_does_not_resolve(sites: list[Site]) -> None:
    set_address(sites, BERTA, '"/dns4/swarm.berta.invalid/tcp/4001"')
    found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert "DNS: swarm.berta.invalid" in found.what
    assert "Berta: correct that name" in found.change
    assert "Anna: check that its name server answers" in found.change


@pytest.mark.parametrize("how", ["drops", "says nothing"])
async def test_a_firewall_that_drops_and_a_port_that_says_nothing(
    sites: list[Site], how: str
) -> None:
    there = deaf(sites[1].port) if how == "drops" else listener(sites[1].port, trio.sleep_forever)
    async with there:
        found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert "timeout" in found.what
    assert ("(firewall?)" in found.what) == (how == "drops")
    assert "Berta: it may not run yet; if it does, let Anna in through the firewall" in found.change
    assert "Anna: let TCP out to it" in found.change


@asynccontextmanager
async def deaf(port: int) -> AsyncIterator[None]:
    """A port whose queue is full: the kernel drops every further call, as a firewall does."""
    with socket.socket() as server, ExitStack() as stack:
        server.bind(("127.0.0.1", port))
        server.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        yield


async def test_another_program_answers_there(sites: list[Site]) -> None:
    async with listener(sites[1].port, None):
        found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert "no swarm node" in found.what
    assert "another program answers there" in found.change


@asynccontextmanager
async def listener(port: int, wait: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
    async def answer(stream: trio.SocketStream) -> None:
        if wait is not None:
            await wait()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (server,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [server])
        yield
        nursery.cancel_scope.cancel()
        await server.aclose()


async def test_the_address_leads_to_another_member(sites: list[Site]) -> None:
    async with running(sites[2], CLARA, port=sites[1].port):
        found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert found.level is Level.FAIL
    assert "wrong key" in found.what
    assert found.change == "Berta: that address leads to Clara: correct it, or the port forwarding"


async def test_the_address_leads_to_a_key_that_is_nobodys(
    sites: list[Site], tmp_path: Path
) -> None:
    (stranger,) = make_federation(tmp_path / "elsewhere", ("Berta",))
    async with running(stranger, 0, port=sites[1].port):
        found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert found.level is Level.FAIL
    assert found.change.startswith("Berta: no member's key")


async def test_a_member_that_does_not_know_this_site(sites: list[Site]) -> None:
    roster = Roster.from_charter(load_site_charter(load_site(sites[1].config)))
    without_anna = [peer for peer in peers_of(roster) if peer.index != ANNA]
    async with running(sites[1], BERTA, peers=without_anna):
        found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert found.level is Level.FAIL
    assert "not a member" in found.what
    assert found.change.startswith("both: Berta does not have Anna's key")


async def test_a_member_with_another_pre_shared_key(sites: list[Site]) -> None:
    async with running(sites[1], BERTA, line=Line(psk=bytes(32))):
        found = line(own_findings(await facts_of(sites[0])), "Berta")
        (sites[0].directory / "swarm.key").write_text("11" * 32)
        sites[0].edit("# psk_file =", 'psk_file = "swarm.key" #')
        other = line(own_findings(await facts_of(sites[0])), "Berta")
    assert "psk_file" in found.line()
    assert other.level is Level.FAIL
    assert "pre-shared key" in other.what
    assert other.change == "both: every member needs the same psk_file, or none"


async def test_a_member_of_another_charter(sites: list[Site]) -> None:
    async with running(sites[1], BERTA, net=bytes(32)):
        found = line(own_findings(await facts_of(sites[0])), "Berta")
    assert found.level is Level.FAIL
    assert "another charter" in found.what
    assert "charter digest" in found.change


@pytest.mark.parametrize(
    ("ahead_s", "level", "words"),
    [
        (0, Level.OK, "within 30 s"),
        (45, Level.WARN, "45 s ahead"),
        (-900, Level.FAIL, "15 min beh"),
    ],
)
async def test_clocks(sites: list[Site], ahead_s: float, level: Level, words: str) -> None:
    async with running(sites[1], BERTA, handlers=Member(ahead_s=ahead_s)):
        (found,) = clock_findings(await facts_of(sites[0]))
    assert (found.level, words in found.what) == (level, True)


async def test_one_that_is_reached_through_another_and_one_that_accepts_no_connection(
    sites: list[Site],
) -> None:
    set_address(sites, CLARA, "")
    reach = Reach(sights={ANNA: Sight.CONNECTED, CLARA: Sight.CONNECTED}, carries=True)
    async with running(sites[1], BERTA, handlers=Member(reach=reach)):
        facts = await facts_of(sites[0])
        found = line(own_findings(facts), "Clara")
        assert (found.level, found.change) == (Level.OK, "")
        assert found.what == "Clara: via Berta; it accepts no connection (outbound only)"
        assert line(others_findings(facts), "Berta").what.startswith("Berta: connected to everyb")


async def test_one_that_others_reach_runs_so_the_fault_lies_in_between(sites: list[Site]) -> None:
    reach = Reach(sights={ANNA: Sight.CONNECTED, CLARA: Sight.CONNECTED}, carries=True)
    async with running(sites[1], BERTA, handlers=Member(reach=reach)):
        found = line(own_findings(await facts_of(sites[0])), "Clara")
    assert found.level is Level.WARN
    assert found.what.startswith("Clara: via Berta, not directly: refused")
    assert found.change.startswith("Clara: it runs, Berta reaches it: correct the address")


def without_berta(sites: list[Site]) -> list[Peer]:
    roster = Roster.from_charter(load_site_charter(load_site(sites[2].config)))
    return [peer for peer in peers_of(roster) if peer.index != BERTA]


async def test_what_a_member_signed_of_its_addresses_goes_before_the_charter(
    sites: list[Site],
) -> None:
    """Clara accepts no connection; Anna, who has never run, learns that from Berta."""
    config = load_site(sites[2].config)
    charter = load_site_charter(config)
    said = sign_address_record(
        Signer(load_identity(config.paths).network_seed),
        net=charter.net, author=CLARA, epoch=0, sequence=1, addresses=(),
    )  # fmt: skip
    sights = {ANNA: Sight.CONNECTED, CLARA: Sight.CONNECTED}
    reach = Reach(sights=sights, carries=True, records=(said,))
    async with running(sites[1], BERTA, handlers=Member(reach=reach)):
        found = line(own_findings(await facts_of(sites[0])), "Clara")
    assert found.what == "Clara: via Berta; it accepts no connection (outbound only)"


async def test_what_another_site_says_of_a_third(sites: list[Site]) -> None:
    reach = Reach(sights={ANNA: Sight.CONNECTED, CLARA: Sight.TIMEOUT}, carries=True)
    async with (
        running(sites[1], BERTA, handlers=Member(reach=reach)),
        running(sites[2], CLARA, peers=without_berta(sites)),
    ):
        found = line(others_findings(await facts_of(sites[0])), "Berta → Clara")
    assert found.level is Level.WARN
    assert found.what.startswith("Berta → Clara: timeout (firewall?); Clara → Berta: not connected")
    assert found.change == (
        "Clara: let Berta in through the firewall to that port; Berta: let TCP out to it"
    )


def test_every_code_has_words_and_somebody_who_changes_something() -> None:
    from node.doctor_pairs import WORDS

    assert set(WORDS) == set(Sight)
    for sight in Sight:
        facts = Facts(
            own=0, names={0: "Anna", 1: "Berta"}, sights={1: sight}, reasons={}, views={},
            skews_s={}, listens=False,
        )  # fmt: skip
        (found,) = own_findings(facts)
        assert (found.change == "") == (sight is Sight.CONNECTED), found.line()
        assert "{" not in found.line()
