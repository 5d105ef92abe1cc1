"""Attacks of the table in test_tamper_table.py that tests/vectors does not hold."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evaluation_cases import Scored
from ledger_cases import (
    Case,
    _encoding_case,
    ack_of,
    bad,
    close,
    closing_value,
    files_of,
    small,
    spoilt,
    with_envelope,
    with_extra,
)
from ledger_factory import Federation, sign_bytes, sign_value

from ledger.bundle import END_MARK, log_name
from ledger.canonical import encode
from ledger.chain import head_after
from ledger.charter import load_charter
from ledger.record import Ack, Codec, Kind, Rule, SignedRecord

NAMES: dict[str, Callable[[], Case]] = {}


def attack(build: Callable[[], Case]) -> Callable[[], Case]:
    NAMES[build.__name__] = lambda: replace(build(), name=build.__name__)
    return build


def frames_of(federation: Federation, author: int) -> list[bytes]:
    return [one.signed.envelope() for one in federation.logs[author]]


def framed(envelopes: list[bytes]) -> bytes:
    return b"".join(len(one).to_bytes(4, "big") + one for one in envelopes) + END_MARK


def flipped(federation: Federation, position: int, codes: str) -> Case:
    """One bit of the last record of log 2, counted from the file's end mark."""
    files = files_of(federation)
    data = bytearray(files["logs/0002-0000.log"])
    data[position] ^= 1
    files["logs/0002-0000.log"] = bytes(data)
    return bad(federation, files, codes=codes)


@attack
def bit_flipped_in_a_body() -> Case:
    # Before the end mark (4) and the signature with its header (66): the charter digest in OPEN.
    return flipped(small(), -4 - 66 - 5, "8 E_SIGNATURE")


@attack
def bit_flipped_in_a_signature() -> Case:
    return flipped(small(), -4 - 10, "8 E_SIGNATURE")


@attack
def bit_flipped_in_a_length() -> Case:
    return flipped(small(), 3, "5 E_ENVELOPE")


@attack
def high_bit_flipped_in_a_length() -> Case:
    return flipped(small(), 1, "4 E_SIZE")


@attack
def garbage_behind_an_envelope() -> Case:
    federation = small()
    signed = sign_value(closing_value(federation), federation.signers[0])
    return bad(
        federation, with_envelope(federation, signed.envelope() + b"\0"), codes="5 E_ENVELOPE"
    )


@attack
def garbage_behind_a_record() -> Case:
    federation = small()
    signed = sign_bytes(encode(closing_value(federation)) + b"\0", federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="5 E_ENCODING")


@attack
def empty_file() -> Case:
    federation = small()
    return bad(
        federation, files_of(federation) | {"logs/0002-0000.log": b""}, codes="4 E_TRUNCATED"
    )


@attack
def two_records_swapped() -> Case:
    federation = small()
    close(federation)
    close(federation)
    one, two, three, four = frames_of(federation, 0)
    files = files_of(federation) | {"logs/0000-0000.log": framed([one, two, four, three])}
    return bad(federation, files, codes="9 E_GAP")


@attack
def record_in_anothers_file() -> Case:
    federation = small()
    close(federation, 1)
    return bad(
        federation, with_envelope(federation, frames_of(federation, 1)[-1], 2),
        codes="7 E_AUTHOR_MISMATCH",
    )  # fmt: skip


@attack
def roster_keys_swapped() -> Case:
    """Two members' ledger keys change places in the bundle's charter."""
    federation = small()
    one, two = (member.ledger_key.hex().encode() for member in federation.charter.members[:2])
    swapped = federation.charter_bytes.replace(one, b"?").replace(two, one).replace(b"?", two)
    load_charter(swapped)
    return bad(federation, files_of(federation) | {"charter.toml": swapped}, codes="1 E_NETWORK")


@attack
def acked_history_rewritten() -> Case:
    """Author 0 signs its log anew from record 1 on; member 1 has acked the old one."""
    federation = small()
    files = files_of(federation)
    del federation.logs[0][1:]
    federation.heads[0] = head_after(federation.logs[0][0].value, federation.logs[0][0].id)
    body = federation.contribution_body(0, 1, samples=9)
    federation.write(0, Kind.CONTRIBUTION, 1, body, time_ms=federation.logs[1][0].value.time_ms + 9)
    files["logs/0000-0000.log"] = framed(frames_of(federation, 0))
    return bad(federation, files, codes="11 E_DEP_UNKNOWN")


@attack
def stolen_slot() -> Case:
    """Member 1 writes the next record of member 0's log, with its own key."""
    federation = small()
    signed = sign_value(closing_value(federation, 0), federation.signers[1])
    return bad(federation, with_extra(federation, signed), codes="8 E_SIGNATURE")


@attack
def signature_of_a_foreign_domain() -> Case:
    federation = small()
    data = encode(closing_value(federation))
    foreign = federation.signers[0].sign(b"swarm-ledger/roster/v1\n" + data)
    return bad(
        federation, with_extra(federation, SignedRecord(data, foreign)), codes="8 E_SIGNATURE"
    )


@attack
def array_header_in_a_longer_spelling() -> Case:
    federation = small()
    data = encode(closing_value(federation))
    signed = sign_bytes(b"\xdc\x00\x0d" + data[1:], federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="5 E_NONCANONICAL")


@attack
def map_with_one_key_twice() -> Case:
    federation = small()
    data = encode(closing_value(federation))
    assert data.endswith(b"\x91\x01")  # the CLOSE body
    signed = sign_bytes(data[:-2] + b"\x82\x01\x02\x01\x03", federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="5 E_ENCODING")


@attack
def largest_64_bit_integer() -> Case:
    return _encoding_case(9, 2**64 - 1)


@attack
def text_where_bytes_belong() -> Case:
    return _encoding_case(5, "0" * 32)


@attack
def extension_type() -> Case:
    federation = small()
    data = encode(closing_value(federation))
    signed = sign_bytes(data[:-1] + b"\xd4\x05\x00", federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="5 E_ENCODING")


@attack
def short_digest() -> Case:
    return spoilt("6 E_SCHEMA", lambda value: value.__setitem__(5, value[5][:31]))


@attack
def fourteen_fields() -> Case:
    return spoilt("6 E_SCHEMA", lambda value: value.append(0))


@attack
def one_field_more_in_a_body() -> Case:
    return spoilt("6 E_SCHEMA", lambda value: value[12].append(0))


@attack
def ack_twice() -> Case:
    federation = small()
    value = closing_value(federation)
    ack = ack_of(federation.logs[2][0])
    value[11] = [[ack.author, ack.epoch, ack.seq, ack.id]] * 2
    signed = sign_value(value, federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="6 E_ORDER")


@attack
def ack_of_a_record_that_nobody_has() -> Case:
    federation = small()
    head = federation.logs[2][-1]
    ahead = Ack(2, 0, head.value.seq + 1, bytes(32))
    close(federation, acks=(ahead,))
    return bad(federation, codes="11 E_OMISSION")


@attack
def score_twice() -> Case:
    """Exactly the same score, twice: the sorted order is not strict."""
    federation = Scored()
    value = federation.opens().value.to_value()
    value[12][2].append(value[12][2][-1])
    federation.logs[0].pop()
    signed = sign_value(value, federation.signers[0])
    return bad(federation, with_extra(federation, signed), codes="6 E_ORDER")


@attack
def equal_weights_where_samples_weigh() -> Case:
    """Equal weights, though the charter weighs by samples."""
    federation = small()
    offered = [federation.logs[0][1], federation.logs[1][1]]
    body = federation.aggregation_body(offered, 1)
    inputs = tuple(replace(one, weight_micro=500_000) for one in body.inputs)
    assert body.rule is Rule.MEAN
    assert all(getattr(one.value.body, "codec", None) is Codec.FLOAT32 for one in offered)
    federation.write(0, Kind.AGGREGATION, 1, replace(body, inputs=inputs))
    return bad(federation, codes="12 E_AGG_WEIGHT")


def symlinked(bundle: Path) -> None:
    """Put a link to a perfect log in its place."""
    path = bundle / "logs" / log_name((2, 0))
    outside = bundle.parent / "elsewhere.log"
    path.rename(outside)
    path.symlink_to(outside)
