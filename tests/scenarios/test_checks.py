"""Each check of a run holds on a good one and is shown to fail on a bad one."""

from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.checks import CHECKS, failures
from scenarios.outcome import Level, Outcome
from scenarios.spec import Targets
from tests.scenarios.finished import finish, level, played

TARGETS = Targets()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return finish(tmp_path_factory.mktemp("good"), played()).outcome


def only_failure(outcome: Outcome, targets: Targets = TARGETS) -> str:
    found = failures(outcome, targets)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


def test_a_good_run_passes_every_check(good: Outcome) -> None:
    assert len(CHECKS) == 7
    assert failures(good, TARGETS) == ()


def test_a_round_that_was_not_agreed_fails(good: Outcome) -> None:
    merges = [replace(m, agreed=m.round not in {3, 7}) for m in good.merges]
    line = only_failure(replace(good, merges=tuple(merges)))
    assert line == "agreement: 8 of 10 rounds agreed; not: 3, 7"


def test_a_member_with_other_bits_in_one_round_fails(good: Outcome) -> None:
    merges = list(good.merges)
    merges[4] = replace(merges[4], digests={**merges[4].digests, 2: "ff" * 32})
    line = only_failure(replace(good, merges=tuple(merges)))
    assert line.startswith("digests: round 5: members differ")


def test_a_member_that_recorded_no_merge_fails(good: Outcome) -> None:
    merges = list(good.merges)
    merges[0] = replace(merges[0], digests={i: d for i, d in merges[0].digests.items() if i != 1})
    line = only_failure(replace(good, merges=tuple(merges)))
    assert line == "digests: round 1: no merge recorded by Hospital 1"


def test_a_hospital_that_ends_with_another_model_fails(good: Outcome) -> None:
    hospitals = (*good.hospitals[:3], replace(good.hospitals[3], result_digest="ab" * 32))
    line = only_failure(replace(good, hospitals=hospitals))
    assert line.startswith("final model: expected one digest in all hospitals")


def test_a_hospital_without_any_result_fails(good: Outcome) -> None:
    hospitals = (*good.hospitals[:3], replace(good.hospitals[3], result_digest=""))
    assert "Hospital 3 none" in only_failure(replace(good, hospitals=hospitals))


def test_success_on_a_subset_fails(tmp_path: Path) -> None:
    hospitals = played(rounds=9)
    hospitals.play(10, absent=2)
    line = only_failure(finish(tmp_path, hospitals).outcome)
    assert line == (
        "participation: Hospital 2 is not in the last merge (its update was not received in time)"
    )


def test_a_hospital_that_exchanged_nothing_fails(good: Outcome) -> None:
    hospitals = (replace(good.hospitals[0], bytes_received=0), *good.hospitals[1:])
    line = only_failure(replace(good, hospitals=hospitals))
    assert line == "network: Hospital 0 sent 1000 and received 0 bytes"


def test_with_neighbours_each_update_is_in_the_merge_of_another(good: Outcome) -> None:
    """No merge is everybody's there, so the one that is shown of a round says nothing of who took part."""
    lonely = tuple(replace(merge, merged={0: 1_000_000}) for merge in good.merges)
    assert failures(replace(good, merges=lonely, is_gossip=True), TARGETS) == ()
    unheard = tuple(replace(merge, heard=merge.heard - {2}) for merge in lonely)
    line = only_failure(replace(good, merges=unheard, is_gossip=True))
    assert line == "participation: Hospital 2 is in no merge of another's"


def test_a_refuted_ledger_fails_with_its_finding(good: Outcome) -> None:
    ledger = replace(
        good.ledger, verdict="REFUTED", exit_status=1, findings=("step 8: E_SIGNATURE",)
    )
    line = only_failure(replace(good, ledger=ledger))
    assert line == "audit: expected VERIFIED, got REFUTED (step 8: E_SIGNATURE)"


def test_a_verdict_without_all_evidence_fails(good: Outcome) -> None:
    ledger = replace(good.ledger, exit_status=3, missing=("no record of member 2",))
    assert "no record of member 2" in only_failure(replace(good, ledger=ledger))


def test_a_missing_bundle_fails(good: Outcome) -> None:
    ledger = replace(good.ledger, bundles=good.ledger.bundles[:3])
    assert only_failure(replace(good, ledger=ledger)) == "audit: 3 bundles for 4 hospitals"


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (Targets(auc_over_alone_min=0.06), "below alone"),
        (Targets(auc_under_pooled_max=0.005), "below pooled"),
    ],
)
def test_learning_together_that_does_not_pay_fails(
    good: Outcome, targets: Targets, expected: str
) -> None:
    assert expected in only_failure(good, targets)


def test_the_default_margin_to_pooled_is_a_hundredth(good: Outcome) -> None:
    def with_pooled(auc: float) -> Outcome:
        hospitals = tuple(replace(h, pooled=level(auc)) for h in good.hospitals)
        return replace(good, hospitals=hospitals)

    swarm = good.overall("swarm")
    assert swarm is not None
    assert failures(with_pooled(swarm.value + 0.01), TARGETS) == ()
    assert "below pooled" in only_failure(with_pooled(swarm.value + 0.0101))


def test_an_undefined_auc_fails_rather_than_passing_silently(good: Outcome) -> None:
    hospitals = tuple(replace(h, alone=Level()) for h in good.hospitals)
    assert only_failure(replace(good, hospitals=hospitals)).startswith("AUC: undefined")
