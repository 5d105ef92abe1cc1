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
from swarm.learning.batches import Batches
from swarm.learning.dataset import SiteData, Split, Table, count_rows
from swarm.learning.fits import check_fits
from swarm.learning.inputs import Inputs, matrix_of
from swarm.learning.layouts import layout_of
from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.merging import Merger
from swarm.learning.models import build_model
from swarm.learning.moments import Matrix
from swarm.learning.own_code import PYTHON
from swarm.learning.parameters import Layout, distance, flatten, load
from swarm.learning.payload import PayloadError
from swarm.learning.personalisation import personalisation_of
from swarm.learning.rows import Vector
from swarm.learning.seeding import derive_seed, torch_seed, torch_threads
from swarm.learning.subgroups import evaluate_groups
from swarm.learning.trained import Trained
from swarm.learning.training import predict, steps_of_a_round
from swarm.learning.training_state import NO_MEMORY, Arrays, Keeper, StateError, part_of, together

PROBE_ROWS = 2  # enough to see whether a model keeps its rows apart
STRATEGY, CODEC, PERSONAL = "strategy", "codec", "personal"
"""Who remembers what, in a site's memory."""


@final
class LearningTask:
    """Train, check, merge and evaluate for one site.

    seed: this site's own, for the order of its batches, dropout and bootstrap; the starting model
    follows from the charter's seed alone. threads: torch's, per call. allow: packages from which
    the charter's `python:` model may load. Raises ConfigError when the charter's choices, its model and
    the data do not fit.
    """

    def __init__(
        self, charter: Charter, data: SiteData, *, allow: Sequence[str], seed: int, threads: int
    ) -> None:
        check_fits(charter)
        self._charter = charter
        self._schema = charter.schema
        self._data = data
        self._seed = seed
        self._threads = threads
        self._allow = allow
        self._inputs = Inputs(charter, data, seed=seed)
        self._module = self._build()
        self._layout = layout_of(charter, self._module)
        self._personalisation = personalisation_of(charter, self._module)
        self._merger = Merger.of(
            charter, layout_digest=self._layout.digest, count=self._layout.count
        )
        self._strategy = self._merger.strategy
        self._is_initial = True
        """Whether the module still holds the starting parameters: no second copy of them is kept."""
        if not self.needs_moments:
            self._probe(self._inputs.train)

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
    def layout(self) -> Layout:
        """Which of the module's tensors travel."""
        return self._layout

    @property
    def has_own_tensors(self) -> bool:
        """Whether some tensors are trained and stay here (FedBN): the module is then more than what travels."""
        return self._charter.personalisation.mode == "fedbn"

    @property
    def head(self) -> str:
        """What the model's outputs mean."""
        return self._schema.head

    @property
    def patients(self) -> Batches:
        """The own validation rows, prepared. Raises ValueError before round 0 is over."""
        return self._inputs.validation

    @property
    def needs_moments(self) -> bool:
        """Whether round 0 exchanges moments before anyone can train."""
        return self._inputs.needs_moments

    @property
    def samples(self) -> int:
        """Training rows of this site, exactly."""
        return count_rows(self._data.train)

    @property
    def rows_a_round(self) -> int:
        """Training rows that the local steps of a round see, each as often as it is seen."""
        training = self._charter.training
        batch = min(training.batch_size, self.samples)
        return steps_of_a_round(self.samples, training) * batch

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
            inputs=len(self._inputs.columns),
            outputs=outputs(self._charter.schema),
            seed=self._charter.seed,
            allow=self._allow,
        )

    def local_moments(self) -> bytes:
        """Payload of this site's sums for round 0 (round_zero.py), over its training rows."""
        return self._inputs.local_moments()

    def merge_moments(self, payloads: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Merge (digest, payload) pairs in order of digest, whatever order they are given in."""
        return self._inputs.merge_moments(payloads)

    def set_moments(self, merged: bytes) -> None:
        """Standardise and weigh with the federation's sums from now on."""
        self._inputs.set_moments(self._inputs.decode_moments(merged))
        self._probe(self._inputs.train)

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
        state = self._merger.decode_state(base)
        seed = self._round_seed("train", round, base)
        with torch_threads(self._threads):
            try:
                result, personal = self._train(state, memory, seed, keeper)
            except StateError:
                if keeper is None:
                    raise
                keeper.discard()
                result, personal = self._train(state, memory, seed, keeper)
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
            memory=together({STRATEGY: result.memory, CODEC: codec_memory, PERSONAL: personal}),
        )

    def _train(
        self, state: Vector, memory: Arrays, seed: int, keeper: Keeper | None
    ) -> tuple[LocalResult, Arrays]:
        """Return what is sent, and what stays at home."""
        site = self._site(seed, keeper, is_trained=True)
        own = part_of(memory, PERSONAL)
        self._personalisation.before(site, own)
        result = self._strategy.train(site, state, part_of(memory, STRATEGY))
        shared = self._strategy.parameters(state)
        return result, self._personalisation.after(site, shared, own)

    def _site(
        self, seed: int, keeper: Keeper | None = None, *, is_trained: bool = False
    ) -> LocalSite:
        module = self._module
        if self._is_own_model and is_trained:
            # A copy, so that nothing a model keeps beside its shared tensors outlives the round.
            module = copy.deepcopy(module)
        else:
            self._is_initial = False
        return LocalSite(
            module=module,
            layout=self._layout,
            batches=self._inputs.train,
            training=self._charter.training,
            head=self._schema.head,
            seed=seed,
            keeper=keeper,
            class_weights=self._inputs.class_weights,
        )

    def check(self, payload: bytes, codec: int) -> None:
        """Refuse a peer's contribution unless it could be merged: PayloadError with a Reason."""
        if codec == Codec.MOMENTS:
            if not self._inputs.decode_moments(payload).is_of_one_site():
                raise PayloadError(Reason.NORM_BOUND, "moments that no hospital's values have")
        elif codec == self._merger.codec:
            self._merger.check(payload)
        else:
            raise PayloadError(Reason.BAD_SHAPE, f"codec {codec} is not the charter's")

    def check_result(self, payload: bytes, codec: int) -> None:
        """Refuse what is no model and no moments of all: PayloadError with a Reason."""
        if codec == Codec.MOMENTS:
            self._inputs.decode_moments(payload)
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

    def evaluate(self, model: bytes, memory: Arrays = NO_MEMORY) -> tuple[MetricValue, ...]:
        """Every metric of this site's own model on its validation rows.

        model: payload of a result. memory: what this site's last training returned as its own.
        """
        rows = self._inputs.validation
        if not len(rows):
            self._merger.decode_state(model)
            return ()
        return self._measure(self._personal_scores(model, memory), rows)

    def evaluate_groups(self, model: bytes, memory: Arrays = NO_MEMORY) -> tuple[GroupValue, ...]:
        """Every metric of the charter's subgroups among those rows, as far as it may be published."""
        rows = self._data.validation
        if not (self._schema.subgroups and isinstance(rows, Table) and rows.rows):
            return ()
        return evaluate_groups(
            self._schema,
            rows,
            self._personal_scores(model, memory),
            group_count_min=self._charter.privacy.group_count_min,
            seed=derive_seed("bootstrap", self._seed),
        )

    def matrix(self, split: Split) -> tuple[Matrix, NDArray[Any]]:
        """Preprocessed features (n, d) and labels (n,) of any table, for comparisons elsewhere."""
        return matrix_of(self._inputs.batches(split))

    def evaluate_on(self, model: bytes, split: Split) -> tuple[MetricValue, ...]:
        """Every metric of the shared model, as nobody adapted it, on rows that no site trained on."""
        scores, _ = self.scores(model, split)
        rows = self._inputs.batches(split)
        return self._measure(scores, rows) if len(rows) else ()

    def scores(self, model: bytes, split: Split) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Raw outputs (n, k) of the shared model on rows that no site trained on, their labels (n,)."""
        rows = self._inputs.batches(split)
        parameters = self._parameters(model)
        if not len(rows):
            return np.empty((0, outputs(self._schema)), np.float32), rows.labels.numpy()
        with torch_threads(self._threads), torch_seed(derive_seed("predict", self._seed)):
            site = self._site(self._seed)
            self._personalisation.before(site, NO_MEMORY)
            load(site.module, parameters, self._layout)
            return predict(site.module, rows), rows.labels.numpy()

    def own_scores(
        self, model: bytes, memory: Arrays = NO_MEMORY
    ) -> tuple[NDArray[np.floating], NDArray[Any]]:
        """Raw outputs (n, k) of this site's own model on its validation rows, and their labels (n,)."""
        return self._personal_scores(model, memory), self._inputs.validation.labels.numpy()

    def _personal_scores(self, model: bytes, memory: Arrays) -> NDArray[np.floating]:
        state, rows = self._merger.decode_state(model), self._inputs.validation
        own = part_of(memory, PERSONAL)
        with torch_threads(self._threads), torch_seed(derive_seed("predict", self._seed)):
            trains = self._charter.personalisation.mode == "fine_tune"
            site = self._site(derive_seed("personal", self._seed), is_trained=trains)
            self._personalisation.before(site, own)
            shared = self._strategy.model_for(site, state)
            adapted = self._personalisation.adapt(site, shared, own, rows)
            return adapted.scores(site.module, self._layout, rows)

    def _measure(self, scores: NDArray[np.floating], rows: Batches) -> tuple[MetricValue, ...]:
        seed = derive_seed("bootstrap", self._seed)
        return tuple(metrics.evaluate(scores, rows.labels.numpy(), self._schema.head, seed=seed))

    def tensors(self, model: bytes) -> dict[str, NDArray[Any]]:
        """Named tensors of a model with the moments it needs, for a safetensors snapshot."""
        return snapshot.to_tensors(self._parameters(model), self._layout, self._inputs.moments)

    def own_tensors(self, model: bytes) -> dict[str, NDArray[Any]]:
        """Return the same of the model that this site uses: its cluster's, or after its own inner step."""
        state = self._merger.decode_state(model)
        with torch_threads(self._threads), torch_seed(derive_seed("predict", self._seed)):
            vector = self._strategy.model_for(self._site(self._seed), state)
        return snapshot.to_tensors(vector, self._layout, self._inputs.moments)

    def from_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> bytes:
        """Undo ``tensors``: take over the moments, return the model's payload."""
        vector, moments = snapshot.from_tensors(tensors, self._layout)
        if moments is not None:
            self.set_moments(self._inputs.encode_moments(moments))
        payload = self._merger.encode_state(self._strategy.around(vector))
        self._merger.decode_state(payload)
        return payload

    def _payload_of(self, parameters: Vector) -> bytes:
        return self._merger.encode_state(self._strategy.begin(parameters))

    def _parameters(self, model: bytes) -> Vector:
        return self._strategy.parameters(self._merger.decode_state(model))

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

    def _round_seed(self, purpose: str, round_number: int, base: bytes) -> int:
        base_number = int.from_bytes(hashlib.sha256(base).digest()[:8], "big")
        return derive_seed(purpose, self._seed, round_number, base_number)


def outputs(schema: Schema) -> int:
    """Width of the model's output: one score, or one for each of several classes."""
    return len(schema.classes) if schema.head == "multiclass" else 1
