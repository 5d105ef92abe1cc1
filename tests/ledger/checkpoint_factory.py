"""Checkpoints of the test federation: trees, witnesses, cosigned notes. All from fixed seeds."""

import base64
from collections.abc import Callable, Iterable

from ledger_factory import Federation, seed_of

from ledger.checkpoint import Checkpoint, WitnessState, attach, cosign, make_checkpoint, sign
from ledger.keys import Signer, derive
from ledger.merkle import Tree, consistency_proof
from ledger.record import Record, Verified

TIME_S = 1_700_000_000


def witness(index: int) -> Signer:
    return Signer(derive(seed_of(f"node {index}"), "witness"))


def ids_of(log: Iterable[Verified[Record]]) -> list[bytes]:
    return [record.id for record in log]


def tree_of(leaves: Iterable[bytes]) -> Tree:
    tree = Tree()
    tree.extend(leaves)
    return tree


def head(federation: Federation, author: int, size: int | None = None) -> Checkpoint:
    leaves = ids_of(federation.logs[author])[:size]
    return make_checkpoint(
        roster=federation.roster, author=author, epoch=0, tree=tree_of(leaves)
    )  # fmt: skip


def signed(federation: Federation, author: int, size: int | None = None) -> bytes:
    return sign(head(federation, author, size), federation.signers[author])


def cosignature(
    federation: Federation,
    data: bytes,
    member: int,
    *,
    state: WitnessState | None = None,
    proof: tuple[bytes, ...] = (),
    time_s: int = TIME_S,
) -> bytes:
    return cosign(
        state or WitnessState(), data, proof=proof, roster=federation.roster, member=member,
        signer=witness(member), time_s=time_s,
    )[1]  # fmt: skip


def cosigned(
    federation: Federation, author: int, members: Iterable[int], size: int | None = None
) -> bytes:
    data = signed(federation, author, size)
    lines = [cosignature(federation, data, member) for member in members]
    return attach(data, lines, roster=federation.roster)


def consistency(federation: Federation, author: int, old_size: int, size: int) -> tuple[bytes, ...]:
    return consistency_proof(ids_of(federation.logs[author]).__getitem__, old_size, size)


def with_blob(line: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return a signature line whose key id and signature went through ``change``."""
    dash, name, blob = line.split(b" ")
    return b" ".join([dash, name, base64.b64encode(change(base64.b64decode(blob))) + b"\n"])
