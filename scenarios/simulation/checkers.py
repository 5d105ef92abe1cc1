"""What must hold when a run is over, judged from files alone: stores, bundles, payloads.

Room: scenarios. Law: nothing of the node's own bookkeeping is asked; votes, acks and sets are counted
here again from the records, and bundles are verified by `swarm-audit`'s own code. docs/simulator.md §4.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from ledger.bodies import ForkProof
from ledger.bundle import export_bundle
from ledger.charter import Charter
from ledger.errors import SwarmError
from ledger.record import Aggregation, Contribution, Kind, Record, decode_record, parse_envelope
from ledger.store import Store
from ledger.verify import Brought, verify_bundles
from scenarios.simulation.disk import DATABASE
from scenarios.simulation.observations import PAYLOADS_A_ROUND, Log, Observations, Slot
from scenarios.simulation.plan import Plan

PAYLOAD_BYTES: Final = 512
"""More than any payload of the tiny learner."""

Vote = tuple[int, tuple[tuple[int, int, int, bytes, int], ...], bytes]
"""(rule, inputs, result)"""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run has left."""

    plan: Plan
    charter: Charter
    disks: Mapping[int, Path]
    """Lasting honest members' directories."""
    payloads: Path
    """Every payload that an honest member ever held."""
    scratch: Path


@final
@dataclass(frozen=True)
class Ledger:
    """One member's copy of everything, read from its disk."""

    ids: Mapping[Slot, bytes]
    records: Mapping[Slot, Record]

    @property
    def logs(self) -> dict[Log, int]:
        """How many records of each log there are."""
        counts: Counter[Log] = Counter(slot[:2] for slot in self.ids)
        return dict(counts)


def check(evidence: Evidence, seen: Observations) -> None:
    """Judge everything; what does not hold is noted in ``seen``."""
    ledgers: dict[int, Ledger] = {}
    bundles: list[Path] = []
    for index, disk in evidence.disks.items():
        try:
            with Store.open(disk / DATABASE) as store:
                ledgers[index] = _read(store)
                bundle = evidence.scratch / f"bundle-{index}"
                bundles.append(export_bundle(store, evidence.charter.source_bytes, bundle))
        except SwarmError as error:
            seen.blame("bundles-verify", f"member {index} cannot export: {error}")
    one_slot_one_record(evidence.plan, ledgers, seen)
    no_honest_record_lost(evidence.plan, ledgers, seen)
    votes_are_single(evidence.plan, ledgers, seen)
    agreed_is_one(evidence.plan, ledgers, seen)
    everybody_is_accounted_for(evidence.plan, evidence.charter, ledgers, seen)
    disks_are_bounded(evidence, ledgers, seen)
    if bundles:
        bundles_verify(evidence, bundles, ledgers, seen)


def _read(store: Store) -> Ledger:
    ids, records = {}, {}
    for signed in store.records():
        value = decode_record(signed.record_bytes)
        slot = (value[2], value[3], value[4])
        ids[slot] = signed.id
        records[slot] = Record.from_value(value)
    return Ledger(ids, records)


def one_slot_one_record(plan: Plan, ledgers: Mapping[int, Ledger], seen: Observations) -> None:
    """No slot of an honest log has two records anywhere; no slot at all has two that are final."""
    everywhere: dict[Slot, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for slot, records in seen.left.items():
        for id_ in records:
            everywhere[slot][id_].append(-1)
    for index, ledger in ledgers.items():
        for slot, id_ in ledger.ids.items():
            everywhere[slot][id_].append(index)
    final = {index: final_slots(plan, ledger) for index, ledger in ledgers.items()}
    for slot, ids in sorted(everywhere.items()):
        if len(ids) < 2:
            continue
        if slot[0] in plan.honest:
            seen.blame("one-signature-a-slot", f"{slot} has {len(ids)} records")
        ends = {id_ for id_, at in ids.items() for i in at if i >= 0 and slot in final[i]}
        if len(ends) > 1:
            seen.blame("final-never-conflicts", f"{slot} has {len(ends)} final records")


def final_slots(plan: Plan, ledger: Ledger) -> set[Slot]:
    """Slots that q members (their authors among them) have acknowledged in one ledger, as it holds them."""
    acked: dict[Log, dict[int, int]] = defaultdict(dict)
    for (author, epoch, seq), record in ledger.records.items():
        claims = [((author, epoch, seq), ledger.ids[author, epoch, seq])]
        claims += [((one.author, one.epoch, one.seq), one.id) for one in record.acks]
        for (owner, age, at), id_ in claims:
            if ledger.ids.get((owner, age, at)) == id_:  # not another branch of a forked log
                row = acked[owner, age]
                row[author] = max(row.get(author, -1), at)
    quorum = quorum_of(plan.members)
    final = set()
    for slot in ledger.ids:
        row = acked[slot[:2]]
        reached = [member for member, at in row.items() if at >= slot[2]]
        if len(reached) >= quorum:
            final.add(slot)
    return final


def quorum_of(members: int) -> int:
    """Q = (n + f) // 2 + 1 with f = (n - 1) // 3: counted here again."""
    return (members + (members - 1) // 3) // 2 + 1


def no_honest_record_lost(plan: Plan, ledgers: Mapping[int, Ledger], seen: Observations) -> None:
    """What left an honest member is in every lasting member's ledger; all hold the same of it."""
    for index, ledger in ledgers.items():
        for slot, records in sorted(seen.left.items()):
            if slot[0] in plan.lasting and slot not in ledger.ids:
                kinds = "/".join(Kind(one.kind).name for one in records.values())
                seen.blame("no-record-lost", f"member {index} lacks {slot} ({kinds})")
    longest = longest_of(ledgers)
    for index, ledger in ledgers.items():
        for log, count in longest.items():
            held = ledger.logs.get(log, 0)
            if log[0] in plan.honest and held < count:
                seen.blame("no-record-lost", f"member {index} has {held} of {count} of log {log}")


def longest_of(ledgers: Mapping[int, Ledger]) -> dict[Log, int]:
    """How many records of each log anybody holds."""
    longest: dict[Log, int] = {}
    for ledger in ledgers.values():
        for log, count in ledger.logs.items():
            longest[log] = max(count, longest.get(log, 0))
    return longest


def votes_are_single(plan: Plan, ledgers: Mapping[int, Ledger], seen: Observations) -> None:
    """An honest member offers once and votes once a round."""
    for index, ledger in ledgers.items():
        written: Counter[tuple[int, int, int, int]] = Counter()
        for slot, record in ledger.records.items():
            if record.kind in (Kind.CONTRIBUTION, Kind.AGGREGATION):
                written[slot[0], record.kind, record.round, _attempt(record)] += 1
        for (author, kind, round_, _), count in sorted(written.items()):
            if author in plan.honest and count > 1:
                what = f"member {author} wrote {count} {Kind(kind).name}s in round {round_}"
                seen.blame("one-vote-a-round", f"{what} (as member {index} holds it)")


def _attempt(record: Record) -> int:
    """Which attempt at its round a vote belongs to; 0 for the first, and for what is no vote."""
    body = record.body
    return body.parameters[0] if isinstance(body, Aggregation) and body.parameters else 0


def votes_of(ledger: Ledger) -> dict[tuple[int, int], dict[int, Vote]]:
    """(round, attempt) → author → its first vote."""
    votes: dict[tuple[int, int], dict[int, Vote]] = defaultdict(dict)
    for slot in sorted(ledger.records):
        record = ledger.records[slot]
        if isinstance(record.body, Aggregation):
            body = record.body
            inputs = tuple((i.author, i.epoch, i.seq, i.id, i.weight_micro) for i in body.inputs)
            votes[record.round, _attempt(record)].setdefault(
                slot[0], (body.rule, inputs, body.result_digest)
            )
    return votes


def agreed_of(plan: Plan, ledger: Ledger) -> dict[int, Vote]:
    """Round → what q members voted for, bit for bit; in round zero each forked log may hide a vote."""
    found = {}
    forked = forked_authors(ledger)
    for (round_, _), by in sorted(votes_of(ledger).items()):
        vote, count = Counter(by.values()).most_common(1)[0]
        if round_ == 0:
            count = len(forked | {author for author, one in by.items() if one == vote})
        if count >= quorum_of(plan.members):
            found[round_] = vote
    return found


def forked_authors(ledger: Ledger) -> set[int]:
    """Members of whom somebody has shown two records for one slot."""
    proofs = [one.body for one in ledger.records.values() if isinstance(one.body, ForkProof)]
    halves = [parse_envelope(proof.envelope_a) for proof in proofs]
    return {decode_record(half.record_bytes)[2] for half in halves}


def agreed_is_one(plan: Plan, ledgers: Mapping[int, Ledger], seen: Observations) -> None:
    """Whatever anybody took for agreed has a quorum in the ledgers, and is the same for all."""
    agreed = {index: agreed_of(plan, ledger) for index, ledger in ledgers.items()}
    together: dict[int, set[Vote]] = defaultdict(set)
    for rounds in agreed.values():
        for round_, vote in rounds.items():
            together[round_].add(vote)
    for round_, votes in sorted(together.items()):
        if len(votes) > 1:
            seen.blame("agreed-is-equal", f"round {round_} is agreed in {len(votes)} ways")
    for index, believed in seen.agreed().items():
        for round_, proposal in believed.items():
            if index not in agreed:
                continue
            inputs = tuple(
                (i.author, i.epoch, i.seq, i.id, i.weight_micro) for i in proposal.inputs
            )
            if agreed[index].get(round_) != (proposal.rule, inputs, proposal.result):
                seen.blame(
                    "agreed-is-equal",
                    f"member {index} took round {round_} for agreed without a quorum's equal votes",
                )


def everybody_is_accounted_for(
    plan: Plan, charter: Charter, ledgers: Mapping[int, Ledger], seen: Observations
) -> None:
    """Every honest merge names each member: merged, or left out and why."""
    everyone = set(range(plan.members))
    topology = charter.topology
    for index, ledger in ledgers.items():
        for slot, record in sorted(ledger.records.items()):
            if slot[0] != index or not isinstance(record.body, Aggregation):
                continue
            merged = {one.author for one in record.body.inputs}
            out = {one.author for one in record.body.left_out}
            due = everyone
            if topology is not None and record.round > 0:  # only neighbours are accounted for
                near = topology.senders(range(plan.members), index, record.round)
                due = {index, *near}
            if merged | out != due:
                lost = sorted(due ^ (merged | out))
                seen.blame(
                    "late-accounted",
                    f"member {index}'s merge of round {record.round} says nothing of {lost}",
                )


def disks_are_bounded(
    evidence: Evidence, ledgers: Mapping[int, Ledger], seen: Observations
) -> None:
    """A member's directory is not larger than its records and its share of payloads explain."""
    plan = evidence.plan
    payloads = PAYLOADS_A_ROUND * plan.members * (plan.rounds + 1) * PAYLOAD_BYTES
    for index, disk in evidence.disks.items():
        if index in ledgers:
            used = sum(
                os.path.getsize(os.path.join(folder, name))  # noqa: PTH118, PTH202 - one walk, many files
                for folder, _, names in os.walk(disk)
                for name in names
            )
            seen.disk(index, used, len(ledgers[index].ids), payloads)


def bundles_verify(
    evidence: Evidence, bundles: list[Path], ledgers: Mapping[int, Ledger], seen: Observations
) -> None:
    """Every honest member's bundle is verified by the auditor's code, with every merge done again."""
    plan = evidence.plan
    report = verify_bundles(
        bundles, evidence.charter.source_bytes, evidence.charter.digest_hex,
        brought=Brought(payloads=evidence.payloads),
    )  # fmt: skip
    for finding in report.findings:
        author = finding.error.author
        if author is None or author in plan.honest:
            where = _no_folder(str(finding.error), evidence.scratch)
            seen.blame("bundles-verify", f"step {finding.step}: {where}")
    accepted = {(one.author, one.epoch): one.records for one in report.logs}
    for log, count in sorted(longest_of(ledgers).items()):
        if log[0] in plan.honest and accepted.get(log, 0) < count:
            text = (
                f"{accepted.get(log, 0)} of {count} records of log {log} can be shown to an auditor"
            )
            seen.blame("bundles-verify", text)
    held = {path.name.split(".")[0] for path in evidence.payloads.iterdir()}
    for line in _unrecomputable(plan, ledgers, held):
        seen.blame("agreed-recomputable", line)


def _unrecomputable(plan: Plan, ledgers: Mapping[int, Ledger], held: set[str]) -> Iterator[str]:
    """Agreed rounds of which an input or the result was never on any honest member's disk."""
    for ledger in ledgers.values():
        for round_, (_, inputs, result) in sorted(agreed_of(plan, ledger).items()):
            digests = {result.hex()}
            for author, epoch, seq, _, _ in inputs:
                record = ledger.records.get((author, epoch, seq))
                if record is not None and isinstance(record.body, Contribution):
                    digests.add(record.body.update_digest.hex())
            for digest in sorted(digests - held):
                yield f"round {round_} needs payload {digest[:12]}, which nobody held"


def _no_folder(text: str, scratch: Path) -> str:
    return text.replace(f"{scratch}/", "")
