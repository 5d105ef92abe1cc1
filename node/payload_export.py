"""Copies of the payloads that a ledger names, for auditors. Room: node.

Reads beside a running node: takes files by name, believes nothing (the auditor checks the digests)
and removes nothing.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger.errors import ConfigError, StoreError
from ledger.record import Aggregation, Codec, Contribution, Kind, Record, decode_record
from ledger.rules import result_codec
from ledger.store import Store

_NO_BASE: Final = bytes(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """How many payloads were copied, and how many of the named ones this site does not keep."""

    directory: Path
    copied: int
    absent: int

    def to_json(self) -> dict[str, str | int]:
        """Plain values."""
        return {
            "directory": str(self.directory), "copied": self.copied, "absent": self.absent,
        }  # fmt: skip


def payloads_beside(bundle: Path) -> Path:
    """Where the payloads of a bundle go: a directory of its own, since payloads are models."""
    return bundle.with_name(f"{bundle.name}.payloads")


def export_payloads(store: Store, blobs: Path, directory: Path) -> Copied:
    """Copy what contributions and results name. Raises ConfigError if ``directory`` is taken."""
    names = {name for kind in (Kind.CONTRIBUTION, Kind.AGGREGATION) for name in _names(store, kind)}
    copied = 0
    try:
        directory.mkdir()
        for name in sorted(names):
            try:
                shutil.copyfile(blobs / name, directory / name)
            except FileNotFoundError:
                continue
            copied += 1
    except FileExistsError:
        raise ConfigError(f"{directory}: exists; name a new directory") from None
    except OSError as error:
        raise StoreError(f"{directory}: {error.strerror or error}") from error
    return Copied(directory=directory, copied=copied, absent=len(names) - copied)


def _names(store: Store, kind: Kind) -> Iterator[str]:
    for signed in store.records(kind=kind):
        body = Record.from_value(decode_record(signed.record_bytes)).body
        if isinstance(body, Contribution):
            yield f"{body.update_digest.hex()}.{body.codec}"
            if body.base_digest != _NO_BASE:  # what merges start from: above all the first model
                yield f"{body.base_digest.hex()}.{int(Codec.FLOAT32)}"
        elif isinstance(body, Aggregation):
            yield f"{body.result_digest.hex()}.{int(result_codec(body.rule))}"
