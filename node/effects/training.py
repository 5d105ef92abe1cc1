"""Train, and commit to the result before anybody may read it: CONTRIBUTION."""

from typing import Final

import trio

from ledger.record import Codec, Contribution, Kind
from ledger.rules import codec_of_round
from node.effects.desk import Desk
from node.journal import ACKS_ALL
from node.privacy import published_count
from swarm.learning.trained import Trained
from swarm.learning.training_state import NO_MEMORY, Arrays
from swarm.protocol.effects import Train
from swarm.protocol.round import MOMENTS_ROUND

NOTHING: Final = bytes(32)
GOSSIP_ACKS_MAX: Final = 16
"""Logs that one CONTRIBUTION acknowledges where no round waits for anybody: so what a node does for each
record of another does not grow with the swarm. A log of n members is final some n / 16 rounds later."""


async def contribute(desk: Desk, effect: Train) -> None:
    """Train (or sum up, in round zero), keep payload and memory, and commit to it on the ledger."""
    charter, learner = desk.hospital.charter, desk.hospital.learner
    codec = codec_of_round(charter.aggregation, effect.round)
    base, steps, norm_micro = NOTHING, 0, 0
    memory: Arrays = NO_MEMORY
    if effect.round == MOMENTS_ROUND:
        payload = await desk.world.compute.run(learner.local_moments)
    else:
        base = effect.base or desk.machine.initial
        trained = await _train(desk, effect, base)
        payload, steps, norm_micro = trained.payload, trained.steps, trained.norm_micro
        memory = trained.memory
    digest = await desk.keep(codec, payload)
    round_ = desk.machine.offer_round(effect.round)
    # On the disk before the record that says what was sent: a restart goes on from the same memory.
    await desk.world.disk.run(desk.memory.keep, round_, digest, memory)
    body = Contribution(
        update_digest=digest,
        bytes_count=len(payload),
        codec=codec,
        base_digest=base,
        samples=published_count(learner.samples, charter.privacy),
        local_steps=steps,
        norm_micro=norm_micro,
        sketch_digest=NOTHING,
        epsilon_micro=0,
        delta_exponent=0,
        mechanism=0,
        metrics=(),
        data_commitment=desk.hospital.data_commitment,
    )
    acks_max = GOSSIP_ACKS_MAX if desk.book.is_gossip else ACKS_ALL
    await desk.record(Kind.CONTRIBUTION, round_, body, acks_max=acks_max)
    await desk.world.disk.run(desk.memory.forget_others, round_, digest)


async def _train(desk: Desk, effect: Train, base: bytes) -> Trained:
    await desk.standardise(effect.moments)
    memory = await desk.remembered()
    if not memory and desk.last_offer and desk.last_offer.codec not in _WITHOUT_MEMORY:
        desk.world.log.warning("memory_lost", round=desk.last_offer.round)
    started_s = trio.current_time()
    trained = await desk.world.compute.run(
        desk.hospital.learner.train,
        await desk.payload(base),
        effect.round,
        memory,
        _was_left_out(desk),
    )
    desk.world.log.info(
        "trained",
        round=effect.round,
        steps=trained.steps,
        loss=trained.loss_micro / 1e6,
        seconds=round(trio.current_time() - started_s, 3),
    )
    return trained


_WITHOUT_MEMORY: Final = (Codec.FLOAT32, Codec.MOMENTS)
"""What these lose is nothing: no residual is kept."""


def _was_left_out(desk: Desk) -> bool:
    """Whether the own last contribution was not merged and never will be."""
    last = desk.last_offer
    never_late = desk.hospital.charter.rounds.staleness_max == 0
    return never_late and last is not None and not desk.book.is_merged(last)
