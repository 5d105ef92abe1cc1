"""Requests to end, taken as Ctrl-C, so that everything is stopped on the way out. Room: scenarios."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

REQUESTS: Final = (signal.SIGTERM, signal.SIGHUP)
"""What a service manager sends, and a terminal that closes."""
STDERR: Final = 2
"""File descriptor."""
AGAIN_S: Final = 0.01
"""After a Ctrl-C that was lost it is raised again."""


def end_on_request() -> None:
    """Take requests to end as Ctrl-C; one that is ignored, as under nohup, stays so."""
    for number in REQUESTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    _lose_none()


def end_quietly_on_request() -> None:
    """As ``end_on_request``, in a process that another one ends: nobody reads what it says after that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where trio puts its own
    signal.signal(signal.SIGTERM, _end_once)
    _lose_none()


def interrupt(_number: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C is handled now: trio's handler waits for a place where it may raise."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:  # ignored, as a shell does for what it runs behind
        raise KeyboardInterrupt


def _end_once(number: int, frame: FrameType | None) -> None:
    """Take the first request to end; a second one would come in the middle of the clean-up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
    interrupt(number, frame)


def _lose_none() -> None:
    """Raise a Ctrl-C again that came where Python drops exceptions, in a finalizer for example."""
    # Where it cuts off trio between making a coroutine and running it, that is no mistake of ours.
    warnings.filterwarnings("ignore", r"coroutine .* was never awaited", RuntimeWarning)
    sys.unraisablehook = partial(_raise_again, sys.unraisablehook)


def _raise_again(
    others: Callable[["sys.UnraisableHookArgs"], object], dropped: "sys.UnraisableHookArgs"
) -> None:
    if isinstance(dropped.exc_value, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)  # here it would be dropped again
    else:
        others(dropped)
