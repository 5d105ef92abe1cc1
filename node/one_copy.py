"""One running node for each key on a machine, wherever its directory was copied to. Room: node.

The ledger's lock file guards one directory; a copied directory has a lock file of its own. So the node
also holds a name made from its public key: an abstract Unix socket, which the kernel frees however the
process ends. On other machines (and in other containers) it is the peers who notice: journal.py.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ledger.errors import ConfigError


@contextmanager
def only_copy(public_key: bytes) -> Iterator[None]:
    """Hold this key's name on this machine. Raises ConfigError if another process holds it."""
    if sys.platform != "linux":  # no abstract sockets
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
        try:
            held.bind(b"\0swarm-node/" + public_key.hex().encode())
        except OSError:
            raise ConfigError(
                "another node with this site's key runs on this machine: a copied directory must never "
                "run; stop one, and delete the copy that is behind"
            ) from None
        yield
