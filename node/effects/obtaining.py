"""Fetch a payload and check it; what breaks the rules is refused on the ledger: REJECTION."""

from typing import Final

import trio

from ledger.errors import PeerError
from ledger.record import Codec, Reason, Rejection
from ledger.rules import codec_of_round
from node.effects.desk import Desk
from node.privacy import published_count
from node.transfer import Received
from swarm.protocol.book import Offer
from swarm.protocol.effects import Fetch
from swarm.protocol.payload import OversizedError

REFUSED_MODEL_WAIT_S: Final = 15.0
"""Pause before an agreed model that cannot be one is fetched again."""


class _Refused(Exception):  # noqa: N818 - control flow inside this module
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class _FalselyOffered(_Refused):
    """The offer does not say what the payload is; somebody else's offer of it may be true."""


async def obtain(desk: Desk, effect: Fetch) -> None:
    """Pull a payload and check it; a contribution that breaks the rules is refused on the ledger."""
    offer = effect.offer
    try:
        if offer:
            _check_offer(desk, offer)
        async with desk.transfer.fetch(
            effect.digest,
            sources=effect.sources,
            payload_bytes_max=offer.bytes_count
            if offer
            else desk.hospital.charter.rounds.payload_bytes_max,
            member=offer.author if offer else None,
        ) as received:
            await _accept(desk, received, offer)
    except (_Refused, OversizedError) as error:
        refusal = error if isinstance(error, _Refused) else _Refused(Reason.TOO_LARGE)
        if offer is None:
            desk.world.log.warning("model_refused", digest=effect.digest.hex()[:16])
            await trio.sleep(REFUSED_MODEL_WAIT_S)
            return
        desk.world.log.warning(
            "contribution_refused",
            round=offer.round,
            member=desk.book.roster.member(offer.author).name,
            reason=refusal.reason.name,
        )
        body = Rejection(target_id=offer.id, reason=refusal.reason)
        await desk.reject(body, desk.machine.round)


async def _accept(desk: Desk, received: Received, offer: Offer | None) -> None:
    """Hold a payload that passes its check. Raises _Refused."""
    try:
        await _check(desk, received.codec, received.payload, offer)
    except _FalselyOffered:
        raise  # what has come stays: a liar must not make it come a second time
    except _Refused:
        await desk.transfer.refuse(received)
        raise
    await desk.transfer.accept(received)
    desk.hold(received.digest, received.codec, received.bytes_count)
    desk.changed()


def _check_offer(desk: Desk, offer: Offer) -> None:
    """Raise _Refused where the record alone says that its payload cannot be an input."""
    charter = desk.hospital.charter
    expected = codec_of_round(charter.aggregation, offer.round)
    if offer.codec != expected or offer.samples != published_count(offer.samples, charter.privacy):
        raise _Refused(Reason.BAD_SHAPE)
    least, most = desk.hospital.learner.update_bytes
    if expected != Codec.MOMENTS and not least <= offer.bytes_count <= most:
        raise _Refused(Reason.TOO_LARGE if offer.bytes_count > most else Reason.BAD_SHAPE)


async def _check(desk: Desk, codec: int, payload: bytes, offer: Offer | None) -> None:
    """Raise _Refused unless this payload may be an input, or without an offer a round's base."""
    if offer and (codec, len(payload)) != (offer.codec, offer.bytes_count):
        raise _FalselyOffered(Reason.BAD_SHAPE)
    learner = desk.hospital.learner
    examine = learner.check if offer else learner.check_result
    try:
        await desk.world.compute.run(examine, payload, codec)
    except PeerError as error:
        raise _Refused(Reason(getattr(error, "reason", Reason.BAD_SHAPE))) from error
