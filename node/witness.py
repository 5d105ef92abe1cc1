"""Checkpoints while the node runs: signs its own log's head, cosigns others', keeps the finished ones.

Room: node. Law: a witness's state is on the disk before its line leaves; nothing but the node's own copy
of a log is ever cosigned; rounds wait for none of it. Spec: docs/checkpoints.md §4, docs/wire.md §4.5.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, TypeVarTuple, final

import trio

from ledger.checkpoint import (
    Checkpoint,
    WitnessState,
    attach,
    check_line,
    cosign_held,
    make_checkpoint,
    open_checkpoint,
    sign,
)
from ledger.checkpoint_files import OWN_KEY, finished_key, read_unchecked, witness_key
from ledger.errors import PeerError, StoreError, UnavailableError, VerificationError
from ledger.keys import Signer
from ledger.merkle import Tree
from ledger.record import Record, Verified
from ledger.store import Store
from node.forks import Log
from node.journal import Journal
from node.network import CHECKPOINT_PROTOCOL, REQUEST_BYTES_MAX
from node.world import World
from swarm.protocol.book import RoundBook
from swarm.protocol.checkpoints import (
    CosignRequest,
    CosignStatus,
    Sizes,
    decode_cosign_reply,
    decode_request,
    decode_share_reply,
    encode_cosign_reply,
    encode_cosign_request,
    encode_share_reply,
    encode_share_request,
)

ROUNDS_MIN: Final = 4
"""Rounds from one checkpoint of a log to the next, at least: a log's end gets one in any case."""
AUTHORS_A_ROUND: Final = 4
"""Of how many logs the head is cosigned in one round, more or less: who signs when goes in turn, so that
what a witness does for a round does not grow with the swarm."""
PUSHED_TO_MAX: Final = 8
"""Peers that an author brings a finished checkpoint to; the others ask for it, for all that they lack at once."""
REQUEST_TIMEOUT_S: Final = 5.0
"""For one answer about checkpoints."""
GATHER_S: Final = 10.0
"""How long an author asks for cosignatures of one checkpoint; then it signs a newer one and asks again."""
LATECOMERS_S: Final = 1.0
"""How much longer it asks once it has a quorum: more cosigners are better evidence."""
SETTLE_S: Final = 15.0
"""How long a node that is done stays for the last checkpoints, at most."""
REFUSALS_MAX: Final = 4
"""Finished checkpoints of one message that are refused before the rest of it is not looked at."""
REFUSED_KEPT: Final = 64
"""Refused ones that are remembered, so that a peer that brings them again costs nothing."""
ON_ITS_WAY_S: Final = 0.5
"""For a record to reach those who are asked to cosign it: who asks sooner is told to come again."""
RETRY_MIN_S: Final = 0.3
RETRY_MAX_S: Final = 2.0

T = TypeVar("T")
Args = TypeVarTuple("Args")


@dataclass(frozen=True, slots=True)
class Signers:
    """The two keys at work here: the own log's, and the one that cosigns."""

    log: Signer
    witness: Signer


@dataclass(slots=True)
class _Kept:
    """One log: how far this witness has cosigned it, and the newest checkpoint with a quorum.

    Both trees grow from the node's own copy of the log, by the records that are new.
    """

    state: WitnessState
    note: bytes | None
    size: int
    """Records under ``note``."""
    cosigned: Tree = field(default_factory=Tree)
    finished: Tree = field(default_factory=Tree)


@final
class Witness:
    """One node's part in everybody's checkpoints."""

    def __init__(
        self,
        *,
        world: World,
        store: Store,
        journal: Journal,
        book: RoundBook,
        own: int,
        signers: Signers,
        failed: Callable[[Exception], None],
    ) -> None:
        self._world = world
        self._network = world.network
        self._log = world.log
        self._store = store
        self._journal = journal
        self._book = book
        self._roster = book.roster
        self._own: Log = (own, book.roster.epoch(own))
        self._signers = signers
        self._failed = failed
        self._kept: dict[Log, _Kept] = {}
        self._contradicted: set[Log] = set()
        self._refused: set[bytes] = set()
        self._period_rounds = max(ROUNDS_MIN, -(-book.roster.n // AUTHORS_A_ROUND))
        self._pen = trio.Lock()
        self._due = trio.Event()
        self._at_work = False
        self._pushing = 0

    # What the service says

    def replayed(self, record: Verified[Record]) -> None:
        """Take a stored record at the start, in the order of the store: the trees grow again."""
        value = record.value
        log = (value.author, value.epoch)
        kept = self._kept.get(log)
        if kept is None:
            kept = self._kept[log] = self._stored(log)
        for tree, size in ((kept.cosigned, kept.state.size), (kept.finished, kept.size)):
            if tree.size == value.seq < size:
                tree.append(record.id)

    def publish(self) -> None:
        """Sign the head of the own log soon and have it cosigned."""
        self._due.set()

    def round_ended(self, round_: int) -> None:
        """Do so if it is this member's turn in this round."""
        if (round_ + self._own[0]) % self._period_rounds == 0:
            self.publish()

    def sizes(self) -> Sizes:
        """How many records of each log lie under the newest checkpoint that a quorum cosigned."""
        return {log: kept.size for log, kept in list(self._kept.items()) if kept.note is not None}

    async def run(self, interval_s: float) -> None:
        """Publish when it is due and ask others for what is missing here, until cancelled."""
        if await self._on_disk(self._signed_size) > self._of(self._own).size:
            self.publish()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_forever, nursery)
            nursery.start_soon(self._pull_forever, interval_s)

    async def settle(self) -> None:
        """Wait until every closed log is under a checkpoint here, a short while at most."""
        with trio.move_on_after(SETTLE_S):
            while not self._is_settled() and (peers := sorted(self._network.connected())):
                with trio.move_on_after(LATECOMERS_S):
                    await self._share(self._world.random.choice(peers))
                await trio.sleep(RETRY_MIN_S)

    def _is_settled(self) -> bool:
        if self._due.is_set() or self._at_work or self._pushing:
            return False
        return all(
            self.sizes().get(log, 0) >= count
            for log, count in self._journal.counts().items()
            if log[0] in self._book.closed
            and log[1] == self._roster.epoch(log[0])
            and log not in self._journal.forks.slots
        )

    # Serving

    async def on_request(self, peer: int, body: bytes) -> bytes:
        """Answer a peer. Raises PeerError: a checkpoint that is not cosigned, or nonsense."""
        request = decode_request(body)
        if isinstance(request, CosignRequest):
            return await self._serve_cosign(peer, request.note)
        await self._take(peer, request.notes)
        newer = [
            kept.note
            for log, kept in sorted(self._kept.items())
            if kept.note is not None and kept.size > request.sizes.get(log, 0)
        ]
        return encode_share_reply(newer)

    async def _serve_cosign(self, peer: int, note: bytes) -> bytes:
        checkpoint = read_unchecked(note)
        log = (checkpoint.author, checkpoint.epoch)
        if checkpoint.author != peer:
            raise PeerError("only its author asks for cosignatures of a log")
        if log in self._journal.forks.slots:
            raise PeerError("the log is frozen: its key has signed one slot twice")
        head = self._journal.heads().get(log)
        if head is None or checkpoint.size > head.next_seq:
            return encode_cosign_reply(CosignStatus.BEHIND)
        try:
            line = await self._on_disk(self._cosign, log, checkpoint.size, note)
        except VerificationError as error:
            self._log.warning("checkpoint_refused", peer=peer, code=error.code, why=str(error))
            raise
        return encode_cosign_reply(CosignStatus.COSIGNED, line)

    def _cosign(self, log: Log, size: int, note: bytes) -> bytes:
        """Read the state, compare with our copy, cosign, store: one piece of the disk's work."""
        kept = self._checked_state(log)
        if size < kept.state.size:
            raise VerificationError(
                "E_ROLLBACK", f"a checkpoint of {size} records", author=log[0], epoch=log[1],
                expected=f"at least the {kept.state.size} cosigned before",
            )  # fmt: skip
        tree, line = self._cosigned(log, kept, size, note)
        state = WitnessState(tree.size, tree.root())
        self._store.state_put(witness_key(log), state.encode())
        kept.state, kept.cosigned = state, tree
        self._kept[log] = kept
        return line

    def _cosigned(self, log: Log, kept: _Kept, size: int, note: bytes) -> tuple[Tree, bytes]:
        """Cosign our own copy of a log if ``note`` says the same. Raises E_CHECKPOINT."""
        opened = open_checkpoint(note, roster=self._roster, cosigners_min=0)  # else it says nothing
        try:
            return cosign_held(
                kept.cosigned, self._ids(log, kept.cosigned.size, size), opened,
                roster=self._roster, member=self._own[0], signer=self._signers.witness,
                time_s=self._world.time_ms() // 1000,
            )  # fmt: skip
        except VerificationError:
            # Its author signed two histories. Reading the log again for each try would be his to ask.
            self._contradicted.add(log)
            raise

    def _checked_state(self, log: Log) -> _Kept:
        """Return what is kept of a log, the stored state read again and held against our copy."""
        kept = self._of(log)
        state = self._stored_state(log)
        here = WitnessState(kept.cosigned.size, kept.cosigned.root())
        if log in self._contradicted or state != here:
            raise VerificationError(
                "E_CHECKPOINT", "this log contradicts a checkpoint", author=log[0], epoch=log[1]
            )
        return kept

    def _of(self, log: Log) -> _Kept:
        """Return what is kept of one log; of one without a record at the start, nothing.

        Makes no entry: a peer may name any log.
        """
        return self._kept.get(log) or _Kept(state=WitnessState(), note=None, size=0)

    def _stored(self, log: Log) -> _Kept:
        note = self._store.state_get(finished_key(log))
        size = 0 if note is None else read_unchecked(note).size
        return _Kept(state=self._stored_state(log), note=note, size=size)

    def _stored_state(self, log: Log) -> WitnessState:
        stored = self._store.state_get(witness_key(log))
        return WitnessState() if stored is None else WitnessState.decode(stored)

    def _ids(self, log: Log, start: int, end: int) -> list[bytes]:
        author, epoch = log
        records = self._store.records(
            author=author, epoch=epoch, from_seq=start, limit=max(end - start, 0)
        )
        return [signed.id for signed in records]

    # The own log

    def _signed_size(self) -> int:
        note = self._store.state_get(OWN_KEY)
        if note is None:
            return 0
        signed = read_unchecked(note)
        return signed.size if (signed.author, signed.epoch) == self._own else 0

    async def _publish_forever(self, nursery: trio.Nursery) -> None:
        while True:
            await self._due.wait()
            self._due = trio.Event()
            self._at_work = True
            try:
                await trio.sleep(ON_ITS_WAY_S)
                count = self._journal.counts().get(self._own, 0)
                if count > self._of(self._own).size:
                    note = await self._on_disk(self._sign_own, count)
                    finished = await self._gather(note)
                    if finished is None:
                        self.publish()
                    elif await self._take(self._own[0], [finished]):
                        self._log.info("checkpoint_cosigned", records=count)
                        self._pushing += 1
                        nursery.start_soon(self._push, finished)
            finally:
                self._at_work = False

    def _sign_own(self, count: int) -> bytes:
        """Sign and cosign the head of the own log; both are stored before anybody sees them."""
        try:
            kept = self._checked_state(self._own)
        except VerificationError as error:
            raise StoreError(
                f"{self._store.path}: this site's own log is not the one that it signed a "
                "checkpoint of; restore this hospital"
            ) from error
        author, epoch = self._own
        tree = _grown(kept.cosigned, self._ids(self._own, kept.cosigned.size, count))
        checkpoint = make_checkpoint(roster=self._roster, author=author, epoch=epoch, tree=tree)
        note = sign(checkpoint, self._signers.log)
        tree, line = self._cosigned(self._own, kept, count, note)
        state = WitnessState(tree.size, tree.root())
        self._store.append([], state={OWN_KEY: note, witness_key(self._own): state.encode()})
        kept.state, kept.cosigned = state, tree
        self._kept[self._own] = kept
        return attach(note, [line], roster=self._roster)

    async def _gather(self, note: bytes) -> bytes | None:
        """Ask everybody at once until a quorum has cosigned; None if it does not in GATHER_S."""
        lines: dict[int, bytes] = {}
        answered = trio.Event()
        others = [member.index for member in self._roster.active if member.index != self._own[0]]

        async def ask(peer: int) -> None:
            line = await self._ask(peer, note)
            if line is not None:
                lines[peer] = line
            answered.set()

        with trio.move_on_after(GATHER_S) as patience:
            async with trio.open_nursery() as nursery:
                for peer in others:
                    nursery.start_soon(ask, peer)
                while len(lines) < len(others):
                    if 1 + len(lines) >= self._roster.q:
                        patience.deadline = min(
                            patience.deadline, trio.current_time() + LATECOMERS_S
                        )
                        if self._due.is_set():
                            break
                    await answered.wait()
                    answered = trio.Event()
                nursery.cancel_scope.cancel()
        if 1 + len(lines) < self._roster.q:
            self._log.info("checkpoint_unfinished", cosigned=1 + len(lines), wanted=self._roster.q)
            return None
        return note + b"".join(lines[peer] for peer in sorted(lines))

    async def _ask(self, peer: int, note: bytes) -> bytes | None:
        """Ask one witness until it cosigns, or refuses."""
        wait_s = RETRY_MIN_S
        while True:
            try:
                reply = await self._request(peer, encode_cosign_request(note))
                line = decode_cosign_reply(reply)
                if line is not None:
                    return self._checked_line(peer, note, line)
            except UnavailableError as error:
                self._log.debug("cosign_unavailable", peer=peer, why=str(error))
            except PeerError as error:
                self._log.warning("cosign_refused", peer=peer, why=str(error))
                return None
            await trio.sleep(wait_s * self._world.random.uniform(0.75, 1.25))
            wait_s = min(wait_s * 1.5, RETRY_MAX_S)

    def _checked_line(self, peer: int, note: bytes, line: bytes) -> bytes:
        """Return the line if it is this witness's own cosignature of ``note``. Raises PeerError."""
        member, spelled = check_line(note, line, roster=self._roster)
        if member != peer:
            raise PeerError(f"member {peer} answered with another's cosignature")
        return spelled

    # Finished checkpoints

    async def _push(self, finished: bytes) -> None:
        """Bring a finished checkpoint to a few who can be reached."""
        peers = sorted(self._network.connected())
        if len(peers) > PUSHED_TO_MAX:
            peers = sorted(self._world.random.sample(peers, PUSHED_TO_MAX))
        try:
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    nursery.start_soon(self._share, peer, (finished,))
        finally:
            self._pushing -= 1

    async def _pull_forever(self, interval_s: float) -> None:
        """Ask somebody again and again: what no author brought comes this way."""
        while True:
            await trio.sleep(interval_s * self._world.random.uniform(0.75, 1.25))
            peers = sorted(self._network.connected())
            if peers:
                await self._share(self._world.random.choice(peers))

    async def _share(self, peer: int, notes: Sequence[bytes] = ()) -> None:
        try:
            reply = await self._request(peer, encode_share_request(self.sizes(), notes))
            await self._take(peer, decode_share_reply(reply))
        except UnavailableError as error:
            self._log.debug("checkpoints_unavailable", peer=peer, why=str(error))
        except PeerError as error:
            self._log.warning("checkpoints_refused", peer=peer, why=str(error))

    async def _request(self, peer: int, body: bytes) -> bytes:
        return await self._network.request(
            peer, CHECKPOINT_PROTOCOL, body,
            reply_bytes_max=REQUEST_BYTES_MAX, timeout_s=REQUEST_TIMEOUT_S,
        )  # fmt: skip

    async def _take(self, peer: int, notes: Sequence[bytes]) -> int:
        """Keep finished checkpoints that cover more than those here, and our copy's records only.

        Returns how many were new. Raises VerificationError if one was no such thing.
        """
        if not notes:
            return 0
        counts = self._journal.counts()
        taken, refusal = await self._on_disk(self._keep, notes, counts)
        if refusal is not None:
            self._log.warning("checkpoint_refused", peer=peer, code=refusal.code, why=str(refusal))
            raise refusal
        return taken

    def _keep(
        self, notes: Sequence[bytes], counts: Mapping[Log, int]
    ) -> tuple[int, VerificationError | None]:
        """Check and store, all in one transaction; returns how many, and the last refusal."""
        fresh: dict[Log, tuple[bytes, Tree]] = {}
        refusal: VerificationError | None = None
        patience = REFUSALS_MAX
        if len(self._refused) > REFUSED_KEPT:
            self._refused.clear()
        for note in notes:
            if note in self._refused:
                continue
            try:
                claimed = read_unchecked(note)
                log = (claimed.author, claimed.epoch)
                here = fresh[log][1].size if log in fresh else self._of(log).size
                # Records that are still to come: it will be asked for again.
                if here < claimed.size <= counts.get(log, 0):
                    fresh[log] = note, self._check_finished(log, note, claimed)
            except VerificationError as error:
                refusal, patience = error, patience - 1
                self._refused.add(note)
                if patience == 0:
                    break
        if fresh:
            self._store.append([], state={finished_key(log): fresh[log][0] for log in fresh})
        for log, (note, tree) in fresh.items():
            kept = self._of(log)
            kept.note, kept.size, kept.finished = note, tree.size, tree
            self._kept[log] = kept
        return len(fresh), refusal

    def _check_finished(self, log: Log, note: bytes, claimed: Checkpoint) -> Tree:
        """Return our copy's tree at that size. Raises VerificationError if a quorum saw another."""
        open_checkpoint(note, roster=self._roster, only_members=True)
        before = self._of(log).finished
        tree = _grown(before, self._ids(log, before.size, claimed.size))
        if tree.root() != claimed.root:
            raise VerificationError(
                "E_CHECKPOINT", "a quorum has cosigned another history than ours",
                author=log[0], epoch=log[1], expected=f"root {tree.root().hex()}",
            )  # fmt: skip
        return tree

    async def _on_disk(self, function: "Callable[[*Args], T]", *args: *Args) -> T:
        """Do one piece of the disk's work; the next begins when it has ended, cancelled or not."""
        with trio.CancelScope(shield=True):
            async with self._pen:
                try:
                    return await self._world.disk.run(function, *args)
                except StoreError as error:
                    self._failed(error)
                    raise


def _grown(before: Tree, leaves: Iterable[bytes]) -> Tree:
    """Return the tree that begins with ``before``."""
    tree = Tree(before.size, before.peaks)
    tree.extend(leaves)
    return tree
