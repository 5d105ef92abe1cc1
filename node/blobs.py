"""Payloads on disk, called by their digest. A file is whole or absent, and is checked when it is read.

A payload is written to a temporary file, flushed to the disk and renamed, so whatever name exists after
a power cut is complete; a record on the ledger that names it is written only afterwards.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

from ledger.errors import StoreError
from ledger.store_files import sync_directory
from swarm.protocol.payload import CHUNK_BYTES, Manifest, manifest_of

MANIFESTS_REMEMBERED: Final = 256
_NAME: Final = re.compile(r"[0-9a-f]{64}\.[0-9]{1,5}")


@final
class BlobStore:
    """Content-addressed payloads in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._manifests: dict[bytes, Manifest] = {}
        with _faults(directory, "keep payloads there"):
            directory.mkdir(parents=True, exist_ok=True)
            for leftover in directory.glob("*.part"):
                leftover.unlink()

    def put(self, codec: int, payload: bytes) -> bytes:
        """Store ``payload`` durably and return its digest. Storing it again changes nothing."""
        manifest = manifest_of(codec, payload)
        path = self._path(manifest.digest, codec)
        with _faults(path, "store a payload"):
            if not path.exists():
                self._write(path, payload)
        self._remember(manifest)
        return manifest.digest

    def get(self, digest: bytes) -> bytes | None:
        """Return the payload, or None when it is absent or its file is damaged (then it is removed)."""
        found = self._find(digest)
        if found is None:
            return None
        path, codec = found
        with _faults(path, "read a payload"):
            payload = path.read_bytes()
            manifest = manifest_of(codec, payload)
            if manifest.digest != digest:
                path.unlink()
                self._manifests.pop(digest, None)
                return None
        self._remember(manifest)
        return payload

    def manifest(self, digest: bytes) -> Manifest | None:
        """Return the chunk digests of a stored payload."""
        if digest not in self._manifests:
            self.get(digest)
        return self._manifests.get(digest)

    def chunk(self, digest: bytes, index: int) -> bytes | None:
        """Return one chunk without reading the rest; the receiver checks it."""
        found = self._find(digest)
        manifest = self.manifest(digest)
        if found is None or manifest is None or not 0 <= index < len(manifest.chunks):
            return None
        with _faults(found[0], "read a payload"), found[0].open("rb") as file:
            file.seek(index * CHUNK_BYTES)
            return file.read(CHUNK_BYTES)

    def stored(self) -> dict[bytes, tuple[int, int]]:
        """Everything stored: digest → (codec, bytes). Files of other names are somebody else's."""
        found = {}
        with _faults(self._directory, "list payloads"):
            for path in self._directory.iterdir():
                if _NAME.fullmatch(path.name):
                    codec = int(path.suffix[1:])
                    found[bytes.fromhex(path.stem)] = (codec, path.stat().st_size)
        return found

    def _path(self, digest: bytes, codec: int) -> Path:
        return self._directory / f"{digest.hex()}.{codec}"

    def _find(self, digest: bytes) -> tuple[Path, int] | None:
        with _faults(self._directory, "list payloads"):
            for path in self._directory.glob(f"{digest.hex()}.*"):
                if path.suffix[1:].isdecimal():
                    return path, int(path.suffix[1:])
        return None

    def _write(self, path: Path, payload: bytes) -> None:
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
        while len(self._manifests) >= MANIFESTS_REMEMBERED:
            self._manifests.pop(next(iter(self._manifests)))
        self._manifests[manifest.digest] = manifest


@contextmanager
def _faults(path: Path, what: str) -> Iterator[None]:
    """Turn what the system says into one line of ours."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot {what}: {error.strerror or error}") from error
