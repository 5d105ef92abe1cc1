"""The process that runs the switch: frames from TAP devices, cables from its standard input.

Room: scenarios. Argument: the numbers of the open TAP devices, then the seed. Each line of input is JSON,
`[[source, target, {cable}], …]`; the process ends with its input, so it never outlives the run.
"""

import json
import os
import selectors
import sys
import time
from contextlib import suppress
from typing import Final

from scenarios.faults.switch import Cable, Switch

FRAME_BYTES_MAX: Final = 1 << 16
FRAMES_AT_ONCE: Final = 64


def serve(taps: list[int], control: int, *, seed: int) -> None:
    """Forward frames until ``control`` ends. All descriptors are non-blocking."""
    switch = Switch(len(taps), seed=seed)
    with selectors.DefaultSelector() as selector:
        for port, tap in enumerate(taps):
            selector.register(tap, selectors.EVENT_READ, port)
        selector.register(control, selectors.EVENT_READ)
        pending = b""
        while True:
            due_s = switch.next_due_s()
            wait_s = None if due_s is None else max(due_s - time.monotonic(), 0.0)
            for key, _ in selector.select(wait_s):
                if key.fd == control:
                    text = os.read(control, FRAME_BYTES_MAX)
                    if not text:
                        return
                    *lines, pending = (pending + text).split(b"\n")
                    for line in lines:
                        _plug(switch, line)
                else:
                    _read(switch, key.fd, key.data)
            for port, frame in switch.due(now_s=time.monotonic()):
                with suppress(OSError):  # a full or closed device drops frames, as hardware does
                    os.write(taps[port], frame)


def _read(switch: Switch, tap: int, port: int) -> None:
    with suppress(OSError):  # nothing more to read, or the device is down
        for _ in range(FRAMES_AT_ONCE):
            switch.receive(port, os.read(tap, FRAME_BYTES_MAX), now_s=time.monotonic())


def _plug(switch: Switch, line: bytes) -> None:
    for source, target, cable in json.loads(line):
        switch.plug(source, target, Cable(**cable))


if __name__ == "__main__":
    *descriptors, seed_text = map(int, sys.argv[1:])
    for descriptor in (*descriptors, 0):
        os.set_blocking(descriptor, False)
    serve(descriptors, 0, seed=seed_text)
