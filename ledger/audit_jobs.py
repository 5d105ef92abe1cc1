"""Signatures checked by several processes at once. Room: ledger. Spec: docs/ledger.md §10.

Every process walks the same files in the same order and counts blocks of records; a shared counter
hands out the blocks, so that whoever is free takes the next. For a block whose signatures are all
right it reports a digest of the ids in it: the audit, which meanwhile did every other step, compares
that with what it has read itself. Nothing but such an agreement counts; whatever else happens (a
wrong signature, a process that died, a file that changed), the audit starts anew in one process and
says what that finds. So the verdict and the codes are those of one process.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeAlias

from .errors import SwarmError
from .keys import opens
from .reading import envelopes as read_envelopes
from .record import DOMAIN

Block: TypeAlias = tuple[int, int]  # (position of the log, number of the block in it)

BLOCK_RECORDS: Final = 256
_CLAIM_TIMEOUT_S: Final = 60.0  # a process that died while it held the counter is not waited for
_NO_MORE: Final = 1 << 62
_ROW_BYTES: Final = 4 + 8 + 32
_LONG_FROM: Final = 325  # bytes of the shortest envelope with a bin16 header


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFiles:
    """One log: the key that signs it, and its file in each bundle."""

    key: bytes
    paths: tuple[Path, ...]


@contextlib.contextmanager
def signature_jobs(
    logs: Sequence[LogFiles], jobs: int
) -> Iterator[Callable[[], dict[Block, bytes]]]:
    """Start ``jobs - 1`` processes; yield what helps them to the end and returns all answers."""
    # A fork starts at once, but a fork of several threads may inherit a lock that nobody frees.
    alone = threading.active_count() == 1
    context = get_context("fork") if alone else get_context("spawn")
    counter = context.Value("q", 0)
    workers = []
    pipes: list[Connection] = []
    try:
        for _ in range(jobs - 1):
            ours, theirs = context.Pipe(duplex=False)
            pipes.append(ours)
            worker = context.Process(target=_work, args=(logs, counter, theirs), daemon=True)
            worker.start()
            workers.append(worker)
            theirs.close()

        def finish() -> dict[Block, bytes]:
            confirmed = check_blocks(logs, counter)
            for pipe in pipes:
                with contextlib.suppress(EOFError, OSError):
                    confirmed |= _unpack(pipe.recv_bytes())
            return confirmed

        yield finish
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        for pipe in pipes:
            pipe.close()


def _work(logs: Sequence[LogFiles], counter: Any, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that was interrupted ends this one
    gc.disable()
    with contextlib.suppress(SwarmError, OSError):
        pipe.send_bytes(_pack(check_blocks(logs, counter)))


def check_blocks(logs: Sequence[LogFiles], counter: Any) -> dict[Block, bytes]:
    """Check block after block that the counter hands out; return those that are rightly signed."""
    confirmed: dict[Block, bytes] = {}
    number, mine = 0, _claim(counter)
    for position, log in enumerate(logs):
        frames = read_envelopes(log.paths)  # the audit says what is wrong with a file
        block = 0
        while envelopes := list(islice(frames, BLOCK_RECORDS)):
            if number == mine:
                ids = _ids_if_signed(envelopes, log.key)
                if ids is None:
                    counter.value = _NO_MORE
                    return confirmed
                confirmed[position, block] = sha256(ids).digest()
                mine = _claim(counter)
            number += 1
            block += 1
    return confirmed


def _claim(counter: Any) -> int:
    lock = counter.get_lock()
    if not lock.acquire(timeout=_CLAIM_TIMEOUT_S):
        return _NO_MORE
    try:
        number: int = counter.value
        counter.value = number + 1
    finally:
        lock.release()
    return number


def _ids_if_signed(envelopes: Sequence[bytes], key: bytes) -> bytes | None:
    """Return the ids of the records if the key has signed every one.

    What is no proper envelope has no signature here, or other ids than the audit reads.
    """
    ids = []
    for envelope in envelopes:
        record_bytes = envelope[3 if len(envelope) < _LONG_FROM else 4 : -66]
        if not opens(envelope[-64:] + DOMAIN + record_bytes, key):
            return None
        ids.append(sha256(b"\x00" + record_bytes).digest())
    return b"".join(ids)


def confirms(confirmed: Mapping[Block, bytes], ids: Sequence[bytes | bytearray]) -> bool:
    """Tell whether every record of every log lies in a block that is rightly signed.

    ids: for each log the ids that the audit has accepted, one after the other.
    """
    size = BLOCK_RECORDS * 32
    return all(
        confirmed.get((position, at // size)) == sha256(of_log[at : at + size]).digest()
        for position, of_log in enumerate(ids)
        for at in range(0, len(of_log), size)
    )


def _pack(confirmed: Mapping[Block, bytes]) -> bytes:
    return b"".join(
        position.to_bytes(4, "big") + block.to_bytes(8, "big") + digest
        for (position, block), digest in confirmed.items()
    )


def _unpack(data: bytes) -> dict[Block, bytes]:
    rows = (data[at : at + _ROW_BYTES] for at in range(0, len(data), _ROW_BYTES))
    return {
        (int.from_bytes(row[:4], "big"), int.from_bytes(row[4:12], "big")): row[12:] for row in rows
    }
