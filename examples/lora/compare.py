"""What three hospitals send and reach when they train everything, the last layer, or the adapters.

One process, no network: a round is `train` at each site and `merge` of what they sent.
"""

import hashlib
from pathlib import Path

from lora_model.pictures import SITES, make_dataset

from ledger.charter import Charter, load_charter
from ledger.record import MetricId
from swarm.learning.dataset import SiteData
from swarm.learning.task import LearningTask
from swarm.learning.training_state import Arrays

ROUNDS = 15
# name: (patterns of what is trained, codec)
WAYS = {
    "nothing": ([], "float32"),
    "everything": (["*"], "float32"),
    "the last layer": (["layers.2.base.*"], "float32"),
    "adapters": (["*lora*"], "float32"),
    "adapters in int8": (["*lora*"], "int8"),
}
CHARTER = """
version = 1
federation = "Turned digits"
[model]
name = "python:lora_model:AdaptedNet"
[data]
label = "digit"
head = "multiclass"
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
standardise = "none"
[training]
optimiser = "adam"
learning_rate = 0.005
batch_size = 32
local_steps = 20
trained = {trained}
[aggregation]
codec = "{codec}"
[rounds]
rounds = {rounds}
"""


def charter_of(trained: list[str], codec: str) -> Charter:
    """Return the federation's charter, without members."""
    patterns = str(trained or ["*"]).replace("'", '"')
    text = CHARTER.format(trained=patterns, codec=codec, rounds=ROUNDS)
    return load_charter(text.encode(), complete=False)


def federate(trained: list[str], codec: str) -> tuple[int, float]:
    """Return the bytes of one update and the mean accuracy of the last model at the sites."""
    charter = charter_of(trained, codec)
    tasks = []
    for at, name in enumerate(SITES):
        train, validation = make_dataset(Path(name))
        data = SiteData(train=train, validation=validation)
        tasks.append(LearningTask(charter, data, allow=("lora_model",), seed=at, threads=1))
    model, sent = tasks[0].initial(), 0
    memories: list[Arrays] = [{} for _ in tasks]
    for number in range(1, ROUNDS + 1 if trained else 1):
        done = [
            task.train(model, number, memory) for task, memory in zip(tasks, memories, strict=True)
        ]
        memories = [one.memory for one in done]
        sent = max(len(one.payload) for one in done)
        inputs = [
            (hashlib.sha256(one.payload).digest(), one.payload, 1_000_000 // len(done))
            for one in done
        ]
        model = tasks[0].merge(inputs, model)
    found = [{v.metric: v.micro / 1e6 for v in task.evaluate(model)} for task in tasks]
    return sent, sum(values[MetricId.ACCURACY] for values in found) / len(found)


def main() -> None:
    """Print one line for each way."""
    for way, (trained, codec) in WAYS.items():
        sent, accuracy = federate(trained, codec)
        print(f"{way:>16}: {sent:>7,} bytes an update, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
