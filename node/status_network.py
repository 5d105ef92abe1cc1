"""How a running node reaches the others, for its status and its doctor. Room: node.

Law: says what the network says; a member's view of others is that member's claim.
"""

from collections.abc import Mapping
from typing import Any, Final

from node.exchange import Heard
from node.forwarding import ForwardingNetwork
from node.network import Network
from swarm.protocol.reach import Reach, Sight

DIRECT: Final = "direct"
UNREACHABLE: Final = "unreachable"

Facts = dict[str, Any]


def ways(network: Network, names: Mapping[int, str]) -> dict[int, str]:
    """Return how each member is reached: ``direct``, ``via ⟨member⟩`` or ``unreachable``."""
    carriers = network.carriers() if isinstance(network, ForwardingNetwork) else {}
    connected = network.connected()
    return {
        index: f"via {names[carriers[index]]}"
        if index in carriers
        else DIRECT
        if index in connected
        else UNREACHABLE
        for index in names
    }


def network_facts(network: Network, heard: Mapping[int, Heard]) -> Facts | None:
    """Return what `doctor --network` asks a running node for, by member index as text."""
    if not isinstance(network, ForwardingNetwork):
        return None
    reaching = network.reaching
    return {
        "sights": _codes(reaching.own_sights()),
        "reasons": {str(member): reason for member, reason in reaching.reasons().items()},
        "addresses": {str(member): texts for member, texts in reaching.addresses().items()},
        "views": {str(peer): _view_facts(reach) for peer, reach in reaching.views().items()},
        "skews_s": {
            str(peer): (one.hello.time_ms - one.at_ms) / 1000 for peer, one in heard.items()
        },
        "carried_bytes": network.carrier.carried_bytes,
    }


def _view_facts(reach: Reach) -> Facts:
    """Spell a member's view, in codes: there are as many as pairs of members."""
    return {"sights": _codes(reach.sights), "carries": reach.carries}


def _codes(sights: Mapping[int, Sight]) -> dict[str, int]:
    return {str(member): int(sight) for member, sight in sorted(sights.items())}
