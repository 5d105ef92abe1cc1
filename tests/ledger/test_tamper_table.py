"""One table of every tampering that the audit promises to refuse, each with its own code.

A line that disappears, a case that disappears, or a code that changes fails here.
"""

from collections.abc import Callable
from pathlib import Path

import checkpoint_cases  # noqa: F401 - registers its cases
import evaluation_cases  # noqa: F401
import pytest
import roster_cases  # noqa: F401
import tamper_cases
from ledger_cases import CASES, files_of, small
from reputation_records import opened
from test_ledger_tamper import brought, found, write

from ledger.report import Report
from ledger.verify import Brought, verify_bundles

Attack = Callable[[Path], Report]


def of_case(name: str) -> Attack:
    def run(directory: Path) -> Report:
        case = (CASES.get(name) or tamper_cases.NAMES[name])()
        assert case.expected, "an attack is refused"
        report = verify_bundles(
            write(case, directory), case.charter, case.digest, brought=brought(case, directory)
        )
        assert found(report) == sorted(case.expected), report.to_text()
        return report

    return run


def symlinked_file(directory: Path) -> Report:
    federation = small()
    bundle = federation.bundle(directory / "bundle")
    assert sorted(files_of(federation))
    tamper_cases.symlinked(bundle)
    return verify_bundles([bundle], federation.charter_bytes, federation.charter.digest_hex)


def edited_reputation(directory: Path) -> Report:
    federation = opened(5)
    for round_ in (1, 2):
        federation.play_evaluated(round_)
    bundle = federation.bundle(directory / "bundle")
    return verify_bundles(
        [bundle],
        federation.charter_bytes,
        federation.charter.digest_hex,
        brought=Brought(reputation=dict.fromkeys(range(5), 500_000)),
    )


TABLE: dict[str, tuple[str, str | Attack]] = {
    # files
    "bit flip in a body": ("E_SIGNATURE", "bit_flipped_in_a_body"),
    "bit flip in a signature": ("E_SIGNATURE", "bit_flipped_in_a_signature"),
    "bit flip in a length": ("E_ENVELOPE", "bit_flipped_in_a_length"),
    "high bit flip in a length": ("E_SIZE", "high_bit_flipped_in_a_length"),
    "truncation inside a record": ("E_TRUNCATED", "log_cut_inside_a_frame"),
    "truncation between records": ("E_TRUNCATED", "log_cut_between_frames"),
    "trailing garbage in a file": ("E_SIZE", "bytes_after_the_end_mark"),
    "trailing garbage in an envelope": ("E_ENVELOPE", "garbage_behind_an_envelope"),
    "trailing garbage in a record": ("E_ENCODING", "garbage_behind_a_record"),
    "empty file": ("E_TRUNCATED", "empty_file"),
    "file without records": ("E_TRUNCATED", "log_without_records"),
    "symlinked file": ("E_BUNDLE", symlinked_file),
    "stray file": ("E_BUNDLE", "stray_file_in_bundle"),
    # what is there
    "acked tail dropped": ("E_OMISSION", "acked_tail_cut_off"),
    "unacked tail dropped against a pin": ("E_ROLLBACK", "tail_dropped_below_a_pin"),
    "author missing": ("E_MISSING_AUTHOR", "whole_log_left_out"),
    "middle record deleted": ("E_GAP", "a_record_is_missing_in_between"),
    "two records swapped": ("E_GAP", "two_records_swapped"),
    "record duplicated": ("E_GAP", "a_record_stands_twice"),
    "record in another's file": ("E_AUTHOR_MISMATCH", "record_in_anothers_file"),
    "log under another's name": ("E_AUTHOR_MISMATCH", "log_under_another_name"),
    "record of another network": ("E_NETWORK", "record_of_another_network"),
    "wrong genesis": ("E_NETWORK", "charter_with_another_digest"),
    "another genesis in a bundle": ("E_NETWORK", "charter_in_bundle_differs"),
    "roster keys swapped": ("E_NETWORK", "roster_keys_swapped"),
    "acked history rewritten": ("E_DEP_UNKNOWN", "acked_history_rewritten"),
    "fork in one file": ("E_FORK", "two_records_for_one_slot_in_a_file"),
    "fork across merged bundles": ("E_FORK", "two_records_for_one_slot_in_two_bundles"),
    "stolen slot": ("E_SIGNATURE", "stolen_slot"),
    # signatures and keys
    "signature without its domain": ("E_SIGNATURE", "signature_without_the_domain"),
    "signature of a foreign domain": ("E_SIGNATURE", "signature_of_a_foreign_domain"),
    "S + L malleation": ("E_SIGNATURE", "signature_with_a_malleated_scalar"),
    "small-order key": ("E_WEAK_KEY", "charter_with_a_low_order_key"),
    "non-canonical key": ("E_WEAK_KEY", "charter_with_a_non_canonical_key"),
    "one key for two": ("E_KEY_REUSE", "charter_with_one_key_for_two_uses"),
    "unknown author": ("E_UNKNOWN_AUTHOR", "log_of_nobody"),
    "retired epoch": ("E_EPOCH", "a_record_of_a_retired_epoch"),
    # encoding
    "non-minimal integer": ("E_NONCANONICAL", "integer_in_a_longer_spelling"),
    "non-minimal array header": ("E_NONCANONICAL", "array_header_in_a_longer_spelling"),
    "non-minimal envelope header": ("E_ENVELOPE", "envelope_of_255_bytes_with_a_long_header"),
    "map": ("E_ENCODING", "map_in_a_record"),
    "duplicate map keys": ("E_ENCODING", "map_with_one_key_twice"),
    "NaN": ("E_ENCODING", "nan_in_a_record"),
    "float for an integer": ("E_ENCODING", "float_in_a_record"),
    "bool for an integer": ("E_ENCODING", "true_where_one_belongs"),
    "negative integer": ("E_ENCODING", "negative_integer"),
    "integer above 2^53 - 1": ("E_ENCODING", "integer_above_the_limit"),
    "largest uint64": ("E_ENCODING", "largest_64_bit_integer"),
    "text for bytes": ("E_ENCODING", "text_where_bytes_belong"),
    "nil": ("E_ENCODING", "nothing_in_a_record"),
    "extension type": ("E_ENCODING", "extension_type"),
    "nesting bomb": ("E_ENCODING", "nested_too_deep"),
    "array bomb": ("E_ENCODING", "array_header_of_four_billion_items"),
    "oversized record": ("E_SIZE", "record_longer_than_allowed"),
    "oversized frame": ("E_SIZE", "frame_longer_than_any_envelope"),
    # schema
    "short digest": ("E_SCHEMA", "short_digest"),
    "extra field": ("E_SCHEMA", "fourteen_fields"),
    "extra field in a body": ("E_SCHEMA", "one_field_more_in_a_body"),
    "unknown version": ("E_VERSION", "version_two"),
    "unknown kind": ("E_KIND", "unknown_critical_kind"),
    # chain
    "wrong prev": ("E_PREV", "prev_of_another_record"),
    "gap": ("E_GAP", "a_record_is_missing_in_between"),
    "second OPEN": ("E_OPEN", "a_second_open"),
    "OPEN with another key": ("E_OPEN_KEY", "open_with_another_key"),
    "clock back": ("E_TIME_BACKWARD", "clock_that_goes_backward"),
    "dated before its causes": ("E_TIME_CAUSAL", "ack_of_a_clock_more_than_a_day_ahead"),
    "round back": ("E_ROUND_BACKWARD", "round_that_goes_backward"),
    "roster back": ("E_ROSTER_BACKWARD", "a_roster_that_goes_backward"),
    "Lamport number that stands still": ("E_LAMPORT", "lamport_that_stands_still"),
    "Lamport number against a cause": ("E_CAUSALITY", "ack_of_a_record_that_is_not_before"),
    # acks
    "ack of an unknown member": ("E_DEP_UNKNOWN", "ack_of_who_is_no_member"),
    "ack of an unknown record": ("E_OMISSION", "ack_of_a_record_that_nobody_has"),
    "altered ack": ("E_DEP_UNKNOWN", "ack_of_another_id_in_a_known_slot"),
    "duplicate ack": ("E_ORDER", "ack_twice"),
    "self ack": ("E_DEP_SELF", "ack_of_the_own_log"),
    "ack that goes back": ("E_ACK_BACKWARD", "ack_that_goes_backward"),
    # evaluations
    "reveal of something else than committed": (
        "E_REVEAL",
        "reveal_of_other_scores_than_committed",
    ),
    "reveal without a commit": ("E_REVEAL_REF", "reveal_without_a_commit"),
    "self-score": ("E_SELF_SCORE", "score_of_the_own_contribution"),
    "duplicate score": ("E_ORDER", "score_twice"),
    "two scores of one member": ("E_SCORE_TARGET", "score_of_a_second_contribution_of_a_round"),
    # fork proofs
    "fork proof with identical halves": ("E_FORK_PROOF", "fork_proof_with_one_record_twice"),
    "fork proof of two slots": ("E_FORK_PROOF", "fork_proof_of_two_places"),
    "fork proof with a forged half": ("E_FORK_PROOF", "fork_proof_with_a_forged_half"),
    # checkpoints
    "pinned root mismatch": ("E_INCONSISTENT", "pin_with_another_root"),
    "cosignatures below the quorum": ("E_QUORUM", "cosignatures_below_the_quorum"),
    "cosignature twice": ("E_COSIGN", "cosignature_twice"),
    "cosignature under a wrong name": ("E_COSIGN", "cosignature_under_another_member_s_name"),
    "checkpoint with another root": ("E_CHECKPOINT", "checkpoint_root_not_that_of_the_records"),
    "checkpoint with CRLF": ("E_CHECKPOINT", "checkpoint_with_crlf"),
    "time stamp of something else": ("E_TIMESTAMP", "token_of_another_file"),
    # rosters
    "conflicting roster updates": ("E_ROSTER_FORK", "two_bundles_with_conflicting_updates"),
    "conflicting updates in one bundle": ("E_ROSTER_FORK", "one_bundle_with_conflicting_updates"),
    "record after a cut": ("E_AFTER_CUT", "a_record_after_the_cut"),
    "update without a quorum": ("E_ROSTER_QUORUM", "an_update_without_a_quorum"),
    # learning
    "aggregation input absent": ("E_AGG_INPUT", "input_that_is_in_no_bundle"),
    "weight not as the charter's rule says": ("E_AGG_WEIGHT", "weight_above_the_charters_rule"),
    "equal weights where samples weigh": ("E_AGG_WEIGHT", "equal_weights_where_samples_weigh"),
    "another rule than the charter's": ("E_AGG_RULE", "another_robust_rule_than_the_charters"),
    "a rule that withstands fewer liars": ("E_AGG_RULE", "a_rule_that_withstands_fewer_liars"),
    "another codec than the charter's": (
        "E_AGG_INPUT",
        "an_input_in_another_codec_than_the_charters",
    ),
    "edited reputation": ("E_REPUTATION", edited_reputation),
}
LINES = 102


def test_no_line_of_the_table_has_disappeared() -> None:
    """Whoever takes a line out must say so here."""
    assert len(TABLE) == LINES
    shown = {attack for _, attack in TABLE.values() if isinstance(attack, str)}
    unused = tamper_cases.NAMES.keys() - shown
    assert not unused, f"attacks that no line names: {sorted(unused)}"


@pytest.mark.parametrize("line", TABLE)
def test_each_tampering_is_refused_with_its_code(line: str, tmp_path: Path) -> None:
    code, attack = TABLE[line]
    run = of_case(attack) if isinstance(attack, str) else attack
    report = run(tmp_path)
    assert report.verdict == "REFUTED"
    assert report.exit_status == 1
    assert code in {finding.error.code for finding in report.findings}, report.to_text()
    (first, *_) = report.findings
    assert len(str(first.error).splitlines()) == 1
