"""libp2p's own log records: ours, at debug level, instead of stderr."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, final

from libp2p.network.connection import swarm_connection

from node.network import EventLog

LIBP2P_LOG: Final = logging.getLogger("libp2p")
_TEXT_MAX: Final = 300


@final
class _Forward(logging.Handler):
    def __init__(self, log: EventLog | None) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if self._log is not None:
            text = record.getMessage().partition("\n")[0]
            self._log.debug("libp2p", logger=record.name, text=text[:_TEXT_MAX])


@contextmanager
def forwarded_log(log: EventLog | None) -> Iterator[None]:
    """Send libp2p's own warnings to a log at debug level; None drops them."""
    # This module writes to the root logger, which would also install a handler there.
    vars(swarm_connection)["logging"] = LIBP2P_LOG
    handler = _Forward(log)
    LIBP2P_LOG.addHandler(handler)
    try:
        yield
    finally:
        LIBP2P_LOG.removeHandler(handler)
