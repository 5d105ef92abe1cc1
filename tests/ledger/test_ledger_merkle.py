"""RFC 6962 trees: known answers, every small size against the RFC's own recursion, every forgery."""

import hashlib
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_factory import Federation

from ledger.errors import VerificationError
from ledger.merkle import (
    EMPTY_ROOT,
    PROOF_HASHES_MAX,
    Tree,
    consistency_proof,
    inclusion_proof,
    node_hash,
    packed,
    range_root,
    verify_consistency,
    verify_inclusion,
)
from ledger.record import record_id

SIZE_MAX = 64

# --- known answers: the tree that Certificate Transparency's implementations are tested with ------

ENTRIES = [
    bytes.fromhex(one)
    for one in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSIONS = {  # (index, size) → path
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
CONSISTENCIES = {  # (old size, size) → proof
    (1, 1): [],
    (1, 8): INCLUSIONS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def test_the_known_roots() -> None:
    tree = Tree()
    roots = [tree.root().hex()]
    for entry in ENTRIES:
        tree.append(record_id(entry))
        roots.append(tree.root().hex())
    assert roots == ROOTS


def test_the_known_proofs() -> None:
    leaf_at = [record_id(entry) for entry in ENTRIES].__getitem__
    for (index, size), path in INCLUSIONS.items():
        assert [one.hex() for one in inclusion_proof(leaf_at, index, size)] == path
    for (old_size, size), path in CONSISTENCIES.items():
        assert [one.hex() for one in consistency_proof(leaf_at, old_size, size)] == path


def test_a_records_id_is_its_leaf_hash() -> None:
    federation = Federation(1)
    opened = federation.open(0)
    assert opened.id == hashlib.sha256(b"\x00" + opened.signed.record_bytes).digest()
    assert Tree(1, [opened.id]).root() == opened.id


# --- every small size, against the definitions of RFC 6962 §2.1, written down as they stand there -

LEAVES = [hashlib.sha256(b"leaf %d" % index).digest() for index in range(SIZE_MAX)]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def largest_power_below(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


@cache
def naive_root(start: int, end: int) -> bytes:
    """MTH(D[start:end]); the leaves are hashed already."""
    if end == start:
        return sha256(b"")
    if end - start == 1:
        return LEAVES[start]
    k = largest_power_below(end - start)
    return sha256(b"\x01" + naive_root(start, start + k) + naive_root(start + k, end))


def naive_path(index: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[n])."""
    if end - start == 1:
        return []
    k = largest_power_below(end - start)
    if index < k:
        return [*naive_path(index, start, start + k), naive_root(start + k, end)]
    return [*naive_path(index - k, start + k, end), naive_root(start, start + k)]


def naive_subproof(old: int, start: int, end: int, *, known: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b)."""
    if old == end - start:
        return [] if known else [naive_root(start, end)]
    k = largest_power_below(end - start)
    if old <= k:
        return [
            *naive_subproof(old, start, start + k, known=known),
            naive_root(start + k, end),
        ]
    return [
        *naive_subproof(old - k, start + k, end, known=False),
        naive_root(start, start + k),
    ]


def leaf_at(index: int) -> bytes:
    return LEAVES[index]


def test_every_root_up_to_64_leaves_and_every_place_to_go_on_from() -> None:
    tree = Tree()
    for size in range(SIZE_MAX + 1):
        assert tree.root() == naive_root(0, size) == range_root(leaf_at, 0, size)
        again = Tree(tree.size, tree.peaks)
        again.extend(LEAVES[size : size + 3])
        assert again.root() == naive_root(0, min(size + 3, SIZE_MAX))
        if size < SIZE_MAX:
            tree.append(LEAVES[size])


def test_every_inclusion_proof_up_to_64_leaves() -> None:
    for size in range(1, SIZE_MAX + 1):
        root = naive_root(0, size)
        for index in range(size):
            proof = inclusion_proof(leaf_at, index, size)
            assert list(proof) == naive_path(index, 0, size)
            verify_inclusion(LEAVES[index], index, size=size, root=root, proof=proof)


def test_every_consistency_proof_up_to_64_leaves() -> None:
    for size in range(SIZE_MAX + 1):
        root = naive_root(0, size)
        for old_size in range(size + 1):
            proof = consistency_proof(leaf_at, old_size, size)
            if old_size:
                assert list(proof) == naive_subproof(old_size, 0, size, known=True)
            old_root = naive_root(0, old_size)
            verify_consistency(
                old_size=old_size, old_root=old_root, size=size, root=root, proof=proof
            )


# --- forgeries ------------------------------------------------------------------------------------


def flipped(hash_: bytes, bit: int = 0) -> bytes:
    return bytes([hash_[0] ^ (1 << bit), *hash_[1:]])


def spoilt(proof: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Every proof with one hash changed, removed, doubled, added, emptied, cut or swapped."""
    result = [(*proof, EMPTY_ROOT), (EMPTY_ROOT, *proof), (*proof, b"")]
    for at, one in enumerate(proof):
        before, after = proof[:at], proof[at + 1 :]
        result += [
            (*before, flipped(one), *after), (*before, *after), (*before, one, one, *after),
            (*before, one[:-1], *after), (*before, one + b"\0", *after),
        ]  # fmt: skip
    result += [
        (*proof[:at], two, one, *proof[at + 2 :]) for at, (one, two) in enumerate(pairwise(proof))
    ]
    return result


def refuses_inclusion(leaf: bytes, index: int, size: int, root: bytes, *proof: bytes) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_inclusion(leaf, index, size=size, root=root, proof=proof)
    assert caught.value.code == "E_CHECKPOINT"


def refuses_consistency(
    old_size: int, old_root: bytes, size: int, root: bytes, *proof: bytes
) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_consistency(old_size=old_size, old_root=old_root, size=size, root=root, proof=proof)
    assert caught.value.code == "E_CHECKPOINT"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16, 17, 33])
def test_every_tampered_inclusion_proof_is_refused(size: int) -> None:
    root = naive_root(0, size)
    for index in range(size):
        leaf, proof = LEAVES[index], inclusion_proof(leaf_at, index, size)
        for bad in spoilt(proof):
            refuses_inclusion(leaf, index, size, root, *bad)
        for other in range(-1, size + 2):
            if other != index:
                refuses_inclusion(leaf, other, size, root, *proof)
                refuses_inclusion(LEAVES[other], index, size, root, *proof)
        refuses_inclusion(leaf, index, size, flipped(root), *proof)
        refuses_inclusion(leaf[:-1], index, size, root, *proof)
        refuses_inclusion(leaf, index, size, root[:-1], *proof)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16, 17, 33])
def test_every_tampered_consistency_proof_is_refused(size: int) -> None:
    root = naive_root(0, size)
    for old_size in range(size + 1):
        old_root, proof = naive_root(0, old_size), consistency_proof(leaf_at, old_size, size)
        for bad in spoilt(proof):
            refuses_consistency(old_size, old_root, size, root, *bad)
        for other in range(-1, size + 2):
            if other != old_size:
                refuses_consistency(other, old_root, size, root, *proof)
        refuses_consistency(old_size, flipped(old_root), size, root, *proof)
        if old_size:  # of the empty tree there is nothing that could contradict a root
            refuses_consistency(old_size, old_root, size, flipped(root), *proof)


def test_a_rewritten_log_has_no_consistency_proof() -> None:
    other = [flipped(LEAVES[0]), *LEAVES[1:]]
    for size in range(2, 20):
        for old_size in range(1, size):
            proof = consistency_proof(other.__getitem__, old_size, size)
            old_root, root = naive_root(0, old_size), range_root(other.__getitem__, 0, size)
            refuses_consistency(old_size, old_root, size, root, *proof)


def test_an_inner_node_is_no_record() -> None:
    """Without the 0x00 and 0x01 in front, the left node of a pair could pass for a leaf."""
    inner = node_hash(LEAVES[0], LEAVES[1])
    refuses_inclusion(inner, 0, 4, naive_root(0, 4), naive_root(2, 4))


def test_an_empty_tree_has_one_root() -> None:
    verify_consistency(old_size=0, old_root=EMPTY_ROOT, size=0, root=EMPTY_ROOT, proof=())
    refuses_consistency(0, EMPTY_ROOT, 0, LEAVES[0])
    refuses_consistency(0, LEAVES[0], 0, LEAVES[0])


def test_sizes_and_proofs_out_of_range_are_refused_before_hashing() -> None:
    refuses_inclusion(LEAVES[0], 0, 2**53, LEAVES[0], *[LEAVES[1]] * 53)
    refuses_inclusion(LEAVES[0], 0, 2, LEAVES[0], *[LEAVES[1]] * (PROOF_HASHES_MAX + 1))
    refuses_inclusion(LEAVES[0], 0, 0, EMPTY_ROOT)
    refuses_consistency(2, LEAVES[0], 2**53, LEAVES[0])
    refuses_consistency(2, LEAVES[0], 2**53 - 1, LEAVES[0], *[LEAVES[0]] * 60)


def test_a_tree_of_2_to_the_40_needs_no_recursion() -> None:
    index, path = 0b1011 << 30, [sha256(b"%d" % level) for level in range(40)]
    root = LEAVES[0]
    for level, sibling in enumerate(path):
        root = node_hash(sibling, root) if index >> level & 1 else node_hash(root, sibling)
    verify_inclusion(LEAVES[0], index, size=1 << 40, root=root, proof=path)
    refuses_inclusion(LEAVES[0], index ^ 1, 1 << 40, root, *path)


def test_misuse_is_told_to_the_programmer() -> None:
    for index, size in ((0, 0), (3, 3), (-1, 3)):
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof(leaf_at, index, size)
    for old_size, size in ((4, 3), (-1, 3)):
        with pytest.raises(ValueError, match="does not begin"):
            consistency_proof(leaf_at, old_size, size)
    with pytest.raises(ValueError, match="32 bytes"):
        Tree().append(b"short")
    for size, peaks in ((3, LEAVES[:1]), (-1, [])):
        with pytest.raises(ValueError, match="one peak for each"):
            Tree(size, peaks)


# --- any size ---------------------------------------------------------------------------------------


@given(st.integers(1, 2_000), st.data())
def test_proofs_of_any_size(size: int, data: st.DataObject) -> None:
    ids = b"".join(sha256(b"%d" % one) for one in range(size))
    leaves = packed(ids)
    root = range_root(leaves, 0, size)
    index = data.draw(st.integers(0, size - 1), label="index")
    old_size = data.draw(st.integers(0, size), label="old size")
    proof = inclusion_proof(leaves, index, size)
    verify_inclusion(leaves(index), index, size=size, root=root, proof=proof)
    assert len(proof) <= (size - 1).bit_length()
    bad = data.draw(st.sampled_from(spoilt(proof)), label="bad inclusion proof")
    refuses_inclusion(leaves(index), index, size, root, *bad)
    proof = consistency_proof(leaves, old_size, size)
    old_root = range_root(leaves, 0, old_size)
    verify_consistency(old_size=old_size, old_root=old_root, size=size, root=root, proof=proof)
    assert len(proof) <= (size - 1).bit_length() + 1
    bad = data.draw(st.sampled_from(spoilt(proof)), label="bad consistency proof")
    refuses_consistency(old_size, old_root, size, root, *bad)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=4), st.integers(0, 20), st.data())
def test_no_made_up_proof_passes_or_crashes(
    proof: list[bytes], size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size + 1))
    if size > 1 or proof:  # with one leaf the root is the leaf
        refuses_inclusion(LEAVES[0], index, size, sha256(b"root"), *proof)
    old_size = data.draw(st.integers(1, 20))
    refuses_consistency(old_size, sha256(b"old"), size, sha256(b"root"), *proof)
