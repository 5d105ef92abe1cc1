"""Only checked bytes become a Verified record, and every field comes back as written."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_cases import closing_value, small
from ledger_factory import Federation, digest_of, sign_bytes, sign_value

from ledger import record as module
from ledger.canonical import RECORD_BYTES_MAX, encode, pack
from ledger.chain import compose
from ledger.errors import VerificationError
from ledger.keys import Signer
from ledger.record import (
    BODIES,
    ORDINARY_BYTES_MAX,
    Ack,
    Aggregation,
    Body,
    Close,
    ForkProof,
    Kind,
    LeftOut,
    Metrics,
    MetricValue,
    Record,
    SignedRecord,
    Verified,
    decode_record,
    open_record,
    parse_envelope,
    sign_record,
)
from ledger.schema import AnyBin, Bin, Field, ListOf, Shape, Uint


def strategy(kind: Field | Shape) -> st.SearchStrategy[Any]:
    if isinstance(kind, Uint):
        return st.sampled_from(sorted(kind.among)) if kind.among else st.integers(0, kind.most)
    if isinstance(kind, Bin):
        return st.sampled_from(sorted(kind.lengths)).flatmap(
            lambda n: st.binary(min_size=n, max_size=n)
        )
    if isinstance(kind, AnyBin):
        return st.binary(max_size=40)
    if isinstance(kind, Shape):
        last = [*kind.fields.values()][-1]
        leave_out = isinstance(last, ListOf) and last.is_optional
        rows = st.tuples(*map(strategy, kind.fields.values()))
        return rows.map(lambda row: list(row if row[-1] or not leave_out else row[:-1]))
    items = st.lists(strategy(kind.item), max_size=4)
    if not kind.sorted_by:
        return items

    def strictly_sorted(rows: list[Any]) -> list[Any]:
        by_key = {tuple(row[: kind.sorted_by]): row for row in rows}
        return [by_key[key] for key in sorted(by_key)]

    return items.map(strictly_sorted)


FEDERATION = Federation(3)
bodies = st.sampled_from(sorted(BODIES)).flatmap(
    lambda kind: strategy(BODIES[kind].SHAPE).map(BODIES[kind].from_value)
)
acks = strategy(
    ListOf(
        Shape(author=Uint(2**16 - 1), epoch=Uint(2**32 - 1), seq=Uint(), id=Bin(32)), sorted_by=2
    )
).map(lambda rows: tuple(Ack(*row) for row in rows))
records = st.builds(
    Record,
    net=st.binary(min_size=32, max_size=32),
    author=st.integers(0, 2**16 - 1),
    epoch=st.integers(0, 2**32 - 1),
    seq=st.integers(0, 2**53 - 1),
    prev=st.binary(min_size=32, max_size=32),
    roster=st.integers(0, 2**32 - 1),
    kind=st.just(0),
    round=st.integers(0, 2**32 - 1),
    lamport=st.integers(0, 2**53 - 1),
    time_ms=st.integers(0, 2**53 - 1),
    acks=acks,
    body=bodies,
).map(lambda record: replace(record, kind=int(kind_of(record.body))))


def kind_of(body: Body | bytes) -> Kind:
    assert isinstance(body, Body)
    return body.KIND


@given(records)
def test_every_record_comes_back_as_it_was_written(record: Record) -> None:
    data = encode(record.to_value())
    assert Record.from_value(decode_record(data)) == record
    assert decode_record(data) == record.to_value()


@given(records, st.data())
def test_the_quick_look_accepts_what_the_slow_one_accepts(record: Record, data: Any) -> None:
    value = record.to_value()
    spoil(value, data)
    record_bytes = pack(value)
    try:
        expected: Any = module._decode_slowly(record_bytes)
    except VerificationError as error:
        expected = str(error)
    try:
        result: Any = decode_record(record_bytes)
    except VerificationError as error:
        result = str(error)
    assert result == expected


def spoil(value: list[Any], data: Any) -> None:
    """Put something odd somewhere."""
    odd = st.sampled_from(
        [True, -1, 1.0, None, "x", b"", b"x", 2**53, 2**32, 2**16, 0, 7, [], [[]], [1], bytes(32)]
    )
    here = value
    for _ in range(data.draw(st.integers(0, 4), label="depth")):
        inner = [one for one in here if isinstance(one, list) and one]
        here = data.draw(st.sampled_from(inner)) if inner else here
    change = data.draw(st.sampled_from(["set", "drop", "double", "swap"]), label="change")
    at = data.draw(st.integers(0, len(here) - 1), label="at")
    if change == "set":
        here[at] = data.draw(odd, label="odd")
    elif change == "drop":
        del here[at]
    elif change == "double":
        here.insert(at, here[at])
    else:
        here[at], here[0] = here[0], here[at]


@given(st.binary(max_size=150))
def test_no_envelope_crashes_and_what_is_accepted_is_the_one_spelling(data: bytes) -> None:
    try:
        signed = parse_envelope(data)
    except VerificationError as error:
        assert error.code in {"E_ENVELOPE", "E_SIZE"}  # noqa: PT017
    else:
        assert signed.envelope() == data


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 65_466])
def test_envelopes_of_every_length_come_back(length: int) -> None:
    signed = SignedRecord(bytes(length), b"s" * 64)
    assert parse_envelope(signed.envelope()) == signed


def test_an_envelope_that_is_too_long_is_refused() -> None:
    with pytest.raises(VerificationError, match="E_SIZE"):
        parse_envelope(SignedRecord(bytes(RECORD_BYTES_MAX + 1), bytes(64)).envelope())


def test_nobody_else_makes_a_verified_record() -> None:
    federation = small()
    verified = federation.logs[0][0]
    with pytest.raises(TypeError, match="open_record"):
        Verified(verified.value, verified.signed, verified.id)
    with pytest.raises(TypeError, match="open_record"):
        Verified(verified.value, verified.signed, verified.id, object())


def test_what_was_signed_opens_as_the_same_record() -> None:
    federation = Federation(4)
    federation.play(1)
    federation.write(0, 50_000, 1, b"an extension")
    for verified in federation.records():
        signed = parse_envelope(verified.signed.envelope())
        assert open_record(signed, roster=federation.roster) == verified


def test_the_id_is_the_leaf_hash_and_leaves_the_signature_out() -> None:
    verified = small().logs[0][0]
    other = SignedRecord(verified.signed.record_bytes, bytes(64))
    assert other.id == verified.id
    assert verified.id.hex() == verified.signed.id.hex()


@pytest.mark.parametrize(
    ("code", "position", "thing"),
    [
        ("E_NETWORK", 1, digest_of("other")),
        ("E_UNKNOWN_AUTHOR", 2, 9),
        ("E_UNKNOWN_AUTHOR", 3, 1),
        ("E_ROSTER_UNKNOWN", 6, 1),
        ("E_SIGNATURE", 2, 1),
        ("E_VERSION", 0, 0),
        ("E_KIND", 7, 99),
        ("E_SCHEMA", 7, b"kind"),
    ],
)
def test_open_refuses_and_says_where(code: str, position: int, thing: Any) -> None:
    federation = small()
    value = closing_value(federation)
    value[position] = thing
    signed = sign_value(value, federation.signers[0])
    with pytest.raises(VerificationError) as caught:
        open_record(signed, roster=federation.roster)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_an_open_must_name_key_and_charter() -> None:
    federation = small()
    for changes, code in (
        ({"public_key": federation.signers[1].public_key}, "E_OPEN_KEY"),
        ({"charter_digest": digest_of("other")}, "E_OPEN"),
        ({"previous_head": digest_of("other")}, "E_OPEN"),
    ):
        body = replace(federation.open_body(0), **changes)
        federation.heads[0] = None
        signed = sign_record(federation.draft(0, Kind.OPEN, 0, body), federation.signers[0])
        with pytest.raises(VerificationError) as caught:
            open_record(signed.signed, roster=federation.roster)
        assert caught.value.code == code


def test_our_own_mistakes_are_refused_before_signing() -> None:
    federation = small()
    record = federation.draft(0, Kind.CLOSE, 1, Close(reason=9))
    with pytest.raises(
        VerificationError, match=r"CLOSE.reason has the wrong value.*one of \[1, 2\]"
    ):
        sign_record(record, federation.signers[0])


def test_two_of_the_largest_records_fit_into_one_fork_proof() -> None:
    federation = small()
    size = ORDINARY_BYTES_MAX - len(encode(federation.draft(0, 40_000, 1, b"").to_value())) - 1
    largest = federation.draft(0, 40_000, 1, bytes(size))
    signed = sign_record(largest, federation.signers[0]).signed
    assert len(signed.record_bytes) == ORDINARY_BYTES_MAX
    proof = ForkProof(envelope_a=signed.envelope(), envelope_b=signed.envelope())
    record = compose(
        federation.heads[1], roster=federation.roster, author=1, epoch=0, kind=Kind.FORK_PROOF,
        round=2**32 - 1, time_ms=2**53 - 1, acks=(), body=proof, lamports=[2**53 - 2],
    )  # fmt: skip
    made = sign_record(record, federation.signers[1])
    assert open_record(made.signed, roster=federation.roster).value == record
    with pytest.raises(VerificationError, match="E_SIZE"):
        sign_record(replace(largest, body=bytes(size + 1)), federation.signers[0])


def test_a_bare_array_or_number_is_no_record() -> None:
    signer = Signer(bytes(32))
    for value in ([], 5, [b"x"], [1]):
        with pytest.raises(VerificationError, match="E_SCHEMA"):
            decode_record(sign_value(value, signer).record_bytes)
    with pytest.raises(VerificationError, match="E_ENCODING"):
        decode_record(sign_bytes(b"\xc0", signer).record_bytes)


def test_rows_of_bodies_are_rows_again() -> None:
    body = Metrics(
        round=1,
        model_digest=bytes(32),
        values=(MetricValue(metric=1, micro=2, low_micro=1, high_micro=3, count=4),),
    )
    assert Metrics.from_value(body.to_value()) == body
    with pytest.raises(VerificationError, match=r"METRICS.values\[0\].metric"):
        Metrics.from_value([1, bytes(32), [[77, 2, 1, 3, 4]]])
    merged = Aggregation(
        rule=1, parameters=(7, 8), inputs=(), left_out=(LeftOut(author=1, reason=2),),
        result_digest=bytes(32),
    )  # fmt: skip
    assert Aggregation.from_value(merged.to_value()) == merged
    with pytest.raises(VerificationError, match="at most 64"):
        Aggregation.from_value(replace(merged, parameters=(0,) * 65).to_value())
    with pytest.raises(VerificationError, match="is not an array"):
        Aggregation.from_value([1, 5, [], [], bytes(32)])
