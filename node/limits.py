"""Bounds on what peers may make us do. Time is an argument."""

import hashlib
from collections import OrderedDict
from typing import Final, final

DEDUPLICATE_S: Final = 60.0
"""How long a message is remembered. Raise it if duplicates cost work, lower it for memory."""
DEDUPLICATE_ENTRIES_MAX: Final = 8192


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
