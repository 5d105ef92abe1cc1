"""The first and the last record of a node: joining is signing the charter."""

from ledger.record import Close, CloseReason, Kind, Open
from node.effects.desk import Desk
from node.journal import ACKS_ALL
from swarm.protocol.effects import SignClose


async def open_log(desk: Desk) -> None:
    """Join: sign the charter."""
    roster, own = desk.journal.roster, desk.hospital.own
    body = Open(
        public_key=desk.hospital.signer.public_key,
        previous_head=roster.previous_head(own, roster.epoch(own)),
        software_digest=desk.hospital.software_digest,
        charter_digest=desk.hospital.charter.net,
    )
    await desk.record(Kind.OPEN, 0, body)


async def close_log(desk: Desk, effect: SignClose) -> None:
    """Acknowledge what everybody wrote and say goodbye."""
    body = Close(reason=CloseReason.LEFT if effect.left else CloseReason.DONE)
    await desk.record(Kind.CLOSE, effect.round, body, acks_max=ACKS_ALL)
