"""Hospitals that write, ack, exchange, restart, join, leave, and are tampered with: the real thing.

A stateful machine over real stores, keys, updates and bundles, held against ledger_model.py after
every step.
"""

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_factory import Federation, charter_of, digest_of, seed_of
from ledger_model import Copy, Epoch, Log, R, World, final, is_missed, lacks_kept
from roster_factory import admin, ledger_key, newcomer

from ledger.bodies import (
    Anchor,
    Close,
    CloseReason,
    EvaluationCommit,
    EvaluationReveal,
    Reason,
    Rejection,
    Release,
    Withdrawal,
)
from ledger.bundle import export_bundle, log_name
from ledger.chain import compose
from ledger.charter import load_charter
from ledger.errors import VerificationError
from ledger.evaluation import commitment_of
from ledger.fork import Cut
from ledger.frames import END_MARK, read_frames
from ledger.keys import Signer, derive
from ledger.record import (
    NO_ID,
    Ack,
    Aggregation,
    Body,
    Contribution,
    Input,
    Kind,
    Record,
    Rule,
    Verified,
    open_record,
    parse_envelope,
    sign_record,
)
from ledger.roster import Roster
from ledger.roster_store import store_update
from ledger.roster_update import Operation, Remove, Rotate, SignedUpdate, Update, sign_update
from ledger.store import Store
from ledger.verify import verify_bundles

FOUNDERS = 4
MEMBERS_MAX = 6
START_MS = 1_700_000_000_000
SAMPLES = 100
MEMORY = Path("/dev/shm")  # noqa: S108 - what power cuts do is other tests' subject
SITES = st.integers(0, MEMBERS_MAX - 1)
WRITTEN = st.sampled_from(
    [Kind.CONTRIBUTION] * 3 + [Kind.AGGREGATION] * 2
    + [kind for kind in Kind if kind not in (Kind.OPEN, Kind.FORK_PROOF)]
)  # fmt: skip
SPOILT = (
    "lamport",
    "time",
    "round",
    "prev",
    "gap",
    "open",
    "key",
    "net",
    "roster",
    "epoch",
    "slot",
)
TEMPLATES = Federation(FOUNDERS)  # for bodies


def signer_of(log: Log) -> Signer:
    return Signer(derive(seed_of(f"node {log[0]}"), "ledger", log[1]))


class Site:
    """One hospital's store, and what the model says is in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.copy = Copy()
        self._stack = ExitStack()
        self.store = self._stack.enter_context(Store.open(path))
        self.exported: dict[Log, int] = {}  # log → final seq of the last bundle under this roster

    def restart(self) -> None:
        self._stack.close()
        self.store = self._stack.enter_context(Store.open(self.path))

    def close(self) -> None:
        self._stack.close()


class Ledgers(RuleBasedStateMachine):
    """Rules are what can happen to a federation; invariants what must hold all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(
            tempfile.mkdtemp(prefix="ledgers", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self.charter_bytes = charter_of(FOUNDERS)
        self.charter = load_charter(self.charter_bytes)
        self.roster = Roster.from_charter(self.charter)
        self.world = World([set(range(FOUNDERS))], [[Epoch(since=0)] for _ in range(FOUNDERS)])
        self.sites: list[Site] = []
        self.real: dict[bytes, Verified[Record]] = {}
        self.model: dict[bytes, R] = {}
        self.merged: dict[Log, set[bytes]] = {}
        self.commits: dict[Log, tuple[int, int]] = {}  # log → (seq, round) of an unopened commit
        self.clock_ms = START_MS
        self.bundles = 0

    @initialize()
    def found(self) -> None:
        for author in range(FOUNDERS):
            self.sites.append(Site(self.directory / f"{author}.db"))
            self.open_log(author)

    def teardown(self) -> None:
        for site in self.sites:
            site.close()
        shutil.rmtree(self.directory)

    # --- writing

    def pick(self, number: int) -> int:
        return number % len(self.sites)

    def log_of(self, author: int) -> Log:
        return author, len(self.world.epochs[author]) - 1

    def is_member(self, author: int) -> bool:
        return author in self.world.members[-1]

    def open_log(self, author: int) -> None:
        log = self.log_of(author)
        before = self.world.epochs[author][-2].head if log[1] else NO_ID
        body = replace(
            TEMPLATES.open_body(0), public_key=signer_of(log).public_key, previous_head=before
        )
        self.write_record(author, Kind.OPEN, 0, body, [])

    def write_record(
        self, author: int, kind: int, round_: int, body: Body | bytes, acks: list[R],
        inputs: tuple[R, ...] = (),
    ) -> None:  # fmt: skip
        """Compose by the code, foresee by the model, compare, store."""
        site, log = self.sites[author], self.log_of(author)
        head = site.store.heads().get(log)
        record = compose(
            head, roster=self.roster, author=author, epoch=log[1], kind=kind, round=round_,
            time_ms=self.clock_ms, acks=[Ack(*r.log, r.seq, r.id) for r in acks],
            lamports=[r.lamport for r in (*acks, *inputs)], times_ms=[r.time_ms for r in acks],
            body=body,
        )  # fmt: skip
        held = site.copy.logs.get(log, [])
        last = held[-1] if held else None
        assert record.seq == len(held)
        assert record.prev == (last.id if last else bytes(32))
        assert record.lamport == 1 + max(
            [r.lamport for r in (*acks, *inputs)] + [last.lamport if last else 0]
        )
        assert record.time_ms == max(self.clock_ms, last.time_ms if last else 0)
        signed = sign_record(record, signer_of(log))
        self.remember(signed, inputs=inputs)
        assert self.deliver(site, signed.id) == "stored", "an author's own record is stored"

    def remember(
        self, signed: Verified[Record], *, inputs: tuple[R, ...] = (), **changes: Any
    ) -> R:
        is_of = signed.value
        r = R(
            id=signed.id, net=True, author=is_of.author, epoch=is_of.epoch, seq=is_of.seq,
            prev=is_of.prev, roster=is_of.roster, is_open=is_of.kind == Kind.OPEN,
            round=is_of.round, lamport=is_of.lamport, time_ms=is_of.time_ms,
            acks=tuple((a.author, a.epoch, a.seq, a.id) for a in is_of.acks),
            inputs=tuple((*one.log, one.seq, one.id) for one in inputs),
            key=(is_of.author, is_of.epoch),
        )  # fmt: skip
        self.real[signed.id], self.model[signed.id] = signed, replace(r, **changes)
        return self.model[signed.id]

    @rule(number=SITES, kind=WRITTEN, later=st.booleans(), ms=st.sampled_from([-50_000, 0, 7]),
          who=st.sets(SITES, max_size=3))  # fmt: skip
    def write(self, number: int, kind: Kind, later: bool, ms: int, who: set[int]) -> None:  # noqa: FBT001
        author = self.pick(number)
        if not self.is_member(author):
            return
        self.clock_ms += ms + 5
        log, site = self.log_of(author), self.sites[author]
        round_ = site.copy.logs[log][-1].round + later
        body, inputs = self.body_of(author, kind, round_)
        if body is not None:
            self.write_record(
                author, body_kind(body), round_, body, self.heads(author, who), inputs
            )

    @rule(apart=st.sets(SITES, max_size=2))
    def play_round(self, apart: set[int]) -> None:
        """A round of those who can hear each other: contributions, their merge, acks of all of it."""
        away = {self.pick(one) for one in apart}
        here = [one for one in sorted(self.world.members[-1]) if one not in away]
        round_ = 1 + max(
            (self.sites[one].copy.logs[self.log_of(one)][-1].round for one in here), default=0
        )
        for kind in (Kind.CONTRIBUTION, Kind.AGGREGATION, Kind.METRICS):
            for author in here:
                body, inputs = self.body_of(author, kind, round_)
                if body is not None:
                    self.clock_ms += 3
                    acks = self.heads(author, set(here))
                    self.write_record(author, body_kind(body), round_, body, acks, inputs)
            for giver in here:
                for taker in here:
                    if giver != taker:
                        self.give(self.sites[giver], self.sites[taker])

    def heads(self, author: int, who: set[int]) -> list[R]:
        """Heads of others' newest logs, as this site holds them; never one that it acked beyond."""
        logs = self.sites[author].copy.logs
        return [
            logs[log][-1]
            for log in map(self.log_of, sorted({self.pick(one) for one in who} - {author}))
            if log in logs and self.world.cut(log) is None
        ]

    def body_of(
        self, author: int, kind: Kind, round_: int
    ) -> tuple[Body | bytes | None, tuple[R, ...]]:
        log = self.log_of(author)
        offered = self.offered(author, round_)
        if kind is Kind.AGGREGATION and offered:
            weight = 1_000_000 // len(offered)
            rows = tuple(
                Input(author=r.author, epoch=r.epoch, seq=r.seq, id=r.id, weight_micro=weight)
                for r in offered
            )
            self.merged.setdefault(log, set()).update(r.id for r in offered)
            body = TEMPLATES.aggregation_body([], round_)
            return replace(body, rule=Rule.MEAN, inputs=rows), offered
        if kind is Kind.EVALUATION_COMMIT and self.commits.get(log, (0, -1))[1] < round_:
            self.commits[log] = (len(self.sites[author].copy.logs[log]), round_)
            return EvaluationCommit(commitment=self.commitment(log, round_)), ()
        if kind is Kind.EVALUATION_REVEAL and self.commits.get(log, (0, -1))[1] == round_:
            seq, _ = self.commits[log]
            self.commits[log] = (seq, round_ + 1)  # opened: none for this round and the next
            reveal = EvaluationReveal(
                commit_seq=seq, salt=digest_of("s"), scores=(), evaluation_commitment=digest_of("e")
            )
            return reveal, ()
        bodies: dict[Kind, Body] = {
            Kind.CONTRIBUTION: TEMPLATES.contribution_body(0, round_, samples=SAMPLES),
            Kind.METRICS: TEMPLATES.metrics_body(round_),
            Kind.REJECTION: Rejection(target_id=digest_of("t"), reason=Reason.LATE),
            Kind.ANCHOR: Anchor(checkpoint_digest=digest_of("c"), token_digest=b""),
            Kind.RELEASE: Release(
                model_digest=digest_of("m"), aggregation_ids=(), intended_use_digest=NO_ID
            ),
            Kind.WITHDRAWAL: Withdrawal(data_commitment=digest_of("d"), models=()),
            Kind.CLOSE: Close(reason=CloseReason.DONE),
        }
        return bodies.get(kind), ()

    def commitment(self, log: Log, round_: int) -> bytes:
        return commitment_of(
            net=self.roster.net, author=log[0], epoch=log[1], round=round_, salt=digest_of("s"),
            scores=(), evaluation_commitment=digest_of("e"),
        )  # fmt: skip

    def offered(self, author: int, round_: int) -> tuple[R, ...]:
        """The first contribution of this round of each author, as this site holds them."""
        used = self.merged.get(self.log_of(author), set())
        chosen: dict[int, R] = {}
        for _, records in sorted(self.sites[author].copy.logs.items()):
            for r in records:
                if (
                    r.round == round_
                    and isinstance(self.real[r.id].value.body, Contribution)
                    and r.id not in used
                ):
                    chosen.setdefault(r.author, r)
        return tuple(chosen[one] for one in sorted(chosen))

    # --- storing

    def deliver(self, site: Site, id_: bytes) -> str:
        """Hand a record to a store as a node does; say what came of it, as the model must."""
        r = self.model[id_]
        foreseen = site.copy.judge(self.world, r)
        found = self.really_deliver(site, id_, waits=foreseen == "waits")
        assert found == foreseen, f"{r}: the code says {found}, the specification {foreseen}"
        if found == "stored":
            site.copy.take(r)
        return found

    def really_deliver(self, site: Site, id_: bytes, *, waits: bool) -> str:
        try:
            envelope = self.real[id_].signed.envelope()
            record = open_record(parse_envelope(envelope), roster=self.roster)
            cut = self.roster.cut(record.value.author, record.value.epoch)
            if cut is not None:
                if record.value.seq >= cut.kept:
                    return "E_AFTER_CUT"
                if record.value.seq == cut.kept - 1 and record.id != cut.head_id:
                    return "E_AFTER_CUT"
            if waits:  # a node keeps it in memory until its causes are there
                return "waits"
            return "stored" if site.store.append([record]) else "known"
        except VerificationError as error:
            return error.code

    @rule(giver=SITES, taker=SITES)
    def exchange(self, giver: int, taker: int) -> None:
        self.give(self.sites[self.pick(giver)], self.sites[self.pick(taker)], again=True)

    def give(self, giver: Site, taker: Site, *, again: bool = False) -> None:
        """Hand over what the taker lacks; ``again``: and the newest that it has of each log."""
        everything = [r for records in giver.copy.logs.values() for r in records]
        for r in sorted(everything, key=lambda one: (one.lamport, one.author, one.epoch)):
            held = taker.copy.logs.get(r.log, [])
            if r.seq < len(held) and held[r.seq] is r and not (again and r is held[-1]):
                continue
            assert self.deliver(taker, r.id) in ("stored", "known", "waits", "E_AFTER_CUT")

    @rule()
    def exchange_all(self) -> None:
        """After everybody has heard everybody, all hold the same heads."""
        for _ in range(2):
            for giver in self.sites:
                for taker in self.sites:
                    if giver is not taker:
                        self.give(giver, taker)
        first = {log: (h.next_seq, h.prev_id) for log, h in self.sites[0].store.heads().items()}
        for site in self.sites[1:]:
            held = {log: (h.next_seq, h.prev_id) for log, h in site.store.heads().items()}
            assert held == first

    @rule(number=SITES)
    def restart(self, number: int) -> None:
        self.sites[self.pick(number)].restart()

    @rule(number=SITES, what=st.sampled_from(SPOILT), taker=SITES)
    def spoil(self, number: int, what: str, taker: int) -> None:
        """A well-formed record that breaks one rule, rightly or wrongly signed, meets a store."""
        author = self.pick(number)
        log, site = self.log_of(author), self.sites[self.pick(taker)]
        held = site.copy.logs.get(log)
        if not self.is_member(author) or not held:
            return
        head = held[-1]
        draft = compose(
            site.store.heads()[log], roster=self.roster, author=author, epoch=log[1],
            kind=Kind.CLOSE, round=head.round, time_ms=head.time_ms + 3, acks=[],
            body=Close(reason=CloseReason.LEFT),
        )  # fmt: skip
        changes: dict[str, dict[str, Any]] = {
            "lamport": {"lamport": head.lamport},
            "time": {"time_ms": head.time_ms - 1},
            "round": {"round": head.round - 1},
            "prev": {"prev": digest_of("other")},
            "gap": {"seq": head.seq + 2},
            "slot": {"seq": head.seq, "prev": head.prev},
            "net": {"net": digest_of("net")},
            "roster": {"roster": self.world.version + 1},
            "epoch": {},
            "open": {"kind": Kind.OPEN, "body": TEMPLATES.open_body(0)},
            "key": {},
        }
        if what == "round" and head.round == 0:
            return
        if what == "open":
            own = replace(TEMPLATES.open_body(0), public_key=signer_of(log).public_key)
            before = self.world.epochs[author][-2].head if log[1] else NO_ID
            changes["open"]["body"] = replace(own, previous_head=before)
        key = log
        if what == "key":
            key = ((author + 1) % FOUNDERS, 0)
        record = replace(draft, **changes[what])
        signed = sign_record(record, signer_of(key))
        if what == "epoch":  # written under a roster at which this epoch had not begun
            if self.world.epochs[author][-1].since == 0:
                return
            record = replace(draft, roster=self.world.epochs[author][-1].since - 1)
            signed = sign_record(record, signer_of(key))
        r = self.remember(signed, net=what != "net", key=key)
        assert self.deliver(site, r.id) not in ("stored", "known")
        del self.real[r.id], self.model[r.id]

    # --- the roster

    def change(self, operation: Operation, cuts: tuple[Cut, ...]) -> None:
        """A quorum of admins signs; every site stores it."""
        update = Update(
            net=self.roster.net, version=self.roster.version + 1, previous=self.roster.digest,
            operation=operation, cuts=cuts,
        )  # fmt: skip
        data = update.to_bytes()
        admins = sorted(self.world.members[-1])[: self.world.quorum(self.world.version)]
        signed = SignedUpdate(data, tuple((i, sign_update(data, admin(i))) for i in admins))
        rosters = {store_update(site.store, self.roster, signed).digest for site in self.sites}
        assert len(rosters) == 1
        self.roster = store_update_of(self.roster, signed)

    @precondition(lambda self: len(self.sites) < MEMBERS_MAX)
    @rule()
    def join(self) -> None:
        self.change(newcomer(len(self.sites)), ())
        author = self.world.add()
        newcomers = Site(self.directory / f"{author}.db")
        self.sites.append(newcomers)
        roster = Roster.from_charter(self.charter)
        from ledger.roster_store import stored_updates

        for signed in stored_updates(self.sites[0].store):
            roster = store_update(newcomers.store, roster, signed)
        assert roster.digest == self.roster.digest
        self.open_log(author)

    @rule(number=SITES, proposer=SITES, goes_on=st.booleans())
    def leave_or_rotate(self, number: int, proposer: int, goes_on: bool) -> None:  # noqa: FBT001
        """A log is cut where the proposer's copy ends; what others hold beyond it is dropped."""
        author, site = self.pick(number), self.sites[self.pick(proposer)]
        log = self.log_of(author)
        if not self.is_member(author) or (not goes_on and len(self.world.members[-1]) <= 2):
            return
        held = site.copy.logs.get(log, [])
        head = held[-1].id if held else NO_ID
        cut = Cut(author=author, epoch=log[1], kept=len(held), head_id=head)
        if goes_on:
            before = self.roster.member(author)
            operation: Operation = Rotate(
                author=author, epoch=log[1] + 1, ledger_key=ledger_key(author, log[1] + 1),
                witness_key=before.witness_key, network_key=before.network_key,
                addresses=before.addresses,
            )  # fmt: skip
        else:
            operation = Remove(author=author)
        self.change(operation, (cut,))
        self.world.end(author, len(held), head, goes_on=goes_on)
        for one in self.sites:
            one.copy.cut(self.world)
            one.exported.clear()
        if goes_on:
            self.open_log(author)

    # --- bundles and tampering

    def export(self, site: Site) -> Path:
        self.bundles += 1
        return export_bundle(
            site.store, self.charter_bytes, self.directory / f"bundle{self.bundles}"
        )

    def verify(self, *bundles: Path) -> Any:
        return verify_bundles(list(bundles), self.charter_bytes, self.charter.digest_hex)

    @rule(number=SITES)
    def export_and_verify(self, number: int) -> None:
        """An honest bundle verifies, shows what the store has, and what was final stays final."""
        site = self.sites[self.pick(number)]
        logs = self.closed(site.copy.logs)
        report = self.verify(self.export(site))
        if lacks_kept(self.world, logs):  # a quorum vouches for records that this site never got
            codes = {one.error.code for one in report.findings}
            assert codes
            assert codes <= {"E_OMISSION", "E_MISSING_AUTHOR"}, report.to_text()
            return
        assert report.verdict == ("VERIFIED" if logs else "EMPTY"), report.to_text()
        found = {(one.author, one.epoch): one for one in report.logs}
        assert {log: one.records for log, one in found.items()} == {
            log: len(records) for log, records in logs.items()
        }
        expected = final(self.world, logs)
        assert {log: one.final_seq for log, one in found.items()} == expected
        for log, seq in site.exported.items():
            assert expected[log] >= seq, "what was final is not final any more"
        site.exported = expected

    def closed(self, logs: dict[Log, list[R]]) -> dict[Log, list[R]]:
        """What an exporter may show: nothing that refers to what it does not hold."""
        shown = {log: list(records) for log, records in logs.items()}
        changed = True
        while changed:
            changed = False
            for records in shown.values():
                for at, r in enumerate(records):
                    if any(
                        not self.world.is_void(r, one) and one[2] >= len(shown.get(one[:2], ()))
                        for one in r.references
                    ):
                        del records[at:]
                        changed = True
                        break
        return {log: records for log, records in shown.items() if records}

    @rule(one=SITES, other=SITES)
    def verify_side_by_side(self, one: int, other: int) -> None:
        """Two honest bundles never contradict each other."""
        sites = [self.sites[self.pick(number)] for number in (one, other)]
        report = self.verify(*(self.export(site) for site in sites))
        both = [self.closed(site.copy.logs) for site in sites]
        longer = {
            log: max((logs.get(log, []) for logs in both), key=len) for log in {*both[0], *both[1]}
        }
        if lacks_kept(self.world, longer):
            return
        assert report.verdict in ("VERIFIED", "EMPTY"), report.to_text()

    @rule(number=SITES, how=st.sampled_from(["flip", "drop", "swap"]), data=st.data())
    def tamper(self, number: int, how: str, data: st.DataObject) -> None:
        site = self.sites[self.pick(number)]
        logs = self.closed(site.copy.logs)
        long_enough = [log for log in sorted(logs) if len(logs[log]) >= 2]
        if not long_enough or lacks_kept(self.world, logs):
            return
        log = data.draw(st.sampled_from(long_enough), label="log")
        bundle = self.export(site)
        path = bundle / "logs" / log_name(log)
        frames = list(read_frames(path))
        assert len(frames) == len(logs[log])
        at = data.draw(st.integers(0, len(frames) - 2), label="record")
        if how == "flip":
            raw = bytearray(path.read_bytes())
            position = data.draw(st.integers(0, len(raw) - 1), label="byte")
            raw[position] ^= 1 << data.draw(st.integers(0, 7), label="bit")
            path.write_bytes(raw)
        elif how == "drop":
            path.write_bytes(framed(frames[: at + 1]))
        else:
            frames[at], frames[at + 1] = frames[at + 1], frames[at]
            path.write_bytes(framed(frames))
        report = self.verify(bundle)
        codes = {one.error.code for one in report.findings}
        if how == "drop":
            missed = is_missed(self.world, logs, log, at + 1)
            assert report.verdict == ("REFUTED" if missed else "VERIFIED"), report.to_text()
            assert codes <= {"E_OMISSION", "E_AGG_INPUT"}, report.to_text()
        else:
            assert report.verdict == "REFUTED", f"{how} in {log} went unnoticed"
            assert str(path) in {one.error.file for one in report.findings}
            assert how == "flip" or "E_GAP" in codes

    @rule(number=SITES, other=SITES, data=st.data())
    def fork(self, number: int, other: int, data: st.DataObject) -> None:
        """A hospital shows two auditors two ends of its log; side by side, both are found out."""
        site, witness = self.sites[self.pick(number)], self.sites[self.pick(other)]
        logs, seen = self.closed(site.copy.logs), self.closed(witness.copy.logs)
        shared = [
            log
            for log in sorted(logs)
            if self.world.cut(log) is None and 2 <= len(logs[log]) <= len(seen.get(log, ()))
        ]
        if not shared or lacks_kept(self.world, logs) or lacks_kept(self.world, seen):
            return
        log = data.draw(st.sampled_from(shared), label="log")
        at = len(logs[log]) - 1
        original = self.real[logs[log][at].id].value
        twin = replace(original, kind=Kind.CLOSE, body=Close(reason=CloseReason.LEFT), acks=())
        if twin == original:
            twin = replace(twin, body=Close(reason=CloseReason.DONE))
        forged = sign_record(twin, signer_of(log)).signed.envelope()
        bundle = self.export(site)
        path = bundle / "logs" / log_name(log)
        path.write_bytes(framed([*list(read_frames(path))[:at], forged]))
        report = self.verify(bundle, self.export(witness))
        assert report.verdict == "REFUTED"
        assert "E_FORK" in {one.error.code for one in report.findings}, report.to_text()

    # --- what must hold after every step

    @invariant()
    def stores_hold_what_the_model_says(self) -> None:
        for site in self.sites:
            heads = {log: (h.next_seq, h.prev_id) for log, h in site.store.heads().items()}
            assert heads == {
                log: (len(records), records[-1].id) for log, records in site.copy.logs.items()
            }

    @invariant()
    def no_log_has_two_records_in_a_slot(self) -> None:
        slots: dict[tuple[Log, int], bytes] = {}
        for site in self.sites:
            for log, records in site.copy.logs.items():
                for r in records:
                    assert slots.setdefault((log, r.seq), r.id) == r.id


def body_kind(body: Body | bytes) -> int:
    kinds = {
        Contribution: Kind.CONTRIBUTION, Aggregation: Kind.AGGREGATION, Close: Kind.CLOSE,
        EvaluationCommit: Kind.EVALUATION_COMMIT, EvaluationReveal: Kind.EVALUATION_REVEAL,
        Rejection: Kind.REJECTION, Anchor: Kind.ANCHOR, Release: Kind.RELEASE,
        Withdrawal: Kind.WITHDRAWAL,
    }  # fmt: skip
    return int(kinds.get(type(body), Kind.METRICS))


def framed(envelopes: list[bytes]) -> bytes:
    return b"".join(len(one).to_bytes(4, "big") + one for one in envelopes) + END_MARK


def store_update_of(roster: Roster, signed: SignedUpdate) -> Roster:
    from ledger.roster_update import advance

    return advance(roster, signed)
