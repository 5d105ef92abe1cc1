"""What liars send instead of what they learned: the attacks of the literature on averaging.

Room: scenarios. Law: pure. Liars know the round's model, what each of them learned and what all honest
members learned, which is more than the protocol lets them know before they commit; so a rule that holds
here holds against less. Everything is a difference from the round's model, float64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from swarm.learning.dataset import SiteData, Table

Update: TypeAlias = NDArray[np.float64]

LOUD: Final = 10.0
IPM_FACTOR: Final = 0.5
"""Inner-product manipulation stays small, so that distance alone shows nothing."""
NONE: Final = "none"
LABEL_FLIP: Final = "label-flip"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a liar looks at. own: what it learned (d,). honest: what the others did (n, d). liars: how many."""

    own: Update
    honest: Update
    liars: int
    random: np.random.Generator


Poison: TypeAlias = Callable[[Seen], Update]


def sign_flip(seen: Seen) -> Update:
    """Go the other way."""
    return -seen.own


def loud_sign_flip(seen: Seen) -> Update:
    """Go the other way, ten times as far."""
    return -LOUD * seen.own


def noise(seen: Seen) -> Update:
    """Random numbers ten times as long as an honest update."""
    drawn = seen.random.normal(size=seen.own.size)
    length = float(np.median(np.linalg.norm(seen.honest, axis=1)))
    update: Update = drawn * (LOUD * length / float(np.linalg.norm(drawn)))
    return update


def little_is_enough(seen: Seen) -> Update:
    """Mean minus z deviations, z so small that enough honest members are further away still.

    ALIE: Baruch, Baruch & Goldberg 2019, https://arxiv.org/abs/1902.06156
    """
    count = len(seen.honest) + seen.liars
    supporters = count // 2 + 1 - seen.liars
    part = max((count - seen.liars - supporters) / (count - seen.liars), 0.5)
    z = NormalDist().inv_cdf(min(part, 0.999))
    update: Update = seen.honest.mean(axis=0) - z * seen.honest.std(axis=0)
    return update


def inner_product(seen: Seen) -> Update:
    """Point against the honest mean. IPM: Xie, Koyejo & Gupta 2020, https://arxiv.org/abs/1903.03936."""
    update: Update = -IPM_FACTOR * seen.honest.mean(axis=0)
    return update


def constant(seen: Seen) -> Update:
    """Every coordinate moves alike, ten times as far as an honest update."""
    length = float(np.median(np.linalg.norm(seen.honest, axis=1)))
    return np.full(seen.own.size, LOUD * length / np.sqrt(seen.own.size))


def learned(seen: Seen) -> Update:
    """What it learned; from wrong labels, under `label-flip`."""
    return seen.own


POISONS: Final[Mapping[str, Poison]] = MappingProxyType(
    {
        "sign-flip": sign_flip,
        "sign-flip-10": loud_sign_flip,
        "noise": noise,
        "alie": little_is_enough,
        "ipm": inner_product,
        LABEL_FLIP: learned,
        "constant": constant,
    }
)
"""By name, in the order of tables."""


def flip_labels(data: SiteData, classes: int) -> SiteData:
    """Return the data with class c taught as class k − 1 − c; validation rows as they are."""
    train = data.train
    if not isinstance(train, Table):
        raise TypeError("labels of tables are flipped")
    flipped = np.asarray(classes - 1 - train.labels, dtype=np.int64)
    return SiteData(train=Table(columns=train.columns, labels=flipped), validation=data.validation)
