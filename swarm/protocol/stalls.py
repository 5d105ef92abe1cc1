"""Which payloads nobody serves: a download that does not move. Pure but for what it remembers.

Spec: docs/wire.md §5.4. Somebody who offers a payload and does not serve it costs the others a grace,
not a deadline; somebody whose line is slow has sent the manifest and gets longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

MANIFEST_GRACES: Final = 1
"""Graces without a byte before a download counts as stalled while not even its manifest has come."""
CHUNK_GRACES: Final = 3
"""The same once the manifest is here: somebody does serve, and a chunk takes long on a slow line."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one download has come."""

    bytes_held: int
    has_manifest: bool


@final
class Stalls:
    """Watches downloads that are under way."""

    def __init__(self) -> None:
        self._moved: dict[bytes, tuple[Standing, float]] = {}

    def look(
        self, under_way: Mapping[bytes, Standing], *, now_s: float, grace_s: float
    ) -> frozenset[bytes]:
        """Return which of the downloads have not moved for too long: `grace_s` says how long that is."""
        moved = {}
        for digest, standing in under_way.items():
            before = self._moved.get(digest)
            moved[digest] = before if before and before[0] == standing else (standing, now_s)
        self._moved = moved
        return frozenset(
            digest
            for digest, (standing, since_s) in moved.items()
            if now_s >= since_s + grace_s * _graces(standing)
        )


def _graces(standing: Standing) -> int:
    return CHUNK_GRACES if standing.has_manifest else MANIFEST_GRACES
