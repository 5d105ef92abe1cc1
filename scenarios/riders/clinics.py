"""Made-up clinics from real handwritten digits: many, of unequal size, each with other favourites.

Room: scenarios. Law: everything follows from one seed. scikit-learn ships 1,797 real digits (Alpaydin,
Kaynak 1998); 297 of them are kept for the test and nobody trains on them. A clinic's patients are drawn
from the rest by its own preferences, and each is moved by a pixel or not, and lit and grained anew, so
that 32 clinics have more than the 47 rows each that a plain deal would leave.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from swarm.learning.dataset import SiteData, Table

Images: TypeAlias = NDArray[np.float64]

LABEL: Final = "digit"
CLASSES: Final = 10
SIDE: Final = 8
INK: Final = 16.0
TEST_ROWS: Final = 297
ROWS_MEDIAN: Final = 160
ROWS_SPREAD: Final = 0.5  # of the logarithm
ROWS_MIN: Final = 60
ROWS_MAX: Final = 500
VALIDATION_SHARE: Final = 0.2
SMEAR: Final = 0.8
TINY_ROWS: Final = 12
TINY_VALIDATION: Final = 5
FEATURES: Final = tuple(f"p{at // SIDE}{at % SIDE}" for at in range(SIDE * SIDE))


@dataclass(frozen=True, kw_only=True, eq=False)
class Clinics:
    """sites: each one's rows, split. test: real digits that nobody has."""

    sites: tuple[SiteData, ...]
    test: Table


def make_clinics(
    seed: int, count: int, *, rare: int | None = None, tiny: int | None = None
) -> Clinics:
    """Draw ``count`` clinics. rare: one whose pens smear to the right; tiny: one with 12 patients."""
    every, named = _digits()
    generator = np.random.Generator(np.random.PCG64(seed))
    order = generator.permutation(len(named))
    images, labels = every[order], named[order]
    test = _table(images[:TEST_ROWS], labels[:TEST_ROWS])
    images, labels = images[TEST_ROWS:], labels[TEST_ROWS:]
    sites = []
    for at in range(count):
        size = round(generator.lognormal(np.log(ROWS_MEDIAN), ROWS_SPREAD))
        size = min(max(size, ROWS_MIN), ROWS_MAX)
        taste = generator.dirichlet(np.ones(CLASSES)) + 0.02
        chance = taste[labels] / taste[labels].sum()
        chosen = generator.choice(len(labels), size, p=chance)
        drawn = _photographed(images[chosen], generator)
        if at == rare:
            drawn = _smeared(drawn)
        validation = max(1, round(size * VALIDATION_SHARE))
        train = size - validation
        if at == tiny:
            validation, train = TINY_VALIDATION, TINY_ROWS
        whole = _table(drawn, labels[chosen])
        rows = np.arange(size)
        sites.append(
            SiteData(
                train=whole.take((rows >= validation) & (rows < validation + train)),
                validation=whole.take(rows < validation),
            )
        )
    return Clinics(sites=tuple(sites), test=test)


@cache
def _digits() -> tuple[Images, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.data, loaded.target


def _table(images: Images, labels: NDArray[np.int64]) -> Table:
    columns = {name: np.ascontiguousarray(images[:, at]) for at, name in enumerate(FEATURES)}
    return Table(columns=columns, labels=labels.astype(np.int64))


def _photographed(images: Images, generator: np.random.Generator) -> Images:
    """Move half of the pictures by a pixel at most, light and grain all; (n, 64) in and out."""
    count = len(images)
    moved = images.reshape(count, SIDE, SIDE).copy()
    steps = np.where(generator.random(count) < 0.5, generator.integers(-1, 2, count), 0)
    for step in (-1, 1):
        moved[steps == step] = np.roll(moved[steps == step], step, axis=2)
    light = generator.uniform(0.8, 1.1, (count, 1, 1))
    grain = generator.normal(0.0, 1.0, moved.shape)
    return np.clip(moved * light + grain, 0.0, INK).reshape(count, -1).round(1)


def _smeared(images: Images) -> Images:
    """Every stroke drags ink into the pixel right of it."""
    wide = images.reshape(-1, SIDE, SIDE).copy()
    wide[:, :, 1:] = np.maximum(wide[:, :, 1:], SMEAR * wide[:, :, :-1])
    return wide.reshape(len(images), -1).round(1)


def split_clinics(
    seed: int, count: int
) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Return (name, column names, rows as text) for each clinic, as the other made-up hospitals."""
    sites = []
    for at, site in enumerate(make_clinics(seed, count).sites):
        rows = []
        for part in (site.train, site.validation):
            if isinstance(part, Table):
                pixels = np.stack([part.columns[name] for name in FEATURES], axis=1)
                rows += [
                    (*(f"{pixel:g}" for pixel in row), str(int(label)))
                    for row, label in zip(pixels, part.labels, strict=True)
                ]
        sites.append((f"Clinic {at + 1:02}", (*FEATURES, LABEL), rows))
    return sites
