"""Running hospitals that can be killed, paused and started again, and watched through their logs.

Room: scenarios. Law: ends only processes that it started, by their id; none outlives the case.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final, Self, final

from scenarios.commands import ScenarioError, program, tail
from scenarios.faults.federation import Federation
from scenarios.faults.logs import Line, LogTail
from scenarios.faults.namespaces import Namespaces
from scenarios.processes import Site

LOOK_S: Final = 0.01
STOP_WAIT_S: Final = 20.0
TAIL_LINES: Final = 12


@dataclass
class _Node:
    site: Site
    tail: LogTail
    process: subprocess.Popen[bytes] | None = None
    lines: list[Line] = field(default_factory=list)
    exit_status: int | None = None


@final
class LiveSwarm:
    """All hospitals of a case (a context manager). Members are called by their place."""

    def __init__(self, federation: Federation, namespaces: Namespaces | None) -> None:
        self.federation = federation
        self.namespaces = namespaces
        self._nodes = [
            _Node(site, LogTail(site.directory / "node.log")) for site in federation.sites
        ]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def __len__(self) -> int:
        return len(self._nodes)

    def start_all(self) -> None:
        """Start every node that does not run."""
        for member, node in enumerate(self._nodes):
            if node.process is None:
                self.start(member)

    def start(self, member: int) -> None:
        """Start one node, or start it again."""
        node = self._nodes[member]
        prefix = self.namespaces.prefix(member) if self.namespaces else ()
        with node.site.console.open("ab") as console:
            node.process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [*prefix, program("swarm-node"), "run", "--config", str(node.site.config)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        node.exit_status = None

    def kill(self, member: int) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        process = self._running(member)
        process.kill()
        process.wait()
        self._nodes[member].process = None

    def send(self, member: int, number: signal.Signals) -> None:
        """Send a signal to a running node."""
        self._running(member).send_signal(number)

    def leave(self, member: int) -> int:
        """Ask a node to leave as Ctrl-C does; return its exit status."""
        process = self._running(member)
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=STOP_WAIT_S)
        self._nodes[member].process = None
        return status

    def wait_for_exit(self, member: int, *, wall_s: float) -> int:
        """Wait until a node has ended by itself, for whatever reason; return its exit status."""
        process = self._running(member)
        try:
            status = process.wait(timeout=wall_s)
        except subprocess.TimeoutExpired:
            name = self._nodes[member].site.name
            raise ScenarioError(f"the node of {name} still runs after {wall_s:.0f} s") from None
        self._nodes[member].process = None
        return status

    def last_line(self, member: int) -> str:
        """The last line that a node has printed."""
        return next(iter(list(tail(self._nodes[member].site.console, 1))), "")

    def pid(self, member: int) -> int:
        """Process id of a running node (`ip netns exec` becomes the node itself)."""
        return self._running(member).pid

    def is_running(self, member: int) -> bool:
        """Whether the node still runs."""
        process = self._nodes[member].process
        return process is not None and process.poll() is None

    def lines(self, member: int) -> list[Line]:
        """Everything that the node has logged so far."""
        node = self._nodes[member]
        node.lines.extend(node.tail.new())
        return node.lines

    def round(self, member: int) -> int:
        """The newest round that the node has entered."""
        return max(
            (one.round or 0 for one in self.lines(member) if one.event == "phase"), default=0
        )

    def wait_for(self, what: str, ready: Callable[[], bool], *, wall_s: float) -> float:
        """Look again and again; return how long it took. Raises ScenarioError when it does not come."""
        start_s = time.monotonic()
        while not ready():
            if time.monotonic() - start_s > wall_s:
                raise ScenarioError(f"not within {wall_s:.0f} s: {what}; {self._standing()}")
            self._check_alive()
            if not any(self.is_running(member) for member in range(len(self))) and not ready():
                raise ScenarioError(
                    f"the rounds were over before (more --rounds?): {what}; {self._standing()}"
                )
            time.sleep(LOOK_S)
        return time.monotonic() - start_s

    def wait_for_line(
        self, member: int, what: str, matches: Callable[[Line], bool], *, wall_s: float
    ) -> Line:
        """Wait for the next matching line of a node's log."""
        at = len(self.lines(member))
        found: list[Line] = []

        def look() -> bool:
            nonlocal at
            lines = self.lines(member)
            found.extend(line for line in lines[at:] if matches(line))
            at = len(lines)
            return bool(found)

        self.wait_for(what, look, wall_s=wall_s)
        return found[0]

    def wait_for_the_end(self, members: Sequence[int], *, wall_s: float) -> None:
        """Wait until these nodes have left by themselves, with exit status 0."""

        def left() -> bool:
            return not any(self.is_running(member) for member in members)

        self.wait_for("all nodes done", left, wall_s=wall_s)
        self._check_alive()

    def stop(self) -> None:
        """End what still runs."""
        for node in self._nodes:
            if node.process is not None and node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                node.process.kill()
                node.process.wait()

    def _running(self, member: int) -> subprocess.Popen[bytes]:
        process = self._nodes[member].process
        if process is None or process.poll() is not None:
            raise ScenarioError(f"the node of {self._nodes[member].site.name} does not run")
        return process

    def _check_alive(self) -> None:
        for node in self._nodes:
            status = node.process.poll() if node.process is not None else None
            if status:
                raise ScenarioError(
                    f"the node of {node.site.name} ended with {status}: "
                    + " | ".join(tail(node.site.console, TAIL_LINES))
                )

    def _standing(self) -> str:
        def last(member: int) -> str:
            phases = [line for line in self.lines(member) if line.event == "phase"]
            return f"{phases[-1].phase} {phases[-1].round}" if phases else "no phase"

        return ", ".join(
            f"{node.site.name} {last(member)}" for member, node in enumerate(self._nodes)
        )
