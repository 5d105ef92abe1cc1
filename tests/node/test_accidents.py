"""The accidents that fork logs elsewhere: each is noticed, said in one line, and nothing is signed.

Restored backup, copied directory, lost database; whole simulated swarms, real files. (Power cuts:
test_power_cut.py.)
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ledger.errors import StoreError
from ledger.record import Kind, Reason, Rejection, open_record
from ledger.roster import Roster
from ledger.store import Store
from node.compute import InlineCompute
from node.journal import Journal
from scenarios.simulator import Outcome, Swarm, simulate
from swarm.protocol.messages import encode_gossip
from tests.simulated import swarm_of

SEED = 17
ROUNDS = 6
VICTIM = 0
FILES = ("0.db", "0.db-wal", "0.db.lock", "0.mark")
FIRST_S, MORE_S = 2.5, 4.0
BETWEEN_RECORDS_S = 2.7
"""The victim signs nothing of its own at this time."""


def own_ids(path: Path, index: int, roster: Roster) -> list[bytes]:
    """Ids of the victim's records, as member ``index`` holds them."""
    with Store.open(path / f"{index}.db", read_only=True) as store:
        found = [open_record(signed, roster=roster) for signed in store.records(author=VICTIM)]
    return [record.id for record in found]


def take(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in names if (path / name).exists()}


def put_back(path: Path, backup: dict[str, bytes], names: tuple[str, ...]) -> None:
    for name in names:
        (path / name).unlink(missing_ok=True)
        if name in backup:
            (path / name).write_bytes(backup[name])


def run_with(
    tmp_path: Path, accident: Callable[[Path, dict[str, bytes]], None]
) -> tuple[Outcome, list[list[bytes]]]:
    """Back the victim up, let it sign more, stop it, let the accident happen, start it again."""
    charter, sites = swarm_of(4, rounds=ROUNDS)
    before: list[bytes] = []

    async def faults(swarm: Swarm) -> None:
        await trio.sleep(FIRST_S)
        await swarm.kill(VICTIM)
        backup = take(tmp_path, FILES)
        swarm.start(VICTIM)
        await trio.sleep(MORE_S)
        await swarm.kill(VICTIM)
        before.extend(own_ids(tmp_path, VICTIM, swarm.services[1].book.roster))
        accident(tmp_path, backup)
        swarm.start(VICTIM)

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=faults)
    roster = Roster.from_charter(charter)
    return outcome, [before, *(own_ids(tmp_path, index, roster) for index in (1, 2, 3))]


def assert_refused(outcome: Outcome, logs: list[list[bytes]], *words: str) -> None:
    """The victim stops with one line; what the others hold of it is a prefix of what it had signed."""
    (failure,) = outcome.failures
    assert failure.startswith("hospital-a: ")
    assert len(failure.splitlines()) == 1
    for word in words:
        assert word in failure, failure
    before, *held = logs
    for log in held:
        assert log == before[: len(log)], "a record was signed after the accident"
    assert set(outcome.rounds_agreed[1:]) == {ROUNDS}, "the others go on"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("0.db", "0.db-wal"), ("older copy", "key rotation")),
        (("0.db", "0.db-wal", "0.db.lock"), ("0.mark", "older copy", "key rotation")),
        (FILES, ("a peer holds record", "restored backup", "key rotation")),
    ],
)
def test_a_restored_backup_signs_nothing(
    tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """The store notices the database alone, the mark notices all but itself, the peers the whole."""
    outcome, logs = run_with(tmp_path, lambda path, backup: put_back(path, backup, names))
    assert_refused(outcome, logs, *words)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("0.db", "0.db-wal"), ("holds 0 of", "key rotation")),
        (("0.db", "0.db-wal", "0.db.lock"), ("0.mark", "holds 0 of them", "key rotation")),
        (FILES, ("a peer holds record", "key rotation")),
    ],
)
def test_a_lost_database_is_never_begun_anew(
    tmp_path: Path, names: tuple[str, ...], words: tuple[str, ...]
) -> None:
    outcome, logs = run_with(tmp_path, lambda path, _: put_back(path, {}, names))
    assert_refused(outcome, logs, *words)


def test_a_lost_mark_is_not_guessed(tmp_path: Path) -> None:
    outcome, logs = run_with(tmp_path, lambda path, _: (path / "0.mark").unlink())
    assert_refused(outcome, logs, "0.mark is missing", "key rotation")


def test_a_crash_between_storing_and_marking_costs_nothing(tmp_path: Path) -> None:
    """One step behind is what such a crash leaves: nobody has seen the record yet."""
    step_behind: dict[str, bytes] = {}

    def accident(path: Path, backup: dict[str, bytes]) -> None:
        step_behind.update(backup)
        put_back(path, backup, ("0.mark",))

    outcome, _ = run_with(tmp_path, accident)
    assert step_behind
    assert outcome.failures == ()
    assert set(outcome.rounds_agreed) == {ROUNDS}


def test_a_copied_directory_that_signs_on_another_machine_stops_the_one_behind(
    tmp_path: Path,
) -> None:
    """Peers keep the branch that they heard first; whichever copy the other one signed learns of it."""
    charter, sites = swarm_of(4, rounds=ROUNDS)

    async def sign_elsewhere(swarm: Swarm) -> None:
        await trio.sleep(BETWEEN_RECORDS_S)
        copy = tmp_path / "another machine"
        copy.mkdir()
        for name, data in take(tmp_path, FILES).items():
            (copy / name).write_bytes(data)
        with Store.open(copy / "0.db") as store:
            journal = Journal(
                store=store,
                roster=Roster.from_charter(charter),
                own=VICTIM,
                signer=sites[VICTIM].identity.ledger(),
                disk=InlineCompute(),
                time_ms=lambda: 1_000,
            )
            body = Rejection(target_id=bytes(32), reason=Reason.LATE)
            record = await journal.append(Kind.REJECTION, ROUNDS, body)
            more = await journal.append(Kind.REJECTION, ROUNDS, body)
        announced = encode_gossip([one.signed.envelope() for one in (record, more)])
        for peer in (1, 2, 3):
            await swarm.services[peer].exchange.on_gossip(VICTIM, announced)

    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=sign_elsewhere
    )
    (failure,) = outcome.failures
    assert failure.startswith("hospital-a: ")
    # Whichever comes first: a record of its own that it lacks, or the proof that there are two.
    assert "second copy" in failure or "two copies of the site have run" in failure
    assert len(failure.splitlines()) == 1
    assert set(outcome.rounds_agreed[1:]) == {ROUNDS}, "the others go on"


def test_a_directory_that_runs_already_is_not_run_again(tmp_path: Path) -> None:
    charter, sites = swarm_of(3, rounds=2)
    said: list[str] = []

    async def start_again(_: Swarm) -> None:
        await trio.sleep(FIRST_S)
        with pytest.raises(StoreError, match="another process is writing") as caught:
            Store.open(tmp_path / "0.db").__enter__()
        said.append(str(caught.value))

    outcome = simulate(
        charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=start_again
    )
    assert outcome.failures == ()
    assert len(said) == 1
