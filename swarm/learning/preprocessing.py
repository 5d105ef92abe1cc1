"""From a site's table to the feature matrix that every site shares.

Room: learning. Law: the columns and their order come from the charter alone, so all members build
the same model; only the medians stay local.

Measured on the four heart hospitals (FedAvg, logistic, 12 splits, sample-weighted AUC): one-hot
columns and indicators standardised like numbers .851, left at 0 and 1 .850; a missing category as
the federation's frequencies .851, as the site's most frequent value .843, as all zeros .847. So
every column is standardised, and a missing category takes the mean of its columns.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ledger.charter import Feature, Schema
from swarm.learning.dataset import Table
from swarm.learning.moments import Floats, Matrix, Standardiser

MISSING = " missing"


def feature_names(schema: Schema) -> tuple[str, ...]:
    """Columns of the matrix: numbers, one per category (`sex=F`), then missing indicators."""
    names: list[str] = []
    for feature in schema.features:
        if feature.type == "category":
            names += [f"{feature.name}={category}" for category in feature.categories]
        else:
            names.append(feature.name)
    if schema.missing_indicator:
        names += [feature.name + MISSING for feature in schema.features]
    return tuple(names)


def feature_count(schema: Schema) -> int:
    """Width of the matrix; 0 when the hospitals bring their own data sets."""
    return len(feature_names(schema))


@dataclass(frozen=True, eq=False)
class Preprocessor:
    """One site's table → (n, d): one-hot, imputed, indicators, standardised.

    medians: (d,), numbers' medians over the site's own training rows; NaN for every other column
    and for a number that the site never observes. What is missing there becomes the standardiser's
    mean, so 0 in the matrix.
    """

    schema: Schema
    medians: Floats

    @classmethod
    def fit(cls, schema: Schema, train: Table) -> Self:
        """Take the medians from the training rows only."""
        medians: list[float] = []
        for feature in schema.features:
            column = train.columns[feature.name]
            observed = column[~np.isnan(column)]
            if feature.type == "category":
                medians += [np.nan] * len(feature.categories)
            else:
                medians.append(float(np.median(observed)) if observed.size else np.nan)
        if schema.missing_indicator:
            medians += [np.nan] * len(schema.features)
        return cls(schema, np.array(medians, dtype=np.float64))

    def transform(self, table: Table, standardiser: Standardiser) -> Matrix:
        """Return float32 (n, d) without a missing value."""
        values = observed_matrix(self.schema, table)
        return standardiser.apply(np.where(np.isnan(values), self.medians, values))


def observed_matrix(schema: Schema, table: Table) -> Floats:
    """Build the matrix (n, d) before imputation, NaN where missing."""
    parts: list[Floats] = []
    for feature in schema.features:
        column = table.columns[feature.name]
        parts.append(_one_hot(feature, column) if feature.type == "category" else column[:, None])
    if schema.missing_indicator:
        parts += [
            np.isnan(table.columns[feature.name]).astype(np.float64)[:, None]
            for feature in schema.features
        ]
    return np.concatenate(parts, axis=1) if parts else np.empty((table.rows, 0))


def _one_hot(feature: Feature, codes: Floats) -> Floats:
    hot: Floats = (codes[:, None] == np.arange(len(feature.categories))).astype(np.float64)
    hot[np.isnan(codes)] = np.nan
    return hot
