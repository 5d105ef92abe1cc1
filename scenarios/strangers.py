"""Attacks by anybody who can reach a node's port and has no key: for tests and for real processes.

Room: scenarios. Each function takes a host and a port, attacks for a while, hangs up and says what
came of it. They are meant for nodes that the caller has started. Attacks that need a member's key
are in bad_member.py.
"""

import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

_GREETING: Final = b"\x13/multistream/1.0.0\n"
_NOISE: Final = b"\x07/noise\n"
_CONNECT_S: Final = 5.0
_WAIT_S: Final = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What an attack achieved. ended: connections that the node closed while it lasted."""

    attack: str
    connections: int
    ended: int
    bytes_sent: int
    seconds: float


def half_open(host: str, port: int, *, seconds: float = 2.0, connections: int = 200) -> Outcome:
    """Connect many times and say nothing."""
    return _hold("half_open", host, port, connections, seconds, say=lambda _number: b"")


def slowloris(host: str, port: int, *, seconds: float = 2.0, connections: int = 50) -> Outcome:
    """Shake hands one byte at a time."""
    said = _GREETING + _NOISE
    return _hold(
        "slowloris", host, port, connections, seconds, say=lambda number: said[number : number + 1]
    )


def random_bytes(
    host: str, port: int, *, seconds: float = 2.0, connections: int = 50, seed: int = 1
) -> Outcome:
    """Say what means nothing, on connections of which half begin as libp2p."""
    source = random.Random(seed)  # noqa: S311 - an attack that can be repeated
    started_s = time.monotonic()
    made = ended = sent = 0
    while made < connections and time.monotonic() - started_s < seconds:
        with suppress(OSError), _connected(host, port) as attacker:
            made += 1
            said = source.randbytes(source.randrange(1, 4096))
            if made % 2:
                said = _GREETING + _NOISE + said
            attacker.sendall(said)
            sent += len(said)
            attacker.settimeout(_WAIT_S)
            while attacker.recv(4096):
                pass
            ended += 1
    return _outcome("random_bytes", made, ended, sent, started_s)


def endless_talk(host: str, port: int, *, seconds: float = 2.0) -> Outcome:
    """Begin as libp2p and never stop talking."""
    started_s = time.monotonic()
    made = ended = sent = 0
    while time.monotonic() - started_s < seconds:
        try:
            with _connected(host, port) as attacker:
                made += 1
                attacker.sendall(_GREETING + _NOISE + b"\xff\xff")
                while time.monotonic() - started_s < seconds:
                    sent += attacker.send(bytes(64 * 1024))
        except OSError:
            ended += 1
            time.sleep(0.01)
    return _outcome("endless_talk", made, ended, sent, started_s)


def knock(host: str, port: int, *, seconds: float = 2.0) -> Outcome:
    """Connect and hang up, as fast as it goes."""
    started_s = time.monotonic()
    made = ended = 0
    while time.monotonic() - started_s < seconds:
        try:
            with _connected(host, port):
                made += 1
        except OSError:
            ended += 1
    return _outcome("knock", made, ended, 0, started_s)


def no_member(
    host: str, port: int, *, network_key: bytes, seconds: float = 2.0, connections: int = 20
) -> Outcome:
    """Shake hands correctly, each time with another key that is on no roster.

    network_key: the node's own (the charter names it).
    """
    import trio

    from node.libp2p import probe_member
    from node.network import Peer

    address = f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}"
    target = Peer(index=0, name="target", network_key=network_key, addresses=(address,))
    started_s = time.monotonic()
    made = ended = 0
    while made < connections and time.monotonic() - started_s < seconds:
        made += 1
        probe = partial(probe_member, network_seed=secrets.token_bytes(32), peer=target)
        ended += trio.run(probe) is not None
    return _outcome("no_member", made, ended, 0, started_s)


ATTACKS: Final[tuple[Callable[..., Outcome], ...]] = (
    half_open,
    slowloris,
    random_bytes,
    endless_talk,
    knock,
)
"""Those that need nothing but host and port."""


def _hold(
    attack: str,
    host: str,
    port: int,
    connections: int,
    seconds: float,
    *,
    say: Callable[[int], bytes],
) -> Outcome:
    """Keep connections open and say something on each now and then; count those that are ended."""
    started_s = time.monotonic()
    sent = number = 0
    with ExitStack() as stack:
        held: list[socket.socket] = []
        for _ in range(connections):
            with suppress(OSError):
                held.append(stack.enter_context(_connected(host, port)))
                held[-1].setblocking(False)
        made = len(held)
        while time.monotonic() - started_s < seconds:
            held = [attacker for attacker in held if not _is_ended(attacker)]
            for attacker in held:
                with suppress(OSError):
                    sent += attacker.send(say(number))
            number += 1
            time.sleep(_WAIT_S)
    return _outcome(attack, made, made - len(held), sent, started_s)


def _is_ended(attacker: socket.socket) -> bool:
    try:
        return not attacker.recv(4096)
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextmanager
def _connected(host: str, port: int) -> Iterator[socket.socket]:
    with socket.create_connection((host, port), timeout=_CONNECT_S) as attacker:
        yield attacker


def _outcome(attack: str, made: int, ended: int, sent: int, started_s: float) -> Outcome:
    return Outcome(
        attack=attack,
        connections=made,
        ended=ended,
        bytes_sent=sent,
        seconds=time.monotonic() - started_s,
    )
