"""The last thing that a node does: it sees that others have everything before it goes. Spec: docs/wire.md §5.2.

Everybody's CLOSE being here says nothing of who has this node's. Who was cut off from answers for a moment
would be left without the end of the ledger if all the others went then.
"""

from collections.abc import Collection
from typing import Final

import trio

from node.backoff import Backoff
from node.exchange import REQUEST_TIMEOUT_S, Exchange
from node.world import World
from swarm.protocol.book import RoundBook

SEEN_OFF: Final = 3
"""Peers that a node sees to, so that everybody is seen to by as many and the work does not grow with n²."""
FAREWELL_S: Final = 3 * REQUEST_TIMEOUT_S
"""How long at most: whoever says nothing in this time may hold nobody up."""
_LOOK_S: Final = 0.1


async def see_off(exchange: Exchange, world: World, book: RoundBook, *, own: int) -> None:
    """Stay until the next few members that are connected are known to hold every closed log.

    It keeps comparing heads with them, in ever longer intervals; who goes or forks is not waited for.
    """
    backoff = Backoff(world.random.random, last_s=REQUEST_TIMEOUT_S)
    ask_s = trio.current_time()
    with trio.move_on_after(FAREWELL_S) as limit:
        while behind := _behind(exchange, world.network.connected(), book, own):
            if trio.current_time() >= ask_s:
                exchange.compare_soon(behind)
                ask_s = trio.current_time() + backoff.next_s()
            await trio.sleep(_LOOK_S)
    if limit.cancelled_caught:
        world.log.warning("left_behind", peers=sorted(behind), waited_s=FAREWELL_S)


def _behind(
    exchange: Exchange, connected: Collection[int], book: RoundBook, own: int
) -> frozenset[int]:
    """Of the next few after ``own``, who is not known to hold everything."""
    peers = [m.index for m in book.roster.active if m.index in connected and m.index != own]
    peers = [peer for peer in peers if not book.is_frozen(peer)]
    following = sorted(peers, key=lambda peer: (peer < own, peer))[:SEEN_OFF]
    return frozenset(peer for peer in following if not exchange.is_complete(peer))
