"""What an auditor may be handed: good bundles, and one attack for every code of the list.

Deterministic: tests/vectors is made of these, and every case runs through the verifier.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ledger_factory import (
    Federation,
    charter_of,
    digest_of,
    frames,
    member_block,
    sign_bytes,
    sign_value,
)

from ledger.bodies import (
    Anchor,
    Close,
    CloseReason,
    EvaluationCommit,
    EvaluationReveal,
    LeftOut,
    Reason,
    Rejection,
    Release,
    Score,
    Withdrawal,
)
from ledger.bundle import log_name
from ledger.canonical import encode, pack
from ledger.chain import head_after
from ledger.charter import charter_net
from ledger.evaluation import commitment_of
from ledger.fork import fork_proof
from ledger.frames import END_MARK
from ledger.record import NO_ID, Ack, Codec, Kind, Record, Rule, SignedRecord, Verified

Files = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Bundles as files, what the auditor got out of band, and what must come out."""

    name: str
    bundles: list[Files]
    charter: bytes
    digest: str
    expected: list[tuple[int, str]] = field(default_factory=list)  # step, code; none = verified
    missing: int = 0
    pins: list[bytes] = field(default_factory=list)
    tokens: list[bytes] = field(default_factory=list)
    anchored: int = 0
    timestamped: int = 0
    forks: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    """Author, epoch, lowest slot signed twice, records that stand, records that are void."""
    contested: int = 0


CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Iterator[Any] | Case]) -> Callable[[], Case]:
    name = build.__name__

    def made() -> Case:
        result = build()
        assert isinstance(result, Case)
        return replace(result, name=name)

    CASES[name] = made
    return made


def files_of(federation: Federation) -> Files:
    return files_from(
        federation.charter_bytes,
        {i: [r.signed.envelope() for r in log] for i, log in enumerate(federation.logs)},
    )


def files_from(charter: bytes, envelopes: dict[int, list[bytes]]) -> Files:
    files = {"charter.toml": charter}
    for author, log in envelopes.items():
        if log:
            files[f"logs/{log_name((author, 0))}"] = frames(log)
    return files


def good(federation: Federation, *bundles: Files, missing: int = 0) -> Case:
    return bad(federation, *bundles, missing=missing)


def bad(federation: Federation, *bundles: Files, codes: str = "", missing: int = 0) -> Case:
    """Build a case; ``codes`` is like "8 E_SIGNATURE, 4 E_SIZE"."""
    expected = [
        (int(part.split()[0]), part.split()[1]) for part in codes.split(",") if part.strip()
    ]
    return Case(
        name="",
        bundles=list(bundles) or [files_of(federation)],
        charter=federation.charter_bytes,
        digest=federation.charter.digest_hex,
        expected=expected,
        missing=missing,
    )


def small() -> Federation:
    """Three members; 0 and 1 have contributed to round 1."""
    federation = Federation(3)
    federation.open_all()
    for author in (0, 1):
        federation.write(
            author, Kind.CONTRIBUTION, 1, federation.contribution_body(author, 1), with_acks=True
        )
    return federation


def aggregate(federation: Federation, **changes: Any) -> Verified[Record]:
    offered = [federation.logs[0][1], federation.logs[1][1]]
    return federation.write(
        0, Kind.AGGREGATION, 1, federation.aggregation_body(offered, 1, **changes)
    )


def close(federation: Federation, author: int = 0, **changes: Any) -> Verified[Record]:
    return federation.write(author, Kind.CLOSE, 1, Close(reason=CloseReason.DONE), **changes)


def closing_value(federation: Federation, author: int = 0) -> list[Any]:
    """The 13 fields of a good last record, to be spoilt before signing."""
    return federation.draft(author, Kind.CLOSE, 1, Close(reason=CloseReason.DONE)).to_value()


def with_extra(federation: Federation, signed: SignedRecord, author: int = 0) -> Files:
    return with_envelope(federation, signed.envelope(), author)


def with_envelope(federation: Federation, envelope: bytes, author: int = 0) -> Files:
    files = files_of(federation)
    path = f"logs/{log_name((author, 0))}"
    files[path] = files[path][:-4] + len(envelope).to_bytes(4, "big") + envelope + END_MARK
    return files


def spoilt(codes: str, change: Callable[[list[Any]], Any]) -> Case:
    """The last record of author 0 after ``change`` of its value, rightly signed."""
    federation = small()
    value = closing_value(federation)
    changed = change(value)
    signed = sign_value(value if changed is None else changed, federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes=codes)


def ack_of(record: Verified[Record], **changes: Any) -> Ack:
    value = record.value
    return replace(Ack(value.author, value.epoch, value.seq, record.id), **changes)


# --- good -------------------------------------------------------------------------------------


@case
def good_three_members() -> Case:
    federation = small()
    aggregate(federation, left_out=(LeftOut(author=2, reason=Reason.NOT_RECEIVED),))
    federation.write(1, Kind.METRICS, 1, federation.metrics_body(1), with_acks=True)
    federation.write(2, Kind.REJECTION, 1, Rejection(target_id=NO_ID, reason=Reason.LATE))
    close(federation)
    return good(federation)


@case
def good_every_kind() -> Case:
    federation = small()
    one = federation.logs[0][0]
    target = federation.logs[1][1].id
    scores = (Score(target_id=target, loss_with_micro=1, loss_without_micro=2, count=64),)
    reveal = EvaluationReveal(
        commit_seq=1, salt=digest_of("s"), scores=scores, evaluation_commitment=digest_of("e")
    )
    commitment = commitment_of(
        net=federation.roster.net, author=2, epoch=0, round=1, salt=reveal.salt, scores=scores,
        evaluation_commitment=reveal.evaluation_commitment,
    )  # fmt: skip
    close(federation, 1)
    closed = federation.logs[1].pop()
    federation.heads[1] = head_after(federation.logs[1][-1].value, federation.logs[1][-1].id)
    other = federation.write(1, Kind.CLOSE, 1, Close(reason=CloseReason.LEFT))
    for kind, body in (
        (Kind.EVALUATION_COMMIT, EvaluationCommit(commitment=commitment)),
        (Kind.EVALUATION_REVEAL, reveal),
        (Kind.FORK_PROOF, fork_proof(closed.signed, other.signed)),
        (Kind.ANCHOR, Anchor(checkpoint_digest=digest_of("a"), token_digest=b"")),
        (
            Kind.RELEASE,
            Release(
                model_digest=digest_of("m"), aggregation_ids=(one.id,), intended_use_digest=NO_ID
            ),
        ),
        (Kind.WITHDRAWAL, Withdrawal(data_commitment=digest_of("d"), models=(digest_of("m"),))),
        (40_000, b"what a later version may say"),
    ):
        federation.write(2, kind, 1, body)
    return replace(good(federation), forks=[(1, 0, 2, 2, 1)])


@case
def good_buckets_and_share_cap() -> Case:
    extra = '[privacy]\nsample_count = "bucket"\n[aggregation]\nshare_cap = 0.6\n'
    federation = Federation(3, extra)
    federation.open_all()
    for author, samples in ((0, 1024), (1, 128), (2, 64)):
        body = federation.contribution_body(author, 1, samples=samples)
        federation.write(author, Kind.CONTRIBUTION, 1, body)
    body = federation.aggregation_body([log[1] for log in federation.logs], 1)
    federation.write(2, Kind.AGGREGATION, 1, body)
    return good(federation)


@case
def good_moments_round() -> Case:
    federation = Federation(3)
    federation.open_all()
    for author in (0, 1):
        body = federation.contribution_body(author, 0, codec=Codec.MOMENTS)
        federation.write(author, Kind.CONTRIBUTION, 0, body)
    body = federation.aggregation_body([federation.logs[0][1], federation.logs[1][1]], 0)
    inputs = tuple(replace(one, weight_micro=0) for one in body.inputs)
    federation.write(0, Kind.AGGREGATION, 0, replace(body, rule=Rule.MOMENTS, inputs=inputs))
    return good(federation)


@case
def good_member_without_records_is_missing_evidence() -> Case:
    federation = Federation(3)
    federation.open(0)
    federation.open(1)
    return good(federation, missing=1)


@case
def good_shorter_log_in_one_of_two_bundles() -> Case:
    federation = small()
    files = files_of(federation)
    aggregate(federation)
    return good(federation, files, files_of(federation))


# --- steps 1 to 3 -----------------------------------------------------------------------------


@case
def charter_with_another_digest() -> Case:
    federation = small()
    return replace(bad(federation, codes="1 E_NETWORK"), digest="00" * 32)


@case
def charter_in_bundle_differs() -> Case:
    federation = small()
    files = files_of(federation)
    files["charter.toml"] += b"#"
    return bad(federation, files, codes="1 E_NETWORK")


def _charter_case(charter: bytes, codes: str) -> Case:
    step, code = codes.split()
    return Case(
        name="",
        bundles=[{"charter.toml": charter, "logs/0000-0000.log": END_MARK}],
        charter=charter,
        digest=charter_net(charter).hex(),
        expected=[(int(step), code)],
    )


@case
def charter_with_unknown_key() -> Case:
    return _charter_case(charter_of(2, "roudns = 3\n"), "2 E_NONCANONICAL")


@case
def charter_that_is_not_toml() -> Case:
    return _charter_case(b"\xff\xfe", "2 E_NONCANONICAL")


@case
def charter_with_one_name_twice() -> Case:
    charter = charter_of(1) + member_block(1, name="hospital  0").encode()
    return _charter_case(charter.replace(b"hospital  0", b"HOSPITAL 0"), "3 E_ROSTER_DUP")


@case
def charter_with_a_low_order_key() -> Case:
    block = member_block(1, witness_key="01" + "00" * 31)
    return _charter_case(charter_of(1) + block.encode(), "3 E_WEAK_KEY")


@case
def charter_with_a_non_canonical_key() -> Case:
    block = member_block(1, network_key="f0" + "ff" * 30 + "7f")
    return _charter_case(charter_of(1) + block.encode(), "3 E_WEAK_KEY")


@case
def charter_with_one_key_for_two_uses() -> Case:
    key = Federation(2).charter.members[1].ledger_key.hex()
    block = member_block(1, witness_key=key)
    return _charter_case(charter_of(1) + block.encode(), "3 E_KEY_REUSE")


# --- step 4 -----------------------------------------------------------------------------------


@case
def stray_file_in_bundle() -> Case:
    federation = small()
    return bad(federation, files_of(federation) | {"notes.txt": b""}, codes="4 E_BUNDLE")


@case
def stray_file_among_logs() -> Case:
    federation = small()
    extra = {"logs/00000-0000.log": END_MARK}
    return bad(federation, files_of(federation) | extra, codes="4 E_BUNDLE")


@case
def log_cut_inside_a_frame() -> Case:
    federation = small()
    files = files_of(federation)
    files["logs/0002-0000.log"] = files["logs/0002-0000.log"][:-20]
    return bad(federation, files, codes="4 E_TRUNCATED")


@case
def log_cut_between_frames() -> Case:
    federation = small()
    files = files_of(federation)
    files["logs/0001-0000.log"] = files["logs/0001-0000.log"][:-4]
    return bad(federation, files, codes="4 E_TRUNCATED")


@case
def log_without_records() -> Case:
    return bad(Federation(1), {**files_of(Federation(1)), "logs/0000-0000.log": END_MARK},
               codes="4 E_TRUNCATED")  # fmt: skip


@case
def frame_longer_than_any_envelope() -> Case:
    federation = small()
    files = files_of(federation)
    files["logs/0002-0000.log"] = files["logs/0002-0000.log"][:-4] + b"\x00\x01\x00\x01" + bytes(8)
    return bad(federation, files, codes="4 E_SIZE")


@case
def bytes_after_the_end_mark() -> Case:
    federation = small()
    files = files_of(federation)
    files["logs/0002-0000.log"] += b"\x00"
    return bad(federation, files, codes="4 E_SIZE")


@case
def log_of_nobody() -> Case:
    federation = small()
    files = files_of(federation)
    files["logs/0007-0000.log"] = files["logs/0002-0000.log"]
    return bad(federation, files, codes="4 E_UNKNOWN_AUTHOR")


@case
def log_of_an_epoch_without_key() -> Case:
    federation = small()
    files = files_of(federation)
    files["logs/0002-0001.log"] = files["logs/0002-0000.log"]
    return bad(federation, files, codes="4 E_UNKNOWN_AUTHOR")


@case
def whole_log_left_out() -> Case:
    federation = small()
    files = files_of(federation)
    del files["logs/0002-0000.log"]
    return bad(federation, files, codes="4 E_MISSING_AUTHOR, 4 E_MISSING_AUTHOR")


# --- steps 5 to 8 -----------------------------------------------------------------------------


@case
def envelope_in_another_spelling() -> Case:
    federation = small()
    record_bytes = encode(closing_value(federation))
    signed = sign_bytes(record_bytes, federation.signers[0])
    envelope = b"\x92\xc5" + len(record_bytes).to_bytes(2, "big") + record_bytes
    envelope += b"\xc4\x40" + signed.signature
    if len(record_bytes) > 255:
        envelope = b"\xdc\x00\x02" + signed.envelope()[1:]
    return bad(federation, with_envelope(federation, envelope), codes="5 E_ENVELOPE")


@case
def envelope_of_255_bytes_with_a_long_header() -> Case:
    """The one length at which the header's spelling cannot be told from the total alone."""
    federation = small()
    value = federation.draft(0, 40_000, 1, b"").to_value()
    value[12] = bytes(255 - len(encode(value)))
    record_bytes = encode(value)
    assert len(record_bytes) == 255
    signed = sign_bytes(record_bytes, federation.signers[0])
    envelope = b"\x92\xc5\x00\xff" + record_bytes + b"\xc4\x40" + signed.signature
    return bad(federation, with_envelope(federation, envelope), codes="5 E_ENVELOPE")


@case
def envelope_that_is_none() -> Case:
    federation = small()
    return bad(federation, with_envelope(federation, b"\x90"), codes="5 E_ENVELOPE")


@case
def integer_in_a_longer_spelling() -> Case:
    federation = small()
    record_bytes = encode(closing_value(federation))
    assert record_bytes[1] == 1
    signed = sign_bytes(b"\x9d\xcc\x01" + record_bytes[2:], federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="5 E_NONCANONICAL")


def _encoding_case(position: int, thing: Any) -> Case:
    federation = small()
    value = closing_value(federation)
    value[position] = thing
    signed = sign_bytes(pack(value), federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="5 E_ENCODING")


@case
def true_where_one_belongs() -> Case:
    return _encoding_case(0, True)


@case
def negative_integer() -> Case:
    return _encoding_case(8, -1)


@case
def float_in_a_record() -> Case:
    return _encoding_case(9, 5.0)


@case
def nan_in_a_record() -> Case:
    return _encoding_case(9, float("nan"))


@case
def text_in_a_record() -> Case:
    return _encoding_case(12, ["Jane Doe"])


@case
def map_in_a_record() -> Case:
    return _encoding_case(12, {1: 2})


@case
def nothing_in_a_record() -> Case:
    return _encoding_case(12, [None])


@case
def integer_above_the_limit() -> Case:
    return _encoding_case(9, 2**53)


@case
def nested_too_deep() -> Case:
    deep: Any = 1
    for _ in range(9):
        deep = [deep]
    return _encoding_case(12, deep)


@case
def array_header_of_four_billion_items() -> Case:
    federation = small()
    signed = sign_bytes(b"\xdd\xff\xff\xff\xff", federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="5 E_ENCODING")


@case
def record_longer_than_allowed() -> Case:
    federation = small()
    value = federation.draft(0, 40_000, 1, bytes(33_000)).to_value()
    envelope = sign_value(value, federation.signers[0])
    return bad(federation, with_extra(federation, envelope), codes="5 E_SIZE")


@case
def version_two() -> Case:
    return spoilt("6 E_VERSION", lambda value: value.__setitem__(0, 2))


@case
def unknown_critical_kind() -> Case:
    return spoilt("6 E_KIND", lambda value: value.__setitem__(7, 99))


@case
def twelve_fields() -> Case:
    return spoilt("6 E_SCHEMA", lambda value: value.pop())


@case
def body_of_another_kind() -> Case:
    return spoilt("6 E_SCHEMA", lambda value: value.__setitem__(7, int(Kind.METRICS)))


@case
def reason_outside_its_enumeration() -> Case:
    return spoilt("6 E_SCHEMA", lambda value: value.__setitem__(12, [77]))


@case
def author_above_sixteen_bits() -> Case:
    return spoilt("6 E_SCHEMA", lambda value: value.__setitem__(2, 1 << 16))


@case
def acks_out_of_order() -> Case:
    federation = small()
    value = closing_value(federation)
    acks = [ack_of(federation.logs[2][0]), ack_of(federation.logs[1][0])]
    value[11] = [[ack.author, ack.epoch, ack.seq, ack.id] for ack in acks]
    signed = sign_value(value, federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="6 E_ORDER")


@case
def aggregation_inputs_out_of_order() -> Case:
    federation = small()
    offered = [federation.logs[0][1], federation.logs[1][1]]
    body = federation.aggregation_body(offered, 1)
    value = federation.draft(0, Kind.AGGREGATION, 1, body).to_value()
    value[12][2].reverse()
    signed = sign_value(value, federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="6 E_ORDER")


@case
def record_of_another_network() -> Case:
    return spoilt("7 E_NETWORK", lambda value: value.__setitem__(1, digest_of("other net")))


@case
def record_of_an_unknown_roster() -> Case:
    return spoilt("7 E_ROSTER_UNKNOWN", lambda value: value.__setitem__(6, 1))


@case
def log_under_another_name() -> Case:
    federation = Federation(3)
    federation.open(0)
    federation.open(1)
    files = files_of(federation)
    files["logs/0002-0000.log"] = files.pop("logs/0001-0000.log")
    return bad(federation, files, codes="7 E_AUTHOR_MISMATCH")


@case
def signature_of_another_member() -> Case:
    federation = small()
    signed = sign_value(closing_value(federation), federation.signers[1])
    return bad(federation, with_extra(federation, signed), codes="8 E_SIGNATURE")


@case
def signature_without_the_domain() -> Case:
    federation = small()
    record_bytes = encode(closing_value(federation))
    signed = SignedRecord(record_bytes, federation.signers[0].sign(record_bytes))
    return bad(federation, with_extra(federation, signed), codes="8 E_SIGNATURE")


@case
def signature_with_a_malleated_scalar() -> Case:
    """S + L verifies for careless libraries."""
    federation = small()
    good_one = sign_value(closing_value(federation), federation.signers[0])
    order = 2**252 + 27742317777372353535851937790883648493
    scalar = int.from_bytes(good_one.signature[32:], "little") + order
    signature = good_one.signature[:32] + scalar.to_bytes(32, "little")
    signed = SignedRecord(good_one.record_bytes, signature)
    return bad(federation, with_extra(federation, signed), codes="8 E_SIGNATURE")


# --- steps 9 and 10 ---------------------------------------------------------------------------


@case
def a_record_is_missing_in_between() -> Case:
    federation = small()
    close(federation)
    del federation.logs[0][1]
    return bad(federation, codes="9 E_GAP")


@case
def a_record_stands_twice() -> Case:
    federation = small()
    federation.logs[0].append(federation.logs[0][1])
    return bad(federation, codes="9 E_GAP")


@case
def two_records_for_one_slot_in_a_file() -> Case:
    federation = small()
    other = federation.contribution_body(0, 1, samples=7)
    first = federation.logs[0][1].value
    federation.add(replace(first, body=other))
    return bad(federation, codes="9 E_FORK")


@case
def an_old_slot_rewritten_at_the_end() -> Case:
    federation = small()
    for _ in range(3):
        close(federation)
    federation.add(replace(federation.logs[0][2].value, time_ms=federation.clock_ms + 5))
    return bad(federation, codes="9 E_FORK")


@case
def two_records_for_one_slot_in_two_bundles() -> Case:
    federation = Federation(2)
    federation.open_all()
    head = federation.heads[0]
    close(federation)
    one = files_of(federation)
    federation.logs[0].pop()
    federation.heads[0] = head
    federation.write(0, Kind.CLOSE, 1, Close(reason=CloseReason.LEFT))
    return bad(federation, one, files_of(federation), codes="9 E_FORK, 9 E_FORK")


@case
def prev_of_another_record() -> Case:
    return spoilt("9 E_PREV", lambda value: value.__setitem__(5, digest_of("another")))


@case
def a_log_that_does_not_begin_with_open() -> Case:
    federation = Federation(2)
    federation.open(1)
    close(federation)
    return bad(federation, codes="9 E_OPEN")


@case
def a_second_open() -> Case:
    federation = small()
    federation.write(0, Kind.OPEN, 1, federation.open_body(0))
    return bad(federation, codes="9 E_OPEN")


@case
def open_of_another_charter() -> Case:
    federation = Federation(1)
    body = replace(federation.open_body(0), charter_digest=digest_of("other"))
    federation.write(0, Kind.OPEN, 0, body)
    return bad(federation, codes="9 E_OPEN")


@case
def open_with_an_epoch_before_the_first() -> Case:
    federation = Federation(1)
    body = replace(federation.open_body(0), previous_head=digest_of("before"))
    federation.write(0, Kind.OPEN, 0, body)
    return bad(federation, codes="9 E_OPEN")


@case
def open_with_another_key() -> Case:
    federation = Federation(2)
    federation.open(1)
    federation.write(0, Kind.OPEN, 0, federation.open_body(1))
    return bad(federation, codes="9 E_OPEN_KEY")


@case
def lamport_that_stands_still() -> Case:
    federation = small()
    close(federation, lamport=federation.logs[0][-1].value.lamport)
    return bad(federation, codes="10 E_LAMPORT")


@case
def lamport_that_uses_up_the_numbers() -> Case:
    federation = small()
    close(federation, lamport=2**53 - 1)
    return bad(federation, codes="10 E_LAMPORT")


@case
def clock_that_goes_backward() -> Case:
    federation = small()
    close(federation, time_ms=federation.logs[0][-1].value.time_ms - 1)
    return bad(federation, codes="10 E_TIME_BACKWARD")


@case
def round_that_goes_backward() -> Case:
    federation = small()
    close(federation, round=0)
    return bad(federation, codes="10 E_ROUND_BACKWARD")


# --- step 11 ----------------------------------------------------------------------------------


def _acks_case(codes: str, *acks: Callable[[Federation], Ack], **changes: Any) -> Case:
    federation = small()
    close(federation, acks=tuple(ack(federation) for ack in acks), **changes)
    return bad(federation, codes=codes)


@case
def ack_of_another_id_in_a_known_slot() -> Case:
    return _acks_case(
        "11 E_DEP_UNKNOWN",
        lambda f: ack_of(f.logs[1][1], id=digest_of("never written")),
        lamport=50,
    )


@case
def ack_of_another_id_in_a_slot_to_come() -> Case:
    federation = small()
    close(federation, acks=(Ack(1, 0, 2, digest_of("never written")),))
    close(federation, 1)
    return bad(federation, codes="11 E_DEP_UNKNOWN")


@case
def ack_of_who_is_no_member() -> Case:
    return _acks_case("11 E_DEP_UNKNOWN", lambda f: ack_of(f.logs[1][0], author=9))


@case
def ack_of_an_epoch_without_key() -> Case:
    return _acks_case("11 E_DEP_UNKNOWN", lambda f: ack_of(f.logs[1][0], epoch=3))


@case
def ack_of_the_own_log() -> Case:
    return _acks_case("11 E_DEP_SELF", lambda f: ack_of(f.logs[0][0]))


@case
def acked_tail_cut_off() -> Case:
    federation = small()
    close(federation, acks=(ack_of(federation.logs[1][1]),), lamport=50)
    federation.logs[1].pop()
    return bad(federation, codes="11 E_OMISSION")


@case
def ack_of_a_record_that_is_not_before() -> Case:
    federation = small()
    acks = (ack_of(federation.logs[1][1]),)
    lamport = federation.logs[1][1].value.lamport
    assert lamport > federation.logs[0][1].value.lamport
    close(federation, acks=acks, lamport=lamport)
    return bad(federation, codes="11 E_CAUSALITY")


@case
def ack_of_a_clock_more_than_a_day_ahead() -> Case:
    federation = small()
    late = close(federation, 1, time_ms=federation.clock_ms + 86_400_000 + 1_000)
    close(federation, acks=(ack_of(late),), lamport=50, time_ms=federation.clock_ms)
    return bad(federation, codes="11 E_TIME_CAUSAL")


@case
def ack_that_goes_backward() -> Case:
    federation = small()
    close(federation, acks=(ack_of(federation.logs[1][1]),), lamport=50)
    close(federation, acks=(ack_of(federation.logs[1][0]),), lamport=51)
    return bad(federation, codes="11 E_ACK_BACKWARD")


# --- step 12 ----------------------------------------------------------------------------------


def _inputs_case(codes: str, **changes: Any) -> Case:
    """Spoil the second input of an otherwise good aggregation."""
    federation = small()
    offered = [federation.logs[0][1], federation.logs[1][1]]
    body = federation.aggregation_body(offered, 1)
    inputs = (body.inputs[0], replace(body.inputs[1], **changes))
    federation.write(0, Kind.AGGREGATION, 1, replace(body, inputs=inputs))
    return bad(federation, codes=codes)


@case
def input_that_is_in_no_bundle() -> Case:
    return _inputs_case("12 E_AGG_INPUT", seq=5)


@case
def input_of_a_log_that_is_in_no_bundle() -> Case:
    return _inputs_case("12 E_AGG_INPUT", author=9)


@case
def input_with_another_id() -> Case:
    return _inputs_case("12 E_AGG_INPUT", id=digest_of("other"))


@case
def input_that_is_no_contribution() -> Case:
    federation = small()
    opened = federation.logs[1][0]
    return _inputs_case("12 E_AGG_INPUT", seq=0, id=opened.id)


@case
def input_twice() -> Case:
    federation = small()
    again = federation.write(1, Kind.CONTRIBUTION, 1, federation.contribution_body(1, 1))
    federation.write(
        0,
        Kind.AGGREGATION,
        1,
        federation.aggregation_body([federation.logs[1][1], again], 1),
    )
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def input_of_a_later_round() -> Case:
    federation = Federation(2)
    federation.open_all()
    one = federation.write(1, Kind.CONTRIBUTION, 2, federation.contribution_body(1, 2))
    federation.write(0, Kind.AGGREGATION, 1, federation.aggregation_body([one], 1))
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def input_of_another_codec() -> Case:
    federation = Federation(2)
    federation.open_all()
    body = federation.contribution_body(1, 1, codec=Codec.MOMENTS)
    one = federation.write(1, Kind.CONTRIBUTION, 1, body)
    federation.write(0, Kind.AGGREGATION, 1, federation.aggregation_body([one], 1))
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def input_count_that_is_no_bucket() -> Case:
    federation = Federation(2, '[privacy]\nsample_count = "bucket"\n')
    federation.open_all()
    one = federation.write(1, Kind.CONTRIBUTION, 1, federation.contribution_body(1, 1, samples=100))
    federation.write(0, Kind.AGGREGATION, 1, federation.aggregation_body([one], 1))
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def aggregation_of_nothing() -> Case:
    federation = small()
    aggregate(federation, inputs=())
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def moments_outside_round_zero() -> Case:
    federation = small()
    aggregate(federation, rule=Rule.MOMENTS)
    return bad(federation, codes="12 E_AGG_INPUT")


@case
def weight_above_the_charters_rule() -> Case:
    return _inputs_case("12 E_AGG_WEIGHT", weight_micro=600_001)


@case
def moments_with_a_weight() -> Case:
    federation = Federation(1)
    federation.open(0)
    body = federation.contribution_body(0, 0, codec=Codec.MOMENTS)
    one = federation.write(0, Kind.CONTRIBUTION, 0, body)
    merged = federation.aggregation_body([one], 0, rule=Rule.MOMENTS)
    federation.write(0, Kind.AGGREGATION, 0, merged)
    return bad(federation, codes="12 E_AGG_WEIGHT")


@case
def an_honest_member_is_not_refused_for_a_damaged_log() -> Case:
    federation = small()
    close(federation, 2, with_acks=True)
    close(federation, 0, with_acks=True)
    path = "logs/0002-0000.log"
    files = files_of(federation)
    files[path] = files[path][:-5] + bytes([files[path][-5] ^ 1]) + END_MARK
    return bad(federation, files, codes="8 E_SIGNATURE")


import checkpoint_cases  # noqa: E402, F401 - registers the cases of checkpoints
import evaluation_cases  # noqa: E402, F401 - registers those of evaluations and fork proofs
import fork_cases  # noqa: E402, F401 - registers those of forks
import late_cases  # noqa: E402, F401 - registers those of late contributions
import roster_cases  # noqa: E402, F401 - registers the cases of a roster that changes
