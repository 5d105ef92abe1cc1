"""What a hospital and the simulator swap: network, clock, compute and randomness, nothing else (law 9)."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from node.compute import Compute
from node.network import EventLog, Network


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything outside that one node depends on. Monotonic time is trio's own clock."""

    network: Network
    compute: Compute
    """Training, merging, evaluating, checking payloads."""
    disk: Compute
    """The ledger's store and the payload files."""
    time_ms: Callable[[], int]
    """Wall clock, milliseconds since 1970; goes into records as a claim."""
    random: Random
    """Only for spreading load: which peer to ask, how long to back off."""
    log: EventLog
    beside: Compute | None = None
    """Judging others, beside training; None: where everything else is computed."""
    secret: Callable[[int], bytes] = secrets.token_bytes
    """So many fresh bytes that nobody can guess."""
