"""Attach Debian's strace to a child of storage_program.py, break or watch its calls, report what it said."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
SECONDS_MAX: Final = 60.0
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - private directories inside
ATTACHED: Final = b"attached"


@dataclass(frozen=True)
class Run:
    """What became of one child."""

    said: tuple[str, ...]
    status: int
    log: str
    """What strace saw."""

    @property
    def was_hit(self) -> bool:
        return "(INJECTED)" in self.log or "(DELAYED)" in self.log or "+++ killed" in self.log

    @property
    def end(self) -> str:
        return self.said[-1] if self.said else ""

    def promised(self, word: str) -> list[str]:
        return [line.partition(" ")[2] for line in self.said if line.split(" ")[0] == word]


class Laboratory:
    """Forks children of one warmed-up process, each with strace on it from its first step on."""

    def __init__(self, channel: socket.socket, scratch: Path) -> None:
        self._channel = channel
        self._scratch = scratch

    def run(self, directory: Path, arguments: Sequence[str], *, what: str = "work") -> Run:
        self._channel.send(f"{what} {directory}".encode())
        pid = int(self._hear().removeprefix("pid "))
        log = self._scratch / "strace.log"
        with subprocess.Popen(
            ["strace", "-f", "-o", log, *arguments, "-p", str(pid)], stderr=subprocess.PIPE
        ) as strace:
            assert strace.stderr is not None
            line = strace.stderr.readline()
            self._channel.send(b"go")
            said = []
            while not (text := self._hear()).startswith("ended "):
                said.append(text)
            rest = strace.stderr.read()
        assert ATTACHED in line, line + rest
        return Run(tuple(said), int(text.removeprefix("ended ")), log.read_text())

    def _hear(self) -> str:
        text = self._channel.recv(65_536).decode()
        assert text, "the program is gone"
        return text


@contextmanager
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: what is broken here are calls, not a disk."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


def require_strace() -> None:
    """Skip, and say why, where calls cannot be watched."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt-get install strace")
    probe = subprocess.run(
        ["strace", "-f", "-o", os.devnull, "-e", "inject=openat:error=EIO:when=9999", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if probe.returncode != 0:
        pytest.skip(f"ptrace is not permitted here: {probe.stderr.strip()[:200]}")


@contextmanager
def laboratory(scratch: Path) -> Iterator[Laboratory]:
    require_strace()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(SECONDS_MAX)
    warm = scratch / "warm"
    warm.mkdir(parents=True)
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, HERE / "storage_program.py", str(theirs.fileno()), warm],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.fspath(HERE.parent.parent)},
        ) as process,
    ):  # fmt: skip
        try:
            theirs.close()
            assert ours.recv(16) == b"ready"
            yield Laboratory(ours, scratch)
        finally:
            ours.close()
            process.wait()
