"""Who proposes: members ranked anew every round by a hash that nobody chooses. Spec: docs/wire.md §5.5."""

import hashlib
from collections.abc import Iterable
from typing import Final

_DOMAIN: Final = b"swarm/rank/v1\n"


def ranked(net: bytes, round_: int, authors: Iterable[int]) -> tuple[int, ...]:
    """Return ``authors`` ordered by SHA-256(domain ‖ net ‖ round ‖ author): the first proposes first."""

    def key(author: int) -> bytes:
        place = round_.to_bytes(4, "big") + author.to_bytes(2, "big")
        return hashlib.sha256(_DOMAIN + net + place).digest()

    return tuple(sorted(authors, key=key))
