"""What must hold when a run is over, judged from files alone: stores, bundles, payloads.

Room: scenarios. Law: nothing of the node's own bookkeeping is asked; votes, acks and sets are counted
here again from the records, and bundles are verified by `swarm-audit`'s own code. docs/simulator.md §4.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.bundle import export_bundle
from ledger.charter import Charter
from ledger.errors import SwarmError
from ledger.evidence import Offence, Seen
from ledger.record import Contribution, Kind
from ledger.reputation import replay
from ledger.roster import Roster
from ledger.roster_store import load_roster
from ledger.store import Store
from ledger.verify import Brought, verify_bundles
from scenarios.simulation.accounts import everybody_is_accounted_for, late_inputs
from scenarios.simulation.disk import BLOBS, DATABASE
from scenarios.simulation.held import Ledger, Reader, Vote, ballot_of
from scenarios.simulation.observations import PAYLOADS_A_ROUND, Log, Observations, Slot
from scenarios.simulation.plan import Plan

FALSE_IF_HONEST: Final = (Offence.UNREVEALED, Offence.COPY, Offence.FALSE_SKETCH, Offence.FORK)
"""What an honest member never does. Where training changes nothing it does send its base back."""
PAYLOAD_BYTES: Final = 512
"""More than any payload of the tiny learner."""
ROUNDS_KEPT: Final = 2
ROUNDS_JUDGED: Final = 5
"""Of so many finished rounds payloads stay, where members judge each other."""
MODELS_KEPT: Final = 6
"""That stay whatever their rounds: the initial one, of two agreed rounds, of the first, the own, one more."""
SWARM_SMALL: Final = 7
"""Of so few members every bundle is verified, of more only some of those that hold the very same records."""
BUNDLES_ALIKE_MAX: Final = 3
RECORDS_A_ROUND: Final = 128
RECORDS_A_ROUND_MEMBER: Final = 16


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run has left."""

    plan: Plan
    charter: Charter
    disks: Mapping[int, Path]
    """Lasting honest members' directories."""
    lasting: frozenset[int]
    """Honest members that are there to the end."""
    left: frozenset[int]
    """Honest members that said goodbye on the way."""
    payloads: Path
    """Every payload that an honest member ever held."""
    scratch: Path


def check(evidence: Evidence, seen: Observations) -> None:
    """Judge everything; what does not hold is noted in ``seen``."""
    read = Reader()
    ledgers: dict[int, Ledger] = {}
    rosters: dict[int, Roster] = {}
    bundles: dict[int, list[Path]] = defaultdict(list)
    for index, disk in evidence.disks.items():
        try:
            with Store.open(disk / DATABASE) as store:
                ledger = ledgers[index] = read.ledger(store)
                roster = rosters[index] = load_roster(store, evidence.charter)
                nothing_behind_a_cut(index, roster, ledger, seen)
                alike = bundles[id(ledger)]
                if evidence.plan.sites <= SWARM_SMALL or len(alike) < BUNDLES_ALIKE_MAX:
                    bundle = evidence.scratch / f"bundle-{index}"
                    alike.append(export_bundle(store, evidence.charter.source_bytes, bundle))
        except SwarmError as error:
            seen.blame("bundles-verify", f"member {index} cannot export: {error}")
    one_slot_one_record(evidence.plan, ledgers, rosters, seen)
    no_honest_record_lost(evidence, ledgers, seen)
    votes_are_single(evidence.plan, ledgers, seen)
    agreed_is_one(ledgers, rosters, seen)
    everybody_is_accounted_for(evidence.lasting, evidence.charter, ledgers, rosters, seen)
    logs_are_bounded(evidence, ledgers, seen)
    disks_are_bounded(evidence, ledgers, seen)
    payloads_are_removed(evidence, seen)
    honest_are_not_blamed(evidence, ledgers, rosters, seen)
    if exported := [one for alike in bundles.values() for one in alike]:
        bundles_verify(evidence, exported, ledgers, seen)
    held = {path.name.split(".")[0] for path in evidence.payloads.iterdir()}
    for line in _unrecomputable(ledgers, rosters, held):
        seen.blame("agreed-recomputable", line)


def nothing_behind_a_cut(index: int, roster: Roster, ledger: Ledger, seen: Observations) -> None:
    """Who knows of a cut holds nothing of what it has cut off, nor all of another branch.

    Of a log that forks it may hold the beginning of another one: which is kept it sees at the end.
    """
    for cut in roster.cuts():
        held = ledger.logs.get((cut.author, cut.epoch), 0)
        if held > cut.kept:
            what = f"member {index} holds {held} records of log {(cut.author, cut.epoch)}"
            seen.blame("nothing-behind-a-cut", f"{what}, of which {cut.kept} were kept")
        elif held and held == cut.kept:
            last = ledger.ids[cut.author, cut.epoch, held - 1]
            if last != cut.head_id:
                seen.blame("nothing-behind-a-cut", f"member {index} holds another branch")


def one_slot_one_record(
    plan: Plan,
    ledgers: Mapping[int, Ledger],
    rosters: Mapping[int, Roster],
    seen: Observations,
) -> None:
    """No slot of an honest log has two records anywhere; no slot at all has two that are final."""
    everywhere: dict[Slot, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for slot, records in seen.left.items():
        for id_ in records:
            everywhere[slot][id_].append(-1)
    for index, ledger in _distinct(ledgers):
        for slot, id_ in ledger.ids.items():
            everywhere[slot][id_].append(index)
    final = {index: ledger.final_slots(rosters[index]) for index, ledger in _distinct(ledgers)}
    for slot, ids in sorted(everywhere.items()):
        if len(ids) < 2:
            continue
        if slot[0] in plan.honest:
            seen.blame("one-signature-a-slot", f"{slot} has {len(ids)} records")
        ends = {id_ for id_, at in ids.items() for i in at if i >= 0 and slot in final[i]}
        if len(ends) > 1:
            seen.blame("final-never-conflicts", f"{slot} has {len(ends)} final records")


def no_honest_record_lost(
    evidence: Evidence, ledgers: Mapping[int, Ledger], seen: Observations
) -> None:
    """What left an honest member is in every lasting member's ledger; all hold the same of it."""
    authors = evidence.left | evidence.lasting
    due = [slot for slot in sorted(seen.left) if slot[0] in authors]
    for index, ledger in _distinct(ledgers):
        for slot in due:
            if slot not in ledger.ids:
                kinds = "/".join(Kind(one.kind).name for one in seen.left[slot].values())
                seen.blame("no-record-lost", f"member {index} lacks {slot} ({kinds})")
    longest = longest_of(ledgers)
    for index, ledger in _distinct(ledgers):
        for log, count in longest.items():
            held = ledger.logs.get(log, 0)
            if log[0] in evidence.plan.honest and held < count:
                seen.blame("no-record-lost", f"member {index} has {held} of {count} of log {log}")


def honest_are_not_blamed(
    evidence: Evidence,
    ledgers: Mapping[int, Ledger],
    rosters: Mapping[int, Roster],
    seen: Observations,
) -> None:
    """Whatever befell an honest member, reputation proves nothing against it."""
    if evidence.plan.reputation == "off":
        return
    for index, ledger in _distinct(ledgers):
        records = [Seen(record, ledger.ids[slot]) for slot, record in ledger.records.items()]
        for outcome in replay(records, rosters[index], strict=False).rounds:
            for line in outcome.members:
                for one in line.penalties:
                    if line.member in evidence.plan.honest and one.proof.offence in FALSE_IF_HONEST:
                        what = f"member {line.member} is blamed for {one.proof.offence.name}"
                        seen.blame("honest-not-blamed", f"{what} in round {outcome.round}")


def longest_of(ledgers: Mapping[int, Ledger]) -> dict[Log, int]:
    """How many records of each log anybody holds."""
    longest: dict[Log, int] = {}
    for _, ledger in _distinct(ledgers):
        for log, count in ledger.logs.items():
            longest[log] = max(count, longest.get(log, 0))
    return longest


def votes_are_single(plan: Plan, ledgers: Mapping[int, Ledger], seen: Observations) -> None:
    """An honest member offers once and votes once a round."""
    for index, ledger in _distinct(ledgers):
        written: Counter[tuple[int, int, int, int]] = Counter()
        for slot, record in ledger.records.items():
            if record.kind in (Kind.CONTRIBUTION, Kind.AGGREGATION):
                written[slot[0], record.kind, record.round, ballot_of(record)] += 1
        for (author, kind, round_, _), count in sorted(written.items()):
            if author in plan.honest and count > 1:
                what = f"member {author} wrote {count} {Kind(kind).name}s in round {round_}"
                seen.blame("one-vote-a-round", f"{what} (as member {index} holds it)")


def agreed_is_one(
    ledgers: Mapping[int, Ledger], rosters: Mapping[int, Roster], seen: Observations
) -> None:
    """Whatever anybody took for agreed has a quorum in the ledgers, and is the same for all.

    A cut may take a liar's vote away: then the round is open again, but nothing else is ever agreed.
    """
    agreed = _agreed(ledgers, rosters)
    seen.late_inputs = max((late_inputs(ledgers[i], agreed[i]) for i in agreed), default=0)
    together: dict[int, set[Vote]] = defaultdict(set)
    for rounds in agreed.values():
        for round_, votes in rounds.items():
            together[round_] |= votes
    for index, believed in seen.agreed().items():
        for round_, proposal in believed.items():
            inputs = tuple(
                (i.author, i.epoch, i.seq, i.id, i.weight_micro) for i in proposal.inputs
            )
            vote = (proposal.rule, inputs, proposal.result)
            together[round_].add(vote)
            if index not in agreed:
                continue  # it died, left or was removed: it had no time to hear what others voted for
            shown = agreed[index].get(round_, frozenset())
            if not shown and seen.is_cut_away(index, round_, rosters[index]):
                continue
            if vote not in shown:
                seen.blame(
                    "agreed-is-equal",
                    f"member {index} took round {round_} for agreed without a quorum's equal votes",
                )
    for round_, ways in sorted(together.items()):
        if len(ways) > 1:
            seen.blame("agreed-is-equal", f"round {round_} is agreed in {len(ways)} ways")


def logs_are_bounded(evidence: Evidence, ledgers: Mapping[int, Ledger], seen: Observations) -> None:
    """No log has more records in one round than wire.md §4.1.9 says, nor one of a round that is none."""
    limit = RECORDS_A_ROUND + RECORDS_A_ROUND_MEMBER * evidence.plan.sites
    for index, ledger in _distinct(ledgers):
        written = Counter((*slot[:2], record.round) for slot, record in ledger.records.items())
        for (author, epoch, round_), count in sorted(written.items()):
            if count > limit or round_ > evidence.plan.rounds + 1:
                what = f"member {index} holds {count} records of round {round_}"
                seen.blame("bounded", f"{what} of log {(author, epoch)}, at most {limit}")


def disks_are_bounded(
    evidence: Evidence, ledgers: Mapping[int, Ledger], seen: Observations
) -> None:
    """A member's directory is not larger than its records and its share of payloads explain."""
    plan = evidence.plan
    payloads = PAYLOADS_A_ROUND * plan.sites * (plan.rounds + 1) * PAYLOAD_BYTES
    for index, disk in evidence.disks.items():
        if index in ledgers:
            used = sum(
                os.path.getsize(os.path.join(folder, name))  # noqa: PTH118, PTH202 - one walk, many files
                for folder, _, names in os.walk(disk)
                for name in names
            )
            seen.disk(index, used, len(ledgers[index].ids), payloads)


def payloads_are_removed(evidence: Evidence, seen: Observations) -> None:
    """No member keeps payloads of more rounds than wire.md §4.2.7 says: offers, results, bases, some models."""
    plan = evidence.plan
    judged = ROUNDS_JUDGED if plan.reputation != "off" else 0
    rounds = max(ROUNDS_KEPT, evidence.charter.rounds.staleness_max, judged) + 1
    limit = plan.sites * (2 * rounds + 1) + MODELS_KEPT
    for index, disk in evidence.disks.items():
        held = sum(path.suffix[1:].isdigit() for path in (disk / BLOBS).iterdir())
        if held > limit:
            seen.blame("bounded", f"member {index} keeps {held} payloads, at most {limit}")


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


def _agreed(
    ledgers: Mapping[int, Ledger], rosters: Mapping[int, Roster]
) -> dict[int, Mapping[int, frozenset[Vote]]]:
    """Member → round → what a quorum agreed on, as its disk shows it; counted once for those alike."""
    known: dict[tuple[int, int], Mapping[int, frozenset[Vote]]] = {}
    for index, ledger in ledgers.items():
        key = (id(ledger), rosters[index].version)
        if key not in known:
            known[key] = ledger.agreed(rosters[index])
    return {index: known[id(one), rosters[index].version] for index, one in ledgers.items()}


def _unrecomputable(
    ledgers: Mapping[int, Ledger], rosters: Mapping[int, Roster], held: set[str]
) -> Iterator[str]:
    """Agreed rounds of which an input or the result was never on any honest member's disk."""
    agreed = _agreed(ledgers, rosters)
    offered = {
        ledger.ids[slot]: record.body.update_digest.hex()
        for _, ledger in _distinct(ledgers)
        for slot, record in ledger.records.items()
        if isinstance(record.body, Contribution)
    }
    for index, _ in _distinct(ledgers):
        won = [(round_, vote) for round_, votes in agreed[index].items() for vote in votes]
        for round_, (_, inputs, result) in sorted(won):
            digests = {
                result.hex(),
                *(offered[id_] for _, _, _, id_, _ in inputs if id_ in offered),
            }
            for digest in sorted(digests - held):
                yield f"round {round_} needs payload {digest[:12]}, which nobody held"


def _distinct(ledgers: Mapping[int, Ledger]) -> list[tuple[int, Ledger]]:
    """One member, the first, for each ledger that differs."""
    first = {id(ledger): (index, ledger) for index, ledger in reversed(list(ledgers.items()))}
    return list(first.values())


def _no_folder(text: str, scratch: Path) -> str:
    return text.replace(f"{scratch}/", "")
