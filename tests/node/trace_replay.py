"""A disk as a power cut leaves it: file-system calls that strace saw, replayed up to any of them.

Strict: a file's bytes are certain only after fsync of the file, a name only after fsync of its
directory. Of everything else each sector, and each name, may or may not have reached the disk.
"""

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECTOR: Final = 512
TRACED: Final = "openat,pwrite64,write,ftruncate,fsync,fdatasync,rename,unlink,mkdir,close,sendto"
ARGUMENTS: Final = ("-y", "-xx", "-s", "1000000", "-e", f"trace={TRACED}")
_CALL: Final = re.compile(r"([a-z0-9]+)\((.*)\)\s+= (-?[0-9]+)(?:<([^>]*)>)?")
_UNFINISHED: Final = " <unfinished ...>"
_RESUMED: Final = re.compile(r"<\.\.\. [a-z0-9]+ resumed>(.*)")


@dataclass(frozen=True)
class Call:
    """One call that succeeded: its name, first descriptor's path, quoted strings, plain arguments, result."""

    name: str
    path: str
    strings: tuple[bytes, ...]
    plain: tuple[str, ...]
    result: int
    result_path: str


def calls(log: str) -> Iterator[Call]:
    """Parse what strace wrote, in the order in which the calls ended."""
    unfinished: dict[str, str] = {}
    for line in log.splitlines():
        pid, text = line.split(maxsplit=1)
        if text.endswith(_UNFINISHED):
            unfinished[pid] = text.removesuffix(_UNFINISHED)
            continue
        if resumed := _RESUMED.match(text):
            text = unfinished.pop(pid) + resumed[1]
        if (found := _CALL.match(text)) and int(found[3]) >= 0:
            strings = tuple(map(_bytes, re.findall(r'"((?:\\x[0-9a-f]{2})*)"', found[2])))
            plain = tuple(re.sub(r'"[^"]*"', '""', found[2]).split(", "))
            descriptor = re.match(r"[0-9]+<([^>]*)>", found[2])
            path = _text(descriptor[1]) if descriptor else ""
            yield Call(found[1], path, strings, plain, int(found[3]), _text(found[4] or ""))


def _bytes(quoted: str) -> bytes:
    return bytes.fromhex(quoted.replace("\\x", ""))


def _text(shown: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), shown)


@dataclass
class Inode:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    """Writes since the last fsync; (length, b"") cuts."""

    def write(self, at: int, text: bytes) -> None:
        _place(self.data, at, text)
        self.pending.append((at, text))

    def cut(self, length: int) -> None:
        _resize(self.data, length)
        self.pending.append((length, b""))

    def flush(self) -> None:
        self.durable, self.pending = bytes(self.data), []

    def after_a_power_cut(self, draw: random.Random | None) -> bytes:
        found = bytearray(self.durable)
        for at, text in self.pending if draw else ():
            if not text:
                if draw.random() < 0.5:
                    _resize(found, at)
                continue
            for start in range(0, len(text), SECTOR):
                if draw.random() < 0.5:
                    _place(found, at + start, text[start : start + SECTOR])
        return bytes(found)


def _resize(data: bytearray, length: int) -> None:
    del data[length:]
    data.extend(bytes(length - len(data)))


def _place(data: bytearray, at: int, text: bytes) -> None:
    if len(data) < at:
        _resize(data, at)
    data[at : at + len(text)] = text


class Disk:
    """What is on the disk for certain, and what may be."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root}{os.sep}"
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._places: dict[str, int] = {}
        """Where the next plain write to a path goes."""

    def see(self, call: Call) -> None:
        """Take one call into account."""
        match call.name:
            case "openat" if "O_DIRECTORY" not in call.plain[2] and self._is_ours(call.result_path):
                self._open(call.result_path, call.plain[2])
            case "pwrite64" if call.path in self._names:
                self._names[call.path].write(int(call.plain[3]), call.strings[0][: call.result])
            case "write" if call.path in self._names:
                at = self._places[call.path]
                self._names[call.path].write(at, call.strings[0][: call.result])
                self._places[call.path] = at + call.result
            case "ftruncate" if call.path in self._names:
                self._names[call.path].cut(int(call.plain[1]))
            case "fsync" | "fdatasync" if call.path in self._names:
                self._names[call.path].flush()
            case "fsync" | "fdatasync":
                self._flush_names(call.path)
            case "rename":
                old, new = (one.decode() for one in call.strings[:2])
                if old in self._names:
                    self._names[new] = self._names.pop(old)
            case "unlink":
                self._names.pop(call.strings[0].decode(), None)

    def _is_ours(self, path: str) -> bool:
        # Shared memory is memory, and a directory's name ends up here without O_DIRECTORY.
        is_directory = path + os.sep == self._root
        return path.startswith(self._root) and not is_directory and not path.endswith("-shm")

    def _open(self, path: str, flags: str) -> None:
        self._places[path] = 0
        if path not in self._names:
            if "O_CREAT" in flags:
                self._names[path] = Inode()
        elif "O_TRUNC" in flags:
            self._names[path].cut(0)

    def _flush_names(self, directory: str) -> None:
        def inside(path: str) -> bool:
            return os.path.dirname(path) == directory  # noqa: PTH120

        kept = {path: one for path, one in self._durable_names.items() if not inside(path)}
        self._durable_names = kept | {p: one for p, one in self._names.items() if inside(p)}

    def cut_power(self, place: Path, draw: random.Random | None) -> None:
        """Write what is left to ``place``: without ``draw`` only what is certain."""
        names = dict(self._durable_names)
        for path in sorted(names.keys() | self._names.keys()) if draw else ():
            if draw.random() < 0.5:
                names.pop(path, None)
                if path in self._names:
                    names[path] = self._names[path]
        for path, inode in names.items():
            target = place / path.removeprefix(self._root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(inode.after_a_power_cut(draw))
