"""How models stay out of memory: pages that were read are given back, vectors become payloads in place.

Room: learning.

A node maps what it reads from its disk (node/payload_io.py). Pages that were touched would stay and
count as the node's memory, a model for every member; given back, they come again from the system's own
cache if they are read once more. For an ordinary array nothing happens here, and no value changes.
"""

import mmap
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HEADROOM: Final = 14
"""Elements before a vector in which a payload's header of 56 bytes fits."""
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


def roomy(count: int) -> NDArray[np.float32]:
    """Return an uninitialised vector (count,) with room for a header before it."""
    return np.empty(count + HEADROOM, dtype=np.float32)[HEADROOM:]


def with_room(vector: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return header room and vector as one array of bytes, if ``vector`` is all of a roomy one."""
    base = vector.base
    if (
        isinstance(base, np.ndarray)
        and base.dtype == vector.dtype == np.float32
        and base.shape == (vector.size + HEADROOM,)
        and base.base is None
        and vector.flags.c_contiguous
    ):
        return base.view(np.uint8)
    return None
