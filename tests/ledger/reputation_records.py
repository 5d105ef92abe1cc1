"""Rounds with evaluations on a real ledger: contributions, commits, reveals, all signed."""

from dataclasses import replace
from typing import Any

from ledger_factory import Federation, digest_of

from ledger.bodies import EvaluationCommit, EvaluationReveal, Score
from ledger.evaluation import commitment_of
from ledger.record import Kind, Record, Verified

LOSS = 700_000  # of the merged model without the contribution


class Evaluated(Federation):
    """A federation whose members also score each other."""

    def contribute(self, author: int, round_: int, **changes: Any) -> Verified[Record]:
        body = self.contribution_body(author, round_, **changes)
        return self.write(author, Kind.CONTRIBUTION, round_, body, with_acks=True)

    def scores(
        self, offered: dict[int, Verified[Record]], changes: dict[int, int]
    ) -> tuple[Score, ...]:
        rows = [
            Score(
                target_id=offered[member].id,
                loss_with_micro=LOSS - change,
                loss_without_micro=LOSS,
                count=64,
            )
            for member, change in changes.items()
        ]
        return tuple(sorted(rows, key=lambda row: row.target_id))

    def reveal_body(
        self, author: int, round_: int, scores: tuple[Score, ...], commit_seq: int
    ) -> EvaluationReveal:
        return EvaluationReveal(
            commit_seq=commit_seq,
            salt=digest_of(f"salt {author} {round_}"),
            scores=scores,
            evaluation_commitment=digest_of(f"validation {author}"),
        )

    def commit(self, author: int, round_: int, scores: tuple[Score, ...]) -> Verified[Record]:
        draft = self.reveal_body(author, round_, scores, 0)
        commitment = commitment_of(
            net=self.roster.net,
            author=author,
            epoch=0,
            round=round_,
            salt=draft.salt,
            scores=scores,
            evaluation_commitment=draft.evaluation_commitment,
        )
        return self.write(
            author, Kind.EVALUATION_COMMIT, round_, EvaluationCommit(commitment=commitment)
        )

    def reveal(
        self,
        author: int,
        round_: int,
        scores: tuple[Score, ...],
        commit_seq: int,
        **changes: Any,
    ) -> Verified[Record]:
        body = replace(self.reveal_body(author, round_, scores, commit_seq), **changes)
        return self.write(author, Kind.EVALUATION_REVEAL, round_, body)

    def evaluate_round(
        self,
        round_: int,
        offered: dict[int, Verified[Record]],
        changes: dict[int, dict[int, int]],
    ) -> dict[int, tuple[Verified[Record], Verified[Record]]]:
        """Every evaluator of ``changes`` commits, then every one reveals."""
        scores = {i: self.scores(offered, row) for i, row in changes.items()}
        commits = {i: self.commit(i, round_, rows) for i, rows in scores.items()}
        return {
            i: (commits[i], self.reveal(i, round_, scores[i], commits[i].value.seq)) for i in scores
        }

    def play_evaluated(
        self, round_: int, changes: dict[int, dict[int, int]] | None = None, **of: Any
    ) -> dict[int, Verified[Record]]:
        """One whole round; ``of``: ``a3={...}`` changes author 3's contribution."""
        everyone = range(self.roster.n)
        offered = {i: self.contribute(i, round_, **of.get(f"a{i}", {})) for i in everyone}
        if changes is None:
            changes = {i: {j: usual(i, j, round_) for j in everyone if j != i} for i in everyone}
        self.evaluate_round(round_, offered, changes)
        return offered


def usual(evaluator: int, member: int, round_: int) -> int:
    """A change that grows with the member's number, and not quite the same for all."""
    return 1_000 * member + 137 * ((evaluator * 7 + member * 3 + round_) % 11)


def opened(members: int, extra: str = "") -> Evaluated:
    federation = Evaluated(members, extra)
    federation.open_all()
    return federation
