"""One site's learning: the only object of this room that a node talks to. Bytes in, bytes out.

Room: learning. Law: pure computation. Everything follows from the charter, the site's data, the
seed and the arguments, so a node that restarts asks again and gets the same bytes.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ledger.charter import Charter, Schema
from ledger.errors import ConfigError
from ledger.record import Codec, GroupValue, MetricValue, Reason
from swarm.learning import metrics, snapshot
from swarm.learning.aggregation import Vector
from swarm.learning.batches import Batches, MatrixBatches, SetBatches
from swarm.learning.dataset import SiteData, Split, Table, count_rows
from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.merging import Merger
from swarm.learning.models import build_model
from swarm.learning.moments import (
    Matrix,
    Moments,
    Standardiser,
    columns_digest,
    local_moments,
    merge_moments,
)
from swarm.learning.own_code import PYTHON
from swarm.learning.parameters import Layout, distance, flatten, load
from swarm.learning.payload import (
    PayloadError,
    decode_moments,
    encode_moments,
)
from swarm.learning.preprocessing import Preprocessor, feature_names, observed_matrix
from swarm.learning.seeding import derive_seed, torch_seed, torch_threads
from swarm.learning.subgroups import evaluate_groups
from swarm.learning.trained import Trained
from swarm.learning.training import predict
from swarm.learning.training_state import NO_MEMORY, Arrays, Keeper, StateError, part_of, together

PROBE_ROWS = 2  # enough to see whether a model keeps its rows apart
STRATEGY, CODEC = "strategy", "codec"
"""Who remembers what, in a site's memory."""


@final
class LearningTask:
    """Train, check, merge and evaluate for one site.

    seed: this site's own, for the order of its batches, dropout and bootstrap; the starting model
    follows from the charter's seed alone. threads: torch's, per call. allow: packages from which
    the charter's `python:` model may load. Raises ConfigError when model and data do not fit.
    """

    def __init__(
        self, charter: Charter, data: SiteData, *, allow: Sequence[str], seed: int, threads: int
    ) -> None:
        self._charter = charter
        self._schema = charter.schema
        self._data = data
        self._seed = seed
        self._threads = threads
        self._columns = feature_names(charter.schema)
        self._columns_digest = columns_digest(self._columns)
        self._allow = allow
        self._module = self._build()
        self._layout = Layout.of(self._module)
        self._merger = Merger.of(
            charter, layout_digest=self._layout.digest, count=self._layout.count
        )
        self._strategy = self._merger.strategy
        self._is_initial = True
        """Whether the module still holds the starting parameters: no second copy of them is kept."""
        self._moments: Moments | None = None
        self._prepared: tuple[Batches, Batches] | None = None
        if not self.needs_moments:
            self._prepared = self._prepare()
            self._probe(self._prepared[0])

    @property
    def _is_own_model(self) -> bool:
        """Whether the model may remember something that no other site knows of."""
        return self._charter.model.name.startswith(PYTHON)

    @property
    def has_own_code(self) -> bool:
        """Whether model or data are a hospital's own code."""
        return self._is_own_model or not isinstance(self._data.train, Table)

    @property
    def merger(self) -> Merger:
        """The charter's merges for this model."""
        return self._merger

    @property
    def module(self) -> nn.Module:
        """The module that trains here: to be copied, never to be changed."""
        return self._module

    @property
    def head(self) -> str:
        """What the model's outputs mean."""
        return self._schema.head

    @property
    def patients(self) -> Batches:
        """The own validation rows, prepared. Raises ValueError before round 0 is over."""
        return self._ready()[1]

    @property
    def needs_moments(self) -> bool:
        """Whether round 0 exchanges moments before anyone can train."""
        return self._schema.standardise == "federated" and bool(self._columns)

    @property
    def samples(self) -> int:
        """Training rows of this site, exactly."""
        return count_rows(self._data.train)

    def initial(self) -> bytes:
        """Payload of the starting model, the same at every member."""
        module = self._module if self._is_initial else self._build()
        return self._payload_of(flatten(module, self._layout))

    @property
    def update_bytes(self) -> tuple[int, int]:
        """Fewest and most bytes that a contribution's payload has."""
        return self._merger.update_bytes

    def _build(self) -> nn.Module:
        return build_model(
            self._charter.model,
            inputs=len(self._columns),
            outputs=outputs(self._charter.schema),
            seed=self._charter.seed,
            allow=self._allow,
        )

    def local_moments(self) -> bytes:
        """Payload of this site's count, mean and spread per column, over its training rows."""
        return encode_moments(self._own_moments(), self._columns_digest)

    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Merge (digest, payload) pairs in order of digest, whatever order they are given in."""
        parts = [self._decode_moments(payload) for _, payload in sorted(payloads)]
        return encode_moments(merge_moments(parts), self._columns_digest)

    def set_moments(self, merged: bytes) -> None:
        """Standardise with the federation's moments from now on."""
        self._moments = self._decode_moments(merged)
        self._prepared = self._prepare()
        self._probe(self._prepared[0])

    def train(
        self,
        base: bytes,
        round: int,  # noqa: A002 - the protocol's word
        memory: Arrays = NO_MEMORY,
        left_out: bool = False,  # noqa: FBT001, FBT002 - nodes pass arguments by place
        keeper: Keeper | None = None,
    ) -> Trained:
        """Take the charter's local steps from ``base``; the same bytes for the same arguments.

        base: payload of a result. memory: what this site's last training returned as its own. left_out:
        the last contribution was never merged and never will be. keeper: lets training go on where a
        crash ended it, to the same bytes; a state of another training is discarded.
        """
        batches, _ = self._ready()
        state = self._merger.decode_state(base)
        seed = self._round_seed("train", round, base)
        own = part_of(memory, STRATEGY)
        with torch_threads(self._threads):
            try:
                result = self._train(state, own, batches, seed, keeper)
            except StateError:
                if keeper is None:
                    raise
                keeper.discard()
                result = self._train(state, own, batches, seed, keeper)
        norm = distance(result.update, self._strategy.reference(state))
        payload, codec_memory = self._merger.write(
            result.update, state, part_of(memory, CODEC), left_out=left_out
        )
        return Trained(
            payload=payload,
            samples=result.samples,
            steps=result.steps,
            norm_micro=metrics.to_micro(norm),
            loss_micro=metrics.to_micro(result.loss_after),
            memory=together({STRATEGY: result.memory, CODEC: codec_memory}),
        )

    def _train(
        self, state: Vector, memory: Arrays, batches: Batches, seed: int, keeper: Keeper | None
    ) -> LocalResult:
        module = self._module
        if self._is_own_model:
            # A copy, so that nothing a model keeps beside its shared tensors outlives the round.
            module = copy.deepcopy(module)
        else:
            self._is_initial = False
        site = LocalSite(
            module=module,
            layout=self._layout,
            batches=batches,
            training=self._charter.training,
            head=self._schema.head,
            seed=seed,
            keeper=keeper,
        )
        return self._strategy.train(site, state, memory)

    def check(self, payload: bytes, codec: int) -> None:
        """Refuse a peer's contribution unless it could be merged: PayloadError with a Reason."""
        if codec == Codec.MOMENTS:
            if not self._decode_moments(payload).is_of_one_site():
                raise PayloadError(Reason.NORM_BOUND, "moments that no hospital's values have")
        elif codec == self._merger.codec:
            self._merger.check(payload)
        else:
            raise PayloadError(Reason.BAD_SHAPE, f"codec {codec} is not the charter's")

    def check_result(self, payload: bytes, codec: int) -> None:
        """Refuse what is no model and no moments of all: PayloadError with a Reason."""
        if codec == Codec.MOMENTS:
            self._decode_moments(payload)
        elif codec == Codec.FLOAT32:
            self._merger.decode_state(payload)
        else:
            raise PayloadError(Reason.BAD_SHAPE, f"codec {codec} is no result's")

    def merge(
        self, inputs: Sequence[tuple[bytes, bytes, int]], origin: bytes | None = None
    ) -> bytes:
        """Merge (digest, payload, weight in millionths) to the same bytes at every member.

        origin: payload of the base that the merge starts from, where the charter's merges do.
        """
        try:
            return self._merger.merge(inputs, origin)
        except ValueError as error:
            raise ConfigError(f"aggregation: round cannot be merged: {error}") from error

    def difference(self, payload: bytes, origin: bytes) -> Vector:
        """Return how far a contribution (u,) is from a base. Raises PayloadError."""
        return self._merger.difference(payload, self._merger.decode_state(origin))

    def evaluate(self, model: bytes) -> tuple[MetricValue, ...]:
        """Every metric on this site's validation rows; the training rows play no part."""
        return self._evaluate(model, self._ready()[1])

    def evaluate_groups(self, model: bytes) -> tuple[GroupValue, ...]:
        """Every metric of the charter's subgroups among those rows, as far as it may be published."""
        rows = self._data.validation
        if not (self._schema.subgroups and isinstance(rows, Table) and rows.rows):
            return ()
        return evaluate_groups(
            self._schema,
            rows,
            self._scores(self._parameters(model), self._ready()[1]),
            group_count_min=self._charter.privacy.group_count_min,
            seed=derive_seed("bootstrap", self._seed),
        )

    def matrix(self, split: Split) -> tuple[Matrix, NDArray[Any]]:
        """Preprocessed features (n, d) and labels (n,) of any table, for comparisons elsewhere."""
        features, labels = self._batches(split).batch(np.arange(count_rows(split)))
        return features.numpy(), labels.numpy()

    def evaluate_on(self, model: bytes, split: Split) -> tuple[MetricValue, ...]:
        """Every metric on rows that no site trained on."""
        self._ready()
        return self._evaluate(model, self._batches(split))

    def scores(self, model: bytes, split: Split) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Raw outputs (n, k) of a model on rows that no site trained on, and their labels (n,)."""
        self._ready()
        batches = self._batches(split)
        return self._scores(self._parameters(model), batches), batches.labels.numpy()

    def tensors(self, model: bytes) -> dict[str, NDArray[Any]]:
        """Named tensors of a model with the moments it needs, for a safetensors snapshot."""
        return snapshot.to_tensors(self._parameters(model), self._layout, self._moments)

    def from_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> bytes:
        """Undo ``tensors``: take over the moments, return the model's payload."""
        vector, moments = snapshot.from_tensors(tensors, self._layout)
        if moments is not None:
            self.set_moments(encode_moments(moments, self._columns_digest))
        payload = self._payload_of(vector)
        self._merger.decode_state(payload)
        return payload

    def _payload_of(self, parameters: Vector) -> bytes:
        return self._merger.encode_state(self._strategy.begin(parameters))

    def _parameters(self, model: bytes) -> Vector:
        return self._strategy.parameters(self._merger.decode_state(model))

    def _own_moments(self) -> Moments:
        if not isinstance(self._data.train, Table):
            raise ConfigError("data.standardise: own data sets bring their own scaling; use none")
        return local_moments(observed_matrix(self._schema, self._data.train))

    def _standardiser(self) -> Standardiser:
        match self._schema.standardise:
            case "federated":
                if self._moments is None:
                    raise ValueError("set_moments must come before training and evaluation")
                return Standardiser.of(self._moments)
            case "local":
                return Standardiser.of(self._own_moments())
            case _:
                return Standardiser.identity(len(self._columns))

    def _prepare(self) -> tuple[Batches, Batches]:
        return self._batches(self._data.train), self._batches(self._data.validation)

    def _batches(self, split: Split) -> Batches:
        if not isinstance(split, Table):
            # An own data set may draw (augmentation) while its labels are read.
            with torch_seed(derive_seed("labels", self._seed)):
                return SetBatches(split, head=self._schema.head, classes=len(self._schema.classes))
        if not isinstance(self._data.train, Table):
            raise ConfigError("data: the training examples are a data set, these rows a table")
        preprocessor = Preprocessor.fit(self._schema, self._data.train)
        matrix = preprocessor.transform(split, self._standardiser())
        return MatrixBatches.of(matrix, split.labels)

    def _ready(self) -> tuple[Batches, Batches]:
        if self._prepared is None:
            raise ValueError("set_moments must come before training and evaluation")
        return self._prepared

    def _probe(self, batches: Batches) -> None:
        """Send two rows through the starting model: a misfit should stop the node, not a round."""
        if not len(batches):
            raise ConfigError("data: no training rows")
        rows = np.arange(min(PROBE_ROWS, len(batches)))
        # A hospital's own model may change something even here.
        self._is_initial &= not self._is_own_model
        self._module.eval()
        try:
            with torch_seed(self._seed), torch.inference_mode():
                shape = tuple(self._module(batches.batch(rows)[0]).shape)
        except Exception as error:  # the model may be the hospital's own
            first_line = str(error).partition("\n")[0]
            raise ConfigError(
                f"model: {self._charter.model.name} cannot take this site's features: {first_line}"
            ) from error
        width = outputs(self._schema)
        if shape != (len(rows), width) and not (width == 1 and shape == (len(rows),)):
            raise ConfigError(
                f"model: {self._charter.model.name} gave shape {shape} for {len(rows)} rows; "
                f"a {self._schema.head} head needs ({len(rows)}, {width})"
            )

    def _evaluate(self, model: bytes, batches: Batches) -> tuple[MetricValue, ...]:
        vector = self._parameters(model)
        if not len(batches):
            return ()
        scores = self._scores(vector, batches)
        seed = derive_seed("bootstrap", self._seed)
        labels = batches.labels.numpy()
        return tuple(metrics.evaluate(scores, labels, self._schema.head, seed=seed))

    def _scores(self, vector: Vector, batches: Batches) -> NDArray[np.float32]:
        with torch_threads(self._threads), torch_seed(derive_seed("predict", self._seed)):
            self._is_initial = False
            load(self._module, vector, self._layout)
            return predict(self._module, batches)

    def _round_seed(self, purpose: str, round_number: int, base: bytes) -> int:
        base_number = int.from_bytes(hashlib.sha256(base).digest()[:8], "big")
        return derive_seed(purpose, self._seed, round_number, base_number)

    def _decode_moments(self, payload: bytes) -> Moments:
        return decode_moments(payload, self._columns_digest, len(self._columns))


def outputs(schema: Schema) -> int:
    """Width of the model's output: one score, or one for each of several classes."""
    return len(schema.classes) if schema.head == "multiclass" else 1
