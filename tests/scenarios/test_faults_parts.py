"""What the fault cases stand on: the switch, the namespaces, the reading of logs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios.faults.logs import LogTail, parse, round_times
from scenarios.faults.namespaces import Namespaces, address_of, why_not
from scenarios.faults.run import choose
from scenarios.faults.switch import CUT, Cable, Switch, mac_of

needs_root = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
ETHERTYPE = bytes.fromhex("0800")


def frame(source: int, target: int | None, text: bytes = b"x") -> bytes:
    to = bytes([0xFF] * 6) if target is None else mac_of(target)
    return to + mac_of(source) + ETHERTYPE + text


def test_a_frame_goes_to_its_target_and_a_broadcast_to_all_others() -> None:
    switch = Switch(3, seed=1)
    switch.receive(0, frame(0, 2), now_s=0.0)
    switch.receive(1, frame(1, None), now_s=0.0)
    assert sorted(port for port, _ in switch.due(now_s=0.0)) == [0, 2, 2]
    assert switch.next_due_s() is None


def test_a_cut_cable_is_cut_in_its_direction_only() -> None:
    switch = Switch(2, seed=1)
    switch.plug(0, 1, CUT)
    switch.receive(0, frame(0, 1), now_s=0.0)
    switch.receive(1, frame(1, 0), now_s=0.0)
    assert [port for port, _ in switch.due(now_s=1.0)] == [0]


def test_a_slow_cable_delays_queues_and_drops_what_would_wait_too_long() -> None:
    switch = Switch(2, seed=1)
    switch.plug(0, 1, Cable(delay_s=0.1, bytes_per_s=1000))
    sent = [frame(0, 1, bytes(486)) for _ in range(10)]  # half a second each
    for one in sent:
        switch.receive(0, one, now_s=0.0)
    assert switch.next_due_s() == pytest.approx(0.6)
    assert len(switch.due(now_s=1.05)) == 1
    assert len(switch.due(now_s=1.11)) == 1
    assert len(switch.due(now_s=99.0)) == 3  # 5 within two seconds of queue, the rest is dropped


def test_losses_follow_from_the_seed() -> None:
    def arrived(seed: int) -> list[bytes]:
        switch = Switch(2, seed=seed)
        switch.plug(0, 1, Cable(loss=0.5))
        for number in range(200):
            switch.receive(0, frame(0, 1, bytes([number])), now_s=0.0)
        return [data for _, data in switch.due(now_s=0.0)]

    assert arrived(1) == arrived(1) != arrived(2)
    assert 70 < len(arrived(1)) < 130


@pytest.mark.parametrize("data", [b"", b"short", bytes(14), frame(0, 9), frame(0, 0)])
def test_frames_for_nobody_go_nowhere(data: bytes) -> None:
    switch = Switch(2, seed=1)
    switch.receive(0, data, now_s=0.0)
    assert switch.due(now_s=9.0) == []


SERVER = """
import socket, sys
with socket.create_server(("0.0.0.0", 5000)) as server:
    print("ready", flush=True)
    while True:
        line, _ = server.accept()
        line.sendall(b"here")
        line.close()
"""
CLIENT = """
import socket, sys, time
start = time.monotonic()
try:
    with socket.create_connection((sys.argv[1], 5000), timeout=float(sys.argv[2])) as line:
        word = line.recv(9).decode()
except OSError as error:
    word = type(error).__name__
print(word, time.monotonic() - start)
"""


@needs_root
def test_machines_in_namespaces_are_slowed_cut_and_healed() -> None:
    with Namespaces(3, seed=1) as machines:
        server = subprocess.Popen(
            [*machines.prefix(1), sys.executable, "-c", SERVER], stdout=subprocess.PIPE
        )
        try:
            assert server.stdout is not None
            server.stdout.readline()

            def ask(source: int, timeout_s: float = 10.0) -> tuple[str, float]:
                done = subprocess.run(
                    [*machines.prefix(source), sys.executable, "-c", CLIENT, address_of(1),
                     str(timeout_s)],
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                word, took_s = done.stdout.split()
                return word, float(took_s)

            assert ask(0)[0] == "here"
            machines.isolate(1)
            assert ask(0, 0.5)[0] == "TimeoutError"
            machines.heal()
            assert ask(0)[0] == "here"
            machines.split([[0], [1, 2]])
            assert ask(0, 0.5)[0] == "TimeoutError"
            assert ask(2)[0] == "here"
            machines.heal()
            machines.slow(1, Cable(delay_s=0.2))
            word, took_s = ask(2)
            assert word == "here"
            assert took_s >= 0.6  # there and back for the handshake, and once for the word
        finally:
            server.kill()
            server.communicate()
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"swarm-{os.getpid()}-" not in left.stdout


@needs_root
def test_a_namespace_cannot_reach_this_machine() -> None:
    """Load and faults stay among the machines that the run made."""
    with Namespaces(2, seed=1) as machines, socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        client = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=1)"
        done = subprocess.run(
            [*machines.prefix(0), sys.executable, "-c", client], capture_output=True, check=False
        )
        assert done.returncode != 0


def entry(second: float, **words: object) -> str:
    at = f"2026-01-01T00:00:{second:06.3f}Z"
    return json.dumps({"time": at, "event": "phase", **words})


def test_a_log_is_followed_line_by_line_and_a_torn_end_waits(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    tail = LogTail(path)
    assert list(tail.new()) == []
    line = entry(1, round=1, phase="train")
    path.write_text(line[:10])
    assert list(tail.new()) == []
    with path.open("a") as file:
        file.write(line[10:] + "\nnot json\n" + entry(2, round=1, phase="collect") + "\n")
    assert [one.phase for one in tail.new()] == ["train", "collect"]
    assert list(tail.new()) == []


def test_a_round_lasts_from_training_to_the_next_training_unless_the_node_died() -> None:
    lines = [
        entry(1, round=1, phase="train"), entry(2, round=1, phase="collect"),
        entry(4, round=2, phase="train"), entry(5, event="started"),
        entry(9, round=2, phase="train"), entry(12, round=3, phase="train"),
        entry(14, round=3, phase="linger"),
    ]  # fmt: skip
    parsed = [one for line in lines if (one := parse(line.encode())) is not None]
    assert [(t.round, t.took_s) for t in round_times(parsed)] == [(1, 3.0), (2, 3.0), (3, 2.0)]


def test_an_unknown_case_names_those_there_are() -> None:
    with pytest.raises(Exception, match="choose from kill, pause"):
        choose(["earthquake"])


def test_no_case_means_all_of_them() -> None:
    assert "partition" in choose([])
