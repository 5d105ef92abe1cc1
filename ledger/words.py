"""A record in words: every field with its name and unit. Room: ledger. Spec: docs/ledger.md §13."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final

from .bodies import (
    EXTENSION_MIN,
    Aggregation,
    Anchor,
    Body,
    Close,
    CloseReason,
    Codec,
    Contribution,
    EvaluationCommit,
    EvaluationReveal,
    ForkProof,
    GroupValue,
    Input,
    Kind,
    LeftOut,
    MetricId,
    Metrics,
    MetricValue,
    Open,
    Reason,
    Rejection,
    Release,
    Rule,
    Score,
    Sketch,
    SketchRow,
    Withdrawal,
)
from .record import Record, Verified, decode_record, split_envelope
from .sketch import EXPONENT_BIAS

_NAMED: Final[Mapping[str, type[IntEnum]]] = {
    "codec": Codec,
    "rule": Rule,
    "metric": MetricId,
    "reason": Reason,
}
_UNITS: Final = {
    "bytes_count": "bytes",
    "samples": "patients or rows",
    "local_steps": "steps",
    "count": "cases",
}
_NOTES: Final = {
    "epsilon_micro": "privacy budget ε spent so far; 0: none was claimed",
    "delta_exponent": "δ = 10^-this",
    "mechanism": "privacy mechanism; 0: none",
    "time_ms": "the author's claim, not a proof",
    "lamport": "logical clock",
    "roster": "version that the author knew",
    "previous_head": "head of the epoch before; zeros in epoch 0",
}


def kind_name(kind: int) -> str:
    """Return a kind's name."""
    return Kind(kind).name if kind < EXTENSION_MIN else f"EXTENSION_{kind}"


def utc(time_ms: int) -> str:
    """Return a record's clock as a date, or the number if there is no such date."""
    try:
        moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ms % 1000:03d} UTC"


def micro(value: int) -> str:
    """Return millionths as a decimal fraction, exactly."""
    return f"{value // 1_000_000}.{value % 1_000_000:06d}"


def enum_name(values: type[IntEnum], number: int) -> str:
    """Return an enumerated number's name."""
    return values(number).name


def field_text(name: str, value: Any, *, of: type | None = None) -> str:
    """Return one field's value with its unit."""
    if isinstance(value, bytes):
        return value.hex() or "empty"
    if name in _NAMED:
        values = CloseReason if of is Close else _NAMED[name]
        return f"{enum_name(values, value)} ({value})"
    text = micro(value) if name.endswith("_micro") or name == "micro" else f"{value:,}"
    text = f"{text} {_UNITS[name]}" if name in _UNITS else text
    return f"{text} ({_NOTES[name]})" if name in _NOTES else text


def header_lines(record: Verified[Record], names: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Yield the header's fields as (name, text), the acks one by one."""
    value = record.value
    yield "id", record.id.hex()
    yield "net", value.net.hex()
    yield "author", f'{value.author} "{names.get(value.author, "?")}"'
    yield "epoch", f"{value.epoch} (key epoch)"
    yield "seq", f"{value.seq}"
    yield "prev", value.prev.hex()
    yield "roster", field_text("roster", value.roster)
    yield "kind", f"{kind_name(value.kind)} ({value.kind})"
    yield "round", f"{value.round}"
    yield "lamport", field_text("lamport", value.lamport)
    yield "time_ms", f"{value.time_ms} = {utc(value.time_ms)} ({_NOTES['time_ms']})"
    yield "signature", record.signed.signature.hex()
    yield "acks", f"{len(value.acks)}"
    for ack in value.acks:
        yield (
            f"acks {ack.author}/{ack.epoch}/{ack.seq}",
            f'{ack.id.hex()} of "{names.get(ack.author, "?")}"',
        )


def body_lines(record: Record, names: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Yield the body's fields as (name, text), rows one by one."""
    body = record.body
    if isinstance(body, bytes):
        yield "body", f"{body.hex()} (not understood)"
        return
    for name in body.SHAPE.fields:
        value = getattr(body, name)
        if not isinstance(value, tuple):
            yield name, field_text(name, value, of=type(body))
            continue
        yield name, f"{len(value)}"
        for number, row in enumerate(value):
            yield f"{name}[{number}]", _row_text(row, names)


def _row_text(row: Any, names: Mapping[int, str]) -> str:
    match row:
        case Input():
            text = (
                f'{row.author}/{row.epoch}/{row.seq} of "{names.get(row.author, "?")}", weight '
                f"{micro(row.weight_micro)}, {row.id.hex()}"
            )
        case LeftOut():
            reason = f"{enum_name(Reason, row.reason)} ({row.reason})"
            text = f'{row.author} "{names.get(row.author, "?")}": {reason}'
        case MetricValue():
            text = (
                f"{enum_name(MetricId, row.metric)} {micro(row.micro)}, interval "
                f"{micro(row.low_micro)} to {micro(row.high_micro)}, {row.count:,} cases"
            )
        case GroupValue():
            text = (
                f"subgroup {row.subgroup}, part {row.part}: {enum_name(MetricId, row.metric)} "
                f"{micro(row.micro)}, interval {micro(row.low_micro)} to {micro(row.high_micro)}, "
                f"{row.count:,} cases"
            )
        case Score():
            text = (
                f"{row.target_id.hex()}: loss {micro(row.loss_with_micro)} with it, "
                f"{micro(row.loss_without_micro)} without, {row.count:,} cases"
            )
        case SketchRow():
            text = (
                f"{row.target_id.hex()}: {len(row.values) // 2} values "
                f"in steps of 2^{row.exponent - EXPONENT_BIAS}"
            )
        case bytes():
            text = row.hex()
        case (metric, value):
            text = f"{enum_name(MetricId, metric)} {micro(value)}"
        case _:
            text = f"{row}"
    return text


def summary(record: Record) -> str:
    """Return the gist of a body in a few words, for one line in a list."""
    text = ""
    match record.body:
        case Contribution() as body:
            text = f"update {body.update_digest.hex()[:12]}, {body.samples:,} samples"
            text += f", ε {micro(body.epsilon_micro)}" if body.epsilon_micro else ""
        case Aggregation() as body:
            who = " ".join(str(one.author) for one in body.inputs)
            text = f"{enum_name(Rule, body.rule)} of {who} → {body.result_digest.hex()[:12]}"
            text += f", left out {len(body.left_out)}" if body.left_out else ""
        case Metrics() as body:
            text = f"model {body.model_digest.hex()[:12]}: " + ", ".join(
                f"{enum_name(MetricId, one.metric)} {one.micro / 1e6:.3f}" for one in body.values
            )
        case Rejection() as body:
            text = f"refused {body.target_id.hex()[:12]}: {enum_name(Reason, body.reason)}"
        case Close() as body:
            text = enum_name(CloseReason, body.reason)
        case Open() as body:
            text = f"software {body.software_digest.hex()[:12]}"
        case bytes() as body:
            text = f"{len(body):,} bytes, not understood"
        case body:
            text = _rarer_summary(body)
    return text


def _rarer_summary(body: object) -> str:
    text = ""
    match body:
        case EvaluationCommit():
            text = f"commitment {body.commitment.hex()[:12]}"
        case EvaluationReveal():
            text = f"{len(body.scores)} scores, opens the commitment of record {body.commit_seq}"
        case ForkProof():
            value = decode_record(split_envelope(body.envelope_a)[0])
            text = f"two records for {value[2]}/{value[3]}/{value[4]}"
        case Anchor():
            stamp = body.token_digest.hex()[:12]
            text = f"checkpoint {body.checkpoint_digest.hex()[:12]}, "
            text += f"time stamp {stamp}" if stamp else "no time stamp"
        case Release():
            text = f"model {body.model_digest.hex()[:12]} leaves the swarm, resting on "
            text += _counted(len(body.aggregation_ids), "aggregation")
        case Withdrawal():
            text = f"data {body.data_commitment.hex()[:12]} withdrawn, "
            text += f"{_counted(len(body.models), 'model')} affected"
        case Sketch():
            text = f"round {body.round}: " + _counted(len(body.rows), "update")
    return text


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def as_json(record: Verified[Record]) -> dict[str, Any]:
    """Return a record as plain values: bytes in hex, enumerations by number and name."""
    value = record.value
    body: Any = value.body
    return {
        "id": record.id.hex(),
        "net": value.net.hex(),
        "author": value.author,
        "epoch": value.epoch,
        "seq": value.seq,
        "prev": value.prev.hex(),
        "roster": value.roster,
        "kind": value.kind,
        "kind_name": kind_name(value.kind),
        "round": value.round,
        "lamport": value.lamport,
        "time_ms": value.time_ms,
        "acks": [
            {"author": one.author, "epoch": one.epoch, "seq": one.seq, "id": one.id.hex()}
            for one in value.acks
        ],
        "body": _plain(body),
        "signature": record.signed.signature.hex(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Body | GroupValue | Input | LeftOut | MetricValue | Score | SketchRow):
        plain = {name: _plain(getattr(value, name)) for name in value.SHAPE.fields}
        for name, values in _NAMED.items():
            if name in plain:
                of = CloseReason if isinstance(value, Close) else values
                plain[f"{name}_name"] = enum_name(of, plain[name])
        return plain
    return int(value)
