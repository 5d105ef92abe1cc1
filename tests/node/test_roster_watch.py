"""A node takes updates from its inbox and its peers; after one, its journal writes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from network_swarm import Log

from ledger.chain import compose
from ledger.errors import VerificationError
from ledger.fork import Cut
from ledger.keys import Signer, derive
from ledger.record import Kind, sign_record
from ledger.roster_store import load_roster
from ledger.roster_update import Operation, Remove, SignedUpdate, Update, sign_update
from ledger.store import Store
from node.compute import ThreadCompute
from node.journal import Journal, RosterChangedError
from node.network_memory import MemoryHub
from node.roster_watch import CONFLICTS_MAX, RosterWatch
from node.world import World
from scenarios.simulator import identity_of
from swarm.protocol.rosters import decode_roster_reply, encode_roster_request
from tests.simulated import swarm_of

CHARTER, SITES = swarm_of(4)


class Node:
    """One node's journal and watch, without rounds."""

    def __init__(self, directory: Path, store: Store, own: int = 0) -> None:
        self.roster = load_roster(store, CHARTER)
        self.journal = Journal(
            store=store,
            roster=self.roster,
            own=own,
            signer=identity_of(1, own).ledger(self.roster.epoch(own)),
            disk=ThreadCompute(),
            time_ms=lambda: 1_000,
        )
        self.log = Log()
        self.changes: list[Exception] = []
        world = World(
            network=MemoryHub(seed=1).network(own),
            compute=ThreadCompute(),
            disk=ThreadCompute(),
            time_ms=lambda: 1_000,
            random=Random(1),
            log=self.log,
        )
        self.inbox = directory / "inbox"
        self.watch = RosterWatch(
            world=world, journal=self.journal, inbox=self.inbox, changed=self.changes.append
        )


@contextmanager
def node(directory: Path, own: int = 0) -> Iterator[Node]:
    with Store.open(directory / "a.db") as store:
        yield Node(directory, store, own)


def update(
    one: Node,
    operation: Operation,
    *cuts: Cut,
    signers: tuple[int, ...] = (0, 1, 2),
    **changes: Any,
) -> SignedUpdate:
    fields = {
        "net": one.roster.net,
        "version": one.roster.version + 1,
        "previous": one.roster.digest,
        "operation": operation,
        "cuts": cuts,
    } | changes
    data = Update(**fields).to_bytes()  # type: ignore[arg-type]
    admins = [Signer(derive(site.identity.seed, "admin")) for site in SITES]
    return SignedUpdate(data, tuple((i, sign_update(data, admins[i])) for i in signers))


def opening(one: Node, author: int) -> Any:
    from ledger.record import NO_ID, Open

    signer = identity_of(1, author).ledger()
    body = Open(
        public_key=signer.public_key,
        previous_head=NO_ID,
        software_digest=NO_ID,
        charter_digest=CHARTER.net,
    )
    record = compose(
        None, roster=one.roster, author=author, epoch=0, kind=Kind.OPEN, round=0, time_ms=1,
        acks=(), body=body,
    )  # fmt: skip
    return sign_record(record, signer)


def proofs(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(directory.glob("roster-fork-*"))]


def nothing_of(author: int) -> Cut:
    return Cut(author=author, epoch=0, kept=0, head_id=bytes(32))


async def test_the_inbox_is_taken_once_and_then_nothing_is_signed(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        one.inbox.mkdir()
        signed = update(one, Remove(author=3), nothing_of(3))
        (one.inbox / "a.update").write_bytes(signed.envelope())
        await one.watch._read_inbox()
        assert [type(change) for change in one.changes] == [RosterChangedError]
        assert not list(one.inbox.iterdir())
        assert one.journal.updates == (signed,)
        with pytest.raises(RosterChangedError):
            await one.journal.append(Kind.OPEN, 0, opening(one, 0).value.body)
        result = await one.journal.ingest([opening(one, 1).signed.envelope()])
        assert not result.stored
    with node(tmp_path) as again:
        assert again.roster.version == 1
        assert again.roster.q == 2


async def test_junk_in_the_inbox_is_reported_and_removed(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        one.inbox.mkdir()
        signed = update(one, Remove(author=3), nothing_of(3))
        weak = SignedUpdate(signed.update_bytes, signed.signatures[:2])
        for name, data in {"a": b"junk", "b": bytes(100_000), "c": weak.envelope()}.items():
            (one.inbox / f"{name}.update").write_bytes(data)
        await one.watch._read_inbox()
        assert not one.changes
        assert not list(one.inbox.iterdir())
        await one.journal.append(Kind.OPEN, 0, opening(one, 0).value.body)


async def test_records_behind_a_cut_and_of_a_removed_member_are_refused(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        record = opening(one, 3)
        assert (await one.journal.ingest([record.signed.envelope()])).stored
        await one.watch._take(update(one, Remove(author=3), nothing_of(3)), source="test")
    with node(tmp_path) as again:
        assert (3, 0) not in again.journal.heads()
        result = await again.journal.ingest([record.signed.envelope()])
        assert [refusal.code for refusal in result.refused] == ["E_AFTER_CUT"]
        late = sign_record(
            compose(
                None, roster=again.roster, author=3, epoch=0, kind=Kind.OPEN, round=0, time_ms=1,
                acks=(), body=record.value.body,
            ),
            identity_of(1, 3).ledger(),
        )  # fmt: skip
        result = await again.journal.ingest([late.signed.envelope()])
        assert [refusal.code for refusal in result.refused] == ["E_EPOCH"]


async def test_a_second_update_of_one_roster_is_refused_and_reported(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        first = update(one, Remove(author=3), nothing_of(3))
        other = update(one, Remove(author=2), nothing_of(2))
        await one.watch._take(first, source="test")
        with pytest.raises(VerificationError) as refused:
            await one.watch._take(other, source="test")
        assert refused.value.code == "E_ROSTER_FORK"
        assert one.journal.updates == (first,)
        (event,) = one.log.named("roster_fork")
        assert event["digest"] == other.digest.hex()
        assert event["proof"] == str(tmp_path / f"roster-fork-{other.digest.hex()}.update")
        assert proofs(tmp_path) == [other.envelope()]
    with node(tmp_path) as again:
        for signers in ((0, 1, 2), (1, 2, 3)):  # 3 was a member then
            later = update(
                again, Remove(author=2), nothing_of(2), previous=CHARTER.net, version=9,
                signers=signers,
            )  # fmt: skip
            with pytest.raises(VerificationError) as refused:
                await again.watch._take(later, source="test")
            assert refused.value.code == "E_ROSTER_FORK"
        assert again.roster.version == 1
        assert len(again.log.named("roster_fork")) == 1, "once for each update"


async def test_an_update_that_no_quorum_signed_is_refused_as_such(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        first = update(one, Remove(author=3), nothing_of(3))
        other = update(one, Remove(author=2), nothing_of(2))
        await one.watch._take(first, source="test")
        for forged, code in (
            (SignedUpdate(other.update_bytes, ()), "E_ROSTER_QUORUM"),
            (SignedUpdate(other.update_bytes, other.signatures[:2]), "E_ROSTER_QUORUM"),
            (SignedUpdate(other.update_bytes, first.signatures), "E_SIGNATURE"),
            (update(one, Remove(author=2), nothing_of(2), version=0), "E_ROSTER_PREV"),
            (update(one, Remove(author=2), nothing_of(2), net=bytes(32)), "E_NETWORK"),
        ):
            with pytest.raises(VerificationError) as refused:
                await one.watch._take(forged, source="test")
            assert refused.value.code == code
        assert not one.log.named("roster_fork")
        assert not proofs(tmp_path)


async def test_a_quorum_that_signs_without_end_fills_neither_log_nor_disk(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        await one.watch._take(update(one, Remove(author=3), nothing_of(3)), source="test")
        for version in range(2, CONFLICTS_MAX + 4):
            other = update(one, Remove(author=2), nothing_of(2), version=version)
            with pytest.raises(VerificationError, match="E_ROSTER_FORK"):
                await one.watch._take(other, source="test")
        assert len(one.log.named("roster_fork")) == CONFLICTS_MAX
        assert len(proofs(tmp_path)) == CONFLICTS_MAX


async def test_a_peer_gets_what_comes_after_its_roster(tmp_path: Path) -> None:
    with node(tmp_path) as one:
        signed = update(one, Remove(author=3), nothing_of(3))
        await one.watch._take(signed, source="test")
    with node(tmp_path) as again:
        for digest, expected in (
            (CHARTER.net, (signed.envelope(),)),
            (signed.digest, ()),
            (b"?" * 32, (signed.envelope(),)),
        ):
            reply = await again.watch.on_request(1, encode_roster_request(digest))
            assert decode_roster_reply(reply) == expected
