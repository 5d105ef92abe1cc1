"""A signal stops the node at any moment of its life: while it replays, and while it starts anew."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from site_factory import make_federation

from node.commands.common import open_site
from node.journal import RosterChangedError
from node.run import run_site


@pytest.fixture(autouse=True)
def _survive(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What would end this process fails the test instead."""

    def unheard(_number: int, _frame: object) -> None:
        raise AssertionError("nobody listened for the signal")

    def at_once(_status: int) -> None:
        raise AssertionError("the first signal was taken for the second")

    monkeypatch.setattr(os, "_exit", at_once)
    before = signal.signal(signal.SIGTERM, unheard)
    yield
    signal.signal(signal.SIGTERM, before)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def terminate_late() -> None:
    """Tell the node to stop, in work that ends although it is cancelled."""
    with trio.CancelScope(shield=True):
        terminate()
        await trio.sleep(0.05)


class Replaying:
    """A service that is built and replays its store when the signal comes."""

    def __init__(self, *_: object) -> None:
        terminate()

    async def run(self) -> None:
        await trio.sleep(30)
        raise AssertionError("it did not stop")


def test_a_stop_while_the_store_is_replayed_is_a_clean_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site,) = make_federation(tmp_path)
    monkeypatch.setattr("node.run.Service", Replaying)
    assert run_site(open_site(site.config)) == 0


@pytest.mark.parametrize("moment", ["ending", "ended"])
def test_a_stop_while_the_node_starts_anew_for_a_roster_is_its_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    lives: list[object] = []

    class Restarting:
        def __init__(self, *_: object) -> None:
            lives.append(self)
            assert len(lives) == 1, "it started a new life"

        async def run(self) -> None:
            await trio.sleep(0.05)
            if moment == "ending":
                await terminate_late()
            raise RosterChangedError(2)

    async def serve_status(*_: object) -> None:
        try:
            await trio.sleep_forever()
        finally:
            if moment == "ended":
                await terminate_late()

    (site,) = make_federation(tmp_path)
    monkeypatch.setattr("node.run.Service", Restarting)
    monkeypatch.setattr("node.run.serve_status", serve_status)
    assert run_site(open_site(site.config)) == 0
