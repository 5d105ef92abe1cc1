"""What round zero sums up over the swarm: moments of the columns, counts of the classes.

Room: learning. Both travel as moments (moments.py): a class is one more column, 1 where a row has it and
else 0, whose summed mean times count is the number of rows. So a site tells no more than three numbers
for a column, everybody merges to the same bits, and there is one payload and one format for both.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from ledger.charter import Charter
from ledger.errors import ConfigError
from swarm.learning.dataset import Split, Table
from swarm.learning.fits import counts_classes, standardises
from swarm.learning.moments import Floats, Moments, columns_digest, local_moments
from swarm.learning.preprocessing import feature_names, observed_matrix

LABEL: Final = "label "


@dataclass(frozen=True)
class RoundZero:
    """features: columns of the matrix if they are standardised over the swarm. classes: if counted."""

    features: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, charter: Charter) -> Self:
        """Read it from the charter alone, so that all members sum up the same."""
        features = feature_names(charter.schema) if standardises(charter) else ()
        classes = charter.schema.classes if counts_classes(charter) else ()
        return cls(features, tuple(LABEL + name for name in classes))

    @property
    def columns(self) -> tuple[str, ...]:
        """Features, then classes; none: there is no round zero."""
        return self.features + self.classes

    @cached_property
    def digest(self) -> bytes:
        """What the payload's header says of the columns."""
        return columns_digest(self.columns)

    def local(self, charter: Charter, train: Split, labels: NDArray[Any]) -> Moments:
        """Moments of one site's training rows. labels: (n,) of the same rows, class indices."""
        parts = []
        if self.features:
            if not isinstance(train, Table):
                raise ConfigError(
                    "data.standardise: own data sets bring their own scaling; use none"
                )
            parts.append(observed_matrix(charter.schema, train))
        if self.classes:
            parts.append((labels[:, None] == np.arange(len(self.classes))).astype(np.float64))
        return local_moments(np.concatenate(parts, axis=1))

    def of_features(self, merged: Moments) -> Moments:
        """Cut out the moments that standardise the matrix."""
        end = len(self.features)
        return Moments(merged.count[:end], merged.mean[:end], merged.m2[:end])

    def class_counts(self, merged: Moments) -> Floats:
        """How many rows of each class all sites have, (classes,); empty where nobody counts."""
        start = len(self.features)
        counts: Floats = np.rint(merged.count[start:] * merged.mean[start:])
        return counts
