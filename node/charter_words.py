"""A charter in words: who takes part, what it takes to agree, what is trained.

Room: node. Law: says what the numbers mean for the people who sign it, above all what few members
cannot tolerate. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ledger.charter import AggregationPolicy, Charter, Member, ModelSpec, Schema
from ledger.roster import Roster
from node.learning_words import describe_learning


@dataclass(frozen=True, slots=True)
class Chapter:
    """One heading and its lines."""

    heading: str
    lines: tuple[str, ...]


def describe(charter: Charter, roster: Roster | None = None) -> list[Chapter]:
    """Return the charter as short chapters of plain text.

    roster: the one in force, where members have joined, left or changed keys since the charter.
    """
    if roster is None:
        roster = Roster.from_charter(charter)
    since = f", as roster {roster.version} has them" if roster.version else ""
    return [
        Chapter(f"Members{since}", tuple(map(_member, roster.active)) or ("none yet",)),
        Chapter("Agreement", tuple(_agreement(roster, is_gossip=charter.aggregation.is_gossip))),
        Chapter("Data", tuple(_data(charter.schema))),
        Chapter("Model", (_model(charter),)),
        Chapter("Training", (_training(charter),)),
        Chapter("Rounds", tuple(_rounds(charter, roster))),
        Chapter("Averaging and privacy", tuple(_averaging(charter, roster.n))),
    ]


def parameter_count(spec: ModelSpec, schema: Schema) -> int | None:
    """Count what is averaged, for the built-in models; None for a hospital's own."""
    inputs, outputs = columns(schema), len(schema.classes) if schema.head == "multiclass" else 1
    hidden = spec.arguments.get("hidden", (16,))
    if spec.name == "logistic":
        widths = [inputs, outputs]
    elif spec.name == "mlp" and isinstance(hidden, tuple):
        widths = [inputs, *(width for width in hidden if isinstance(width, int)), outputs]
    else:
        return None
    linear = sum((before + 1) * after for before, after in pairwise(widths))
    # Batch norm: scale, shift, and the running mean and variance, which are averaged too.
    return linear + (4 * sum(widths[1:-1]) if spec.arguments.get("batch_norm") else 0)


def columns(schema: Schema) -> int:
    """Width of the model's input: one per number and per category, plus missing indicators."""
    width = sum(len(feature.categories) or 1 for feature in schema.features)
    return width + (len(schema.features) if schema.missing_indicator else 0)


def plural(count: int, noun: str) -> str:
    """Return ``1 member``, ``2 members``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _member(member: Member) -> str:
    where = ", ".join(member.addresses) or "no address: it dials the others"
    return f"{member.index}  {member.name} ({member.role})  {where}"


def _agreement(roster: Roster, *, is_gossip: bool = False) -> list[str]:
    n, f, q = roster.n, roster.f, roster.q
    if n == 0:
        return ["no members yet: add their blocks with `swarm-node charter add`"]
    if is_gossip:
        return [
            (
                f"n = {n}, f = {f}, q = {q}: no model is agreed; every site has its own. {q} of {n} agree on "
                "the means and spreads (round 0), on checkpoints and on roster changes."
            ),
            "A neighbour that lies reaches the models of its neighbours, and through them all others.",
        ]
    lines = [
        (
            f"n = {n}, f = {f}, q = {q}: a round is agreed when {q} of {n} publish the same result, "
            f"bit for bit."
        ),
        f"{plural(n - q, 'member')} may be away and rounds are still agreed.",
    ]
    if f == 0:
        lines.append(
            f"With n = {n} no liar is tolerated: one member that cheats cannot be outvoted for "
            "certain. Four members tolerate one."
        )
    else:
        lines.append(f"Up to {plural(f, 'member')} may lie or fail in any way without harm.")
    return lines


def _data(schema: Schema) -> list[str]:
    target = "" if schema.head == "regression" else f" ({' / '.join(schema.classes)})"
    lines = [f'{schema.head}: predict "{schema.label}"{target}; reports lead with {schema.metric}']
    if not schema.features:
        return [*lines, "features: each site's own Python data source"]
    lines.append(
        f"{plural(len(schema.features), 'feature')} in {plural(columns(schema), 'column')}, "
        f"standardised {schema.standardise if schema.standardise != 'none' else 'not at all'}"
    )
    for feature in schema.features:
        if feature.type == "category":
            kind = "one of " + ", ".join(feature.categories)
        elif feature.minimum is None and feature.maximum is None:
            kind = "number"
        else:
            low = "" if feature.minimum is None else f" from {feature.minimum:g}"
            high = "" if feature.maximum is None else f" to {feature.maximum:g}"
            kind = f"number{low}{high}"
        lines.append(f"  {feature.name}: {kind}")
    return lines


def _model(charter: Charter) -> str:
    arguments = ", ".join(
        f"{key} {_plain(value)}" for key, value in charter.model.arguments.items()
    )
    count = parameter_count(charter.model, charter.schema)
    size = f": {plural(count, 'parameter')}" if count and charter.schema.features else ""
    return charter.model.name + (f" ({arguments})" if arguments else "") + size


def _training(charter: Charter) -> str:
    policy = charter.training
    work = (
        plural(policy.local_steps, "step")
        if policy.local_steps
        else f"{policy.local_epochs} x over the own data"
    )
    return (
        f"{work} per round, batches of {policy.batch_size}, {policy.optimiser} at learning rate "
        f"{policy.learning_rate:g}"
        + (f", weight decay {policy.weight_decay:g}" if policy.weight_decay else "")
        + (f", momentum {policy.momentum:g}" if policy.momentum else "")
        + (", each class of a site weighs the same" if policy.class_weights == "balanced" else "")
        + (
            ", each class of all sites weighs the same"
            if policy.class_weights == "federated"
            else ""
        )
    )


def _rounds(charter: Charter, roster: Roster) -> list[str]:
    policy = charter.rounds
    lines = [
        (
            f"{plural(policy.rounds, 'round')}, each with at least "
            f"{plural(policy.members_min, 'member')}"
        ),
        (
            f"slow sites are waited for between {duration(policy.deadline_min_s)} and "
            f"{duration(policy.deadline_max_s)} ({policy.deadline_factor:g} times the recent median)"
        ),
        (
            f"a site silent for {plural(policy.inactive_after_rounds, 'round')} is no longer waited "
            "for; it may come back at any time"
        ),
        _late(charter),
    ]
    if policy.newcomers == "contribution_first":
        lines.append("who joins later gets the model once it has contributed")
    names = {member.name for member in roster.active}
    required = [name for name in policy.required if name in names]
    if required:
        lines.append("the run fails without " + ", ".join(required))
    return lines


def _late(charter: Charter) -> str:
    rounds, exponent = charter.rounds.staleness_max, charter.aggregation.staleness_exponent
    if not rounds:
        return "an update that comes late is left out"
    less = f", for 1/(1 + rounds late)^{exponent:g} of its weight" if exponent else ""
    return f"an update up to {plural(rounds, 'round')} late still counts{less}"


def _averaging(charter: Charter, members: int) -> list[str]:
    policy = charter.aggregation
    weights = "every site weighs the same"
    if policy.weighting == "samples":
        weights = "sites weigh by their number of patients"
    cap = f", none above {policy.share_cap:.0%}" if policy.share_cap < 1 else ""
    counts = "exactly" if charter.privacy.sample_count == "exact" else "as a lower power of two"
    return [
        *describe_learning(charter, members),
        f"{weights}{cap}",
        *_neighbours(policy),
        (
            f"the ledger shows every site's number of patients {counts}; "
            "updates are seen by all members and by nobody else"
        ),
    ]


def _neighbours(policy: AggregationPolicy) -> list[str]:
    if not policy.is_gossip:
        return []
    drawn = policy.topology in ("random_regular", "epidemic")
    degree = f", {policy.degree} each" if drawn else ""
    pace = "waits for nobody else"
    if policy.is_buffered:
        pace = f"goes on as soon as {policy.buffer} of them have sent something new"
    return [
        (
            f"each site averages with its neighbours only ({policy.topology}{degree}) and {pace}: "
            "models differ a little, and no result is agreed"
        ),
    ]


def duration(seconds: float) -> str:
    """Spell seconds as a person would."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}" if (seconds * 10) % size == 0 else f"{seconds:g} s"
    return f"{seconds:g} s"


def _plain(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "-".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
