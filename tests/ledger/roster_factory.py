"""A federation whose roster changes: real admin keys, real updates, logs in several epochs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger_factory import Federation, frames, seed_of

from ledger.bundle import log_name, update_name
from ledger.chain import LogHead, compose
from ledger.fork import Cut
from ledger.keys import Signer, derive
from ledger.record import NO_ID, Ack, Body, Kind, Open, Record, Verified
from ledger.roster_update import (
    Add,
    Operation,
    Remove,
    Rotate,
    SignedUpdate,
    Update,
    advance,
    sign_update,
)

Files = dict[str, bytes]


def admin(index: int) -> Signer:
    return Signer(derive(seed_of(f"admin {index}"), "admin"))


def ledger_key(index: int, epoch: int = 0) -> bytes:
    return Signer(derive(seed_of(f"node {index}"), "ledger", epoch)).public_key


def newcomer(index: int, **changes: Any) -> Add:
    seed = seed_of(f"node {index}")
    return replace(
        Add(
            name=f"Hospital {index}",
            role="hospital",
            ledger_key=ledger_key(index),
            witness_key=Signer(derive(seed, "witness")).public_key,
            admin_key=admin(index).public_key,
            network_key=Signer(derive(seed, "network")).public_key,
            addresses=(f"/ip4/10.0.0.{index + 1}/tcp/4001",),
        ),
        **changes,
    )


class Living(Federation):
    """Hospitals that join, leave and start anew."""

    def __init__(self, members: int) -> None:
        super().__init__(members)
        self.rosters = [self.roster]
        self.updates: list[SignedUpdate] = []
        self.epochs = [0] * members
        self.ended: dict[tuple[int, int], list[Verified[Record]]] = {}

    # Records

    def draft(
        self,
        author: int,
        kind: int,
        round_: int,
        body: Body | bytes,
        acks: Sequence[LogHead] = (),
    ) -> Record:
        self.clock_ms += 10
        before = [head for head in self.heads if head is not None]
        return compose(
            self.heads[author],
            roster=self.roster,
            author=author,
            epoch=self.epochs[author],
            kind=kind,
            round=round_,
            time_ms=self.clock_ms,
            acks=[Ack(h.author, h.epoch, h.next_seq - 1, h.prev_id) for h in acks],
            lamports=[head.lamport for head in before],
            times_ms=[head.time_ms for head in acks],
            body=body,
        )

    def open_body(self, author: int) -> Open:
        body = super().open_body(author)
        head = self.roster.previous_head(author, self.epochs[author])
        return replace(body, previous_head=head)

    def open_current(self) -> None:
        for member in self.roster.active:
            if self.heads[member.index] is None:
                self.open(member.index)

    def close_all(self, round_: int) -> None:
        for member in self.roster.active:
            self.write(
                member.index,
                Kind.METRICS,
                round_,
                self.metrics_body(round_),
                with_acks=True,
            )

    # The roster

    def rotation(self, author: int, **changes: Any) -> Rotate:
        before = self.roster.member(author)
        epoch = self.epochs[author] + 1
        rotate = Rotate(
            author=author,
            epoch=epoch,
            ledger_key=ledger_key(author, epoch),
            witness_key=before.witness_key,
            network_key=before.network_key,
            addresses=before.addresses,
        )
        return replace(rotate, **changes)

    def cut(self, author: int, kept: int | None = None) -> Cut:
        log = self.logs[author]
        kept = len(log) if kept is None else kept
        head = log[kept - 1].id if kept else NO_ID
        return Cut(author=author, epoch=self.epochs[author], kept=kept, head_id=head)

    def propose(self, operation: Operation, **changes: Any) -> Update:
        cuts = () if isinstance(operation, Add) else (self.cut(operation.author),)
        update = Update(
            net=self.charter.net,
            version=self.roster.version + 1,
            previous=self.roster.digest,
            operation=operation,
            cuts=cuts,
        )
        return replace(update, **changes)

    def signed(self, update: Update, *admins: int) -> SignedUpdate:
        data = update.to_bytes()
        who = admins or tuple(m.index for m in self.roster.active)[: self.roster.q]
        return SignedUpdate(data, tuple((i, sign_update(data, admin(i))) for i in sorted(who)))

    def change(self, operation: Operation, **changes: Any) -> SignedUpdate:
        """Sign an update by a quorum, and live by it."""
        update = self.propose(operation, **changes)
        signed = self.signed(update)
        self.roster = advance(self.roster, signed)
        self.rosters.append(self.roster)
        self.updates.append(signed)
        if isinstance(operation, Add):
            index = len(self.logs)
            self.signers.append(Signer(derive(seed_of(f"node {index}"), "ledger")))
            self.logs.append([])
            self.heads.append(None)
            self.acked.append({})
            self.epochs.append(0)
            return signed
        author = operation.author
        (cut,) = update.cuts
        self.ended[author, self.epochs[author]] = self.logs[author][: cut.kept]
        self.logs[author], self.heads[author] = [], None
        for acked in self.acked:
            acked.pop(author, None)
        if isinstance(operation, Rotate):
            self.epochs[author] += 1
            seed = derive(seed_of(f"node {author}"), "ledger", self.epochs[author])
            self.signers[author] = Signer(seed)
        return signed

    def remove(self, author: int, **changes: Any) -> SignedUpdate:
        return self.change(Remove(author=author), **changes)

    def rotate(self, author: int, **changes: Any) -> SignedUpdate:
        return self.change(self.rotation(author), **changes)

    # Files

    def every_log(self) -> dict[tuple[int, int], list[Verified[Record]]]:
        now = {(i, self.epochs[i]): log for i, log in enumerate(self.logs) if log}
        return {log: records for log, records in (self.ended | now).items() if records}

    def records(self) -> list[Verified[Record]]:
        return [record for log in self.every_log().values() for record in log]

    def files(self) -> Files:
        files = {"charter.toml": self.charter_bytes}
        for log, records in self.every_log().items():
            files[f"logs/{log_name(log)}"] = frames(one.signed.envelope() for one in records)
        for roster, signed in zip(self.rosters[1:], self.updates, strict=True):
            files[f"rosters/{update_name(roster.version)}"] = signed.envelope()
        return files


def write_files(directory: Path, files: Files) -> Path:
    (directory / "logs").mkdir(parents=True)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def lived(members: int = 4) -> Living:
    """Joined, rotated, removed: one round of records under each roster."""
    federation = Living(members)
    federation.open_all()
    federation.close_all(1)
    federation.change(newcomer(members))
    federation.open_current()
    federation.close_all(2)
    federation.rotate(1)
    federation.open_current()
    federation.close_all(3)
    federation.remove(0)
    federation.close_all(4)
    federation.close_all(4)
    return federation
