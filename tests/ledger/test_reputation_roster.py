"""A roster that changes later changes nothing about the rounds before."""

from dataclasses import replace

from reputation_records import Evaluated, opened, usual

from ledger.fork import Cut
from ledger.reputation import replay
from ledger.roster import Roster, Term


def without(roster: Roster, author: int, federation: Evaluated) -> Roster:
    """Return version 1, in which ``author`` is no member any more."""
    log = federation.logs[author]
    cut = Cut(author=author, epoch=0, kept=len(log), head_id=log[-1].id)
    terms = list(roster.terms)
    terms[author] = (Term(ledger_key=roster.key(author, 0), since=0, until=1, cut=cut),)
    return replace(roster, version=1, versions=(0, 1), terms=tuple(terms))


def test_the_newest_roster_gives_the_old_rounds_as_they_were() -> None:
    federation = opened(7)
    federation.play_evaluated(1)
    before = replay(federation.records(), federation.roster)
    later = without(federation.roster, 6, federation)
    assert replay(federation.records(), later) == before
    assert before.rounds[0].votes_needed == 5


def test_from_the_round_in_which_a_record_names_it_the_new_roster_counts() -> None:
    federation = opened(7)
    federation.play_evaluated(1)
    old = replay(federation.records(), federation.roster)
    federation.roster = without(federation.roster, 6, federation)
    offered = {i: federation.contribute(i, 2) for i in range(6)}
    changes = {i: {j: usual(i, j, 2) for j in range(6) if j != i} for i in range(4)}
    federation.evaluate_round(2, offered, changes)
    reputation = replay(federation.records(), federation.roster)
    assert reputation.rounds[0] == old.rounds[0]
    outcome = reputation.rounds[1]
    assert outcome.votes_needed == 3  # n = 6, f = 1
    assert [line.member for line in outcome.members] == list(range(6))
    assert all(line.score_micro is not None for line in outcome.members)
    assert reputation.state.values_micro()[6] == old.state.values_micro()[6]
