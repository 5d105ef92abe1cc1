"""What a hospital keeps to itself on top of the shared model.

Room: learning. From cheap to dear: local intercept, fine-tuning, FedBN, Ditto; docs/learning.md says when.
Law: what a mode remembers between rounds is named arrays in the site's own memory, never sent; what is
learned at evaluation comes from the site's own training rows (fine-tuning also looks at its validation
loss, and says so). The same arguments give the same bits.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Protocol, final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ledger.charter import Charter
from ledger.errors import ConfigError
from swarm.learning.batches import Batches
from swarm.learning.gradients import pull_towards
from swarm.learning.intercept import fit_intercept
from swarm.learning.layouts import home_names
from swarm.learning.local import LocalSite
from swarm.learning.moments import Floats
from swarm.learning.parameters import Layout, all_tensors, load
from swarm.learning.rows import Vector
from swarm.learning.seeding import derive_seed
from swarm.learning.torch_state import set_tensor, to_array
from swarm.learning.training import mean_loss, predict, train_site
from swarm.learning.training_state import Arrays, take

OWN: Final = "own"


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonalModel:
    """A site's own model: shared parameters (d,), what it holds at home, and an offset (k,) to its outputs.

    ``is_adapted``: whether it differs from the shared model.
    """

    parameters: Vector
    home: Arrays = field(default_factory=dict)
    offset: Floats | None = None
    is_adapted: bool = False

    def scores(
        self, module: nn.Module, layout: Layout, rows: Batches
    ) -> NDArray[np.float32] | Floats:
        """Raw outputs (n, k) on any rows. float64 with an offset, so that it merges no two scores."""
        put_home(module, self.home)
        load(module, self.parameters, layout)
        outputs = predict(module, rows)
        return outputs if self.offset is None else outputs + self.offset


class Personalisation(Protocol):
    """One mode; exam: `swarm.conformance.check_personalisation`. Arguments are given by place."""

    def before(self, site: LocalSite, memory: Arrays, /) -> None:
        """Put into the module what stays at home, before the strategy trains it."""

    def after(self, site: LocalSite, shared: Vector, memory: Arrays, /) -> Arrays:
        """Return what to remember, once the strategy has trained the module.

        shared: (d,), the model of the round's beginning that this site uses. memory: as the last
        round left it, empty at first; its arrays are not changed in place.
        """

    def adapt(
        self, site: LocalSite, shared: Vector, memory: Arrays, validation: Batches, /
    ) -> PersonalModel:
        """Return the site's own model from the shared one (d,); may change the site's module."""


@final
@dataclass(frozen=True, slots=True)
class Shared:
    """None: everybody uses the shared model."""

    def before(self, _site: LocalSite, _memory: Arrays, /) -> None:
        """Nothing stays at home."""

    def after(self, _site: LocalSite, _shared: Vector, _memory: Arrays, /) -> Arrays:
        """Remember nothing."""
        return {}

    def adapt(
        self, _site: LocalSite, shared: Vector, _memory: Arrays, _validation: Batches, /
    ) -> PersonalModel:
        """Return the shared model."""
        return PersonalModel(parameters=shared)


@final
@dataclass(frozen=True, slots=True)
class Intercept:
    """An offset to the outputs, fitted to the site's own training rows at each evaluation."""

    def before(self, _site: LocalSite, _memory: Arrays, /) -> None:
        """Nothing stays at home."""

    def after(self, _site: LocalSite, _shared: Vector, _memory: Arrays, /) -> Arrays:
        """Remember nothing: the offset follows from the model and the rows."""
        return {}

    def adapt(
        self, site: LocalSite, shared: Vector, _memory: Arrays, _validation: Batches, /
    ) -> PersonalModel:
        """Return the shared model and the offset."""
        load(site.module, shared, site.layout)
        outputs = predict(site.module, site.batches)
        offset = fit_intercept(outputs, site.batches.labels.numpy(), site.head)
        return PersonalModel(parameters=shared, offset=offset, is_adapted=offset is not None)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """A few steps on the site's own training rows, kept only where its validation loss falls.

    So the validation rows choose between two models, and the metrics of the chosen one, measured on
    the same rows, are a little too good: by how much, rows that nobody saw tell.
    """

    steps: int
    learning_rate: float

    def before(self, _site: LocalSite, _memory: Arrays, /) -> None:
        """Nothing stays at home."""

    def after(self, _site: LocalSite, _shared: Vector, _memory: Arrays, /) -> Arrays:
        """Remember nothing: every evaluation begins from the shared model."""
        return {}

    def adapt(
        self, site: LocalSite, shared: Vector, _memory: Arrays, validation: Batches, /
    ) -> PersonalModel:
        """Return the tuned model, or the shared one where tuning does not help."""
        unchanged = PersonalModel(parameters=shared)
        if not len(validation):
            return unchanged
        load(site.module, shared, site.layout)
        before = mean_loss(site.module, validation, site.head)
        try:
            result = train_site(_briefly(site, "fine tune", self.steps, self.learning_rate))
        except ConfigError:  # it diverged, so it does not help
            return unchanged
        after = mean_loss(site.module, validation, site.head)
        if not after < before:
            return unchanged
        return PersonalModel(parameters=result.parameters, is_adapted=True)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FedBn:
    """Batch-norm layers stay at home: each hospital's own scales, shifts and running statistics.

    start: their arrays in the starting model. The tensors are not in the layout (layouts.py).
    Li et al. 2021, https://arxiv.org/abs/2102.07623
    """

    start: Arrays

    def before(self, site: LocalSite, memory: Arrays, /) -> None:
        """Put the site's own layers into the module; at first those of the starting model."""
        put_home(site.module, memory or self.start)

    def after(self, site: LocalSite, _shared: Vector, _memory: Arrays, /) -> Arrays:
        """Remember the layers as training left them."""
        return home_arrays(site.module)

    def adapt(
        self, _site: LocalSite, shared: Vector, memory: Arrays, _validation: Batches, /
    ) -> PersonalModel:
        """Return the shared parameters with the site's own layers."""
        return PersonalModel(parameters=shared, home=memory or self.start, is_adapted=True)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Ditto:
    """A second model that only this site has, trained on its rows and pulled to the shared one.

    Each round: ``steps`` steps along the gradient of loss + mu/2 · ‖v − w‖², w the round's model.
    Lower mu for a model that is more its own. These steps are in no snapshot: a crash repeats them.
    Li et al. 2021, https://arxiv.org/abs/2012.04221, Algorithm 1
    """

    steps: int
    learning_rate: float
    proximal_mu: float

    def before(self, _site: LocalSite, _memory: Arrays, /) -> None:
        """Nothing of it is in the shared model."""

    def after(self, site: LocalSite, shared: Vector, memory: Arrays, /) -> Arrays:
        """Train the own model and remember it, (d,); it begins as the first shared one seen."""
        load(site.module, self._own(shared, memory), site.layout)
        try:
            result = train_site(
                _briefly(site, "ditto", self.steps, self.learning_rate),
                pull_towards(site, shared, self.proximal_mu),
            )
        except ConfigError:
            raise ConfigError(
                "personalisation.learning_rate: the own model of Ditto diverged; "
                f"{self.learning_rate} is too high for this site's data"
            ) from None
        return {OWN: result.parameters}

    def adapt(
        self, _site: LocalSite, shared: Vector, memory: Arrays, _validation: Batches, /
    ) -> PersonalModel:
        """Return the own model; before the first training the shared one."""
        return PersonalModel(parameters=self._own(shared, memory), is_adapted=OWN in memory)

    def _own(self, shared: Vector, memory: Arrays) -> Vector:
        if OWN not in memory:
            return shared
        return take(memory, OWN, shape=shared.shape, dtype=shared.dtype)


def personalisation_of(charter: Charter, module: nn.Module) -> Personalisation:
    """Return the mode that a charter names. module: as it starts."""
    chosen = charter.personalisation
    match chosen.mode:
        case "none":
            return Shared()
        case "intercept":
            return Intercept()
        case "fine_tune":
            return FineTune(steps=chosen.steps, learning_rate=chosen.learning_rate)
        case "fedbn":
            return FedBn(start=home_arrays(module))
        case "ditto":
            return Ditto(
                steps=chosen.steps,
                learning_rate=chosen.learning_rate,
                proximal_mu=charter.training.proximal_mu,
            )
        case mode:
            raise ValueError(f'no personalisation "{mode}"')


def home_arrays(module: nn.Module) -> Arrays:
    """Copy what FedBN keeps at home, by name: every tensor of batch-norm layers, counters too."""
    names = home_names(module)
    return {name: to_array(t).copy() for name, t in all_tensors(module) if name in names}


def put_home(module: nn.Module, arrays: Arrays) -> None:
    """Copy such arrays into a module. Raises StateError where they are of another model."""
    tensors = dict(all_tensors(module))
    for name in arrays:
        set_tensor(tensors[name], arrays, name)


def _briefly(site: LocalSite, purpose: str, steps: int, learning_rate: float) -> LocalSite:
    """Return the same site with so many steps, batches of their own, and no snapshots."""
    training = replace(
        site.training, local_steps=steps, local_epochs=0, learning_rate=learning_rate
    )
    return replace(site, training=training, seed=derive_seed(purpose, site.seed), keeper=None)
