"""Checkpoints: the signed head of one log's Merkle tree, cosigned by members.

Room: ledger. Spec: docs/checkpoints.md §3 to §6. The formats are C2SP tlog-checkpoint (v1.0.0)
and tlog-cosignature, Ed25519 type 0x04 with the message cosignature/v1. Only ``open_checkpoint``
makes a VerifiedCheckpoint. No clock, no disk: the time and the witness's state are arguments.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Self

from . import canonical, keys
from .errors import VerificationError
from .keys import Signer
from .merkle import EMPTY_ROOT, HASH_BYTES, LeafAt, Tree, range_root, verify_consistency
from .note import (
    COSIGNATURE_ED25519,
    ED25519,
    Note,
    SignatureLine,
    decode_base64,
    decode_decimal,
    decode_text,
    key_id,
    parse_line,
    parse_note,
    text_of,
    vkey,
)
from .roster import Roster
from .schema import U16_MAX, U32_MAX

# What a ledger key signs begins with this or with "swarm-ledger/record/": never the same bytes.
_NAMESPACE: Final = "swarm-ledger/v1/"
_ORIGIN: Final = re.compile(r"swarm-ledger/v1/([0-9a-f]{64})/log/([0-9]+)/([0-9]+)")
_TIME_MAX_S: Final = 2**63 - 1


def origin_of(net: bytes, author: int, epoch: int) -> str:
    """Return the name of one log: the checkpoint's first line, and its key's name."""
    return f"{_NAMESPACE}{net.hex()}/log/{author}/{epoch}"


def witness_name(net: bytes, member: int) -> str:
    """Return the name under which a member cosigns."""
    return f"{_NAMESPACE}{net.hex()}/witness/{member}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The head of one log: its first ``size`` records have this ``root``. Not believed yet."""

    net: bytes
    author: int
    epoch: int
    size: int
    root: bytes

    @property
    def origin(self) -> str:
        """The log's name."""
        return origin_of(self.net, self.author, self.epoch)

    def text(self) -> bytes:
        """Return the three lines that are signed."""
        root = base64.b64encode(self.root).decode("ascii")
        return f"{self.origin}\n{self.size}\n{root}\n".encode()


def make_checkpoint(*, roster: Roster, author: int, epoch: int, tree: Tree) -> Checkpoint:
    """Return the checkpoint of a log that stands at ``tree``."""
    roster.key(author, epoch)
    return Checkpoint(
        net=roster.net, author=author, epoch=epoch, size=tree.size, root=tree.root()
    )  # fmt: skip


def parse_text(text: bytes) -> Checkpoint:
    """Read the three lines. Raises E_CHECKPOINT; extension lines are refused in version 1."""
    lines = decode_text(text, "the checkpoint").split("\n")
    if len(lines) != 4 or lines[3]:
        raise VerificationError(
            "E_CHECKPOINT", "another number of lines", expected="origin, size and root"
        )
    match = _ORIGIN.fullmatch(lines[0])
    if match is None:
        raise VerificationError(
            "E_CHECKPOINT", f"origin {ascii(lines[0])[:120]}",
            expected=f"{_NAMESPACE}NET/log/AUTHOR/EPOCH",
        )  # fmt: skip
    size = decode_decimal(lines[1], "tree size", canonical.UINT_MAX)
    root = decode_base64(lines[2], "the root")
    if len(root) != HASH_BYTES:
        raise VerificationError("E_CHECKPOINT", f"a root of {len(root)} bytes", expected="32")
    if size == 0 and root != EMPTY_ROOT:
        raise VerificationError("E_CHECKPOINT", "an empty tree has another root")
    return Checkpoint(
        net=bytes.fromhex(match[1]),
        author=decode_decimal(match[2], "author", U16_MAX),
        epoch=decode_decimal(match[3], "epoch", U32_MAX),
        size=size,
        root=root,
    )


def sign(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Return the note that the author signs with the log's ledger key; it has no cosignature.

    The caller signs only what extends every checkpoint of that log it signed before.
    """
    origin, text = checkpoint.origin, checkpoint.text()
    id_ = key_id(origin, ED25519, signer.public_key)
    return Note(text, (SignatureLine(origin, id_, signer.sign(text)),)).encode()


_PROOF: Final = object()


@dataclass(frozen=True)
class VerifiedCheckpoint:
    """A checkpoint whose signatures have been checked. Only ``open_checkpoint`` makes one."""

    checkpoint: Checkpoint
    cosigned_s: Mapping[int, int]  # member → Unix time that it claims
    quorum: int
    data: bytes = field(repr=False)
    proof: InitVar[object] = None

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only open_checkpoint makes a VerifiedCheckpoint")

    @property
    def is_anchored(self) -> bool:
        """Whether a quorum cosigned it, so that its records are ANCHORED."""
        return len(self.cosigned_s) >= self.quorum

    @property
    def digest(self) -> bytes:
        """SHA-256 of the file: what an ANCHOR names and an RFC 3161 token covers."""
        return hashlib.sha256(self.data).digest()


def open_checkpoint(
    data: bytes, *, roster: Roster, cosigners_min: int | None = None, only_members: bool = False
) -> VerifiedCheckpoint:
    """Check a checkpoint file: form, origin, the author's signature, cosignatures, quorum.

    ``cosigners_min``: how many members must have cosigned; None is the roster's quorum, and 0
    takes a checkpoint that the author alone has signed, as a witness does before it cosigns.
    ``only_members``: refuse lines of others than the log and members, as in a bundle.
    The author's own cosignature counts like any member's; the log's signature counts for none.
    Raises VerificationError E_CHECKPOINT (1 to 4), E_COSIGN (5), E_QUORUM (6).
    """
    note = parse_note(data)  # 1 the note's form
    checkpoint = parse_text(note.text)  # 2 the three lines
    wanted = roster.q if cosigners_min is None else cosigners_min
    try:
        _check_net(checkpoint, roster)  # 3 a log of this network
        _check_log_signature(note, checkpoint, roster)  # 4
        cosigned_s = _check_cosignatures(note, roster)  # 5
        if only_members and len(note.lines) != 1 + len(cosigned_s):
            _refuse_strangers(note, checkpoint, roster)
        _check_quorum(len(cosigned_s), wanted, roster)  # 6
    except VerificationError as error:
        raise error.locate(author=checkpoint.author, epoch=checkpoint.epoch) from None
    return VerifiedCheckpoint(checkpoint, cosigned_s, roster.q, data, _PROOF)


def open_in_force(
    data: bytes, *, rosters: Sequence[Roster], only_members: bool = False, finished: bool = False
) -> VerifiedCheckpoint:
    """Open a checkpoint under the newest roster version under which it is whole.

    rosters: every version, the newest first. ``finished``: refuse what no version's quorum has
    cosigned; else that is opened under the newest version that does not refuse it.
    Raises VerificationError E_CHECKPOINT, E_COSIGN, E_QUORUM: the newest version's.
    """
    refusal: VerificationError | None = None
    for cosigners_min in (None,) if finished else (None, 0):
        refusal = None
        for roster in rosters:
            try:
                return open_checkpoint(
                    data, roster=roster, cosigners_min=cosigners_min, only_members=only_members
                )
            except VerificationError as error:
                refusal = refusal or error
    raise refusal or ValueError("there is always the charter's roster")


def _check_net(checkpoint: Checkpoint, roster: Roster) -> None:
    if checkpoint.net != roster.net:
        raise VerificationError(
            "E_CHECKPOINT", f"checkpoint of network {checkpoint.net.hex()[:16]}",
            expected=roster.net.hex()[:16],
        )  # fmt: skip


def _check_quorum(cosigners: int, wanted: int, roster: Roster) -> None:
    if cosigners < wanted:
        raise VerificationError(
            "E_QUORUM", f"{cosigners} of {roster.n} members have cosigned",
            expected=f"at least {wanted}",
        )  # fmt: skip


def _check_log_signature(note: Note, checkpoint: Checkpoint, roster: Roster) -> None:
    origin = checkpoint.origin
    try:
        key = roster.key(checkpoint.author, checkpoint.epoch)
    except VerificationError as error:
        raise VerificationError("E_CHECKPOINT", error.message, expected=error.expected) from None
    id_ = key_id(origin, ED25519, key)
    mine = [line for line in note.lines if (line.name, line.key_id) == (origin, id_)]
    if len(mine) != 1:
        raise VerificationError(
            "E_CHECKPOINT", f"{len(mine)} signatures of the log",
            expected=f"one by key {id_.hex()} of {origin}",
        )  # fmt: skip
    try:
        keys.verify(key, note.text, mine[0].signature)
    except VerificationError:
        raise VerificationError(
            "E_CHECKPOINT", "the log's signature does not verify", expected=f"key {key.hex()}"
        ) from None


def _cosigners(roster: Roster) -> Mapping[tuple[str, bytes], tuple[int, bytes]]:
    """Return who cosigns, and with which key, by name and key id; who was removed does not."""
    return _named(roster.net, tuple((one.index, one.witness_key) for one in roster.active))


@lru_cache(maxsize=8)  # one network has one roster at a time
def _named(
    net: bytes, witnesses: tuple[tuple[int, bytes], ...]
) -> Mapping[tuple[str, bytes], tuple[int, bytes]]:
    named = {}
    for member, key in witnesses:
        name = witness_name(net, member)
        named[name, key_id(name, COSIGNATURE_ED25519, key)] = member, key
    return MappingProxyType(named)


def _refuse_strangers(note: Note, checkpoint: Checkpoint, roster: Roster) -> None:
    """Raise E_COSIGN with the first line that is neither the log's nor a member's."""
    key = roster.key(checkpoint.author, checkpoint.epoch)
    own = (checkpoint.origin, key_id(checkpoint.origin, ED25519, key))
    members = _cosigners(roster)
    for line in note.lines:
        if (line.name, line.key_id) != own and (line.name, line.key_id) not in members:
            raise VerificationError(
                "E_COSIGN", f"line of {ascii(line.name)[:120]}, key {line.key_id.hex()}",
                expected="the log's or a member's",
            )  # fmt: skip


def _check_cosignatures(note: Note, roster: Roster) -> dict[int, int]:
    """Return who cosigned when. Lines of keys that are no member's are passed over, as C2SP says."""
    members = _cosigners(roster)
    cosigned_s: dict[int, int] = {}
    for line in note.lines:
        witness = members.get((line.name, line.key_id))
        if witness is None:
            continue
        member, key = witness
        if member in cosigned_s:
            raise VerificationError("E_COSIGN", f"member {member} has cosigned twice")
        time_s = int.from_bytes(line.signature[:8], "big")
        if len(line.signature) != 8 + keys.SIGNATURE_BYTES or time_s > _TIME_MAX_S:
            raise VerificationError(
                "E_COSIGN", f"cosignature of member {member} is malformed",
                expected="a time below 2^63 and a signature, 72 bytes",
            )  # fmt: skip
        try:
            keys.verify(key, _cosigned(note.text, time_s), line.signature[8:])
        except VerificationError:
            raise VerificationError(
                "E_COSIGN", f"cosignature of member {member} does not verify",
                expected=f"key {key.hex()}",
            ) from None  # fmt: skip
        cosigned_s[member] = time_s
    return cosigned_s


def _cosigned(text: bytes, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n".encode() + text


@dataclass(frozen=True, slots=True)
class WitnessState:
    """The largest tree of one log that this witness has cosigned. Stored before the line is sent."""

    size: int = 0
    root: bytes = EMPTY_ROOT

    def encode(self) -> bytes:
        """Return the bytes for the store."""
        return canonical.encode([self.size, self.root])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the state that :meth:`encode` wrote. Raises E_ENCODING … or E_SCHEMA."""
        match canonical.decode(data):
            case [int(size), bytes(root)] if len(root) == HASH_BYTES:
                return cls(size, root)
        raise VerificationError("E_SCHEMA", "not a witness's state")


def cosign(
    state: WitnessState,
    data: bytes,
    *,
    proof: Sequence[bytes],
    roster: Roster,
    member: int,
    signer: Signer,
    time_s: int,
) -> tuple[WitnessState, bytes]:
    """Return the new state and our cosignature line for the checkpoint in ``data``.

    state: what we cosigned last of this log (``WitnessState()`` if nothing); proof: consistency
    from there to here. Nothing but an extension is cosigned, so two views of one log never get our
    name. The caller MUST store the new state before it sends the line, in one step with reading
    the old one. Raises E_CHECKPOINT, E_COSIGN; ValueError if ``signer`` is not that member's.
    """
    if signer.public_key != roster.member(member).witness_key or not 0 <= time_s <= _TIME_MAX_S:
        raise ValueError("need the member's witness key and a time from 0 to 2^63 - 1")
    checkpoint = open_checkpoint(data, roster=roster, cosigners_min=0).checkpoint
    try:
        verify_consistency(
            old_size=state.size, old_root=state.root,
            size=checkpoint.size, root=checkpoint.root, proof=proof,
        )  # fmt: skip
    except VerificationError as error:
        raise error.locate(author=checkpoint.author, epoch=checkpoint.epoch) from None
    line = _cosignature(checkpoint, member, signer, time_s)
    return WitnessState(checkpoint.size, checkpoint.root), line


def cosign_held(
    before: Tree,
    leaves: Iterable[bytes],
    opened: VerifiedCheckpoint,
    *,
    roster: Roster,
    member: int,
    signer: Signer,
    time_s: int,
) -> tuple[Tree, bytes]:
    """Do the same as :func:`cosign` for a witness that holds the log itself, and needs no proof.

    opened: what the author has signed (``open_checkpoint`` with ``cosigners_min=0``); before: the tree that we cosigned last (``Tree()`` if none); leaves: the ids of the records
    after it, from our own copy of the log. Only the very tree that they lead to is cosigned.
    Returns that tree, whose size and root are the state to store before the line is sent.
    Raises E_CHECKPOINT; ValueError if ``signer`` is not that member's.
    """
    if signer.public_key != roster.member(member).witness_key or not 0 <= time_s <= _TIME_MAX_S:
        raise ValueError("need the member's witness key and a time from 0 to 2^63 - 1")
    checkpoint = opened.checkpoint
    tree = Tree(before.size, before.peaks)
    tree.extend(leaves)
    if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root):
        raise VerificationError(
            "E_CHECKPOINT", f"{checkpoint.size} records with root {checkpoint.root.hex()}",
            author=checkpoint.author, epoch=checkpoint.epoch,
            expected=f"our copy's {tree.size} with root {tree.root().hex()}",
        )  # fmt: skip
    return tree, _cosignature(checkpoint, member, signer, time_s)


def _cosignature(checkpoint: Checkpoint, member: int, signer: Signer, time_s: int) -> bytes:
    name = witness_name(checkpoint.net, member)
    blob = time_s.to_bytes(8, "big") + signer.sign(_cosigned(checkpoint.text(), time_s))
    id_ = key_id(name, COSIGNATURE_ED25519, signer.public_key)
    return SignatureLine(name, id_, blob).encode()


def attach(data: bytes, lines: Iterable[bytes], *, roster: Roster) -> bytes:
    """Return the checkpoint with members' cosignature lines under it; one already there is kept.

    So that one peer's bad line cannot spoil the file, each is checked: E_COSIGN if it is of no
    member or does not verify, E_CHECKPOINT if it is no line.
    """
    note = parse_note(data)
    known = {(line.name, line.key_id): line for line in note.lines}
    for raw in lines:
        line = parse_line(raw.removesuffix(b"\n"))
        _cosigner_of(note.text, line, roster)
        known.setdefault((line.name, line.key_id), line)
    return Note(note.text, tuple(known.values())).encode()


def check_line(data: bytes, line: bytes, *, roster: Roster) -> tuple[int, bytes]:
    """Return whose cosignature of the checkpoint in ``data`` a line is, and the line as a file has it.

    Raises E_COSIGN if it is of no member or does not verify, E_CHECKPOINT if it is no line.
    """
    parsed = parse_line(line.removesuffix(b"\n"))
    return _cosigner_of(text_of(data), parsed, roster), parsed.encode()


def _cosigner_of(text: bytes, line: SignatureLine, roster: Roster) -> int:
    """Return which member has cosigned a text with a line. Raises E_COSIGN."""
    for member in _check_cosignatures(Note(text, (line,)), roster):
        return member
    raise VerificationError(
        "E_COSIGN", f"cosignature by {ascii(line.name)[:120]}", expected="a member's"
    )


def check_log(opened: VerifiedCheckpoint, leaf_at: LeafAt, count: int) -> None:
    """Return if a log of ``count`` records begins with the checkpoint's tree.

    Raises E_ROLLBACK if the log is shorter, E_CHECKPOINT if it is another.
    """
    checkpoint = opened.checkpoint
    author, epoch = checkpoint.author, checkpoint.epoch
    if count < checkpoint.size:
        raise VerificationError(
            "E_ROLLBACK", f"the log has {count} records", author=author, epoch=epoch,
            expected=f"the checkpoint's {checkpoint.size}",
        )  # fmt: skip
    root = range_root(leaf_at, 0, checkpoint.size)
    if root != checkpoint.root:
        raise VerificationError(
            "E_CHECKPOINT", f"the first {checkpoint.size} records have root {root.hex()}",
            author=author, epoch=epoch, expected=checkpoint.root.hex(),
        )  # fmt: skip


def log_vkey(roster: Roster, author: int, epoch: int) -> str:
    """Return a log's verifier key, as Go's note package and policies take it."""
    return vkey(origin_of(roster.net, author, epoch), ED25519, roster.key(author, epoch))


def witness_vkey(roster: Roster, member: int) -> str:
    """Return a member's verifier key for cosignatures (type 0x04)."""
    key = roster.member(member).witness_key
    return vkey(witness_name(roster.net, member), COSIGNATURE_ED25519, key)


def policy(roster: Roster) -> str:
    """Return the roster as a C2SP tlog-policy: every log, members as witnesses, q of n.

    Follows C2SP/C2SP tlog-policy.md at 13027eee, the editor's copy (no tagged version yet).
    """
    members = [member.index for member in roster.active]
    logs = [
        f"log {log_vkey(roster, author, epoch)}"
        for author, terms in enumerate(roster.terms)
        for epoch in range(len(terms))
    ]
    witnesses = [f"witness member-{one} {witness_vkey(roster, one)}" for one in members]
    names = " ".join(f"member-{one}" for one in members)
    head = [
        f"# network {roster.net.hex()}, roster version {roster.version}",
        f"# {roster.n} members, {roster.f} liars tolerated, quorum {roster.q}",
    ]
    quorum = [f"group quorum-of-members {roster.q} {names}", "quorum quorum-of-members"]
    return "\n".join([*head, *logs, *witnesses, *quorum]) + "\n"
