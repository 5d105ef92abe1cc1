"""`swarm-node run`: put one hospital together from its files, and take it down cleanly."""

import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

import trio

from ledger.charter import Charter
from ledger.roster_store import load_roster
from ledger.store import Store
from node.allocator import keep_buffers
from node.blobs import BlobStore
from node.causes import cause_of
from node.compute import ThreadCompute
from node.config import SiteConfig, StorageConfig, load_site_charter
from node.identity import Identity, OwnPlace, check_own_name, load_identity, own_place
from node.journal import RosterChangedError
from node.network import TASK_STATUS_IGNORED, EventLog
from node.one_copy import only_copy
from node.service import Hospital, Service
from node.software import software_digest
from node.status import running_status, serve_status
from node.telemetry import get_log, logging_to
from node.world import World
from swarm.protocol.retention import Keep

if TYPE_CHECKING:
    from swarm.learning.dataset import SiteData
    from swarm.learning.task import LearningTask
    from swarm.scoring.judge import Judge

STOPPED: Final = 130
"""Exit status after a second Ctrl-C."""


def run_site(config: SiteConfig, *, leaves: bool = False) -> int:
    """Run one hospital until the charter's rounds are done or it is asked to stop; return 0.

    leaves: only to say goodbye for good, and until others have heard it.

    After a change of the roster the node starts anew from its store, in this process.
    First Ctrl-C (or SIGTERM): finish the write, leave cleanly. Second: at once, with status 130.
    Raises ConfigError (also when this hospital was removed), StoreError in one line.
    """
    keep_buffers()
    for folder in config.python_path:
        sys.path.append(os.fspath(folder))
    while True:
        with suppress(RosterChangedError):
            _run_under_one_roster(config, leaves=leaves)
            return 0


def _run_under_one_roster(config: SiteConfig, *, leaves: bool) -> None:
    charter = load_site_charter(config)
    identity = load_identity(config.paths)
    with ExitStack() as stack:
        stack.enter_context(logging_to(config.paths.log, config.run.log_level, sys.stderr))
        store = stack.enter_context(Store.open(config.paths.ledger))
        stack.enter_context(only_copy(identity.ledger().public_key))
        log = get_log(site=config.name)
        roster = load_roster(store, charter)
        place = own_place(roster, identity)
        check_own_name(roster, place.author, config.name)
        own = place.author
        hospital = _hospital(config, charter, identity, place, log, leaves=leaves)
        from node.networking import build_network

        disk = ThreadCompute()
        world = World(
            network=build_network(config, roster, identity, own, store=store, disk=disk, log=log),
            compute=ThreadCompute(),
            beside=ThreadCompute(),
            disk=disk,
            time_ms=lambda: time.time_ns() // 1_000_000,
            random=Random(),  # noqa: S311 - spreads load, guards nothing
            log=log,
        )
        stop = trio.CancelScope()
        try:
            trio.run(_live, config, hospital, world, store, stop)
        except BaseExceptionGroup as group:
            cause = cause_of(group)
            if not (isinstance(cause, RosterChangedError) and stop.cancel_called):
                raise cause from group


def _hospital(
    config: SiteConfig,
    charter: Charter,
    identity: Identity,
    place: OwnPlace,
    log: EventLog,
    *,
    leaves: bool,
) -> Hospital:
    """Read the data and build the model: what takes long and can be wrong, before anything runs."""
    from node.commitment import data_commitment
    from node.data import load_site_data
    from node.training_snapshots import ResumingLearner, TrainingSnapshots

    data = load_site_data(
        config.data, charter.schema, directory=config.directory, allow=config.allow
    )
    commitment = data_commitment(identity.seed, data)
    task = _learner(config, charter, place.author, data)
    return Hospital(
        charter=charter,
        own=place.author,
        judge=_judge(charter, task),
        signer=place.signer,
        witness=identity.witness(),
        learner=ResumingLearner(
            task,
            TrainingSnapshots(
                config.paths.training,
                charter_digest=charter.net,
                data_commitment=commitment,
                log=log,
                interval_s=config.storage.snapshot_interval_s,
            ),
        ),
        software_digest=software_digest(),
        data_commitment=commitment,
        sync_interval_s=config.run.sync_interval_s,
        linger_s=config.run.linger_s,
        leaves=leaves,
        keep=keep_of(config.storage),
        inbox=config.paths.inbox,
    )


def keep_of(storage: StorageConfig) -> Keep:
    """Which payloads a site keeps."""
    return Keep(rounds=None if storage.keep_rounds == "all" else int(storage.keep_rounds))


def _learner(config: SiteConfig, charter: Charter, own: int, data: "SiteData") -> "LearningTask":
    """Build the model. A site's seed follows from the charter and its place, so a run can be repeated."""
    import torch

    from swarm.learning.seeding import derive_seed
    from swarm.learning.task import LearningTask

    torch.set_num_threads(config.run.threads)
    seed = derive_seed("site", charter.seed, own)
    return LearningTask(charter, data, allow=config.allow, seed=seed, threads=config.run.threads)


def _judge(charter: Charter, task: "LearningTask") -> "Judge | None":
    """Whoever measures the others' contributions, if the charter wants that."""
    if charter.reputation.mode == "off":
        return None
    from swarm.scoring.judge import Judge

    return Judge(task, dimensions=charter.reputation.sketch_dimensions)


async def _live(
    config: SiteConfig, hospital: Hospital, world: World, store: Store, stop: trio.CancelScope
) -> None:
    """The node's outermost nursery: signals, the status socket, the service.

    stop: cancelled by the first signal and by nothing else, so it tells whether an operator asked.
    """
    async with trio.open_nursery() as outer:
        await outer.start(_stop_on_signal, stop, world.log)
        blobs = BlobStore(config.paths.blobs, bytes_max=config.storage.payload_bytes_max)
        service = Service(hospital, world, store, blobs)
        with stop:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    serve_status, config.paths.socket, lambda: running_status(config, service)
                )
                await service.run()
                nursery.cancel_scope.cancel()
        outer.cancel_scope.cancel()


async def _stop_on_signal(
    stop: trio.CancelScope, log: EventLog, *, task_status: Any = TASK_STATUS_IGNORED
) -> None:
    """Outlives what it cancels, so that a second signal still finds somebody."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            if stop.cancel_called:
                os._exit(STOPPED)
            log.info("stopping", hint="once more stops at once")
            stop.cancel()
