"""How the C library keeps memory: buffers of a chunk come and go hundreds of times a second.

Room: node. glibc would give each back to the system, which clears its pages again for the next one.
"""

import ctypes
import sys
from contextlib import suppress
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT_BYTES: Final = 16 << 20
"""Free memory at the end of the heap that stays with the process."""
HEAP_BYTES_MAX: Final = 4 << 20
"""Larger blocks (models) come from the system and go back to it at once, as before."""


def keep_buffers() -> None:
    """Let buffers of up to a few MiB be used again. Where there is no glibc nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_THRESHOLD, HEAP_BYTES_MAX)
            mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
