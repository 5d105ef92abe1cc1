"""Bounds on what peers may make us do. Time is an argument."""

import hashlib
from collections import OrderedDict
from typing import Final, final

DEDUPLICATE_S: Final = 60.0
"""How long a message is remembered. Raise it if duplicates cost work, lower it for memory."""
DEDUPLICATE_ENTRIES_MAX: Final = 8192
REPLAY_WINDOW: Final = 1024
"""How far behind the highest one a sequence number may come."""


@final
class Deduplicator:
    """Remembers which messages of which authors were seen, for a while and up to a number.

    The author belongs to the key: a member that repeats another's bytes cannot make the
    original look like a copy.
    """

    def __init__(
        self, *, keep_s: float = DEDUPLICATE_S, entries_max: int = DEDUPLICATE_ENTRIES_MAX
    ) -> None:
        self._keep_s = keep_s
        self._entries_max = entries_max
        self._seen_s: OrderedDict[bytes, float] = OrderedDict()

    def is_new(self, author: int, message: bytes, *, now_s: float) -> bool:
        """Return whether the message was not seen in the last keep_s, and remember it."""
        key = hashlib.blake2b(message, digest_size=20, salt=author.to_bytes(8, "big")).digest()
        while self._seen_s:
            oldest, seen_s = next(iter(self._seen_s.items()))
            if now_s - seen_s < self._keep_s and len(self._seen_s) < self._entries_max:
                break
            del self._seen_s[oldest]
        if key in self._seen_s:
            return False
        self._seen_s[key] = now_s
        return True


@final
class TokenBucket:
    """Lets through a burst at once and rate_per_s in the long run."""

    def __init__(self, *, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._filled_s: float | None = None

    def take(self, *, now_s: float) -> bool:
        """Take one token if there is one."""
        if self._filled_s is not None:
            earned = (now_s - self._filled_s) * self._rate_per_s
            self._tokens = min(self._burst, self._tokens + earned)
        self._filled_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@final
class ByteMeter:
    """Lets bytes through at a rate in the long run, and ``burst`` of them at once.

    A message passes whole and may leave a debt, which those after it wait for: so one that is longer
    than the burst still gets through.
    """

    def __init__(self, *, bytes_per_s: float, burst: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._burst = burst
        self._balance = burst
        self._counted_s: float | None = None

    def wait_s(self, *, now_s: float) -> float:
        """Return how long until the next message may pass."""
        self._earn(now_s)
        return max(0.0, -self._balance / self._bytes_per_s)

    def charge(self, count: int, *, now_s: float) -> None:
        """Count a message that passed."""
        self._earn(now_s)
        self._balance -= count

    def _earn(self, now_s: float) -> None:
        if self._counted_s is not None:
            earned = (now_s - self._counted_s) * self._bytes_per_s
            self._balance = min(self._burst, self._balance + earned)
        self._counted_s = now_s


@final
class ReplayWindow:
    """Takes each sequence number once, in almost any order; what is far behind counts as taken.

    The sliding window of RFC 6479, for numbers from 1.
    """

    def __init__(self, *, size: int = REPLAY_WINDOW) -> None:
        self.highest = 0
        self._size = size
        self._taken = 0  # bit i: highest - i

    def is_behind(self, sequence: int) -> bool:
        """Whether the number is too old for anybody to say if it came before."""
        return sequence <= self.highest - self._size

    def take(self, sequence: int) -> bool:
        """Return whether the number is new, and remember it."""
        if sequence < 1 or self.is_behind(sequence):
            return False
        if sequence > self.highest:
            # Shifted out whole, a leap costs no more than a step.
            step = min(sequence - self.highest, self._size)
            self._taken = ((self._taken << step) | 1) & ((1 << self._size) - 1)
            self.highest = sequence
            return True
        bit = 1 << (self.highest - sequence)
        if self._taken & bit:
            return False
        self._taken |= bit
        return True
