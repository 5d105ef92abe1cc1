"""Rules that merge members' models although some of them lie.

Room: learning. Law: the same bits on every machine and for any order of the inputs. Two families:

- *span* rules choose one factor a row from the rows' inner products alone (gram.py), so any of them
  costs one pass for the products and one for the sum, and nearest-neighbour mixing before them is free;
- *coordinate* rules sort each coordinate (order_statistics.py).

Everything is measured from ``origin``, the model that the round started from: there an update is small
and a liar's is large. ``liars`` is how many of the n rows may lie; every rule needs 2·liars < n.
Span rules weigh members as the charter says; what a member weighs is his own claim of patients, so
cap it (`share_cap`) or weigh uniformly. Coordinate rules and Krum's choice count members.
No rule withstands a majority, and on very unequal sites each one costs something without any liar:
docs/learning.md has the figures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from swarm.learning.gram import Gram, dot, gram, mixed
from swarm.learning.order_statistics import trimmed_mean
from swarm.learning.rows import Vector, combine, in_order

CLIPPING_STEPS: Final = 10
WEISZFELD_STEPS: Final = 64
SMOOTHING: Final = 1e-9
"""No distance counts as less than this part of the median one, so none pulls without bound."""

Factors: TypeAlias = list[float]
"""(n,) ≥ 0 with a sum of at most 1; what is missing is the origin's."""
Choose: TypeAlias = Callable[[Gram, Factors, int], Factors]
"""(inner products (n, n), shares (n,) that sum to 1, liars) → factors (n,)."""


def norm_clipped(products: Gram, shares: Factors, _liars: int) -> Factors:
    """Shorten every update to the median length, then average. Sun et al. 2019, arXiv:1911.07963."""
    norms = [_root(products[i][i]) for i in range(len(products))]
    return _clipped(shares, norms)


def centered_clipping(products: Gram, shares: Factors, _liars: int) -> Factors:
    """Average of updates clipped around the running result. Karimireddy et al. 2021, 2012.10333.

    The radius is the median distance to the result so far, so nothing needs to be tuned.
    """
    centre = [0.0] * len(products)
    for _ in range(CLIPPING_STEPS):
        steps = _clipped(shares, _distances(products, centre))
        kept = 1.0 - math.fsum(steps)
        centre = [c * kept + step for c, step in zip(centre, steps, strict=True)]
    return centre


def geometric_median(products: Gram, shares: Factors, liars: int) -> Factors:
    """Point with the least weighted sum of distances, by smoothed Weiszfeld steps.

    It starts among the rows that lie closest together, so that one far away costs no digits.
    Pillutla et al. 2022, https://arxiv.org/abs/1912.13445
    """
    scores = _krum_scores(products, liars)
    near = neighbourhoods(products, liars)[scores.index(min(scores))]
    centre = _normalised_within(shares, set(near))
    for _ in range(WEISZFELD_STEPS):
        distances = _distances(products, centre)
        floor = _lower_median(distances) * SMOOTHING
        if not floor:  # most of them are there
            break
        centre = _normalised([w / max(d, floor) for w, d in zip(shares, distances, strict=True)])
    return centre


def krum(products: Gram, _shares: Factors, liars: int) -> Factors:
    """Take the one update whose neighbours are nearest. Blanchard et al. 2017, arXiv:1703.02757."""
    scores = _krum_scores(products, liars)
    best = scores.index(min(scores))
    return [float(i == best) for i in range(len(scores))]


def multi_krum(products: Gram, shares: Factors, liars: int) -> Factors:
    """Average the n − liars updates with the best Krum scores. Blanchard et al. 2017."""
    scores = _krum_scores(products, liars)
    chosen = set(sorted(range(len(scores)), key=scores.__getitem__)[: len(scores) - liars])
    return _normalised_within(shares, chosen)


def _clipped(shares: Factors, norms: Sequence[float]) -> Factors:
    radius = _lower_median(norms)
    return [
        share * (radius / norm if norm > radius else 1.0)
        for share, norm in zip(shares, norms, strict=True)
    ]


def _krum_scores(products: Gram, liars: int) -> list[float]:
    """Sum of squared distances to the n − liars − 2 nearest others (at least one)."""
    count = len(products)
    nearest = max(count - liars - 2, 1)
    return [
        math.fsum(sorted(_squared(products, i, j) for j in range(count) if j != i)[:nearest])
        for i in range(count)
    ]


def _distances(products: Gram, centre: Factors) -> list[float]:
    """Distance of each row to Σ centre_j · row_j, (n,)."""
    along = [dot(row, centre) for row in products]
    length = dot(along, centre)
    return [_root(products[i][i] - 2 * along[i] + length) for i in range(len(products))]


def _squared(products: Gram, i: int, j: int) -> float:
    return max(products[i][i] - 2 * products[i][j] + products[j][j], 0.0)


def _lower_median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def _root(square: float) -> float:
    return math.sqrt(max(square, 0.0))


def _normalised(factors: Sequence[float]) -> Factors:
    return _normalised_within(factors, set(range(len(factors))))


def _normalised_within(factors: Sequence[float], inside: set[int]) -> Factors:
    """Make those inside sum to 1 and the others 0; without any weight they count the same."""
    within = [factor if i in inside else 0.0 for i, factor in enumerate(factors)]
    total = math.fsum(within)
    if total:
        return [factor / total for factor in within]
    return [1.0 / len(inside) if i in inside else 0.0 for i in range(len(factors))]


def neighbourhoods(products: Gram, liars: int) -> list[list[int]]:
    """Each row's n − liars nearest rows, itself among them; (n, n − liars), ascending.

    Allouah et al. 2023, https://arxiv.org/abs/2302.01772 (nearest-neighbour mixing, NNM).
    """
    count = len(products)

    def nearest(i: int) -> list[int]:
        by_distance = sorted((_squared(products, i, j), j) for j in range(count))
        return sorted(j for _, j in by_distance[: count - liars])

    return [nearest(i) for i in range(count)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SpanRule:
    """A rule that needs inner products only, with or without nearest-neighbour mixing."""

    choose: Choose
    mixes: bool = False

    def __call__(
        self,
        rows: Sequence[Vector],
        weights_micro: Sequence[int],
        digests: Sequence[bytes],
        *,
        origin: Vector,
        liars: int,
    ) -> Vector:
        """Merge n float32 rows (d,) into one (d,). ValueError if they are no table or liars ≥ n/2."""
        table, weights = in_order(rows, weights_micro, digests)
        check_liars(len(table), liars)
        products, shares = gram(table, origin), _normalised([float(w) for w in weights])
        if self.mixes:
            mixing = mixing_factors(products, shares, liars)
            chosen = self.choose(mixed(products, mixing), shares, liars)
            factors = [dot(chosen, column) for column in zip(*mixing, strict=True)]
        else:
            factors = self.choose(products, shares, liars)
        rest = max(1.0 - math.fsum(factors), 0.0)
        return combine([origin, *table], [rest, *factors], math.fsum([rest, *factors]))


def mixing_factors(products: Gram, shares: Factors, liars: int) -> list[Factors]:
    """Row i: the shares with which i's neighbourhood is averaged, (n, n)."""
    return [_normalised_within(shares, set(near)) for near in neighbourhoods(products, liars)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinateRule:
    """A trimmed mean, or a median, with or without nearest-neighbour mixing."""

    is_median: bool = False
    mixes: bool = False

    def __call__(
        self,
        rows: Sequence[Vector],
        weights_micro: Sequence[int],
        digests: Sequence[bytes],
        *,
        origin: Vector,
        liars: int,
    ) -> Vector:
        """Merge n float32 rows (d,) into one (d,). ValueError if they are no table or liars ≥ n/2."""
        table, weights = in_order(rows, weights_micro, digests)
        check_liars(len(table), liars)
        trim = (len(table) - 1) // 2 if self.is_median else liars
        mixing = None
        if self.mixes:
            shares = _normalised([float(w) for w in weights])
            mixing = mixing_factors(gram(table, origin), shares, liars)
        return trimmed_mean(table, trim, mixing=mixing)


def check_liars(count: int, liars: int) -> None:
    """ValueError unless an honest majority is left."""
    if not 0 <= 2 * liars < count:
        raise ValueError(f"{liars} liars among {count} members: need 2 · liars < members")


RobustRule: TypeAlias = SpanRule | CoordinateRule
_SPAN: Final[Mapping[str, Choose]] = {
    "norm_clipped_mean": norm_clipped,
    "geometric_median": geometric_median,
    "krum": krum,
    "multi_krum": multi_krum,
    "centered_clipping": centered_clipping,
}
_COORDINATE: Final[Mapping[str, bool]] = {"trimmed_mean": False, "median": True}
ROBUST_RULES: Final = (*_SPAN, *_COORDINATE)
"""Names for a charter."""


def rule_of(name: str, *, mixes: bool = False) -> RobustRule:
    """Return the rule that a charter names; ValueError lists those there are."""
    if name in _SPAN:
        return SpanRule(choose=_SPAN[name], mixes=mixes)
    if name in _COORDINATE:
        return CoordinateRule(is_median=_COORDINATE[name], mixes=mixes)
    raise ValueError(f'no rule "{name}"; there are {", ".join(ROBUST_RULES)}')
