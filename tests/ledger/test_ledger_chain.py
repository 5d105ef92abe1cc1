"""A log grows by one rule, at the node as at the auditor."""

from dataclasses import replace

import pytest
from ledger_cases import close, small
from ledger_factory import Federation, digest_of

from ledger.chain import (
    LAMPORT_STEP_MAX,
    TIME_AHEAD_MAX_MS,
    LogHead,
    check_next,
    compose,
    first_missing,
)
from ledger.errors import VerificationError
from ledger.record import Ack, Close, Kind, Record, Verified, sign_record


def signed(federation: Federation, **changes: object) -> Verified[Record]:
    record = federation.draft(0, Kind.CLOSE, 1, Close(reason=1))
    return sign_record(replace(record, **changes), federation.signers[0])  # type: ignore[arg-type]


def test_good_logs_are_followed_to_their_heads() -> None:
    federation = Federation(3)
    federation.play(2)
    for author, log in enumerate(federation.logs):
        head: LogHead | None = None
        for record in log:
            head = check_next(head, record)
        assert head == federation.heads[author]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("E_GAP", {"seq": 3}),
        ("E_FORK", {"seq": 1}),
        ("E_GAP", {"seq": 0}),
        ("E_PREV", {"prev": digest_of("other")}),
        ("E_OPEN", {"kind": Kind.OPEN}),
        ("E_LAMPORT", {"lamport": 0}),
        ("E_LAMPORT", {"lamport": LAMPORT_STEP_MAX + 100}),
        ("E_TIME_BACKWARD", {"time_ms": 0}),
        ("E_ROUND_BACKWARD", {"round": 0}),
    ],
)
def test_what_does_not_follow_is_refused(code: str, changes: dict[str, object]) -> None:
    federation = small()
    if changes.get("kind") == Kind.OPEN:
        changes = {**changes, "body": federation.open_body(0)}
    with pytest.raises(VerificationError) as caught:
        check_next(federation.heads[0], signed(federation, **changes))
    assert caught.value.code == code
    assert caught.value.author == 0


def test_a_roster_version_never_goes_back() -> None:
    federation = small()
    head = federation.heads[0]
    assert head is not None
    with pytest.raises(VerificationError, match="E_ROSTER_BACKWARD"):
        check_next(replace(head, roster=1), signed(federation))


def test_a_record_of_another_log_is_our_own_bug() -> None:
    federation = small()
    with pytest.raises(ValueError, match="different logs"):
        check_next(federation.heads[1], signed(federation))


def test_an_honest_node_is_never_refused_for_its_clock() -> None:
    federation = small()
    ahead = close(federation, 1, time_ms=federation.clock_ms + 10 * TIME_AHEAD_MAX_MS)
    head = federation.heads[0]
    assert head is not None
    record = compose(
        head,
        roster=federation.roster,
        author=0,
        epoch=0,
        kind=Kind.CLOSE,
        round=1,
        time_ms=5,
        acks=[Ack(2, 0, 0, digest_of("x")), Ack(1, 0, ahead.value.seq, ahead.id)],
        lamports=[1, ahead.value.lamport],
        times_ms=[0, ahead.value.time_ms],
        body=Close(reason=1),
    )
    assert record.time_ms == ahead.value.time_ms - TIME_AHEAD_MAX_MS
    assert record.lamport == max(head.lamport, ahead.value.lamport) + 1
    assert [ack.author for ack in record.acks] == [1, 2]
    assert (
        check_next(head, sign_record(record, federation.signers[0])).next_seq == head.next_seq + 1
    )


def test_a_clock_that_stands_in_the_past_is_held() -> None:
    federation = small()
    head = federation.heads[0]
    assert head is not None
    record = compose(
        head, roster=federation.roster, author=0, epoch=0, kind=Kind.CLOSE, round=1, time_ms=1,
        acks=(), body=Close(reason=1),
    )  # fmt: skip
    assert record.time_ms == head.time_ms


def test_what_a_record_refers_to_and_nobody_holds_is_named() -> None:
    federation = Federation(3)
    federation.play(1)
    contribution, aggregation = federation.logs[2][1].value, federation.logs[2][2].value
    everything = {(a, 0): len(log) for a, log in enumerate(federation.logs)}
    assert first_missing(contribution, everything) is None
    assert first_missing(aggregation, everything) is None
    assert first_missing(contribution, everything | {(1, 0): 1}) == (1, 0, 1)
    assert first_missing(aggregation, everything | {(0, 0): 1}) == (0, 0, 1)
    assert first_missing(contribution, {}) == (0, 0, 1)
