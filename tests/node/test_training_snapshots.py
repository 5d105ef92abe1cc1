"""A training that is killed at any instant goes on from its last snapshot, to the same bits."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
from safetensors.numpy import load_file

from ledger.errors import StoreError
from node.compute import ThreadCompute
from node.training_snapshots import (
    ResumingLearner,
    TrainingSnapshots,
    read_snapshot,
    write_snapshot,
)
from swarm.learning.task import LearningTask
from swarm.learning.training_state import TrainingState
from tests.learning import make_charter, make_site

FACTS = {"format": "swarm-training/1", "round": "3", "base": "ab", "charter": "cd"}
STATE = TrainingState(
    tensors={
        "module.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "optimiser.steps.0": np.array(4.0, dtype=np.float32),
        "random.generator": np.arange(9, dtype=np.uint8),
        "module.calls": np.array(7, dtype=np.int64),
        "module.none": np.zeros((0, 3), dtype=np.float64),
        "module.half": np.ones(3, dtype=np.float16),
        "module.turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    },
    numbers={"steps": 4, "epsilon_micro": 2**40},
)
STEPS = 600


class Quiet:
    """Takes log events and keeps none."""

    def debug(self, event: str, **fields: object) -> None: ...

    info = warning = error = debug


def resuming(path: Path, interval_s: float = 0.05) -> ResumingLearner:
    training = f"learning_rate = 0.1\nbatch_size = 16\nmomentum = 0.9\nlocal_steps = {STEPS}"
    model = 'name = "mlp"\n[model.arguments]\nhidden = [16]\ndropout = 0.2\nbatch_norm = true'
    charter = make_charter(model=model, training=training, data='standardise = "none"')
    task = LearningTask(charter, make_site(1), allow=(), seed=5, threads=1)
    snapshots = TrainingSnapshots(
        path, charter_digest=charter.net, log=Quiet(), interval_s=interval_s
    )
    return ResumingLearner(task, snapshots)


def test_a_snapshot_comes_back_bit_for_bit_and_others_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    write_snapshot(file, FACTS, STATE)
    found = read_snapshot(file, FACTS)
    assert found is not None
    assert found.numbers == STATE.numbers
    theirs = load_file(file)
    for name, array in STATE.tensors.items():
        for other in (found.tensors[name], theirs[name]):
            assert (other.dtype, other.shape) == (array.dtype, array.shape)
            assert other.tobytes() == array.tobytes()
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("what", ["round", "base", "charter", "format"])
def test_a_snapshot_of_another_round_base_or_charter_counts_as_none(
    tmp_path: Path, what: str
) -> None:
    file = tmp_path / "training.safetensors"
    write_snapshot(file, FACTS, STATE)
    assert read_snapshot(file, {**FACTS, what: "other"}) is None


def test_no_torn_or_changed_snapshot_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    assert read_snapshot(file, FACTS) is None
    write_snapshot(file, FACTS, STATE)
    whole = file.read_bytes()
    for length in range(0, len(whole), 31):
        file.write_bytes(whole[:length])
        assert read_snapshot(file, FACTS) is None
    for at in range(8, len(whole), 5):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = read_snapshot(file, FACTS)
        assert found is None, f"byte {at} was changed"


def test_a_full_disk_costs_the_snapshot_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    learner = resuming(tmp_path / "training.safetensors")
    whole = learner.train(learner.initial(), 1)
    before = (tmp_path / "training.safetensors").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_snapshot(tmp_path / "training.safetensors", FACTS, STATE)
    assert learner.train(learner.initial(), 2).steps == STEPS
    assert (tmp_path / "training.safetensors").read_bytes() == before
    assert learner.train(learner.initial(), 1) == whole


async def test_a_node_that_leaves_keeps_its_training_and_does_not_finish_it_first(
    tmp_path: Path,
) -> None:
    file = tmp_path / "training.safetensors"
    learner, slow = resuming(tmp_path / "other", interval_s=1e9), resuming(file)
    base = learner.initial()
    whole = learner.train(base, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ThreadCompute().run, slow.train, base, 1)
        while not file.exists():  # noqa: ASYNC110 - looks from outside
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert 0 < steps_in(file) < STEPS
    assert resuming(file).train(base, 1) == whole


def steps_in(file: Path) -> int:
    import json

    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        return int(json.loads(opened.metadata()["numbers"])["steps"])


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start a real process that trains with a snapshot every 50 ms."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.node.test_training_snapshots import resuming\n"
        "learner = resuming(Path(sys.argv[1]))\n"
        "trained = learner.train(learner.initial(), 1)\n"
        "Path(sys.argv[2]).write_bytes(trained.payload)\n"
    )
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        arguments = [tmp_path / "training.safetensors", tmp_path / "result"]
        root = Path(__file__).parents[2]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests/node")]),
        }
        started.append(
            subprocess.Popen([sys.executable, "-c", program, *arguments], env=environment)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_process_killed_in_mid_training_twice_ends_with_the_bits_of_one_that_lived(
    victim: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "training.safetensors"
    reached = 0
    for _ in range(2):
        process = victim()
        deadline_s = time.monotonic() + 60
        while not (file.exists() and steps_in(file) > reached):
            assert not reached or steps_in(file) >= reached, "it began anew"
            assert process.poll() is None, "it was over before it could be killed"
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "result").exists()
        reached = steps_in(file)
    assert victim().wait(timeout=60) == 0
    learner = resuming(tmp_path / "elsewhere", interval_s=1e9)
    assert (tmp_path / "result").read_bytes() == learner.train(learner.initial(), 1).payload
