"""Made-up hospitals from a real table: unequal, differently ill, differently measured.

Room: scenarios. Law: everything follows from one seed. The rows are the Wisconsin breast-cancer
data that scikit-learn ships (569 fine-needle aspirates, 30 measurements; Street, Wolberg,
Mangasarian 1993); only who has which row, and how it was measured, is made up here.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LABEL = "malignant"
NAMES = ("University Clinic", "City Hospital", "County Hospital", "Rural Practice")
SHARES = (10, 4, 2, 1)
# The clinic screens a whole city; the practice sends only what worries it.
MALIGNANT_RATES = (0.30, 0.44, 0.52, 0.56)
DIGITS_NAMES = ("Archive A", "Archive B", "Archive C", "Archive D", "Archive E")
DIGITS_OWN = 0.6
MEASURES = 10  # radius, texture …, each as mean, standard error and worst of a sample's nuclei
GAIN_SPREAD = 0.05
OFFSET_SPREAD = 0.10  # in standard deviations of the measurement

Matrix: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """How one hospital measures: reading = gain · value + offset, per measure (10,)."""

    gain: Matrix
    offset: Matrix


def split_breast_cancer(seed: int) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Deal 569 rows to four hospitals in 10:4:2:1, without overlap or loss.

    Returns (name, column names, rows as text) for each: 30 numbers and the label `malignant` 0/1.
    The share of malignant rows is about 30, 44, 52 and 56 %. Every hospital has its own
    instruments: a gain within ±5 % and an offset within ±0.1 standard deviations for each of the
    ten measures (the offset leaves standard errors alone, as a constant does).
    """
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    features: Matrix = table.data
    malignant: NDArray[np.bool_] = table.target == 0  # its class 0 is malignant
    generator = np.random.Generator(np.random.PCG64(seed))
    owner = _deal(malignant, generator)
    columns = (*(str(name).replace(" ", "_") for name in table.feature_names), LABEL)
    sites = []
    for site, name in enumerate(NAMES):
        chosen = generator.permutation(np.flatnonzero(owner == site))
        readings = _measure(features[chosen], features.std(axis=0), _instrument(generator))
        rows = [
            (*(f"{value:.6g}" for value in row), str(int(label)))
            for row, label in zip(readings, malignant[chosen], strict=True)
        ]
        sites.append((name, columns, rows))
    return sites


def split_digits(seed: int) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """Deal scikit-learn's 1,797 handwritten digits (8 x 8 pixels, 0 to 16) to five hospitals by class.

    Each hospital has 60 % of two digits, its own, and an equal part of the rest of all. Returns (name,
    column names, rows as text) for each: 64 pixels p00 … p77, row by row, and the label `digit`.
    """
    from sklearn.datasets import load_digits

    table = load_digits()
    generator = np.random.Generator(np.random.PCG64(seed))
    owner = np.empty(len(table.target), dtype=np.int64)
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(table.target == digit))
        own = round(len(rows) * DIGITS_OWN)
        owner[rows[:own]] = digit // 2
        owner[rows[own:]] = np.arange(len(rows) - own) % len(DIGITS_NAMES)
    columns = (*(f"p{at // 8}{at % 8}" for at in range(64)), "digit")
    return [
        (
            name,
            columns,
            [
                (*(f"{pixel:g}" for pixel in table.data[row]), str(table.target[row]))
                for row in generator.permutation(np.flatnonzero(owner == site))
            ],
        )
        for site, name in enumerate(DIGITS_NAMES)
    ]


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write one hospital's file with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _deal(malignant: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int64]:
    """Owner of each row (n,); the first hospital takes what rounding leaves."""
    sizes = [len(malignant) * share // sum(SHARES) for share in SHARES]
    owner = np.zeros(len(malignant), dtype=np.int64)
    ill = generator.permutation(np.flatnonzero(malignant))
    well = generator.permutation(np.flatnonzero(~malignant))
    for site in range(1, len(SHARES)):
        take = round(sizes[site] * MALIGNANT_RATES[site])
        owner[ill[:take]] = site
        owner[well[: sizes[site] - take]] = site
        ill, well = ill[take:], well[sizes[site] - take :]
    return owner


def _instrument(generator: np.random.Generator) -> Instrument:
    return Instrument(
        gain=1 + generator.uniform(-GAIN_SPREAD, GAIN_SPREAD, MEASURES),
        offset=generator.uniform(-OFFSET_SPREAD, OFFSET_SPREAD, MEASURES),
    )


def _measure(values: Matrix, spread: Matrix, instrument: Instrument) -> Matrix:
    """Read (n, 30) values, ordered mean × 10, standard error × 10, worst × 10."""
    gain = np.tile(instrument.gain, 3)
    offset = np.concatenate([instrument.offset, np.zeros(MEASURES), instrument.offset])
    # No measurement is negative; an offset must not make it so.
    return np.maximum(gain * values + offset * spread, 0.0)
