"""From what is wanted to who does it."""

from ledger.errors import UnavailableError
from node.effects import evaluating, judging, merging, obtaining, signing, training
from node.effects.desk import Desk
from swarm.protocol.effects import (
    Adopt,
    CheckSketch,
    Effect,
    Evaluate,
    Fetch,
    GiveUp,
    Merge,
    OpenScores,
    Score,
    ShowSketch,
    SignClose,
    SignOpen,
    Train,
)


async def perform(desk: Desk, effect: Effect) -> None:
    """Do one piece of work. What was done comes back as a record or as a payload that is held."""
    match effect:
        case SignOpen():
            await signing.open_log(desk)
        case Train():
            await training.contribute(desk, effect)
        case Fetch():
            await obtaining.obtain(desk, effect)
        case Merge():
            await merging.aggregate(desk, effect)
        case Adopt():
            await merging.adopt(desk, effect)
        case Evaluate():
            await evaluating.evaluate(desk, effect)
        case SignClose():
            await signing.close_log(desk, effect)
        case Score() | OpenScores() | ShowSketch() | CheckSketch():
            await judging.judge_others(desk, effect)
        case GiveUp():
            _give_up(desk, effect)


def _give_up(desk: Desk, effect: GiveUp) -> None:
    """The charter calls members required, and they do not come: fail, loudly."""
    desk.world.log.warning("required_member_missing", round=effect.round, members=effect.missing)
    desk.failed(
        UnavailableError(
            f"round {effect.round} cannot close without {', '.join(effect.missing)}, whom the "
            f"charter requires (rounds.required): nothing came in {desk.hospital.charter.rounds.deadline_max_s:g} s"
        )
    )
