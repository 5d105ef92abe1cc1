"""Memory of payloads that are mapped files: pages that were read are given back. Room: learning.

A node maps what it reads from its disk (node/payload_io.py). Pages that were touched would stay and
count as the node's memory, a model for every member; given back, they come again from the system's own
cache if they are read once more. For an ordinary array nothing happens here, and no value changes.
"""

import mmap
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

RELEASE_ELEMENTS: Final = 1 << 20
"""Elements after which somebody who reads from front to back gives back what he has read."""


def release(array: NDArray[Any]) -> None:
    """Give back the pages of the mapped file that ``array`` is a view of."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else None
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
