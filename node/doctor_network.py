"""The doctor's look outside: who reaches whom, and whether clocks agree.

Room: node. Law: while the node runs it is asked, over its own socket; else the doctor dials as the node
would, says where it stands as the node would, and hangs up. It stores and signs nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from ledger.errors import ConfigError, StoreError
from ledger.keys import Signer
from ledger.roster import Roster
from ledger.store import Store
from node.address_book import STATE_KEY, AddressBook
from node.config import SiteConfig
from node.doctor_pairs import (
    Facts,
    clock_findings,
    others_findings,
    own_findings,
    sight_of_dial,
)
from node.findings import Finding, fail, ok, warn
from node.identity import Identity, load_identity, own_place
from node.line import line_of
from node.network import Peer
from node.roster_files import known_to_site
from node.status import ask
from node.telemetry import get_log
from swarm.protocol.reach import Reach, Sight

if TYPE_CHECKING:
    from node.doctor import UseSite

DIAL_TIMEOUT_S: Final = 5.0
CHARTER_FAULT: Final = "not a member: "


def examine_network(
    path: Path, overrides: Mapping[str, str], *, use_site: "UseSite"
) -> Iterator[Finding]:
    """Yield what `doctor --network` says: every pair of members, as far as can be known from here."""
    try:
        config = use_site(path, overrides)
        identity = load_identity(config.paths)
        roster = known_to_site(config).roster
        own = own_place(roster, identity).author
        facts = gather(config, roster, identity, own)
    except (ConfigError, StoreError) as error:
        yield fail("configuration", str(error))
        return
    yield _own_place(config, facts)
    yield from own_findings(facts)
    yield from others_findings(facts)
    yield from clock_findings(facts)


def check_network(
    config: SiteConfig, roster: Roster, identity: Identity, own: int
) -> Iterator[Finding]:
    """Yield the lines of the whole examination: this site's own connections, and the clocks."""
    facts = gather(config, roster, identity, own)
    yield from own_findings(facts)
    if facts.skews_s:
        yield from clock_findings(facts)
    else:
        yield warn("clock", "not checked: no member answers yet", "run the doctor again later")


def gather(config: SiteConfig, roster: Roster, identity: Identity, own: int) -> Facts:
    """Ask the running node, or look by ourselves. Raises ConfigError."""
    from node.libp2p import peer_id_text

    names = {member.index: member.name for member in roster.active}
    keys = {peer_id_text(member.network_key): member.index for member in roster.active}
    status = ask(config.paths.socket)
    told = None if status is None else status.get("network")
    if told is not None:
        return _told(told, own, names, keys, listens=bool(config.listen))
    return trio.run(look, config, roster, identity, own, names, keys)


def _own_place(config: SiteConfig, facts: Facts) -> Finding:
    where = ", ".join(config.listen) or "nowhere (outbound only)"
    runs = "its node runs" if facts.running else "its node does not run: the doctor dials"
    return ok("site", f"{facts.names[facts.own]} listens on {where}; {runs}")


def _told(
    told: Mapping[str, Any],
    own: int,
    names: Mapping[int, str],
    keys: Mapping[str, int],
    *,
    listens: bool,
) -> Facts:
    """Read what a running node says; it is our own, of another version at worst."""
    try:
        return Facts(
            own=own,
            names=names,
            sights=_sights(told["sights"]),
            reasons={int(member): str(text) for member, text in told["reasons"].items()},
            views={
                int(peer): Reach(sights=_sights(view["sights"]), carries=bool(view["carries"]))
                for peer, view in told["views"].items()
            },
            skews_s={int(p): float(s) for p, s in told["skews_s"].items() if int(p) in names},
            keys=keys,
            listens=listens,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            "the running node is of another version: stop it, or use its own doctor"
        ) from error


def _sights(told: Mapping[str, int]) -> dict[int, Sight]:
    return {int(member): Sight(code) for member, code in told.items()}


async def look(
    config: SiteConfig,
    roster: Roster,
    identity: Identity,
    own: int,
    names: Mapping[int, str],
    keys: Mapping[str, int],
) -> Facts:
    """Dial everybody, then stay for a moment with those who answer."""
    from node.doctor_visit import visit

    book = _book(config, roster, identity, own)
    psk = line_of(config).psk
    peers = _peers(roster, own, book)
    reasons = await _dial_all(identity.network_seed, peers, psk)
    answering = [peer for peer in peers if reasons[peer.index] is None]
    seen = await visit(config, identity, own, net=roster.net, peers=answering)
    await book.learn(seen.records, source="a member")
    moved = [peer for peer in _peers(roster, own, book) if peer not in peers]
    reasons |= await _dial_all(identity.network_seed, moved, psk)
    sights = {member: sight_of_dial(reason) for member, reason in reasons.items()}
    for member in seen.foreign:
        sights[member] = Sight.OTHER_CHARTER
        reasons[member] = "it holds another charter"
    return Facts(
        own=own,
        names=names,
        sights=sights,
        reasons={member: text for member, text in reasons.items() if text is not None},
        views=seen.views,
        skews_s=seen.skews_s,
        keys=keys,
        listens=bool(config.listen),
        running=False,
    )


def _book(config: SiteConfig, roster: Roster, identity: Identity, own: int) -> AddressBook:
    """Return the node's address book as it was left; nothing that is learnt now is kept."""
    stored = None
    if config.paths.ledger.exists():
        with Store.open(config.paths.ledger, read_only=True) as store:
            stored = store.state_get(STATE_KEY)
    signer = Signer(identity.network_seed)
    return AddressBook(roster=roster, own=own, signer=signer, log=get_log(), stored=stored)


def _peers(roster: Roster, own: int, book: AddressBook) -> list[Peer]:
    """Return the others with the addresses that the node would dial."""
    return [
        Peer(
            index=m.index,
            name=m.name,
            network_key=m.network_key,
            addresses=tuple(one.text for one in book.addresses(m.index)),
        )
        for m in roster.active
        if m.index != own
    ]


async def _dial_all(
    network_seed: bytes, peers: Sequence[Peer], psk: bytes | None
) -> dict[int, str | None]:
    from node.libp2p import probe_member

    reasons: dict[int, str | None] = {}

    async def dial(peer: Peer) -> None:
        try:
            reasons[peer.index] = await probe_member(
                network_seed=network_seed, peer=peer, timeout_s=DIAL_TIMEOUT_S, psk=psk
            )
        except ConfigError as error:
            reasons[peer.index] = f"{CHARTER_FAULT}{error}"

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(dial, peer)
    return reasons
