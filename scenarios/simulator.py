"""A whole swarm in one process under virtual time, from one seed; the same service as in a hospital.

Only network, clock, compute and randomness are swapped (law 9). Two runs of one seed write the same
ledgers, byte for byte.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, final

import structlog
import trio
import trio.testing
from trio._core import _run as trio_run

from ledger.charter import Charter
from ledger.errors import SwarmError
from ledger.roster_store import load_roster
from ledger.store import Store
from node.blobs import BlobStore
from node.compute import InlineCompute
from node.identity import Identity, own_place
from node.journal import RosterChangedError
from node.network_memory import Conditions, MemoryHub
from node.service import Hospital, Learner, Service
from node.world import World

EPOCH_MS: Final = 1_760_000_000_000
"""Wall clock of every simulated hospital at virtual second zero."""
TRAIN_S: Final = 0.5
"""Virtual seconds that one piece of computing takes."""
SYNC_INTERVAL_S: Final = 2.0
LINGER_S: Final = 120.0
VIRTUAL_S_MAX: Final = 3600.0

Faults = Callable[["Swarm"], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class SimulatedSite:
    """One hospital of a simulation: its keys, and how to build its learner afresh at every start."""

    identity: Identity
    learner: Callable[[], Learner]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulation left behind."""

    seed: int
    heads: tuple[str, ...]
    """Per member: SHA-256 over all log heads that it holds, hexadecimal."""
    results: tuple[str, ...]
    """Per member: digest of the model that it ended with."""
    rounds_agreed: tuple[int, ...]
    failures: tuple[str, ...]
    virtual_s: float
    wall_s: float


def identity_of(seed: int, index: int) -> Identity:
    """Keys of a simulated member: the same for the same seed, worth nothing outside."""
    return Identity(hashlib.sha256(f"swarm/simulated/{seed}/{index}".encode()).digest())


@final
@dataclass
class Swarm:
    """The running hospitals, as a fault plan sees them."""

    charter: Charter
    sites: Sequence[SimulatedSite]
    directory: Path
    hub: MemoryHub
    seed: int
    services: dict[int, Service] = field(default_factory=dict)
    ended: dict[int, trio.Event] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    _nursery: trio.Nursery | None = None

    def start(self, index: int) -> None:
        """Start a member, or start it again from its store."""
        if self._nursery is None:
            raise RuntimeError("the swarm does not run")
        self.ended[index] = trio.Event()
        self._nursery.start_soon(self._live, index, self.ended[index])

    async def kill(self, index: int) -> None:
        """Take a member away at once: nothing is flushed, nobody is told."""
        self.hub.crash(index)
        self._scopes[index].cancel()
        await self.ended[index].wait()

    async def _live(self, index: int, ended: trio.Event) -> None:
        site = self.sites[index]
        log = structlog.wrap_logger(_Silent())
        # A seed of its own for every start, or a restarted node would repeat its back-offs.
        starts = Random(f"{self.seed}/{index}/{trio.current_time()}")  # noqa: S311
        try:
            with (
                trio.CancelScope() as self._scopes[index],
                Store.open(self.directory / f"{index}.db") as store,
            ):
                world = World(
                    network=self.hub.network(index),
                    compute=InlineCompute(TRAIN_S),
                    disk=InlineCompute(),
                    time_ms=lambda: EPOCH_MS + int(trio.current_time() * 1000),
                    random=starts,
                    log=log,
                )
                place = own_place(load_roster(store, self.charter), site.identity)
                hospital = Hospital(
                    charter=self.charter,
                    own=place.author,
                    signer=place.signer,
                    witness=site.identity.witness(),
                    learner=site.learner(),
                    software_digest=bytes(32),
                    data_commitment=bytes(32),
                    sync_interval_s=SYNC_INTERVAL_S,
                    linger_s=LINGER_S,
                )
                blobs = BlobStore(self.directory / f"{index}.blobs")
                self.services[index] = Service(hospital, world, store, blobs)
                await self.services[index].run()
        except RosterChangedError:
            self.start(index)  # anew from its store, as `swarm-node run` does
            return
        except SwarmError as error:
            self.failures.append(f"{self._name(index)}: {error}")
        finally:
            ended.set()

    def _name(self, index: int) -> str:
        members = self.charter.members
        return members[index].name if index < len(members) else f"site {index}"

    async def run(self, faults: Faults | None) -> None:
        """Run everybody to the end, with ``faults`` happening meanwhile."""
        async with trio.open_nursery() as self._nursery:
            for index in range(len(self.sites)):
                self.start(index)
            if faults is not None:
                await faults(self)


class _Silent:
    """Takes log events and keeps none."""

    def msg(self, *_args: object, **_fields: object) -> None:
        """Drop the event."""

    debug = info = warning = error = msg


def simulate(
    *,
    charter: Charter,
    sites: Sequence[SimulatedSite],
    directory: Path,
    seed: int,
    conditions: Conditions | None = None,
    faults: Faults | None = None,
) -> Outcome:
    """Run one swarm to its end and say what it left. Raises trio.TooSlowError after VIRTUAL_S_MAX."""
    started_s = time.perf_counter()
    hub = MemoryHub(seed=seed, conditions=conditions)
    swarm = Swarm(charter, sites, directory, hub, seed)

    async def main() -> float:
        with trio.fail_after(VIRTUAL_S_MAX):
            await swarm.run(faults)
        return trio.current_time()

    with _seeded_scheduler(seed):
        virtual_s = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    services = [swarm.services[index] for index in range(len(sites))]
    return Outcome(
        seed=seed,
        heads=tuple(_heads_digest(service) for service in services),
        results=tuple(service.machine.model.hex() for service in services),
        rounds_agreed=tuple(
            len([r for r in service.book.agreed_rounds() if r > 0]) for service in services
        ),
        failures=tuple(swarm.failures),
        virtual_s=virtual_s,
        wall_s=time.perf_counter() - started_s,
    )


def _heads_digest(service: Service) -> str:
    digest = hashlib.sha256()
    for (author, epoch), head in sorted(service.journal.heads().items()):
        digest.update(f"{author}/{epoch}/{head.next_seq}/".encode() + head.prev_id)
    return digest.hexdigest()


@contextmanager
def _seeded_scheduler(seed: int) -> Iterator[None]:
    """Make trio choose the order of ready tasks from ``seed``, here and nowhere else."""
    before = (trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r)  # noqa: SLF001
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    trio_run._r = Random(seed)  # noqa: S311, SLF001
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r = before  # type: ignore[misc]  # noqa: SLF001
