"""Whole nodes in one simulated swarm: what one faulty or lying member can cost the others."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trio

from ledger.chain import LAMPORT_STEP_MAX
from ledger.errors import PeerError
from ledger.record import (
    Ack,
    Aggregation,
    Kind,
    Reason,
    Record,
    Rejection,
    Verified,
    open_record,
)
from ledger.roster import Roster
from ledger.store import Store
from node.learner_around import LearnerAround
from node.network_memory import Conditions
from node.service import Learner
from scenarios.simulation.held import ballot_of
from scenarios.simulator import Outcome, SimulatedSite, Swarm, simulate
from swarm.learning.moments import Moments
from swarm.learning.payload import HEADER, encode_moments
from swarm.learning.task import LearningTask, Trained
from swarm.learning.training_state import Arrays
from swarm.protocol.messages import Head, Hello, SyncReply, encode_gossip, encode_sync_reply
from tests.federation import Author, digest_of, input_of
from tests.simulated import swarm_of

SEED = 17
LIAR = 3
HONEST = (0, 1, 2)


def records(path: Path, index: int, roster: Roster) -> list[Record]:
    with Store.open(path / f"{index}.db", read_only=True) as store:
        return [open_record(signed, roster=roster).value for signed in store.records()]


def rejections(written: Sequence[Record], author: int) -> list[Rejection]:
    bodies = [record.body for record in written if record.author == author]
    return [body for body in bodies if isinstance(body, Rejection)]


def merges(written: Sequence[Record], author: int) -> dict[int, list[Aggregation]]:
    found: dict[int, list[Aggregation]] = {}
    for record in written:
        if record.author == author and isinstance(record.body, Aggregation):
            found.setdefault(record.round, []).append(record.body)
    return found


def assert_the_honest_lost_nothing(outcome: Outcome, *, rounds: int) -> None:
    assert not [text for text in outcome.failures if "hospital-d" not in text], outcome.failures
    assert outcome.rounds_agreed[:3] == (rounds,) * 3, outcome
    assert len(set(outcome.results[:3])) == 1, outcome


# A member whose payloads lie


class LyingLearner(LearnerAround[LearningTask]):
    """Trains like everybody and hands out something else."""

    def __init__(
        self,
        honest: LearningTask,
        *,
        update: Callable[[bytes], bytes] = bytes,
        moments: Callable[[bytes], bytes] = bytes,
    ) -> None:
        super().__init__(honest)
        self._update = update
        self._moments = moments

    def local_moments(self) -> bytes:
        return self._moments(self.inner.local_moments())

    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes:
        with np.errstate(all="ignore"):
            return self.inner.merge_moments(payloads)

    def train(self, base: bytes, round: int, memory: Arrays, left_out: bool) -> Trained:  # noqa: A002, FBT001
        trained = self.inner.train(base, round, memory, left_out)
        return replace(trained, payload=self._update(trained.payload))

    def merge(self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None) -> bytes:
        try:
            return self.inner.merge(inputs, origin)
        except PeerError:
            return self.inner.initial()


def with_liar(
    sites: list[SimulatedSite], lie: Callable[[LearningTask], Learner]
) -> list[SimulatedSite]:
    honest = sites[LIAR]

    def learner() -> Learner:
        task = honest.learner()
        assert isinstance(task, LearningTask)
        return lie(task)

    return [*sites[:LIAR], SimulatedSite(identity=honest.identity, learner=learner)]


def not_a_number(payload: bytes) -> bytes:
    return payload[:-4] + np.array([np.nan], dtype="<f4").tobytes()


def of_another_model(payload: bytes) -> bytes:
    return payload[: HEADER.size - 32] + bytes(32) + payload[HEADER.size :]


LIES = {
    "not a number": (not_a_number, Reason.NOT_FINITE),
    "infinite": (
        lambda payload: payload[:-4] + np.array([np.inf], dtype="<f4").tobytes(),
        Reason.NOT_FINITE,
    ),
    "of another model": (of_another_model, Reason.BAD_SHAPE),
    "cut short": (lambda payload: payload[:-4], Reason.BAD_SHAPE),
    "too large": (lambda payload: payload + bytes(4), Reason.TOO_LARGE),
    "empty": (lambda _payload: b"", Reason.BAD_SHAPE),
}


@pytest.mark.parametrize("name", LIES)
def test_a_contribution_that_cannot_be_averaged_is_refused_on_the_record_and_left_out(
    tmp_path: Path, name: str
) -> None:
    update, reason = LIES[name]
    charter, sites = swarm_of(4, rounds=2)
    sites = with_liar(sites, lambda task: LyingLearner(task, update=update))
    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED)
    assert_the_honest_lost_nothing(outcome, rounds=2)
    written = records(tmp_path, 0, Roster.from_charter(charter))
    for author in HONEST:
        assert [body.reason for body in rejections(written, author)] == [reason] * 2
        for round_ in (1, 2):
            (merge,) = merges(written, author)[round_]
            assert [(one.author, one.reason) for one in merge.left_out] == [(LIAR, reason)]
            assert [one.author for one in merge.inputs] == list(HONEST)


@pytest.mark.parametrize(
    ("count", "mean", "m2"),
    [(2.0**53 - 1, 0.0, 1.0), (10.0, 1e200, 1.0), (10.0, 0.0, 1e300), (2.0**41, 0.0, 1.0)],
)
def test_moments_that_overflow_when_merged_are_refused(
    tmp_path: Path, count: float, mean: float, m2: float
) -> None:
    """One finite number in round zero must not make the merged moments unreadable for everybody."""
    charter, sites = swarm_of(4, rounds=1)

    def absurd(payload: bytes) -> bytes:
        columns = (len(payload) - HEADER.size) // 24
        moments = Moments(*(np.full(columns, value) for value in (count, mean, m2)))
        return encode_moments(moments, payload[HEADER.size - 32 : HEADER.size])

    sites = with_liar(sites, lambda task: LyingLearner(task, moments=absurd))
    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED)
    assert_the_honest_lost_nothing(outcome, rounds=1)
    written = records(tmp_path, 0, Roster.from_charter(charter))
    assert [body.reason for body in rejections(written, 0)] == [Reason.NORM_BOUND]


# A member whose records lie


class Attacker:
    """A member that writes what it likes with its own key, and answers comparisons if it likes."""

    def __init__(self, swarm: Swarm, *, mute: bool = False) -> None:
        self.swarm = swarm
        self.roster = Roster.from_charter(swarm.charter)
        self.pen = Author(self.roster, LIAR, seed=1)
        self.network = swarm.hub.network(LIAR)
        self._mute = mute

    async def on_gossip(self, _peer: int, _message: bytes) -> None:
        """Hear it."""

    async def on_request(self, _peer: int, protocol: str, _body: bytes) -> bytes:
        if self._mute or "sync" not in protocol:
            await trio.sleep_forever()
        envelopes = tuple(record.signed.envelope() for record in self.pen.records)
        heads = {}
        if envelopes:
            heads[LIAR, 0] = Head(len(envelopes), self.pen.records[-1].id)
        hello = Hello(heads=heads, round=0, phase=0, time_ms=0)
        return encode_sync_reply(SyncReply(hello=hello, envelopes=envelopes))

    async def tell(self, *written: Verified[Record]) -> None:
        for record in written:
            await self.network.broadcast(encode_gossip([record.signed.envelope()]))

    async def offers(self, round_: int) -> list[Verified[Record]]:
        """Wait for the honest members' contributions of a round."""
        book = self.swarm.services[0].book
        while not set(HONEST) <= set(book.offers(round_)):  # noqa: ASYNC110
            await trio.sleep(0.05)
        return [self.record(book.offers(round_)[index].id) for index in HONEST]

    def record(self, id_: bytes) -> Verified[Record]:
        signed = self.swarm.services[0].journal._store.get(id_)
        assert signed is not None
        return open_record(signed, roster=self.roster)


Attack = Callable[[Attacker], Awaitable[None]]


async def vote_for_nothing(liar: Attacker) -> None:
    await liar.tell(*[liar.pen.vote(round_, []) for round_ in range(4)])


async def vote_for_myself(liar: Attacker) -> None:
    for round_ in range(4):
        offer = liar.pen.contribute(round_)
        await liar.tell(offer, liar.pen.vote(round_, [offer]))
        await liar.offers(round_)


async def vote_for_one_victim(liar: Attacker) -> None:
    for round_ in range(4):
        victim = (await liar.offers(round_))[0]
        await liar.tell(liar.pen.vote(round_, [victim]))


async def offer_what_everybody_holds_as_something_else(liar: Attacker) -> None:
    book = liar.swarm.services[0].book
    await liar.offers(1)
    moments = book.agreed(0)
    assert moments is not None
    digest, size = moments.proposal.result, 248
    base = liar.swarm.services[0].machine.initial
    for round_, codec, bytes_count in ((1, 2, size), (2, 1, size), (3, 1, 93)):
        fields = {"codec": codec, "bytes_count": bytes_count}
        await liar.tell(liar.pen.contribute(round_, digest=digest, base=base, **fields))


async def run_away_with_the_clock(liar: Attacker) -> None:
    for step in range(1, 60):
        body = Rejection(target_id=digest_of(step), reason=1)
        lamport = step * LAMPORT_STEP_MAX
        await liar.tell(liar.pen.write(Kind.REJECTION, 0, body, lamport=lamport))
        await trio.sleep(0.1)


async def reach_for_the_far_future(liar: Attacker) -> None:
    far = 2**31
    for round_ in (2, 3, far, far + 1):
        offer = liar.pen.contribute(round_)
        await liar.tell(offer, liar.pen.vote(round_, [offer]))
        await liar.tell(liar.pen.evaluate(round_, digest_of("model")))


async def acknowledge_what_is_not(liar: Attacker) -> None:
    offers = await liar.offers(1)
    real = offers[0].value
    lies = [Ack(0, 0, real.seq, digest_of("x")), Ack(0, 0, 10**6, offers[0].id)]
    for ack in lies:
        body = Rejection(target_id=offers[0].id, reason=1)
        await liar.tell(liar.pen.write(Kind.REJECTION, 1, body, acks=[ack], checked=False))


async def refuse_everybody(liar: Attacker) -> None:
    for round_ in range(3):
        for offer in await liar.offers(round_):
            await liar.tell(liar.pen.reject(round_, offer.id))


async def say_goodbye_and_go_on(liar: Attacker) -> None:
    await liar.tell(liar.pen.close(0), liar.pen.contribute(0), liar.pen.contribute(1))


async def merge_twice_the_same(liar: Attacker) -> None:
    for round_ in range(3):
        twin = input_of((await liar.offers(round_))[1])
        fields = {"epoch": 0, "seq": twin.seq, "id": twin.id, "weight_micro": 0}
        forged = [type(twin)(author=author, **fields) for author in range(3)]
        await liar.tell(liar.pen.vote(round_, forged))


ATTACKS: Sequence[Attack] = (
    vote_for_nothing,
    vote_for_myself,
    vote_for_one_victim,
    offer_what_everybody_holds_as_something_else,
    run_away_with_the_clock,
    reach_for_the_far_future,
    acknowledge_what_is_not,
    refuse_everybody,
    say_goodbye_and_go_on,
    merge_twice_the_same,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_one_liar_of_four_costs_the_others_no_round(tmp_path: Path, attack: Attack) -> None:
    assert_one_liar_costs_nothing(tmp_path, attack, mute=False)


def test_one_liar_who_answers_no_comparison_costs_the_others_no_round(tmp_path: Path) -> None:
    assert_one_liar_costs_nothing(tmp_path, vote_for_myself, mute=True)


def assert_one_liar_costs_nothing(tmp_path: Path, attack: Attack, *, mute: bool) -> None:
    charter, sites = swarm_of(4, rounds=3)

    async def lie(swarm: Swarm) -> None:
        liar = Attacker(swarm, mute=mute)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(liar.network.run, liar)
            await trio.sleep(0.01)
            await liar.tell(liar.pen.open())
            nursery.start_soon(attack, liar)
            for index in HONEST:
                await swarm.ended[index].wait()
            nursery.cancel_scope.cancel()

    outcome = simulate(charter=charter, sites=sites[:3], directory=tmp_path, seed=SEED, faults=lie)
    assert outcome.failures == ()
    assert_the_honest_lost_nothing(outcome, rounds=3)
    written = records(tmp_path, 0, Roster.from_charter(charter))
    for merge in (one for round_ in merges(written, 0).values() for one in round_):
        assert {one.author for one in merge.inputs} == set(HONEST)


# Faults


@pytest.mark.parametrize("seed", range(4))
def test_no_author_votes_twice_in_a_round_whenever_it_is_killed(tmp_path: Path, seed: int) -> None:
    charter, sites = swarm_of(4, rounds=4)
    rough = Conditions(delay_s=0.02, jitter_s=0.3)

    async def kill_again_and_again(swarm: Swarm) -> None:
        for number in range(8):
            victim = (seed + number) % 4
            await trio.sleep(0.37 + 0.61 * ((seed * 7 + number * 3) % 5))
            if swarm.ended[victim].is_set():
                continue
            await swarm.kill(victim)
            await trio.sleep(0.2)
            swarm.start(victim)

    outcome = simulate(
        charter=charter,
        sites=sites,
        directory=tmp_path,
        seed=seed,
        conditions=rough,
        faults=kill_again_and_again,
    )
    assert outcome.failures == ()
    assert len(set(outcome.results)) == 1, outcome
    for record_of in (Kind.AGGREGATION, Kind.CONTRIBUTION):
        written = records(tmp_path, 0, Roster.from_charter(charter))
        slots = Counter(
            (one.author, one.round, ballot_of(one)) for one in written if one.kind == record_of
        )
        assert max(slots.values()) == 1, (seed, record_of)


@pytest.mark.parametrize("at_s", [0.05, 0.3, 0.55])
def test_a_partition_in_round_zero_heals_without_a_human(tmp_path: Path, at_s: float) -> None:
    charter, sites = swarm_of(4, rounds=2, members_min=2)

    async def cut_and_heal(swarm: Swarm) -> None:
        await trio.sleep(at_s)
        swarm.hub.partition([[0, 1], [2, 3]])
        await trio.sleep(200)
        swarm.hub.heal()

    outcome = simulate(
        charter=charter,
        sites=sites,
        directory=tmp_path,
        seed=SEED,
        conditions=Conditions(delay_s=0.02),
        faults=cut_and_heal,
    )
    assert outcome.failures == ()
    assert len(set(outcome.results)) == 1, outcome


def test_a_full_disk_stops_the_node_in_one_line_and_nobody_else(tmp_path: Path) -> None:
    charter, sites = swarm_of(4, rounds=4)

    async def fill(swarm: Swarm) -> None:
        await trio.sleep(2.5)
        connection = swarm.services[0].journal._store._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    outcome = simulate(charter=charter, sites=sites, directory=tmp_path, seed=SEED, faults=fill)
    (failure,) = outcome.failures
    assert failure.startswith("hospital-a: ")
    assert "full" in failure
    assert set(outcome.rounds_agreed[1:]) == {4}
