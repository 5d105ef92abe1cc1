"""What members tell each other about who reaches whom. Knows no I/O. Spec: docs/wire.md §9.1.

All of it is a claim: a false one costs a detour or a wrong line in somebody's doctor, never a byte of
content. Address records are signed by those whom they are about (node/address_record.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ledger.canonical import Value, encode
from ledger.errors import PeerError
from swarm.protocol.messages import MESSAGE_VERSION, byte_strings, open_message

MEMBERS_MAX: Final = 2_048
RECORDS_MAX: Final = 256
"""Address records in one message; what is left comes with the next."""

Sequences = dict[int, tuple[int, int]]
"""Author → (epoch, sequence) of the newest address record held."""


class Sight(IntEnum):
    """How one member sees another: connected, or why not."""

    CONNECTED = 0
    UNKNOWN = 1
    NO_ADDRESS = 2
    DNS = 3
    REFUSED = 4
    UNREACHABLE = 5
    TIMEOUT = 6
    WRONG_KEY = 7
    NO_SWARM_NODE = 8
    NOT_A_MEMBER = 9
    OTHER_CHARTER = 10
    PRE_SHARED_KEY = 11


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """One member's view. carries: whether it forwards for others."""

    sights: Mapping[int, Sight]
    carries: bool
    sequences: Sequences = field(default_factory=dict)
    records: tuple[bytes, ...] = ()

    @property
    def connected(self) -> frozenset[int]:
        """Whom it is connected to."""
        return frozenset(i for i, sight in self.sights.items() if sight is Sight.CONNECTED)


def encode_reach(reach: Reach) -> bytes:
    """Pack a view; question and answer look the same."""
    sights: list[Value] = [[index, int(sight)] for index, sight in sorted(reach.sights.items())]
    sequences: list[Value] = [[a, *newest] for a, newest in sorted(reach.sequences.items())]
    return encode(
        [MESSAGE_VERSION, sights, int(reach.carries), sequences, list(reach.records[:RECORDS_MAX])]
    )


def decode_reach(data: bytes) -> Reach:
    """Unpack a view; its records are still untrusted. Raises PeerError."""
    match open_message(data):
        case [list(sights), int(carries), list(sequences), list(records), *_] if (
            carries in (0, 1) and len(records) <= RECORDS_MAX
        ):
            return Reach(
                sights=_sights(sights),
                carries=bool(carries),
                sequences=_sequences(sequences),
                records=byte_strings(records),
            )
        case _:
            raise PeerError("reach is not [version, sights, carries, sequences, records]")


def _sights(values: Sequence[Value]) -> dict[int, Sight]:
    parsed: dict[int, Sight] = {}
    for value in values:
        match value:
            case [int(index), int(code)] if index < MEMBERS_MAX:
                # A later version may know more reasons.
                parsed[index] = Sight(code) if code <= max(Sight) else Sight.UNKNOWN
            case _:
                raise PeerError("a sight is not [member, code]")
    return parsed


def _sequences(values: Sequence[Value]) -> Sequences:
    parsed: Sequences = {}
    for value in values:
        match value:
            case [int(author), int(epoch), int(sequence)] if author < MEMBERS_MAX:
                parsed[author] = epoch, sequence
            case _:
                raise PeerError("a sequence is not [author, epoch, sequence]")
    return parsed
