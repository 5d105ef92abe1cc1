"""Which payloads moved in a run and when each hospital's model was good enough, from the ledger alone.

Room: scenarios. Law: a payload was fetched by whoever published what it could not have without it: an
input of its merge, or a model that it measured and had not merged itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ledger.record import Aggregation, Codec, Contribution, Metrics, Record, Rule

Logs = Mapping[int, Sequence[Record]]


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """Bytes of payloads that members fetched from each other, moments among them.

    sent: as they were written. float32: what the same payloads are as bare float32.
    """

    sent: int
    float32: int


def exchanged(logs: Logs, *, update_float32: int, result_float32: int) -> Exchanged:
    """Add up what was fetched. update_float32, result_float32: bytes of one as float32."""
    offers = {
        body.update_digest: (author, body)
        for author, log in logs.items()
        for record in log
        if isinstance(body := record.body, Contribution)
    }
    by_id = {
        (author, record.epoch, record.seq): record.body
        for author, log in logs.items()
        for record in log
        if isinstance(record.body, Contribution)
    }
    sent = float32 = 0
    for author, log in logs.items():
        here: set[bytes] = {body.update_digest for at, body in offers.values() if at == author}
        for record in log:
            match record.body:
                case Aggregation() as body:
                    for one in body.inputs:
                        update = by_id.get((one.author, one.epoch, one.seq))
                        if update is None or update.update_digest in here:
                            continue
                        here.add(update.update_digest)
                        sent += update.bytes_count
                        is_update = update.codec != Codec.MOMENTS
                        float32 += update_float32 if is_update else update.bytes_count
                    here.add(body.result_digest)
                case Metrics() as body if body.model_digest not in here:
                    here.add(body.model_digest)
                    sent += result_float32
                    float32 += result_float32
                case _:
                    pass
    return Exchanged(sent=sent, float32=float32)


def models_by_round(logs: Logs) -> dict[int, dict[int, bytes]]:
    """Round → author → digest of the result that it recorded; without moments."""
    found: dict[int, dict[int, bytes]] = {}
    for author, log in logs.items():
        for record in log:
            body = record.body
            if isinstance(body, Aggregation) and body.rule != Rule.MOMENTS:
                found.setdefault(record.round, {})[author] = body.result_digest
    return found


def seconds_by_round(logs: Logs) -> dict[int, dict[int, float]]:
    """Round → author → seconds from the start of its training to its METRICS, by its own clock."""
    found: dict[int, dict[int, float]] = {}
    for author, log in logs.items():
        began_ms: int | None = None
        for record in log:
            body = record.body
            is_start = isinstance(body, Aggregation) and body.rule == Rule.MOMENTS
            if began_ms is None or is_start:  # from OPEN on where there are no moments
                began_ms = record.time_ms
            if isinstance(body, Metrics):
                seconds = (record.time_ms - began_ms) / 1_000
                found.setdefault(record.round, {})[author] = seconds
    return found
