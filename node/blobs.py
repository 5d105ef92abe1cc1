"""Payloads on disk, called by their digest. A file is whole or absent, and is checked when it is read.

A payload is written to a temporary file, flushed to the disk and renamed, so whatever name exists after
a power cut is complete; a record on the ledger that names it is written only afterwards. What comes in
from others grows in a file of its own (partial.py) until it is complete and accepted. Room: node.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from blake3 import blake3

from ledger.store_files import sync_directory
from node.partial import DATA, MANIFEST, Partial, remove_partial
from node.payload_io import (
    Buffer,
    NoRoomError,
    faults,
    manifest_of_file,
    read_at_hand,
    read_fully,
    view_of_file,
)
from swarm.protocol.payload import CHUNK_BYTES, Manifest, manifest_of

MANIFESTS_REMEMBERED: Final = 1 << 16
"""As many as a site has payloads, within reason: who asks for one after the other (HELD) must not have
the disk's thread digest a file each time. One takes 200 bytes of memory, and 73 for each MiB."""
BYTES_MAX: Final = 20_000_000_000
"""Most bytes of payloads, unless the site's settings say otherwise."""
DISK_SPARE_BYTES: Final = 64 << 20
"""Left free for the ledger when somebody else's payload asks for room."""
_NAME: Final = re.compile(r"[0-9a-f]{64}\.[0-9]{1,5}")
_INCOMING: Final = re.compile(r"[0-9a-f]{64}\.(incoming|manifest)")


@final
class BlobStore:
    """Content-addressed payloads in one directory, up to so many bytes."""

    def __init__(self, directory: Path, *, bytes_max: int = BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self._directory = directory
        self._manifests: dict[bytes, Manifest] = {}
        self._stored: dict[bytes, tuple[int, int]] = {}
        self._incoming: dict[bytes, int] = {}
        """digest → bytes that its file will have"""
        with faults(directory, "keep payloads there"):
            directory.mkdir(parents=True, exist_ok=True)
            self._look()

    @property
    def directory(self) -> Path:
        """Where the payloads lie."""
        return self._directory

    def put(self, codec: int, payload: Buffer) -> bytes:
        """Store ``payload`` durably and return its digest. Storing it again changes nothing.

        Raises NoRoomError when payloads may not take so much of the disk.
        """
        manifest = manifest_of(codec, payload)
        path = self._path(manifest.digest, codec)
        if manifest.digest not in self._stored or not path.exists():
            self._check_room(manifest.digest, len(payload))
            with faults(path, "store a payload"):
                self._write(path, payload)
        self._stored[manifest.digest] = (codec, len(payload))
        self._remember(manifest)
        return manifest.digest

    def get(self, digest: bytes) -> bytes | None:
        """Return the payload, or None when it is absent or its file is damaged (then it is removed)."""
        found = self._stored.get(digest)
        if found is None:
            return None
        path = self._path(digest, found[0])
        with faults(path, "read a payload"), suppress(FileNotFoundError):
            manifest = manifest_of_file(found[0], path)
            if manifest.digest == digest:
                self._remember(manifest)
                return view_of_file(path)
            path.unlink()
        self._forget(digest)
        return None

    def manifest(self, digest: bytes) -> Manifest | None:
        """Return the chunk digests of a stored payload."""
        if digest not in self._manifests:
            self.get(digest)
        return self._manifests.get(digest)

    def chunk(self, digest: bytes, index: int) -> bytes | None:
        """Return one chunk without reading the rest; None also when its bytes have changed."""
        manifest = self.manifest(digest)
        if manifest is None or not 0 <= index < len(manifest.chunks):
            return None
        path = self._path(digest, manifest.codec)
        chunk = b""
        with faults(path, "read a payload"), suppress(FileNotFoundError), path.open("rb") as file:
            chunk = read_fully(file.fileno(), CHUNK_BYTES, index * CHUNK_BYTES)
        return chunk if blake3(chunk).digest() == manifest.chunks[index] else None

    def chunk_at_hand(self, digest: bytes, index: int) -> bytearray | None:
        """Return one chunk if that takes no turn of the disk: the system has it in memory.

        Unlike everything else here it may be called while another thread works on this store.
        """
        manifest = self._manifests.get(digest)
        if manifest is None or not 0 <= index < len(manifest.chunks):
            return None
        try:
            with self._path(digest, manifest.codec).open("rb", buffering=0) as file:
                chunk = read_at_hand(file.fileno(), manifest.size_of(index), index * CHUNK_BYTES)
        except OSError:
            return None
        return chunk if chunk and blake3(chunk).digest() == manifest.chunks[index] else None

    def stored(self) -> dict[bytes, tuple[int, int]]:
        """Everything stored: digest → (codec, bytes). Files of other names are somebody else's."""
        return dict(self._stored)

    def incoming(self) -> frozenset[bytes]:
        """Payloads of which a part is here, also from before a restart."""
        return frozenset(self._incoming)

    @property
    def bytes_stored(self) -> int:
        """Bytes of everything stored and, in full, of everything that is coming in.

        May be called while another thread works on this store, so it adds up copies.
        """
        stored, incoming = list(self._stored.values()), list(self._incoming.values())
        return sum(size for _, size in stored) + sum(incoming)

    def begin(self, manifest: Manifest) -> Partial:
        """Make room for a payload that comes in. Raises NoRoomError when there is none."""
        self._check_room(manifest.digest, manifest.bytes_count)
        with faults(self._directory, "look for room"):
            free = shutil.disk_usage(self._directory).free
        needed = manifest.bytes_count + DISK_SPARE_BYTES
        if free < needed:
            raise NoRoomError(
                f"{self._directory}: {free >> 20} MiB are free, and a payload of {manifest.bytes_count} "
                f"bytes may only come while {-(-needed >> 20)} MiB are (the ledger needs the rest): "
                "free some"
            )
        self._incoming[manifest.digest] = manifest.bytes_count
        return Partial.begin(self._directory, manifest)

    def resume(self, digest: bytes) -> Partial | None:
        """Go on with what an earlier process left of a payload, if there is anything."""
        if digest not in self._incoming:
            return None
        partial = Partial.resume(self._directory, digest)
        if partial is None:
            self._forget_incoming(digest)
        else:
            self._incoming[digest] = partial.manifest.bytes_count
        return partial

    def accept(self, partial: Partial) -> None:
        """Give a complete payload its name: from now on it is stored, durably."""
        manifest = partial.manifest
        partial.become(self._path(manifest.digest, manifest.codec))
        self._incoming.pop(manifest.digest, None)
        self._stored[manifest.digest] = (manifest.codec, manifest.bytes_count)
        self._remember(manifest)

    def remove(self, digests: Iterable[bytes]) -> int:
        """Remove stored payloads; return how many bytes that freed."""
        before = self.bytes_stored
        for digest in digests:
            if digest in self._stored:
                path = self._path(digest, self._stored[digest][0])
                with faults(path, "remove a payload"):
                    path.unlink(missing_ok=True)
                self._forget(digest)
        return before - self.bytes_stored

    def remove_incoming(self, digests: Iterable[bytes]) -> int:
        """Remove what came in of payloads; return how many bytes were set aside for them."""
        return sum(map(self._forget_incoming, digests))

    def _look(self) -> None:
        """Learn what is there and remove what a crash left half written."""
        sizes = {}
        for path in self._directory.iterdir():
            if _NAME.fullmatch(path.name):
                size = path.stat().st_size
                self._stored[bytes.fromhex(path.stem)] = (int(path.suffix[1:]), size)
            elif _INCOMING.fullmatch(path.name):
                sizes[path.name] = path.stat().st_size
            elif path.suffix == ".part":
                path.unlink()
        for stem in {name.partition(".")[0] for name in sizes}:
            digest = bytes.fromhex(stem)
            if digest in self._stored or stem + DATA not in sizes or stem + MANIFEST not in sizes:
                remove_partial(self._directory, digest)
            else:
                self._incoming[digest] = sizes[stem + DATA]
        # What has its name from before a crash must keep it through the next power cut.
        sync_directory(self._directory)

    def _check_room(self, digest: bytes, bytes_count: int) -> None:
        others = self.bytes_stored - self._incoming.get(digest, 0)
        if others + bytes_count > self.bytes_max:
            raise NoRoomError(
                f"{self._directory}: payloads take {others} bytes, {bytes_count} more exceed "
                f"storage.payload_bytes_max = {self.bytes_max}: raise it, or lower storage.keep_rounds"
            )

    def _path(self, digest: bytes, codec: int) -> Path:
        return self._directory / f"{digest.hex()}.{codec}"

    def _write(self, path: Path, payload: Buffer) -> None:
        handle, name = tempfile.mkstemp(dir=self._directory, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
            sync_directory(self._directory)
        except BaseException:
            # Not even the final name may stay: it would be taken for durable the next time.
            for leftover in (Path(name), path):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise

    def _remember(self, manifest: Manifest) -> None:
        digest = manifest.digest
        if digest not in self._manifests and len(self._manifests) >= MANIFESTS_REMEMBERED:
            self._manifests.pop(next(iter(self._manifests)))
        self._manifests[digest] = manifest

    def _forget(self, digest: bytes) -> None:
        self._stored.pop(digest, None)
        self._manifests.pop(digest, None)

    def _forget_incoming(self, digest: bytes) -> int:
        if digest not in self._incoming:
            return 0
        remove_partial(self._directory, digest)
        return self._incoming.pop(digest)
