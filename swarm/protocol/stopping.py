"""When training ends before its last round, and whose model is released. Knows no clock, no tensor.

Spec: docs/wire.md §5.9. A fold over agreed rounds: a round is judged once the next one is agreed too, by
the METRICS of those whose updates that next round merged. A log has no gaps, so whoever holds an
agreed round holds the METRICS that its inputs' authors wrote before; so everybody judges by the same
numbers, without a vote and without waiting. Integers only.
Prechelt 1998, https://doi.org/10.1007/3-540-49430-8_3
"""

from dataclasses import dataclass
from typing import Final, TypeAlias, final

from ledger.charter import StoppingPolicy
from ledger.record import Input
from swarm.protocol.book import Agreed, RoundBook

MICRO: Final = 1_000_000
FIRST_MODEL: Final = 1
"""Round zero is about moments."""

Losses: TypeAlias = dict[int, tuple[int, int]]
"""author → validation loss in millionths, and its weight"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far the fold has come.

    judged: the newest round looked at. best: the round with the least loss so far. stopped: the round in
    which patience was over.
    """

    judged: int = FIRST_MODEL - 1
    best: int | None = None
    stopped: int | None = None


@final
class Stopping:
    """One federation's rule, applied to one book."""

    def __init__(self, book: RoundBook, policy: StoppingPolicy, *, rounds: int) -> None:
        self._book = book
        self._patience = policy.patience
        self._delta_micro = round(policy.delta_min * MICRO)
        self._rounds = rounds
        self._standing = Standing()
        self._agreed: tuple[int, ...] = ()

    def last_round(self) -> int:
        """The round after which everybody leaves: the charter's last, unless patience was over before."""
        if not self._patience:
            return self._rounds
        stopped = self.standing().stopped
        if stopped is not None:
            return min(stopped + 1, self._rounds)
        latest = self._book.latest_agreed()
        if latest and len(self._ended_with(latest)) > self._book.roster.f:
            return min(latest.round, self._rounds)  # an honest one among them saw the end
        return self._rounds

    def _ended_with(self, last: Agreed) -> frozenset[int]:
        """Who has closed with the model of an agreed round: not who was cut off and went on alone."""
        models = self._book.models(last.round)
        closed = self._book.closed - self._book.left
        return frozenset(one for one in closed if models.get(one) == last.proposal.result)

    def released(self) -> Agreed | None:
        """The agreed model to hand out: the best by validation loss, or the newest without patience."""
        standing = self.standing()
        best = standing.best
        if self._patience and standing.stopped is None:
            final_round = self._losses_at_the_end()
            if final_round and (best is None or self._is_better(final_round, self._losses(best))):
                best = self._rounds
        if best is not None:
            return self._book.agreed(best)
        latest = self._book.latest_agreed()
        return latest if latest and latest.round >= FIRST_MODEL else None

    def standing(self) -> Standing:
        """Fold what has been agreed since the last look; begin anew where an older round is agreed late."""
        if not self._patience:
            return self._standing
        agreed = self._book.agreed_rounds()
        if agreed == self._agreed:
            return self._standing
        if agreed[: len(self._agreed)] != self._agreed:
            self._standing = Standing()
        self._agreed = agreed
        for number in agreed:
            if number > self._standing.judged and self._standing.stopped is None:
                self._standing = self._judge(number)
        return self._standing

    def _judge(self, number: int) -> Standing:
        before = self._standing
        losses = self._losses(number)
        if not losses:
            return before
        best = before.best
        if best is None or self._is_better(losses, self._losses(best)):
            return Standing(judged=number, best=number)
        stopped = number if number - best >= self._patience else None
        return Standing(judged=number, best=best, stopped=stopped)

    def _losses(self, number: int) -> Losses:
        """Losses of a round's agreed model; nothing before the next round is agreed."""
        after = self._book.agreed(number + 1)
        inputs = after.proposal.inputs if after else ()
        return self._weighed(number, [one for one in inputs if self._is_of(one, number + 1)])

    def _losses_at_the_end(self) -> Losses:
        """Losses after the charter's last round, which no other follows."""
        agreed = self._book.agreed(self._rounds)
        return self._weighed(self._rounds, list(agreed.proposal.inputs)) if agreed else {}

    def _is_of(self, one: Input, number: int) -> bool:
        offer = self._book.offer(one.id)
        return offer is not None and offer.round == number

    def _weighed(self, number: int, inputs: list[Input]) -> Losses:
        agreed = self._book.agreed(number)
        if agreed is None or number < FIRST_MODEL:
            return {}
        measured = self._book.losses(number)
        found = {
            one.author: (measured[one.author][1], one.weight_micro)
            for one in inputs
            if one.author in measured and measured[one.author][0] == agreed.proposal.result
        }
        if any(weight for _, weight in found.values()):
            return found
        return {author: (loss, 1) for author, (loss, _) in found.items()}

    def _is_better(self, losses: Losses, than: Losses) -> bool:
        """Whether the weighted mean of how much each member gained is above the charter's least.

        The f largest and the f smallest gains count as the next ones inwards: of at most f liars none
        moves the mean beyond what honest members found, and none weighs more than in the model.
        """
        both = sorted(losses.keys() & than.keys())
        if not both:
            return False
        gains = [than[author][0] - losses[author][0] for author in both]
        ends = min(self._book.roster.f, (len(both) - 1) // 2)
        ranked = sorted(gains)
        low, high = ranked[ends], ranked[-1 - ends]
        weights = [losses[author][1] for author in both]
        total = sum(w * min(max(g, low), high) for g, w in zip(gains, weights, strict=True))
        return total > self._delta_micro * sum(weights)
