"""RFC 3161: asking for a time stamp of a checkpoint, and what a token says. Room: ledger.

Spec: docs/checkpoints.md §9. A token's *signature* is not checked here: that needs X.509 and the
CMS, which an auditor's base install does not carry. The tool for it is
``openssl ts -verify -data FILE.checkpoint -in TOKEN.tsr -CAfile TSA-ROOT.pem``.
What is checked here is that the token speaks of this very checkpoint file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from . import der
from .der import Reader, refused

DIGEST_BYTES: Final = 32
TOKEN_BYTES_MAX: Final = 65_536
NONCE_MAX: Final = 2**64 - 1
_SHA256: Final = bytes.fromhex("608648016503040201")  # 2.16.840.1.101.3.4.2.1
_SIGNED_DATA: Final = bytes.fromhex("2a864886f70d010702")  # 1.2.840.113549.1.7.2
_TST_INFO: Final = bytes.fromhex("2a864886f70d0109100104")  # 1.2.840.113549.1.9.16.1.4
_GRANTED: Final = (0, 1)  # granted, granted with modifications


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenClaim:
    """What a token says. Its signature has not been checked: a claim, not a proof."""

    time_s: int  # Unix time, fractions of a second cut off
    serial: int
    policy_oid: bytes  # the content of the DER element
    nonce: int | None


def build_request(digest: bytes, *, nonce: int | None = None) -> bytes:
    """Return the TimeStampReq for a checkpoint file's SHA-256 digest; the TSA's certificate is asked for.

    The same bytes as ``openssl ts -query -digest … -sha256 -cert``. Raises ValueError.
    """
    if len(digest) != DIGEST_BYTES or not 0 <= (nonce or 0) <= NONCE_MAX:
        raise ValueError("need a digest of 32 bytes and a nonce of at most 64 bits")
    algorithm = der.write(der.SEQUENCE, der.write(der.OID, _SHA256), der.write(der.NULL))
    imprint = der.write(der.SEQUENCE, algorithm, der.write(der.OCTET_STRING, digest))
    parts = [der.write_integer(1), imprint]
    if nonce is not None:
        parts.append(der.write_integer(nonce))
    parts.append(der.write(der.BOOLEAN, b"\xff"))
    return der.write(der.SEQUENCE, *parts)


def check_token(data: bytes, digest: bytes, *, nonce: int | None = None) -> TokenClaim:
    """Return what a reply (TimeStampResp) or a bare token says of the file with this digest.

    nonce: the request's, if it is still known. Raises E_TIMESTAMP if the data is not DER of that
    form, was not granted, or speaks of another digest, hash or nonce.
    """
    claim, imprint = read_token(data)
    if imprint != digest:
        raise refused(f"the token is for digest {imprint.hex()}", digest.hex())
    if nonce is not None and claim.nonce != nonce:
        raise refused(f"the token has nonce {claim.nonce}", str(nonce))
    return claim


def read_token(data: bytes) -> tuple[TokenClaim, bytes]:
    """Return what a reply or a token says, and the digest of the file it speaks of. E_TIMESTAMP."""
    if len(data) > TOKEN_BYTES_MAX:
        raise refused(f"{len(data)} bytes", f"at most {TOKEN_BYTES_MAX}")
    return _read_info(Reader(_info_of(data)))


def _info_of(data: bytes) -> bytes:
    """Return the TSTInfo's bytes out of a reply or a token."""
    outer = Reader(data)
    body = outer.inside(der.SEQUENCE, "reply or token")
    outer.end("reply or token")
    if body.peek() == der.SEQUENCE:  # TimeStampResp: a status, then the token
        status = body.inside(der.SEQUENCE, "status").integer("status")
        if status not in _GRANTED:
            raise refused(f"the authority did not grant it: status {status}")
        token = body.inside(der.SEQUENCE, "token")
        body.end("reply")
        body = token
    _take_oid(body, _SIGNED_DATA, "content type of the token", "SignedData")
    wrapped = body.inside(der.EXPLICIT_0, "content")
    body.end("token")
    signed = wrapped.inside(der.SEQUENCE, "SignedData")
    wrapped.end("content")
    signed.integer("version of SignedData")
    signed.take(der.SET, "digest algorithms")
    content = signed.inside(der.SEQUENCE, "encapsulated content")
    _take_oid(content, _TST_INFO, "type of what is signed", "TSTInfo")
    octets = content.inside(der.EXPLICIT_0, "encapsulated content")
    content.end("encapsulated content")
    info = octets.take(der.OCTET_STRING, "TSTInfo")
    octets.end("TSTInfo")
    while signed.peek() >= 0:  # certificates and signatures: openssl's, but whole they must be
        signed.skip()
    return info


def _read_info(outer: Reader) -> tuple[TokenClaim, bytes]:
    info = outer.inside(der.SEQUENCE, "TSTInfo")
    outer.end("TSTInfo")
    if info.integer("version of TSTInfo") != 1:
        raise refused("TSTInfo of another version", "1")
    policy_oid = info.take(der.OID, "policy")
    imprint = info.inside(der.SEQUENCE, "message imprint")
    algorithm = imprint.inside(der.SEQUENCE, "hash algorithm")
    _take_oid(algorithm, _SHA256, "hash algorithm", "SHA-256")
    if algorithm.peek() >= 0 and algorithm.take(der.NULL, "hash parameters"):
        raise refused("the hash has parameters", "none")
    algorithm.end("hash algorithm")
    digest = imprint.take(der.OCTET_STRING, "hashed message")
    imprint.end("message imprint")
    serial = info.integer("serial number")
    time_s = _time_s(info.take(der.GENERALIZED_TIME, "time"))
    nonce = None
    last = der.GENERALIZED_TIME
    for tag in (der.SEQUENCE, der.BOOLEAN, der.INTEGER, 0xA0, 0xA1):  # accuracy … extensions
        if info.peek() == tag == der.INTEGER:
            nonce = info.integer("nonce")
        elif info.peek() == tag:
            info.take(tag, f"optional field after 0x{last:02x}")
        last = tag
    info.end("TSTInfo")
    return TokenClaim(time_s=time_s, serial=serial, policy_oid=policy_oid, nonce=nonce), digest


def _time_s(content: bytes) -> int:
    """Return the Unix time of ``YYYYMMDDhhmmss[.fff]Z``, the form that RFC 3161 §2.4.2 demands."""
    text = content.decode("ascii", "replace")
    whole, dot, fraction = text.removesuffix("Z").partition(".")
    plain = text.endswith("Z") and len(whole) == 14 and whole.isascii() and whole.isdigit()
    shortest = not dot or (fraction.isascii() and fraction.isdigit() and fraction[-1] != "0")
    try:
        moment = datetime.strptime(
            (whole if plain and shortest else "") + "+0000", "%Y%m%d%H%M%S%z"
        )
    except ValueError:
        raise refused(f"time {ascii(text)[:40]}", "YYYYMMDDhhmmss[.f]Z") from None
    return int(moment.timestamp())


def _take_oid(reader: Reader, oid: bytes, what: str, name: str) -> None:
    if reader.take(der.OID, what) != oid:
        raise refused(f"{what} is another", name)
