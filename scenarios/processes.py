"""Real nodes over loopback: one operating-system process a hospital, watched from outside.

Room: scenarios. Law: ends only processes that it started, by their id; whatever happens, none of
them outlives the run.
"""

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from node.config import socket_path
from node.status import ask
from scenarios.commands import ScenarioError, program, tail
from scenarios.live import Progress
from scenarios.view import NodeView

POLL_S: Final = 0.25
STOP_WAIT_S: Final = 10.0
TAIL_LINES: Final = 12


@dataclass(frozen=True, kw_only=True)
class Site:
    """One hospital's directory."""

    name: str
    directory: Path

    @property
    def config(self) -> Path:
        """Its site.toml."""
        return self.directory / "site.toml"

    @property
    def console(self) -> Path:
        """What its node prints."""
        return self.directory / "console.log"


@dataclass
class _Running:
    site: Site
    process: subprocess.Popen[bytes]
    console: IO[bytes]
    view: NodeView
    seen: NodeView = field(init=False)
    """The newest answer of the status interface; the counters of a node that has left."""

    def __post_init__(self) -> None:
        self.seen = self.view


class Nodes:
    """`swarm-node run` for each site, from start to the end of the run (a context manager)."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites
        self._running: list[_Running] = []
        self._started_s = time.monotonic()

    def __enter__(self) -> Self:
        self._started_s = time.monotonic()
        try:
            for site in self._sites:
                self._running.append(self._start(site))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids, in the order of the sites."""
        return tuple(node.process.pid for node in self._running)

    @property
    def views(self) -> tuple[NodeView, ...]:
        """The newest status of each node."""
        return tuple(node.view for node in self._running)

    def follow(self, progress: Progress, *, wall_s_max: float) -> tuple[NodeView, ...]:
        """Poll until every node has left by itself; return what each last said.

        Raises ScenarioError: a node died, with the tail of its log; or not done in time, with what
        each waits for.
        """
        while True:
            for node in self._running:
                self._poll(node)
            elapsed_s = time.monotonic() - self._started_s
            progress.update(self.views, elapsed_s=elapsed_s)
            if all(node.process.poll() is not None for node in self._running):
                return tuple(node.seen for node in self._running)
            if elapsed_s > wall_s_max:
                raise ScenarioError(self._late(wall_s_max))
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ask every node to leave (as Ctrl-C does), and end those that do not."""
        for node in self._running:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGINT)
        deadline_s = time.monotonic() + STOP_WAIT_S
        try:
            for node in self._running:
                with suppress(subprocess.TimeoutExpired):
                    node.process.wait(timeout=max(0.0, deadline_s - time.monotonic()))
        finally:  # also when a second Ctrl-C ends the waiting
            for node in self._running:
                if node.process.poll() is None:
                    node.process.kill()
                    node.process.wait()
                node.console.close()

    def _start(self, site: Site) -> _Running:
        console = site.console.open("ab")
        try:
            process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [program("swarm-node"), "run", "--config", str(site.config)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in our terminal is ours to pass on
            )
        except BaseException:
            console.close()
            raise
        return _Running(site, process, console, NodeView(name=site.name))

    def _poll(self, node: _Running) -> None:
        status = node.process.poll()
        if status is None:
            answer = ask(socket_path(node.site.directory))
            if answer is not None:
                node.view = node.seen = NodeView.of(node.site.name, answer)
            return
        if status != 0:
            log = "\n".join(f"    {line}" for line in tail(node.site.console, TAIL_LINES))
            how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
            raise ScenarioError(
                f"the node of {node.site.name} (pid {node.process.pid}) ended {how}; "
                f"its last lines in {node.site.console}:\n{log or '    (nothing)'}"
            )
        if node.view.phase != "left":
            node.view = node.seen.left()

    def _late(self, wall_s_max: float) -> str:
        waits = "; ".join(
            f"{view.name}: {view.phase}, round {view.round}"
            + (f", waits for {view.waiting_for}" if view.waiting_for else "")
            for view in self.views
        )
        return f"not done after {wall_s_max:.0f} s: {waits}"
