"""A request to end, taken as Ctrl-C, so that everything is stopped on the way out. Room: scenarios."""

import signal
from types import FrameType


def interrupt(_number: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C is handled now: trio's handler waits for a place where it may raise."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:  # ignored, as a shell does for what it runs behind
        raise KeyboardInterrupt
