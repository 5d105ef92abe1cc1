"""Where to dial the members: what the charter says, what they signed since, what the LAN shouts.

Room: node. Law: the charter's addresses remain, a member's newest signed word goes before them, an
unsigned hint is tried last. Nothing in the book lets anybody in: whoever answers a dial still has to
show the member's key. Spec: docs/wire.md §10.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, final

import trio

from ledger.canonical import decode, encode
from ledger.charter import Member
from ledger.errors import ConfigError, PeerError
from ledger.keys import Signer
from ledger.roster import Roster
from node.address_record import (
    ADDRESSES_MAX,
    SEQUENCE_MAX,
    AddressRecord,
    Known,
    is_here,
    open_address_record,
    sign_address_record,
)
from node.addresses import Address, parse_address
from node.limits import TokenBucket
from node.network import EventLog
from swarm.protocol.reach import Sequences

STATE_KEY: Final = "network/addresses"
"""Where the store keeps the envelopes."""
BOOK_BYTES_MAX: Final = 1 << 22
TAKE_PAUSE_S: Final = 5.0
"""Between two records that are taken of one author: each costs everybody a write, a line and a dial."""
_TOLD_PER_S: Final = 0.1  # lines about what was refused
_TOLD_BURST: Final = 3

Save = Callable[[bytes], Awaitable[None]]
Redirect = Callable[[int, Sequence[Address]], None]


@final
class AddressBook:
    """One node's book. ``redirect`` hears of every change, ``save`` keeps it across restarts."""

    def __init__(
        self,
        *,
        roster: Roster,
        own: int,
        signer: Signer,
        log: EventLog,
        stored: bytes | None = None,
    ) -> None:
        """Stored: what ``save`` was given last; what does not open any more is dropped."""
        self.own_addresses: Callable[[], Sequence[str] | None] = lambda: None
        self._net = roster.net
        self._own = own
        self._epoch = roster.epoch(own)
        self._signer = signer
        self._log = log
        self._charter = {m.index: _parsed(m) for m in roster.active}
        self._known = {
            m.index: Known(
                network_key=m.network_key,
                epoch=roster.epoch(m.index),
                here=any(map(is_here, m.addresses)),
            )
            for m in roster.active
        }
        # Without scope ids, which only the charter may have: nobody takes a record with one.
        self._signable = tuple(one.text for one in self._charter[own] if "%" not in one.host)
        self._wanted = self._signable
        self._records: dict[int, AddressRecord] = {}
        self._hints: dict[int, tuple[Address, ...]] = {}
        self._redirect: Redirect | None = None
        self._save: Save | None = None
        self._taken_s: dict[int, float] = {}
        self._refusals_told = TokenBucket(rate_per_s=_TOLD_PER_S, burst=_TOLD_BURST)
        self._pen = trio.Lock()
        for envelope in _unpacked(stored):
            with suppress(PeerError):  # of a roster that has passed
                record = self._open(envelope)
                self._records[record.author] = record

    def attach(self, *, redirect: Redirect | None, save: Save | None) -> None:
        """Say who is told of changes, and tell what is known already."""
        self._redirect, self._save = redirect, save
        for author in self._known.keys() - {self._own}:
            self._tell(author)

    # Own addresses

    async def announce(self) -> None:
        """Sign where this site is dialled now, unless that was said already.

        ``own_addresses()`` says so: none means nowhere; None, where the charter says, which needs a
        word only after another one. Raises ConfigError for addresses that the others would refuse.
        """
        async with self._pen:
            addresses = self.own_addresses()
            record = self._records.get(self._own)
            if addresses is None and record is None:
                return
            self._wanted = tuple(dict.fromkeys(self._signable if addresses is None else addresses))
            if record is None or tuple(one.text for one in record.addresses) != self._wanted:
                await self._keep({self._own: self._sign(after=record.sequence if record else 0)})

    def _sign(self, *, after: int) -> AddressRecord:
        sequence = min(after + 1, SEQUENCE_MAX)
        envelope = sign_address_record(
            self._signer,
            net=self._net,
            author=self._own,
            epoch=self._epoch,
            sequence=sequence,
            addresses=self._wanted[:ADDRESSES_MAX],
        )
        try:
            return self._open(envelope)
        except PeerError as error:
            raise ConfigError(f"network.addresses: {error}") from error

    # What the others say

    def sequences(self) -> Sequences:
        """Return how new the records are that are held."""
        return {author: record.age for author, record in self._records.items()}

    def lacking(self, theirs: Sequences) -> tuple[bytes, ...]:
        """Return the records that are newer than what somebody holds."""
        return tuple(
            record.envelope
            for author, record in sorted(self._records.items())
            if record.age > theirs.get(author, (-1, -1))
        )

    async def learn(self, envelopes: Iterable[bytes], *, source: str) -> None:
        """Take records that somebody passed on; what is wrong is left, and now and then logged.

        Of one author one in TAKE_PAUSE_S: another one comes again, for it is lacking here.
        """
        async with self._pen:
            now_s, newer = trio.current_time(), dict[int, AddressRecord]()
            refused: list[PeerError] = []
            for envelope in envelopes:
                try:
                    record = self._open(envelope)
                except PeerError as error:
                    refused.append(error)
                    continue
                held = newer.get(record.author) or self._records.get(record.author)
                pause_s = now_s - self._taken_s.get(record.author, -TAKE_PAUSE_S)
                if pause_s >= TAKE_PAUSE_S and (held is None or record.age > held.age):
                    newer[record.author] = record
            if refused and self._refusals_told.take(now_s=now_s):
                why = str(refused[0])
                self._log.warning("address_refused", source=source, count=len(refused), why=why)
            self._taken_s |= dict.fromkeys(newer, now_s)
            if self._own in newer:
                # Of an older start whose store is gone: what holds now has to be newer than that.
                newer[self._own] = self._sign(after=newer[self._own].sequence)
            if newer:
                await self._keep(newer)

    def hint(self, author: int, addresses: Sequence[Address]) -> None:
        """Note where somebody unknown says that a member is; tried after everything else."""
        hints = tuple(addresses)[:ADDRESSES_MAX]
        if author in self._known and self._hints.get(author, ()) != hints:
            self._hints[author] = hints
            self._tell(author)

    def only_charter(self, author: int) -> bool:
        """Return whether a member is dialled at none but the charter's addresses."""
        return set(self.addresses(author)) <= set(self._charter.get(author, ()))

    def addresses(self, author: int) -> tuple[Address, ...]:
        """Return where to dial a member, best first."""
        record = self._records.get(author)
        hints = self._hints.get(author, ())
        if record is not None and not record.addresses:
            return hints
        found: dict[str, Address] = {}
        for one in (*(record.addresses if record else ()), *self._charter.get(author, ()), *hints):
            # What the charter has too is not guarded; it keeps the place that it was given first.
            if one.text not in found or not one.guarded:
                found[one.text] = one
        return tuple(found.values())

    def _open(self, envelope: bytes) -> AddressRecord:
        return open_address_record(envelope, net=self._net, known=self._known)

    def _tell(self, author: int) -> None:
        if self._redirect is not None and author != self._own:
            self._redirect(author, self.addresses(author))

    async def _keep(self, newer: dict[int, AddressRecord]) -> None:
        """Store, then show: nobody ever sees one sequence of ours with two lists of addresses."""
        records = self._records | newer
        if self._save is not None:
            await self._save(encode([r.envelope for _, r in sorted(records.items())]))
        self._records = records
        for author, record in newer.items():
            event = "addresses_announced" if author == self._own else "address_learnt"
            shown = [one.text for one in record.addresses]
            self._log.info(event, peer=author, addresses=shown, sequence=record.sequence)
            self._tell(author)


def _parsed(member: Member) -> tuple[Address, ...]:
    return tuple(parse_address(text) for text in member.addresses)


def _unpacked(stored: bytes | None) -> list[bytes]:
    if stored is None:
        return []
    match decode(stored, bytes_max=BOOK_BYTES_MAX):
        case [*envelopes] if all(isinstance(one, bytes) for one in envelopes):
            return [one for one in envelopes if isinstance(one, bytes)]
        case _:
            raise ConfigError("the address book in ledger.db is none")
