"""A real node is killed in the middle of a training, starts again, goes on, and is merged."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from site_factory import SWARM_NODE, Site, make_federation

from ledger.record import Aggregation, Record, decode_record
from ledger.store import Store

STEPS = 2000
LATE_S = 60


def start(site: Site) -> "subprocess.Popen[bytes]":
    """Run a site's node; its words are in node.log."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [SWARM_NODE, "run", "--config", site.config], stdout=quiet, stderr=quiet
    )


def until(condition: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + LATE_S
    while not condition():
        assert time.monotonic() < ends_s, f"waited a minute for {what}"
        time.sleep(0.005)


def events(site: Site, name: str) -> list[dict[str, Any]]:
    """A site's log events of one name."""
    lines = (site.directory / "node.log").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def merges(site: Site) -> list[set[int]]:
    """Whose updates each member has merged in round one, as a site's ledger says."""
    with Store.open(site.directory / "ledger.db", read_only=True) as store:
        records = [Record.from_value(decode_record(one.record_bytes)) for one in store.records()]
    return [
        {part.author for part in record.body.inputs}
        for record in records
        if record.round == 1 and isinstance(record.body, Aggregation)
    ]


@pytest.mark.processes
def test_a_node_killed_in_a_training_goes_on_from_its_snapshot_and_is_merged(
    tmp_path: Path,
) -> None:
    settings = (f"training.local_steps={STEPS}", "rounds.deadline_min_s=60")
    sites = make_federation(tmp_path, ("Anna", "Berta"), settings=settings)
    anna, berta = sites
    for site in sites:
        site.edit("sync_interval_s = 2.0", "sync_interval_s = 0.5")
    berta.edit("snapshot_interval_s = 60.0", "snapshot_interval_s = 0.05")
    nodes = [start(site) for site in sites]
    snapshot = berta.directory / "training.safetensors"
    try:
        until(lambda: snapshot.exists() or nodes[1].poll() is not None, "a snapshot")
        os.kill(nodes[1].pid, signal.SIGKILL)
        assert nodes[1].wait() == -signal.SIGKILL, "it ended by itself"
        assert snapshot.exists(), "the training was over before the node could be killed"
        assert not events(berta, "trained"), "the training was over"
        nodes.append(start(berta))
        assert nodes[2].wait(timeout=LATE_S) == 0
        assert nodes[0].wait(timeout=LATE_S) == 0
    finally:
        for node in nodes:
            node.kill()
            node.wait()
    (resumed,) = events(berta, "training_resumed")
    assert resumed["round"] == 1
    assert 0 < resumed["steps"] < STEPS
    (trained,) = (event for event in events(berta, "trained") if event["round"] == 1)
    assert trained["steps"] == STEPS
    for site in sites:
        (closed,) = events(site, "round_closed")
        assert (closed["agreed"], closed["merged"]) == (True, 2)
        assert merges(site) == [{0, 1}, {0, 1}]
    assert not events(anna, "training_resumed")
