"""What libp2p says goes to our log at debug level: the program's own logging is left alone."""

import logging

import pytest
from libp2p.network.connection import swarm_connection
from network_swarm import Member, all_connected, running_swarm, until

from node.libp2p.quiet import LIBP2P_LOG


class Recorder(logging.Handler):
    """Takes everything."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(f"{record.name}: {record.getMessage()}")


async def a_connection_comes_and_goes(members: list[Member]) -> None:
    """Libp2p has something to say at each of these."""
    await members[1].stop()
    await until(lambda: not members[0].network.connected())
    await members[1].start()
    await all_connected(members)


async def test_the_root_logger_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root, recorder = logging.getLogger(), Recorder()
    level = root.level
    async with running_swarm("libp2p", 2) as members:
        with monkeypatch.context() as bare:  # pytest's own handlers are not the program's
            bare.setattr(root, "handlers", [])
            await a_connection_comes_and_goes(members)
            assert not root.handlers, "libp2p has set up the program's logging"
            assert root.level == level
            root.addHandler(recorder)
            bare.setattr(root, "level", logging.DEBUG)
            logging.getLogger("libp2p.other").warning("heard by nobody but us")
            await a_connection_comes_and_goes(members)
        assert recorder.heard == []
        assert capfd.readouterr() == ("", "")


async def test_what_libp2p_warns_of_is_in_our_log_at_debug_level(
    capfd: pytest.CaptureFixture[str],
) -> None:
    handlers = list(LIBP2P_LOG.handlers)
    async with running_swarm("libp2p", 1) as members:
        vars(swarm_connection)["logging"].warning("Error resetting stream: %s", "why\nand how")
        logging.getLogger("libp2p.pubsub").warning("x" * 1000)
        LIBP2P_LOG.info("not worth a line")
        heard = [
            (level, fields) for level, name, fields in members[0].log.events if name == "libp2p"
        ]
        assert heard == [
            ("debug", {"logger": "libp2p", "text": "Error resetting stream: why"}),
            ("debug", {"logger": "libp2p.pubsub", "text": "x" * 300}),
        ]
    assert LIBP2P_LOG.handlers == handlers
    assert capfd.readouterr() == ("", "")
