"""The exam of a codec. Room: swarm."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from swarm.conformance.promises import demand, untouched
from swarm.learning.codecs import Residual, UpdateCodec, decode_update, encode_update
from swarm.learning.rows import Vector

COUNTS: Final = (1, 5, 1_023, 1_024, 1_025, 3_000)
"""Of values: one block, its neighbours, several."""
TURNS: Final = 400
LOST_MAX: Final = 0.5
"""Part of an update that may still be missing after so many turns with error feedback."""
CUTS: Final = 25
FORGERIES: Final = 200


def check_codec(codec: UpdateCodec, *, seed: int = 0) -> None:
    """Same bytes for the same update; finite and bounded; nothing but its own bytes is read.

    And, with error feedback: what one update loses, later ones bring.
    """
    generator = np.random.default_rng(seed)
    for count in COUNTS:
        for what, update in _updates(generator, count):
            _check_journey(codec, what, update)
    _check_refusals(codec, generator)
    _check_feedback(codec, generator)


def _updates(generator: np.random.Generator, count: int) -> Iterator[tuple[str, Vector]]:
    normal = generator.normal(size=count).astype(np.float32)
    outlier = normal.copy()
    outlier[count // 2] = 1e6
    yield "normal values", normal
    yield "tiny values", normal * np.float32(1e-30)
    yield "large values", normal * np.float32(1e4)
    yield "an outlier", outlier
    yield "equal values", np.ones(count, dtype=np.float32)
    yield "zeros", np.zeros(count, dtype=np.float32)


def _check_journey(codec: UpdateCodec, what: str, update: Vector) -> None:
    case = f"{update.size} values ({what})"
    with untouched(f"{case}: the update", update):
        packed = codec.pack(update)
        demand(codec.pack(update) == packed, f"{case}: the same update gives other bytes")
    longest = codec.bytes_max(update.size)
    demand(len(packed) <= longest, f"{case}: {len(packed)} bytes, above bytes_max = {longest}")
    seen = codec.unpack(packed, update.size)
    demand(
        seen.dtype == np.float32 and seen.shape == update.shape,
        f"{case}: read as {seen.dtype} {seen.shape}, not float32 {update.shape}",
    )
    demand(bool(np.isfinite(seen).all()), f"{case}: read as a value that is not finite")
    if what == "zeros":
        demand(not seen.any(), f"{case}: nothing becomes something")


def _check_refusals(codec: UpdateCodec, generator: np.random.Generator) -> None:
    update = generator.normal(size=300).astype(np.float32)
    packed = codec.pack(update)
    cuts = np.unique(np.linspace(0, len(packed) - 1, CUTS).astype(int))
    for wrong in [*(packed[:cut] for cut in cuts), packed + b"\x00"]:
        demand(
            not _reads(codec, wrong, update.size),
            f"{len(wrong)} bytes are read that `pack` does not write; it wrote {len(packed)}",
        )
    for _ in range(FORGERIES):
        _reads(codec, generator.bytes(len(packed)), update.size)


def _reads(codec: UpdateCodec, data: bytes, count: int) -> bool:
    """Whether it reads bytes, which then are a finite update. Anything but ValueError breaks a promise."""
    try:
        seen = codec.unpack(data, count)
    except ValueError:
        return False
    except Exception as error:
        demand(False, f"foreign bytes raise {type(error).__name__}, not ValueError")
        raise
    demand(
        seen.shape == (count,) and bool(np.isfinite(seen).all()),
        "foreign bytes are read as something that is no finite update",
    )
    return True


def _check_feedback(codec: UpdateCodec, generator: np.random.Generator) -> None:
    update = generator.normal(size=500).astype(np.float32)
    residual, total = Residual.none(update.size), np.zeros(update.size)
    for _ in range(TURNS):
        body, seen, residual = residual.compress(codec, update)
        demand(
            decode_update(codec, body, update.size).tobytes() == seen.tobytes(),
            "a reader sees another update than the sender believes",
        )
        total += seen
    missing = np.linalg.norm(total / TURNS - update) / np.linalg.norm(update)
    demand(
        bool(missing <= LOST_MAX),
        f"with error feedback {missing:.0%} of an update is still missing after {TURNS} turns",
    )
    demand(
        encode_update(codec, update) == encode_update(codec, update.copy()),
        "the same update gives another payload",
    )
