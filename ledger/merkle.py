"""The RFC 6962 tree over a log's record ids. Room: ledger. Spec: docs/checkpoints.md §1 and §2.

A record's id is its leaf hash already, so the tree needs ids only. Everything here is pure, needs
O(log n) memory and no recursion. What a peer sends is checked by the two ``verify_`` functions,
which raise and never return a verdict. RFC 6962 §2.1; RFC 9162 §2.1.3.2 and §2.1.4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, final

from .canonical import UINT_MAX
from .errors import VerificationError

HASH_BYTES: Final = 32
PROOF_HASHES_MAX: Final = 63  # what C2SP tlog-witness allows; a tree of 2^53 leaves needs up to 54
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()

Proof: TypeAlias = tuple[bytes, ...]
LeafAt: TypeAlias = Callable[[int], bytes]  # index → record id; ``ids.__getitem__`` for a list


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def packed(ids: bytes | bytearray) -> LeafAt:
    """Return the leaves of an index that holds ids one after the other, 32 bytes each."""
    return lambda index: bytes(ids[index * HASH_BYTES : (index + 1) * HASH_BYTES])


@final
class Tree:
    """A tree that only grows: its size and the roots of its perfect subtrees, largest first.

    ``size`` and ``peaks`` are its whole state: 32 bytes for each one-bit of the size.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Begin empty, or go on where a tree with this size and these peaks stood."""
        if size < 0 or len(peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has one peak for each one-bit of its size")
        self.size = size
        self._peaks = [_hash_of(peak) for peak in peaks]

    @property
    def peaks(self) -> Proof:
        """The roots of the perfect subtrees, largest first."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add the next record's id."""
        node = _hash_of(leaf)
        size = self.size
        while size & 1:  # two perfect trees of one height become one
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add several in their order."""
        for leaf in leaves:
            self.append(leaf)

    def root(self) -> bytes:
        """Return the root at the present size."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


def range_root(leaf_at: LeafAt, start: int, end: int) -> bytes:
    """Return the root of the tree over the leaves ``start`` to ``end - 1``."""
    tree = Tree()
    tree.extend(leaf_at(index) for index in range(start, end))
    return tree.root()


def inclusion_proof(leaf_at: LeafAt, index: int, size: int) -> Proof:
    """Return the path from leaf ``index`` up to the root at ``size``, its sibling first.

    Hashes each other leaf once. Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    start, end = 0, size
    path: list[bytes] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_root(leaf_at, middle, end))
            end = middle
        else:
            path.append(range_root(leaf_at, start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_proof(leaf_at: LeafAt, old_size: int, size: int) -> Proof:
    """Return the proof that the tree of ``size`` begins with that of ``old_size``.

    Empty if they are the same or the old one has no leaf. Hashes each leaf at most once. Raises
    ValueError unless 0 <= old_size <= size.
    """
    if not 0 <= old_size <= size:
        raise ValueError(f"a tree of {size} does not begin with one of {old_size}")
    if old_size in (0, size):
        return ()
    start, end = 0, size
    path: list[bytes] = []
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(range_root(leaf_at, middle, end))
            end = middle
        else:
            path.append(range_root(leaf_at, start, middle))
            start = middle
    if start:  # else it is the old root, which the verifier has
        path.append(range_root(leaf_at, start, end))
    return tuple(reversed(path))


def verify_inclusion(
    leaf: bytes, index: int, *, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if ``leaf`` is number ``index`` of the tree; raise E_CHECKPOINT if not."""
    _check_shape(size, [leaf, root], proof)
    if not 0 <= index < size:
        raise _refused(f"leaf {index} lies outside a tree of {size}")
    sides = _sides(index, size - 1)
    _check_length(proof, len(sides))
    node = leaf
    for sibling, is_left in zip(proof, sides, strict=True):
        node = node_hash(sibling, node) if is_left else node_hash(node, sibling)
    if node != root:
        raise VerificationError(
            "E_CHECKPOINT", f"record {leaf.hex()} is not at {index} of the tree",
            expected=f"root {root.hex()}",
        )  # fmt: skip


def verify_consistency(
    *, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the tree of ``size`` begins with that of ``old_size``; raise E_CHECKPOINT if not.

    Every tree begins with the empty one: its root is fixed, so it needs no proof.
    """
    _check_shape(size, [old_root, root], proof)
    if not 0 <= old_size <= size:
        raise _refused(f"a tree of {size} does not begin with one of {old_size}")
    if old_size in (0, size):
        _check_length(proof, 0)
        if old_root != (root if old_size else EMPTY_ROOT) or (size == 0 and root != EMPTY_ROOT):
            raise VerificationError(
                "E_CHECKPOINT", f"two roots for one size, {old_size}", expected=old_root.hex()
            )
        return
    position, last = old_size - 1, size - 1
    while position & 1:  # up to the old tree's rightmost perfect subtree: there the proof begins
        position >>= 1
        last >>= 1
    sides = _sides(position, last)
    # If the old tree is perfect that subtree is all of it, and the verifier has its root.
    path = (old_root, *proof) if position == 0 else tuple(proof)
    _check_length(path, len(sides) + 1)
    old_node = node = path[0]
    for sibling, is_left in zip(path[1:], sides, strict=True):
        if is_left:
            old_node = node_hash(sibling, old_node)
        node = node_hash(sibling, node) if is_left else node_hash(node, sibling)
    if old_node != old_root or node != root:
        raise VerificationError(
            "E_CHECKPOINT", f"the tree of {size} does not begin with that of {old_size}",
            expected=f"old root {old_root.hex()}",
        )  # fmt: skip


def _sides(position: int, last: int) -> list[bool]:
    """Return, on the way from a node up to the root, whether each sibling stands left of it.

    position, last: the node's and the rightmost node's number on their level.
    """
    sides = []
    while last:
        is_left = bool(position & 1) or position == last
        if position == last:  # at the right edge there are levels without a sibling
            while position and not position & 1:
                position >>= 1
                last >>= 1
        sides.append(is_left)
        position >>= 1
        last >>= 1
    return sides


def _split(count: int) -> int:
    """Return the largest power of two below ``count``, which is 2 or more."""
    return 1 << ((count - 1).bit_length() - 1)


def _hash_of(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        raise ValueError(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
    return bytes(value)


def _check_shape(size: int, hashes: Sequence[bytes], proof: Sequence[bytes]) -> None:
    if not 0 <= size <= UINT_MAX:
        raise _refused(f"tree size {size} is out of range")
    if len(proof) > PROOF_HASHES_MAX:
        raise _refused(f"a proof of {len(proof)} hashes")
    if any(len(one) != HASH_BYTES for one in (*hashes, *proof)):
        raise _refused("a hash of another length than 32 bytes")


def _check_length(proof: Sequence[bytes], expected: int) -> None:
    if len(proof) != expected:
        raise VerificationError(
            "E_CHECKPOINT", f"a proof of {len(proof)} hashes", expected=str(expected)
        )


def _refused(message: str) -> VerificationError:
    return VerificationError("E_CHECKPOINT", message)
