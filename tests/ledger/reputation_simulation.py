"""The toy simulation of the ledger's design: who ranks whom when some evaluators collude.

Honest members' updates help, a free-rider's do not; every evaluator sees it through the noise of
its own patients. Everything from one seed; scores are integers as on the ledger.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ledger.evidence import Ballot, RoundEvidence, Scored
from ledger.reputation import RULES, ReputationRules, RoundOutcome, advance, initial_state

Ballots = dict[int, dict[int, int]]  # evaluator → target → loss change in 1e-6


def id_of(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def evidence_of(round_: int, offers: list[int], ballots: Ballots) -> RoundEvidence:
    ids = {member: id_of("contribution", round_, member) for member in offers}
    return RoundEvidence(
        round=round_,
        offers=tuple(sorted(ids.items())),
        ballots=tuple(
            Ballot(
                evaluator,
                id_of("commit", round_, evaluator),
                id_of("reveal", round_, evaluator),
                tuple(Scored(j, ids[j], change) for j, change in sorted(scores.items())),
            )
            for evaluator, scores in sorted(ballots.items())
        ),
        proofs=(),
    )


@dataclass(frozen=True, kw_only=True)
class Swarm:
    """Who is honest, and how good each one's updates are for each one's patients."""

    n: int = 20
    riders: int = 6  # the first ones: free-riders, and colluders if `lie` says so
    rare: int | None = None  # a member whose patients are unlike the others'
    noise: float = 0.6
    affinity: float = 0.4
    lie: Callable[["Swarm", random.Random, int, int, int], float | None] | None = None
    rules: ReputationRules = field(default_factory=lambda: RULES)

    def run(self, seed: int, rounds: int = 20) -> tuple[RoundOutcome, dict[int, int]]:
        """Return the last outcome, and each member's mean score as its peers gave it."""
        rng = random.Random(seed)
        members = range(self.n)
        worth = [rng.gauss(0.0, 0.05) if j < self.riders else rng.gauss(1.0, 0.3) for j in members]
        liking = [[rng.gauss(0.0, self.affinity) for _ in members] for _ in members]
        state = initial_state(members, self.rules)
        total = dict.fromkeys(members, 0)
        outcome = None
        for round_ in range(1, rounds + 1):
            ballots: Ballots = {}
            for i in members:
                ballots[i] = {}
                for j in members:
                    if i == j:
                        continue
                    seen = worth[j] + rng.gauss(0.0, self.noise)
                    if j >= self.riders:
                        seen += liking[i][j]
                    if self.rare in (i, j):  # helps the others little, and knows them badly
                        seen = 0.35 * worth[j] + rng.gauss(0.0, self.noise)
                    told = self.lie(self, rng, round_, i, j) if self.lie else None
                    ballots[i][j] = round(1_000 * (seen if told is None else told))
                    total[j] += ballots[i][j]
            outcome = advance(
                state,
                evidence_of(round_, list(members), ballots),
                members=members,
                tolerated=(self.n - 1) // 3,
                rules=self.rules,
            )
            state = outcome.state
        assert outcome is not None
        return outcome, total

    def auc(self, values: dict[int, int]) -> float:
        """Chance that an honest member stands above a free-rider; halves for ties."""
        pairs = [
            (values[honest] > values[rider]) + 0.5 * (values[honest] == values[rider])
            for honest in range(self.riders, self.n)
            for rider in range(self.riders)
        ]
        return sum(pairs) / len(pairs)


def shout(swarm: Swarm, rng: random.Random, round_: int, i: int, j: int) -> float | None:
    """Praise each other, blame everyone else, by as much as the format takes."""
    if i >= swarm.riders:
        return None
    return 1e9 if j < swarm.riders else -1e9


def strike_later(
    swarm: Swarm, rng: random.Random, round_: int, i: int, j: int, *, after: int
) -> float | None:
    """Say the plain truth until trusted, then shout."""
    if i >= swarm.riders:
        return None
    if round_ > after:
        return shout(swarm, rng, round_, i, j)
    return 0.0 + rng.gauss(0.0, 0.01) if j < swarm.riders else 1.0 + rng.gauss(0.0, 0.01)


def frame(swarm: Swarm, rng: random.Random, round_: int, i: int, j: int) -> float | None:
    """Say the plain truth but for one honest member, the first, and for the own side."""
    if i >= swarm.riders:
        return None
    if j == swarm.riders:
        return -1e9
    return 2.0 if j < swarm.riders else 1.0 + rng.gauss(0.0, 0.3)


strike_at_10 = partial(strike_later, after=10)
