"""Round zero votes until it agrees, and never on two things: the rule, all small cases, and whole swarms."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from random import Random

import pytest

from ledger.fork import Cut
from ledger.record import Aggregation, Codec, sign_record
from ledger.roster import quorum, tolerated
from swarm.protocol.attempts import Claim, Next, next_vote
from swarm.protocol.book import Proposal
from swarm.protocol.effects import Adopt, Fetch, Merge
from swarm.protocol.round import Phase
from tests.federation import Desk, Federation, after_removal, input_of, result_of
from tests.swarm.protocol.paper_swarm import PaperSwarm

VALUES = "xy"
Votes = tuple[str | None, ...]
"""What each member voted for in one attempt; None: nothing (yet)."""


def claims_of(votes: Mapping[int, str], *, members: int) -> list[Claim[str]]:
    """What may have become of votes of one electorate."""
    seen = {"unseen": members - len(votes), "quorum": quorum(members)}
    counts: dict[str | None, int] = {None: 0, **Counter(votes.values())}
    return [Claim(value=value, votes=count, **seen) for value, count in counts.items()]


def test_what_may_have_won_unseen_must_be_voted_for_again() -> None:
    assert next_vote(claims_of({0: "x", 1: "x", 2: "y"}, members=4)) == Next(ready=True, bound="x")
    assert next_vote(claims_of({0: "x", 1: "y", 2: "z"}, members=4)) == Next(ready=True)
    assert not next_vote(claims_of({0: "x", 1: "y"}, members=4)).ready, "either may have won"
    assert not next_vote(claims_of({0: "x"}, members=4)).ready, "something unseen may have won"


def decided(votes: Votes) -> str | None:
    enough = quorum(len(votes))
    return next((value for value in VALUES if votes.count(value) >= enough), None)


@cache
def choices(votes: Votes, own: int) -> frozenset[str | None]:
    """Everything that an honest member may vote for next, whatever of these votes it has seen."""
    cast = {author: value for author, value in enumerate(votes) if value is not None}
    others = [author for author in cast if author != own]
    found: set[str | None] = {None}
    for seen in product((False, True), repeat=len(others)):
        view = {
            author: cast[author] for author, is_seen in zip(others, seen, strict=True) if is_seen
        }
        if own in cast:
            view[own] = cast[own]
        allowed = next_vote(claims_of(view, members=len(votes)))
        if allowed.ready:
            found |= set(VALUES) if allowed.bound is None else {allowed.bound}
    return frozenset(found)


def after(votes: Votes, liars: int) -> set[Votes]:
    """Every course that the next attempt can take; the last ``liars`` members vote as they like."""
    honest = len(votes) - liars
    options = [choices(votes, own) for own in range(honest)]
    options += [frozenset({None, *VALUES})] * liars
    return set(product(*options))


@pytest.mark.parametrize("members", [2, 3, 4, 5, 6])
def test_no_two_attempts_ever_agree_on_different_things(members: int) -> None:
    """Exhaustive: every first vote, every partial view, every lie, to the end of what can be reached."""
    liars = tolerated(members)
    for first in product((None, *VALUES), repeat=members):
        won = decided(first)
        if won is None:
            continue
        reached, frontier = {first}, [first]
        while frontier:
            for votes in after(frontier.pop(), liars) - reached:
                assert decided(votes) in (None, won), (first, votes)
                reached.add(votes)
                frontier.append(votes)


@pytest.mark.parametrize("members", range(2, 10))
def test_the_votes_of_all_who_are_not_lost_always_are_enough(members: int) -> None:
    alive = members - tolerated(members)
    random = Random(members)
    for _ in range(500):
        votes = {author: random.choice("xyz") for author in range(alive)}
        assert next_vote(claims_of(votes, members=members)).ready, votes


def unlucky(seed: int) -> tuple[PaperSwarm, list[int]]:
    """Slow lines, short deadlines, and up to f members lost at any moment of round zero."""
    random = Random(seed)
    count = random.choice([3, 4, 4, 5, 6, 7])
    swarm = PaperSwarm(
        count,
        seed=seed,
        rounds=1,
        has_moments=True,
        members_min=1,
        delay_s=random.choice([0.05, 1.0]),
        jitter_s=random.choice([1.0, 6.0, 20.0]),
        sync_s=random.choice([5.0, 20.0, 40.0]),
        deadline_min_s=1.0,
        deadline_max_s=random.choice([2.0, 6.0]),
        grace_s=random.choice([0.5, 1.0]),
    )
    for site in swarm.sites:
        site.fetch_s = random.choice([0.1, 1.0, 2.0, 4.0, 8.0])
    return swarm, random.sample(range(count), tolerated(count))


def test_no_member_that_is_lost_in_round_zero_halts_it() -> None:
    attempts = []
    for seed in range(80):
        swarm, lost = unlucky(seed)
        swarm.run(Random(seed).random() * 30)
        for index in lost:
            swarm.kill(index)
        swarm.run(4_000)
        agreed = [site.machine.book.agreed(0) for site in swarm.sites if site.alive]
        assert swarm.done(), f"seed {seed}, lost {lost}:\n{swarm.course()}"
        assert len({one.proposal.result for one in agreed if one}) == 1, f"seed {seed}"
        attempts.append(max(one.attempt for one in agreed if one))
    assert sum(attempt > 0 for attempt in attempts) >= 5, "these seeds should split some votes"


def split() -> tuple[Federation, Desk, list[object]]:
    """Four members; the first two votes of round zero differ, and this desk's is one of them."""
    federation = Federation(4)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.advance()
    desk.learn(federation[0].vote(0, offers), federation[1].vote(0, offers[1:]))
    desk.advance()
    assert desk.phase is Phase.SETTLE
    return federation, desk, list(offers)


def test_a_split_vote_is_taken_again_once_enough_votes_are_known() -> None:
    federation, desk, offers = split()
    assert desk.wait(100) == (), "either may still win: not before a third vote"
    desk.learn(federation[2].vote(0, offers[1:]))  # type: ignore[arg-type]
    (merge,) = desk.advance()
    assert merge.attempt == 1  # type: ignore[union-attr]
    assert {offer.author for offer in merge.offers} == {1, 2, 3}, "it may have won"  # type: ignore[union-attr]


def test_equal_votes_under_rosters_of_the_same_members_agree() -> None:
    """A rotation in the middle of round zero: who has gone on could not vote again."""
    federation = Federation(4)
    federation.roster = replace(federation.roster, version=1, versions=(0, 1))
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    desk.learn(*offers, federation[0].vote(0, offers), federation[1].vote(0, offers))
    assert desk.book.agreed(0) is None
    late = federation[2].vote(0, offers)
    desk.learn(sign_record(replace(late.value, roster=1), federation[2].signer))
    assert desk.book.agreed(0) is not None


def test_equal_votes_of_two_electorates_agree_nothing_and_are_cast_again() -> None:
    """A member is removed in the middle of round zero: two voted before it, one after."""
    federation = Federation(4)
    federation.roster = after_removal(federation.roster)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.advance()
    desk.learn(federation[0].vote(0, offers), federation[1].vote(0, offers))
    late = federation[2].vote(0, offers)
    desk.learn(sign_record(replace(late.value, roster=1), federation[2].signer))
    desk.advance()
    assert desk.phase is Phase.SETTLE
    assert desk.book.agreed(0) is None
    (merge,) = desk.wait(100)
    assert merge.attempt == 1  # type: ignore[union-attr]
    assert {offer.author for offer in merge.offers} == {0, 1, 2, 3}, "it may have won"  # type: ignore[union-attr]


def test_an_agreement_in_an_attempt_is_one_and_late_votes_of_older_attempts_change_nothing() -> (
    None
):
    federation, desk, offers = split()
    desk.learn(federation[2].vote(0, offers[:3]))  # type: ignore[arg-type]
    desk.wait(100)
    for index in (0, 1, 2):
        desk.learn(federation[index].vote(0, offers[1:], attempt=1))  # type: ignore[arg-type]
    agreed = desk.book.agreed(0)
    assert agreed is not None
    assert agreed.attempt == 1
    desk.learn(federation[3].vote(0, offers))  # type: ignore[arg-type]
    assert desk.book.agreed(0) == agreed
    moments = result_of(0, [input_of(offer) for offer in offers[1:]])  # type: ignore[arg-type]
    assert agreed.proposal.result == moments


def test_a_liar_who_runs_ahead_through_the_attempts_moves_nobody() -> None:
    federation, desk, offers = split()
    desk.learn(federation[3].vote(0, offers[2:], attempt=2**40))  # type: ignore[arg-type]
    assert desk.wait(100) == ()
    desk.learn(federation[2].vote(0, offers[1:]))  # type: ignore[arg-type]
    (merge,) = desk.advance()
    assert merge.attempt == 1  # type: ignore[union-attr]


def test_what_a_forked_log_voted_for_is_known_to_nobody() -> None:
    """Two honest votes for one set and a liar's for another: the liar may have told others otherwise."""
    federation, desk, offers = split()
    desk.learn(federation[3].vote(0, offers[2:]), federation[2].vote(0, offers[1:]))  # type: ignore[arg-type]
    assert desk.wait(100) != (), "all four votes are here, and nothing can have won"
    before = desk.machine.position.choice.again(1, lambda _offer: False)
    desk.book.freeze(3, 0, 2)
    bound = desk.machine.position.choice.again(1, lambda _offer: False)
    assert {offer.author for offer in before} == {offer.author for offer in bound} == {1, 2, 3}
    assert 3 not in desk.book.attempt_votes(0, 0)


def test_who_was_shown_another_branch_votes_for_what_may_have_won_without_naming_it_himself() -> (
    None
):
    """Twins of one contribution: two members hold one, this desk holds the other."""
    federation = Federation(4)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    twin = sign_record(replace(offers[3].value, time_ms=7), federation[3].signer)
    mine = [*offers[:3], twin]
    desk.learn(*mine)
    for offer in mine:
        desk.hold_payload(offer)
    desk.advance()
    desk.learn(federation[0].vote(0, mine))
    others = [federation[index].vote(0, offers) for index in (1, 2)]
    desk.learn(*others)
    desk.advance()
    assert desk.phase is Phase.SETTLE
    desk.book.freeze(3, 0, 1)
    body = others[0].value.body
    assert isinstance(body, Aggregation)
    assert desk.wait(100) == (Fetch(body.result_digest, (1, 2)),)
    desk.hold(body.result_digest, codec=Codec.MOMENTS)
    (effect,) = desk.advance()
    assert effect == Adopt(0, Proposal(body.rule, body.inputs, body.result_digest), (), 1)
    for index in (0, 1, 2):
        desk.learn(federation[index].vote(0, body.inputs, attempt=1))
    desk.advance()
    assert desk.book.agreed(0) is not None
    assert desk.phase is Phase.TRAIN


def test_after_a_split_nobody_votes_for_what_lies_behind_a_fork() -> None:
    """Three branches shown to three members: only what all can name is worth a vote."""
    federation = Federation(4)
    desk = Desk(federation, has_moments=True)
    desk.start()
    offers = [author.contribute(0) for author in federation.authors]
    desk.learn(*offers)
    for offer in offers:
        desk.hold_payload(offer)
    desk.advance()
    desk.learn(federation[0].vote(0, offers))
    for index in (1, 2):
        twin = sign_record(replace(offers[3].value, time_ms=index), federation[3].signer)
        desk.learn(federation[index].vote(0, [*offers[:3], twin]))
    desk.book.freeze(3, 0, 1)
    desk.advance()
    (merge,) = desk.wait(100)
    assert isinstance(merge, Merge)
    assert {offer.author for offer in merge.offers} == {0, 1, 2}


def test_an_attempt_that_others_have_begun_is_joined_not_leapt_over() -> None:
    federation, desk, offers = split()
    desk.learn(federation[2].vote(0, offers[1:]))  # type: ignore[arg-type]
    for index in (1, 2):
        desk.learn(federation[index].vote(0, offers[1:], attempt=1))  # type: ignore[arg-type]
    (merge,) = desk.wait(100)
    assert isinstance(merge, Merge)
    assert merge.attempt == 1, "with this vote the attempt has a quorum"


def test_while_something_may_have_won_that_nobody_can_vote_for_again_nobody_votes() -> None:
    barred = Claim(value="cut", votes=2, unseen=0, quorum=3, is_barred=True)
    assert next_vote([barred]) == Next(ready=True)
    assert not next_vote([replace(barred, unseen=1)]).ready
    assert not next_vote(
        [
            Claim(value="x", votes=1, unseen=1, quorum=2),
            Claim(value="y", votes=3, unseen=0, quorum=3),
        ]
    ).ready, "each in its own electorate"


@pytest.mark.parametrize(("before", "liars"), [(3, 0), (4, 0), (4, 1)])
def test_an_attempt_under_two_rosters_binds_whoever_goes_on_to_what_won_under_one(
    before: int, liars: int
) -> None:
    """Exhaustive: one is added, every vote names either roster, every partial view; liars are silent or vote."""
    electorates = (frozenset(range(before)), frozenset(range(before + 1)))
    ballots: list[Ballot | None] = [None, *product("xy", (0, 1))]
    options = [ballots] * before + [[None, ("x", 1), ("y", 1)]]
    for cast in product(*options):
        votes = {author: ballot for author, ballot in enumerate(cast) if ballot is not None}
        if not any(
            sum(ballot == ("x", version) for ballot in votes.values()) >= quorum(len(members))
            for version, members in enumerate(electorates)
        ):
            continue
        others = sum(
            any("y" in free(view, electorates) for view in views(votes, own))
            for own in range(liars, before + 1)
        )
        assert others + liars < quorum(before + 1), votes


@pytest.mark.parametrize("before", [3, 4, 5])
def test_under_two_rosters_too_the_votes_of_all_who_are_not_lost_are_enough(before: int) -> None:
    electorates = (frozenset(range(before)), frozenset(range(before + 1)))
    lost = tolerated(before)
    options = [list(product("xy", (0, 1)))] * (before - lost) + [[("x", 1), ("y", 1)]]
    for cast in product(*options):
        votes = dict(zip((*range(lost, before), before), cast, strict=True))
        assert free(votes, electorates), votes


Ballot = tuple[str, int]
"""(value, roster version)"""


def views(votes: Mapping[int, Ballot], own: int) -> Iterator[dict[int, Ballot]]:
    """Every part of the votes that a member may have heard, its own always."""
    heard = [author for author in votes if author != own]
    for seen in product((False, True), repeat=len(heard)):
        view = {
            author: votes[author] for author, is_seen in zip(heard, seen, strict=True) if is_seen
        }
        yield view | ({own: votes[own]} if own in votes else {})


def free(view: Mapping[int, Ballot], electorates: Sequence[frozenset[int]]) -> Collection[str]:
    """What may be voted for after such a view."""
    claims: list[Claim[str]] = []
    for version, members in enumerate(electorates):
        inside = Counter(value for value, named in view.values() if named == version)
        counts: dict[str | None, int] = {None: 0, **inside}
        unseen = len(members - view.keys())
        claims += [
            Claim(value=value, votes=count, unseen=unseen, quorum=quorum(len(members)))
            for value, count in counts.items()
        ]
    allowed = next_vote(claims)
    if not allowed.ready:
        return ()
    return "xy" if allowed.bound is None else allowed.bound


@pytest.mark.parametrize(("unheard", "expected"), [((), {0, 1, 2}), ((0,), set())])
def test_nobody_votes_again_for_what_a_cut_took_away_nor_for_anything_while_it_may_have_won(
    unheard: tuple[int, ...], expected: set[int]
) -> None:
    """Under four members two votes name the liar's contribution; then it is removed with all of it."""
    federation = Federation(4)
    federation.open_all()
    offers = [author.contribute(0) for author in federation.authors]
    votes = [federation[index].vote(0, offers) for index in (1, 2)]
    votes += [federation[index].vote(0, offers[:3]) for index in (0,) if index not in unheard]
    ended = replace(
        federation.roster.terms[3][-1],
        until=1,
        cut=Cut(author=3, epoch=0, kept=1, head_id=federation[3].records[0].id),
    )
    terms = (*federation.roster.terms[:3], (ended,))
    federation.roster = replace(federation.roster, version=1, versions=(0, 1), terms=terms)
    desk = Desk(federation, has_moments=True)
    for record in (*offers[:3], *votes):
        desk.learn(record)
    for offer in offers[:3]:
        desk.hold_payload(offer)
    assert desk.book.agreed(0) is None
    chosen = desk.machine.position.choice.again(1, lambda _offer: False)
    assert {offer.author for offer in chosen} == expected
    assert desk.machine.position.choice.adopted(1) is None
