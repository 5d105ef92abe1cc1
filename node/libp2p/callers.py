"""Who may knock: how many strangers at once and how often, in all and from one address.

A stranger that says nothing keeps its place only until others want it: the oldest goes first, so
that a room full of silent ones keeps no member out. Time is an argument. Knows no socket.
"""

import ipaddress
from collections import OrderedDict
from typing import Final, final

import trio

from node.limits import TokenBucket

HALF_OPEN_MAX: Final = 128
"""Connections that have not shown who they are. Each costs about 30 KB and ends after dial_s."""
HALF_OPEN_PER_ADDRESS_MAX: Final = 64
CALLS_PER_S: Final = 20.0
"""New connections from one address in the long run; a handshake costs about 3 ms of CPU."""
CALLS_BURST: Final = 100.0
"""New connections from one address at once: a site with many members behind one gateway."""
_ADDRESSES_MAX: Final = 1024  # remembered


@final
class Callers:
    """The connections in their handshake, oldest first."""

    def __init__(self) -> None:
        self._rates: OrderedDict[str, TokenBucket] = OrderedDict()
        self._half_open: dict[trio.CancelScope, str] = {}

    def __len__(self) -> int:
        """How many are in their handshake."""
        return len(self._half_open)

    def may_call(self, ip: str, *, now_s: float) -> bool:
        """Return whether an address may begin another handshake, and count it."""
        network = _network(ip)
        bucket = self._rates.pop(network, None)
        if bucket is None:
            bucket = TokenBucket(rate_per_s=CALLS_PER_S, burst=CALLS_BURST)
            if len(self._rates) >= _ADDRESSES_MAX:
                self._rates.popitem(last=False)
        self._rates[network] = bucket
        return bucket.take(now_s=now_s)

    def begin(self, scope: trio.CancelScope, ip: str) -> None:
        """Note a handshake; cancel the oldest ones that leave it no place."""
        network = _network(ip)
        same = [other for other, where in self._half_open.items() if where == network]
        if len(same) >= HALF_OPEN_PER_ADDRESS_MAX:
            self._evict(same[0])
        elif len(self._half_open) >= HALF_OPEN_MAX:
            self._evict(next(iter(self._half_open)))
        self._half_open[scope] = network

    def end(self, scope: trio.CancelScope) -> None:
        """Note that a handshake is over, whichever way."""
        self._half_open.pop(scope, None)

    def _evict(self, scope: trio.CancelScope) -> None:
        scope.cancel()
        del self._half_open[scope]


def _network(ip: str) -> str:
    """Return what counts as one caller: an IPv4 address, or an IPv6 network of 64 bits."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))
