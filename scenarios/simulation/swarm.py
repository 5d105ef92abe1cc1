"""The running hospitals of a simulation: the same service as in a hospital, started, killed, restarted.

Room: scenarios. Law: only network, clock, compute, disk and randomness are swapped (law 9), and all of
them come from one place, the members' `Surroundings`; two runs of one seed write the same ledgers.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Protocol, final

import structlog
import trio
import trio.testing
from trio._core import _run as trio_run

from ledger.charter import Charter
from ledger.errors import SwarmError
from ledger.roster_store import load_roster
from ledger.store import Store
from node.blobs import BlobStore
from node.compute import Compute, InlineCompute
from node.hospital import Hospital, Judge, Learner
from node.identity import Identity, own_place
from node.journal import RosterChangedError
from node.network import EventLog, Network
from node.network_memory import Conditions, MemoryHub
from node.service import Service
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
    """One hospital of a simulation: its keys, and how to build its learner afresh at every start.

    judge: how to build what measures contributions, on that learner; None: nothing does.
    looks: whether its node looks at everybody's standing as it goes, which costs real time.
    """

    identity: Identity
    learner: Callable[[], Learner]
    judge: Callable[[Learner], Judge] | None = None
    looks: bool = False


def identity_of(seed: int, index: int) -> Identity:
    """Keys of a simulated member: the same for the same seed, worth nothing outside."""
    return Identity(hashlib.sha256(f"swarm/simulated/{seed}/{index}".encode()).digest())


class Surroundings(Protocol):
    """What simulated members stand on. Everything that may fail is behind one of these."""

    def files(self, index: int) -> AbstractContextManager[tuple[Store, BlobStore]]:
        """Open a member's disk for one life of its node."""
        ...

    def network(self, index: int) -> Network:
        """Return a network for one life."""
        ...

    def inbox(self, index: int) -> Path | None:
        """Return where a site's operator leaves roster updates."""
        ...

    def compute(self, index: int) -> Compute:
        """Return where training and merging run."""
        ...

    def disk(self, index: int) -> Compute:
        """Return where the disk's work runs."""
        ...

    def time_ms(self, index: int) -> int:
        """Return what a member's wall clock shows."""
        ...

    def log(self, index: int) -> EventLog:
        """Return where a member's events go."""
        ...

    def started(self, index: int, service: Service) -> None:
        """Look at a service before it runs."""
        ...

    def ended(self, index: int, error: BaseException) -> bool:
        """Say whether the simulation itself ended this life, so that the error means nothing."""
        ...


@final
class Calm:
    """Nothing fails but the network's own conditions; one directory for all."""

    def __init__(self, hub: MemoryHub, directory: Path) -> None:
        self._hub = hub
        self._directory = directory

    @contextmanager
    def files(self, index: int) -> Iterator[tuple[Store, BlobStore]]:
        """Open `INDEX.db` and `INDEX.blobs`."""
        with Store.open(self._directory / f"{index}.db") as store:
            yield store, BlobStore(self._directory / f"{index}.blobs")

    def network(self, index: int) -> Network:
        """Return the hub's own."""
        return self._hub.network(index)

    def inbox(self, index: int) -> Path | None:
        """No operator comes by."""
        del index
        return None

    def compute(self, index: int) -> Compute:
        """Every piece of computing takes TRAIN_S."""
        del index
        return InlineCompute(TRAIN_S)

    def disk(self, index: int) -> Compute:
        """The disk takes no time."""
        del index
        return InlineCompute()

    def time_ms(self, index: int) -> int:
        """All clocks are right."""
        del index
        return EPOCH_MS + int(trio.current_time() * 1000)

    def log(self, index: int) -> EventLog:
        """Nobody reads it."""
        del index
        return silent_log()

    def started(self, index: int, service: Service) -> None:
        """Leave it alone."""

    def ended(self, index: int, error: BaseException) -> bool:
        """Nothing is ended by force but by `Swarm.kill`, which raises nothing."""
        del index, error
        return False


@final
@dataclass
class Swarm:
    """The running hospitals, as a fault plan sees them."""

    charter: Charter
    sites: Sequence[SimulatedSite]
    directory: Path
    hub: MemoryHub
    seed: int
    surroundings: Surroundings
    linger_s: float = LINGER_S
    sync_interval_s: float = SYNC_INTERVAL_S
    here: Sequence[int] | None = None
    """Members that run in this process; None: all."""
    leaving: set[int] = field(default_factory=set)
    """Members that leave for good at their next start."""
    services: dict[int, Service] = field(default_factory=dict)
    ended: dict[int, trio.Event] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    errors: dict[int, SwarmError] = field(default_factory=dict)
    """What ended a member's last life, if that was an error."""
    _scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    _nursery: trio.Nursery | None = None

    def start(self, index: int) -> None:
        """Start a member, or start it again from its store."""
        if self._nursery is None:
            raise RuntimeError("the swarm does not run")
        self.ended[index] = trio.Event()
        self.errors.pop(index, None)
        self._nursery.start_soon(self._live, index, self.ended[index])

    def cut_down(self, index: int) -> None:
        """End a member's life at once, without waiting for its tasks to notice."""
        self.hub.crash(index)
        self._scopes[index].cancel()

    async def kill(self, index: int) -> None:
        """Take a member away at once: nothing is flushed, nobody is told."""
        self.cut_down(index)
        await self.ended[index].wait()

    async def _live(self, index: int, ended: trio.Event) -> None:
        site, around = self.sites[index], self.surroundings
        # A seed of its own for every start, or a restarted node would repeat its back-offs.
        starts = Random(f"{self.seed}/{index}/{trio.current_time()}")  # noqa: S311
        try:
            with (
                trio.CancelScope() as self._scopes[index],
                around.files(index) as (store, blobs),
            ):
                world = World(
                    network=around.network(index),
                    compute=around.compute(index),
                    disk=around.disk(index),
                    time_ms=lambda: around.time_ms(index),
                    random=starts,
                    log=around.log(index),
                    secret=starts.randbytes,
                    beside=InlineCompute() if site.looks else None,
                )
                learner = site.learner()
                place = own_place(load_roster(store, self.charter), site.identity)
                hospital = Hospital(
                    charter=self.charter,
                    own=place.author,
                    signer=place.signer,
                    witness=site.identity.witness(),
                    learner=learner,
                    judge=site.judge(learner) if site.judge else None,
                    software_digest=bytes(32),
                    data_commitment=bytes(32),
                    sync_interval_s=self.sync_interval_s,
                    linger_s=self.linger_s,
                    leaves=index in self.leaving,
                    inbox=around.inbox(index),
                )
                service = self.services[index] = Service(hospital, world, store, blobs)
                around.started(index, service)
                await service.run()
        except RosterChangedError:
            self.start(index)  # anew from its store, as `swarm-node run` does
            return
        except SwarmError as error:
            if not around.ended(index, error):
                self.failures.append(f"{self._name(index)}: {error}")
                self.errors[index] = error
        except BaseException as error:
            if not around.ended(index, error):
                raise
        finally:
            ended.set()

    def _name(self, index: int) -> str:
        members = self.charter.members
        return members[index].name if index < len(members) else f"site {index}"

    async def run(self, faults: Faults | None) -> None:
        """Run everybody to the end, with ``faults`` happening meanwhile."""
        async with trio.open_nursery() as self._nursery:
            for index in range(len(self.sites)) if self.here is None else self.here:
                self.start(index)
            if faults is not None:
                await faults(self)

    def run_to_end(self, faults: Faults | None, *, virtual_s_max: float) -> float:
        """Do the same under virtual time of its own; return how much passed. Raises TooSlowError."""

        async def main() -> float:
            with trio.fail_after(virtual_s_max):
                await self.run(faults)
            return trio.current_time()

        with _seeded_scheduler(self.seed):
            return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


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
    swarm = Swarm(charter, sites, directory, hub, seed, Calm(hub, directory))
    virtual_s = swarm.run_to_end(faults, virtual_s_max=VIRTUAL_S_MAX)
    services = [swarm.services[index] for index in range(len(sites))]
    return Outcome(
        seed=seed,
        heads=tuple(heads_digest(service) for service in services),
        results=tuple(service.machine.model.hex() for service in services),
        rounds_agreed=tuple(
            len([r for r in service.book.agreed_rounds() if r > 0]) for service in services
        ),
        failures=tuple(swarm.failures),
        virtual_s=virtual_s,
        wall_s=time.perf_counter() - started_s,
    )


def heads_digest(service: Service) -> str:
    """SHA-256 over every log head that a member holds, hexadecimal."""
    digest = hashlib.sha256()
    for (author, epoch), head in sorted(service.journal.heads().items()):
        digest.update(f"{author}/{epoch}/{head.next_seq}/".encode() + head.prev_id)
    return digest.hexdigest()


class Silent:
    """Takes log events and keeps none."""

    def msg(self, *_args: object, **_fields: object) -> None:
        """Drop the event."""

    debug = info = warning = error = msg


def silent_log() -> EventLog:
    """Return a log that nobody reads."""
    log: EventLog = structlog.wrap_logger(Silent())
    return log


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
