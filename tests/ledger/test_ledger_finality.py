"""Finality is a pure function of the records, and a quorum's."""

from itertools import permutations, product

import pytest
from ledger_factory import Federation

from ledger.finality import ack_matrix, final_seq, states, states_of
from ledger.record import Record
from ledger.verify import verify_bundles


def records_of(federation: Federation) -> list[Record]:
    return [record.value for record in federation.records()]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_pattern_of_acks_of_one_log_is_final_exactly_with_a_quorum(n: int) -> None:
    roster = Federation(n).roster
    length = 3
    for others in product(range(-1, length), repeat=n - 1):
        row = {0: length - 1} | {i + 1: seq for i, seq in enumerate(others) if seq >= 0}
        final = states_of({(0, 0): row}, roster)[0, 0]
        for seq in range(length):
            holders = 1 + sum(acked >= seq for acked in others)
            assert (seq <= final) == (holders >= roster.q), (others, seq)


def test_with_four_members_two_others_make_a_record_final() -> None:
    roster = Federation(4).roster
    assert (roster.f, roster.q) == (1, 3)
    assert states_of({(0, 0): {0: 9, 1: 4}}, roster) == {(0, 0): -1}
    assert states_of({(0, 0): {0: 9, 1: 4, 3: 7}}, roster) == {(0, 0): 4}
    assert states_of({(0, 0): {0: 9, 1: 4, 2: 6, 3: 7}}, roster) == {(0, 0): 6}


def test_acks_beyond_what_the_author_wrote_count_up_to_it() -> None:
    roster = Federation(4).roster
    assert states_of({(0, 0): {0: 2, 1: 50, 2: 60}}, roster) == {(0, 0): 2}
    assert states_of({(0, 0): {1: 5, 2: 5, 3: 5}}, roster) == {(0, 0): -1}


def test_who_is_no_member_counts_for_nothing() -> None:
    roster = Federation(4).roster
    assert states_of({(0, 0): {0: 5, 7: 5, 8: 5, 9: 5}}, roster) == {(0, 0): -1}


def test_the_order_of_records_does_not_matter() -> None:
    federation = Federation(2)
    federation.play(1)
    records = records_of(federation)[:6]
    expected = ack_matrix(records)
    assert all(ack_matrix(order) == expected for order in permutations(records))


def test_more_records_never_take_finality_away() -> None:
    federation = Federation(4)
    federation.play(2)
    by_lamport = sorted(records_of(federation), key=lambda r: (r.lamport, r.author))
    before: dict[tuple[int, int], int] = {}
    for count in range(len(by_lamport) + 1):
        now = states(by_lamport[:count], federation.roster)
        assert all(now[log] >= final for log, final in before.items())
        before = now
    assert before == {(0, 0): 4, (1, 0): 4, (2, 0): 3, (3, 0): 3}


def test_the_auditor_gets_what_the_node_gets(tmp_path_factory: pytest.TempPathFactory) -> None:
    for n in (1, 2, 3, 4, 5):
        federation = Federation(n)
        federation.play(2)
        bundle = federation.bundle(tmp_path_factory.mktemp("finality") / "bundle")
        report = verify_bundles([bundle], federation.charter_bytes)
        final = states(records_of(federation), federation.roster)
        assert {(log.author, log.epoch): log.final_seq for log in report.logs} == final
        assert report.final == sum(seq + 1 for seq in final.values())


@pytest.mark.parametrize(
    ("acked", "quorum", "expected"), [([], 1, -1), ([3], 1, 3), ([3], 2, -1), ([5, 1, 3], 2, 3)]
)
def test_the_quorum_th_highest(acked: list[int], quorum: int, expected: int) -> None:
    assert final_seq(acked, quorum) == expected
