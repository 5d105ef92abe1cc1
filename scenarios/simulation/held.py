"""What one member's disk holds of everybody's logs, and what follows from it, counted from the records.

Room: scenarios. Shares nothing with the node's own bookkeeping: votes, acks and quorums are counted here
again. Members that hold the same records share one `Ledger`, so each count is made once for all of them.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from ledger.bodies import ForkProof
from ledger.record import Aggregation, Record, decode_record, parse_envelope
from ledger.roster import Roster
from ledger.store import Store
from scenarios.simulation.observations import Log, Slot

Vote = tuple[int, tuple[tuple[int, int, int, bytes, int], ...], bytes]
"""(rule, inputs, result)"""


def quorum_of(members: int) -> int:
    """Q = (n + f) // 2 + 1 with f = (n - 1) // 3: counted here again."""
    return (members + (members - 1) // 3) // 2 + 1


def ballot_of(record: Record) -> int:
    """Which ballot of its round a vote belongs to; 0 for the first, and for what is no vote."""
    body = record.body
    return body.parameters[0] if isinstance(body, Aggregation) and body.parameters else 0


@final
@dataclass(frozen=True, eq=False)
class Ledger:
    """One copy of everything, as some members' disks have it."""

    ids: Mapping[Slot, bytes]
    records: Mapping[Slot, Record]

    @cached_property
    def logs(self) -> Mapping[Log, int]:
        """How many records of each log there are."""
        return Counter(slot[:2] for slot in self.ids)

    def of(self, author: int) -> Sequence[Record]:
        """Return one member's records, in order."""
        return self._by_author[author]

    @cached_property
    def _by_author(self) -> Mapping[int, Sequence[Record]]:
        found: dict[int, list[Record]] = defaultdict(list)
        for slot in sorted(self.records):
            found[slot[0]].append(self.records[slot])
        return found

    def final_slots(self, roster: Roster) -> frozenset[Slot]:
        """Slots that q of one roster's members have acknowledged in its time, as far as is shown here.

        An author's own records are acks of what he has written up to them.
        """
        acked: dict[tuple[Log, int], dict[int, int]] = defaultdict(dict)
        for slot, record in self.records.items():
            claims = [(slot, self.ids[slot])]
            claims += [((one.author, one.epoch, one.seq), one.id) for one in record.acks]
            for of, id_ in claims:
                if self.ids.get(of) == id_:  # not another branch of a forked log
                    row = acked[of[:2], record.roster]
                    row[slot[0]] = max(row.get(slot[0], -1), of[2])
        furthest: dict[Log, int] = defaultdict(lambda: -1)
        for (log, version), row in acked.items():
            members = roster.active_at(version)
            reached = sorted((row[one] for one in members & row.keys()), reverse=True)
            quorum = quorum_of(len(members))
            if len(reached) >= quorum:
                furthest[log] = max(furthest[log], reached[quorum - 1])
        return frozenset(slot for slot in self.ids if slot[2] <= furthest[slot[:2]])

    def agreed(self, roster: Roster) -> Mapping[int, frozenset[Vote]]:
        """Round → everything that q of one roster's members voted for, bit for bit; each forked log may hide a vote.

        Or q of those who are left of them. In round zero votes are confirmed, and the confirmations count.
        """
        found: dict[int, set[Vote]] = defaultdict(set)
        forked = self._forked()
        left = roster.active_at(roster.version)
        for (round_, ballot), by in sorted(self._votes().items()):
            if round_ == 0 and ballot % 2 == 0:
                continue  # votes that have yet to be confirmed
            whole = {version: roster.active_at(version) for version, _ in by.values()}
            remaining = {version: members & left for version, members in whole.items()}
            for electorates in (whole, remaining):
                for members in set(electorates.values()):
                    said = {
                        author: vote
                        for author, (version, vote) in by.items()
                        if author in members and electorates[version] == members
                    }
                    for vote in said.values():
                        agree = {who for who, one in said.items() if one == vote}
                        if len(agree | forked & members) >= quorum_of(len(members)):
                            found[round_].add(vote)
        return {round_: frozenset(votes) for round_, votes in found.items()}

    def _votes(self) -> dict[tuple[int, int], dict[int, tuple[int, Vote]]]:
        """(round, ballot) → author → the roster of its first vote, and that."""
        votes: dict[tuple[int, int], dict[int, tuple[int, Vote]]] = defaultdict(dict)
        for slot in sorted(self.records):
            record = self.records[slot]
            if isinstance(record.body, Aggregation):
                body = record.body
                inputs = tuple(
                    (i.author, i.epoch, i.seq, i.id, i.weight_micro) for i in body.inputs
                )
                votes[record.round, ballot_of(record)].setdefault(
                    slot[0], (record.roster, (body.rule, inputs, body.result_digest))
                )
        return votes

    def _forked(self) -> set[int]:
        """Members of whom somebody has shown two records for one slot."""
        proofs = [one.body for one in self.records.values() if isinstance(one.body, ForkProof)]
        halves = [parse_envelope(proof.envelope_a) for proof in proofs]
        return {decode_record(half.record_bytes)[2] for half in halves}


@final
class Reader:
    """Reads members' disks; a record that several hold is decoded once."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Slot, bytes, Record]] = {}
        self._ledgers: dict[tuple[bytes, ...], Ledger] = {}

    def ledger(self, store: Store) -> Ledger:
        """Return what a store holds."""
        ids: dict[Slot, bytes] = {}
        records: dict[Slot, Record] = {}
        for signed in store.records():
            known = self._known.get(signed.record_bytes)
            if known is None:
                value = decode_record(signed.record_bytes)
                slot = (value[2], value[3], value[4])
                known = slot, signed.id, Record.from_value(value)
                self._known[signed.record_bytes] = known
            slot, ids[slot], records[slot] = known[0], known[1], known[2]
        return self._ledgers.setdefault(tuple(ids.values()), Ledger(ids, records))
