"""Roster updates: one change to one hospital, signed by a quorum of offline admin keys.

Room: ledger. Law: pure; a roster and bytes go in, the next roster or an error comes out.
Spec: docs/ledger.md §12; why: docs/adr/0010.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final, TypeAlias

from . import keys
from .canonical import Value, decode, encode
from .charter import MEMBERS_MAX, Member
from .errors import VerificationError
from .fork import Cut
from .roster import Roster, Term
from .schema import BIN32, U16, U32, U53, AnyBin, Bin, ListOf, Shape
from .toml_strict import NAME_CHARS_MAX

VERSION: Final = 1
UPDATE_BYTES_MAX: Final = 16_384
SIGNED_UPDATE_BYTES_MAX: Final = 40_960  # an update and the signatures of MEMBERS_MAX admins
SIGN_DOMAIN: Final = b"swarm-ledger/roster/v1\n"
HASH_DOMAIN: Final = b"swarm-ledger/roster-hash/v1\n"
ROLE_CHARS_MAX: Final = 32
ADDRESSES_MAX: Final = 16
ADDRESS_CHARS_MAX: Final = 512


class OperationId(IntEnum):
    """The three changes there are."""

    ADD = 1
    REMOVE = 2
    ROTATE = 3


_ADDRESSES: Final = ListOf(Bin(*range(1, 4 * ADDRESS_CHARS_MAX + 1)), most=ADDRESSES_MAX)
_SHAPES: Final = {
    OperationId.ADD: Shape(
        operation=U16, name=AnyBin(), role=AnyBin(), ledger_key=BIN32, witness_key=BIN32,
        admin_key=BIN32, network_key=BIN32, addresses=_ADDRESSES,
    ),
    OperationId.REMOVE: Shape(operation=U16, author=U16),
    OperationId.ROTATE: Shape(
        operation=U16, author=U16, epoch=U32, ledger_key=BIN32, witness_key=BIN32,
        network_key=BIN32, addresses=_ADDRESSES,
    ),
}  # fmt: skip
_CUTS: Final = ListOf(
    Shape(author=U16, epoch=U32, kept=U53, head_id=BIN32), sorted_by=2, most=MEMBERS_MAX
)
_UPDATE: Final = Shape(
    version=U53, net=BIN32, roster_version=U32, previous=BIN32,
    operation=ListOf(U53),  # only says "an array"; the operation's own shape says what it holds
    cuts=_CUTS,
)  # fmt: skip
_SIGNED: Final = Shape(
    update=AnyBin(),
    signatures=ListOf(Shape(author=U16, signature=Bin(64)), sorted_by=1, most=MEMBERS_MAX),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """A hospital joins; its author number is the next one, in epoch 0."""

    name: str
    role: str
    ledger_key: bytes
    witness_key: bytes
    admin_key: bytes
    network_key: bytes
    addresses: tuple[str, ...]

    def to_value(self) -> list[Value]:
        """Return the fields in their order."""
        return [
            int(OperationId.ADD), self.name.encode(), self.role.encode(), self.ledger_key,
            self.witness_key, self.admin_key, self.network_key,
            [one.encode() for one in self.addresses],
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Remove:
    """A hospital leaves for good; the cut says what stays of its log."""

    author: int

    def to_value(self) -> list[Value]:
        """Return the fields in their order."""
        return [int(OperationId.REMOVE), self.author]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotate:
    """A hospital starts anew in its next epoch; the cut says what stays of the one before.

    The ledger key is always a new one; witness key, network key and addresses may stay. The admin
    key stays: who loses it is removed, and added again with another.
    """

    author: int
    epoch: int
    ledger_key: bytes
    witness_key: bytes
    network_key: bytes
    addresses: tuple[str, ...]

    def to_value(self) -> list[Value]:
        """Return the fields in their order."""
        return [
            int(OperationId.ROTATE), self.author, self.epoch, self.ledger_key, self.witness_key,
            self.network_key, [one.encode() for one in self.addresses],
        ]  # fmt: skip


Operation: TypeAlias = Add | Remove | Rotate


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """One change: it makes roster ``version`` out of the one that ``previous`` names."""

    net: bytes
    version: int
    previous: bytes
    operation: Operation
    cuts: tuple[Cut, ...]

    def to_bytes(self) -> bytes:
        """Return the one spelling; it is what admins sign."""
        cuts: list[Value] = [[c.author, c.epoch, c.kept, c.head_id] for c in self.cuts]
        return encode(
            [VERSION, self.net, self.version, self.previous, self.operation.to_value(), cuts]
        )


@dataclass(frozen=True, slots=True)
class SignedUpdate:
    """Bytes of an update and signatures by author. Nothing about them has been believed yet."""

    update_bytes: bytes
    signatures: tuple[tuple[int, bytes], ...]

    @property
    def digest(self) -> bytes:
        """The hash of the roster that the update makes. The signatures are not in it."""
        return update_digest(self.update_bytes)

    def envelope(self) -> bytes:
        """Return ``[update: bin, [[author, signature], …]]`` as on disk and on the wire."""
        signatures: list[Value] = [[author, signature] for author, signature in self.signatures]
        return encode([self.update_bytes, signatures])

    def with_signature(self, author: int, signature: bytes) -> SignedUpdate:
        """Return the same with one more signature, or the same if the author's is there."""
        by_author = {author: signature} | dict(self.signatures)
        return SignedUpdate(self.update_bytes, tuple(sorted(by_author.items())))


def update_digest(update_bytes: bytes) -> bytes:
    """Return SHA-256(domain ‖ update): the digest of the roster that it makes."""
    return hashlib.sha256(HASH_DOMAIN + update_bytes).digest()


def sign_update(update_bytes: bytes, admin: keys.Signer) -> bytes:
    """Return an admin key's signature. Whoever calls has noted it durably (one for each version)."""
    return admin.sign(SIGN_DOMAIN + update_bytes)


def parse_update(data: bytes) -> SignedUpdate:
    """Split an envelope without believing it.

    Raises E_SIZE, E_ENCODING, E_NONCANONICAL, E_SCHEMA, E_ORDER.
    """
    value: Any = decode(data, bytes_max=SIGNED_UPDATE_BYTES_MAX)
    _SIGNED.check(value, "signed update")
    return SignedUpdate(value[0], tuple((author, signature) for author, signature in value[1]))


def decode_update(update_bytes: bytes) -> Update:
    """Read an update strictly: one byte string for one update.

    Raises E_SIZE, E_ENCODING, E_NONCANONICAL, E_VERSION, E_SCHEMA, E_ORDER.
    """
    value: Any = decode(update_bytes, bytes_max=UPDATE_BYTES_MAX)
    if type(value) is not list or not value or type(value[0]) is not int:
        raise VerificationError("E_SCHEMA", "an update is an array that starts with its version")
    if value[0] != VERSION:
        raise VerificationError("E_VERSION", f"version {value[0]}", expected=str(VERSION))
    if len(value) != len(_UPDATE.fields) or type(value[4]) is not list or not value[4]:
        raise VerificationError("E_SCHEMA", "an update has 6 fields, the fifth an operation")
    _UPDATE.check([*value[:4], [], value[5]], "update")
    _, net, version, previous, operation, cuts = value
    return Update(
        net=net,
        version=version,
        previous=previous,
        operation=_operation(operation),
        cuts=tuple(map(_cut, cuts)),
    )


def _operation(value: list[Any]) -> Operation:
    try:
        number = OperationId(value[0]) if type(value[0]) is int else None
    except ValueError:
        number = None
    if number is None:
        raise VerificationError("E_SCHEMA", "unknown operation", expected="1, 2 or 3")
    _SHAPES[number].check(value, number.name)
    if number is OperationId.REMOVE:
        return Remove(author=value[1])
    if number is OperationId.ROTATE:
        _, author, epoch, ledger_key, witness_key, network_key, addresses = value
        return Rotate(
            author=author, epoch=epoch, ledger_key=ledger_key, witness_key=witness_key,
            network_key=network_key, addresses=_read_addresses(addresses),
        )  # fmt: skip
    _, name, role, ledger_key, witness_key, admin_key, network_key, addresses = value
    return Add(
        name=_text(name, "name", NAME_CHARS_MAX), role=_text(role, "role", ROLE_CHARS_MAX),
        ledger_key=ledger_key, witness_key=witness_key, admin_key=admin_key,
        network_key=network_key, addresses=_read_addresses(addresses),
    )  # fmt: skip


def _cut(row: list[Any]) -> Cut:
    author, epoch, kept, head_id = row
    try:
        return Cut(author=author, epoch=epoch, kept=kept, head_id=head_id)
    except ValueError as error:
        raise VerificationError("E_SCHEMA", str(error)) from None


def _text(data: bytes, field: str, chars_max: int) -> str:
    """Read a name as the charter would: printable, no space around, not too long."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or text != text.strip() or not 1 <= len(text) <= chars_max:
        raise VerificationError(
            "E_SCHEMA", f"{field} is no name", expected=f"1 to {chars_max} printable characters"
        )
    return text


def _read_addresses(values: Iterable[bytes]) -> tuple[str, ...]:
    addresses = tuple(_text(one, "address", ADDRESS_CHARS_MAX) for one in values)
    if len(set(addresses)) != len(addresses) or not all(a.startswith("/") for a in addresses):
        raise VerificationError(
            "E_SCHEMA", "addresses are wrong", expected='different ones that begin with "/"'
        )
    return addresses


def advance(roster: Roster, signed: SignedUpdate) -> Roster:
    """Check a signed update against the roster before it and return the one that it makes.

    Raises VerificationError: the codes of :func:`decode_update`, :func:`check_signatures` and
    :func:`apply`.
    """
    update = decode_update(signed.update_bytes)
    check_previous(roster, update)
    check_signatures(roster, signed)
    return apply(roster, update)


def check_previous(roster: Roster, update: Update) -> None:
    """Step 3: the update continues this roster. E_NETWORK, E_ROSTER_PREV."""
    if update.net != roster.net:
        raise VerificationError(
            "E_NETWORK", f"update of network {update.net.hex()[:16]}",
            expected=roster.net.hex()[:16],
        )  # fmt: skip
    if update.previous != roster.digest:
        raise VerificationError(
            "E_ROSTER_PREV",
            f"roster {update.version} continues {update.previous.hex()[:16]}",
            expected=f"{roster.digest.hex()[:16]}, roster {roster.version}",
        )
    if update.version <= roster.version:
        raise VerificationError(
            "E_ROSTER_PREV",
            f"roster {update.version} after {roster.version}",
            expected="a higher number",
        )


def check_signatures(roster: Roster, signed: SignedUpdate) -> None:
    """Step 3: a quorum of the members before, each with its admin key.

    Every signature must be right, also beyond the quorum. E_UNKNOWN_AUTHOR, E_SIGNATURE,
    E_ROSTER_QUORUM.
    """
    for author, signature in signed.signatures:
        if not roster.is_active(author):
            raise VerificationError(
                "E_UNKNOWN_AUTHOR", f"author {author} signed and is no member of the roster before"
            )
        try:
            keys.verify(
                roster.member(author).admin_key, SIGN_DOMAIN + signed.update_bytes, signature
            )
        except VerificationError as error:
            raise error.locate(author=author) from None
    if len(signed.signatures) < roster.q:
        raise VerificationError(
            "E_ROSTER_QUORUM",
            f"{len(signed.signatures)} of {roster.n} members signed",
            expected=f"at least {roster.q}",
        )


def apply(roster: Roster, update: Update) -> Roster:
    """Return the roster after an update, not asking who signed it.

    Raises E_NETWORK, E_ROSTER_PREV, E_ROSTER_DUP, E_WEAK_KEY, E_KEY_REUSE, E_UNKNOWN_AUTHOR,
    E_EPOCH, E_ROSTER_CUT, E_SCHEMA (too many members, or none).
    """
    check_previous(roster, update)
    operation = update.operation
    members, terms = list(roster.members), list(roster.terms)
    if isinstance(operation, Add):
        _check_cuts(update, None)
        _check_add(roster, operation)
        new = Member(
            index=len(members), name=operation.name, role=operation.role,
            ledger_key=operation.ledger_key, witness_key=operation.witness_key,
            admin_key=operation.admin_key, network_key=operation.network_key,
            addresses=operation.addresses,
        )  # fmt: skip
        fresh = new.public_keys
        members.append(new)
        terms.append((Term(ledger_key=new.ledger_key, since=update.version),))
    else:
        author = operation.author
        if not roster.is_active(author):
            raise VerificationError("E_UNKNOWN_AUTHOR", f"author {author} is no member")
        cut = _check_cuts(update, (author, roster.epoch(author)))
        ended = replace(terms[author][-1], until=update.version, cut=cut)
        terms[author] = (*terms[author][:-1], ended)
        fresh = ()
        if isinstance(operation, Rotate):
            members[author], fresh = _rotated(roster, operation)
            begun = Term(ledger_key=operation.ledger_key, since=update.version)
            terms[author] = (*terms[author], begun)
        elif roster.n == 1:
            raise VerificationError("E_SCHEMA", "the last member cannot be removed")
    _check_keys(roster, fresh)
    return replace(
        roster,
        version=update.version,
        digest=update_digest(update.to_bytes()),
        members=tuple(members),
        terms=tuple(terms),
        versions=(*roster.versions, update.version),
        spent=roster.spent.union(fresh),
    )


def _check_cuts(update: Update, log: tuple[int, int] | None) -> Cut | None:
    """An update cuts the log that it ends, and no other. E_ROSTER_CUT."""
    if [(cut.author, cut.epoch) for cut in update.cuts] != ([log] if log else []):
        raise VerificationError(
            "E_ROSTER_CUT",
            "cuts of other logs than the one that ends",
            expected=f"one of {log[0]}/{log[1]}" if log else "none",
        )
    return update.cuts[0] if log else None


def _check_add(roster: Roster, add: Add) -> None:
    if len(roster.members) >= MEMBERS_MAX:
        raise VerificationError("E_SCHEMA", f"a network has at most {MEMBERS_MAX} members ever")
    for member in roster.active:
        if folded(member.name) == folded(add.name):
            raise VerificationError(
                "E_ROSTER_DUP", f'"{add.name}" is member {member.index}\'s name too'
            )


def folded(name: str) -> str:
    """Return a name for comparing: two spellings that a reader takes for one name are one name."""
    return " ".join(name.casefold().split())


def _rotated(roster: Roster, rotate: Rotate) -> tuple[Member, tuple[bytes, ...]]:
    """Return the member after, and the keys that are new. E_EPOCH."""
    before = roster.member(rotate.author)
    if rotate.epoch != roster.epoch(rotate.author) + 1:
        raise VerificationError(
            "E_EPOCH",
            f"author {rotate.author} would go to epoch {rotate.epoch}",
            expected=f"epoch {roster.epoch(rotate.author) + 1}",
        )
    after = replace(
        before, ledger_key=rotate.ledger_key, witness_key=rotate.witness_key,
        network_key=rotate.network_key, addresses=rotate.addresses,
    )  # fmt: skip
    kept = {key for key in (before.witness_key,) if key == after.witness_key}
    kept |= {key for key in (before.network_key,) if key == after.network_key}
    fresh = [after.ledger_key]
    fresh += [key for key in (after.witness_key, after.network_key) if key not in kept]
    return after, tuple(fresh)


def _check_keys(roster: Roster, fresh: tuple[bytes, ...]) -> None:
    """New keys are good ones and were never anybody's, for any use. E_WEAK_KEY, E_KEY_REUSE."""
    seen = set(roster.spent)
    for key in fresh:
        keys.check_public_key(key)
        if key in seen:
            raise VerificationError(
                "E_KEY_REUSE", f"key {key.hex()[:16]} has been on the roster", expected="a new key"
            )
        seen.add(key)
