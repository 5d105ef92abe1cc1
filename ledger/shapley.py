"""Shapley values of contributions, from stored payloads: what is read, in which order. Room: ledger.

Spec: docs/free-riders.md §5. The arithmetic over payloads is the learning's: an entry point of the group
``swarm_audit.shapley``. Everything here is an estimate for people to look at; nothing is decided by it.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol, final

from .audit import Audit
from .bodies import Aggregation, Codec, Contribution
from .charter import Charter
from .errors import ConfigError, PeerError
from .panel import agreed_inputs
from .reading import read_all
from .recompute import MergeInput, Recomputation, payload_files, read_payload
from .record import Record, RecordId, Verified
from .roster import Roster
from .sketch import seed_of

GROUP: Final = "swarm_audit.shapley"
SEED_DOMAIN: Final = b"swarm-ledger/shapley-seed/v1\n"


@dataclass(frozen=True, kw_only=True)
class RoundValues:
    """One round, in the order of inputs. distance: what there was to gain, |base − goal|²."""

    values: tuple[float, ...]
    errors: tuple[float, ...]
    whole: float
    distance: float
    batches: int
    has_converged: bool


class Estimator(Protocol):
    """What the learning extra supplies."""

    def values(
        self, charter: Charter, inputs: Sequence[MergeInput], base: bytes, goal: bytes, seed: bytes
    ) -> RoundValues:
        """Return one round's values. Raises PeerError where payloads do not fit together."""


@dataclass(frozen=True, kw_only=True)
class MemberValue:
    """share: of the way from the first base to the goal; error: its standard error; rounds: counted."""

    member: int
    share: float
    error: float
    rounds: int


@final
@dataclass(kw_only=True)
class Shapley:
    """What was estimated, and what could not be."""

    members: tuple[MemberValue, ...] = ()
    rounds: dict[int, dict[int, float]] = field(default_factory=dict)
    goal_round: int = 0
    skipped: tuple[int, ...] = ()
    not_converged: tuple[int, ...] = ()


def load_estimator() -> Estimator:
    """Return what is installed. Raises ConfigError: one line that says what to install."""
    for entry in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        try:
            made: Estimator = entry.load()()
        except ImportError as error:
            raise ConfigError(
                f"shapley needs the learning extra: pip install 'swarm-node[node]' ({error})"
            ) from None
        return made
    raise ConfigError("shapley needs the learning extra: pip install 'swarm-node[node]'")


@dataclass(frozen=True)
class _Round:
    number: int
    ids: tuple[RecordId, ...]
    weights: dict[RecordId, int]
    result: bytes


def estimate(
    audit: Audit, roster: Roster, directory: Path, with_: Estimator, digests: Recomputation
) -> Shapley:
    """Estimate every agreed round whose payloads are all there. Raises ConfigError if none is."""
    records = list(read_all(audit.readable(), roster, audit.counts()))
    offers = {
        one.id: (one.value.author, one.value.body)
        for one in records
        if isinstance(one.value.body, Contribution)
    }
    rounds = _agreed(records, roster)
    files = _Files(directory, digests, audit.charter.rounds.payload_bytes_max)
    goals = [(one.number, files.get(one.result, Codec.FLOAT32)) for one in reversed(rounds)]
    goal_round, goal = next(((n, payload) for n, payload in goals if payload), (0, None))
    if goal is None:
        raise ConfigError(
            f"{directory}: holds no agreed result (`swarm-node payloads` exports them)"
        )
    sums: defaultdict[int, float] = defaultdict(float)
    squares: defaultdict[int, float] = defaultdict(float)
    counts: defaultdict[int, int] = defaultdict(int)
    done = Shapley(goal_round=goal_round)
    skipped, unsettled, way = [], [], 0.0
    for one in rounds:
        if one.number > goal_round:
            continue
        members = [offers[id_][0] for id_ in one.ids]
        inputs, base = _inputs(one, offers, files)
        if inputs is None or base is None:
            skipped.append(one.number)
            continue
        seed = hashlib.sha256(SEED_DOMAIN + seed_of(roster.net, one.number, one.ids)).digest()
        try:
            found = with_.values(audit.charter, inputs, base, goal, seed)
        except PeerError:
            skipped.append(one.number)
            continue
        way = way or found.distance
        unsettled += [] if found.has_converged else [one.number]
        done.rounds[one.number] = dict(zip(members, found.values, strict=True))
        for member, value, error in zip(members, found.values, found.errors, strict=True):
            sums[member] += value
            squares[member] += error**2
            counts[member] += 1
    scale = way or 1.0
    done.members = tuple(
        MemberValue(
            member=member, share=sums[member] / scale,
            error=math.sqrt(squares[member]) / scale, rounds=counts[member],
        )
        for member in sorted(sums)
    )  # fmt: skip
    done.rounds = {
        number: {member: value / scale for member, value in of.items()}
        for number, of in done.rounds.items()
    }
    done.skipped, done.not_converged = tuple(skipped), tuple(unsettled)
    if not done.members:
        raise ConfigError(f"{directory}: no agreed round has all its payloads and its base there")
    return done


def _agreed(records: Sequence[Verified[Record]], roster: Roster) -> list[_Round]:
    agreed = agreed_inputs(records, roster)
    found: dict[int, _Round] = {}
    for one in records:
        body, number = one.value.body, one.value.round
        if isinstance(body, Aggregation) and number in agreed and number not in found:
            ids = tuple(sorted(given.id for given in body.inputs))
            if ids == agreed[number]:
                weights = {given.id: given.weight_micro for given in body.inputs}
                found[number] = _Round(number, ids, weights, body.result_digest)
    return [found[number] for number in sorted(found)]


class _Files:
    def __init__(self, directory: Path, digests: Recomputation, bytes_max: int) -> None:
        self._files = payload_files(directory)
        self._digests = digests
        self._bytes_max = bytes_max

    def get(self, digest: bytes, codec: int) -> bytes | None:
        """Return a payload that has the digest, None if there is none."""
        path = self._files.get((digest, codec))
        payload = None if path is None else read_payload(path, None, self._bytes_max)
        right = payload is not None and self._digests.digest(codec, payload) == digest
        return payload if right else None


def _inputs(
    one: _Round, offers: dict[RecordId, tuple[int, Contribution]], files: _Files
) -> tuple[list[MergeInput] | None, bytes | None]:
    inputs, bases = [], set()
    for id_ in one.ids:
        if id_ not in offers:
            return None, None
        body = offers[id_][1]
        payload = files.get(body.update_digest, body.codec)
        if payload is None:
            return None, None
        bases.add(body.base_digest)
        inputs.append(
            MergeInput(digest=body.update_digest, payload=payload, weight_micro=one.weights[id_])
        )
    if len(bases) != 1:  # late inputs were trained from another round's model
        return None, None
    return inputs, files.get(bases.pop(), Codec.FLOAT32)
