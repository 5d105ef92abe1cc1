"""Bodies of the record kinds, and their numbers. Room: ledger. Spec: docs/ledger.md §5.

Integers and byte strings only: no free text, no patient-level value, no person's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final, Self

from .canonical import Value
from .schema import BIN32, U8, U16, U32, U53, AnyBin, Bin, ListOf, Shape, Uint


class Kind(IntEnum):
    """Record kinds. Below 32768 critical: an unknown one is E_KIND."""

    OPEN = 1
    CONTRIBUTION = 2
    AGGREGATION = 3
    EVALUATION_COMMIT = 4
    EVALUATION_REVEAL = 5
    METRICS = 6
    REJECTION = 7
    FORK_PROOF = 8
    ANCHOR = 9
    RELEASE = 10
    WITHDRAWAL = 11
    CLOSE = 12
    SKETCH = 13


EXTENSION_MIN: Final = 32_768


class Codec(IntEnum):
    """How a payload is written."""

    FLOAT32 = 1
    MOMENTS = 2
    FLOAT16 = 3
    INT8 = 4
    INT4 = 5
    TERNARY = 6
    SIGN = 7
    TOP_K = 8
    TOP_K_INT8 = 9


class Rule(IntEnum):
    """How inputs become a result."""

    MEAN = 1
    MOMENTS = 2
    NORM_CLIPPED_MEAN = 3
    TRIMMED_MEAN = 4
    MEDIAN = 5
    GEOMETRIC_MEDIAN = 6
    KRUM = 7
    MULTI_KRUM = 8
    CENTERED_CLIPPING = 9


class MetricId(IntEnum):
    """What a metric measures."""

    AUC = 1
    LOG_LOSS = 2
    ACCURACY = 3
    MSE = 4
    MAE = 5
    BRIER = 6
    MACRO_F1 = 7
    ECE = 8


class Reason(IntEnum):
    """Why a contribution was left out or refused."""

    NOT_RECEIVED = 1
    LATE = 2
    BAD_DIGEST = 3
    BAD_SHAPE = 4
    NOT_FINITE = 5
    TOO_LARGE = 6
    NORM_BOUND = 7
    WRONG_BASE = 8
    INACTIVE = 9
    SUPERSEDED = 10
    COPIED = 11
    FALSE_SKETCH = 12


class CloseReason(IntEnum):
    """Why a log ends."""

    DONE = 1
    LEFT = 2


class _Row:
    """A row whose dataclass fields stand in the order of its SHAPE."""

    SHAPE: ClassVar[Shape]

    def to_value(self) -> list[Value]:
        """Return the fields in their order; an optional last one only if it holds something."""
        return [
            _write(getattr(self, name))
            for name, kind in self.SHAPE.fields.items()
            if not (isinstance(kind, ListOf) and kind.is_optional and not getattr(self, name))
        ]

    @classmethod
    def read_row(cls, value: Any) -> Self:
        """Build from a value that SHAPE has accepted."""
        fields = zip(cls.SHAPE.fields.items(), value, strict=False)  # an optional last one may lack
        return cls(**{name: cls._field(name, kind, one) for (name, kind), one in fields})

    @classmethod
    def _field(cls, name: str, kind: object, value: Any) -> Any:
        if not isinstance(kind, ListOf):
            return value
        row = _ROWS.get((cls.__name__, name))
        if row is not None:
            return tuple(row.read_row(one) for one in value)
        return tuple(tuple(one) if type(one) is list else one for one in value)


def _write(value: Any) -> Value:
    if isinstance(value, _Row):
        return value.to_value()
    if isinstance(value, tuple):
        return [_write(one) for one in value]
    if isinstance(value, IntEnum):
        return int(value)
    result: Value = value
    return result


class Body(_Row):
    """A record's body. ``from_value`` checks the schema; ``to_value`` does not."""

    KIND: ClassVar[Kind]

    @classmethod
    def from_value(cls, value: Any) -> Self:
        """Read a decoded body. Raises VerificationError E_SCHEMA or E_ORDER."""
        cls.SHAPE.check(value, cls.KIND.name)
        return cls.read_row(value)


@dataclass(frozen=True, kw_only=True)
class Open(Body):
    """First record of every log: joining is signing the charter."""

    KIND = Kind.OPEN
    SHAPE = Shape(
        public_key=BIN32, previous_head=BIN32, software_digest=BIN32, charter_digest=BIN32
    )
    public_key: bytes
    previous_head: bytes
    software_digest: bytes
    charter_digest: bytes


@dataclass(frozen=True, kw_only=True)
class Contribution(Body):
    """One member's update of one round, named by digest."""

    KIND = Kind.CONTRIBUTION
    SHAPE = Shape(
        update_digest=BIN32,
        bytes_count=U53,
        codec=Uint(among=Codec),
        base_digest=BIN32,
        samples=U53,
        local_steps=U53,
        norm_micro=U53,
        sketch_digest=BIN32,
        epsilon_micro=U53,
        delta_exponent=U8,
        mechanism=U16,
        metrics=ListOf(Shape(metric=Uint(among=MetricId), micro=U53), sorted_by=1),
        data_commitment=BIN32,
    )
    update_digest: bytes
    bytes_count: int
    codec: int
    base_digest: bytes
    samples: int
    local_steps: int
    norm_micro: int
    sketch_digest: bytes
    epsilon_micro: int
    delta_exponent: int
    mechanism: int
    metrics: tuple[tuple[int, int], ...]
    data_commitment: bytes


@dataclass(frozen=True, kw_only=True)
class Input(_Row):
    """One contribution that went into a result, and its weight."""

    SHAPE = Shape(author=U16, epoch=U32, seq=U53, id=BIN32, weight_micro=Uint(1_000_000))
    author: int
    epoch: int
    seq: int
    id: bytes
    weight_micro: int


@dataclass(frozen=True, kw_only=True)
class LeftOut(_Row):
    """One member that did not go into a result, and why."""

    SHAPE = Shape(author=U16, reason=Uint(among=Reason))
    author: int
    reason: int


@dataclass(frozen=True, kw_only=True)
class Aggregation(Body):
    """What one member merged, from which inputs, into which result."""

    KIND = Kind.AGGREGATION
    SHAPE = Shape(
        rule=Uint(among=Rule),
        parameters=ListOf(U53, most=64),
        inputs=ListOf(Input.SHAPE, sorted_by=3),
        left_out=ListOf(LeftOut.SHAPE, sorted_by=1),
        result_digest=BIN32,
    )
    rule: int
    parameters: tuple[int, ...]
    inputs: tuple[Input, ...]
    left_out: tuple[LeftOut, ...]
    result_digest: bytes


@dataclass(frozen=True, kw_only=True)
class EvaluationCommit(Body):
    """Hash of an evaluation that will be revealed. Behaviour reserved in version 1."""

    KIND = Kind.EVALUATION_COMMIT
    SHAPE = Shape(commitment=BIN32)
    commitment: bytes


@dataclass(frozen=True, kw_only=True)
class Score(_Row):
    """Loss of the merged model with and without one contribution."""

    SHAPE = Shape(target_id=BIN32, loss_with_micro=U53, loss_without_micro=U53, count=U53)
    target_id: bytes
    loss_with_micro: int
    loss_without_micro: int
    count: int


@dataclass(frozen=True, kw_only=True)
class EvaluationReveal(Body):
    """What an EVALUATION_COMMIT hid. Behaviour reserved in version 1."""

    KIND = Kind.EVALUATION_REVEAL
    SHAPE = Shape(
        commit_seq=U53,
        salt=BIN32,
        scores=ListOf(Score.SHAPE, sorted_by=1),
        evaluation_commitment=BIN32,
    )
    commit_seq: int
    salt: bytes
    scores: tuple[Score, ...]
    evaluation_commitment: bytes


@dataclass(frozen=True, kw_only=True)
class MetricValue(_Row):
    """A metric with its confidence interval and the (bucketed) number of cases."""

    SHAPE = Shape(metric=Uint(among=MetricId), micro=U53, low_micro=U53, high_micro=U53, count=U53)
    metric: int
    micro: int
    low_micro: int
    high_micro: int
    count: int


@dataclass(frozen=True, kw_only=True)
class GroupValue(_Row):
    """A metric of one subgroup of the patients: which of the charter's subgroups, and which part of it."""

    SHAPE = Shape(
        subgroup=U8,
        part=U16,
        metric=Uint(among=MetricId),
        micro=U53,
        low_micro=U53,
        high_micro=U53,
        count=U53,
    )
    subgroup: int
    part: int
    metric: int
    micro: int
    low_micro: int
    high_micro: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Metrics(Body):
    """How one model does on one member's validation data, and on large enough groups of it."""

    KIND = Kind.METRICS
    SHAPE = Shape(
        round=U32,
        model_digest=BIN32,
        values=ListOf(MetricValue.SHAPE, sorted_by=1),
        groups=ListOf(GroupValue.SHAPE, sorted_by=3, is_optional=True),
    )
    round: int
    model_digest: bytes
    values: tuple[MetricValue, ...]
    groups: tuple[GroupValue, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Rejection(Body):
    """A contribution that this node refused, and why."""

    KIND = Kind.REJECTION
    SHAPE = Shape(target_id=BIN32, reason=Uint(among=Reason))
    target_id: bytes
    reason: int


@dataclass(frozen=True, kw_only=True)
class ForkProof(Body):
    """Two envelopes for one slot, by one key. Spec: docs/reputation.md §3."""

    KIND = Kind.FORK_PROOF
    SHAPE = Shape(envelope_a=AnyBin(), envelope_b=AnyBin())
    envelope_a: bytes
    envelope_b: bytes


@dataclass(frozen=True, kw_only=True)
class Anchor(Body):
    """A checkpoint of the own log; ``token_digest`` may be empty. Behaviour reserved."""

    KIND = Kind.ANCHOR
    SHAPE = Shape(checkpoint_digest=BIN32, token_digest=Bin(0, 32))
    checkpoint_digest: bytes
    token_digest: bytes


@dataclass(frozen=True, kw_only=True)
class Release(Body):
    """A model that leaves the swarm. Behaviour reserved in version 1."""

    KIND = Kind.RELEASE
    SHAPE = Shape(model_digest=BIN32, aggregation_ids=ListOf(BIN32), intended_use_digest=BIN32)
    model_digest: bytes
    aggregation_ids: tuple[bytes, ...]
    intended_use_digest: bytes


@dataclass(frozen=True, kw_only=True)
class Withdrawal(Body):
    """Data withdrawn, and the models it touched. Behaviour reserved in version 1."""

    KIND = Kind.WITHDRAWAL
    SHAPE = Shape(data_commitment=BIN32, models=ListOf(BIN32))
    data_commitment: bytes
    models: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Close(Body):
    """This member says good-bye; it may come back without asking."""

    KIND = Kind.CLOSE
    SHAPE = Shape(reason=Uint(among=CloseReason))
    reason: int


@dataclass(frozen=True, kw_only=True)
class SketchRow(_Row):
    """One own update, projected: values are int16, big-endian, in steps of 2^(exponent - 2,048)."""

    SHAPE = Shape(target_id=BIN32, exponent=Uint(4_095), values=AnyBin())
    target_id: bytes
    exponent: int
    values: bytes


@dataclass(frozen=True, kw_only=True)
class Sketch(Body):
    """Own updates as an agreed round's seed shows them. Spec: docs/reputation.md §12."""

    KIND = Kind.SKETCH
    SHAPE = Shape(round=U32, seed=BIN32, rows=ListOf(SketchRow.SHAPE, sorted_by=1))
    round: int
    seed: bytes
    rows: tuple[SketchRow, ...]


_ROWS: Final[dict[tuple[str, str], type[_Row]]] = {
    ("Aggregation", "inputs"): Input,
    ("Aggregation", "left_out"): LeftOut,
    ("EvaluationReveal", "scores"): Score,
    ("Metrics", "groups"): GroupValue,
    ("Metrics", "values"): MetricValue,
    ("Sketch", "rows"): SketchRow,
}
BODIES: Final[dict[int, type[Body]]] = {
    int(body.KIND): body
    for body in (
        Open, Contribution, Aggregation, EvaluationCommit, EvaluationReveal, Metrics,
        Rejection, ForkProof, Anchor, Release, Withdrawal, Close, Sketch,
    )
}  # fmt: skip
