"""Many seeds of the cases of `free-riders`, and what is counted over them. Room: scenarios.

Law: rates come with Wilson's 95 % intervals over members of all seeds. Members of one seed share its
clinics, so these are a little narrow where a case's members fail together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median
from typing import Any, Final

from scenarios.riders.bars import missed
from scenarios.riders.cases import Cast, cast
from scenarios.riders.clinics import make_clinics
from scenarios.riders.engine import ROUNDS, Ran, run_case
from scenarios.riders.service import run_service
from scenarios.workers import Say, each

EARLY_ROUND: Final = 3
FAST: Final = "fast"
WORKERS: Final = 2
Z95: Final = 1.96


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """One seed of one case, as numbers. found: rider → the round that it was first doubted in."""

    case: str
    seed: int
    cast: Cast
    found: dict[int, int]
    why: dict[int, tuple[str, ...]]
    ranking_auc: float | None
    reputation_auc: float | None
    auc_by_round: tuple[float, ...]


def run_one(job: tuple[str, str, int, int, int], _say: Say) -> SeedResult:
    """Run (engine, case, members, seed, rounds)."""
    import torch

    torch.set_num_threads(1)
    engine, case, members, seed, rounds = job
    parts = cast(case, members, seed)
    clinics = make_clinics(seed, members, rare=parts.rare, tiny=parts.tiny)
    run = run_case if engine == FAST else run_service
    return judged(case, seed, run(seed, parts, clinics, rounds=rounds))


def judged(case: str, seed: int, ran: Ran) -> SeedResult:
    """Turn a run into numbers."""
    first = {
        one.member: min(alert.round for alert in one.alerts) for one in ran.signals if one.alerts
    }
    why = {
        one.member: tuple(alert.signal for alert in one.alerts) for one in ran.signals if one.alerts
    }
    peaks = {one.member: one.peak_milli for one in ran.signals}
    values = ran.reputation_micro
    trust = {member: (-peaks.get(member, 0), value) for member, value in values.items()}
    return SeedResult(
        case=case, seed=seed, cast=ran.cast, found=first, why=why,
        ranking_auc=_ranked(trust, ran.cast),
        reputation_auc=_ranked({member: (0, value) for member, value in values.items()}, ran.cast),
        auc_by_round=ran.auc_by_round,
    )  # fmt: skip


def _ranked(trust: dict[int, tuple[int, int]], parts: Cast) -> float | None:
    """Chance that an honest member is trusted more than a rider; ties count one half."""
    if not parts.riders:
        return None
    pairs = [
        (trust[honest] > trust[rider]) + 0.5 * (trust[honest] == trust[rider])
        for honest in parts.honest
        for rider in parts.riders
    ]
    return fmean(pairs)


def run_study(
    cases: Sequence[str], members: int, seeds: Sequence[int], *,
    rounds: int = ROUNDS, engine: str = FAST, note: Callable[[str], None], workers: int = WORKERS,
) -> dict[str, Any]:  # fmt: skip
    """Run every case with every seed; returns what --json holds. Case `none` runs too, for comparison."""
    wanted = list(dict.fromkeys([*cases, "none"]))
    jobs = [(engine, case, members, seed, rounds) for case in wanted for seed in seeds]
    results: dict[str, list[SeedResult]] = {case: [] for case in wanted}
    for done, one in enumerate(each(run_one, jobs, workers=workers), start=1):
        results[one.case].append(one)
        riders = [one.found.get(member) for member in one.cast.riders]
        false = sorted(one.found.keys() & set(one.cast.honest))
        note(
            f"{one.case}, seed {one.seed}: riders found in rounds {riders}, honest doubted {false}, "
            f"AUC {one.auc_by_round[-1]:.4f} ({done} of {len(jobs)})"
        )
    without = results["none"]
    found = [summary(case, results[case], without) for case in cases]
    return {
        "scenario": "free-riders", "engine": engine, "members": members, "rounds": rounds,
        "cases": found, "failures": missed(found),
    }  # fmt: skip


def summary(case: str, runs: Sequence[SeedResult], without: Sequence[SeedResult]) -> dict[str, Any]:
    """Count one case over its seeds."""
    riders = [(run, member) for run in runs for member in run.cast.riders]
    honest = [(run, member) for run in runs for member in run.cast.honest]
    found = [run.found[member] for run, member in riders if member in run.found]
    early = sum(number <= EARLY_ROUND for number in found)
    false = [(run, member) for run, member in honest if member in run.found]
    by_role: dict[str, list[int | None]] = {}
    for run, member in riders:
        by_role.setdefault(run.cast.riders[member].name, []).append(run.found.get(member))
    differences = [
        other.auc_by_round[len(run.auc_by_round) - 1] - run.auc_by_round[-1]
        for run, other in zip(runs, without, strict=True)
    ]
    framed = [run.cast.framed in run.found for run in runs if run.cast.framed is not None]
    return {
        "case": case,
        "seeds": [run.seed for run in runs],
        **_rate("recall", len(found), len(riders)),
        **_rate("recall_round_3", early, len(riders)),
        **_rate("precision", len(found), len(found) + len(false)),
        **_rate("false_alarm_rate", len(false), len(honest)),
        "ranking_auc": _mean([run.ranking_auc for run in runs]),
        "ranking_auc_of_reputation_alone": _mean([run.reputation_auc for run in runs]),
        "flagged_honest": [
            {"seed": run.seed, "member": member, "signals": run.why[member], "round": run.found[member],
             "is_unusual": member in (run.cast.rare, run.cast.tiny, run.cast.framed)}
            for run, member in false
        ],
        "unusual_flagged": sum(
            member in (run.cast.rare, run.cast.tiny, run.cast.framed) for run, member in false
        ),
        "framed_flagged": sum(framed) if framed else None,
        "rounds_to_detection": median(found) if found else None,
        "rounds_to_detection_most": max(found, default=None),
        "roles": {
            name: _rate("recall", sum(one is not None for one in rounds), len(rounds))
            for name, rounds in by_role.items()
        },
        "auc": fmean(run.auc_by_round[-1] for run in runs),
        "auc_lost_to_riders": fmean(differences),
        "auc_lost_most": max(differences),
    }  # fmt: skip


def _rate(name: str, count: int, total: int) -> dict[str, Any]:
    """A rate, its interval, and what it was counted from; None where there was nothing to count."""
    low, high = wilson(count, total)
    return {
        name: count / total if total else None,
        f"{name}_interval": [low, high] if total else None,
        f"{name}_counted": [count, total],
    }


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    if not total:
        return 0.0, 1.0
    rate = count / total
    middle = (rate + Z95**2 / (2 * total)) / (1 + Z95**2 / total)
    half = Z95 * sqrt(rate * (1 - rate) / total + Z95**2 / (4 * total**2)) / (1 + Z95**2 / total)
    return min(rate, max(0.0, middle - half)), max(rate, min(1.0, middle + half))


def as_table(study: dict[str, Any]) -> list[str]:
    """The study in lines for a terminal."""
    lines = [
        "case              recall         by round 3     precision      honest doubted  ranking  AUC lost"
    ]
    for one in study["cases"]:
        cells = [_cell(one, name) for name in ("recall", "recall_round_3", "precision")]
        doubted, honest = one["false_alarm_rate_counted"]
        ranking = "-" if one["ranking_auc"] is None else f"{one['ranking_auc']:.3f}"
        lines.append(
            f"{one['case']:<17} {cells[0]:<14} {cells[1]:<14} {cells[2]:<14} "
            f"{doubted:>4} of {honest:<6} {ranking:>7}  {one['auc_lost_to_riders']:+.4f}"
        )
    return [*lines, *(f"MISSED {line}" for line in study["failures"])]


def _cell(one: dict[str, Any], name: str) -> str:
    if one[name] is None:
        return "-"
    low, high = one[f"{name}_interval"]
    return f"{one[name]:.2f} [{low:.2f}, {high:.2f}]"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
