"""What must hold for a run to pass; decides the exit status of `swarm-scenario run`.

Room: scenarios. Law: each failure is one line that says what was expected and what came.
"""

from collections.abc import Callable, Iterator
from typing import Final

from scenarios.outcome import Outcome
from scenarios.spec import Targets

VERIFIED: Final = "VERIFIED"
AUC_EPSILON: Final = 1e-9  # sums of micro values in another order


def failures(outcome: Outcome, targets: Targets) -> tuple[str, ...]:
    """Every check that fails, in the order of ``CHECKS``."""
    return tuple(line for check in CHECKS for line in check(outcome, targets))


def check_every_round_agreed(outcome: Outcome, _: Targets) -> Iterator[str]:
    """At least q members recorded equal inputs and equal bits in each of the rounds."""
    if outcome.is_gossip:
        return
    agreed = {merge.round for merge in outcome.merges if merge.agreed}
    lost = sorted(set(range(1, outcome.rounds + 1)) - agreed)
    if lost:
        yield (
            f"agreement: {len(agreed)} of {outcome.rounds} rounds agreed; "
            f"not: {', '.join(map(str, lost))}"
        )


def check_same_bits_everywhere(outcome: Outcome, _: Targets) -> Iterator[str]:
    """Every member ends every round with the same result digest."""
    if outcome.is_gossip:
        return
    for merge in outcome.merges:
        absent = [h.name for h in outcome.hospitals if h.index not in merge.digests]
        if absent:
            yield f"digests: round {merge.round}: no merge recorded by {', '.join(absent)}"
        if merge.digests and not merge.unanimous:
            shown = ", ".join(f"{i}: {digest[:12]}" for i, digest in sorted(merge.digests.items()))
            yield f"digests: round {merge.round}: members differ ({shown})"


def check_one_final_model(outcome: Outcome, _: Targets) -> Iterator[str]:
    """The run ends with one model, the same in every hospital; or each has one of its own."""
    if outcome.is_gossip:
        without = [hospital.name for hospital in outcome.hospitals if not hospital.result_digest]
        if without:
            yield f"final model: none at {', '.join(without)}"
        return
    digests = {hospital.result_digest for hospital in outcome.hospitals}
    if len(digests) != 1 or "" in digests:
        shown = ", ".join(f"{h.name} {h.result_digest[:12] or 'none'}" for h in outcome.hospitals)
        yield f"final model: expected one digest in all hospitals, got {shown}"


def check_everyone_is_in_the_model(outcome: Outcome, _: Targets) -> Iterator[str]:
    """No success on a subset: each hospital's update is in the last merge, or in a neighbour's."""
    if outcome.is_gossip:
        for hospital in outcome.hospitals:
            if not any(hospital.index in merge.heard for merge in outcome.merges):
                yield f"participation: {hospital.name} is in no merge of another's"
        return
    last = max(outcome.merges, key=lambda merge: merge.round, default=None)
    for hospital in outcome.hospitals:
        if last is None or hospital.index not in last.merged:
            reason = "" if last is None else last.left_out.get(hospital.index, "")
            yield f"participation: {hospital.name} is not in the last merge" + (
                f" ({reason})" if reason else ""
            )


def check_bytes_moved(outcome: Outcome, _: Targets) -> Iterator[str]:
    """Hospitals that exchange models send and receive."""
    for hospital in outcome.hospitals:
        if min(hospital.bytes_sent, hospital.bytes_received) <= 0:
            yield (
                f"network: {hospital.name} sent {hospital.bytes_sent} and received "
                f"{hospital.bytes_received} bytes"
            )


def check_audit(outcome: Outcome, _: Targets) -> Iterator[str]:
    """The auditor verified the bundles of all hospitals and lacked no evidence."""
    ledger = outcome.ledger
    if ledger.verdict != VERIFIED or ledger.exit_status != 0:
        why = "; ".join((*ledger.findings, *ledger.missing)[:3])
        yield f"audit: expected {VERIFIED}, got {ledger.verdict or 'no verdict'}" + (
            f" ({why})" if why else f" (exit status {ledger.exit_status})"
        )
    if len(ledger.bundles) != len(outcome.hospitals):
        yield f"audit: {len(ledger.bundles)} bundles for {len(outcome.hospitals)} hospitals"


def check_worth_it(outcome: Outcome, targets: Targets) -> Iterator[str]:
    """Learning together is no worse than alone and close to all data in one place."""
    alone, swarm, pooled = (outcome.overall(name) for name in ("alone", "swarm", "pooled"))
    if alone is None or swarm is None or pooled is None:
        yield "AUC: undefined for alone, swarm or pooled; no hospital has both classes to judge on"
        return
    floor = alone.value + targets.auc_over_alone_min
    if swarm.value < floor - AUC_EPSILON:
        yield f"AUC: swarm {swarm.value:.4f} is below alone + margin = {floor:.4f}"
    floor = pooled.value - targets.auc_under_pooled_max
    if swarm.value < floor - AUC_EPSILON:
        yield f"AUC: swarm {swarm.value:.4f} is below pooled - margin = {floor:.4f}"


CHECKS: Final[tuple[Callable[[Outcome, Targets], Iterator[str]], ...]] = (
    check_every_round_agreed,
    check_same_bits_everywhere,
    check_one_final_model,
    check_everyone_is_in_the_model,
    check_bytes_moved,
    check_audit,
    check_worth_it,
)
