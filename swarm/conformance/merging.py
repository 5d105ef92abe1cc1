"""Exams of the rules that merge updates. Room: swarm."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from swarm.conformance.promises import demand
from swarm.learning.robust import RobustRule
from swarm.learning.rows import Vector

VALUES: Final = 1_001  # odd, so that folded halves and blocks are unequal
LIES: Final[dict[str, Callable[[Vector, int], NDArray[np.floating]]]] = {
    "a million times its own update, backwards": lambda update, _: -1e6 * update,
    "huge noise": lambda update, at: 1e8 * np.random.default_rng(at).normal(size=update.size),
    "one huge value": lambda update, _: np.where(np.arange(update.size) == 7, 1e12, update),
    "the same far point as the other liars": lambda update, _: np.full(update.size, 1e9),
}
STRETCH: Final = 2.0
"""How far lies may carry the merge, in lengths of the longest honest update."""


class AggregationRule(Protocol):
    """Merges one float32 vector per member into one; pure and the same bits everywhere."""

    def __call__(
        self, rows: Sequence[Vector], weights_micro: Sequence[int], digests: Sequence[bytes], /
    ) -> Vector:
        """Return (d,) float32."""


def check_aggregation_rule(rule: AggregationRule, *, seed: int = 0, members: int = 7) -> None:
    """Same bits in any order; inputs untouched; agreement kept; bounded by what came in."""
    generator = np.random.default_rng(seed)
    shape = (members, 1_001)  # odd, so that folded halves are unequal
    rows = list(generator.normal(scale=10.0, size=shape).astype(np.float32))
    weights = [int(weight) for weight in generator.integers(1, 1_000_000, size=members)]
    digests = [hashlib.sha256(row.tobytes()).digest() for row in rows]
    before = [row.copy() for row in rows]
    result = rule(rows, weights, digests)
    demand(
        result.dtype == np.float32 and result.shape == rows[0].shape,
        f"result is {result.dtype} {result.shape}, not float32 {rows[0].shape}",
    )
    demand(
        all(np.array_equal(row, old) for row, old in zip(rows, before, strict=True)),
        "the rule changed its inputs",
    )
    for _ in range(10):
        order = generator.permutation(members)
        again = rule(
            [rows[i] for i in order], [weights[i] for i in order], [digests[i] for i in order]
        )
        demand(
            again.tobytes() == result.tobytes(),
            f"another order of the inputs gives other bits (seed {seed})",
        )
    low, high = np.min(rows, axis=0), np.max(rows, axis=0)
    demand(
        bool(((result >= low) & (result <= high)).all()),
        "a coordinate lies outside of what any member sent",
    )
    same = rule([rows[0]] * members, weights, [digests[0]] * members)
    demand(np.allclose(same, rows[0], rtol=1e-6), "members who agree do not get what they agree on")


def check_robust_rule(rule: RobustRule, *, n: int, liars: int, seed: int = 0) -> None:
    """All that a merge promises, and: whatever ``liars`` of ``n`` members send, it stays near.

    Members weigh the same. No lie carries the merge further from the origin than twice the longest
    honest update; half or more liars are refused.
    """
    origin = np.random.default_rng(seed + 1).normal(size=VALUES).astype(np.float32)

    def merge(
        rows: Sequence[Vector], weights_micro: Sequence[int], digests: Sequence[bytes], /
    ) -> Vector:
        return rule(rows, weights_micro, digests, origin=origin, liars=liars)

    generator = np.random.default_rng(seed)
    common = generator.normal(size=VALUES)
    updates = (common + generator.normal(scale=0.5, size=(n, VALUES))).astype(np.float32)
    _check_merge(merge, origin + updates, seed)
    longest = float(np.linalg.norm(updates, axis=1).max())
    for what, lie in LIES.items():
        sent = [
            origin + (lie(update, at).astype(np.float32) if at < liars else update)
            for at, update in enumerate(updates)
        ]
        moved = float(np.linalg.norm(_merged(merge, sent).astype(np.float64) - origin))
        demand(
            moved <= STRETCH * longest,
            f"{liars} liars of {n} who send {what} carry the merge {moved / longest:.3g} times as far "
            "as the longest honest update",
        )
    too_many = (n + 1) // 2
    try:
        rule(list(updates), [1] * n, _digests(list(updates)), origin=origin, liars=too_many)
    except ValueError:
        return
    demand(False, f"{too_many} liars of {n} are not refused with ValueError")


def _check_merge(merge: AggregationRule, rows: Vector, seed: int) -> None:
    members = list(rows)
    generator = np.random.default_rng(seed)
    before = rows.copy()
    result = _merged(merge, members)
    demand(
        result.dtype == np.float32 and result.shape == members[0].shape,
        f"result is {result.dtype} {result.shape}, not float32 {members[0].shape}",
    )
    demand(np.array_equal(rows, before), "the rule changed its inputs")
    for _ in range(10):
        again = _merged(merge, [members[i] for i in generator.permutation(len(members))])
        demand(
            again.tobytes() == result.tobytes(),
            f"another order of the inputs gives other bits (seed {seed})",
        )
    same = _merged(merge, [members[0]] * len(members))
    demand(
        np.allclose(same, members[0], rtol=1e-5, atol=1e-6),
        "members who agree do not get what they agree on",
    )


def _merged(merge: AggregationRule, rows: Sequence[Vector]) -> Vector:
    return merge(rows, [1_000_000 // len(rows)] * len(rows), _digests(rows))


def _digests(rows: Sequence[Vector]) -> list[bytes]:
    return [hashlib.sha256(row.tobytes()).digest() for row in rows]
