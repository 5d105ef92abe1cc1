"""What strategies and personal models reach on the four UCI heart hospitals, one process, no network.

    SWARM_DATA=path/to/data python benchmarks/bench_strategies.py [--splits 12]

Each line: sample-weighted mean of the hospitals' validation AUC and log loss after 20 rounds of 10 steps,
over so many random splits, and the difference from FedAvg with its standard error over the splits. A
hospital's validation rows are some 60 patients: one split says little. docs/learning.md §12 holds figures.
"""

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np

from ledger.charter import Charter, load_charter
from ledger.record import MetricId
from node.data import DataConfig, load_site_data
from swarm.learning.dataset import SiteData, count_rows
from swarm.learning.task import LearningTask
from swarm.learning.training_state import Arrays

HOSPITALS = {"cleveland": (), "hungarian": (), "switzerland": ("chol",), "va": ()}
CATEGORIES = {"cp": "1234", "restecg": "012", "slope": "123", "thal": "367"}
COLUMNS = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
]
QUERY = """SELECT * EXCLUDE target REPLACE (nullif(trestbps, 0) AS trestbps, nullif(chol, 0) AS chol),
  CAST(target > 0 AS INTEGER) AS disease FROM '{}.csv'"""
ROUNDS = 20
LOGISTIC = 'name = "logistic"'
NETWORK = 'name = "mlp"\narguments = { hidden = [16], batch_norm = true }'
# line: (model, training, aggregation, personalisation); each model's first line is what it is held against
LINES = {
    "fedavg": (LOGISTIC, "", "", ""),
    "fedprox, mu 0.1": (LOGISTIC, "proximal_mu = 0.1", 'strategy = "fedprox"', ""),
    "scaffold": (LOGISTIC, "", 'strategy = "scaffold"', ""),
    "fedadam": (LOGISTIC, "", 'strategy = "fedadam"', ""),
    "fedyogi": (LOGISTIC, "", 'strategy = "fedyogi"', ""),
    "fedadagrad": (LOGISTIC, "", 'strategy = "fedadagrad"', ""),
    "diloco": (LOGISTIC, "", 'strategy = "diloco"', ""),
    "per_fedavg, inner 0.1": (LOGISTIC, "", 'strategy = "per_fedavg"', "learning_rate = 0.1"),
    "ifca, 2 models": (LOGISTIC, "", 'strategy = "ifca"', ""),
    "fedavg + intercept": (LOGISTIC, "", "", 'mode = "intercept"'),
    "fedavg + fine-tuning, 20 steps": (LOGISTIC, "", "", 'mode = "fine_tune"\nlearning_rate = 0.05'),
    "fedavg + ditto, mu 0.1": (LOGISTIC, "proximal_mu = 0.1", "", 'mode = "ditto"\nlearning_rate = 0.05'),
    "class weights federated": (LOGISTIC, 'class_weights = "federated"', "", ""),
    "mlp 16 with batch norm": (NETWORK, "", "", ""),
    "the same + fedbn": (NETWORK, "", "", 'mode = "fedbn"'),
}  # fmt: skip


def charter_of(model: str, training: str, aggregation: str, personalisation: str) -> Charter:
    """Return the federation's charter, without members."""
    features = "".join(
        f'[[data.features]]\nname = "{name}"\n'
        + (
            f'type = "category"\ncategories = {list(CATEGORIES[name])}\n'
            if name in CATEGORIES
            else 'type = "number"\n'
        )
        for name in COLUMNS
    )
    text = (
        f'version = 1\nfederation = "heart"\n[model]\n{model}\n'
        '[data]\nlabel = "disease"\nhead = "binary"\nclasses = ["0", "1"]\n'
        f"{features}[training]\nlearning_rate = 0.1\nlocal_steps = 10\n{training}\n"
        f"[aggregation]\n{aggregation}\n[personalisation]\n{personalisation}\n"
        f"[rounds]\nrounds = {ROUNDS}\n"
    )
    return load_charter(text.encode(), complete=False)


def sites_of(folder: Path, charter: Charter, split: int) -> list[SiteData]:
    """Load the four hospitals, split in a way of its own."""
    return [
        load_site_data(
            DataConfig(query=QUERY.format(name), split_seed=split, absent=absent),
            charter.schema, directory=folder, allow=(),
        )
        for name, absent in HOSPITALS.items()
    ]  # fmt: skip


def run(charter: Charter, sites: list[SiteData]) -> tuple[float, float]:
    """Return AUC and log loss of the sites' own models after all rounds, weighted by patients."""
    tasks = [
        LearningTask(charter, site, allow=(), seed=at, threads=1) for at, site in enumerate(sites)
    ]
    sums = [(bytes([at]), task.local_moments()) for at, task in enumerate(tasks)]
    for task in tasks:
        task.set_moments(tasks[0].merge_moments(sums))
    total = sum(task.samples for task in tasks)
    model = tasks[0].initial()
    memories: list[Arrays] = [{} for _ in tasks]
    for number in range(1, ROUNDS + 1):
        done = [task.train(model, number, own) for task, own in zip(tasks, memories, strict=True)]
        memories = [one.memory for one in done]
        inputs = [
            (hashlib.sha256(one.payload).digest(), one.payload, one.samples * 1_000_000 // total)
            for one in done
        ]
        model = tasks[0].merge(inputs, model)
    rows = [count_rows(site.validation) for site in sites]
    found = [
        {v.metric: v.micro / 1e6 for v in task.evaluate(model, own)}
        for task, own in zip(tasks, memories, strict=True)
    ]
    auc, loss = (
        float(np.average([values[metric] for values in found], weights=rows))
        for metric in (MetricId.AUC, MetricId.LOG_LOSS)
    )
    return auc, loss


def main() -> None:
    """Print one line for each way to learn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=12)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SWARM_DATA", ".")))
    given = parser.parse_args()
    plain: dict[str, np.ndarray] = {}
    for name, choices in LINES.items():
        charter = charter_of(*choices)
        found = np.array(
            [
                run(charter, sites_of(given.data / "heart", charter, split))
                for split in range(given.splits)
            ]
        )
        change = found - plain.setdefault(choices[0], found)
        error = change.std(axis=0, ddof=1) / given.splits**0.5
        auc, loss = found.mean(axis=0)
        print(
            f"{name:>32}: AUC {auc:.4f} ({change[:, 0].mean():+.4f} ± {error[0]:.4f}), "
            f"log loss {loss:.4f} ({change[:, 1].mean():+.4f} ± {error[1]:.4f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
