"""Integers in few bits: what compressed updates are made of.

Room: learning. Law: every list of integers has one spelling, and bytes are hostile until read: a
length that does not fit, a bit beyond the end or an order that is none is a ValueError.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Whole: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.uint8]


def pack_digits(digits: Whole, *, base: int, digits_a_byte: int) -> bytes:
    """Write digits 0 … base − 1, ``digits_a_byte`` of them in each byte, the first one lowest."""
    padded = np.zeros(-(-digits.size // digits_a_byte) * digits_a_byte, dtype=np.int64)
    padded[: digits.size] = digits
    powers = base ** np.arange(digits_a_byte)
    return bytes((padded.reshape(-1, digits_a_byte) @ powers).astype(np.uint8))


def unpack_digits(data: bytes, count: int, *, base: int, digits_a_byte: int) -> Whole:
    """Undo ``pack_digits`` for ``count`` digits, (count,) int64."""
    if len(data) != -(-count // digits_a_byte):
        raise ValueError(f"{len(data)} bytes hold no {count} digits")
    values = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
    powers = base ** np.arange(digits_a_byte)
    digits = (values[:, np.newaxis] // powers % base).reshape(-1)
    if (values.size and (values >= base**digits_a_byte).any()) or digits[count:].any():
        raise ValueError("a byte beyond the digits")
    kept: Whole = digits[:count]
    return kept


def pack_ascending(numbers: Whole, limit: int) -> bytes:
    """Write k strictly ascending integers below ``limit`` in about k·(2 + log2(limit / k)) bits.

    Elias 1974 and Fano 1971: the low bits as they are, the high ones as gaps in unary.
    """
    if not numbers.size:
        return b""
    low = _low_bits(numbers.size, limit)
    lows = (numbers[:, np.newaxis] >> np.arange(low)) & 1
    highs = np.zeros(_high_count(numbers.size, limit, low), dtype=np.uint8)
    highs[(numbers >> low) + np.arange(numbers.size)] = 1
    return np.packbits(np.concatenate([lows.reshape(-1).astype(np.uint8), highs])).tobytes()


def unpack_ascending(data: bytes, count: int, limit: int) -> Whole:
    """Undo ``pack_ascending`` for ``count`` integers."""
    if not 0 <= count <= limit:
        raise ValueError(f"{count} different numbers below {limit}")
    if len(data) != ascending_bytes(count, limit):
        raise ValueError(f"{len(data)} bytes hold no {count} numbers below {limit}")
    if not count:
        return np.empty(0, dtype=np.int64)
    low = _low_bits(count, limit)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    total = count * low + _high_count(count, limit, low)
    if bits[total:].any():
        raise ValueError("a bit beyond the numbers")
    places = np.flatnonzero(bits[count * low : total])
    if places.size != count:
        raise ValueError("the numbers are not as many as they should be")
    lows = bits[: count * low].reshape(count, low).astype(np.int64) @ (1 << np.arange(low))
    numbers: Whole = ((places - np.arange(count)) << low) + lows
    if numbers[-1] >= limit or (np.diff(numbers) <= 0).any():
        raise ValueError("the numbers do not ascend, or one is too large")
    return numbers


def ascending_bytes(count: int, limit: int) -> int:
    """Length of what ``pack_ascending`` writes."""
    if not count:
        return 0
    low = _low_bits(count, limit)
    return -(-(count * low + _high_count(count, limit, low)) // 8)


def _low_bits(count: int, limit: int) -> int:
    return max((limit // count).bit_length() - 1, 0)


def _high_count(count: int, limit: int, low: int) -> int:
    return count + (max(limit - 1, 0) >> low)
