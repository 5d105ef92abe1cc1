"""Four real node processes exchange a model of 100 MB, round after round. Run: make bench.

Says how long the exchange of a round lasts (from the last CONTRIBUTION until the last node holds all
payloads, checked and flushed to the disk), how that compares with the same bytes over plain TLS on
loopback, where nothing is checked or stored, and with TLS whose bytes are written and flushed to the same disk,
and how much memory a node takes above one that learns a tiny model. In turns: TLS, a federation, TLS, a
federation, TLS; each round is compared with the TLS before and after its federation. Early rounds take
fresh memory for the files, which some virtual machines give slowly, later ones that of rounds that were removed.
Limits: at best STORED_RATIO_MAX times TLS that stores, and MODELS_MAX models of memory; the goal of
RATIO_GOAL times plain TLS is reported.
"""

import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tls_loopback import exchange_s

from scenarios.live import Progress
from scenarios.main_job import Job, make_charter, make_sites
from scenarios.processes import Nodes
from scenarios.spec import load_spec
from scenarios.view import NodeView

TURNS: Final = 2
ROUNDS: Final = 8
WIDTH: Final = 4_970
"""Two hidden layers of this width: 25 million parameters."""
HOSPITALS: Final = 4
PAYLOAD_BYTES: Final = 100_000_000
"""Of the comparison; it is scaled to the model's own."""
RATIO_GOAL: Final = 3.0
STORED_RATIO_MAX: Final = 3.0
MODELS_MAX: Final = 4.0
WALL_S_MAX: Final = 900.0
MB: Final = 1e6


@dataclass(frozen=True)
class Measured:
    """One federation's figures."""

    model_bytes: int
    exchange_s: dict[int, float]
    """round → seconds"""
    memory_mb: list[float]


class Quiet(Progress):
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Nobody looks."""

    def update(self, views: Sequence[NodeView], *, elapsed_s: float) -> None:
        """Nobody looks."""


def federation(directory: Path, width: int, rounds: int) -> Job:
    """Four hospitals with one step of training a round, so that the exchange is what lasts."""
    spec = load_spec("four-hospitals")
    charter = dict(spec.charter) | {
        "model.arguments.hidden": [width, width],
        "training.local_steps": 1,
        "training.batch_size": 8,
        "training.learning_rate": 0.01,
        "rounds.payload_bytes_max": 1 << 30,
        "rounds.deadline_min_s": 300.0,
        "rounds.deadline_max_s": 600.0,
        "rounds.grace_s": 60.0,
    }
    site = dict(spec.site) | {"run.linger_s": 5.0}
    spec = replace(spec, model="mlp", rounds=rounds, charter=charter, site=site)
    job = Job.prepare(spec, data=None, out=directory, keep=True)
    make_sites(job)
    make_charter(job)
    return job


def run(directory: Path, width: int, rounds: int) -> Measured:
    """Run a federation to its end and read its logs."""
    job = federation(directory, width, rounds)
    with Nodes(job.sites) as nodes:
        views = nodes.follow(Quiet(), wall_s_max=WALL_S_MAX)
    committed, held = defaultdict(list), defaultdict(list)
    for site in job.sites:
        for event in events(site.directory / "node.log"):
            if event["event"] == "phase" and event["round"] > 0:
                into = {"collect": committed, "agree": held}.get(event["phase"])
                if into is not None:
                    into[event["round"]].append(datetime.fromisoformat(event["time"]))
    if any(len(one) != len(job.sites) for moments in (committed, held) for one in moments.values()):
        raise RuntimeError("a hospital left a round out: the machine is too busy to measure")
    largest = max(path.stat().st_size for path in (job.sites[0].directory / "blobs").iterdir())
    return Measured(
        model_bytes=largest,
        exchange_s={
            round_: (max(held[round_]) - max(committed[round_])).total_seconds()
            for round_ in sorted(committed)
        },
        memory_mb=[view.memory_mb for view in views],
    )


def events(path: Path) -> Iterator[dict[str, Any]]:
    """Every line of a node's log."""
    with path.open() as lines:
        yield from map(json.loads, lines)


@contextmanager
def place() -> Iterator[Path]:
    """A directory on a disk, not in memory: the payloads would count twice."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


def main() -> bool:
    """Print every figure; return whether all limits hold."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    ratios: list[float] = []
    stored_ratios: list[float] = []
    memory_mb: list[float] = []
    with place() as directory:
        base = run(directory / "tiny", 8, 1)
        tls_s = [exchange_s(HOSPITALS, PAYLOAD_BYTES)]
        stored_s = [exchange_s(HOSPITALS, PAYLOAD_BYTES, directory)]
        for turn in range(TURNS):
            big = run(directory / f"big-{turn}", WIDTH, ROUNDS)
            tls_s.append(exchange_s(HOSPITALS, PAYLOAD_BYTES))
            stored_s.append(exchange_s(HOSPITALS, PAYLOAD_BYTES, directory))
            scale = big.model_bytes / PAYLOAD_BYTES
            beside_s, beside_stored_s = (statistics.mean(s[-2:]) * scale for s in (tls_s, stored_s))
            memory_mb += big.memory_mb
            print(f"turn {turn}: TLS {beside_s:.2f} s, TLS that stores {beside_stored_s:.2f} s")
            for round_, seconds in big.exchange_s.items():
                ratios.append(seconds / beside_s)
                stored_ratios.append(seconds / beside_stored_s)
                print(
                    f"turn {turn}, round {round_}: {seconds:.2f} s, {ratios[-1]:.2f} times TLS, "
                    f"{stored_ratios[-1]:.2f} times TLS that stores"
                )
    total_mb = len(big.memory_mb) * (len(big.memory_mb) - 1) * big.model_bytes / MB
    print(
        f"{total_mb:.0f} MB a round among {len(big.memory_mb)} hospitals; load {os.getloadavg()[0]:.1f}"
    )
    for what, found, limit in (
        ("TLS", ratios, f"goal {RATIO_GOAL}"),
        ("TLS that stores", stored_ratios, f"limit {STORED_RATIO_MAX}"),
    ):
        print(
            f"times {what}: least {min(found):.2f} ({limit}), median {statistics.median(found):.2f}"
        )
    models = (max(memory_mb) - max(base.memory_mb)) * 1024 * 1024 / big.model_bytes
    print(
        f"peak memory: {max(base.memory_mb):.0f} MB with a tiny model, {max(memory_mb):.0f} MB with "
        f"this one: {models:.1f} models more (limit {MODELS_MAX})"
    )
    return min(stored_ratios) <= STORED_RATIO_MAX and models <= MODELS_MAX


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
