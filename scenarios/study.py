"""Several seeds of one scenario and of its variants, as plain values: means, intervals, checks, JSON.

Room: scenarios. Law: no I/O. A number is the mean over seeds; its interval is intervals.METHOD; what one
seed gave stands beside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from scenarios.checks import CHECKS, check_worth_it
from scenarios.intervals import METHOD, Interval, over_seeds
from scenarios.judging import External, Quality
from scenarios.outcome import HospitalOutcome
from scenarios.results import to_json as outcome_json
from scenarios.seed_run import SeedRun
from scenarios.spec import ScenarioSpec, Targets

EPSILON: Final = 1e-9
GAP: Final = "calibration_gap"


@dataclass(frozen=True, kw_only=True)
class VariantRuns:
    """One variant with all its seeds, in the order of the seeds; at least one."""

    name: str
    spec: ScenarioSpec
    runs: tuple[SeedRun, ...]

    def interval(self, measure: str) -> Interval | None:
        """Mean over seeds of one of MEASURES."""
        return over_seeds([MEASURES[measure](run) for run in self.runs])

    def mean(self, measure: str) -> float | None:
        """Its value alone; of LARGEST the worst seed's."""
        if measure == GAP:
            return self.calibration_gap
        found = self.interval(measure)
        if found is None:
            return None
        return max(found.values) if measure in LARGEST else found.value

    @property
    def calibration_gap(self) -> float | None:
        """How far each hospital's predicted chances are from what happens there, weighted by patients.

        Of each hospital the mean over the seeds, which are different splits of the same patients, before
        its sign is dropped: else the few validation patients of a small one would look like a gap.
        """
        gaps, weights = [], []
        for at, hospital in enumerate(self.runs[0].outcome.hospitals):
            known = [gap for run in self.runs if (gap := run.gaps[at]) is not None]
            if known:
                gaps.append(abs(fmean(known)))
                weights.append(max(hospital.samples, 1))
        return fmean(gaps, weights) if gaps else None


@dataclass(frozen=True, kw_only=True)
class Study:
    """The scenario itself first, then its variants."""

    title: str
    variants: tuple[VariantRuns, ...]
    wall_s: float

    @property
    def main(self) -> VariantRuns:
        """The scenario itself."""
        return self.variants[0]

    @property
    def failures(self) -> tuple[str, ...]:
        """Every check that fails, of every variant."""
        return tuple(line for one in self.variants for line in failures(one, self.main))


def _overall(name: str) -> Callable[[SeedRun], float | None]:
    def measure(run: SeedRun) -> float | None:
        found = run.outcome.overall(name)
        return None if found is None else found.value

    return measure


def _external(pick: Callable[[External], float | None]) -> Callable[[SeedRun], float | None]:
    return lambda run: None if run.external is None else pick(run.external)


def _mean_auc(external: External) -> float | None:
    known = [one.auc for one in external.alone if one.auc is not None]
    return fmean(known) if known else None


def _judged(run: SeedRun) -> Quality:
    """The swarm's model on patients nobody trained on, else on all validation patients."""
    return run.test_swarm if run.external is None else run.external.released


def _judged_pooled(run: SeedRun) -> Quality:
    return run.test_pooled if run.external is None else run.external.pooled


def _all_of(
    found: Callable[[SeedRun], Sequence[float | None]], pick: Callable[[list[float]], float]
) -> Callable[[SeedRun], float | None]:
    """Pick from every hospital's value; None where one has none."""

    def measure(run: SeedRun) -> float | None:
        values = found(run)
        known = [one for one in values if one is not None]
        return float(pick(known)) if known and len(known) == len(values) else None

    return measure


def _worst(run: SeedRun) -> float | None:
    values = [h.swarm.auc.value for h in run.outcome.hospitals if h.swarm.auc is not None]
    return min(values, default=None)


MEASURES: Final[Mapping[str, Callable[[SeedRun], float | None]]] = {
    "auc_alone": _overall("alone"),
    "auc_swarm": _overall("swarm"),
    "auc_pooled": _overall("pooled"),
    "auc_swarm_worst_hospital": _worst,
    "auc_external_alone": _external(_mean_auc),
    "auc_external_swarm": _external(lambda found: found.released.auc),
    "auc_external_pooled": _external(lambda found: found.pooled.auc),
    "rounds_to_99": _all_of(lambda run: run.reached, fmean),
    "rounds_to_99_worst": _all_of(lambda run: run.reached, max),
    "auc_test_swarm": lambda run: run.test_swarm.auc,
    "auc_test_pooled": lambda run: run.test_pooled.auc,
    "accuracy_swarm": lambda run: run.test_swarm.accuracy,
    "accuracy_pooled": lambda run: run.test_pooled.accuracy,
    "ece_swarm": lambda run: _judged(run).ece,
    "ece_pooled": lambda run: _judged_pooled(run).ece,
    "brier_swarm": lambda run: _judged(run).brier,
    "brier_pooled": lambda run: _judged_pooled(run).brier,
    "released_round": lambda run: float(run.released),
    "time_to_99_s": _all_of(lambda run: run.reached_s, fmean),
    "time_to_99_worst_s": _all_of(lambda run: run.reached_s, max),
    "bytes_sent_total": lambda run: float(run.bytes_payloads),
    "bytes_float32_total": lambda run: float(run.bytes_float32),
    "bytes_traffic_total": lambda run: float(sum(h.bytes_sent for h in run.outcome.hospitals)),
}
"""Name → what one seed gave. ece_*, brier_*: external patients where there are any; auc_test_*, accuracy_*:
all hospitals' validation patients in one table; auc_external_alone: mean over the hospitals. time_to_99_s:
virtual seconds of training. bytes_sent_total: of payloads that members fetched from each other;
bytes_float32_total: of the same as bare float32; bytes_traffic_total: with records and everything else."""
WHOLE: Final = ("bytes_sent_total", "bytes_float32_total", "bytes_traffic_total")
LARGEST: Final = ("rounds_to_99_worst", "time_to_99_worst_s")


def failures(variant: VariantRuns, main: VariantRuns | None = None) -> tuple[str, ...]:
    """What one variant does not hold: the round protocol in every seed, quality on average.

    main: the scenario itself, for what a variant must hold beside it.
    """
    lines = [
        f"{variant.name}, seed {run.seed}: {line}"
        for run in variant.runs
        for check in CHECKS
        if check is not check_worth_it
        for line in check(run.outcome, variant.spec.targets)
    ]
    quality = _quality(variant, main or variant)
    return (*lines, *(f"{variant.name}: {line}" for line in quality))


def _quality(variant: VariantRuns, main: VariantRuns) -> Iterator[str]:
    targets: Targets = variant.spec.targets
    mean = variant.mean
    bounds: list[tuple[str, str, float | None]] = [
        ("auc_swarm", ">=", _plus(mean("auc_alone"), targets.auc_over_alone_min)),
        ("auc_swarm", ">=", _plus(mean("auc_pooled"), -targets.auc_under_pooled_max)),
        ("auc_test_swarm", ">=", targets.auc_min),
        ("accuracy_swarm", ">=", targets.accuracy_min),
        ("rounds_to_99", "<=", targets.rounds_to_99_max),
        ("rounds_to_99_worst", "<=", targets.rounds_to_99_worst_max),
        *beside_main(variant, main),
    ]
    if targets.external_over_alone_min is not None:
        bound = _plus(mean("auc_external_alone"), targets.external_over_alone_min)
        bounds.append(("auc_external_swarm", ">=", bound))
    if targets.external_under_pooled_max is not None:
        bound = _plus(mean("auc_external_pooled"), -targets.external_under_pooled_max)
        bounds.append(("auc_external_swarm", ">=", bound))
    for name, sign, wanted in bounds:
        if wanted is None:
            continue
        value = mean(name)
        if value is None:
            yield f"{name}: undefined, or never reached in some seed; need {sign} {wanted:.4f}"
        elif (value < wanted - EPSILON) if sign == ">=" else (value > wanted + EPSILON):
            yield f"{name}: {value:.4f} over {len(variant.runs)} seeds; need {sign} {wanted:.4f}"


def beside_main(variant: VariantRuns, main: VariantRuns) -> list[tuple[str, str, float | None]]:
    """Bounds that follow from what the scenario itself reached, and from float32."""
    targets, bounds = variant.spec.targets, list[tuple[str, str, float | None]]()
    if targets.external_under_main_max is not None:
        least = _plus(main.mean("auc_external_swarm"), -targets.external_under_main_max)
        bounds.append(("auc_external_swarm", ">=", least))
    if targets.sooner_than_main_min is not None:
        slow = main.mean("time_to_99_s")
        most = None if slow is None else slow / targets.sooner_than_main_min
        bounds.append(("time_to_99_s", "<=", most))
    if targets.calibration_of_main_max is not None:
        gap = main.calibration_gap
        most = None if gap is None else gap * targets.calibration_of_main_max
        bounds.append((GAP, "<=", most))
    if targets.auc_off_main_max is not None:
        auc = main.mean("auc_swarm")
        bounds.append(("auc_swarm", ">=", _plus(auc, -targets.auc_off_main_max)))
        bounds.append(("auc_swarm", "<=", _plus(auc, targets.auc_off_main_max)))
    if targets.bytes_fewer_min is not None:
        whole = variant.mean("bytes_float32_total")
        most = None if whole is None else whole / targets.bytes_fewer_min
        bounds.append(("bytes_sent_total", "<=", most))
    return bounds


def _plus(value: float | None, margin: float) -> float | None:
    return None if value is None else value + margin


def to_json(study: Study) -> dict[str, Any]:
    """Build the object that `--json` writes: as for one run, with means over seeds and variants."""
    main = study.main
    first = outcome_json(main.runs[0].outcome)
    return {
        **first,
        "wall_s": round(study.wall_s, 3),
        "rounds_agreed": min(run.outcome.rounds_agreed for run in main.runs),
        "seeds": [run.seed for run in main.runs],
        "interval": METHOD,
        **variant_json(main),
        "members": members_json(main),
        "variants": [
            {"name": one.name, **variant_json(one, main), "members": members_json(one)}
            for one in study.variants
        ],
        "failures": list(study.failures),
    }


def variant_json(variant: VariantRuns, main: VariantRuns | None = None) -> dict[str, Any]:
    """Every measure of a variant: mean, interval, per seed."""
    fields: dict[str, Any] = {}
    intervals = {}
    for name in MEASURES:
        found = variant.interval(name)
        value = None if found is None else found.value
        if found is not None and name in LARGEST:
            value = max(found.values)
        fields[name] = round(value) if name in WHOLE and value is not None else value
        if found is not None:
            intervals[name] = {"low": found.low, "high": found.high, "per_seed": list(found.values)}
    return {
        **fields,
        GAP: variant.calibration_gap,
        "rounds": variant.spec.rounds,
        "model": variant.spec.model,
        "intervals": intervals,
        "verdicts": [run.outcome.ledger.verdict for run in variant.runs],
        "result_digests_by_seed": [
            [hospital.result_digest for hospital in run.outcome.hospitals] for run in variant.runs
        ],
        "failures": list(failures(variant, main)),
    }


def members_json(variant: VariantRuns) -> list[dict[str, Any]]:
    """Per hospital: means over seeds; weights and samples are the first seed's."""
    rows = []
    for at, hospital in enumerate(variant.runs[0].outcome.hospitals):
        seeds = [run.outcome.hospitals[at] for run in variant.runs]
        swarm = over_seeds([_auc(one, "swarm") for one in seeds])
        alone = [run.external.alone[at].auc for run in variant.runs if run.external is not None]
        low, high = (None, None) if swarm is None else (swarm.low, swarm.high)
        if swarm is not None and len(seeds) == 1 and hospital.swarm.auc is not None:
            low, high = hospital.swarm.auc.low, hospital.swarm.auc.high
        rows.append(
            {
                "name": hospital.name,
                "auc_alone": _mean([_auc(one, "alone") for one in seeds]),
                "auc_swarm": None if swarm is None else swarm.value,
                "auc_pooled": _mean([_auc(one, "pooled") for one in seeds]),
                "auc_swarm_low": low,
                "auc_swarm_high": high,
                "auc_external_alone": _mean(alone) if alone else None,
                "samples": hospital.samples,
                "weight_micro": hospital.weight_micro,
                "bytes_sent": round(fmean(one.bytes_sent for one in seeds)),
                "bytes_received": round(fmean(one.bytes_received for one in seeds)),
            }
        )
    return rows


def _auc(hospital: HospitalOutcome, name: str) -> float | None:
    level = getattr(hospital, name).auc
    return None if level is None else float(level.value)


def _mean(values: list[float | None]) -> float | None:
    found = over_seeds(values)
    return None if found is None else found.value
