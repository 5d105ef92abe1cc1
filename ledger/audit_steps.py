"""The numbered list of ``swarm-audit verify``. Room: ledger. Spec: docs/ledger.md §10."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Step:
    """One entry of the list: where it is done, and its codes."""

    number: int
    name: str
    codes: tuple[str, ...]
    place: str = ""  # empty: reserved in this version


STEPS: Final = (
    Step(1, "charter as given out of band", ("E_NETWORK",), "_step_1_charter"),
    Step(
        2,
        "charter and roster updates canonical",
        ("E_NONCANONICAL", "E_SIZE", "E_ENCODING", "E_VERSION", "E_SCHEMA", "E_ORDER"),
        "_step_2_3_roster, audit_roster.step_2_3_updates",
    ),
    Step(
        3,
        "roster chain and keys",
        (
            "E_ROSTER_PREV",
            "E_ROSTER_QUORUM",
            "E_ROSTER_FORK",
            "E_ROSTER_CUT",
            "E_ROSTER_DUP",
            "E_WEAK_KEY",
            "E_KEY_REUSE",
            "E_NETWORK",
            "E_SIGNATURE",
            "E_UNKNOWN_AUTHOR",
            "E_EPOCH",
        ),
        "_step_2_3_roster, audit_roster.step_2_3_updates",
    ),
    Step(
        4,
        "files whole",
        ("E_BUNDLE", "E_TRUNCATED", "E_SIZE", "E_UNKNOWN_AUTHOR", "E_MISSING_AUTHOR"),
        "_step_4_files, LogAudit._read, AckAudit.settle",
    ),
    Step(
        5,
        "envelope and encoding",
        ("E_ENCODING", "E_ENVELOPE", "E_NONCANONICAL", "E_SIZE"),
        "audit_log.step_5_6_decode",
    ),
    Step(6, "schema", ("E_VERSION", "E_SCHEMA", "E_KIND", "E_ORDER"), "audit_log.step_5_6_decode"),
    Step(
        7,
        "identity",
        ("E_NETWORK", "E_AUTHOR_MISMATCH", "E_ROSTER_UNKNOWN", "E_EPOCH"),
        "audit_log.step_7_identity",
    ),
    Step(8, "signature", ("E_SIGNATURE",), "audit_log.step_8_signature"),
    Step(
        9,
        "chain",
        ("E_GAP", "E_FORK", "E_PREV", "E_OPEN", "E_OPEN_KEY"),
        "audit_log.step_9_chain",
    ),
    Step(
        10,
        "monotone",
        ("E_LAMPORT", "E_TIME_BACKWARD", "E_ROUND_BACKWARD", "E_ROSTER_BACKWARD"),
        "audit_log.step_10_monotone",
    ),
    Step(
        11,
        "acks",
        (
            "E_DEP_UNKNOWN",
            "E_DEP_SELF",
            "E_OMISSION",
            "E_CAUSALITY",
            "E_TIME_CAUSAL",
            "E_ACK_BACKWARD",
        ),
        "audit_refs.AckAudit",
    ),
    Step(
        12,
        "aggregations",
        ("E_AGG_INPUT", "E_AGG_RULE", "E_AGG_WEIGHT"),
        "audit_refs.AggregationAudit",
    ),
    Step(
        13,
        "evaluations",
        ("E_REVEAL_REF", "E_REVEAL", "E_SCORE_TARGET", "E_SELF_SCORE"),
        "audit_evaluations.EvaluationSteps",
    ),
    Step(
        14,
        "fork proofs and cuts",
        ("E_FORK_PROOF", "E_AFTER_CUT", "E_OMISSION"),
        "audit_evaluations.EvaluationSteps, audit_roster.check_cut_of, audit_roster.CutAudit",
    ),
    Step(15, "finality", (), "_step_15_finality"),
    Step(
        16,
        "checkpoints and cosignatures",
        ("E_CHECKPOINT", "E_COSIGN", "E_QUORUM"),
        "audit_checkpoints.step_16_checkpoint",
    ),
    Step(
        17,
        "pins and other bundles",
        ("E_ROLLBACK", "E_INCONSISTENT"),
        "audit_checkpoints.step_17_pin, audit_checkpoints.step_17_others",
    ),
    Step(18, "timestamps", ("E_TIMESTAMP",), "audit_checkpoints.step_18_token"),
    Step(19, "reputation", ("E_REPUTATION",), "audit_reputation.step_19_reputation"),
    Step(
        20, "payloads and merges", ("E_PAYLOAD", "E_AGG_RESULT", "E_SKETCH"), "recompute.recompute"
    ),
)
