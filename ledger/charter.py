"""The charter: the genesis file of a federation. Room: ledger. Spec: docs/ledger.md §3.

The exact bytes are the identity of the network: same file, same network. What it says is read
strictly; every error is one line that names the key and what to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from .charter_types import (
    CODECS,
    PERSONALISATIONS,
    RULES,
    STRATEGIES,
    AggregationPolicy,
    Charter,
    Feature,
    Member,
    ModelSpec,
    Personalisation,
    PrivacyPolicy,
    ReputationPolicy,
    RoundPolicy,
    Schema,
    StoppingPolicy,
    Subgroup,
    TomlValue,
    Training,
    charter_net,
)
from .errors import ConfigError, VerificationError
from .keys import check_public_key
from .toml_strict import CharterError, Table, parse_toml
from .topology import DEGREE_MIN, TOPOLOGIES

__all__ = [
    "CHARTER_BYTES_MAX", "MEMBERS_MAX", "AggregationPolicy", "Charter", "CharterError",
    "ConfigError", "Feature", "Member", "ModelSpec", "Personalisation", "PrivacyPolicy",
    "ReputationPolicy", "RoundPolicy", "Schema", "StoppingPolicy", "Subgroup", "TomlValue", "Training",
    "charter_net", "load_charter", "load_members",
]  # fmt: skip

CHARTER_BYTES_MAX: Final = 1 << 20
STALENESS_MAX: Final = 100  # rounds
EDGES_MAX: Final = 4_096
TOPOLOGY: Final = "static_exponential"
DEGREE: Final = 4
MEMBERS_MAX: Final = 256  # so that an aggregation with every ack fits into one record
GROUP_COUNT_MIN: Final = 10  # patients
SUBGROUPS_MAX: Final = 16
SUBGROUP_PARTS_MAX: Final = 64
"""Of all subgroups together: their metrics and the acks of 256 members fit into one record."""
CLUSTERS_MAX: Final = 16
EVALUATORS_MAX: Final = 15
SKETCH_DIMENSIONS: Final = 256
METRICS_OF_HEAD: Final[Mapping[str, tuple[str, ...]]] = {
    "binary": ("auc", "log_loss", "accuracy", "brier", "macro_f1"),
    "multiclass": ("macro_f1", "log_loss", "accuracy", "auc"),
    "regression": ("mse", "mae"),
}


def load_charter(data: bytes, *, complete: bool = True, file: str = "charter.toml") -> Charter:
    """Read the bytes of a charter file.

    ``complete=False`` reads one that is still being assembled: members, and what refers to them,
    may be missing. Raises CharterError (a ConfigError): one line.
    """
    top = Table(parse_toml(data, file=file, bytes_max=CHARTER_BYTES_MAX), where="", file=file)
    top.integer("version", 1, 1)
    federation = top.name("federation")
    seed = top.integer("seed", 0, 2**53 - 1, 0)
    model = _model(top.table("model", required=True))
    schema = _schema(top.table("data", required=True))
    training = _training(top.table("training"))
    rounds_table = top.table("rounds", required=True)
    aggregation_table = top.table("aggregation")
    aggregation = _aggregation(aggregation_table)
    privacy_table = top.table("privacy")
    privacy = PrivacyPolicy(
        sample_count=privacy_table.choice("sample_count", ("exact", "bucket"), "exact"),
        group_count_min=privacy_table.integer("group_count_min", 1, 1_000_000, GROUP_COUNT_MIN),
    )
    privacy_table.done()
    personalisation = _personalisation(top.table("personalisation"))
    stopping = _stopping(top.table("stopping"))
    reputation = _reputation(top.table("reputation"))
    members = _members(top.tables("members", count_max=MEMBERS_MAX))
    if complete and not members:
        raise top.fail("members", "are missing; add one [[members]] block for each hospital")
    names = [member.name for member in members]
    rounds = _rounds(rounds_table, names, complete=complete)
    if aggregation.is_gossip and stopping.patience:
        raise aggregation_table.fail(
            "averaging", 'is "gossip", where no round is agreed: stopping.patience must be 0'
        )
    if aggregation.is_gossip:
        _check_gossip(aggregation_table, aggregation, rounds, names if complete else None)
    top.done()
    return Charter(
        version=1, federation=federation, seed=seed, members=members, model=model, schema=schema,
        training=training, rounds=rounds, aggregation=aggregation,
        personalisation=personalisation, stopping=stopping, privacy=privacy, reputation=reputation,
        source_bytes=bytes(data),
    )  # fmt: skip


def load_members(data: bytes, *, file: str = "member.toml") -> tuple[Member, ...]:
    """Read a file of [[members]] blocks alone, numbered from 0. Raises CharterError: one line."""
    top = Table(parse_toml(data, file=file, bytes_max=CHARTER_BYTES_MAX), where="", file=file)
    members = _members(top.tables("members", count_max=MEMBERS_MAX))
    top.done()
    return members


def _model(table: Table) -> ModelSpec:
    name = table.name("name", chars_max=256)
    free = table.table("arguments")
    arguments = {key: _argument(free, key, value) for key, value in free.rest().items()}
    table.done()
    return ModelSpec(name=name, arguments=MappingProxyType(arguments))


def _argument(table: Table, key: str, value: Any, nesting_left: int = 4) -> TomlValue:
    if not key.isidentifier() or len(key) > 64:
        raise table.fail(repr(key), "must be a name of letters, digits and _")
    if isinstance(value, list) and nesting_left and len(value) <= 1_024:
        return tuple(_argument(table, key, one, nesting_left - 1) for one in value)
    if isinstance(value, float) and value - value != 0:
        raise table.fail(key, "must be finite")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise table.fail(key, "must fit into 64 bits")
    if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 4_096):
        return value
    raise table.fail(key, "must be a string, number, boolean or a short array of these")


def _schema(table: Table) -> Schema:
    head = table.choice("head", tuple(METRICS_OF_HEAD))
    classes = table.names("classes", () if head == "regression" else [], count_max=1_024)
    wanted = {"binary": (2, 2), "multiclass": (3, 1_024), "regression": (0, 0)}[head]
    if not wanted[0] <= len(classes) <= wanted[1]:
        how_many = {"binary": "2", "multiclass": "3 or more", "regression": "no"}[head]
        raise table.fail("classes", f'must hold {how_many} names for head = "{head}"')
    metrics = METRICS_OF_HEAD[head]
    features = tuple(map(_feature, table.tables("features", count_max=4_096)))
    names = [feature.name for feature in features]
    label = table.name("label")
    for position, name in enumerate(names):
        if name in names[:position] or name == label:
            raise table.fail("features", f'name "{name}" twice; each name once, and not the label')
    schema = Schema(
        label=label,
        head=head,
        classes=classes,
        features=features,
        standardise=table.choice("standardise", ("federated", "local", "none"), "federated"),
        missing_indicator=table.boolean("missing_indicator", False),
        metric=table.choice("metric", metrics, metrics[0]),
        subgroups=tuple(map(_subgroup, table.tables("subgroups", count_max=SUBGROUPS_MAX))),
    )
    kinds = {feature.name: feature.type for feature in features}
    categories = {feature.name: len(feature.categories) for feature in features}
    parts = 0
    for group in schema.subgroups:
        if group.column not in kinds:
            raise table.fail("subgroups", f'column "{group.column}" is none of the features')
        if (kinds[group.column] == "number") != bool(group.edges):
            raise table.fail(
                "subgroups", f'edges of "{group.column}": needed for a number, none for a category'
            )
        parts += len(group.edges) + 1 if group.edges else categories[group.column]
    if parts > SUBGROUP_PARTS_MAX:
        raise table.fail("subgroups", f"have {parts} parts together, at most {SUBGROUP_PARTS_MAX}")
    table.done()
    return schema


def _feature(table: Table) -> Feature:
    name = table.name("name")
    kind = table.choice("type", ("number", "category"))
    minimum, maximum = table.bound("minimum"), table.bound("maximum")
    categories = table.names("categories", ())
    if kind == "number" and categories:
        raise table.fail("categories", 'must be absent for type = "number"')
    if kind == "category" and not (categories and minimum is None and maximum is None):
        raise table.fail("categories", 'must be named for type = "category", and no bounds')
    if minimum is not None and maximum is not None and not minimum < maximum:
        raise table.fail("minimum", f"must be below maximum, got {minimum:g} and {maximum:g}")
    table.done()
    return Feature(name=name, type=kind, minimum=minimum, maximum=maximum, categories=categories)


def _training(table: Table) -> Training:
    local_steps = table.integer("local_steps", 0, 10_000_000, 0)
    local_epochs = table.integer("local_epochs", 0, 10_000, 0 if local_steps else 1)
    if bool(local_steps) == bool(local_epochs):
        raise table.fail("local_steps", "or local_epochs must be above 0, exactly one of them")
    training = Training(
        optimiser=table.choice("optimiser", ("sgd", "adam", "adamw"), "sgd"),
        learning_rate=table.number("learning_rate", 0, 1_000, 0.1, above=True),
        weight_decay=table.number("weight_decay", 0, 1_000, 0.0),
        momentum=table.number("momentum", 0, 0.9999, 0.0),
        batch_size=table.integer("batch_size", 1, 1_000_000, 32),
        local_steps=local_steps,
        local_epochs=local_epochs,
        class_weights=table.choice("class_weights", ("none", "balanced", "federated"), "none"),
        loss=table.choice("loss", ("auto",), "auto"),
        proximal_mu=table.number("proximal_mu", 0, 1_000, 0.0),
        trained=table.names("trained", (), count_max=1_024, chars_max=256),
    )
    table.done()
    return training


def _rounds(table: Table, names: list[str], *, complete: bool) -> RoundPolicy:
    rounds = table.integer("rounds", 1, 100_000)
    most = len(names) if complete else MEMBERS_MAX
    members_min = table.integer("members_min", 1, most, min(2, most))
    deadline_min_s = table.number("deadline_min_s", 0, 1e7, 30.0, above=True)
    deadline_max_s = table.number(
        "deadline_max_s", 0, 1e7, max(3_600.0, deadline_min_s), above=True
    )
    if deadline_min_s > deadline_max_s:
        raise table.fail("deadline_min_s", "must be at most deadline_max_s")
    required = table.names("required", ())
    for name in required:
        if complete and name not in names:
            raise table.fail("required", f'names "{name}", who is no member')
    policy = RoundPolicy(
        rounds=rounds,
        members_min=members_min,
        deadline_min_s=deadline_min_s,
        deadline_max_s=deadline_max_s,
        deadline_factor=table.number("deadline_factor", 1, 1_000, 3.0),
        grace_s=table.number("grace_s", 0, 1e6, 10.0),
        start_wait_s=table.number("start_wait_s", 0, 1e7, 300.0),
        inactive_after_rounds=table.integer("inactive_after_rounds", 1, 100_000, 3),
        staleness_max=table.integer("staleness_max", 0, STALENESS_MAX, 2),
        newcomers=table.choice("newcomers", ("model_first", "contribution_first"), "model_first"),
        required=required,
        payload_bytes_max=table.integer("payload_bytes_max", 1, 2**40, 2**28),
    )
    table.done()
    return policy


def _aggregation(table: Table) -> AggregationPolicy:
    exponent = table.number("staleness_exponent", 0, 2, 0.5)
    if not (2 * exponent).is_integer():
        raise table.fail("staleness_exponent", f"must be 0, 0.5, 1, 1.5 or 2, got {exponent:g}")
    policy = AggregationPolicy(
        strategy=table.choice("strategy", STRATEGIES, "fedavg"),
        server_rate=table.number("server_rate", 0, 1_000, 0.0),
        clusters=table.integer("clusters", 2, CLUSTERS_MAX, 2),
        rule=table.choice("rule", RULES, "mean"),
        neighbour_mixing=table.boolean("neighbour_mixing", False),
        liars_share=table.number("liars_share", 0, 0.499_999, 0.2),
        codec=table.choice("codec", CODECS, "float32"),
        keep_share=table.number("keep_share", 0.000_001, 1, 0.01),
        averaging=table.choice("averaging", ("full", "gossip"), "full"),
        topology=table.choice("topology", TOPOLOGIES, TOPOLOGY),
        degree=table.integer("degree", DEGREE_MIN, MEMBERS_MAX, DEGREE),
        edges=table.pairs("edges", count_max=EDGES_MAX),
        buffer=table.integer("buffer", 0, MEMBERS_MAX, 0),
        weighting=table.choice("weighting", ("samples", "uniform"), "samples"),
        share_cap=table.number("share_cap", 0.000_001, 1, 1.0),
        staleness_exponent=exponent,
    )
    table.done()
    graph = (policy.topology, policy.degree, policy.edges, policy.buffer)
    if not policy.is_gossip and graph != (TOPOLOGY, DEGREE, (), 0):
        raise table.fail(
            "topology", 'degree, edges and buffer are for averaging = "gossip"; leave them out'
        )
    return policy


def _personalisation(table: Table) -> Personalisation:
    chosen = Personalisation(
        mode=table.choice("mode", PERSONALISATIONS, "none"),
        steps=table.integer("steps", 1, 10_000, 20),
        learning_rate=table.number("learning_rate", 0, 1_000, 0.01, above=True),
    )
    table.done()
    return chosen


def _stopping(table: Table) -> StoppingPolicy:
    policy = StoppingPolicy(
        patience=table.integer("patience", 0, 100_000, 0),
        delta_min=table.number("delta_min", 0, 1_000, 0.0),
    )
    table.done()
    return policy


def _reputation(table: Table) -> ReputationPolicy:
    policy = ReputationPolicy(
        mode=table.choice("mode", ("off", "score", "weigh"), "off"),
        evaluators_max=table.integer("evaluators_max", 3, MEMBERS_MAX, EVALUATORS_MAX),
        sketch_dimensions=table.integer("sketch_dimensions", 16, 4_096, SKETCH_DIMENSIONS),
        weight_floor=table.number("weight_floor", 0.01, 1, 0.5),
        weight_ceiling=table.number("weight_ceiling", 1, 100, 1.5),
        access_floor=table.number("access_floor", 0, 1, 0.0),
    )
    table.done()
    return policy


def _subgroup(table: Table) -> Subgroup:
    group = Subgroup(column=table.name("column"), edges=table.numbers("edges", count_max=16))
    if list(group.edges) != sorted(set(group.edges)):
        raise table.fail("edges", "must ascend")
    table.done()
    return group


def _check_gossip(
    table: Table, policy: AggregationPolicy, rounds: RoundPolicy, names: list[str] | None
) -> None:
    """Refuse what averaging with neighbours cannot keep, and graphs that do not join all members.

    names: of the members; None while the charter is still being assembled.
    """
    if rounds.required:
        raise table.fail(
            "averaging", 'is "gossip", where nobody waits for all: rounds.required must be empty'
        )
    if policy.is_buffered and policy.needs_base:
        raise table.fail(
            "buffer", "needs the mean of whole models: no other rule, strategy or codec"
        )
    if policy.degree % 2:
        raise table.fail("degree", f"must be even, got {policy.degree}")
    if bool(policy.edges) != (policy.topology == "edges"):
        raise table.fail("edges", 'are for topology = "edges", and only there needed')
    if policy.topology != "edges" or names is None:
        return
    strangers = [name for pair in policy.edges for name in pair if name not in names]
    if strangers:
        raise table.fail("edges", f'name "{strangers[0]}", who is no member')
    reached, missing = {names[0]}, True
    while missing:
        near = {one for pair in policy.edges for one in pair if reached.intersection(pair)}
        missing = bool(near - reached)
        reached |= near
    alone = [name for name in names if name not in reached]
    if alone:
        raise table.fail("edges", f'do not join "{alone[0]}" with "{names[0]}"; add an edge')


_KEYS: Final = ("ledger_key", "witness_key", "admin_key", "network_key")


def _members(tables: list[Table]) -> tuple[Member, ...]:
    members: list[Member] = []
    names: dict[str, int] = {}
    owners: dict[bytes, str] = {}
    for index, table in enumerate(tables):
        name = table.name("name")
        # Two spellings that a reader takes for one name are one name.
        other = names.setdefault(" ".join(name.casefold().split()), index)
        if other != index:
            raise table.fail("name", f'"{name}" is member {other}\'s too', code="E_ROSTER_DUP")
        keys = {purpose: table.key_bytes(purpose) for purpose in _KEYS}
        for purpose, key in keys.items():
            try:
                check_public_key(key)
            except VerificationError as error:
                raise table.fail(purpose, f"is a weak key: {error}", code=error.code) from None
            owner = owners.setdefault(key, f"member {index}'s {purpose}")
            if owner != f"member {index}'s {purpose}":
                raise table.fail(
                    purpose, f"is {owner} too; every key has one use", code="E_KEY_REUSE"
                )
        addresses = table.names("addresses", (), count_max=16, chars_max=512)
        for address in addresses:
            if not address.startswith("/"):
                raise table.fail("addresses", f'must start with "/", got "{address}"')
        role = table.name("role", "hospital", chars_max=32)
        table.done()
        members.append(Member(index=index, name=name, role=role, addresses=addresses, **keys))
    return tuple(members)
