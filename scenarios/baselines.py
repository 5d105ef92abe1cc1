"""What the swarm is measured against: each hospital alone, and all patients in one place.

Room: scenarios. Law: trained from the seeds of the sites' own nodes: the same patients, batches and resamples.
"""

from collections.abc import Iterable, Sequence

from ledger.charter import Charter
from ledger.record import MetricId, MetricValue
from scenarios.outcome import Level, Measured
from swarm.learning.baselines import Baseline, train_alone, train_pooled
from swarm.learning.dataset import SiteData
from swarm.learning.metrics import MICRO
from swarm.learning.seeding import derive_seed


def train_baselines(
    charter: Charter, data: Sequence[SiteData], *, allow: Sequence[str], patience: int
) -> tuple[list[Baseline], Baseline]:
    """Train each hospital alone, and all together in one place."""
    alone = [
        train_alone(
            charter, one, allow=allow, seed=derive_seed("site", charter.seed, at), patience=patience
        )
        for at, one in enumerate(data)
    ]
    seed = derive_seed("pooled", charter.seed)
    return alone, train_pooled(charter, data, allow=allow, seed=seed, patience=patience)


def level_of(values: Iterable[MetricValue]) -> Level:
    """Pick AUC and log-loss."""
    found = {
        value.metric: Measured(
            value=value.micro / MICRO,
            low=value.low_micro / MICRO,
            high=value.high_micro / MICRO,
            count=value.count,
        )
        for value in values
    }
    return Level(auc=found.get(MetricId.AUC), loss=found.get(MetricId.LOG_LOSS))
