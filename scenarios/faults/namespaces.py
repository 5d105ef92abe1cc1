"""A network namespace for each hospital, all on one switch of ours (switch.py). Needs root and `ip`.

Room: scenarios. Names carry this process's id; what was made is removed at the end, whatever happens.
"""

import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self, final

from ledger.errors import ConfigError
from scenarios.faults.switch import CUT, PLUGGED, Cable, mac_of

TUN_DEVICE: Final = Path("/dev/net/tun")
TUNSETIFF: Final = 0x400454CA
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
SUBNET: Final = "10.83.77"
MTU: Final = 1500
COMMAND_TIMEOUT_S: Final = 20.0


def why_not() -> str | None:
    """What is missing for namespaces on this machine; None when all is there."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    if shutil.which("ip") is None:
        return "needs the command `ip` (Debian: iproute2)"
    if not TUN_DEVICE.exists():
        return f"needs {TUN_DEVICE}"
    return None


def address_of(port: int) -> str:
    """IPv4 address of the machine on ``port``."""
    return f"{SUBNET}.{port + 1}"


@final
class Namespaces:
    """``count`` machines on one switch (a context manager)."""

    def __init__(self, count: int, *, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._stack = ExitStack()
        self._switch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if (missing := why_not()) is not None:
            raise ConfigError(f"faults of the network: {missing}")
        with ExitStack() as stack:
            taps = [self._machine(stack, port) for port in range(self._count)]
            self._switch = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "scenarios.faults.switch_process",
                 *map(str, taps), str(self._seed)],
                stdin=subprocess.PIPE, pass_fds=taps, start_new_session=True,
            )  # fmt: skip
            stack.callback(self._end_switch, self._switch)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prefix(self, port: int) -> tuple[str, ...]:
        """Words to put before a command so that it runs on the machine of ``port``."""
        return ("ip", "netns", "exec", _name(port))

    def plug(self, pairs: Iterable[tuple[int, int]], cable: Cable) -> None:
        """Give each (source, target) this cable, in this direction only."""
        if self._switch is None or self._switch.stdin is None:
            raise RuntimeError("the switch does not run")
        line = [[source, target, asdict(cable)] for source, target in pairs]
        self._switch.stdin.write(json.dumps(line).encode() + b"\n")
        self._switch.stdin.flush()

    def isolate(self, port: int) -> None:
        """Cut both directions of one machine's cables."""
        self.plug(self._of(port), CUT)

    def split(self, groups: Sequence[Sequence[int]]) -> None:
        """Cut all cables between different groups."""
        side = {port: at for at, group in enumerate(groups) for port in group}
        self.plug([(a, b) for a in side for b in side if side[a] != side[b]], CUT)

    def slow(self, port: int, cable: Cable) -> None:
        """Give one machine this cable to and from everybody."""
        self.plug(self._of(port), cable)

    def heal(self) -> None:
        """Plug everything in again."""
        ports = range(self._count)
        self.plug([(a, b) for a in ports for b in ports if a != b], PLUGGED)

    def _of(self, port: int) -> list[tuple[int, int]]:
        others = [other for other in range(self._count) if other != port]
        return [(port, other) for other in others] + [(other, port) for other in others]

    def _machine(self, stack: ExitStack, port: int) -> int:
        """Make one namespace with a TAP device in it; return the device's open file."""
        name, device = _name(port), f"st{os.getpid() % 100_000}x{port}"
        tap = os.open(TUN_DEVICE, os.O_RDWR)
        stack.callback(os.close, tap)
        flags = struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI)
        fcntl.ioctl(tap, TUNSETIFF, flags)
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        mac = mac_of(port).hex(":")
        _ip("link", "set", device, "address", mac, "mtu", str(MTU), "netns", name)
        _ip("-n", name, "addr", "add", f"{address_of(port)}/24", "dev", device)
        _ip("-n", name, "link", "set", device, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        return tap

    @staticmethod
    def _end_switch(switch: subprocess.Popen[bytes]) -> None:
        if switch.stdin is not None:
            switch.stdin.close()
        try:
            switch.wait(timeout=COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            switch.kill()
            switch.wait()


def _name(port: int) -> str:
    return f"swarm-{os.getpid()}-{port}"


def _ip(*words: str) -> None:
    done = subprocess.run(  # noqa: S603 - fixed words
        ["ip", *words],  # noqa: S607 - iproute2 lies in different places
        capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ConfigError(f"ip {' '.join(words)}: {done.stderr.strip() or done.returncode}")
