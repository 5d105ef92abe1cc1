"""Every rule against every attack, over seeds: the table of the scenario `attacks`.

Room: scenarios. Law: the rules have no number that was tuned; each row also says what its rule costs where
nobody lies, here and on very unequal hospitals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.charter_types import RULES
from scenarios.engine_simulated import charter_of
from scenarios.intervals import over_seeds
from scenarios.patients import Patients, data_table, find_sources, read_patients
from scenarios.poisoning.engine import MIXED, Ended, liars_of, ruled, run_rule
from scenarios.poisoning.poisons import NONE, POISONS
from scenarios.spec import ScenarioSpec, load_spec
from scenarios.workers import Say, each

ALL_RULES: Final = (*RULES, *(MIXED + rule for rule in RULES[1:]))
UNEQUAL: Final = "imbalance"
WITHIN: Final = 0.01
"""How far below the clean mean the best rule may fall under its worst attack."""
WORKERS: Final = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One rule, one seed, some attacks."""

    spec: ScenarioSpec
    rule: str
    patients: Patients
    table: dict[str, object]
    attacks: tuple[str, ...]


def run_job(job: Job, _say: Say) -> list[Ended]:
    """Run in a process of its own."""
    import torch

    torch.set_num_threads(1)
    return run_rule(job.spec, job.patients, job.table, job.attacks)


def run_attacks(
    spec: ScenarioSpec,
    seeds: Sequence[int],
    *,
    data: Path | None,
    rules: Sequence[str] = ALL_RULES,
    note: Callable[[str], None],
    workers: int = WORKERS,
) -> dict[str, Any]:
    """Run all rules with all seeds; returns what --json holds. Raises ConfigError."""
    attacks = (NONE, *POISONS)
    unequal = load_spec(UNEQUAL).override(rounds=spec.rounds)
    jobs = [
        *_jobs(spec, seeds, rules, attacks, data),
        *_jobs(unequal, seeds, rules, (NONE,), data),
    ]
    ended: dict[tuple[str, str], list[list[Ended]]] = {}
    results = each(run_job, jobs, workers=workers)
    for done, (job, found) in enumerate(zip(jobs, results, strict=True), start=1):
        ended.setdefault((job.spec.name, job.rule), []).append(found)
        worst = min(found, key=lambda one: one.auc)
        note(
            f"{job.spec.name}, {job.rule}, seed {job.spec.seed}: worst {worst.auc:.4f} ({worst.attack}; "
            f"{done} of {len(jobs)})"
        )
    rows = [_row(rule, ended[spec.name, rule], ended[UNEQUAL, rule]) for rule in rules]
    return _judged(spec, seeds, rows)


def _jobs(
    spec: ScenarioSpec,
    seeds: Sequence[int],
    rules: Sequence[str],
    attacks: tuple[str, ...],
    data: Path | None,
) -> list[Job]:
    sources = find_sources(spec, data)
    table = data_table(spec, sources)
    patients = read_patients(spec, charter_of(spec, table).schema, sources, data)
    return [
        Job(
            spec=ruled(spec.override(seed=seed), rule),
            rule=rule,
            patients=patients,
            table=table,
            attacks=attacks,
        )
        for rule in rules
        for seed in seeds
    ]


def _row(
    rule: str, runs: Sequence[Sequence[Ended]], unequal: Sequence[Sequence[Ended]]
) -> dict[str, Any]:
    by_attack = {
        attack: _interval([run[at].auc for run in runs])
        for at, attack in enumerate(one.attack for one in runs[0])
    }
    under = {attack: found["mean"] for attack, found in by_attack.items() if attack != NONE}
    worst = min(under, key=lambda attack: under[attack])
    return {
        "name": rule,
        "auc_external_swarm": by_attack[NONE]["mean"],
        "clean": by_attack[NONE],
        "attacks": {attack: found for attack, found in by_attack.items() if attack != NONE},
        "worst_attack": worst,
        "worst": by_attack[worst],
        "imbalance_clean": _interval([run[0].auc for run in unequal]),
    }


def _interval(values: Sequence[float]) -> dict[str, Any]:
    found = over_seeds(values)
    if found is None:
        raise ValueError("no seeds")
    return {"mean": found.value, "low": found.low, "high": found.high, "seeds": list(found.values)}


def _judged(spec: ScenarioSpec, seeds: Sequence[int], rows: list[dict[str, Any]]) -> dict[str, Any]:
    mean = next(row for row in rows if row["name"] == "mean")
    for row in rows:
        row["cost_clean"] = mean["clean"]["mean"] - row["clean"]["mean"]
        row["cost_imbalance"] = mean["imbalance_clean"]["mean"] - row["imbalance_clean"]["mean"]
    best = max(rows, key=lambda row: row["worst"]["mean"])
    lost = mean["clean"]["mean"] - best["worst"]["mean"]
    failures = []
    if lost > WITHIN:
        failures.append(
            f"best rule {best['name']}: {lost:.4f} below the clean mean under {best['worst_attack']}; "
            f"need <= {WITHIN}"
        )
    members = len(spec.hospitals)
    return {
        "scenario": spec.name,
        "engine": "fast",
        "members_count": members,
        "liars": len(liars_of(0, members)),
        "rounds": spec.rounds,
        "seeds": list(seeds),
        "auc_clean": mean["clean"]["mean"],
        "best_rule": best["name"],
        "best_rule_lost": lost,
        "variants": rows,
        "failures": failures,
    }


def as_table(study: dict[str, Any]) -> list[str]:
    """Return lines for a terminal: a row a rule, a column an attack, in thousandths of external AUC."""
    attacks = list(study["variants"][0]["attacks"])
    head = ["rule", "clean", *attacks, "worst", "cost on imbalance"]
    rows = [
        [
            row["name"],
            *(
                f"{one['mean']:.3f}"
                for one in (row["clean"], *row["attacks"].values(), row["worst"])
            ),
            f"{row['cost_imbalance']:+.4f}",
        ]
        for row in study["variants"]
    ]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (head, *rows)
    ]
    return [
        *lines,
        (
            f"{study['liars']} of {study['members_count']} lie; best under its worst attack: "
            f"{study['best_rule']}, {study['best_rule_lost']:.4f} below the clean mean"
        ),
        *study["failures"],
    ]
