"""Bytes that we count, at one place (node.network.Traffic says which)."""

from typing import final

from node.network import Traffic


@final
class Meter:
    """Two counters."""

    def __init__(self) -> None:
        self._sent_bytes = 0
        self._received_bytes = 0

    def sent(self, bytes_count: int) -> None:
        """Count bytes written to a stream."""
        self._sent_bytes += bytes_count

    def received(self, bytes_count: int) -> None:
        """Count bytes read from a stream."""
        self._received_bytes += bytes_count

    def total(self) -> Traffic:
        """Bytes so far."""
        return Traffic(bytes_sent=self._sent_bytes, bytes_received=self._received_bytes)
