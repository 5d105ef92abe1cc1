"""Which software this is: one digest over every source file of the four packages, for the OPEN record."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGES: Final = ("ledger", "swarm", "node")
_DOMAIN: Final = b"swarm/software/v1\n"


def software_digest(packages: Sequence[str] = PACKAGES) -> bytes:
    """SHA-256 over the names and bytes of these packages' Python files, in sorted order."""
    digest = hashlib.sha256(_DOMAIN)
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            body = hashlib.sha256(path.read_bytes()).digest()
            digest.update(name.encode() + b"\n" + body)
    return digest.digest()


def software_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("swarm-node")
    except PackageNotFoundError:
        return "0 (not installed)"
