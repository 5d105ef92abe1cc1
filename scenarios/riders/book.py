"""The records of a fast run: signed, acked and hashed as in a hospital, without a network between.

Room: scenarios. Law: what is judged is computed from these records by the auditor's own functions, never
from what the engine knows. Everybody holds every record at once; within a round, contributions are
written one after the other, and each acks those before it, as a node's would that has just heard of them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, final

from ledger.bodies import (
    Aggregation,
    Contribution,
    EvaluationCommit,
    EvaluationReveal,
    Input,
    Score,
    Sketch,
    SketchRow,
)
from ledger.chain import LogHead, compose, head_after
from ledger.charter import Charter
from ledger.evaluation import commitment_of
from ledger.keys import Signer
from ledger.record import (
    Ack,
    Body,
    Codec,
    Kind,
    Open,
    Record,
    RecordId,
    Rule,
    Verified,
    sign_record,
)
from ledger.roster import Roster
from ledger.sketch import EXPONENT_BIAS
from ledger.weights import weights_micro
from swarm.learning.trained import Trained
from swarm.protocol.payload import payload_digest
from swarm.scoring.projection import Projection

ROUND_MS: Final = 60_000
EPOCH_MS: Final = 1_760_000_000_000
NO_DIGEST: Final = bytes(32)


@final
class Book:
    """Every member's log, growing."""

    def __init__(self, charter: Charter, signers: Sequence[Signer]) -> None:
        self.charter = charter
        self.roster = Roster.from_charter(charter)
        self.records: list[Verified[Record]] = []
        self._signers = signers
        self._heads: dict[int, LogHead] = {}
        for author, signer in enumerate(signers):
            body = Open(
                public_key=signer.public_key, previous_head=NO_DIGEST,
                software_digest=NO_DIGEST, charter_digest=charter.net,
            )  # fmt: skip
            self._write(author, 0, body, {})

    def contribute(
        self, author: int, number: int, trained: Trained, base: bytes
    ) -> Verified[Record]:
        """Offer an update; acks all that others have written so far."""
        body = Contribution(
            update_digest=payload_digest(Codec.FLOAT32, trained.payload),
            bytes_count=len(trained.payload), codec=Codec.FLOAT32,
            base_digest=payload_digest(Codec.FLOAT32, base), samples=trained.samples,
            local_steps=trained.steps, norm_micro=trained.norm_micro, sketch_digest=NO_DIGEST,
            epsilon_micro=0, delta_exponent=0, mechanism=0, metrics=(), data_commitment=NO_DIGEST,
        )  # fmt: skip
        return self._write(author, number, body, self._heads)

    def aggregate(
        self, author: int, number: int, offers: Mapping[int, Verified[Record]], result: bytes
    ) -> None:
        """State what everybody merged: the charter's weights, by samples claimed."""
        samples = [_offer(offers[one]).samples for one in sorted(offers)]
        weights = weights_micro(samples, self.charter.aggregation)
        inputs = tuple(
            Input(author=one, epoch=0, seq=offers[one].value.seq, id=offers[one].id, weight_micro=weight)
            for one, weight in zip(sorted(offers), weights, strict=True)
        )  # fmt: skip
        body = Aggregation(
            rule=Rule.MEAN, parameters=(), inputs=inputs, left_out=(),
            result_digest=payload_digest(Codec.FLOAT32, result),
        )  # fmt: skip
        self._write(author, number, body, {})

    def sketch(
        self, author: int, number: int, seed: bytes, rows: Mapping[RecordId, Projection]
    ) -> None:
        """Publish projections of own updates, by the id of their CONTRIBUTION."""
        shown = tuple(
            SketchRow(target_id=id_, exponent=one.exponent + EXPONENT_BIAS, values=one.to_bytes())
            for id_, one in sorted(rows.items())
        )
        self._write(author, number, Sketch(round=number, seed=seed, rows=shown), {})

    def commit(self, author: int, number: int, scores: Sequence[Score]) -> tuple[int, bytes]:
        """Commit to scores; returns where, and the salt that opens it."""
        salt = hashlib.sha256(f"{self.charter.seed}/{author}/{number}".encode()).digest()
        commitment = commitment_of(
            net=self.charter.net, author=author, epoch=0, round=number, salt=salt, scores=scores,
            evaluation_commitment=NO_DIGEST,
        )  # fmt: skip
        record = self._write(author, number, EvaluationCommit(commitment=commitment), {})
        return record.value.seq, salt

    def reveal(
        self, author: int, number: int, committed: tuple[int, bytes], scores: Sequence[Score]
    ) -> None:
        """Open a commit."""
        seq, salt = committed
        body = EvaluationReveal(
            commit_seq=seq, salt=salt, scores=tuple(scores), evaluation_commitment=NO_DIGEST
        )
        self._write(author, number, body, {})

    def _write(
        self, author: int, number: int, body: Body, seen: Mapping[int, LogHead]
    ) -> Verified[Record]:
        acks = tuple(
            Ack(other, 0, head.next_seq - 1, head.prev_id)
            for other, head in sorted(seen.items())
            if other != author
        )
        record = compose(
            self._heads.get(author), roster=self.roster, author=author, epoch=0, kind=body.KIND,
            round=number, time_ms=EPOCH_MS + ROUND_MS * number, acks=acks, body=body,
            lamports=[head.lamport for head in seen.values()],
        )  # fmt: skip
        signed = sign_record(record, self._signers[author])
        self._heads[author] = head_after(record, signed.id)
        self.records.append(signed)
        return signed


def _offer(record: Verified[Record]) -> Contribution:
    body = record.value.body
    if record.value.kind != Kind.CONTRIBUTION or not isinstance(body, Contribution):
        raise TypeError("not a CONTRIBUTION")
    return body
