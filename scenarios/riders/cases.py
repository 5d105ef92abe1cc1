"""The cases of `free-riders`: who rides how, and who is merely unusual. Room: scenarios."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ledger.roster import tolerated
from scenarios.attacks import Attack, Riding

RIDERS_OF_32: Final = 6


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who plays what in one run. colluders: evaluators who lie; framed: whom they blame."""

    members: int
    riders: Mapping[int, Riding] = field(default_factory=dict)
    colluders: frozenset[int] = frozenset()
    framed: int | None = None
    rare: int | None = None
    tiny: int | None = None

    @property
    def honest(self) -> tuple[int, ...]:
        """Members that do what they say."""
        lying = self.riders.keys() | self.colluders
        return tuple(one for one in range(self.members) if one not in lying)

    @property
    def leaky(self) -> int | None:
        """Whose updates leak, where there is somebody who copies them."""
        copied = any(one.attack is Attack.COPY for one in self.riders.values())
        return next(one for one in self.honest if one != self.framed) if copied else None


def _all(riding: Riding) -> Callable[[int], list[Riding]]:
    return lambda count: [riding] * count


def _in_turn(*ridings: Riding) -> Callable[[int], list[Riding]]:
    return lambda count: [ridings[at % len(ridings)] for at in range(count)]


def _few(records: int) -> Riding:
    return Riding(attack=Attack.FEW_RECORDS, records=records)


NOISE: Final = Riding(attack=Attack.NOISE)
_RIDERS: Final[Mapping[str, Callable[[int], list[Riding]]]] = {
    "zero": _all(Riding(attack=Attack.ZERO)),
    "noise": _all(NOISE),
    "stale": _in_turn(
        Riding(attack=Attack.STALE, noise=0.05), Riding(attack=Attack.STALE, noise=0.5)
    ),
    "copy": _all(Riding(attack=Attack.COPY, noise=0.01)),
    "replay": _all(Riding(attack=Attack.REPLAY, noise=0.01)),
    "few-records-2": _all(_few(2)),
    "few-records": _all(_few(5)),
    "few-records-20": _all(_few(20)),
    "random-labels": _all(Riding(attack=Attack.RANDOM_LABELS)),
    "lazy": _all(Riding(attack=Attack.LAZY)),
    "intermittent": _all(Riding(attack=Attack.INTERMITTENT, noise=0.05)),
    "collusion": _all(NOISE),
    "mix": _in_turn(
        _few(5), NOISE, Riding(attack=Attack.STALE, noise=0.5),
        Riding(attack=Attack.REPLAY, noise=0.01), Riding(attack=Attack.RANDOM_LABELS),
        Riding(attack=Attack.ZERO),
    ),
}  # fmt: skip
CASES: Final = (*_RIDERS, "rare-population", "tiny", "none")
"""Every case, in the order of tables."""


def cast(case: str, members: int, seed: int) -> Cast:
    """Deal the parts of a case. Raises KeyError for an unknown one."""
    drawn = np.random.Generator(np.random.PCG64([seed, members]))
    order = [int(one) for one in drawn.permutation(members)]
    if case in _RIDERS:
        count = max(1, round(members * RIDERS_OF_32 / 32))
        ridings = _RIDERS[case](count)
        riders = dict(zip(order, ridings, strict=False))
        if case != "collusion":
            return Cast(members=members, riders=riders)
        liars = max(count, tolerated(members))
        return Cast(
            members=members, riders=riders, colluders=frozenset(order[:liars]), framed=order[liars]
        )
    if case not in CASES:
        raise KeyError(case)
    return Cast(
        members=members,
        rare=order[0] if case == "rare-population" else None,
        tiny=order[0] if case == "tiny" else None,
    )
