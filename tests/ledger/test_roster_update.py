"""Updates by themselves: strict bytes, one change, and what a roster remembers."""

import contextlib
import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roster_factory import Living, lived, newcomer

from ledger.canonical import encode
from ledger.errors import VerificationError
from ledger.fork import Cut
from ledger.roster import Roster, quorum, tolerated
from ledger.roster_update import (
    Remove,
    SignedUpdate,
    advance,
    apply,
    decode_update,
    parse_update,
    update_digest,
)


def code_of(error: pytest.ExceptionInfo[VerificationError]) -> str:
    return error.value.code


def test_every_operation_reads_back_as_it_was_written() -> None:
    federation = lived()
    for signed in federation.updates:
        assert parse_update(signed.envelope()) == signed
        assert decode_update(signed.update_bytes).to_bytes() == signed.update_bytes


def test_a_roster_is_a_pure_function_of_its_updates() -> None:
    federation = lived()
    roster = Roster.from_charter(federation.charter)
    for signed, after in zip(federation.updates, federation.rosters[1:], strict=True):
        before = replace(roster)
        roster = advance(roster, signed)
        assert roster == after
        assert roster.digest == signed.digest == update_digest(signed.update_bytes)
        assert before != roster


def test_numbers_are_never_reused_and_old_versions_are_remembered() -> None:
    federation = lived()
    roster = federation.roster
    assert [member.index for member in roster.members] == list(range(5))
    assert [m.index for m in roster.active] == [1, 2, 3, 4]
    assert [sorted(roster.active_at(v)) for v in roster.versions] == [
        [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 3, 4],
    ]  # fmt: skip
    assert (roster.epoch(0), roster.epoch(1)) == (0, 1)
    assert roster.key(1, 0) != roster.key(1, 1)
    federation.change(newcomer(5))
    assert federation.roster.active[-1].index == 5


def test_a_removed_hospital_may_come_back_under_its_name_with_new_keys() -> None:
    federation = lived()
    with pytest.raises(VerificationError) as refused:
        federation.change(newcomer(0))
    assert code_of(refused) == "E_KEY_REUSE"
    federation.change(newcomer(5, name="Hospital 0"))
    assert federation.roster.member(5).name == federation.roster.member(0).name


def test_who_was_removed_signs_no_later_update() -> None:
    federation = lived()
    update = federation.propose(newcomer(5))
    with pytest.raises(VerificationError) as refused:
        advance(federation.roster, federation.signed(update, 0, 1, 2, 3))
    assert code_of(refused) == "E_UNKNOWN_AUTHOR"


def test_the_last_member_stays() -> None:
    federation = Living(1)
    federation.open(0)
    with pytest.raises(VerificationError) as refused:
        apply(federation.roster, federation.propose(Remove(author=0)))
    assert code_of(refused) == "E_SCHEMA"


@pytest.mark.parametrize("members", range(1, 257))
def test_two_quorums_share_more_than_the_liars(members: int) -> None:
    assert 2 * quorum(members) - members > tolerated(members)


def test_signatures_are_for_the_update_and_nothing_else() -> None:
    federation = Living(4)
    one = federation.signed(federation.propose(newcomer(4)))
    other = federation.propose(newcomer(5))
    with pytest.raises(VerificationError) as refused:
        advance(federation.roster, SignedUpdate(other.to_bytes(), one.signatures))
    assert code_of(refused) == "E_SIGNATURE"


def test_more_signatures_make_the_same_roster() -> None:
    federation = Living(4)
    update = federation.propose(newcomer(4))
    few, all_ = federation.signed(update), federation.signed(update, 0, 1, 2, 3)
    assert advance(federation.roster, few) == advance(federation.roster, all_)
    assert few.with_signature(*all_.signatures[3]) == all_


def test_every_changed_byte_of_a_signed_update_is_refused() -> None:
    federation = Living(4)
    data = federation.signed(federation.propose(federation.rotation(1))).envelope()
    for position in range(len(data)):
        bad = bytearray(data)
        bad[position] ^= 0x21
        with pytest.raises(VerificationError):
            advance(federation.roster, parse_update(bytes(bad)))
        with pytest.raises(VerificationError):
            advance(federation.roster, parse_update(data[:position]))


VALUES = st.recursive(
    st.integers(0, 2**53 - 1) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=9),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | VALUES.map(encode))
def test_no_bytes_crash_the_reader_and_what_it_takes_it_writes_again(data: bytes) -> None:
    with contextlib.suppress(VerificationError):
        assert parse_update(data).envelope() == data
    with contextlib.suppress(VerificationError):
        assert decode_update(data).to_bytes() == data


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5), VALUES)
def test_no_value_in_any_field_crashes_the_reader(field: int, value: object) -> None:
    from ledger.canonical import decode

    fields = decode(Living(1).propose(newcomer(1)).to_bytes())
    assert isinstance(fields, list)
    fields[field] = value  # type: ignore[call-overload]
    data = encode(fields)
    with contextlib.suppress(VerificationError):
        assert decode_update(data).to_bytes() == data


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["add", "remove", "rotate"]), st.integers(0, 9)), max_size=8)
)
def test_any_life_keeps_the_rules(steps: list[tuple[str, int]]) -> None:
    """Terms of one author follow each other without gap or overlap; a cut ends each but the last."""
    federation = Living(3)
    federation.open_all()
    for what, who in steps:
        active = [member.index for member in federation.roster.active]
        author = active[who % len(active)]
        if what == "add":
            federation.change(newcomer(len(federation.logs)))
        elif what == "rotate":
            federation.rotate(author)
        elif len(active) > 1:
            federation.remove(author)
        federation.open_current()
    roster = federation.roster
    assert roster.n == len(roster.active) >= 1
    for author, terms in enumerate(roster.terms):
        for before, after in itertools.pairwise(terms):
            assert before.until == after.since
            assert before.cut is not None
        for version in roster.versions:
            covering = [term for term in terms if term.covers(version)]
            assert len(covering) == (1 if author in roster.active_at(version) else 0)
    assert all(isinstance(cut, Cut) for cut in roster.cuts())
