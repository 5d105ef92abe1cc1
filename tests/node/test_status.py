"""What a node says of itself: four words for members, one socket for its owner."""

import json
import stat
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from rich.console import Console

from ledger.errors import UnavailableError
from ledger.insight import Insight
from ledger.record import Record, Verified
from ledger.reputation_types import Reputation, Standing, State
from ledger.signals import Alert, MemberSignals
from node.overview import overview_facts
from node.status import ANSWER_BYTES_MAX, FAILED, _describe, ask, read_status, serve_status
from node.status_view import render
from swarm.protocol.book import RoundBook
from tests.federation import Federation, digest_of, input_of, result_of

FAR = 2**31


def described(federation: Federation, *records: Verified[Record]) -> dict[str, Any]:
    book = RoundBook(federation.roster)
    for record in records:
        book.learn(record)
    return _describe("hospital-a", federation.charter, book, 0, {})


def words(status: dict[str, Any], word: str) -> list[bool]:
    return [member[word] for member in status["members"]]


def two_rounds(federation: Federation) -> list[Verified[Record]]:
    """D signs and does nothing; C contributes and is left out of the second round."""
    for author in federation.authors:
        author.open()
    for round_, inside in ((1, (0, 1, 2)), (2, (0, 1))):
        offers = [federation[index].contribute(round_) for index in (0, 1, 2)]
        for index in (0, 1, 2):
            federation[index].vote(round_, [offers[inner] for inner in inside])
    return [record for author in federation.authors for record in author.records]


def test_registered_configured_training_and_merged_are_four_different_things() -> None:
    federation = Federation(4)
    assert words(described(federation), "registered") == [True] * 4
    assert words(described(federation), "configured") == [False] * 4
    status = described(federation, *two_rounds(federation))
    assert words(status, "configured") == [True] * 4
    assert words(status, "training") == [True, True, True, False]
    assert words(status, "merged") == [True, True, False, False]
    assert [member["round"] for member in status["members"]] == [2, 2, 2, None]
    assert status["agreed_round"] == 2
    offers = [federation[index].records[3] for index in (0, 1)]
    expected = result_of(2, [input_of(offer) for offer in offers])
    assert status["result_digest"] == expected.hex()


def test_one_liars_far_off_round_makes_nobody_look_idle_and_nothing_agreed() -> None:
    federation = Federation(4)
    written = two_rounds(federation)
    liar = federation[3]
    far = liar.contribute(FAR)
    status = described(federation, *written, far, liar.vote(FAR, [far]))
    assert words(status, "training")[:3] == [True, True, True]
    assert status["agreed_round"] == 2


def test_who_has_said_goodbye_does_not_train() -> None:
    federation = Federation(4)
    written = two_rounds(federation)
    status = described(federation, *written, federation[1].close(3))
    assert words(status, "training") == [True, False, True, False]


async def bound(path: Path) -> None:
    with trio.fail_after(5):
        while not path.is_socket():  # noqa: ASYNC110, ASYNC240 - looks from outside
            await trio.sleep(0.01)


async def test_the_socket_answers_its_owner_and_goes_with_the_node(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    assert ask(path) is None
    path.write_bytes(b"left by a crash")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_status, path, lambda: {"digest": digest_of(1).hex()})
        await bound(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for _ in range(3):
            answer = await trio.to_thread.run_sync(ask, path)
            assert answer == {"digest": digest_of(1).hex()}
        nursery.cancel_scope.cancel()
    assert not path.exists()
    assert ask(path) is None


async def test_an_asker_that_hangs_up_stops_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_status, path, lambda: {"long": "x" * 900_000})
        await bound(path)
        for _ in range(3):
            await (await trio.open_unix_socket(path)).aclose()
        answer = await trio.to_thread.run_sync(ask, path)
        assert answer is not None
        nursery.cancel_scope.cancel()


async def test_a_mistake_in_describing_is_told_and_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    config = SimpleNamespace(paths=SimpleNamespace(socket=path))
    answers: list[Any] = [{"round": 1}, {"round": object()}]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_status, path, answers.pop)
        await bound(path)
        answer = await trio.to_thread.run_sync(ask, path)
        assert answer is not None
        assert "not JSON serializable" in answer[FAILED]
        assert await trio.to_thread.run_sync(ask, path) == {"round": 1}
        with pytest.raises(UnavailableError, match="status failed: IndexError"):
            await trio.to_thread.run_sync(read_status, config)
        nursery.cancel_scope.cancel()


async def test_an_answer_without_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "node.sock"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_status, path, lambda: {"long": "x" * (2 << 20)})
        await bound(path)
        answer = await trio.to_thread.run_sync(ask, path)
        assert answer is not None, "somebody answers: the node runs"
        assert "longer than 1048576 bytes" in answer[FAILED]
        nursery.cancel_scope.cancel()


def test_doubts_of_everybody_with_very_many_records_leave_the_answer_room() -> None:
    alert = Alert("near", 1, 2, tuple(digest_of(str(at)) for at in range(64)), "a" * 200, "b" * 200)
    signals = [MemberSignals(member, (), (alert,) * 6, 1_000, 1_000) for member in range(100)]
    standings = tuple(Standing(member, 500_000, ()) for member in range(100))
    reputation = Reputation(State(1, standings), ())
    facts = overview_facts(Insight(reputation, (), tuple(signals)))
    assert facts is not None
    doubt = facts["members"][0]["doubts"][0]
    assert (len(doubt["records"]), doubt["more_records"]) == (8, 56)
    assert len(json.dumps(facts)) < ANSWER_BYTES_MAX


def test_who_has_signed_two_histories_is_said_until_its_key_is_rotated() -> None:
    federation = Federation(4)
    before = federation.roster
    (first,) = before.terms[1]
    terms = (replace(first, until=1), replace(first, ledger_key=bytes(32), since=1))
    book = RoundBook(
        replace(
            before, version=1, versions=(0, 1), terms=(before.terms[0], terms, *before.terms[2:])
        )
    )
    for record in two_rounds(federation):
        book.learn(record)
    book.freeze(2, 0, 3)
    book.freeze(1, 0, 0)  # not the epoch that it writes in
    status = _describe("hospital-a", federation.charter, book, 0, {})
    assert words(status, "forked") == [False, False, True, False]
    status |= {"running": False, "phase": "stopped", "round": 2, "auc": None, "waiting_for": ""}
    status |= dict.fromkeys(("pid", "bytes_sent", "bytes_received", "peak_memory_mb"))
    console = Console(width=200, file=StringIO())
    console.print(render(status))
    assert "hospital-c has signed two histories" in console.file.getvalue()  # type: ignore[attr-defined]
