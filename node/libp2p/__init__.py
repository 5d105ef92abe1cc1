"""The network between hospitals: libp2p over TCP, noise and yamux. The only package that knows it.

Law 3. What is wrapped and why: docs/adr/0003. In short: nobody off the roster gets past the
handshake, no exception of a handler or a peer reaches libp2p's own task groups, no write is
cancelled half-way, silent peers are dropped and lost ones redialled forever.
"""

from node.libp2p.members import peer_id_text
from node.libp2p.network import Libp2pNetwork
from node.libp2p.probe import probe_member

__all__ = ["Libp2pNetwork", "peer_id_text", "probe_member"]
