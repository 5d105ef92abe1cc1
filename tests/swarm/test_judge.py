"""What a site's judge says of a merge is what merging and evaluating say, whichever tensors travel."""

import pytest

from ledger.record import MetricId
from swarm.learning.task import LearningTask
from swarm.scoring import judge as judge_module
from swarm.scoring.evaluation import ROWS_MAX
from swarm.scoring.judge import Judge
from tests.learning import digest, make_site
from tests.swarm.local_sites import charter_with
from tests.swarm.test_task_personal import NORMED, federation

CHARTERS = {
    "whole": charter_with(model=NORMED),
    "linear": charter_with(),
    "part": charter_with(model=NORMED, training='trained = ["layers.3.*"]'),
    "fedbn": charter_with("", 'mode = "fedbn"', model=NORMED),
}


def loss_of(task: LearningTask, inputs: list[tuple[bytes, bytes, int]], memory: object) -> float:
    model = task.merge(inputs, task.initial())
    values = task.evaluate(model, memory)  # type: ignore[arg-type]
    return next(v.micro / 1e6 for v in values if v.metric == MetricId.LOG_LOSS)


@pytest.mark.parametrize("kind", CHARTERS)
def test_leaving_one_out_is_merging_without_it_and_measuring(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "rows_within_budget", lambda *_: ROWS_MAX)  # all patients
    tasks = federation(CHARTERS[kind], [make_site(at) for at in range(3)])
    base = tasks[0].initial()
    trained = [task.train(base, 1, {}) for task in tasks]
    inputs = [(digest(one.payload), one.payload, 333_333) for one in trained]
    judge = Judge(tasks[0], dimensions=64)
    found = judge.score(inputs, base)
    memory = trained[0].memory
    assert found.together == pytest.approx(loss_of(tasks[0], inputs, memory), abs=2e-6)
    for left, loss in enumerate(found.without):
        rest = [(name, one, 500_000) for at, (name, one, _) in enumerate(inputs) if at != left]
        assert loss == pytest.approx(loss_of(tasks[0], rest, memory), abs=2e-6)
    assert judge.is_apart == (kind != "fedbn")
