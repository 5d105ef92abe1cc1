"""A node in the middle of a training answers the others: the network's thread is not the training's."""

import time

import trio
from network_swarm import Member, running_swarm

from node.compute import ThreadCompute
from node.links import Timing
from swarm.learning.task import LearningTask
from tests.learning import make_charter, make_site

TRAINS_S = 2.0
WAITS_S_MAX = 1.0
MODEL = 'name = "mlp"\n[model.arguments]\nhidden = [64, 64]'
TRAINING = "learning_rate = 0.1\nbatch_size = 64\nlocal_steps = 50"


def train_for(seconds: float) -> int:
    """Real steps of torch until the time is over. Returns how many."""
    charter = make_charter(model=MODEL, training=TRAINING, data='standardise = "none"')
    task = LearningTask(charter, make_site(1, rows=400), allow=(), seed=5, threads=1)
    base, steps = task.initial(), 0
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        steps += task.train(base, 1).steps
    return steps


async def keep_asking(asking: Member, asked: int, waits: list[float]) -> None:
    """Ask again and again."""
    while True:
        started_s = trio.current_time()
        body = b"alive? %d" % len(waits)
        assert await asking.ask(asked, body, s=10) == body
        waits.append(trio.current_time() - started_s)
        await trio.sleep(0.02)


async def test_a_member_that_trains_answers_within_a_second() -> None:
    quick = Timing(heartbeat_s=0.3, ping_s=WAITS_S_MAX, dial_s=2, redial_s=1)
    waits: list[float] = []
    async with running_swarm("libp2p", 2, timing=quick) as members:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_asking, members[1], 0, waits)
            steps = await ThreadCompute().run(train_for, TRAINS_S)
            nursery.cancel_scope.cancel()
        print(  # noqa: T201 - the figures of the report
            f"{steps} steps; {len(waits)} answers, the slowest after {max(waits) * 1e3:.0f} ms"
        )
        assert steps >= 50
        assert len(waits) >= TRAINS_S / WAITS_S_MAX
        assert max(waits) < WAITS_S_MAX
        assert not members[0].log.named("peer_lost")
        assert not members[1].log.named("peer_lost")
