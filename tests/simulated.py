"""A small swarm for tests: real patients that scikit-learn carries, real keys, a real charter."""

from pathlib import Path
from string import ascii_lowercase

import numpy as np
from sklearn.datasets import load_breast_cancer

from ledger.charter import Charter, load_charter
from ledger.keys import Signer, derive
from node.identity import Identity
from scenarios.simulator import SimulatedSite, identity_of
from swarm.learning.dataset import SiteData, Table
from swarm.learning.seeding import derive_seed
from swarm.learning.task import LearningTask

SHARES = (10, 4, 2, 1)
FEATURES = 8


def member_toml(name: str, identity: Identity, address: str = "") -> str:
    admin = Signer(derive(identity.seed, "admin")).public_key.hex()
    return (
        f'[[members]]\nname = "{name}"\nrole = "hospital"\n'
        f'ledger_key = "{identity.ledger().public_key.hex()}"\n'
        f'witness_key = "{identity.witness().public_key.hex()}"\n'
        f'admin_key = "{admin}"\nnetwork_key = "{identity.network_key.hex()}"\n'
        f"addresses = [{address}]\n"
    )


def charter_of(
    identities: list[Identity],
    *,
    rounds: int = 3,
    aggregation: str = "",
    training: str = "",
    model: str = 'name = "logistic"',
    **settings: object,
) -> Charter:
    policy = {
        "rounds": rounds,
        "members_min": 2,
        "deadline_min_s": 5.0,
        "deadline_max_s": 60.0,
        "grace_s": 3.0,
        "start_wait_s": 30.0,
    } | settings
    features = "".join(
        f'[[data.features]]\nname = "x{i}"\ntype = "number"\n' for i in range(FEATURES)
    )
    text = (
        'version = 1\nfederation = "simulated"\nseed = 7\n[model]\n'
        f"{model}\n"
        '[data]\nlabel = "malignant"\nhead = "binary"\nclasses = ["0", "1"]\n'
        'standardise = "federated"\n'
        + features
        + (f"[aggregation]\n{aggregation}\n" if aggregation else "")
        + f"[training]\nlearning_rate = 0.5\nlocal_steps = 5\n{training}\n[rounds]\n"
        + "".join(f"{key} = {value}\n" for key, value in policy.items())
        + "".join(
            member_toml(f"hospital-{ascii_lowercase[i]}", one) for i, one in enumerate(identities)
        )
    )
    return load_charter(text.encode())


def patients(count: int) -> list[SiteData]:
    """Cut the cases into very unequal parts, 30 % of each for validation."""
    cases = load_breast_cancer()
    order = np.random.default_rng(3).permutation(len(cases.target))
    shares = np.array((SHARES * count)[:count], dtype=float)
    cuts = (np.cumsum(shares) / shares.sum() * len(order)).astype(int)[:-1]
    return [
        SiteData(
            train=_table(cases, part[: -len(part) * 3 // 10]),
            validation=_table(cases, part[-len(part) * 3 // 10 :]),
        )
        for part in np.split(order, cuts)
    ]


def _table(cases: object, rows: np.ndarray) -> Table:
    data, target = cases.data[rows], 1 - cases.target[rows]  # type: ignore[attr-defined]
    return Table(
        columns={f"x{i}": data[:, i].astype(np.float64) for i in range(FEATURES)},
        labels=target.astype(np.int64),
    )


def swarm_of(count: int, *, seed: int = 1, **policy: object) -> tuple[Charter, list[SimulatedSite]]:
    identities = [identity_of(seed, index) for index in range(count)]
    charter = charter_of(identities, **policy)
    data = patients(count)

    def learner(index: int) -> LearningTask:
        site_seed = derive_seed("site", charter.seed, index)
        return LearningTask(charter, data[index], allow=(), seed=site_seed, threads=1)

    sites = [
        SimulatedSite(identity=one, learner=lambda index=index: learner(index))
        for index, one in enumerate(identities)
    ]
    return charter, sites


def fresh(path: Path) -> Path:
    path.mkdir()
    return path
