"""Requests to end: each becomes one Ctrl-C, wherever it comes, and an ignored one stays ignored."""

import signal
import subprocess
import sys
from textwrap import dedent

import pytest

PROLOGUE = """
import os, signal, sys, time
from scenarios.interrupts import end_on_request, end_quietly_on_request
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):  # the tests may be run under nohup
    signal.signal(number, signal.SIG_DFL)

def wait():
    try:
        time.sleep(30)
    except KeyboardInterrupt:
        print("clean", flush=True)
        print("a complaint", file=sys.stderr, flush=True)

class Finalized:
    def __del__(self):
        signal.raise_signal(number)
"""


def run(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + dedent(program)],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_that_a_finalizer_loses_comes_again(number: signal.Signals) -> None:
    done = run(f"number = {int(number)}; end_on_request(); Finalized(); wait()")
    assert done.stdout == "clean\n"
    assert done.stderr == "a complaint\n", "and Python says nothing of the one that was lost"
    assert done.returncode == 0


def test_other_errors_in_finalizers_are_told_as_ever() -> None:
    done = run("number = 'not a number'; end_on_request(); Finalized()")
    assert "Exception ignored in" in done.stderr
    assert "TypeError" in done.stderr


def test_who_is_ended_by_another_process_says_nothing_more() -> None:
    done = run("end_quietly_on_request(); number = signal.SIGTERM; Finalized(); wait()")
    assert (done.stdout, done.stderr, done.returncode) == ("clean\n", "", 0)


def test_what_is_ignored_stays_ignored() -> None:
    done = run(
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_on_request()
        signal.raise_signal(signal.SIGHUP)
        print("runs on")
        """
    )
    assert (done.stdout, done.stderr) == ("runs on\n", "")


def test_a_coroutine_that_never_began_is_no_news_then() -> None:
    done = run(
        """
        end_on_request()
        async def work(): ...
        work()
        """
    )
    assert done.stderr == ""
