"""RFC 3161: the request's bytes, and tokens that speak of something else."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_factory import DIGEST, TIME_S, imprint, info, token

from ledger.der import BOOLEAN, INTEGER, NULL, OCTET_STRING, SEQUENCE, SET, Reader, write
from ledger.der import write_integer as integer
from ledger.errors import VerificationError
from ledger.timestamp import TokenClaim, build_request, check_token


def reply(status: int = 0, inside: bytes | None = None) -> bytes:
    return write(
        SEQUENCE, write(SEQUENCE, integer(status)), token() if inside is None else inside
    )  # fmt: skip


def refused(data: bytes, digest: bytes = DIGEST, nonce: int | None = None) -> str:
    with pytest.raises(VerificationError) as caught:
        check_token(data, digest, nonce=nonce)
    assert caught.value.code == "E_TIMESTAMP"
    return str(caught.value)


def test_the_request_has_the_specified_bytes() -> None:
    assert build_request(DIGEST).hex() == (
        "30390201013031300d060960864801650304020105000420" + DIGEST.hex() + "0101ff"
    )
    with_nonce = build_request(DIGEST, nonce=2**63)
    assert with_nonce[-14:] == bytes.fromhex("0209008000000000000000") + bytes.fromhex("0101ff")


@pytest.mark.parametrize(
    ("digest", "nonce"), [(DIGEST[:-1], None), (b"", 1), (DIGEST, -1), (DIGEST, 2**64)]
)
def test_no_request_for_anything_else(digest: bytes, nonce: int | None) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        build_request(digest, nonce=nonce)


def test_a_token_and_a_reply_say_the_same() -> None:
    claim = TokenClaim(time_s=TIME_S, serial=7, policy_oid=bytes.fromhex("2a0304"), nonce=None)
    for data in (token(), reply(), reply(1)):
        assert check_token(data, DIGEST) == claim


def test_optional_fields_are_understood() -> None:
    accuracy = write(SEQUENCE, integer(1))
    name = write(0xA0, write(0xA4, write(SEQUENCE)))
    rest = accuracy + write(BOOLEAN, b"\xff") + integer(99) + name + write(0xA1, b"")
    data = token(info(of=imprint(parameters=write(NULL)), time="20231114221320.125Z", rest=rest))
    claim = check_token(data, DIGEST, nonce=99)
    assert (claim.time_s, claim.nonce) == (TIME_S, 99)
    assert check_token(token(info(rest=integer(5))), DIGEST).nonce == 5


def test_a_token_for_another_checkpoint_is_refused() -> None:
    other = hashlib.sha256(b"another checkpoint").digest()
    assert refused(token(), other) == (
        f"E_TIMESTAMP: the token is for digest {DIGEST.hex()} (expected {other.hex()})"
    )
    refused(token(info(of=imprint(DIGEST[:-1]))))
    refused(token(info(of=imprint(algorithm="2b0e03021a"))))  # SHA-1
    refused(token(info(of=imprint(parameters=integer(1)))))
    refused(token(info(of=imprint(parameters=write(NULL, b"x")))))
    refused(token(info(of=imprint(parameters=write(NULL) + write(NULL)))))


def test_a_token_for_another_request_is_refused() -> None:
    refused(token(info(rest=integer(5))), nonce=6)
    refused(token(), nonce=6)


def test_a_refusal_by_the_authority_is_no_token() -> None:
    assert "did not grant" in refused(reply(2))
    assert "did not grant" in refused(write(SEQUENCE, write(SEQUENCE, integer(2))))
    refused(write(SEQUENCE, write(SEQUENCE, integer(0))))


@pytest.mark.parametrize(
    "time",
    [
        "", "20231114221320", "20231114221320+0100", "20231114221320.Z", "20231114221320.10Z",
        "20231114221320,5Z", "2023111422132Z", "20231314221320Z", "20231114221360Z",
        "２0231114221320Z", "20231114221320.5ZZ", "+0231114221320Z",
    ],
)  # fmt: skip
def test_a_time_in_another_form_is_refused(time: str) -> None:
    refused(token(info(time=time)))


def test_other_structures_are_refused() -> None:
    for data in (
        b"",
        token() + b"\0",
        reply() + b"\0",
        token(kind="2a864886f70d010701"),
        token(outer="2a864886f70d010701"),
        token(after=b"\x30\x05"),
        token(info() + b"\0"),
        token(info(version=integer(2))),
        token(info(version=write(INTEGER, b"\x00\x01"))),
        token(info(version=write(INTEGER))),
        token(info(rest=integer(5) + integer(6))),
        token(info(rest=write(BOOLEAN, b"\xff") + write(SEQUENCE))),
        reply(inside=token() + token()),
        write(SET, token()),
        bytes(65_537),
    ):
        refused(data)


@pytest.mark.parametrize(
    "element",
    ["0280", "028101", "02820001", "0285000000000101", "1f020101", "02", "0205", "0282ff"],
)
def test_only_der_is_read(element: str) -> None:
    data = bytes.fromhex(element) + bytes(5) * (element == "028101")
    with pytest.raises(VerificationError) as caught:
        Reader(data).skip()
    assert caught.value.code == "E_TIMESTAMP"


@given(st.integers(0, 70_000))
def test_lengths_are_read_as_they_are_written(length: int) -> None:
    data = write(OCTET_STRING, bytes(length))
    reader = Reader(data)
    assert len(reader.take(OCTET_STRING, "test")) == length
    reader.end("test")


@given(st.integers(0, 2**80))
def test_integers_are_read_as_they_are_written(value: int) -> None:
    assert Reader(integer(value)).integer("test") == value


def test_every_cut_and_every_flipped_bit_of_the_claim_is_seen_or_harmless() -> None:
    data = reply(inside=token(info(rest=integer(5))))
    claim = check_token(data, DIGEST, nonce=5)
    for at in range(len(data)):
        refused(data[:at], nonce=5)
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            other = check_token(changed, DIGEST, nonce=5)
        except VerificationError:
            continue
        # Without the signature the rest is a claim: time, serial and policy are openssl's to check.
        assert other.nonce == claim.nonce


@given(st.binary(max_size=200))
def test_no_input_crashes_the_reader(data: bytes) -> None:
    refused(data)
