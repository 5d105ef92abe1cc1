"""The one place that touches torch's global state: its generator and its number of threads.

Room: learning. Law: randomness is an argument. Layers draw from torch's global generator when they
are made and in dropout, so it is seeded here, put back afterwards, and held by one thread at a time
(several nodes in one process must not take turns with one stream).
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_GLOBAL_GENERATOR = threading.RLock()


def derive_seed(purpose: str, *parts: int) -> int:
    """A 63-bit seed for one purpose: SHA-256 of its name and integers, so streams never overlap."""
    text = "\n".join(["swarm/seed/v1", purpose, *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and restore it after."""
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside the block; 1 gives the same sums on every run."""
    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
