"""What honest merges say of every member: merged, or left out and why. Room: scenarios.

Law: counted from the records alone (held.py). What a member knew when it merged is what it had acknowledged.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from ledger.charter import Charter
from ledger.record import Aggregation, Contribution, Reason, Record
from ledger.roster import Roster
from scenarios.simulation.held import Ledger, Vote
from scenarios.simulation.observations import Log, Observations

OFFERED_NOTHING: Final = (Reason.INACTIVE, Reason.LATE)
"""Reasons that say that there is no contribution of the round."""


def everybody_is_accounted_for(
    lasting: Collection[int],
    charter: Charter,
    ledgers: Mapping[int, Ledger],
    rosters: Mapping[int, Roster],
    seen: Observations,
) -> None:
    """Every honest merge names each member of its roster, and gives no reason that it knows to be false.

    It may merge what a cut has kept of one that was removed since.
    """
    topology = charter.topology
    for index, ledger in ledgers.items():
        for record, body, acked in _merges(ledger, index):
            merged = {one.author for one in body.inputs}
            out = {one.author: one.reason for one in body.left_out}
            active = rosters[index].active_at(record.roster)
            due = set(active)
            if topology is not None and record.round > 0:  # only neighbours are accounted for
                due = {index, *topology.senders(sorted(active), index, record.round)}
            named = (merged | out.keys()) - (merged - active)
            whose = f"member {index}'s merge of round {record.round}"
            if named != due:
                what = (
                    f"{whose} says nothing of {sorted(due - named)}, or names {sorted(named - due)}"
                )
                seen.blame("late-accounted", what)
            twice = [one for one in sorted(merged & out.keys()) if out[one] != Reason.SUPERSEDED]
            if twice:  # an older offer of who is merged may be superseded
                seen.blame("late-accounted", f"{whose} merges {twice} and leaves them out")
            for member, reason in out.items():
                if reason in OFFERED_NOTHING and member in lasting:
                    slot = _offer(ledger, member, record.round)
                    if slot is not None and acked.get(slot[0], -1) >= slot[1]:
                        what = f"{whose} leaves out member {member} as {Reason(reason).name}"
                        seen.blame("late-accounted", f"{what}, and had acknowledged its offer")


def late_inputs(ledger: Ledger, agreed: Mapping[int, frozenset[Vote]]) -> int:
    """How many inputs of agreed rounds had been offered for an earlier one."""
    offers = {
        slot: record.round
        for slot, record in ledger.records.items()
        if isinstance(record.body, Contribution)
    }
    return sum(
        offers.get((author, epoch, seq), round_) < round_
        for round_, votes in agreed.items()
        for _, inputs, _ in votes
        for author, epoch, seq, *_ in inputs
    )


def _merges(ledger: Ledger, author: int) -> Iterator[tuple[Record, Aggregation, Mapping[Log, int]]]:
    """Every merge of a member, and what it had acknowledged before it."""
    acked: dict[Log, int] = {}
    for record in ledger.of(author):
        if isinstance(record.body, Aggregation):
            yield record, record.body, acked
        for ack in record.acks:
            acked[ack.author, ack.epoch] = ack.seq


def _offer(ledger: Ledger, member: int, round_: int) -> tuple[Log, int] | None:
    """Log and place of a member's first contribution to a round."""
    for record in ledger.of(member):
        if record.round == round_ and isinstance(record.body, Contribution):
            return (record.author, record.epoch), record.seq
    return None
