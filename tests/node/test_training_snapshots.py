"""A training that is killed at any instant goes on from its last snapshot, to the same bits."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trio
from safetensors.numpy import load_file

from ledger.errors import StoreError
from node.compute import ThreadCompute
from node.training_snapshots import (
    Facts,
    ResumingLearner,
    TrainingSnapshots,
    read_snapshot,
    write_snapshot,
)
from swarm.learning.task import LearningTask
from swarm.learning.torch_state import ModuleState
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


def resuming(
    path: Path,
    interval_s: float = 0.05,
    *,
    data_commitment: bytes = b"data",
    standardise: str = "none",
    site: int = 1,
) -> ResumingLearner:
    training = f"learning_rate = 0.1\nbatch_size = 16\nmomentum = 0.9\nlocal_steps = {STEPS}"
    model = 'name = "mlp"\n[model.arguments]\nhidden = [16]\ndropout = 0.2\nbatch_norm = true'
    charter = make_charter(model=model, training=training, data=f'standardise = "{standardise}"')
    task = LearningTask(charter, make_site(site), allow=(), seed=5, threads=1)
    snapshots = TrainingSnapshots(
        path,
        charter_digest=charter.net,
        data_commitment=data_commitment,
        log=Quiet(),
        interval_s=interval_s,
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


class BreaksOffError(Exception):
    """The process dies here."""


def break_off(learner: ResumingLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in round 1 until the first snapshot is on the disk."""

    def keep_and_die(path: Path, facts: Facts, state: TrainingState) -> None:
        write_snapshot(path, facts, state)
        raise BreaksOffError

    with monkeypatch.context() as patched:
        patched.setattr("node.training_snapshots.write_snapshot", keep_and_die)
        with pytest.raises(BreaksOffError):
            learner.train(learner.initial(), 1)


def test_training_never_goes_on_from_patients_who_have_been_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONTRIBUTION signs the data that is there now, so the weights come from it alone."""
    file = tmp_path / "training.safetensors"
    break_off(resuming(file, interval_s=0, data_commitment=b"all", site=1), monkeypatch)
    fewer = resuming(file, data_commitment=b"fewer", site=2)
    anew = resuming(tmp_path / "elsewhere", data_commitment=b"fewer", site=2)
    assert fewer.train(fewer.initial(), 1) == anew.train(anew.initial(), 1)


def test_training_never_goes_on_from_patients_on_another_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def standardised(file: str, scale: int, interval_s: float = 0.05) -> ResumingLearner:
        learner = resuming(tmp_path / file, interval_s, standardise="federated")
        learner.set_moments(resuming(tmp_path, standardise="federated", site=scale).local_moments())
        return learner

    break_off(standardised("one", 1, interval_s=0), monkeypatch)
    other, anew = standardised("one", 2), standardised("elsewhere", 2)
    assert other.train(other.initial(), 1) == anew.train(anew.initial(), 1)


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("shape", [(), (2, 3), (0, 3)])
@pytest.mark.parametrize(
    "kind",
    [
        torch.complex128, torch.complex64, torch.complex32, torch.uint64, torch.uint32, torch.uint16,
        torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    ],
    ids=str,
)  # fmt: skip
def test_a_model_may_remember_tensors_of_any_type(
    tmp_path: Path, kind: torch.dtype, shape: tuple[int, ...]
) -> None:
    file = tmp_path / "training.safetensors"
    bits = torch.arange(48 * kind.itemsize).to(torch.uint8)
    modules = []
    for source in (bits, torch.zeros_like(bits)):
        module = torch.nn.Module()
        values = source.view(kind)
        module.register_buffer("plain", values[: math.prod(shape)].reshape(shape))
        module.register_buffer("turned", values.reshape(6, 8).T)
        modules.append(module)
    write_snapshot(file, FACTS, TrainingState(tensors=ModuleState(modules[0]).state()))
    found = read_snapshot(file, FACTS)
    assert found is not None
    ModuleState(modules[1]).restore(found.tensors)
    for before, after in zip(modules[0].buffers(), modules[1].buffers(), strict=True):
        assert torch.equal(*(one.reshape(-1).view(torch.uint8) for one in (before, after)))


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
