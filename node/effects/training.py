"""Train, and commit to the result before anybody may read it: CONTRIBUTION."""

from typing import Final

import trio

from ledger.record import Codec, Contribution, Kind
from node.effects.desk import Desk
from node.privacy import published_count
from swarm.protocol.effects import Train
from swarm.protocol.round import MOMENTS_ROUND

NOTHING: Final = bytes(32)


async def contribute(desk: Desk, effect: Train) -> None:
    """Train (or sum up, in round zero), keep the payload, and commit to it on the ledger."""
    base, steps, norm_micro = NOTHING, 0, 0
    if effect.round == MOMENTS_ROUND:
        codec = Codec.MOMENTS
        payload = await desk.world.compute.run(desk.hospital.learner.local_moments)
    else:
        codec, base = Codec.FLOAT32, effect.base or desk.machine.initial
        await desk.standardise(effect.moments)
        started_s = trio.current_time()
        trained = await desk.world.compute.run(
            desk.hospital.learner.train, await desk.payload(base), effect.round
        )
        payload, steps, norm_micro = trained.payload, trained.steps, trained.norm_micro
        desk.world.log.info(
            "trained",
            round=effect.round,
            steps=steps,
            loss=trained.loss_micro / 1e6,
            seconds=round(trio.current_time() - started_s, 3),
        )
    digest = await desk.keep(codec, payload)
    body = Contribution(
        update_digest=digest,
        bytes_count=len(payload),
        codec=codec,
        base_digest=base,
        samples=published_count(desk.hospital.learner.samples, desk.hospital.charter.privacy),
        local_steps=steps,
        norm_micro=norm_micro,
        sketch_digest=NOTHING,
        epsilon_micro=0,
        delta_exponent=0,
        mechanism=0,
        metrics=(),
        data_commitment=desk.hospital.data_commitment,
    )
    round_ = desk.machine.offer_round(effect.round)
    await desk.record(Kind.CONTRIBUTION, round_, body, with_acks=True)
