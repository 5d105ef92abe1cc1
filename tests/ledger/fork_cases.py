"""What an auditor may be handed of a log that forks: proven, not proven, final or not. docs/ledger.md §8."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ledger_cases import Case, Files, bad, case, files_from
from ledger_factory import Federation, frames
from roster_factory import Living

from ledger.bodies import Close, CloseReason, ForkProof
from ledger.bundle import log_name
from ledger.chain import LogHead
from ledger.fork import Cut, fork_proof
from ledger.record import Kind, Record, Verified

LIAR = 3
Log = list[Verified[Record]]


class Forking:
    """Four members, of whom the last signs several records for its slot 1 or a later one."""

    def __init__(self, federation: Federation | None = None) -> None:
        self.federation = federation or Federation(4)
        self.federation.open_all()
        self.common = list(self.federation.logs[LIAR])
        self.branches: list[Log] = []

    def branch(self, length: int, *, after: Log | None = None, samples: int = 0) -> LogHead:
        """Write one branch of so many records, and return its head for others to ack."""
        federation, start = self.federation, self.common if after is None else after
        federation.logs[LIAR], federation.heads[LIAR] = [], None
        for record in start:
            federation.add_signed(record)
        number = samples or len(self.branches)
        for _ in range(length):
            body = federation.contribution_body(LIAR, 1, samples=1_000 + number)
            federation.write(LIAR, Kind.CONTRIBUTION, 1, body)
        self.branches.append(list(federation.logs[LIAR]))
        head = federation.heads[LIAR]
        assert head is not None
        return head

    def ack(self, member: int, head: LogHead) -> Verified[Record]:
        federation = self.federation
        body = federation.metrics_body(1)
        return federation.add(federation.draft(member, Kind.METRICS, 1, body, [head]))

    def prove(self, by: int = 0, *, seq: int = 1, branches: tuple[int, int] = (0, 1)) -> None:
        one, other = (self.branches[number][seq].signed for number in branches)
        self.federation.write(by, Kind.FORK_PROOF, 1, fork_proof(one, other))

    def bundle(self, branch: int | None) -> Files:
        """Everybody's records, and this branch of the liar's."""
        logs = [[one.signed.envelope() for one in log] for log in self.federation.logs]
        logs[LIAR] = [
            one.signed.envelope()
            for one in (self.branches[branch] if branch is not None else self.common)
        ]
        return files_from(self.federation.charter_bytes, dict(enumerate(logs)))

    def good(self, *branches: int | None, stands: int, void: int, **counts: Any) -> Case:
        return self.case(*branches, stands=stands, void=void, **counts)

    def case(
        self, *branches: int | None, stands: int, void: int, contested: int = 0, codes: str = "",
        seq: int = 1, missing: int = 0,
    ) -> Case:  # fmt: skip
        bundles = [self.bundle(branch) for branch in branches]
        found = bad(self.federation, *bundles, codes=codes, missing=missing)
        return replace(found, forks=[(LIAR, 0, seq, stands, void)], contested=contested)


# --- good -------------------------------------------------------------------------------------


@case
def a_proven_fork_stands_where_it_is_final() -> Case:
    """Two members and the author make one branch final; who acked the other is not blamed."""
    forking = Forking()
    one, other = forking.branch(3), forking.branch(2)
    for member in (0, 1):
        forking.ack(member, one)
    forking.ack(2, other)
    forking.prove()
    return forking.good(0, 1, stands=4, void=2, contested=1)


@case
def a_proven_fork_that_is_final_nowhere_is_void_on_both_branches() -> Case:
    forking = Forking()
    one, other = forking.branch(3), forking.branch(2)
    forking.ack(0, one)
    forking.ack(2, other)
    forking.prove()
    return forking.good(0, 1, stands=1, void=5, contested=2)


@case
def one_bundle_of_a_proven_fork() -> Case:
    """Nobody misses the branch that this one does not show."""
    forking = Forking()
    one, other = forking.branch(3), forking.branch(2)
    for member in (0, 1):
        forking.ack(member, one)
    forking.ack(2, other)
    forking.prove()
    return forking.good(0, stands=4, void=0, contested=1)


@case
def one_bundle_with_the_branch_that_is_not_final() -> Case:
    forking = Forking()
    one, other = forking.branch(3), forking.branch(2)
    for member in (0, 1):
        forking.ack(member, one)
    forking.ack(2, other)
    forking.prove()
    return forking.good(1, stands=1, void=2, contested=3, missing=1)


@case
def a_bundle_that_ends_before_a_proven_fork() -> Case:
    forking = Forking()
    forking.ack(0, forking.branch(1))
    forking.ack(2, forking.branch(1))
    forking.prove()
    return forking.good(None, stands=1, void=0, contested=2, missing=1)


@case
def three_branches_from_two_slots() -> Case:
    """The last one leaves the final branch behind its final record, and is void."""
    forking = Forking()
    one = forking.branch(2)
    forking.branch(2)
    for member in (0, 1):
        forking.ack(member, one)
    forking.branch(2, after=forking.branches[0])
    forking.branch(1, after=forking.branches[0], samples=7)
    forking.prove()
    return forking.good(2, 1, 3, stands=3, void=5)


@case
def a_merge_of_the_other_branch_is_contested() -> Case:
    forking = Forking()
    federation = forking.federation
    one = forking.branch(1)
    forking.branch(1)
    for member in (0, 1):
        forking.ack(member, one)
    body = federation.aggregation_body([forking.branches[1][1]], 1)
    federation.write(2, Kind.AGGREGATION, 1, body)
    forking.prove(by=2)
    return forking.good(0, 1, stands=2, void=1, contested=1)


@case
def a_fork_of_the_first_record_leaves_nothing() -> Case:
    forking = Forking()
    federation = forking.federation
    forking.branches.append(forking.common)
    federation.logs[LIAR], federation.heads[LIAR] = [], None
    federation.open(LIAR)
    forking.branches.append(list(federation.logs[LIAR]))
    forking.prove(seq=0)
    return forking.good(0, 1, stands=0, void=2, seq=0)


@case
def two_members_prove_the_same_fork_at_different_slots() -> Case:
    forking = Forking()
    one = forking.branch(2)
    forking.branch(2)
    for member in (0, 1):
        forking.ack(member, one)
    forking.prove(by=0, seq=2)
    forking.prove(by=2, seq=1)
    return forking.good(1, 0, stands=3, void=2)


def cut_after_a_fork(kept: int, branch: int) -> Case:
    """The admins keep the branch that is not final, or what both share."""
    federation = Living(4)
    forking = Forking(federation)
    forking.ack(0, forking.branch(3))
    forking.ack(2, forking.branch(2))
    forking.prove()
    log = forking.branches[branch]
    cut = Cut(author=LIAR, epoch=0, kept=kept, head_id=log[kept - 1].id)
    federation.rotate(LIAR, cuts=(cut,))
    federation.open(LIAR)
    bundles = []
    for one in forking.branches:
        files = federation.files()
        files[f"logs/{log_name((LIAR, 0))}"] = in_frames(one)
        bundles.append(files)
    void = sum(len(one) for one in forking.branches) - 2 - (kept - 1)
    contested = 2 if kept == 1 else 1
    found = bad(federation, *bundles)
    return replace(found, forks=[(LIAR, 0, 1, kept, void)], contested=contested)


def in_frames(log: Sequence[Verified[Record]]) -> bytes:
    return frames(one.signed.envelope() for one in log)


@case
def a_cut_keeps_one_branch_of_a_proven_fork() -> Case:
    return cut_after_a_fork(kept=3, branch=1)


@case
def a_cut_keeps_what_both_branches_share() -> Case:
    return cut_after_a_fork(kept=1, branch=0)


def acked_and_rewritten(seq: int, acked: int) -> Forking:
    """Members 0 and 1 ack slot ``acked``, and the author shows its log otherwise from ``seq`` on."""
    forking = Forking()
    one = forking.branch(acked)
    for member in (0, 1):
        forking.ack(member, one)
    forking.common = forking.branches[0][:seq]
    forking.branch(6 - seq)
    return forking


@case
def an_author_that_forks_its_end_to_rewrite_what_lies_before() -> Case:
    """Two records for slot 5, for show: they excuse whoever acked otherwise, and nothing more stands."""
    forking = acked_and_rewritten(2, acked=2)
    forking.branch(1, after=forking.branches[1][:5], samples=7)
    forking.prove(by=LIAR, seq=5, branches=(1, 2))
    forking.branches[1] = list(forking.federation.logs[LIAR])
    return forking.good(1, stands=2, void=5, contested=2, missing=1, seq=5)


@case
def an_author_that_proves_a_fork_of_two_branches_and_shows_a_third() -> Case:
    forking = acked_and_rewritten(1, acked=4)
    forking.branch(1, samples=7)
    forking.branch(1, samples=8)
    forking.prove(by=2, branches=(2, 3))
    forking.federation.logs[0].pop()
    forking.federation.logs[1].pop()
    return forking.good(1, stands=1, void=5)


@case
def an_author_that_forks_to_drop_what_was_final() -> Case:
    """No omission can be shown of a log that forks; that evidence is missing is said."""
    forking = acked_and_rewritten(4, acked=4)
    forking.branches.append(forking.branches[0][:3])
    forking.branch(1, after=forking.branches[0][:1], samples=7)
    forking.prove(by=2, branches=(0, 3))
    return forking.good(2, stands=1, void=2, contested=2, missing=1)


# --- bad --------------------------------------------------------------------------------------


@case
def a_fork_that_nobody_recorded() -> Case:
    """Also whoever acked the branch that its file does not show is refused: nothing excuses it."""
    forking = Forking()
    forking.branch(2)
    forking.branch(1)
    return bad(forking.federation, forking.bundle(0), forking.bundle(1), codes="9 E_FORK, 9 E_FORK")


@case
def a_proof_of_another_fork_excuses_nothing() -> Case:
    forking = Forking()
    federation = forking.federation
    forking.branch(2)
    forking.branch(1)
    draft = federation.draft(1, Kind.CLOSE, 1, Close(reason=CloseReason.DONE))
    one = federation.add(draft)
    federation.logs[1].pop()
    other = federation.add(replace(draft, body=Close(reason=CloseReason.LEFT)))
    federation.write(0, Kind.FORK_PROOF, 1, fork_proof(one.signed, other.signed))
    found = bad(
        federation, forking.bundle(0), forking.bundle(1), codes="9 E_FORK, 9 E_FORK"
    )  # fmt: skip
    return replace(found, forks=[(1, 0, 1, 1, 1)])


@case
def a_proof_that_proves_nothing_excuses_nothing() -> Case:
    forking = Forking()
    forking.branch(2)
    forking.branch(1)
    same = forking.branches[0][1].signed.envelope()
    proof = ForkProof(envelope_a=same, envelope_b=same)
    forking.federation.write(0, Kind.FORK_PROOF, 1, proof)
    return bad(
        forking.federation, forking.bundle(0), forking.bundle(1),
        codes="9 E_FORK, 9 E_FORK, 14 E_FORK_PROOF, 14 E_FORK_PROOF",
    )  # fmt: skip


@case
def two_final_branches_are_more_liars_than_are_tolerated() -> Case:
    forking = Forking()
    one, other = forking.branch(1), forking.branch(1)
    for member in (0, 1):
        forking.ack(member, one)
    for member in (1, 2):
        forking.ack(member, replace(other, lamport=one.lamport + 1))
    forking.prove()
    return forking.case(0, 1, stands=1, void=2, contested=4, codes="9 E_FORK")


@case
def a_void_branch_is_still_checked() -> Case:
    """A record that its key has not signed is refused, whatever branch it is on."""
    forking = Forking()
    one = forking.branch(2)
    forking.branch(2)
    for member in (0, 1):
        forking.ack(member, one)
    forking.prove()
    found = forking.case(0, 1, stands=3, void=1, codes="8 E_SIGNATURE")
    name = f"logs/{log_name((LIAR, 0))}"
    data = found.bundles[1][name]
    found.bundles[1][name] = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    return found


@case
def both_branches_in_one_file_are_no_chain() -> Case:
    forking = Forking()
    one = forking.branch(1)
    forking.branch(1)
    for member in (0, 1):
        forking.ack(member, one)
    forking.prove()
    found = forking.case(0, stands=2, void=0, codes="9 E_FORK")
    name = f"logs/{log_name((LIAR, 0))}"
    log = [*forking.branches[0], forking.branches[1][1]]
    found.bundles[0][name] = in_frames(log)
    return found
