"""The agreed model as a file, and its measurement on other rows.

Room: node. Law: a file that leaves the site says which round and digest it is, who made it and for
which federation; it holds parameters and the federation's moments, nothing of a patient. Reads the
store and the payloads of a node that may be running, and never writes there.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from errno import ENOSPC
from pathlib import Path
from typing import Any, Final

from ledger.canonical import UINT_MAX
from ledger.charter import Charter
from ledger.errors import ConfigError, PeerError, StoreError, UnavailableError
from ledger.record import MetricId, MetricValue, Rule, open_record
from ledger.roster_store import load_roster
from ledger.store import Store
from node.config import SiteConfig, load_site_charter
from node.identity import load_identity, own_place
from node.software import software_version
from swarm.protocol.book import Agreed, RoundBook
from swarm.protocol.payload import payload_digest
from swarm.protocol.round import MOMENTS_ROUND
from swarm.protocol.stopping import Stopping

FORMAT: Final = "swarm-model/1"
MICRO: Final = 1_000_000
EVALUATION_SEED: Final = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Participant:
    """A member whose update is in the model."""

    name: str
    weight_micro: int
    samples: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelMetadata:
    """What an exported model says of itself."""

    federation: str
    charter_digest: str
    round: int
    digest: str
    participants: tuple[Participant, ...]
    voters: tuple[str, ...]
    """Members that published this very result."""
    model: str
    software: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"format": FORMAT, **asdict(self)}

    def to_strings(self) -> dict[str, str]:
        """As safetensors keeps them: text by text; lists as JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in self.to_json().items()
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One metric with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float

    @property
    def is_bound(self) -> bool:
        """Whether the value stands for everything above what a record's integers hold."""
        return self.value >= UINT_MAX / MICRO

    @classmethod
    def of(cls, metric: MetricValue) -> "Measured":
        """Turn millionths into numbers."""
        return cls(
            name=MetricId(metric.metric).name.lower(),
            value=metric.micro / MICRO,
            low=metric.low_micro / MICRO,
            high=metric.high_micro / MICRO,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """How a model does on some rows."""

    rows: int
    round: int
    digest: str
    metrics: tuple[Measured, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, metrics by name."""
        metrics = {m.name: {"value": m.value, "low": m.low, "high": m.high} for m in self.metrics}
        return {"rows": self.rows, "round": self.round, "digest": self.digest, "metrics": metrics}


def export_model(config: SiteConfig, file: Path) -> ModelMetadata:
    """Write the released model to ``file`` (safetensors): the newest agreed, or the best by patience.

    What stays at home (personalisation) is not in it. Of several models (ifca) it is the one that
    suits this site's training rows best.
    Raises ConfigError (has not run, nothing agreed) and UnavailableError (the payload is not here).
    """
    from safetensors.numpy import save

    charter = load_site_charter(config)
    book = read_book(config, charter)
    own = own_place(book.roster, load_identity(config.paths)).author
    agreed = released_model(charter, book, own)
    state = read_payload(config, agreed.proposal.result, agreed.round)
    moments = _summed(config, charter, book)
    several = charter.aggregation.strategy == "ifca"
    tensors = (_of_this_site if several else _of_all)(config, charter, state, moments)
    metadata = _metadata(charter, book, agreed)
    _write(file, save(tensors, metadata.to_strings()))
    return metadata


def _summed(config: SiteConfig, charter: Charter, book: RoundBook) -> bytes | None:
    """Payload of what round zero came to, where the charter has one."""
    from swarm.learning.fits import has_round_zero

    if not has_round_zero(charter):
        return None
    summed = book.agreed(MOMENTS_ROUND)
    if summed is None:
        raise ConfigError("the federation's sums of round zero are not agreed yet")
    return read_payload(config, summed.proposal.result, MOMENTS_ROUND)


def _of_all(
    config: SiteConfig, charter: Charter, state: bytes, moments: bytes | None
) -> dict[str, Any]:
    """Tensors of the one model of all, without a look at any rows."""
    from swarm.learning.layouts import layout_of
    from swarm.learning.models import build_model
    from swarm.learning.payload import decode_moments, decode_vector
    from swarm.learning.preprocessing import feature_names
    from swarm.learning.round_zero import RoundZero
    from swarm.learning.snapshot import to_tensors
    from swarm.learning.strategy import strategy_of
    from swarm.learning.task import outputs

    module = build_model(
        charter.model,
        inputs=len(feature_names(charter.schema)),
        outputs=outputs(charter.schema),
        seed=charter.seed,
        allow=config.allow,
    )
    layout, strategy = layout_of(charter, module), strategy_of(charter)
    vector = decode_vector(state, layout.digest, strategy.state_vectors * layout.count)
    zero = RoundZero.of(charter)
    sums = None if moments is None else decode_moments(moments, zero.digest, len(zero.columns))
    return to_tensors(strategy.parameters(vector), layout, sums)


def _of_this_site(
    config: SiteConfig, charter: Charter, state: bytes, moments: bytes | None
) -> dict[str, Any]:
    """Tensors of the model that this site chooses by its training rows."""
    from node.data import load_site_data
    from swarm.learning.task import LearningTask

    own = load_site_data(
        config.data, charter.schema, directory=config.directory, allow=config.allow
    )
    task: LearningTask = LearningTask(
        charter, own, allow=config.allow, seed=EVALUATION_SEED, threads=config.run.threads
    )
    if moments is not None:
        task.set_moments(moments)
    return task.own_tensors(state)


def evaluate_model(config: SiteConfig, file: Path, sources: Sequence[str]) -> Evaluation:
    """Measure an exported model on the rows of ``sources``, which no site trained on.

    Raises ConfigError in one line: another federation's model, a damaged file, unfit rows.
    """
    from node.data import DataConfig, load_all_rows, load_site_data
    from swarm.learning.task import LearningTask

    charter = load_site_charter(config)
    if not charter.schema.features:
        raise ConfigError(
            "model evaluate needs a table: this charter's data are own Python data sets"
        )
    if charter.personalisation.mode == "fedbn":
        raise ConfigError(
            "model evaluate cannot measure this model: its batch norm layers stay at each site "
            "(personalisation.mode is fedbn) and are not in the file"
        )
    tensors, metadata = _read(file, charter)
    table = load_all_rows(
        DataConfig(
            source=tuple(str(Path(source).absolute()) for source in sources),
            label=config.data.label,
            features=config.data.features,
            group=config.data.group,
        ),
        charter.schema,
        directory=Path.cwd(),
    )
    own = load_site_data(
        config.data, charter.schema, directory=config.directory, allow=config.allow
    )
    task: LearningTask = LearningTask(
        charter, own, allow=config.allow, seed=EVALUATION_SEED, threads=config.run.threads
    )
    try:
        model = task.from_tensors(tensors)
    except PeerError as error:
        raise ConfigError(f"{file.name}: {error}") from error
    return Evaluation(
        rows=table.rows,
        round=int(metadata["round"]),
        digest=metadata["digest"],
        metrics=tuple(map(Measured.of, task.evaluate_on(model, table))),
    )


def read_book(config: SiteConfig, charter: Charter) -> RoundBook:
    """Verify every stored record and fold it into what the rounds agreed on."""
    if not config.paths.ledger.exists():
        raise ConfigError(f"{config.paths.ledger} does not exist: this site has not run yet")
    with Store.open(config.paths.ledger, read_only=True) as store:
        book = RoundBook(load_roster(store, charter), is_gossip=charter.aggregation.is_gossip)
        for signed in store.records():
            book.learn(open_record(signed, roster=book.roster))
    return book


def released_model(charter: Charter, book: RoundBook, own: int) -> Agreed:
    """Return what is handed out: with `stopping.patience` the best round so far, else the newest model."""
    stopping = Stopping(book, charter.stopping, rounds=charter.rounds.rounds)
    best = stopping.released() if charter.stopping.patience else None
    return best or newest_model(book, own)


def newest_model(book: RoundBook, own: int | None = None) -> Agreed:
    """Return the newest agreed round whose result is a model (round zero agrees on moments).

    Where sites average with their neighbours nothing is agreed: then the newest merge of ``own``.
    """
    merge = book.latest_merge(own) if book.is_gossip and own is not None else None
    if merge is not None and own is not None:
        return Agreed(merge[0], merge[1], (own,))
    for round_ in reversed(book.agreed_rounds()):
        agreed = book.agreed(round_)
        if agreed is not None and agreed.proposal.rule != Rule.MOMENTS:
            return agreed
    raise ConfigError("no round is agreed yet: see `swarm-node status`")


def read_payload(config: SiteConfig, digest: bytes, round_: int) -> bytes:
    """Read a payload beside a running node: BlobStore tidies up when it opens, this only looks."""
    for path in config.paths.blobs.glob(f"{digest.hex()}.*"):
        if path.suffix[1:].isdecimal():
            payload = path.read_bytes()
            if payload_digest(int(path.suffix[1:]), payload) == digest:
                return payload
    raise UnavailableError(
        f"the result of round {round_} is not stored here: let the node run until it has caught up"
    )


def _metadata(charter: Charter, book: RoundBook, agreed: Agreed) -> ModelMetadata:
    offers = book.offers(agreed.round)
    return ModelMetadata(
        federation=charter.federation,
        charter_digest=charter.digest_hex,
        round=agreed.round,
        digest=agreed.proposal.result.hex(),
        participants=tuple(
            Participant(
                name=book.roster.member(one.author).name,
                weight_micro=one.weight_micro,
                samples=offers[one.author].samples if one.author in offers else None,
            )
            for one in agreed.proposal.inputs
        ),
        voters=tuple(book.roster.member(author).name for author in agreed.voters),
        model=charter.model.name,
        software=f"swarm-node {software_version()}",
    )


def _write(file: Path, data: bytes) -> None:
    """Write all or nothing."""
    if file.is_dir():
        raise ConfigError(
            f"{file} is a folder: name a file in it, like {file / 'model.safetensors'}"
        )
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        partial.write_bytes(data)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        problem = f"{file} cannot be written: {error.strerror}"
        raise (StoreError if error.errno == ENOSPC else ConfigError)(problem) from error


def _read(file: Path, charter: Charter) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ConfigError(f"{file} does not exist: write it with `swarm-node model export {file}`")
    try:
        with safe_open(file, framework="np") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file} is not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT or not metadata.get("round", "").isdecimal():
        raise ConfigError(f"{file} was not written by `swarm-node model export`")
    if metadata.get("charter_digest") != charter.digest_hex:
        raise ConfigError(
            f'{file} is of federation "{metadata.get("federation")}" with another charter: '
            "use the site.toml of that federation"
        )
    return tensors, metadata
