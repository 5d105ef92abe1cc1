"""`swarm-node metrics`: each hospital, all together, each subgroup; from the store of one."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from site_factory import Site, make_federation, run_command

from ledger.pooling import pool, pool_groups
from ledger.record import GroupValue, MetricId, MetricValue
from node.cli import call


def value(micro: int, half: int, count: int, metric: int = MetricId.AUC) -> MetricValue:
    return MetricValue(
        metric=metric, micro=micro, low_micro=micro - half, high_micro=micro + half, count=count
    )


def test_a_pooled_metric_is_weighted_by_patients_and_its_interval_is_narrower() -> None:
    pooled = pool([[value(800_000, 30_000, 300)], [value(600_000, 30_000, 100)]])
    one = pooled[MetricId.AUC]
    assert (one.micro, one.count) == (750_000, 400)
    assert one.high_micro - one.micro == pytest.approx(30_000 * (9 + 1) ** 0.5 / 4, abs=1)


def test_who_could_not_compute_a_metric_does_not_count_in_it() -> None:
    loss = value(500_000, 1_000, 50, MetricId.LOG_LOSS)
    pooled = pool([[value(800_000, 1_000, 100), loss], [loss]])
    assert (pooled[MetricId.AUC].count, pooled[MetricId.LOG_LOSS].count) == (100, 100)
    assert pool([]) == {}


def test_subgroups_are_pooled_part_by_part() -> None:
    def group(part: int, micro: int) -> GroupValue:
        return GroupValue(
            subgroup=0,
            part=part,
            metric=1,
            micro=micro,
            low_micro=micro,
            high_micro=micro,
            count=20,
        )

    found = pool_groups([[group(0, 700_000), group(1, 900_000)], [group(1, 700_000)]])
    assert {part: values[1].micro for part, values in found.items()} == {
        (0, 0): 700_000,
        (0, 1): 800_000,
    }


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A swarm of one, in which no gain counts: it stops after three rounds of nine."""
    settings = (
        "stopping.patience=1",
        "stopping.delta_min=10",
        "privacy.group_count_min=1",
        'data.subgroups=[{column = "age", edges = [200]}]',
    )
    (site,) = make_federation(tmp_path_factory.mktemp("swarm"), rounds=9, settings=settings)
    done = run_command("run", "--config", site.config, "--linger", "0")
    assert done.returncode == 0, done.stderr
    return site


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    capsys.readouterr()
    assert call([*map(str, arguments), "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_node_stops_when_its_charter_says_so_and_hands_out_the_best_model(
    stopped: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = shown(capsys, "status", stopped.directory)
    assert (status["phase"], status["rounds"], status["rounds_agreed"]) == ("done", 9, 3)
    assert (status["stopped_round"], status["released_round"]) == (2, 1)
    file = tmp_path / "model.safetensors"
    assert shown(capsys, "model", "export", file, "--config", stopped.config)["round"] == 1
    with safe_open(file, framework="np") as opened:
        assert opened.metadata()["round"] == "1"


def test_metrics_are_shown_for_each_for_all_and_for_subgroups(
    stopped: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(capsys, "metrics", "--round", "2", "--config", stopped.config)
    assert (found["round"], found["stopped_round"], found["released_round"]) == (2, 2, 1)
    (member,) = found["members"]  # type: ignore[misc]
    assert member["metrics"] == found["pooled"]
    assert {"auc", "ece", "brier", "log_loss"} <= member["metrics"].keys()
    (everybody,) = found["subgroups"]  # type: ignore[misc]
    assert everybody["subgroup"] == "age < 200"
    assert everybody["metrics"]["auc"]["value"] == found["pooled"]["auc"]["value"]  # type: ignore[index]
    capsys.readouterr()
    assert call(["metrics", "--config", str(stopped.config)]) == 0
    text = capsys.readouterr().out
    assert "age < 200" in text
    assert "training stopped: round 2" in text
    assert call(["metrics", "--round", "8", "--config", str(stopped.config)]) == 2
