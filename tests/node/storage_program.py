"""Run as a process of its own: append, mark, export and keep payloads, once for each order, and say how far.

An order is ``work DIR``, ``receive DIR``, or ``FULL DIR`` or ``NORMAL DIR``: sign with a journal on a store of that level.
The tests attach to a forked child between ``pid`` and ``go``, so that whatever they break is counted from
there on. Talks over a socket, since ``write`` is one of the calls that get broken.
"""

import contextlib
import ctypes
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trio

from ledger.bundle import export_bundle
from ledger.errors import SwarmError
from ledger.record import Codec, Kind, Record, Rejection, Verified
from ledger.store import Store
from node.blobs import BlobStore
from node.compute import Compute, InlineCompute, ThreadCompute
from node.highwater import HighWater
from node.journal import Journal
from node.training_snapshots import FORMAT, write_snapshot
from swarm.learning.training_state import TrainingState
from swarm.protocol.payload import CHUNK_BYTES, manifest_of
from tests.ledger.ledger_factory import Federation, digest_of

GROUPS = 3
GROUP = 2
SIGNED = 8
PAYLOAD = b"payload " * 20_000
ARRIVING = b"arriving" * (CHUNK_BYTES // 8 + 1_000)
SMALL = b"arriving" * 600
"""One chunk, short enough for a line of strace."""
FACTS = {"format": FORMAT, "round": "1"}
PR_SET_PTRACER = 0x59616D61
PTRACER_ANY = ctypes.c_ulong(-1)

Say = Callable[[str], None]


Groups = list[list[Verified[Record]]]


def groups(federation: Federation) -> Groups:
    """The same records in every process: own log of member 0."""
    records = [federation.open(0)]
    for number in range(GROUPS * GROUP - 1):
        body = Rejection(target_id=digest_of(f"target {number}"), reason=1)
        records.append(federation.write(0, Kind.REJECTION, 1, body))
    return [records[at : at + GROUP] for at in range(0, len(records), GROUP)]


def work(directory: Path, federation: Federation, made: Groups, say: Say) -> None:
    """What a node does with its disk; says each promise after it was made."""
    net = federation.roster.net
    count = 0
    with Store.open(directory / "ledger.db") as store:
        (journal_mode,) = store._connection.execute("PRAGMA journal_mode").fetchone()
        if journal_mode != b"wal":
            raise RuntimeError("the store works without a write-ahead log")
        mark = HighWater.checked(store, net=net, author=0, epoch=0)
        for group in made[:-1]:
            store.append(group, state={"phase": b"x"})
            mark.raise_to(store.heads()[0, 0])
            count += len(group)
            say(f"stored {count}")
        blobs = BlobStore(directory / "blobs")
        digest = blobs.put(Codec.FLOAT32, PAYLOAD)
        say(f"kept {digest.hex()}")
        if blobs.get(digest) != PAYLOAD or blobs.chunk(digest, 0) is None or not blobs.stored():
            raise RuntimeError("a payload that was kept has changed")
        receive(blobs, ARRIVING, say)
        for step in (1, 2):
            write_snapshot(directory / "training", FACTS, training_state(step))
            say(f"snapshot {step}")
        export_bundle(store, federation.charter_bytes, directory / "bundle")
        say("exported")
    with Store.open(directory / "ledger.db") as store:
        mark = HighWater.checked(store, net=net, author=0, epoch=0)
        store.append(made[-1])
        mark.raise_to(store.heads()[0, 0])
        say(f"stored {count + len(made[-1])}")
        if len(list(store.records())) != count + len(made[-1]):
            raise RuntimeError("the store returned too little")


def receive(blobs: BlobStore, payload: bytes, say: Say) -> None:
    """Take a payload chunk by chunk, as from others, and accept it."""
    manifest = manifest_of(Codec.FLOAT32, payload)
    partial = blobs.begin(manifest)
    for index in range(len(manifest.chunks)):
        partial.add(index, payload[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    blobs.accept(partial)
    say(f"kept {manifest.digest.hex()}")
    if blobs.get(manifest.digest) != payload:
        raise RuntimeError("a payload that arrived has changed")


def receive_some(directory: Path, say: Say) -> None:
    """Take a few payloads and keep a few snapshots."""
    blobs = BlobStore(directory / "blobs")
    for step in range(1, 4):
        receive(blobs, SMALL + bytes([step]), say)
        write_snapshot(directory / "training", FACTS, training_state(step))
        say(f"snapshot {step}")


def training_state(step: int) -> TrainingState:
    return TrainingState(tensors={"a": np.full(99, step, np.float32)}, numbers={"steps": step})


async def sign(
    directory: Path, federation: Federation, disk: Compute, say: Say, level: str
) -> None:
    """What a node's pen does; says of each record that it is sent now."""
    with Store.open(directory / "ledger.db") as store:
        store._connection.execute(f"PRAGMA synchronous = {level}")
        store._connection.execute("PRAGMA wal_autocheckpoint = 12")
        journal = Journal(
            store=store,
            roster=federation.roster,
            own=0,
            signer=federation.signers[0],
            disk=disk,
            time_ms=lambda: 1_000,
        )
        for number in range(SIGNED):
            kind = Kind.REJECTION if number else Kind.OPEN
            body = Rejection(target_id=digest_of(f"target {number}"), reason=1)
            record = await journal.append(
                kind, min(number, 1), body if number else federation.open_body(0)
            )
            say(f"sent {record.value.seq} {record.id.hex()}")


def child(channel: socket.socket, order: str, federation: Federation) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PTRACER_ANY, 0, 0, 0)
    made = groups(federation)

    def say(text: str) -> None:
        channel.send(text.encode())

    say(f"pid {os.getpid()}")
    channel.recv(16)
    what, directory = order.split(" ", 1)
    try:
        if what == "work":
            work(Path(directory), federation, made, say)
        elif what == "receive":
            receive_some(Path(directory), say)
        else:
            trio.run(sign, Path(directory), federation, ThreadCompute(), say, what)
        say("done")
    except SwarmError as error:
        say(f"error {type(error).__name__} {error}")
    except BaseException:  # noqa: BLE001 - whatever it is, the test wants to see it
        say(f"bug {traceback.format_exc()[-3_000:]}")
    os._exit(0)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    federation = Federation(1)
    warm = Federation(1)
    # Once through everything, so that no module is imported under attack.
    scratch = Path(sys.argv[2])
    work(scratch, warm, groups(warm), lambda _: None)
    (scratch / "signed").mkdir()
    trio.run(sign, scratch / "signed", federation, InlineCompute(), lambda _: None, "FULL")
    manifest_of(Codec.FLOAT32, PAYLOAD)
    with contextlib.suppress(SwarmError), Store.open(scratch / "none" / "ledger.db"):
        pass
    channel.send(b"ready")
    while order := channel.recv(4_096):
        pid = os.fork()
        if pid == 0:
            child(channel, order.decode(), federation)
        _, status = os.waitpid(pid, 0)
        channel.send(f"ended {status}".encode())


if __name__ == "__main__":
    main()
