"""The results that nodes have exported with their ledgers, by digest. Room: scenarios."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

from ledger.record import Aggregation, Codec, Record, Rule
from ledger.rules import result_codec

Logs = Mapping[int, Sequence[Record]]


@final
class Payloads:
    """What `swarm-node export --payloads` wrote beside several bundles."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories

    def models(self, logs: Logs) -> dict[bytes, bytes]:
        """Digest → model, of every result that is here."""
        return {
            body.result_digest: payload
            for body in _results(logs)
            if body.rule != Rule.MOMENTS
            and (payload := self._find(body.result_digest, result_codec(body.rule))) is not None
        }

    def moments(self, logs: Logs) -> bytes | None:
        """Return the moments that the members used, or None where they merged none."""
        found = [
            payload
            for body in _results(logs)
            if body.rule == Rule.MOMENTS
            and (payload := self._find(body.result_digest, Codec.MOMENTS)) is not None
        ]
        return found[-1] if found else None

    def remove(self) -> None:
        """Remove the copies; the nodes keep their own."""
        for directory in self._directories:
            shutil.rmtree(directory)

    def _find(self, digest: bytes, codec: int) -> bytes | None:
        name = f"{digest.hex()}.{int(codec)}"
        for directory in self._directories:
            if (directory / name).is_file():
                return (directory / name).read_bytes()
        return None


def _results(logs: Logs) -> Iterator[Aggregation]:
    return (one.body for log in logs.values() for one in log if isinstance(one.body, Aggregation))
