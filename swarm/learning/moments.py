"""Federated mean and standard deviation: what round 0 exchanges.

Room: learning. Law: a site sends three numbers a column (count, mean, sum of squared deviations),
never a row, and every member merges them to the same bits. The triple holds the same information as
count, sum and sum of squares, but the sum of squares would lose every digit of a small spread on a
large offset (a timestamp, a platelet count); the merge of Chan, Golub and LeVeque does not.
A column that a whole site lacks has count 0 there: it adds nothing, and the site takes part.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

DOMAIN = b"swarm/columns/v1\n"
COUNT_MAX = float(1 << 53)  # beyond this a float64 is no longer a count
SITE_COUNT_MAX = float(1 << 40)  # 256 sites of this size merge to less than COUNT_MAX
SITE_SIZE_MAX = 1e30  # of a mean or a standard deviation: features scaled by them stay finite

Floats: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = NDArray[np.float32]


def columns_digest(columns: Sequence[str]) -> bytes:
    """SHA-256 over the column names, in order: the layout digest of a moments payload."""
    return hashlib.sha256(DOMAIN + "".join(f"{name}\n" for name in columns).encode()).digest()


@dataclass(frozen=True, eq=False)
class Moments:
    """Per column (d,): observed values, their mean, their summed squared deviations from it."""

    count: Floats
    mean: Floats
    m2: Floats

    @classmethod
    def from_vector(cls, vector: Floats) -> Self:
        """Parse a float64 vector (3 d,) in the order count, mean, m2.

        Raises ValueError unless it could have come from real values: whole counts, m2 ≥ 0, and
        zeros where nothing was observed.
        """
        if vector.ndim != 1 or vector.size % 3:
            raise ValueError("moments need three values a column")
        count, mean, m2 = (part.copy() for part in np.split(vector, 3))
        if not np.isfinite(vector).all():
            raise ValueError("moments hold a value that is not finite")
        if (count != np.floor(count)).any() or (count < 0).any() or (count >= COUNT_MAX).any():
            raise ValueError("moments hold a count that is not a whole number ≥ 0")
        if (m2 < 0).any() or ((count < 2) & (m2 != 0)).any() or ((count == 0) & (mean != 0)).any():
            raise ValueError("moments hold a spread or mean that no values have")
        return cls(count, mean, m2)

    def is_of_one_site(self) -> bool:
        """Whether one hospital could hold these values, so that merging them overflows nowhere."""
        variance = self.m2 / np.maximum(self.count, 1.0)
        return bool(
            (self.count <= SITE_COUNT_MAX).all()
            and (np.abs(self.mean) <= SITE_SIZE_MAX).all()
            and (variance <= SITE_SIZE_MAX**2).all()
        )

    def to_vector(self) -> Floats:
        """Lay out as (3 d,) float64; undone by ``from_vector``."""
        return np.concatenate([self.count, self.mean, self.m2])


def local_moments(values: Floats) -> Moments:
    """Moments of the observed values of each column.

    values: (n, d) float64, NaN where nothing was observed; n may be 0. Two passes: mean, then
    deviations from it.
    """
    observed = np.isfinite(values)
    count = observed.sum(axis=0).astype(np.float64)
    divisor = np.maximum(count, 1.0)
    mean = np.where(observed, values, 0.0).sum(axis=0) / divisor
    deviations = np.where(observed, values - mean, 0.0)
    m2 = np.where(count > 1, (deviations * deviations).sum(axis=0), 0.0)
    return Moments(count, mean, m2)


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Pool moments in the order given (callers sort by payload digest), element by element.

    Equals the moments of all rows in one table up to rounding.
    Chan, Golub, LeVeque 1983, https://doi.org/10.1080/00031305.1983.10483115
    """
    if not parts:
        raise ValueError("need the moments of at least one site")
    count, mean, m2 = parts[0].count, parts[0].mean, parts[0].m2
    for part in parts[1:]:
        total = count + part.count
        divisor = np.maximum(total, 1.0)
        delta = part.mean - mean
        # Where a side is empty its share is exactly 0 or 1, so a stand-in mean of 0 does no harm.
        m2 = m2 + part.m2 + delta * delta * (count / divisor) * part.count
        mean = np.where(count == 0, part.mean, mean + delta * (part.count / divisor))
        count = total
    return Moments(count, mean, m2)


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Subtract the mean, divide by the standard deviation, per column (d,)."""

    mean: Floats
    std: Floats

    @classmethod
    def of(cls, moments: Moments) -> Self:
        """Use the moments' mean and population std; std 1 where the values do not vary."""
        variance = moments.m2 / np.maximum(moments.count, 1.0)
        std = np.sqrt(variance)
        # Rounding leaves a constant column a spread of some 1e-16 of its size: that is no spread.
        constant = std <= 1e-12 * np.maximum(np.abs(moments.mean), 1e-300)
        return cls(moments.mean, np.where(constant | (std == 0), 1.0, std))

    @classmethod
    def identity(cls, columns: int) -> Self:
        """Leave every value as it is."""
        return cls(np.zeros(columns), np.ones(columns))

    def apply(self, values: Floats) -> Matrix:
        """Standardise (n, d) to float32; what is missing (NaN) becomes the mean, which is 0."""
        scaled = (values - self.mean) / self.std
        return np.where(np.isnan(values), 0.0, scaled).astype(np.float32)
