"""RFC 3161 tokens of no authority: the right bytes around any digest, signed by nobody."""

import hashlib
from datetime import UTC, datetime

from ledger.der import OCTET_STRING, OID, SEQUENCE, SET, write
from ledger.der import write_integer as integer

DIGEST = hashlib.sha256(b"a checkpoint").digest()
SHA256 = "608648016503040201"
TIME = "20231114221320Z"
TIME_S = int(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC).timestamp())


def oid(text: str) -> bytes:
    return write(OID, bytes.fromhex(text))


def imprint(digest: bytes = DIGEST, algorithm: str = SHA256, parameters: bytes = b"") -> bytes:
    return write(SEQUENCE, write(SEQUENCE, oid(algorithm), parameters), write(OCTET_STRING, digest))


def info(
    version: bytes = integer(1),
    policy: bytes = oid("2a0304"),
    of: bytes = imprint(),
    serial: bytes = integer(7),
    time: str = TIME,
    rest: bytes = b"",
) -> bytes:
    return write(SEQUENCE, version, policy, of, serial, write(0x18, time.encode()), rest)


def token(
    content: bytes | None = None,
    *,
    kind: str = "2a864886f70d0109100104",
    outer: str = "2a864886f70d010702",
    after: bytes = b"",
) -> bytes:
    content = info() if content is None else content
    inside = write(SEQUENCE, oid(kind), write(0xA0, write(OCTET_STRING, content)))
    signed = write(SEQUENCE, integer(3), write(SET), inside, write(SET), after)
    return write(SEQUENCE, oid(outer), write(0xA0, signed))
