"""Writing a charter: from a draft to commented text, and members' blocks added to it.

Room: node. Law: whatever is written here is read back by ledger.charter before anyone sees it; the
defaults come from there, so this module knows when to change a setting but never its value.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ledger.charter import Charter, Feature, Schema, load_charter
from ledger.charter_types import CODECS, PERSONALISATIONS, RULES, STRATEGIES
from ledger.errors import ConfigError
from ledger.topology import TOPOLOGIES
from node.config import parse_toml

DRAFT: Final = "draft"
MEMBER_FIELDS: Final = (
    "name", "role", "addresses", "ledger_key", "witness_key", "admin_key", "network_key",
)  # fmt: skip
SETTABLE: Final = (
    "seed",
    "model",
    "data",
    "training",
    "rounds",
    "aggregation",
    "personalisation",
    "stopping",
    "privacy",
    "reputation",
)

WHEN: Final[Mapping[str, str]] = {
    "version": "Layout of this file.",
    "federation": "Any other federation needs another name.",
    "seed": "Draws the starting model. Any number; the same for all.",
    "model": '"logistic", "mlp", "cnn", or "python:package.module:Class" (each site must allow the package).',
    "data": "What every site's table must hold. Nothing outside these lists is accepted.",
    "data.label": "The column to predict.",
    "data.head": '"binary", "multiclass" or "regression".',
    "data.classes": "Values of the label; the first is the negative one.",
    "data.standardise": '"federated": by the counts, means and squares of all sites; '
    '"local": by each site\'s own; "none".',
    "data.missing_indicator": "true adds a column per feature that says where a value was missing.",
    "data.metric": "What the reports lead with.",
    "training": "How each site trains in one round.",
    "training.optimiser": '"sgd", "adam" or "adamw".',
    "training.learning_rate": "Lower it when the loss jumps, raise it when it hardly moves.",
    "training.weight_decay": "Raise it when training fits better than validation.",
    "training.momentum": "Of sgd; 0.9 speeds up long training.",
    "training.batch_size": "Raise it for steadier steps, lower it for small sites.",
    "training.local_steps": "Steps per round; exactly one of steps and epochs is above 0.",
    "training.local_epochs": "Passes over the own data per round. Lower it when sites differ much.",
    "training.class_weights": '"balanced" when one class is rare at a site, "federated" by all sites\' counts.',
    "training.loss": '"auto" follows from the head.',
    "training.proximal_mu": 'Of "fedprox" and "ditto": raise it when sites drift apart.',
    "training.trained": 'Patterns of the tensors that are trained and sent, like ["*lora*"]; none: all.',
    "rounds": "When a round closes.",
    "rounds.rounds": "Raise it while validation still improves.",
    "rounds.members_min": "Fewest sites in a round. Raise it to refuse thin rounds.",
    "rounds.deadline_min_s": "Shortest wait for slow sites.",
    "rounds.deadline_max_s": "Longest wait for slow sites. Raise it above the slowest site's training.",
    "rounds.deadline_factor": "Wait this many times the recent median round.",
    "rounds.grace_s": "Patience with the site whose turn it is to propose.",
    "rounds.start_wait_s": "How long the first round waits for everybody to arrive.",
    "rounds.inactive_after_rounds": "Silent for so many rounds: no longer waited for.",
    "rounds.staleness_max": "An update so many rounds late still counts, for less; 0 = not at all.",
    "rounds.newcomers": '"model_first": who joins later starts from the agreed model; '
    '"contribution_first": gets it once it has contributed.',
    "rounds.required": "Names without which a run fails instead of succeeding without them.",
    "rounds.payload_bytes_max": "Largest update that is accepted; above 4 bytes a parameter.",
    "aggregation": "How the sites' updates become one model.",
    "aggregation.strategy": ", ".join(f'"{one}"' for one in STRATEGIES)
    + ": docs/learning.md says when.",
    "aggregation.server_rate": "Of the outer step; 0 = the usual. Lower it when the model swings from round to round.",
    "aggregation.clusters": 'Of "ifca": how many models.',
    "aggregation.rule": '"mean", or one that withstands liars: ' + ", ".join(RULES[1:]) + ".",
    "aggregation.neighbour_mixing": "true mixes each update with its nearest ones before a robust rule.",
    "aggregation.liars_share": "Part of the members that a robust rule withstands.",
    "aggregation.codec": "How updates are written: "
    + ", ".join(f'"{one}"' for one in CODECS)
    + ".",
    "aggregation.keep_share": 'Of "top_k…": part of the values that is sent.',
    "aggregation.averaging": '"full": everybody merges all updates and a quorum agrees; "gossip": each '
    "site merges with its neighbours and waits for nobody else (above about 30 sites).",
    "aggregation.topology": "Of gossip, who is whose neighbour: "
    + ", ".join(f'"{one}"' for one in TOPOLOGIES)
    + ".",
    "aggregation.degree": 'Neighbours in "random_regular" and "epidemic", even. Raise it to mix faster.',
    "aggregation.edges": 'Of "edges": pairs of names that must join all members.',
    "aggregation.buffer": "Of gossip: merge as soon as so many neighbours have sent something new, "
    "waiting for none in particular; 0 = wait a grace for all of them. Raise it if models drift apart.",
    "aggregation.weighting": '"samples": by number of patients; "uniform": every site alike.',
    "aggregation.share_cap": "Largest share of one site; 1 = no cap. Lower it if one site dominates.",
    "aggregation.staleness_exponent": "An update that is k rounds late weighs (1 + k)^-a. "
    "Raise it if late updates hold the model back.",
    "personalisation": "What each site keeps to itself on top of the shared model.",
    "personalisation.mode": ", ".join(f'"{one}"' for one in PERSONALISATIONS) + ".",
    "personalisation.steps": 'Of "fine_tune" (at most) and "ditto" (each round).',
    "personalisation.learning_rate": 'Of those steps, and of the inner step of "per_fedavg".',
    "stopping": "When training ends before its last round, and whose model is released.",
    "stopping.patience": "Rounds without a better validation loss; 0 = never, the last model is released.",
    "stopping.delta_min": "How much lower a loss must be to count as better.",
    "privacy": "What the ledger tells about the data.",
    "privacy.sample_count": '"exact", or "bucket" for the lower power of two.',
    "privacy.group_count_min": "Metrics of fewer patients, cases or non-cases are not published.",
    "reputation": "Who contributes: scores that every member and auditor can recompute. Never removes anybody.",
    "reputation.mode": '"off"; "score": evaluate and reveal; "weigh": scores also bound the weights.',
    "reputation.evaluators_max": "Above so many members evaluators are drawn from the ledger.",
    "reputation.sketch_dimensions": "Length of the projection of each update on the ledger.",
    "reputation.weight_floor": 'Least factor on a member\'s weight under "weigh".',
    "reputation.weight_ceiling": "Largest factor.",
    "reputation.access_floor": "Below this reputation, 0 to 1, a member gets no newer model; 0 = off.",
}
"""Comments of the charter; every key that ledger.charter knows must be here (a test looks)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CharterDraft:
    """What a federation must decide; everything else has a default."""

    federation: str
    model: str
    model_arguments: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any]
    """The [data] table: label, head, classes, features …"""
    rounds: int
    data_comments: Sequence[str] = ()
    """Lines above [data] for whoever reviews an inferred schema."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """``training.learning_rate`` → value, laid over the defaults."""


def schema_table(schema: Schema) -> dict[str, Any]:
    """Turn an inferred schema into a [data] table."""
    features = [_feature_table(feature) for feature in schema.features]
    table = {key: value for key, value in asdict(schema).items() if key != "features"}
    return {**table, "features": features}


def assemble(draft: CharterDraft) -> str:
    """Return commented charter text without members. Raises ConfigError if the draft is not sound."""
    document: dict[str, Any] = {
        "version": 1,
        "federation": draft.federation,
        "model": {"name": draft.model, "arguments": dict(draft.model_arguments)},
        "data": dict(draft.data),
        "rounds": {"rounds": draft.rounds},
    }
    for key, value in draft.settings.items():
        _lay_over(document, key, value)
    charter = load_charter(_plain_toml(document).encode(), complete=False, file=DRAFT)
    text = _write(charter, draft.data_comments)
    load_charter(text.encode(), complete=False, file=DRAFT)
    return text


def check_model(text: str) -> None:
    """Raise ConfigError unless the charter's model can be built: its name, its arguments.

    A hospital's own class is only looked at: it loads where a site allows it. Choices that do not go
    together are refused too.
    """
    from swarm.learning.fits import check_fits
    from swarm.learning.own_code import PYTHON, split_reference

    charter = load_charter(text.encode(), complete=False, file=DRAFT)
    check_fits(charter, file=DRAFT)
    if charter.model.name.startswith(PYTHON):
        split_reference(charter.model.name, key="model.name")
        return
    from swarm.learning.models import build_model
    from swarm.learning.preprocessing import feature_names
    from swarm.learning.task import outputs

    build_model(
        charter.model,
        inputs=len(feature_names(charter.schema)),
        outputs=outputs(charter.schema),
        seed=charter.seed,
        allow=(),
    )


def append_members(
    before: bytes, blocks: Sequence[tuple[Path, bytes]], *, file: str
) -> tuple[str, Charter]:
    """Add the [[members]] of ``blocks`` to a charter; return the new text and what it says.

    Raises ConfigError naming the block's file: not a member block, or a name or key that is taken.
    """
    charter = load_charter(before, complete=False, file=file)
    text = before.decode()
    for path, data in blocks:
        members = parse_toml(data, path).get("members")
        if not isinstance(members, list) or not members or not _all_tables(members):
            raise ConfigError(f"{path}: no [[members]] block: send the member.toml that init wrote")
        for member in members:
            text = text.rstrip("\n") + "\n\n" + member_block(member)
            try:
                charter = load_charter(text.encode(), complete=False, file=file)
            except ConfigError as error:
                raise ConfigError(
                    f"{path}: {_without_file(error, file)}{_known_name(charter, member)}"
                ) from error
    return text, charter


def member_block(member: Mapping[str, Any]) -> str:
    """Write one [[members]] block in the usual order; unknown keys stay, for the reader to refuse."""
    keys = [key for key in MEMBER_FIELDS if key in member]
    keys += [key for key in member if key not in MEMBER_FIELDS]
    return "[[members]]\n" + "".join(f"{key_toml(key)} = {to_toml(member[key])}\n" for key in keys)


def group_digest(digest_hex: str) -> list[str]:
    """Cut a digest into four lines of four groups, to be read out over the phone."""
    groups = re.findall("....", digest_hex)
    return [" ".join(groups[at : at + 4]) for at in range(0, len(groups), 4)]


def parse_assignment(option: str, text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is TOML, or plain text where it is not."""
    key, equals, typed = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{option} {text}: write it as key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {typed}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), typed.strip()


def to_toml(value: Any) -> str:
    """Spell a value as TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return "[" + ", ".join(to_toml(item) for item in value) + "]"
        case dict():
            inner = ", ".join(f"{key_toml(key)} = {to_toml(item)}" for key, item in value.items())
            return "{ " + inner + " }"
        case _:
            return repr(value) if isinstance(value, int | float) else str(value)


def key_toml(key: str) -> str:
    """Spell a key, in quotes where it needs them."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else to_toml(key)


def _lay_over(document: dict[str, Any], key: str, value: Any) -> None:
    table, _, name = key.rpartition(".")
    if key.partition(".")[0] not in SETTABLE:
        raise ConfigError(f"--set {key}: no such table: known are {', '.join(SETTABLE)}")
    place = document
    for part in table.split(".") if table else ():
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: {part} is not a table")
        place = inner
    place[name] = value
    if key == "training.local_steps" and value:
        place.setdefault("local_epochs", 0)


def _plain_toml(document: Mapping[str, Any]) -> str:
    top = [f"{key_toml(k)} = {to_toml(v)}" for k, v in document.items() if not isinstance(v, dict)]
    for name, table in document.items():
        if isinstance(table, dict):
            top.append(f"[{name}]")
            top += [f"{key_toml(k)} = {to_toml(v)}" for k, v in table.items() if v is not None]
    return "\n".join(top) + "\n"


def _write(charter: Charter, data_comments: Sequence[str]) -> str:
    lines = [
        f"# Charter of the federation {to_toml(charter.federation)}.",
        "# Its exact bytes are the federation's identity: change one, and it is another federation.",
        "# Agree on it, then compare `swarm-node charter digest` by phone.",
        *_line("version", "version", charter.version),
        *_line("federation", "federation", charter.federation),
        *_line("seed", "seed", charter.seed),
        *_table("model"),
        f"name = {to_toml(charter.model.name)}",
    ]
    if charter.model.arguments:
        lines += ["", "[model.arguments]"]
        lines += [f"{key} = {to_toml(value)}" for key, value in charter.model.arguments.items()]
    tables = ("features", "subgroups")
    schema = {key: value for key, value in asdict(charter.schema).items() if key not in tables}
    lines += _policy("data", schema)
    lines += [""] * bool(data_comments) + [f"# {comment}" for comment in data_comments]
    for feature in charter.schema.features:
        lines += ["", "[[data.features]]"]
        lines += [f"{key} = {to_toml(value)}" for key, value in _feature_table(feature).items()]
    for group in charter.schema.subgroups:
        lines += ["", "[[data.subgroups]]", f"column = {to_toml(group.column)}"]
        lines += [f"edges = {to_toml(list(group.edges))}"] * bool(group.edges)
    lines += _policy("training", asdict(charter.training))
    lines += _policy("rounds", asdict(charter.rounds))
    lines += _policy("aggregation", asdict(charter.aggregation))
    lines += _policy("personalisation", asdict(charter.personalisation))
    lines += _policy("stopping", asdict(charter.stopping))
    lines += _policy("privacy", asdict(charter.privacy))
    lines += _policy("reputation", asdict(charter.reputation))
    lines += ["", "# The members, in the order of their author numbers: only ever add at the end."]
    return "\n".join(lines) + "\n"


def _table(name: str) -> list[str]:
    return ["", *([f"# {WHEN[name]}"] if WHEN[name] else []), f"[{name}]"]


def _policy(name: str, values: Mapping[str, Any]) -> list[str]:
    lines = _table(name)
    for key, value in values.items():
        lines += _line(f"{name}.{key}", key, value)[1:]
    return lines


def _line(comment: str, key: str, value: Any) -> list[str]:
    return ["", *([f"# {WHEN[comment]}"] if comment else []), f"{key} = {to_toml(value)}"]


def _feature_table(feature: Feature) -> dict[str, Any]:
    table: dict[str, Any] = {"name": feature.name, "type": feature.type}
    if feature.minimum is not None:
        table["minimum"] = feature.minimum
    if feature.maximum is not None:
        table["maximum"] = feature.maximum
    if feature.categories:
        table["categories"] = list(feature.categories)
    return table


def _all_tables(members: Sequence[object]) -> bool:
    return all(isinstance(member, dict) for member in members)


def _without_file(error: ConfigError, file: str) -> str:
    return str(error).removeprefix(f"{file}: ")


def _known_name(charter: Charter, member: Mapping[str, Any]) -> str:
    names = [known.name for known in charter.members]
    if member.get("name") in names:
        return "; to correct a member, first remove its old [[members]] block"
    return ""
