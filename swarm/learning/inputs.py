"""A site's rows as its model takes them: scaled by what round zero agreed on, in batches.

Room: learning. Law: everything follows from the charter, the site's data, the seed and round zero's
result, so a node that restarts has the same bits again.
"""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ledger.charter import Charter
from ledger.errors import ConfigError
from swarm.learning.batches import Batches, MatrixBatches, SetBatches
from swarm.learning.dataset import SiteData, Split, Table
from swarm.learning.fits import has_round_zero
from swarm.learning.moments import Moments, Standardiser, local_moments, merge_moments
from swarm.learning.payload import decode_moments, encode_moments
from swarm.learning.preprocessing import Preprocessor, feature_names, observed_matrix
from swarm.learning.round_zero import RoundZero
from swarm.learning.seeding import derive_seed, torch_seed
from swarm.learning.training import balanced_weights


@final
class Inputs:
    """One site's training and validation rows. seed: the site's own.

    Nothing can be asked for before ``set_moments`` where the charter has a round zero.
    """

    def __init__(self, charter: Charter, data: SiteData, *, seed: int) -> None:
        self._charter = charter
        self._schema = charter.schema
        self._data = data
        self._seed = seed
        self._zero = RoundZero.of(charter)
        self.columns = feature_names(charter.schema)
        self.needs_moments = has_round_zero(charter)
        """Whether round 0 sums something up before anyone can train."""
        self.moments: Moments | None = None
        """What it came to."""
        self._prepared = None if self.needs_moments else self._prepare()

    def local_moments(self) -> bytes:
        """Payload of this site's count, mean and spread per column, over its training rows."""
        train = self._data.train
        labels = train.labels if isinstance(train, Table) else self._own_set(train).labels.numpy()
        return encode_moments(self._zero.local(self._charter, train, labels), self._zero.digest)

    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Merge (digest, payload) pairs in order of digest, whatever order they are given in."""
        parts = [self.decode_moments(payload) for _, payload in sorted(payloads)]
        return encode_moments(merge_moments(parts), self._zero.digest)

    def set_moments(self, merged: Moments) -> None:
        """Scale and weigh by the federation's sums from now on."""
        self.moments = merged
        self._prepared = self._prepare()

    def decode_moments(self, payload: bytes) -> Moments:
        """Read a payload of moments of the charter's columns. Raises PayloadError."""
        return decode_moments(payload, self._zero.digest, len(self._zero.columns))

    def encode_moments(self, moments: Moments) -> bytes:
        """Undo ``decode_moments``."""
        return encode_moments(moments, self._zero.digest)

    @property
    def train(self) -> Batches:
        """Training rows. Raises ValueError before the moments are set."""
        return self._ready()[0]

    @property
    def validation(self) -> Batches:
        """Validation rows, which nothing is learned from. Raises ValueError as ``train`` does."""
        return self._ready()[1]

    @property
    def class_weights(self) -> Tensor | None:
        """Weights of the classes by the federation's counts, (classes,), where the charter has them."""
        if self._charter.training.class_weights != "federated":
            return None
        return balanced_weights(torch.from_numpy(self._zero.class_counts(self._known())))

    def batches(self, split: Split) -> Batches:
        """Any rows, imputed and scaled as this site's are."""
        if not isinstance(split, Table):
            return self._own_set(split)
        if not isinstance(self._data.train, Table):
            raise ConfigError("data: the training examples are a data set, these rows a table")
        preprocessor = Preprocessor.fit(self._schema, self._data.train)
        matrix = preprocessor.transform(split, self._standardiser(self._data.train))
        return MatrixBatches.of(matrix, split.labels)

    def _own_set(self, split: Split) -> SetBatches:
        if isinstance(split, Table):
            raise TypeError("a table is no own data set")
        # An own data set may draw (augmentation) while its labels are read.
        with torch_seed(derive_seed("labels", self._seed)):
            return SetBatches(split, head=self._schema.head, classes=len(self._schema.classes))

    def _standardiser(self, train: Table) -> Standardiser:
        match self._schema.standardise:
            case "federated":
                return Standardiser.of(self._zero.of_features(self._known()))
            case "local":
                return Standardiser.of(local_moments(observed_matrix(self._schema, train)))
            case _:
                return Standardiser.identity(len(self.columns))

    def _prepare(self) -> tuple[Batches, Batches]:
        return self.batches(self._data.train), self.batches(self._data.validation)

    def _ready(self) -> tuple[Batches, Batches]:
        if self._prepared is None:
            raise ValueError("set_moments must come before training and evaluation")
        return self._prepared

    def _known(self) -> Moments:
        if self.moments is None:
            raise ValueError("set_moments must come before training and evaluation")
        return self.moments


def matrix_of(batches: Batches) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """All features (n, d) and labels (n,) at once."""
    features, labels = batches.batch(np.arange(len(batches)))
    return features.numpy(), labels.numpy()
