"""What the simulation sees of the honest members while they run: what left them, what they believed.

Room: scenarios. Law: only looks; nothing here changes what a node does. What can only be seen at one
moment is judged at that moment and kept as a violation; the rest is evidence for checkers.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

from ledger.errors import PeerError, VerificationError
from ledger.record import Record, SignedRecord, decode_record, parse_envelope
from ledger.roster import Roster
from node.exchange import GATHERED_MAX
from node.intake import PENDING_MAX, RECENT_IDS
from node.journal import Journal
from node.network import GOSSIP_QUEUE_MAX, SYNC_PROTOCOL
from node.service import Service
from swarm.protocol.book import Agreed, Proposal
from swarm.protocol.messages import decode_gossip, decode_sync_reply

Slot = tuple[int, int, int]
"""(author, epoch, seq)"""
Log = tuple[int, int]

PAYLOADS_A_ROUND: Final = 3
"""Payloads that a node may keep for each member and round: an offer, a result, and one spare."""
RECORD_DISK_BYTES: Final = 4_096
"""What a stored record may cost on the disk, indexes and write-ahead log included."""
DISK_BYTES: Final = 1 << 20
"""What an empty store may cost."""


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """One invariant that did not hold."""

    invariant: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


@final
@dataclass
class Observations:
    """Everything seen in one run."""

    honest: frozenset[int]
    sites: int
    """All that there may be: a simulated network has no door, and brings also what strangers say."""
    violations: list[Violation] = field(default_factory=list)
    left: dict[Slot, dict[bytes, Record]] = field(default_factory=dict)
    """Honest members' own records that left them, in all their lives."""
    late_inputs: int = 0
    """Contributions to an earlier round that agreed rounds have merged."""
    _seen: dict[int, set[bytes]] = field(default_factory=dict)
    _agreed: dict[int, dict[int, Proposal]] = field(default_factory=dict)
    _backed: dict[tuple[int, int], dict[Log, int]] = field(default_factory=dict)
    """(member, round) → what it held of each member whose vote made that round agreed for it."""

    def blame(self, invariant: str, detail: str) -> None:
        """Note a violation, once."""
        one = Violation(invariant, detail)
        if one not in self.violations:
            self.violations.append(one)

    # What leaves an honest member

    def broadcast(self, index: int, message: bytes) -> None:
        """A gossip message leaves."""
        try:
            self._leaves(index, decode_gossip(message))
        except PeerError as error:
            self.blame("well-formed", f"member {index} gossips {error}")

    def replied(self, index: int, protocol: str, reply: bytes) -> None:
        """A reply leaves."""
        if protocol == SYNC_PROTOCOL:
            try:
                self._leaves(index, decode_sync_reply(reply).envelopes)
            except PeerError as error:
                self.blame("well-formed", f"member {index} answers a comparison with {error}")

    def leaked(self, server: int, asker: int, digest: bytes) -> None:
        """An honest member served a payload of a round to one who had not committed to its own."""
        if server in self.honest:
            self.blame(
                "commit-before-fetch",
                f"member {server} serves {digest.hex()[:12]} to member {asker}, who has not "
                "contributed to that round",
            )

    def _leaves(self, index: int, envelopes: Sequence[bytes]) -> None:
        seen = self._seen.setdefault(index, set())
        for envelope in envelopes:
            if envelope in seen:
                continue
            seen.add(envelope)
            try:
                signed = parse_envelope(envelope)
                value = decode_record(signed.record_bytes)
            except VerificationError as error:
                self.blame(
                    "well-formed", f"member {index} passes on a record that is none: {error}"
                )
                continue
            if value[2] == index:
                slot = (value[2], value[3], value[4])
                ids = self.left.setdefault(slot, {})
                ids[signed.id] = Record.from_value(value)
                if len(ids) > 1:
                    self.blame("one-signature-a-slot", f"member {index} signs twice for {slot}")

    # At the start of a life

    def starts(self, index: int, journal: Journal, stored: Sequence[SignedRecord]) -> None:
        """Compare what a restarted member holds with what it had sent."""
        held = {signed.id for signed in stored}
        counts = journal.counts()
        for slot, records in self.left.items():
            if slot[0] != index:
                continue
            for id_, record in records.items():
                if id_ not in held:
                    self.blame(
                        "durable-before-sent",
                        f"member {index} sent its record {slot} and starts without it",
                    )
                for ack in record.acks:
                    cut = journal.roster.cut(ack.author, ack.epoch)
                    may_be_other_branch = ack.author not in self.honest
                    if cut is not None and (ack.seq >= cut.kept or may_be_other_branch):
                        continue  # a quorum has decided that it goes
                    if counts.get((ack.author, ack.epoch), 0) <= ack.seq:
                        self.blame(
                            "durable-before-acked",
                            f"member {index} acknowledged {(ack.author, ack.epoch, ack.seq)} and "
                            "starts without it",
                        )

    # Now and then

    def looks(self, index: int, service: Service) -> None:
        """Look at one running honest member: what it believes is agreed, how much it holds."""
        before = self._agreed.setdefault(index, {})
        for round_ in service.book.agreed_rounds():
            agreed = service.book.agreed(round_)
            if agreed is not None:
                if round_ not in before:
                    self._backed[index, round_] = _held_of_voters(agreed, service.journal)
                known = before.setdefault(round_, agreed.proposal)
                if known != agreed.proposal:
                    self.blame("completed-stays", f"member {index} takes round {round_} back")
        for round_ in before:
            if service.book.agreed(round_) is None:
                if self.is_cut_away(index, round_, service.journal.roster):
                    continue
                self.blame("completed-stays", f"member {index} forgets round {round_}")
        self._bounds(index, service)

    def is_cut_away(self, index: int, round_: int, roster: Roster) -> bool:
        """Whether a cut took records of a member whose vote was among those that made the round agreed."""
        backed = self._backed.get((index, round_), {})
        cuts = [(cut, count) for log, count in backed.items() if (cut := roster.cut(*log))]
        return any(count > cut.kept for cut, count in cuts)

    def agreed(self) -> dict[int, dict[int, Proposal]]:
        """Member → round → what it took for agreed."""
        return self._agreed

    def _bounds(self, index: int, service: Service) -> None:
        journal, members = service.journal, service.book.roster.n
        kept = {
            "records that wait for others": (journal.intake.waiting, PENDING_MAX),
            "ids remembered": (journal.intake.remembered, RECENT_IDS),
            "peers heard": (len(service.exchange.heard), self.sites),
            "announcements": (service.exchange.gathered, GATHERED_MAX),
            "pieces of work": (len(service._running), 2 * members + 8),  # noqa: SLF001
        }
        for what, (count, limit) in kept.items():
            if count > limit:
                self.blame("bounded", f"member {index} holds {what}: {count}, at most {limit}")

    def queue(self, index: int, waiting: int) -> None:
        """Gossip that waits for a member's handler."""
        if waiting > GOSSIP_QUEUE_MAX:
            self.blame("bounded", f"member {index} queues {waiting} gossip messages")

    def disk(self, index: int, used_bytes: int, records: int, payload_bytes_max: int) -> None:
        """What a member's directory takes at the end."""
        limit = DISK_BYTES + records * RECORD_DISK_BYTES + payload_bytes_max
        if used_bytes > limit:
            self.blame("bounded", f"member {index} uses {used_bytes} bytes of disk, not {limit}")


def _held_of_voters(agreed: Agreed, journal: Journal) -> dict[Log, int]:
    counts = journal.counts()
    logs = [(one, journal.roster.epoch(one)) for one in agreed.voters]
    return {log: counts.get(log, 0) for log in logs}
