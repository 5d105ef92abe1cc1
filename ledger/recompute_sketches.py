"""Step 20 for sketches: what a SKETCH shows is what its payloads give. Room: ledger. docs/reputation.md §12.

A sketch needs an update and the base that it was trained from. Most bases are results of merges, which
step 20 has in hand only while it recomputes them: so sketches are checked base by base.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from .errors import PeerError, VerificationError
from .sketch import EXPONENT_BIAS

Slot: TypeAlias = tuple[int, int, int]  # (author, epoch, seq)
Project: TypeAlias = Callable[[bytes, bytes, bytes], tuple[int, bytes]]
"""(payload, base payload, seed) → exponent and values. Raises PeerError."""
_UNREADABLE: Final = (-1, b"")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a SKETCH: where it stands, its seed, what it shows, and of which contribution."""

    slot: Slot
    seed: bytes
    target: bytes
    shown: tuple[int, bytes]


@final
class SketchCheck:
    """Every row of every SKETCH, by the base of the update that it shows."""

    def __init__(
        self,
        bodies: Iterable[tuple[bytes, Slot, int, list[Any]]],
        base_of: Callable[[bytes], bytes | None],
    ) -> None:
        """bodies: (id, slot, round, body) of SKETCH records. base_of: a contribution's base."""
        self._rows: defaultdict[bytes, list[Row]] = defaultdict(list)
        for _, slot, _, (_, seed, rows) in bodies:
            for target, exponent, values in rows:
                base = base_of(target)
                if base is not None:
                    shown = (exponent - EXPONENT_BIAS, values)
                    self._rows[base].append(Row(slot, seed, target, shown))
        self.checked = 0

    @property
    def bases(self) -> frozenset[bytes]:
        """Bases of rows that are not checked yet."""
        return frozenset(self._rows)

    @property
    def unchecked(self) -> int:
        """How many rows are not checked yet."""
        return sum(map(len, self._rows.values()))

    def check(
        self,
        base_digest: bytes,
        base: bytes,
        payload_of: Callable[[bytes], bytes | None],
        project: Project,
    ) -> list[tuple[Slot, VerificationError]]:
        """Project again all updates from one base; return what is false. E_SKETCH."""
        false = []
        for row in self._rows.pop(base_digest, ()):
            payload = payload_of(row.target)
            if payload is None:
                self._rows[b""].append(row)
                continue
            self.checked += 1
            try:
                right = project(payload, base, row.seed)
            except PeerError:
                right = _UNREADABLE
            if right != row.shown:
                error = VerificationError(
                    "E_SKETCH",
                    f"the sketch of {row.target.hex()[:16]} is not what its payload gives",
                    expected=f"exponent {right[0]}, values {right[1].hex()[:32]}…",
                )
                false.append((row.slot, error))
        return false
