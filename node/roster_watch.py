"""How roster updates reach a running node: from its inbox, and from its peers. Room: node.

An update changes who may sign, who may connect and how many make a quorum. So a node stores it, stops
writing, and its service ends with RosterChangedError; `swarm-node run` then starts it anew from its
store, in the same process, under the new roster. Nothing is switched half-way. docs/adr/0010.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, final

import trio

from ledger.errors import (
    ConfigError,
    PeerError,
    StoreError,
    UnavailableError,
    VerificationError,
)
from ledger.roster import Roster
from ledger.roster_update import (
    SIGNED_UPDATE_BYTES_MAX,
    SignedUpdate,
    check_previous,
    check_signatures,
    decode_update,
    parse_update,
)
from node.journal import Journal, RosterChangedError
from node.network import REQUEST_BYTES_MAX, ROSTER_PROTOCOL
from node.roster_files import write_update
from node.world import World
from swarm.protocol.rosters import (
    decode_roster_reply,
    decode_roster_request,
    encode_roster_reply,
    encode_roster_request,
)

REQUEST_TIMEOUT_S: Final = 10.0
ASK_PAUSE_S: Final = 0.5
"""Between two questions that were asked at once: members could name rosters that do not exist."""
INBOX_MAX: Final = 64
"""Files that are looked at in one go; more than one is unusual."""
CONFLICTS_MAX: Final = 16
"""Conflicting updates that are reported and kept; a quorum that signed more of them is known by then."""


@final
class RosterWatch:
    """Asks, answers, and stores. ``changed`` is called once, when nothing may be written any more."""

    def __init__(
        self,
        *,
        world: World,
        journal: Journal,
        inbox: Path | None,
        changed: Callable[[Exception], None],
    ) -> None:
        self._world = world
        self._journal = journal
        self._inbox = inbox
        self._changed = changed
        self._conflicts: set[bytes] = set()
        self._ask_first: set[int] = set()
        self._soon = trio.Event()

    def ask_soon(self, peers: Iterable[int]) -> None:
        """Ask these peers now: a record that came from them names a roster that is not known here."""
        self._ask_first.update(peers)
        self._soon.set()

    async def run(self, interval_s: float) -> None:
        """Look into the inbox and ask one peer, again and again; at once where an update is missing."""
        while True:
            await self._read_inbox()
            peers = self._world.network.connected()
            asked = sorted(self._ask_first & peers)
            self._ask_first.clear()
            for peer in asked or self._world.random.sample(sorted(peers), min(1, len(peers))):
                await self._ask_quietly(peer)
            with trio.move_on_after(interval_s * self._world.random.uniform(0.75, 1.25)):
                await self._soon.wait()
                await trio.sleep(ASK_PAUSE_S)
            self._soon = trio.Event()

    async def on_request(self, _peer: int, body: bytes) -> bytes:
        """Answer a peer. Raises PeerError when it asks for nonsense."""
        digest = decode_roster_request(body)
        updates = self._journal.updates
        known = [self._journal.roster.net, *(one.digest for one in updates)]
        # Who has another history gets ours from its start: so he finds the conflict.
        after = known.index(digest) if digest in known else 0
        return encode_roster_reply([one.envelope() for one in updates[after:]])

    async def _ask_quietly(self, peer: int) -> None:
        try:
            reply = await self._world.network.request(
                peer,
                ROSTER_PROTOCOL,
                encode_roster_request(self._journal.roster.digest),
                reply_bytes_max=REQUEST_BYTES_MAX,
                timeout_s=REQUEST_TIMEOUT_S,
            )
            for data in decode_roster_reply(reply):
                await self._take(parse_update(data), source=f"peer {peer}")
        except UnavailableError as error:
            self._world.log.debug("roster_unavailable", peer=peer, why=str(error))
        except PeerError as error:
            self._world.log.warning("roster_refused", peer=peer, why=str(error))

    async def _read_inbox(self) -> None:
        """Take what `roster submit` left; a file that was taken or refused is removed."""
        if self._inbox is None or not self._inbox.is_dir():
            return
        for path in sorted(self._inbox.glob("*.update"))[:INBOX_MAX]:
            try:
                with path.open("rb") as file:
                    data = file.read(SIGNED_UPDATE_BYTES_MAX + 1)
                await self._take(parse_update(data), source=str(path))
            except UnavailableError:
                return  # another update has just been stored: this one waits for the next start
            except PeerError as error:
                self._world.log.warning("roster_refused", file=str(path), why=str(error))
            except OSError as error:
                self._world.log.warning("inbox_unreadable", file=str(path), why=error.strerror)
                continue
            with suppress(OSError):
                path.unlink(missing_ok=True)

    async def _take(self, signed: SignedUpdate, *, source: str) -> None:
        """Store an update that is new. Raises VerificationError if it is refused."""
        known = {one.digest: one for one in self._journal.updates}
        if signed.digest in known:
            return
        await self._refuse_conflict(signed, source)
        try:
            roster = await self._journal.change_roster(signed)
        except StoreError as error:
            self._changed(error)
            raise
        self._world.log.info(
            "roster_changed", version=roster.version, members=roster.n, quorum=roster.q
        )
        self._changed(RosterChangedError(roster.version))

    async def _refuse_conflict(self, signed: SignedUpdate, source: str) -> None:
        """Say once, loudly, that a quorum has signed twice; what is stored first stays.

        Raises E_ROSTER_FORK for an update beside one that is stored, and the codes of
        check_previous and check_signatures for one that no quorum signed: it proves nothing.
        """
        update = decode_update(signed.update_bytes)
        before = self._continued(update.previous)
        if before is None:
            return
        check_previous(before, update)
        check_signatures(before, signed)
        if signed.digest not in self._conflicts and len(self._conflicts) < CONFLICTS_MAX:
            self._conflicts.add(signed.digest)
            self._world.log.warning(
                "roster_fork", source=source, version=update.version, digest=signed.digest.hex(),
                proof=await self._keep_proof(signed),
            )  # fmt: skip
        raise VerificationError(
            "E_ROSTER_FORK", f"another update continues the roster before {update.version}"
        )

    async def _keep_proof(self, signed: SignedUpdate) -> str:
        """Write a refused update beside the inbox and say where: the store has the other one."""
        if self._inbox is None:
            return "not kept: this site has no inbox"
        path = self._inbox.with_name(f"roster-fork-{signed.digest.hex()}.update")
        try:
            await self._world.disk.run(write_update, path, signed)
        except ConfigError as error:
            return f"not kept: {error}"
        return str(path)

    def _continued(self, digest: bytes) -> Roster | None:
        """Return the roster of that digest, as far as signatures go, if a stored update continues it."""
        version = 0
        for one in self._journal.updates:
            update = decode_update(one.update_bytes)
            if update.previous == digest:
                return _as_it_was(self._journal.roster, version, digest)
            version = update.version
        return None


def _as_it_was(roster: Roster, version: int, digest: bytes) -> Roster:
    """Return an earlier version with its members and quorum; admin keys never change."""
    were = roster.active_at(version)
    terms = (
        (replace(first, until=None if author in were else version),)
        for author, (first, *_) in enumerate(roster.terms)
    )
    return replace(roster, version=version, digest=digest, terms=tuple(terms))
