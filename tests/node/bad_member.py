"""A member that breaks the rules, as the tests here call it (scenarios/bad_member.py)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from nacl.signing import SigningKey

from node.libp2p.by_hand import ConnectionByHand, connection_by_hand


@asynccontextmanager
async def bad_member(
    port: int, *, seed: bytes, victim_seed: bytes
) -> AsyncIterator[ConnectionByHand]:
    key = bytes(SigningKey(victim_seed).verify_key)
    async with connection_by_hand("127.0.0.1", port, network_seed=seed, peer_key=key) as member:
        yield member
