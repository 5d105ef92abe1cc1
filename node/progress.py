"""How fast a transfer goes. Room: node. Time is an argument."""

import math
from dataclasses import dataclass
from typing import Any, Final, final

MEMORY_S: Final = 5.0
"""What was longer ago counts less than a third."""


@final
class Meter:
    """Bytes a second, of late: an exponential average that forgets what is long ago."""

    def __init__(self, now_s: float) -> None:
        self._started_s = self._seen_s = now_s
        self._recent_bytes = 0.0

    def add(self, bytes_count: int, now_s: float) -> None:
        """Take what has come into account."""
        self._recent_bytes = self._left(now_s) + bytes_count
        self._seen_s = now_s

    def bytes_s(self, now_s: float) -> float:
        """Return the speed now."""
        # In the beginning the average has had less time than it remembers.
        memory_s = MEMORY_S * -math.expm1(-max(now_s - self._started_s, 1e-3) / MEMORY_S)
        return self._left(now_s) / memory_s

    def _left(self, now_s: float) -> float:
        return self._recent_bytes * math.exp((self._seen_s - now_s) / MEMORY_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One payload on its way in, for the operator."""

    member: int | None
    """Whose contribution it is; None: a model that was agreed on."""
    digest: bytes
    bytes_held: int
    bytes_count: int | None
    """None before the manifest has come."""
    bytes_s: float
    sources: int

    def to_json(self, name: str | None) -> dict[str, Any]:
        """Plain values."""
        return {
            "member": name,
            "digest": self.digest.hex(),
            "bytes_held": self.bytes_held,
            "bytes_count": self.bytes_count,
            "mb_s": round(self.bytes_s / 1e6, 3),
            "sources": self.sources,
        }
