"""Each checker of the simulator, on what a calm swarm has left and on the same a little damaged."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from ledger.bundle import export_bundle
from ledger.fork import Cut, fork_proof
from ledger.record import (
    Aggregation,
    Contribution,
    EvaluationCommit,
    Kind,
    Reason,
    Record,
    Rejection,
    Verified,
)
from ledger.roster import Roster, Term
from node.exchange import GATHERED_MAX
from node.intake import PENDING_MAX, RECENT_IDS
from node.network import FETCH_PROTOCOL, GOSSIP_QUEUE_MAX, SYNC_PROTOCOL
from node.service import Service
from scenarios.simulation.accounts import everybody_is_accounted_for, late_inputs
from scenarios.simulation.checkers import (
    RECORDS_A_ROUND,
    RECORDS_A_ROUND_MEMBER,
    agreed_is_one,
    bundles_verify,
    logs_are_bounded,
    votes_are_single,
)
from scenarios.simulation.disk import DATABASE
from scenarios.simulation.held import Ledger
from scenarios.simulation.observations import DISK_BYTES, Observations
from scenarios.simulation.run import Run, scratch_folder
from swarm.protocol.book import Proposal, RoundBook
from swarm.protocol.messages import Hello, SyncReply, encode_gossip, encode_sync_reply
from tests.federation import Federation, after_removal, digest_of
from tests.scenarios.checker_ledgers import (
    AFTERWARDS,
    EVERYBODY,
    MEMBERS,
    ROUNDS,
    Remains,
    broken,
    calm_run,
    ledger_of,
    merge_of,
    remark,
)

LIAR = 3
HONEST = (0, 1, 2)
FIRST, SECOND = b"a" * 32, b"b" * 32
"""Two results of one round."""
Damage = Callable[[Remains], None]
CASES: list[tuple[Damage, set[str]]] = []


def breaks(invariant: str) -> Callable[[Damage], Damage]:
    """Expect this invariant to be broken, and no other."""
    return _expect({invariant})


def _expect(invariants: set[str]) -> Callable[[Damage], Damage]:
    def note(damage: Damage) -> Damage:
        CASES.append((damage, invariants))
        return damage

    return note


breaks_nothing = _expect(set())


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with scratch_folder() as directory:
        yield calm_run(directory)


@pytest.fixture
def remains(run: Run) -> Iterator[Remains]:
    with scratch_folder() as directory:
        yield Remains(run, directory)


# What a run has left: damaged in one place, judged as a whole


@breaks_nothing
def nothing(remains: Remains) -> None:
    agreed = remains.ledger(0).agreed(remains.roster)
    assert sorted(agreed) == [0, *range(1, ROUNDS + 1)]
    assert remains.seen.agreed(), "somebody was looked at"


@breaks_nothing
def one_more_record_that_everybody_holds(remains: Remains) -> None:
    remains.send(remains.write(1, remark()))


@breaks("no-record-lost")
def a_record_that_only_its_author_holds(remains: Remains) -> None:
    remains.store_on([1], remains.sign(1, remark()))


@breaks("no-record-lost")
def a_record_that_was_sent_and_that_nobody_holds(remains: Remains) -> None:
    remains.send(remains.sign(1, remark()))


@breaks("no-record-lost")
def a_record_that_one_member_lacks(remains: Remains) -> None:
    record = remains.sign(1, remark())
    remains.send(record)
    remains.store_on([0, 1, 2], record)


@breaks("no-record-lost")
def a_lost_record_of_a_member_that_said_goodbye(remains: Remains) -> None:
    remains.send(remains.sign(1, remark()))
    remains.bury(1, said_goodbye=True)


@breaks_nothing
def a_lost_record_of_a_member_that_stays_dead(remains: Remains) -> None:
    remains.send(remains.sign(1, remark()))
    remains.bury(1)


@breaks_nothing
def a_liars_record_that_one_member_lacks(remains: Remains) -> None:
    remains.accuse(LIAR)
    remains.store_on([0, 1], remains.sign(LIAR, remark()))


@breaks("one-signature-a-slot")
def another_record_was_sent_than_is_stored(remains: Remains) -> None:
    sent, stored = (remains.sign(1, remark(number)) for number in (1, 2))
    remains.send(sent)
    remains.store_on(EVERYBODY, stored)


@breaks_nothing
def a_liar_sent_another_record_than_is_stored(remains: Remains) -> None:
    remains.accuse(LIAR)
    sent, stored = (remains.sign(LIAR, remark(number)) for number in (1, 2))
    remains.send(sent)
    remains.store_on(HONEST, stored)


def fork(remains: Remains, *, deceived: Sequence[int]) -> None:
    """Show a liar's two records for one slot to members 0 and 1, who acknowledge theirs.

    deceived: to whom of these another liar says that it holds theirs too.
    """
    remains.accuse(2, LIAR)
    shown = [remains.sign(LIAR, remark(number)) for number in (0, 1)]
    acks = [remains.sign(index, remark(), acks=[one]) for index, one in enumerate(shown)]
    others = [remains.sign(2, remark(), acks=[one]) for one in shown]
    for index, one in enumerate(shown):
        remains.store_on([index], one, *acks)
    for index in deceived:
        remains.store_on([index], others[index])


@breaks("final-never-conflicts")
def a_slot_with_two_final_records(remains: Remains) -> None:
    fork(remains, deceived=[0, 1])


@breaks_nothing
def a_slot_with_a_final_record_and_one_that_lacks_an_ack(remains: Remains) -> None:
    fork(remains, deceived=[0])


@breaks("one-vote-a-round")
def two_offers_of_one_member(remains: Remains) -> None:
    remains.offer(0)
    remains.offer(0)


def merges_of_two_offers(remains: Remains, voters: Sequence[int]) -> None:
    """Let each voter merge another one of two offers."""
    offers = {author: remains.offer(author) for author in (1, 2)}
    for voter, (author, offer) in zip(voters, offers.items(), strict=True):
        others = [(one, Reason.LATE) for one in EVERYBODY if one != author]
        remains.write(voter, merge_of(offer, others))


@breaks("one-vote-a-round")
def two_votes_of_one_member(remains: Remains) -> None:
    merges_of_two_offers(remains, [0, 0])


@breaks_nothing
def two_votes_of_two_members(remains: Remains) -> None:
    merges_of_two_offers(remains, [0, 3])


@breaks_nothing
def two_votes_of_a_liar(remains: Remains) -> None:
    remains.accuse(LIAR)
    merges_of_two_offers(remains, [LIAR, LIAR])


def believe(remains: Remains, round_: int, **changes: bytes) -> None:
    """Let member 0 have taken what was agreed last for agreed in a round."""
    body = remains.said(0, Aggregation)
    proposal = Proposal(body.rule, body.inputs, changes.get("result", body.result_digest))
    remains.seen.agreed()[0][round_] = proposal


@breaks_nothing
def a_member_takes_for_agreed_what_is(remains: Remains) -> None:
    believe(remains, ROUNDS)


@breaks("agreed-is-equal")
def a_member_takes_another_result_for_agreed(remains: Remains) -> None:
    believe(remains, ROUNDS, result=bytes(32))


@breaks("agreed-is-equal")
def a_member_takes_a_round_for_agreed_in_which_nobody_voted(remains: Remains) -> None:
    believe(remains, AFTERWARDS)


@breaks("agreed-recomputable")
def an_input_that_nobody_ever_held(remains: Remains) -> None:
    remains.payload(remains.said(1, Contribution).update_digest).unlink()


@breaks("agreed-recomputable")
def a_result_that_nobody_ever_held(remains: Remains) -> None:
    remains.payload(remains.said(1, Aggregation).result_digest).unlink()


@breaks("bundles-verify")
def a_payload_that_is_not_what_its_name_says(remains: Remains) -> None:
    remains.payload(remains.said(1, Contribution).update_digest).write_bytes(bytes(84))


@breaks("bundles-verify")
def a_database_that_cannot_be_read(remains: Remains) -> None:
    (remains.evidence.disks[0] / DATABASE).write_bytes(b"no database")


@breaks("bounded")
def a_record_of_a_round_that_is_none(remains: Remains) -> None:
    remains.write(0, remark(), round_=AFTERWARDS + 1)


@breaks("bounded")
def a_disk_with_more_bytes_than_its_records_explain(remains: Remains) -> None:
    with (remains.evidence.disks[0] / "rubbish").open("wb") as file:
        file.truncate(2 * DISK_BYTES)


@breaks("bounded")
def payloads_that_nobody_removes(remains: Remains) -> None:
    for number in range(64):
        (remains.blobs(0) / f"{number}.1").touch()


@breaks("late-accounted")
def a_merge_that_says_nothing_of_one_member(remains: Remains) -> None:
    remains.write(0, merge_of(remains.offer(1), [(0, Reason.INACTIVE), (2, Reason.INACTIVE)]))


@breaks("late-accounted")
def a_merge_that_takes_a_member_in_and_leaves_it_out(remains: Remains) -> None:
    out = [(author, Reason.INACTIVE) for author in range(MEMBERS)]
    remains.write(0, merge_of(remains.offer(1), out))


def leave_out(remains: Remains, reason: Reason, *, knowing: bool) -> None:
    """Let member 0 leave out member 2, which has offered."""
    merged, other = remains.offer(1), remains.offer(2)
    remains.write(0, remark(), acks=[other] if knowing else [])
    remains.write(0, merge_of(merged, [(0, Reason.INACTIVE), (2, reason), (3, Reason.INACTIVE)]))


@breaks("late-accounted")
def a_merge_that_calls_late_whose_offer_it_had_acknowledged(remains: Remains) -> None:
    leave_out(remains, Reason.LATE, knowing=True)


@breaks("late-accounted")
def a_merge_that_calls_inactive_whose_offer_it_had_acknowledged(remains: Remains) -> None:
    leave_out(remains, Reason.INACTIVE, knowing=True)


@breaks_nothing
def a_merge_that_calls_inactive_who_stays_dead(remains: Remains) -> None:
    leave_out(remains, Reason.INACTIVE, knowing=True)
    remains.bury(2)


@breaks_nothing
def a_merge_that_calls_late_whose_offer_it_may_not_have_known(remains: Remains) -> None:
    leave_out(remains, Reason.LATE, knowing=False)


@breaks_nothing
def a_merge_that_says_that_an_offer_was_bad(remains: Remains) -> None:
    leave_out(remains, Reason.NOT_FINITE, knowing=True)


def call_sketch_false(remains: Remains) -> None:
    """Let two members, more than may lie, say that member 3's sketch is false."""
    target = remains.record(LIAR, Kind.SKETCH).id
    for index in (0, 1):
        remains.write(index, Rejection(target_id=target, reason=Reason.FALSE_SKETCH))


@breaks("honest-not-blamed")
def an_honest_members_sketch_that_two_call_false(remains: Remains) -> None:
    call_sketch_false(remains)


@breaks_nothing
def a_liars_sketch_that_two_call_false(remains: Remains) -> None:
    remains.accuse(LIAR)
    call_sketch_false(remains)


@breaks("honest-not-blamed")
def a_proof_that_an_honest_member_signed_twice(remains: Remains) -> None:
    first, second = (remains.sign(1, remark(number)).signed for number in (1, 2))
    remains.write(0, fork_proof(first, second))


@breaks("honest-not-blamed")
def an_offer_that_is_anothers_which_its_author_had(remains: Remains) -> None:
    remains.offer(1, digest=remains.said(0, Contribution).update_digest)


@breaks("honest-not-blamed")
def scores_that_their_author_never_reveals(remains: Remains) -> None:
    remains.prolong()
    remains.write(1, EvaluationCommit(commitment=digest_of("scores")))
    remains.write(1, remark(), round_=AFTERWARDS + 1)


@breaks_nothing
def an_offer_that_is_its_own_base(remains: Remains) -> None:
    remains.offer(1, digest=remains.said(1, Contribution).base_digest)


@breaks_nothing
def a_cut_that_everybody_keeps_to(remains: Remains) -> None:
    remains.accuse(LIAR)
    remains.remove(LIAR)


@breaks("nothing-behind-a-cut")
def a_record_behind_a_cut(remains: Remains) -> None:
    remains.accuse(LIAR)
    record = remains.sign(LIAR, remark())
    remains.remove(LIAR)
    remains.store_on([0], record)


@breaks("nothing-behind-a-cut")
def another_branch_than_a_cut_has_kept(remains: Remains) -> None:
    remains.accuse(LIAR)
    kept, other = (remains.sign(LIAR, remark(number)) for number in (1, 2))
    remains.remove(LIAR, kept)
    remains.store_on([0], other)
    remains.store_on([1, 2], kept)


@pytest.mark.parametrize(("damage", "invariants"), CASES, ids=[one.__name__ for one, _ in CASES])
def test_what_is_left_breaks(remains: Remains, damage: Damage, invariants: set[str]) -> None:
    damage(remains)
    assert remains.judged() == invariants, [str(one) for one in remains.seen.violations]


# Ledgers of a few records, each judged by one checker


@pytest.mark.parametrize(
    ("count", "round_", "invariants"),
    [
        (RECORDS_A_ROUND + RECORDS_A_ROUND_MEMBER * MEMBERS, AFTERWARDS, set()),
        (RECORDS_A_ROUND + RECORDS_A_ROUND_MEMBER * MEMBERS + 1, AFTERWARDS, {"bounded"}),
        (1, AFTERWARDS + 1, {"bounded"}),
    ],
)
def test_a_log_has_so_many_records_of_a_round(
    run: Run, count: int, round_: int, invariants: set[str]
) -> None:
    opening = Federation(MEMBERS)[0].open()
    slots = [(0, 0, seq) for seq in range(count)]
    record = replace(opening.value, round=round_)
    ledger = Ledger(dict.fromkeys(slots, opening.id), dict.fromkeys(slots, record))
    seen = unseen()
    logs_are_bounded(run.evidence(), {0: ledger}, seen)
    assert broken(seen) == invariants


def unseen() -> Observations:
    return Observations(frozenset(EVERYBODY), MEMBERS)


def held(federation: Federation) -> list[Verified[Record]]:
    return [record for author in federation.authors for record in author.records]


def offered(federation: Federation) -> list[Verified[Record]]:
    federation.open_all()
    return [author.contribute(1) for author in federation.authors]


@pytest.mark.parametrize(
    ("first", "second", "invariants"),
    [
        ((0, 2, 3), (), set()),
        ((0, 2, 3), (1, 2), set()),
        ((0, 2, 3), (1, 2, 3), {"agreed-is-equal"}),
    ],
    ids=["one has a quorum", "the other lacks a vote", "two have a quorum"],
)
def test_two_members_may_not_show_two_results_of_a_round(
    first: tuple[int, ...], second: tuple[int, ...], invariants: set[str]
) -> None:
    ledgers, roster = {}, Federation(MEMBERS).roster
    for index, (voters, result) in enumerate(((first, FIRST), (second, SECOND))):
        federation = Federation(MEMBERS)
        offers = offered(federation)
        for voter in voters:
            federation[voter].vote(1, offers, result=result)
        ledgers[index] = ledger_of(held(federation))
    seen = unseen()
    agreed_is_one(ledgers, dict.fromkeys(ledgers, roster), seen)
    assert broken(seen) == invariants


def believed(federation: Federation, votes: int) -> Observations:
    """Let so many members vote for what member 0 takes for agreed."""
    offers = offered(federation)
    (vote, *_) = [federation[voter].vote(1, offers).value.body for voter in range(votes)]
    assert isinstance(vote, Aggregation)
    seen = unseen()
    seen.agreed()[0] = {1: Proposal(vote.rule, vote.inputs, vote.result_digest)}
    return seen


def agreed_as_shown(federation: Federation, roster: Roster, seen: Observations) -> set[str]:
    agreed_is_one({0: ledger_of(held(federation))}, {0: roster}, seen)
    return broken(seen)


@pytest.mark.parametrize(("votes", "invariants"), [(2, {"agreed-is-equal"}), (3, set())])
def test_what_is_taken_for_agreed_has_a_quorum_of_votes(votes: int, invariants: set[str]) -> None:
    federation = Federation(MEMBERS)
    seen = believed(federation, votes)
    assert agreed_as_shown(federation, federation.roster, seen) == invariants


@pytest.mark.parametrize(("votes", "invariants"), [(1, {"agreed-is-equal"}), (2, set())])
def test_a_proven_fork_may_hide_one_vote(votes: int, invariants: set[str]) -> None:
    federation = Federation(MEMBERS)
    seen = believed(federation, votes)
    liar, body = federation[LIAR], remark()
    branches = [liar.write(Kind.METRICS, one, body, checked=False).signed for one in (1, 2)]
    federation[0].write(Kind.FORK_PROOF, 1, fork_proof(*branches))
    assert agreed_as_shown(federation, federation.roster, seen) == invariants


@pytest.mark.parametrize(("votes", "invariants"), [(2, {"agreed-is-equal"}), (3, set())])
def test_those_who_are_left_after_a_removal_are_a_quorum_of_their_own(
    votes: int, invariants: set[str]
) -> None:
    federation = Federation(MEMBERS)
    seen = believed(federation, votes)
    assert agreed_as_shown(federation, after_removal(federation.roster), seen) == invariants


@pytest.mark.parametrize(("lost", "invariants"), [(0, {"agreed-is-equal"}), (1, set())])
def test_a_cut_may_take_a_vote_for_what_was_agreed(lost: int, invariants: set[str]) -> None:
    federation = Federation(MEMBERS)
    seen = believed(federation, votes=3)
    voter = federation[2]
    seen._backed[0, 1] = {(2, 0): len(voter.records)}
    roster = cut_off(federation.roster, 2, len(voter.records) - lost)
    voter.records.pop()
    assert agreed_as_shown(federation, roster, seen) == invariants


@pytest.mark.parametrize(("number", "invariants"), [(0, {"one-vote-a-round"}), (1, set())])
def test_round_zero_may_be_voted_on_again_under_another_number(
    run: Run, number: int, invariants: set[str]
) -> None:
    federation = Federation(MEMBERS)
    vote = merge_of(federation.open_all()[0], left_out=[])
    for parameters in ((), (number,)):
        federation[0].write(Kind.AGGREGATION, 0, replace(vote, parameters=parameters))
    seen = unseen()
    votes_are_single(run.plan, {0: ledger_of(held(federation))}, seen)
    assert broken(seen) == invariants


def test_what_is_on_a_disk_can_be_shown_to_an_auditor(remains: Remains) -> None:
    with remains.store(0) as store:
        charter = remains.evidence.charter.source_bytes
        bundle = export_bundle(store, charter, remains.evidence.scratch / "early")
    bundles_verify(remains.evidence, [bundle], {0: remains.ledger(0)}, remains.seen)
    assert broken(remains.seen) == set()
    remains.write(0, remark())
    bundles_verify(remains.evidence, [bundle], {0: remains.ledger(0)}, remains.seen)
    assert broken(remains.seen) == {"bundles-verify"}


@pytest.mark.parametrize(
    ("left_out", "invariants"),
    [
        ([(3, Reason.INACTIVE)], set()),
        ([], {"late-accounted"}),
        ([(3, Reason.INACTIVE), (9, Reason.INACTIVE)], {"late-accounted"}),
    ],
    ids=["all", "one is forgotten", "one is a stranger"],
)
def test_a_merge_names_each_member_and_nobody_else(
    left_out: list[tuple[int, int]], invariants: set[str]
) -> None:
    federation = Federation(MEMBERS)
    offers = offered(federation)
    federation[0].vote(1, offers[:3], left_out=left_out)
    ledger = ledger_of(federation[0].records + offers)
    seen = unseen()
    everybody_is_accounted_for(
        EVERYBODY, federation.charter, {0: ledger}, {0: federation.roster}, seen
    )
    assert broken(seen) == invariants


def test_late_inputs_of_agreed_rounds_are_counted() -> None:
    federation = Federation(MEMBERS)
    late, *others = offered(federation)
    inputs = [late, *(federation[one.value.author].contribute(2) for one in others)]
    for voter in HONEST:
        federation[voter].vote(2, inputs)
    ledger = ledger_of(held(federation))
    assert late_inputs(ledger, ledger.agreed(federation.roster)) == 1


# What is seen while a member runs


@pytest.fixture
def service(run: Run) -> Service:
    """A member that has run to the end."""
    return run.swarm.services[0]


def book_of(voters: Sequence[int], result: bytes = FIRST) -> RoundBook:
    """Return what a node knows that has seen these votes of round 1."""
    federation = Federation(MEMBERS)
    offers = offered(federation)
    book = RoundBook(federation.roster)
    votes = [federation[voter].vote(1, offers, result=result) for voter in voters]
    for record in (*offers, *votes):
        book.learn(record)
    return book


def cut_off(roster: Roster, member: int, kept: int) -> Roster:
    """Return a roster that has rotated a member, and keeps so much of its log."""
    (term,) = roster.terms[member]
    cut = Cut(author=member, epoch=0, kept=kept, head_id=digest_of("head"))
    terms = list(roster.terms)
    terms[member] = (replace(term, until=1, cut=cut), Term(ledger_key=bytes(32), since=1))
    return replace(roster, version=1, versions=(0, 1), terms=tuple(terms))


@pytest.mark.parametrize(
    ("later", "invariants"),
    [
        (((0, 1, 2), FIRST), set()),
        (((0, 1, 2, 3), FIRST), set()),
        (((0, 1), FIRST), {"completed-stays"}),
        (((0, 1, 2), SECOND), {"completed-stays"}),
    ],
    ids=["the same", "one more vote", "forgotten", "taken back"],
)
def test_what_a_member_took_for_agreed_stays(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    later: tuple[Sequence[int], bytes],
    invariants: set[str],
) -> None:
    seen = unseen()
    for voters, result in (((0, 1, 2), FIRST), later):
        monkeypatch.setattr(service, "book", book_of(voters, result))
        seen.looks(0, service)
    assert broken(seen) == invariants


@pytest.mark.parametrize(
    ("member", "lost", "invariants"),
    [(2, 1, set()), (2, 0, {"completed-stays"}), (3, 1, {"completed-stays"})],
    ids=["its vote", "nothing of its log", "no vote for it"],
)
def test_a_round_may_open_again_when_a_cut_takes_a_vote(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    member: int,
    lost: int,
    invariants: set[str],
) -> None:
    seen = unseen()
    monkeypatch.setattr(service, "book", book_of((0, 1, 2)))
    seen.looks(0, service)
    kept = service.journal.counts()[member, 0] - lost
    roster = cut_off(service.journal.roster, member, kept)
    monkeypatch.setattr(service.journal, "_roster", roster)
    monkeypatch.setattr(service, "book", book_of((0, 1)))
    seen.looks(0, service)
    assert broken(seen) == invariants


@pytest.mark.parametrize("surplus", [0, 1])
@pytest.mark.parametrize(
    ("place", "name", "limit"),
    [
        ("journal.intake", "_pending", PENDING_MAX),
        ("journal.intake", "_recent", RECENT_IDS),
        ("exchange", "heard", MEMBERS),
        ("exchange", "_gathered", GATHERED_MAX),
        ("", "_running", 2 * MEMBERS + 8),
    ],
)
def test_what_a_member_holds_in_memory_is_bounded(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    name: str,
    limit: int,
    surplus: int,
) -> None:
    holder: object = service
    for step in filter(None, place.split(".")):
        holder = getattr(holder, step)
    monkeypatch.setattr(holder, name, OrderedDict.fromkeys(range(limit + surplus)))
    seen = unseen()
    seen.looks(0, service)
    assert broken(seen) == ({"bounded"} if surplus else set())


@pytest.mark.parametrize("surplus", [0, 1])
def test_gossip_that_waits_is_bounded(surplus: int) -> None:
    seen = unseen()
    seen.queue(0, GOSSIP_QUEUE_MAX + surplus)
    assert broken(seen) == ({"bounded"} if surplus else set())


@pytest.mark.parametrize(
    ("author", "lost", "taken", "invariants"),
    [
        (0, 0, None, set()),
        (0, 1, None, {"durable-before-sent"}),
        (1, 0, None, set()),
        (1, 1, None, {"durable-before-acked"}),
        (1, 1, 1, set()),
        (1, 1, 0, {"durable-before-acked"}),
        (LIAR, 1, 0, set()),
    ],
    ids=[
        "nothing",
        "a record that it had sent",
        "what it had not acknowledged",
        "a record that it had acknowledged",
        "what a cut took",
        "what a cut has kept",
        "a liar's, of which a cut may have kept another branch",
    ],
)
def test_a_member_starts_with_all_that_it_had_sent_or_acknowledged_but(
    remains: Remains,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    author: int,
    lost: int,
    taken: int | None,
    invariants: set[str],
) -> None:
    """author: of whose records, as far as member 0 wrote or acknowledged them, some are gone.

    lost: how many. taken: how many of them a cut has taken; None: there is none.
    """
    seen = remains.seen
    seen.honest = frozenset(HONEST)
    own = remains.ledger(0).of(0)
    known = {0: len(own)} | {ack.author: ack.seq + 1 for one in own for ack in one.acks}
    heads = dict(service.journal.heads())
    heads[author, 0] = replace(heads[author, 0], next_seq=known[author] - lost)
    monkeypatch.setattr(service.journal, "_heads", heads)
    if taken is not None:
        roster = cut_off(service.journal.roster, author, known[author] - taken)
        monkeypatch.setattr(service.journal, "_roster", roster)
    with remains.store(0) as store:
        others = [one for index in EVERYBODY if index != author for one in store.records(index)]
        stored = [*others, *store.records(author, limit=known[author] - lost)]
    seen.starts(0, service.journal, stored)
    assert broken(seen) == invariants


@pytest.mark.parametrize("channel", ["gossip", "reply"])
@pytest.mark.parametrize(
    ("sender", "numbers", "invariants"),
    [(1, (1, 1), set()), (1, (1, 2), {"one-signature-a-slot"}), (0, (1, 2), set())],
    ids=["one record twice", "two records", "another's two records"],
)
def test_two_records_for_one_slot_leave_a_member(
    remains: Remains, channel: str, sender: int, numbers: tuple[int, int], invariants: set[str]
) -> None:
    seen = unseen()
    for number in numbers:
        leave(seen, sender, channel, remains.sign(1, remark(number)).signed.envelope())
    assert broken(seen) == invariants


def leave(seen: Observations, sender: int, channel: str, envelope: bytes) -> None:
    if channel == "gossip":
        seen.broadcast(sender, encode_gossip([envelope]))
        return
    hello = Hello(heads={}, round=0, phase=0, time_ms=0)
    reply = encode_sync_reply(SyncReply(hello=hello, envelopes=(envelope,)))
    seen.replied(sender, SYNC_PROTOCOL, reply)


@pytest.mark.parametrize("channel", ["gossip", "reply"])
def test_what_leaves_a_member_is_a_record(remains: Remains, channel: str) -> None:
    seen = unseen()
    leave(seen, 1, channel, remains.sign(1, remark()).signed.envelope()[:-1])
    assert broken(seen) == {"well-formed"}


@pytest.mark.parametrize(
    ("protocol", "invariants"), [(SYNC_PROTOCOL, {"well-formed"}), (FETCH_PROTOCOL, set())]
)
def test_an_answer_to_a_comparison_can_be_read(protocol: str, invariants: set[str]) -> None:
    seen = unseen()
    seen.replied(1, protocol, b"no answer")
    assert broken(seen) == invariants


@pytest.mark.parametrize(("server", "invariants"), [(0, {"commit-before-fetch"}), (LIAR, set())])
def test_who_serves_a_payload_too_early_is_blamed_unless_it_lies(
    server: int, invariants: set[str]
) -> None:
    seen = Observations(frozenset(HONEST), MEMBERS)
    seen.leaked(server, 1, digest_of("payload"))
    assert broken(seen) == invariants
