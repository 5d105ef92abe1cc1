"""Equal votes before and after members have gone: a quorum stays one, and two never agree differently."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.electorate import is_quorum
from ledger.roster import Roster, Term, quorum, tolerated
from tests.federation import Federation

FIRST = Federation(4).roster


def roster_of(members: int, removed: frozenset[int] = frozenset(), *, added: int = 0) -> Roster:
    """A roster that has had so many members; with some removed, or the last ones added, it is version 1."""
    terms = tuple(
        (
            Term(
                ledger_key=bytes([one]) * 32,
                since=int(one >= members - added),
                until=1 if one in removed else None,
            ),
        )
        for one in range(members)
    )
    named = tuple(replace(FIRST.members[0], index=one, name=f"m{one}") for one in range(members))
    versions = (0, 1) if removed or added else (0,)
    return replace(FIRST, version=len(versions) - 1, versions=versions, members=named, terms=terms)


def votes(*authors: int, version: int = 0) -> dict[int, int]:
    return dict.fromkeys(authors, version)


def test_a_quorum_of_one_roster_agrees_and_one_less_does_not() -> None:
    roster = roster_of(7)
    assert is_quorum(roster, votes(0, 1, 2, 3, 4))
    assert not is_quorum(roster, votes(0, 1, 2, 3))
    assert not is_quorum(roster, {})


def test_what_was_agreed_with_the_vote_of_one_who_was_removed_stays_agreed_without_it() -> None:
    after = roster_of(5, frozenset({0}))
    assert is_quorum(roster_of(5), votes(0, 1, 3, 4))
    assert is_quorum(after, votes(1, 3, 4))
    assert not is_quorum(after, votes(1, 3))
    assert not is_quorum(after, votes(1, 3, 4), after_removals=False)
    assert is_quorum(after, votes(0, 1, 3, 4), after_removals=False), "nothing of it was cut away"


def test_votes_before_and_after_a_removal_count_together() -> None:
    after = roster_of(5, frozenset({0}))
    assert is_quorum(after, votes(1, 2) | votes(3, version=1))
    assert not is_quorum(after, votes(1, 2) | votes(3, version=1), after_removals=False)
    assert not is_quorum(after, votes(0, 1) | votes(3, version=1)), "who is gone votes no more"


def test_proven_liars_are_out_of_both() -> None:
    after = roster_of(5, frozenset({0}))
    assert is_quorum(after, votes(1, 2), proven=frozenset({4}))
    assert not is_quorum(after, votes(1, 2), proven=frozenset({3, 4})), "more than are tolerated"


def test_what_was_agreed_beside_a_proven_liar_stays_agreed_when_somebody_is_added() -> None:
    after = roster_of(5, added=1)
    assert is_quorum(roster_of(4), votes(0, 1), proven=frozenset({2}))
    assert is_quorum(after, votes(0, 1), proven=frozenset({2}))
    assert not is_quorum(after, votes(0, 1)), "of four members three are a quorum"
    assert not is_quorum(after, votes(0, 1, version=1), proven=frozenset({2})), "of five, four"


@pytest.mark.parametrize("members", range(4, 14))
def test_removing_so_many_that_two_quorums_may_miss_each_other_opens_the_round_again(
    members: int,
) -> None:
    for gone in range(1, members - 2):
        left = members - gone
        shares = quorum(left) + quorum(members) - members > tolerated(left)
        after = roster_of(members, frozenset(range(gone)))
        assert is_quorum(after, votes(*range(gone, members))) is (
            shares or left >= quorum(members)
        ), (members, gone)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_two_results_are_agreed_whoever_has_heard_of_a_removal(data: st.DataObject) -> None:
    members = data.draw(st.integers(4, 13), label="members")
    gone = frozenset(
        data.draw(st.sets(st.integers(0, members - 1), max_size=members - 3), label="gone")
    )
    everybody = frozenset(range(members))
    left = sorted(everybody - gone)
    liars = frozenset(
        data.draw(st.sets(st.sampled_from(left), max_size=tolerated(len(left))), label="liars")
    )
    lying = (
        data.draw(st.sets(st.sampled_from(sorted(gone))), label="gone, and lying") if gone else ()
    )
    liars |= frozenset(sorted(lying)[: max(tolerated(members) - len(liars), 0)])
    if len(liars) > tolerated(members):
        return
    proven = frozenset(one for one in sorted(liars - gone) if data.draw(st.booleans()))
    upright = sorted(everybody - liars)
    sides = data.draw(
        st.lists(st.sampled_from("ab-"), min_size=len(upright), max_size=len(upright)),
        label="votes",
    )
    # Of a round that is voted on under both rosters no rule can be sure if so many go at once.
    shares = quorum(len(left)) + quorum(members) - members > tolerated(len(left))
    newest = {who: int(bool(gone) and shares and who not in gone) for who in everybody}
    named = {who: data.draw(st.integers(0, newest[who])) for who in sorted(everybody)}

    def agreed_anywhere(side: str) -> bool:
        """On any disk: with everything that one may have heard, before or after cut and proof."""
        backers = {one for one, said in zip(upright, sides, strict=True) if said == side} | liars
        before, after = roster_of(members), roster_of(members, gone)
        for frozen in (frozenset[int](), proven):
            heard = {who: named[who] for who in backers - frozen}
            cut = {who: version for who, version in heard.items() if who not in gone}
            first = {who: 0 for who, version in heard.items() if version == 0}
            if is_quorum(before, first, proven=frozen) or any(
                is_quorum(after, one, proven=frozen) for one in (heard, cut)
            ):
                return True
        return False

    assert not (agreed_anywhere("a") and agreed_anywhere("b"))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_two_results_are_agreed_whoever_has_heard_of_an_addition(data: st.DataObject) -> None:
    members = data.draw(st.integers(4, 13), label="members before")
    everybody = range(members + 1)
    liars = frozenset(
        data.draw(st.sets(st.integers(0, members - 1), max_size=tolerated(members)), label="liars")
    )
    proven = frozenset(one for one in sorted(liars) if data.draw(st.booleans()))
    said = {one: data.draw(st.sampled_from("ab-")) for one in everybody if one not in liars}
    named = {one: data.draw(st.integers(int(one == members), 1)) for one in everybody}

    def agreed_anywhere(side: str) -> bool:
        """On any disk: liars vote for both under either roster, until they are proven."""
        backers = {one: named[one] for one, vote in said.items() if vote == side}
        before = {one: version for one, version in backers.items() if version == 0}
        return any(
            is_quorum(roster, voters | dict.fromkeys(liars - frozen, version), proven=frozen)
            for frozen in (frozenset[int](), proven)
            for roster, voters, version in (
                (roster_of(members), before, 0),
                (roster_of(members + 1, added=1), backers, 0),
                (roster_of(members + 1, added=1), backers, 1),
            )
        )

    assert not (agreed_anywhere("a") and agreed_anywhere("b"))
