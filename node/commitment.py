"""A salted commitment to the data that a hospital trains on: binds it without telling anything.

HMAC-SHA-256 under a key that never leaves the site, so nobody can test a guess about a patient; the
hospital can later show an inspector that this data set is the one that the ledger names.
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

import numpy as np

from swarm.learning.dataset import SiteData, Split, Table

_SALT_DOMAIN: Final = b"swarm/data-commitment/v1\n"


def data_commitment(secret: bytes, data: SiteData) -> bytes:
    """Commit to every value of the training and the validation split, in order."""
    salt = hmac.digest(secret, _SALT_DOMAIN, hashlib.sha256)
    digest = hmac.new(salt, digestmod=hashlib.sha256)
    for split in (data.train, data.validation):
        for part in _parts(split):
            digest.update(part)
    return digest.digest()


def _parts(split: Split) -> Iterable[bytes]:
    if isinstance(split, Table):
        columns = [split.columns[name] for name in sorted(split.columns)]
        return [np.ascontiguousarray(values).tobytes() for values in (*columns, split.labels)]
    return map(_example, (split[index] for index in range(len(split))))


def _example(example: tuple[object, object]) -> bytes:
    return b"".join(np.ascontiguousarray(np.asarray(part)).tobytes() for part in example)
