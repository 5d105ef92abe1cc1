"""Roster updates as files between hospitals: propose, sign offline, submit.

Room: node. Law: whatever is written here has passed the auditor's own rules (ledger.roster_update);
one hospital's change touches nobody else's files. Spec: docs/ledger.md §12.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.bundle import ROSTERS_NAME, read_bundle
from ledger.chain import check_next
from ledger.charter import CHARTER_BYTES_MAX, Charter, load_charter, load_members
from ledger.errors import ConfigError, StoreError, VerificationError
from ledger.fork import Cut
from ledger.fork_store import kept_by_default
from ledger.frames import read_frames
from ledger.record import NO_ID, open_record, parse_envelope
from ledger.roster import Roster
from ledger.roster_store import load_roster, store_update, stored_updates
from ledger.roster_update import (
    SIGNED_UPDATE_BYTES_MAX,
    Add,
    Operation,
    Remove,
    Rotate,
    SignedUpdate,
    Update,
    advance,
    apply,
    decode_update,
    parse_update,
    sign_update,
)
from ledger.store import Store
from ledger.store_files import sync_directory
from node.admin_note import Vote, remember
from node.config import load_site_charter, read_file
from node.identity import admin_signer, load_identity, read_seed

if TYPE_CHECKING:
    from node.config import SiteConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What a site (or a bundle) knows of its federation."""

    charter: Charter
    roster: Roster
    updates: tuple[SignedUpdate, ...]
    heads: Mapping[tuple[int, int], int]
    """Log → records held."""
    ledger: Path | None
    """Where the records lie; None for a bundle, or before the first run."""
    ids: Mapping[tuple[int, int], tuple[bytes, ...]] = field(default_factory=dict)
    """Of a bundle: log → the ids of its records."""


def known_to_site(config: "SiteConfig") -> Known:
    """Read a site's charter and store; works while its node runs. Raises ConfigError, StoreError."""
    charter = load_site_charter(config)
    if not config.paths.ledger.exists():
        return Known(
            charter=charter, roster=Roster.from_charter(charter), updates=(), heads={}, ledger=None
        )
    with Store.open(config.paths.ledger, read_only=True) as store:
        return Known(
            charter=charter,
            roster=load_roster(store, charter),
            updates=tuple(stored_updates(store)),
            heads={log: head.next_seq for log, head in store.heads().items()},
            ledger=config.paths.ledger,
        )


def known_to_bundle(directory: Path) -> Known:
    """Read the charter and the roster of an exported bundle, for a machine that is offline."""
    try:
        bundle = read_bundle(directory)
        charter = load_charter(bundle.charter_bytes)
        roster, updates = Roster.from_charter(charter), []
        for _, (_, data) in sorted(bundle.rosters.items()):
            updates.append(parse_update(data))
            roster = advance(roster, updates[-1])
    except VerificationError as error:
        raise ConfigError(f"{directory}: {error}") from error
    return Known(charter=charter, roster=roster, updates=tuple(updates), heads={}, ledger=None)


def known_with_logs(directory: Path) -> Known:
    """Do the same, and read every log of the bundle: for a site that has lost its own ledger."""
    known = known_to_bundle(directory)
    try:
        logs = read_bundle(directory).logs
        ids = {log: tuple(_ids(path, known.roster)) for log, path in sorted(logs.items())}
    except VerificationError as error:
        raise ConfigError(f"{directory}: {error}") from error
    return replace(known, ids=ids, heads={log: len(of_log) for log, of_log in ids.items()})


def _ids(path: Path, roster: Roster) -> Iterator[bytes]:
    """Read one log through, as a node would take it. Raises VerificationError."""
    head = None
    for envelope in read_frames(path):
        record = open_record(parse_envelope(envelope), roster=roster)
        head = check_next(head, record)
        yield record.id


# Proposing


def read_member(path: Path) -> Add:
    """Read the member.toml that a new site's `init` wrote. Raises ConfigError."""
    data = read_file(path, bytes_max=CHARTER_BYTES_MAX, what="member block")
    members = load_members(data, file=path.name)
    if len(members) != 1:
        raise ConfigError(f"{path}: must hold one [[members]] block: send what init wrote")
    (member,) = members
    return Add(
        name=member.name, role=member.role, ledger_key=member.ledger_key,
        witness_key=member.witness_key, admin_key=member.admin_key,
        network_key=member.network_key, addresses=member.addresses,
    )  # fmt: skip


def named(roster: Roster, name: str) -> int:
    """Return the author number of the member of this name. Raises ConfigError."""
    for member in roster.active:
        if member.name == name:
            return member.index
    names = ", ".join(member.name for member in roster.active)
    raise ConfigError(f'no member is called "{name}"; members are {names}')


def propose_add(known: Known, member: Add, *, version: int | None = None) -> Update:
    """Propose that a hospital joins."""
    return _proposal(known, member, (), version)


def propose_remove(
    known: Known, name: str, *, kept: int | None = None, version: int | None = None
) -> Update:
    """Propose that a hospital leaves for good; its records up to what this site holds stay.

    Of a log that forks by default what is final stays, or what lies before the fork.
    """
    author = named(known.roster, name)
    return _proposal(known, Remove(author=author), (_cut(known, author, kept),), version)


def propose_rotate(
    known: Known, name: str, member: Add, *, kept: int | None = None, version: int | None = None
) -> Update:
    """Propose that a hospital starts anew, with the keys and addresses of ``member``.

    Its admin key is not changed: it signs for the same hospital as before.
    """
    author = named(known.roster, name)
    rotate = Rotate(
        author=author,
        epoch=known.roster.epoch(author) + 1,
        ledger_key=member.ledger_key,
        witness_key=member.witness_key,
        network_key=member.network_key,
        addresses=member.addresses,
    )
    return _proposal(known, rotate, (_cut(known, author, kept),), version)


def next_member(config: "SiteConfig", known: Known, name: str) -> Add:
    """Return this site as it would be in its next epoch: same seed, next ledger key."""
    author = named(known.roster, name)
    identity = load_identity(config.paths)
    member = known.roster.member(author)
    if identity.network_key != member.network_key:
        raise ConfigError(
            f'this site is not "{name}": give the block of its new keys with --member'
        )
    ledger = identity.ledger(known.roster.epoch(author) + 1)
    return Add(
        name=name, role=member.role, ledger_key=ledger.public_key, witness_key=member.witness_key,
        admin_key=member.admin_key, network_key=member.network_key, addresses=member.addresses,
    )  # fmt: skip


def _cut(known: Known, author: int, kept: int | None) -> Cut:
    epoch = known.roster.epoch(author)
    held = known.heads.get((author, epoch), 0)
    name = known.roster.member(author).name
    if kept is None and held == 0:
        raise ConfigError(
            f'this site holds no record of "{name}" in epoch {epoch}: propose it on a site that '
            "does, or say --kept 0 if nothing of it shall stay"
        )
    if kept is None:
        kept = held
        if known.ledger is not None:
            with Store.open(known.ledger, read_only=True) as store:
                kept = kept_by_default(store, known.roster, (author, epoch))
    if not 0 <= kept <= held:
        raise ConfigError(f'--kept {kept}: this site holds {held} records of "{name}"')
    if kept == 0:
        return Cut(author=author, epoch=epoch, kept=0, head_id=NO_ID)
    if known.ledger is None:
        head_id = known.ids[author, epoch][kept - 1]
        return Cut(author=author, epoch=epoch, kept=kept, head_id=head_id)
    with Store.open(known.ledger, read_only=True) as store:
        head = next(iter(store.records(author=author, epoch=epoch, from_seq=kept - 1, limit=1)))
    return Cut(author=author, epoch=epoch, kept=kept, head_id=head.id)


def _proposal(
    known: Known, operation: Operation, cuts: tuple[Cut, ...], version: int | None
) -> Update:
    roster = known.roster
    update = Update(
        net=roster.net,
        version=roster.version + 1 if version is None else version,
        previous=roster.digest,
        operation=operation,
        cuts=cuts,
    )
    try:
        apply(roster, decode_update(update.to_bytes()))
    except VerificationError as error:
        raise ConfigError(f"this change is not possible: {error}") from error
    return update


# Files


def read_update(path: Path) -> tuple[SignedUpdate, Update]:
    """Read an update file, signed by nobody, some or all. Raises ConfigError."""
    data = read_file(path, bytes_max=SIGNED_UPDATE_BYTES_MAX, what="roster update")
    try:
        signed = parse_update(data)
        return signed, decode_update(signed.update_bytes)
    except VerificationError as error:
        raise ConfigError(f"{path}: no roster update: {error}") from None


def write_update(path: Path, signed: SignedUpdate) -> None:
    """Write a whole file or nothing, durably. Raises ConfigError."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            file.write(signed.envelope())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_directory(path.absolute().parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def sign_file(path: Path, known: Known, admin_seed: Path) -> tuple[SignedUpdate, int]:
    """Add one admin signature to an update file; return it and who signed.

    Raises ConfigError: not a member's admin key, not a possible change, or this key has signed
    another update for this version (noted durably beside the seed).
    """
    signed, update = read_update(path)
    admin = admin_signer(read_seed(admin_seed))
    try:
        apply(known.roster, update)
    except VerificationError as error:
        raise ConfigError(f"{path}: this change is not possible: {error}") from None
    for member in known.roster.active:
        if member.admin_key == admin.public_key:
            break
    else:
        raise ConfigError(f"{admin_seed}: is no member's admin key: take the one that init wrote")
    remember(admin_seed, Vote(update.net, update.version, signed.digest))
    signature = sign_update(signed.update_bytes, admin)
    signed = signed.with_signature(member.index, signature)
    write_update(path, signed)
    return signed, member.index


def submit_file(path: Path, config: "SiteConfig") -> tuple[Roster, bool]:
    """Hand an update to this site's node; return the roster after it, and whether it is stored.

    ``path`` may be a bundle: a newcomer takes its updates one after the other.
    A node that runs has the store; it takes the update from the site's inbox within seconds.
    Raises ConfigError, one line, if the update would be refused.
    """
    if path.is_dir():
        for file in sorted((path / ROSTERS_NAME).glob("*.update")):
            submit_file(file, config)
        roster = known_to_site(config).roster
        return roster, True
    signed, _ = read_update(path)
    known = known_to_site(config)
    if signed.digest in {one.digest for one in known.updates}:
        return known.roster, True
    try:
        after = advance(known.roster, signed)
        try:
            with Store.open(config.paths.ledger) as store:
                return store_update(store, load_roster(store, known.charter), signed), True
        except StoreError as error:
            if "another process is writing" not in str(error):
                raise
    except VerificationError as error:
        raise ConfigError(f"{path}: refused: {error}") from None
    inbox = config.paths.inbox
    inbox.mkdir(mode=0o700, exist_ok=True)
    write_update(inbox / f"{signed.digest.hex()}.update", signed)
    return after, False
