"""A small disk under one hospital's directory, and what fills it. Needs root.

Room: scenarios. The directory's files move onto a memory file system of the given size and back again.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ledger.errors import ConfigError

PIECE_BYTES: Final = 1 << 16


@contextmanager
def small_disk(directory: Path, *, bytes_max: int) -> Iterator[None]:
    """Give ``directory`` a disk of its own while nobody uses it at either end."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as aside:
        kept = Path(aside) / "kept"
        shutil.copytree(directory, kept)
        _run("mount", "-t", "tmpfs", "-o", f"size={bytes_max},mode=700", "tmpfs", str(directory))
        try:
            shutil.copytree(kept, directory, dirs_exist_ok=True)
            yield
            shutil.rmtree(kept)
            shutil.copytree(directory, kept)
        finally:
            _run("umount", "-l", str(directory))
        shutil.copytree(kept, directory, dirs_exist_ok=True)


def fill(path: Path) -> None:
    """Write ``path`` until the disk holds no byte more."""
    with path.open("wb", buffering=0) as file:
        for piece in (bytes(PIECE_BYTES), bytes(512), bytes(1)):
            with suppress(OSError):
                while file.write(piece):
                    pass


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise ConfigError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
