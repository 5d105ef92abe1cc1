"""What a charter says, as plain values. Room: ledger. Spec: docs/ledger.md §3.

How the file is read: charter.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, Union

from .topology import Topology

GENESIS_DOMAIN: Final = b"swarm-ledger/genesis/v1\n"
STRATEGIES: Final = (
    "fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad", "diloco", "per_fedavg", "ifca",
)  # fmt: skip
STATELESS_STRATEGIES: Final = ("fedavg", "fedprox", "per_fedavg")
"""Their merged updates are the next model, whatever model the round started from."""
RULES: Final = (
    "mean", "norm_clipped_mean", "trimmed_mean", "median", "geometric_median", "krum", "multi_krum",
    "centered_clipping",
)  # fmt: skip
CODECS: Final = ("float32", "float16", "int8", "int4", "ternary", "sign", "top_k", "top_k_int8")
PERSONALISATIONS: Final = ("none", "intercept", "fine_tune", "fedbn", "ditto")
TomlValue: TypeAlias = Union[str, int, float, bool, "tuple[TomlValue, ...]"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One hospital. ``index`` is its author number: its position in the file, never reused."""

    index: int
    name: str
    role: str
    ledger_key: bytes
    witness_key: bytes
    admin_key: bytes
    network_key: bytes
    addresses: tuple[str, ...]  # multiaddr text; none = this member only dials

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """Its four keys."""
        return self.ledger_key, self.witness_key, self.admin_key, self.network_key


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What is trained: a built-in name or ``python:package.module:Class``, and its arguments."""

    name: str
    arguments: Mapping[str, TomlValue]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input column. Bounds are for numbers, categories for categories."""

    name: str
    type: str  # "number" | "category"
    minimum: float | None
    maximum: float | None
    categories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What a table must look like. No features: the hospital's own Python data source."""

    label: str
    head: str  # "binary" | "multiclass" | "regression"
    classes: tuple[str, ...]  # the first is the negative one
    features: tuple[Feature, ...]
    standardise: str  # "federated" | "local" | "none"
    missing_indicator: bool
    metric: str
    subgroups: tuple[Subgroup, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Training:
    """How each member trains in one round."""

    optimiser: str  # "sgd" | "adam" | "adamw"
    learning_rate: float  # lower it when the loss jumps
    weight_decay: float
    momentum: float  # of sgd
    batch_size: int
    local_steps: int  # exactly one of steps and epochs is above 0
    local_epochs: int
    class_weights: str  # "none" | "balanced": of the site's own rows | "federated": of all sites'
    loss: str  # "auto"
    proximal_mu: float = 0.0  # of "fedprox" and "ditto": pull towards the round's model; 0 = off
    trained: tuple[str, ...] = ()  # patterns of the tensors that are trained and sent; () = all


@dataclass(frozen=True, kw_only=True)
class RoundPolicy:
    """When a round closes."""

    rounds: int
    members_min: int  # raise it to refuse thin rounds, lower it to survive more absences
    deadline_min_s: float
    deadline_max_s: float
    deadline_factor: float  # times the recent median
    grace_s: float
    start_wait_s: float
    inactive_after_rounds: int
    staleness_max: int  # rounds that an update may be late and still count; 0 = none
    newcomers: str  # "model_first" | "contribution_first"
    required: tuple[str, ...]  # names without which the run fails loudly
    payload_bytes_max: int


@dataclass(frozen=True, kw_only=True)
class AggregationPolicy:
    """How updates become one model."""

    strategy: str  # one of STRATEGIES
    server_rate: (
        float  # of the outer step; 0 = the strategy's usual; lower it when the model swings
    )
    clusters: int  # of "ifca": how many models
    rule: str  # one of RULES
    neighbour_mixing: bool  # nearest-neighbour mixing before a robust rule
    liars_share: float  # how large a part of the members a robust rule withstands, below a half
    codec: str  # one of CODECS: how updates are written
    keep_share: float  # of top-k codecs: which part of the values is sent
    averaging: str  # "full" | "gossip": with neighbours only, no agreement
    topology: str  # of gossip: one of ledger.topology.TOPOLOGIES
    degree: int  # neighbours in "random_regular" and "epidemic"; raise it to mix faster
    edges: tuple[tuple[str, str], ...]  # of "edges": pairs of names
    buffer: (
        int  # of gossip: merge as soon as so many new updates are here; 0 = wait a grace for all
    )
    weighting: str  # "samples" | "uniform"
    share_cap: float  # largest share of one member; 1 = off
    staleness_exponent: float  # a late update weighs (1 + rounds late)^-a; 0, 0.5, 1, 1.5 or 2

    @property
    def liars_share_micro(self) -> int:
        """The share in millionths: nearest integer, halves to even."""
        return round(self.liars_share * 1_000_000)

    @property
    def keep_share_micro(self) -> int:
        """The share in millionths: nearest integer, halves to even."""
        return round(self.keep_share * 1_000_000)

    @property
    def needs_base(self) -> bool:
        """Whether a merge starts from the round's base: all but the plain mean of whole models."""
        plain = self.strategy in STATELESS_STRATEGIES, self.rule == "mean", self.codec == "float32"
        return not all(plain)

    @property
    def is_gossip(self) -> bool:
        """Whether everybody averages with neighbours, and rounds above 0 are agreed by nobody."""
        return self.averaging == "gossip"

    @property
    def is_buffered(self) -> bool:
        """Whether nobody waits for any one neighbour, and each update is merged once at most."""
        return self.buffer > 0

    @property
    def staleness_halves(self) -> int:
        """Twice the exponent: a whole number."""
        return int(2 * self.staleness_exponent)

    @property
    def share_cap_micro(self) -> int:
        """The cap in millionths: nearest integer, halves to even."""
        return round(self.share_cap * 1_000_000)


@dataclass(frozen=True, kw_only=True)
class Personalisation:
    """What a hospital keeps to itself on top of the shared model."""

    mode: str  # one of PERSONALISATIONS
    steps: int  # of "fine_tune" (at most) and "ditto" (each round)
    learning_rate: float  # of those steps


@dataclass(frozen=True, kw_only=True)
class StoppingPolicy:
    """When training ends before its last round, and which round's model is released."""

    patience: int  # rounds without a better validation loss; 0 = never, the last model is released
    delta_min: float  # how much lower a loss must be to count as better


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """Patients of whom metrics are reported apart: by a category, or by bands of a number."""

    column: str
    edges: tuple[float, ...]  # of a number: bands (-inf, e0), [e0, e1) … ; () = each category


@dataclass(frozen=True, kw_only=True)
class PrivacyPolicy:
    """What a record tells about the data."""

    sample_count: str  # "exact" | "bucket": lower bound of a power-of-two bucket
    group_count_min: int  # metrics of fewer patients (or cases, or non-cases) are not published


@dataclass(frozen=True, kw_only=True)
class ReputationPolicy:
    """How contributions are scored and what follows from it; it never removes anybody."""

    mode: str  # "off" | "score": evaluate, reveal, replay | "weigh": also bound the weights
    evaluators_max: int  # above so many members evaluators are drawn from the ledger
    sketch_dimensions: int  # of the seeded projection that each update is published as
    weight_floor: float  # least factor on a member's weight under "weigh"
    weight_ceiling: float  # largest factor
    access_floor: float  # below this reputation, 0 to 1, a member gets no newer model; 0 = off


@dataclass(frozen=True, kw_only=True)
class Charter:
    """The whole file. ``source_bytes`` are what was hashed."""

    version: int
    federation: str
    seed: int
    members: tuple[Member, ...]
    model: ModelSpec
    schema: Schema
    training: Training
    rounds: RoundPolicy
    aggregation: AggregationPolicy
    personalisation: Personalisation
    stopping: StoppingPolicy
    privacy: PrivacyPolicy
    reputation: ReputationPolicy
    source_bytes: bytes

    @property
    def net(self) -> bytes:
        """The network's 32-byte name."""
        return charter_net(self.source_bytes)

    @property
    def topology(self) -> Topology | None:
        """The graph of gossip averaging; None where everybody averages with everybody."""
        policy = self.aggregation
        if not policy.is_gossip:
            return None
        places = {member.name: member.index for member in self.members}
        return Topology(
            name=policy.topology,
            net=self.net,
            degree=policy.degree,
            edges=tuple((places[one], places[other]) for one, other in policy.edges),
        )

    @property
    def digest_hex(self) -> str:
        """The same as 64 hex digits: what the members read to each other over the phone."""
        return self.net.hex()


def charter_net(data: bytes) -> bytes:
    """Return the SHA-256 of the genesis domain and the file."""
    return hashlib.sha256(GENESIS_DOMAIN + data).digest()
