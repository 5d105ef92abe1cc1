"""Step 13: nobody scores after looking, nobody scores himself, nobody scores what is not there."""

import hashlib
from dataclasses import replace

import pytest
from ledger_factory import digest_of
from reputation_records import Evaluated, opened

from ledger.bodies import Codec, EvaluationCommit, Kind, Score
from ledger.canonical import encode
from ledger.errors import VerificationError
from ledger.evaluation import EvaluationAudit, Target, check_reveal, commitment_of
from ledger.record import Record, Verified


class Scene:
    """Four hospitals in round 1; hospital 0 evaluates the others."""

    def __init__(self) -> None:
        self.federation: Evaluated = opened(4)
        self.offered = {i: self.federation.contribute(i, 1) for i in range(4)}
        self.scores = self.federation.scores(self.offered, {1: 300, 2: 200, 3: -50})
        self.targets = {one.id: Target(i, 1) for i, one in self.offered.items()}

    def pair(self, scores: tuple[Score, ...] | None = None) -> tuple[Record, Record]:
        scores = self.scores if scores is None else scores
        commit = self.federation.commit(0, 1, scores).value
        return commit, self.federation.reveal(0, 1, scores, commit.seq).value

    def refused(self, commit: Record | None, reveal: Record) -> VerificationError:
        with pytest.raises(VerificationError) as caught:
            check_reveal(commit, reveal, self.targets)
        assert (caught.value.author, caught.value.seq) == (reveal.author, reveal.seq)
        return caught.value

    def stream(self) -> list[Verified[Record]]:
        return self.federation.records()


def audited(records: list[Verified[Record]], *, complete: bool = True) -> list[str]:
    audit = EvaluationAudit()
    codes = []
    for one in records:
        try:
            audit.learn(one.value, one.id)
        except VerificationError as error:
            located = (error.author, error.seq) == (one.value.author, one.value.seq)
            codes.append(error.code if located else "not located")
    return codes + [error.code for _, error in audit.settle(complete=complete)]


def test_an_honest_reveal_opens_its_commit() -> None:
    scene = Scene()
    check_reveal(*scene.pair(), scene.targets)
    assert audited(scene.stream()) == []


def test_the_commitment_is_the_documented_hash() -> None:
    scene = Scene()
    commit, _ = scene.pair()
    body = scene.federation.reveal_body(0, 1, scene.scores, commit.seq)
    value = [
        commit.net, 0, 0, 1, body.salt,
        [[s.target_id, s.loss_with_micro, s.loss_without_micro, s.count] for s in scene.scores],
        body.evaluation_commitment,
    ]  # fmt: skip
    digest = hashlib.sha256(b"swarm-ledger/evaluation/v1\n" + encode(value)).digest()
    assert commit.body == EvaluationCommit(commitment=digest)


@pytest.mark.parametrize("field", ["net", "author", "epoch", "round", "salt", "evaluation"])
def test_a_commitment_binds_every_field(field: str) -> None:
    scene = Scene()
    given = {
        "net": bytes(32), "author": 1, "epoch": 0, "round": 1, "salt": bytes(32),
        "scores": scene.scores, "evaluation_commitment": bytes(32),
    }  # fmt: skip
    other = dict(given)
    name = "evaluation_commitment" if field == "evaluation" else field
    other[name] = b"\x01" * 32 if isinstance(given[name], bytes) else 2
    assert commitment_of(**given) != commitment_of(**other)  # type: ignore[arg-type]
    assert commitment_of(**given) != commitment_of(**{**given, "scores": ()})  # type: ignore[arg-type]


def test_a_reveal_without_a_commit_is_refused() -> None:
    scene = Scene()
    _, reveal = scene.pair()
    assert scene.refused(None, reveal).code == "E_REVEAL_REF"


def test_a_reveal_of_a_record_that_is_no_commit_is_refused() -> None:
    scene = Scene()
    _, reveal = scene.pair()
    assert scene.refused(scene.offered[0].value, reveal).code == "E_REVEAL_REF"


@pytest.mark.parametrize(
    "changes",
    [{"author": 1}, {"epoch": 1}, {"round": 2}, {"seq": 1}, {"net": bytes(32)}],
    ids=["another author", "another epoch", "another round", "another place", "another network"],
)
def test_a_reveal_of_someone_elses_or_another_rounds_commit_is_refused(
    changes: dict[str, object],
) -> None:
    scene = Scene()
    commit, reveal = scene.pair()
    assert scene.refused(replace(commit, **changes), reveal).code == "E_REVEAL_REF"  # type: ignore[arg-type]


def test_a_reveal_before_its_commit_is_refused() -> None:
    scene = Scene()
    commit, reveal = scene.pair()
    late = replace(commit, seq=reveal.seq)
    body = scene.federation.reveal_body(0, 1, scene.scores, reveal.seq)
    assert scene.refused(late, replace(reveal, body=body)).code == "E_REVEAL_REF"


@pytest.mark.parametrize("field", ["salt", "evaluation_commitment", "scores"])
def test_a_reveal_of_other_scores_than_committed_is_refused(field: str) -> None:
    scene = Scene()
    commit, reveal = scene.pair()
    changed = replace(scene.scores[0], loss_with_micro=0)
    other = (changed, *scene.scores[1:]) if field == "scores" else bytes(32)
    body = replace(scene.federation.reveal_body(0, 1, scene.scores, commit.seq), **{field: other})  # type: ignore[arg-type]
    error = scene.refused(commit, replace(reveal, body=body))
    assert error.code == "E_REVEAL"
    assert isinstance(commit.body, EvaluationCommit)
    assert error.expected == commit.body.commitment.hex()


def test_nobody_opens_what_another_has_committed_to() -> None:
    scene = Scene()
    commit, _ = scene.pair()
    stolen = scene.federation.write(1, Kind.EVALUATION_COMMIT, 1, commit.body).value
    reveal = scene.federation.reveal(
        1, 1, scene.scores, stolen.seq, salt=digest_of("salt 0 1"),
        evaluation_commitment=digest_of("validation 0"),
    ).value  # fmt: skip
    assert scene.refused(stolen, reveal).code == "E_REVEAL"


def test_scoring_the_own_contribution_is_refused() -> None:
    scene = Scene()
    scores = scene.federation.scores(scene.offered, {0: 900, 1: 300})
    assert scene.refused(*scene.pair(scores)).code == "E_SELF_SCORE"
    assert audited(scene.stream()) == ["E_SELF_SCORE"]


def test_scoring_what_nobody_wrote_is_refused() -> None:
    scene = Scene()
    ghost = replace(scene.scores[0], target_id=digest_of("ghost"))
    scores = tuple(sorted((ghost, *scene.scores[1:]), key=lambda one: one.target_id))
    assert scene.refused(*scene.pair(scores)).code == "E_SCORE_TARGET"
    assert audited(scene.stream()) == ["E_SCORE_TARGET"]


def test_what_a_damaged_file_no_longer_shows_is_not_held_against_the_evaluator() -> None:
    scene = Scene()
    scene.pair()
    shown = [one for one in scene.stream() if one.value.author != 3]
    assert audited(shown) == ["E_SCORE_TARGET"]
    assert audited(shown, complete=False) == []


def test_scoring_a_record_that_is_no_contribution_is_refused() -> None:
    scene = Scene()
    metrics = scene.federation.write(1, Kind.METRICS, 1, scene.federation.metrics_body(1))
    scene.pair(scene.federation.scores({1: metrics}, {1: 5}))
    assert audited(scene.stream()) == ["E_SCORE_TARGET"]


def test_a_round_may_be_scored_in_the_next_so_that_no_training_waits() -> None:
    scene = Scene()
    for author in range(4):
        scene.federation.contribute(author, 2)
    commit = scene.federation.commit(0, 2, scene.scores).value
    check_reveal(
        commit, scene.federation.reveal(0, 2, scene.scores, commit.seq).value, scene.targets
    )
    assert audited(scene.stream()) == []


def test_scoring_a_contribution_of_two_rounds_ago_is_refused() -> None:
    scene = Scene()
    for round_ in (2, 3):
        for author in range(4):
            scene.federation.contribute(author, round_)
    commit = scene.federation.commit(0, 3, scene.scores).value
    reveal = scene.federation.reveal(0, 3, scene.scores, commit.seq).value
    assert scene.refused(commit, reveal).code == "E_SCORE_TARGET"
    assert audited(scene.stream()) == ["E_SCORE_TARGET"]


def test_scoring_two_rounds_at_once_is_refused() -> None:
    scene = Scene()
    late = scene.federation.contribute(2, 2)
    scene.targets[late.id] = Target(2, 2)
    scores = scene.federation.scores({1: scene.offered[1], 2: late}, {1: 5, 2: 6})
    commit = scene.federation.commit(0, 2, scores).value
    reveal = scene.federation.reveal(0, 2, scores, commit.seq).value
    assert scene.refused(commit, reveal).code == "E_SCORE_TARGET"
    assert audited(scene.stream()) == ["E_SCORE_TARGET"]


def test_scoring_one_member_twice_is_refused() -> None:
    scene = Scene()
    commit, reveal = scene.pair()
    scene.targets = {**scene.targets, scene.offered[2].id: Target(1, 1)}
    error = scene.refused(commit, reveal)
    assert error.code == "E_SCORE_TARGET"
    assert "twice" in error.message


def test_only_the_first_contribution_of_a_round_may_be_scored() -> None:
    scene = Scene()
    second = scene.federation.contribute(1, 1, update_digest=digest_of("a better one"))
    scene.pair(scene.federation.scores({1: second}, {1: 5}))
    assert audited(scene.stream()) == ["E_SCORE_TARGET"]


def test_moments_are_no_update_and_may_not_be_scored() -> None:
    federation = opened(4)
    moments = federation.contribute(1, 1, codec=Codec.MOMENTS)
    update = federation.contribute(1, 1)
    for target, codes in ((update, []), (moments, ["E_SCORE_TARGET"])):
        scene = opened(4)
        scene.contribute(1, 1, codec=Codec.MOMENTS)
        scene.contribute(1, 1)
        scores = scene.scores({1: target}, {1: 5})
        scene.reveal(0, 1, scores, scene.commit(0, 1, scores).value.seq)
        assert audited(scene.records()) == codes


def test_a_commit_is_opened_once() -> None:
    scene = Scene()
    commit, _ = scene.pair()
    scene.federation.reveal(0, 1, scene.scores, commit.seq)
    assert audited(scene.stream()) == ["E_REVEAL_REF"]


def test_nobody_commits_twice_and_opens_the_better_one() -> None:
    scene = Scene()
    scene.federation.commit(0, 1, scene.federation.scores(scene.offered, {1: -9, 2: 9}))
    scene.pair()
    assert audited(scene.stream()) == ["E_REVEAL_REF"]


def test_a_second_commit_does_not_spoil_the_first() -> None:
    scene = Scene()
    first = scene.federation.commit(0, 1, scene.scores).value
    scene.federation.commit(0, 1, ())
    scene.federation.reveal(0, 1, scene.scores, first.seq)
    assert audited(scene.stream()) == []


def test_a_target_may_come_after_the_reveal_in_the_stream() -> None:
    scene = Scene()
    scene.pair()
    own = [one for one in scene.stream() if one.value.author == 0]
    others = [one for one in scene.stream() if one.value.author != 0]
    assert audited(own + others) == []
    assert audited(others + own) == []


def test_a_late_target_of_another_round_is_found_when_the_stream_is_over() -> None:
    scene = Scene()
    old = scene.offered[1]
    scores = scene.federation.scores({1: old}, {1: 5})
    scene.federation.contribute(0, 3)
    scene.federation.reveal(0, 3, scores, scene.federation.commit(0, 3, scores).value.seq)
    own = [one for one in scene.stream() if one.value.author == 0]
    others = [one for one in scene.stream() if one.value.author != 0]
    assert audited(own + others) == ["E_SCORE_TARGET"]


def test_only_a_reveal_can_be_checked_as_one() -> None:
    scene = Scene()
    commit, _ = scene.pair()
    with pytest.raises(TypeError):
        check_reveal(commit, commit, scene.targets)
