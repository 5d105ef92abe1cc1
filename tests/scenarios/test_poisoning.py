"""The scenario `attacks`: what liars send, and an engine that trains and merges as nodes do."""

from pathlib import Path

import numpy as np
import pytest

from scenarios.engine_simulated import SeedJob, charter_of, run_seed
from scenarios.patients import data_table, read_patients
from scenarios.poisoning.engine import liars_of, ruled, run_rule
from scenarios.poisoning.poisons import NONE, POISONS, Seen, flip_labels
from scenarios.spec import ScenarioSpec, load_spec
from swarm.learning.dataset import SiteData, Table


def seen(liars: int = 5, members: int = 25) -> Seen:
    random = np.random.default_rng(3)
    honest = random.normal(1.0, 0.2, size=(members - liars, 40))
    return Seen(own=honest[0], honest=honest, liars=liars, random=random)


@pytest.mark.parametrize("name", POISONS)
def test_every_poison_is_finite_and_of_the_models_length(name: str) -> None:
    update = POISONS[name](seen())
    assert update.shape == (40,)
    assert np.isfinite(update).all()


def test_poisons_do_what_their_papers_say() -> None:
    about = seen()
    mean = about.honest.mean(axis=0)
    spread = about.honest.std(axis=0)
    assert (POISONS["sign-flip-10"](about) == -10 * about.own).all()
    assert float(POISONS["ipm"](about) @ mean) < 0
    # A little is enough: the liars are nearer to the mean than several honest members are.
    z = (mean - POISONS["alie"](about)) / spread
    assert z == pytest.approx(np.full(40, z[0]))
    assert 0 < z[0] < 1.5
    for loud in ("noise", "constant"):
        size = np.linalg.norm(POISONS[loud](about))
        assert size == pytest.approx(10 * np.median(np.linalg.norm(about.honest, axis=1)))


def test_flipped_labels_are_taught_and_not_judged_by() -> None:
    table = Table(columns={"x": np.arange(3.0)}, labels=np.array([0, 1, 2]))
    flipped = flip_labels(SiteData(train=table, validation=table), 3)
    assert list(flipped.train.labels) == [2, 1, 0]  # type: ignore[union-attr]
    assert flipped.validation is table


def test_a_fifth_of_the_members_lies_drawn_by_the_seed() -> None:
    assert len(liars_of(0, 25)) == 5
    assert len(liars_of(0, 32)) == 6
    assert liars_of(0, 25) == liars_of(0, 25) != liars_of(1, 25)


def _digits() -> ScenarioSpec:
    return load_spec("images").override(rounds=2)


def test_without_liars_the_models_are_those_of_whole_services(tmp_path: Path) -> None:
    spec = _digits()
    spec = spec.first(4)
    table = data_table(spec, ((),) * 4)
    patients = read_patients(spec, charter_of(spec, table).schema, ((),) * 4, None)
    job = SeedJob(
        spec=spec, variant="main", directory=tmp_path / "run", patients=patients, table=table
    )
    services = run_seed(job, lambda _: None)
    judged = type(patients)(tables=patients.tables, external=patients.tables[0])
    clean, loud = run_rule(spec, judged, table, (NONE, "sign-flip-10"))
    assert list(clean.digests) == [services.digests[number] for number in (1, 2)]
    assert loud.digests[0] != clean.digests[0]
    assert loud.auc < clean.auc


def test_a_robust_rule_stands_where_the_mean_falls() -> None:
    spec = _digits()
    table = data_table(spec, ((),) * len(spec.hospitals))
    sources = ((),) * len(spec.hospitals)
    patients = read_patients(spec, charter_of(spec, table).schema, sources, None)
    judged = type(patients)(tables=patients.tables, external=patients.tables[0])
    mean, _ = run_rule(spec, judged, table, ("sign-flip-10", NONE))
    robust, _ = run_rule(ruled(spec, "nnm+trimmed_mean"), judged, table, ("sign-flip-10", NONE))
    assert robust.auc > mean.auc
