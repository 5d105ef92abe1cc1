"""How fast payloads leave: a bucket for each peer and one for all of them. Time is an argument."""

from typing import Final, Protocol, final

from node.line import Line

_SLICE_S: Final = 0.25  # of a limited line that one batch may take
_BATCH_BYTES_MIN: Final = 16 * 1024
_BURST_S: Final = 0.5


class Pace(Protocol):
    """When large writes may leave."""

    def batch_bytes(self, bytes_max: int) -> int:
        """Return how much may go at once, at most bytes_max."""

    def reserve(self, count: int, *, now_s: float) -> float:
        """Count bytes that are to leave, and return when they may."""

    def give_back(self, count: int) -> None:
        """Count no longer what was to leave and does not."""


@final
class Unpaced:
    """At once."""

    def batch_bytes(self, bytes_max: int) -> int:
        """Return bytes_max."""
        return bytes_max

    def reserve(self, count: int, *, now_s: float) -> float:  # noqa: ARG002
        """Return now."""
        return now_s

    def give_back(self, count: int) -> None:
        """Do nothing."""


UNPACED: Final = Unpaced()


@final
class Bucket:
    """A line of so many bytes a second; half a second's worth may leave at once after a pause."""

    def __init__(self, bytes_per_s: float) -> None:
        if not bytes_per_s > 0:
            raise ValueError("a line carries more than 0 bytes a second")
        self._bytes_per_s = bytes_per_s
        self._paid_until_s = float("-inf")

    def batch_bytes(self, bytes_max: int) -> int:
        """Return a slice of the line: small enough that others get their turn."""
        return max(_BATCH_BYTES_MIN, min(bytes_max, int(self._bytes_per_s * _SLICE_S)))

    def reserve(self, count: int, *, now_s: float) -> float:
        """Count bytes, and return when they may leave."""
        begin_s = max(self._paid_until_s, now_s - _BURST_S)
        self._paid_until_s = begin_s + count / self._bytes_per_s
        return max(now_s, begin_s)

    def give_back(self, count: int) -> None:
        """Let others have the time: those who reserve from now on."""
        self._paid_until_s -= count / self._bytes_per_s


@final
class Both:
    """As the slower of two allows."""

    def __init__(self, one: Pace, other: Pace) -> None:
        self._one = one
        self._other = other

    def batch_bytes(self, bytes_max: int) -> int:
        """Return the smaller slice."""
        return self._other.batch_bytes(self._one.batch_bytes(bytes_max))

    def reserve(self, count: int, *, now_s: float) -> float:
        """Count bytes at both, and return when both let them leave."""
        return max(self._one.reserve(count, now_s=now_s), self._other.reserve(count, now_s=now_s))

    def give_back(self, count: int) -> None:
        """Give back to both."""
        self._one.give_back(count)
        self._other.give_back(count)


@final
class Paces:
    """The pace of each member, and what they share."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._shared = _bucket(line.upload_mbit_s_max)
        self._own: dict[int, Pace] = {}

    def of(self, peer: int) -> Pace:
        """Return a member's pace, the same for all its connections."""
        if peer not in self._own:
            own = _bucket(self._line.peer_upload_mbit_s_max)
            self._own[peer] = Both(self._shared, own)
        return self._own[peer]


def _bucket(mbit_s: float | None) -> Pace:
    return UNPACED if mbit_s is None else Bucket(mbit_s * 1e6 / 8)
