"""What a witness promises while it runs: its own copy is all that it ever cosigns, and only forwards."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from ledger.checkpoint import WitnessState, attach, make_checkpoint, open_checkpoint, sign
from ledger.checkpoint_files import OWN_KEY, finished_key, read_unchecked, witness_key
from ledger.errors import PeerError, StoreError
from ledger.merkle import Tree
from ledger.record import Kind, Verified, open_record
from ledger.store import Store
from node.compute import InlineCompute
from node.journal import Journal
from node.network_memory import MemoryHub
from node.witness import Signers, Witness
from node.world import World
from scenarios.simulator import _Silent, identity_of
from swarm.protocol.book import RoundBook
from swarm.protocol.checkpoints import (
    decode_cosign_reply,
    decode_share_reply,
    encode_cosign_request,
    encode_share_request,
)
from tests.federation import Federation, digest_of

AUTHOR, OWN = 1, 0
LOG = (AUTHOR, 0)
NOW_MS = 1_700_000_000_000


class Node:
    """A witness with a real store and journal; its network is not plugged in."""

    def __init__(self, federation: Federation, store: Store, own: int = OWN) -> None:
        self.store = store
        identity = identity_of(1, own)
        self.failures: list[Exception] = []
        self.hub = MemoryHub(seed=1)
        world = World(
            network=self.hub.network(own),
            compute=InlineCompute(),
            disk=InlineCompute(),
            time_ms=lambda: NOW_MS,
            random=Random(1),
            log=_Silent(),
        )
        self.journal = Journal(
            store=store,
            roster=federation.roster,
            own=own,
            signer=identity.ledger(),
            disk=world.disk,
            time_ms=world.time_ms,
        )
        self.witness = Witness(
            world=world,
            store=store,
            journal=self.journal,
            book=RoundBook(federation.roster),
            own=own,
            signers=Signers(identity.ledger(), identity.witness()),
            failed=self.failures.append,
        )
        for record in self.journal.replay():
            self.witness.replayed(record)

    async def hear(self, *records: Verified[object]) -> None:  # type: ignore[type-var]
        await self.journal.ingest([record.signed.envelope() for record in records])

    async def ask(self, note: bytes, peer: int = AUTHOR) -> bytes | None:
        reply = await self.witness.on_request(peer, encode_cosign_request(note))
        return decode_cosign_reply(reply)

    def state(self) -> WitnessState:
        stored = self.store.state_get(witness_key(LOG))
        return WitnessState() if stored is None else WitnessState.decode(stored)


@contextmanager
def node(federation: Federation, path: Path, own: int = OWN) -> Iterator[Node]:
    with ExitStack() as stack:
        yield Node(federation, stack.enter_context(Store.open(path / "0.db")), own)


def note_of(
    federation: Federation, size: int, *, ids: list[bytes] | None = None, author: int = AUTHOR
) -> bytes:
    """Return what the author signs: the first ``size`` of its records, or of ``ids``."""
    log = ids or [record.id for record in federation[author].records]
    tree = Tree()
    tree.extend(log[:size])
    checkpoint = make_checkpoint(roster=federation.roster, author=author, epoch=0, tree=tree)
    return sign(checkpoint, federation[author].signer)


def history(records: int = 6) -> Federation:
    federation = Federation(4)
    federation[AUTHOR].open()
    for round_ in range(1, records):
        federation[AUTHOR].contribute(round_)
    return federation


async def test_a_witness_cosigns_what_it_holds_and_has_stored_it_first(tmp_path: Path) -> None:
    federation = history()
    with node(federation, tmp_path) as one:
        await one.hear(*federation[AUTHOR].records)
        for size in (2, 5, 5, 6):
            note = note_of(federation, size)
            line = await one.ask(note)
            assert line is not None
            opened = open_checkpoint(
                attach(note, [line], roster=federation.roster),
                roster=federation.roster,
                cosigners_min=1,
            )
            assert dict(opened.cosigned_s) == {OWN: NOW_MS // 1000}
            assert one.state() == WitnessState(size, read_unchecked(note).root)


async def test_a_witness_that_is_behind_says_so_and_binds_itself_to_nothing(
    tmp_path: Path,
) -> None:
    federation = history()
    with node(federation, tmp_path) as one:
        await one.hear(*federation[AUTHOR].records[:3])
        assert await one.ask(note_of(federation, 4)) is None
        assert one.state() == WitnessState()


async def test_a_rewritten_a_forked_and_a_shorter_history_get_no_cosignature(
    tmp_path: Path,
) -> None:
    federation = history()
    real = [record.id for record in federation[AUTHOR].records]
    rewritten = [real[0], digest_of("rewritten"), *real[2:]]
    forked = [*real[:5], digest_of("forked")]
    for number, (lie, code) in enumerate(
        (
            (note_of(federation, 6, ids=rewritten), "E_CHECKPOINT"),
            (note_of(federation, 4, ids=rewritten), "E_CHECKPOINT"),
            (note_of(federation, 6, ids=forked), "E_CHECKPOINT"),
            (note_of(federation, 3), "E_ROLLBACK"),
        )
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        with node(federation, directory) as one:
            await one.hear(*federation[AUTHOR].records)
            assert await one.ask(note_of(federation, 4))
            before = one.state()
            with pytest.raises(PeerError, match=code):
                await one.ask(lie)
            assert one.state() == before


async def test_an_author_that_signed_two_histories_is_not_cosigned_again(tmp_path: Path) -> None:
    federation = history()
    real = [record.id for record in federation[AUTHOR].records]
    with node(federation, tmp_path) as one:
        await one.hear(*federation[AUTHOR].records)
        with pytest.raises(PeerError, match="our copy"):
            await one.ask(note_of(federation, 6, ids=[*real[:5], digest_of("forked")]))
        with pytest.raises(PeerError, match="contradicts"):
            await one.ask(note_of(federation, 6))


@pytest.mark.parametrize("fault", ["signature", "author", "network", "nonsense", "form"])
async def test_what_the_author_did_not_sign_gets_no_cosignature_and_costs_it_nothing(
    tmp_path: Path, fault: str
) -> None:
    federation = history()
    federation[2].open()
    good = note_of(federation, 6)
    asker = AUTHOR
    if fault == "signature":
        bad = good.replace(b"\n6\n", b"\n5\n")
    elif fault == "author":
        bad, asker = good, 2
    elif fault == "network":
        other = Federation(4, rounds=9)
        other[AUTHOR].open()
        bad = note_of(other, 1)
    else:
        bad = b"" if fault == "nonsense" else good.replace(b"\n", b"\r\n")
    with node(federation, tmp_path) as one:
        await one.hear(*federation[AUTHOR].records, *federation[2].records)
        with pytest.raises(PeerError):
            await one.ask(bad, asker)
        assert one.state() == WitnessState()
        assert await one.ask(good)


async def test_a_witness_that_starts_again_never_cosigns_another_branch(tmp_path: Path) -> None:
    federation = history()
    real = [record.id for record in federation[AUTHOR].records]
    with node(federation, tmp_path) as one:
        await one.hear(*federation[AUTHOR].records[:5])
        assert await one.ask(note_of(federation, 5))
        before = one.state()
    with node(federation, tmp_path) as again:
        assert again.state() == before
        with pytest.raises(PeerError, match="E_ROLLBACK"):
            await again.ask(note_of(federation, 4, ids=[*real[:3], digest_of("branch")]))
        with pytest.raises(PeerError, match="E_CHECKPOINT"):
            await again.ask(note_of(federation, 5, ids=[*real[:4], digest_of("branch")]))
    with node(federation, tmp_path) as again:
        await again.hear(*federation[AUTHOR].records[5:])
        assert await again.ask(note_of(federation, 5)), "a lost answer is asked for again"
        assert await again.ask(note_of(federation, 6))


async def test_a_state_that_the_own_copy_contradicts_is_not_gone_on_from(tmp_path: Path) -> None:
    federation = history()
    with node(federation, tmp_path) as one:
        await one.hear(*federation[AUTHOR].records)
        one.store.state_put(witness_key(LOG), WitnessState(5, digest_of("branch")).encode())
    with node(federation, tmp_path) as again:
        with pytest.raises(PeerError, match="contradicts"):
            await again.ask(note_of(federation, 6))
        assert again.state().root == digest_of("branch")


async def test_a_full_disk_sends_no_line_and_stops_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = history()

    def full(*_: object) -> None:
        raise StoreError("disk full")

    with node(federation, tmp_path) as one:
        await one.hear(*federation[AUTHOR].records)
        with monkeypatch.context() as patch:
            patch.setattr(Store, "state_put", full)
            with pytest.raises(StoreError):
                await one.ask(note_of(federation, 6))
        assert [str(error) for error in one.failures] == ["disk full"]
        assert one.state() == WitnessState()


async def test_only_a_finished_checkpoint_of_records_held_here_is_kept(tmp_path: Path) -> None:
    federation = history()
    note = note_of(federation, 6)
    lines = []
    for index in (0, 2, 3):
        directory = tmp_path / f"witness{index}"
        directory.mkdir()
        with node(federation, directory, own=index) as other:
            await other.hear(*federation[AUTHOR].records)
            line = await other.ask(note)
            assert line is not None
            lines.append(line)
    finished = attach(note, lines, roster=federation.roster)
    below = attach(note, lines[:2], roster=federation.roster)
    stranger = finished + finished.splitlines(keepends=True)[-1].replace(b"/witness/3", b"/w/3")

    with node(federation, tmp_path) as one:

        async def share(*notes: bytes) -> None:
            await one.witness.on_request(2, encode_share_request({}, notes))

        await share(finished)
        assert one.witness.sizes() == {}, "its records are still to come"
        await one.hear(*federation[AUTHOR].records)
        with pytest.raises(PeerError, match="E_QUORUM"):
            await share(below)
        with pytest.raises(PeerError, match="E_COSIGN"):
            await share(stranger)
        assert one.witness.sizes() == {}
        await share(finished, finished)
        assert one.witness.sizes() == {LOG: 6}
    with node(federation, tmp_path) as again:
        assert again.store.state_get(finished_key(LOG)) == finished
        reply = await again.witness.on_request(3, encode_share_request({LOG: 5}))
        assert decode_share_reply(reply) == (finished,)
        reply = await again.witness.on_request(3, encode_share_request({LOG: 6}))
        assert decode_share_reply(reply) == ()


async def test_checkpoints_of_logs_without_a_record_here_leave_no_trace(tmp_path: Path) -> None:
    federation = history()
    for author in (0, 2, 3):
        federation[author].open()
    notes = [note_of(federation, 1, author=author) for author in range(4)]
    with node(federation, tmp_path) as one:
        await one.witness.on_request(2, encode_share_request({}, notes))
        for author in (1, 2, 3):
            assert await one.ask(notes[author], author) is None
        assert one.witness._kept == {}


async def test_an_author_signs_only_what_goes_on_from_what_it_signed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    federation = Federation(4)
    with node(federation, tmp_path, own=AUTHOR) as one:
        await one.journal.append(Kind.OPEN, 0, federation[AUTHOR].open_body())
        one.witness.publish()
        with trio.move_on_after(1):
            await one.witness.run(2.0)
        note = one.store.state_get(OWN_KEY)
        assert note is not None
        assert read_unchecked(note).size == 1
        assert one.state() == WitnessState(1, read_unchecked(note).root)
        (stored,) = one.store.records()
        open_record(stored, roster=federation.roster)
        one.store.state_put(witness_key(LOG), WitnessState(1, digest_of("other")).encode())
    with node(federation, tmp_path, own=AUTHOR) as again:
        with pytest.raises(BaseExceptionGroup) as caught:
            await again.witness.run(2.0)
        assert caught.group_contains(StoreError, match="own log", depth=None)  # type: ignore[arg-type]
        assert again.failures
