"""The exam of a strategy. Room: swarm."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from swarm.conformance.promises import bits, demand, small_network, small_site, untouched
from swarm.learning.aggregation import weighted_mean
from swarm.learning.local import LocalResult, LocalSite
from swarm.learning.parameters import Layout, flatten, load
from swarm.learning.rows import Vector
from swarm.learning.seeding import torch_threads
from swarm.learning.strategy import Strategy
from swarm.learning.training import mean_loss
from swarm.learning.training_state import Arrays

SITES: Final = 3
ROUNDS: Final = 8


def check_strategy(strategy: Strategy, *, seed: int = 0) -> None:
    """Lengths as announced; training and step pure; agreement kept; frozen tensors left; it learns.

    Sites have a network with batch norm and train with plain SGD; of several tensors only the first
    linear layer's travel in one part of the exam.
    """
    with torch_threads(1):
        module = small_network(seed)
        for trained in ((), ("layers.0.*",)):
            layout = Layout.of(module, trained=trained)
            state = _check_vectors(strategy, layout, flatten(module, layout))
            result = _check_training(strategy, layout, state, {}, seed)
            state = _check_step(strategy, state, result.update)
            _check_training(strategy, layout, state, result.memory, seed + 1)
        _check_learning(strategy, seed)


def _check_vectors(strategy: Strategy, layout: Layout, parameters: Vector) -> Vector:
    d, s, u = layout.count, strategy.state_vectors, strategy.update_length(layout.count)
    with untouched("the starting model", parameters):
        state = strategy.begin(parameters)
        held = strategy.around(parameters)
    _vector(state, s * d, "the beginning state, s·d values,")
    demand(
        strategy.begin(parameters.copy()).tobytes() == state.tobytes(),
        "the same starting model gives another beginning state",
    )
    _vector(strategy.parameters(state), d, "the released model, d values,")
    demand(
        strategy.parameters(held).tobytes() == parameters.tobytes(),
        "the state around a model does not release that model",
    )
    _vector(strategy.reference(state), u, "the reference, update_length(d) values,")
    return state


def _check_training(
    strategy: Strategy, layout: Layout, state: Vector, memory: Arrays, seed: int
) -> LocalResult:
    def trained(site: LocalSite) -> LocalResult:
        with untouched("the round's state", state), untouched("the memory", *memory.values()):
            return strategy.train(site, state, memory)

    site = small_site(seed, module=small_network(0), layout=layout)
    frozen = {
        name: t.clone() for name, t in site.module.state_dict().items() if name in layout.frozen
    }
    result = trained(site)
    _vector(
        result.update, strategy.update_length(layout.count), "an update, update_length(d) values,"
    )
    try:
        strategy.examine(result.update)
    except ValueError as error:
        demand(False, f"an update of its own is refused: {error}")
    demand(result.steps == site.training.local_steps, "other steps are taken than the charter's")
    demand(result.samples == len(site.batches), "the samples are not the site's rows")
    demand(
        all(bool(np.isfinite(a).all()) for a in result.memory.values() if a.dtype.kind == "f"),
        "the memory holds a value that is not finite",
    )
    after = site.module.state_dict()
    demand(
        all(bool((after[name] == value).all()) for name, value in frozen.items()),
        "a frozen tensor was changed",
    )
    again = trained(small_site(seed, module=site.module, layout=layout))
    demand(
        again.update.tobytes() == result.update.tobytes()
        and bits(again.memory) == bits(result.memory),
        "the same question gets other bits: something beside state and memory is remembered",
    )
    with untouched("the round's state", state):
        _vector(strategy.model_for(site, state), layout.count, "a site's model, d values,")
    return result


def _check_step(strategy: Strategy, state: Vector, update: Vector) -> Vector:
    reference = strategy.reference(state)
    with untouched("the round's state", state), untouched("the merged updates", update):
        after = strategy.step(state, update)
        again = strategy.step(state.copy(), update.copy())
    _vector(after, state.size, "the next state, as long as this one,")
    demand(again.tobytes() == after.tobytes(), "the same merge gives another state")
    still = strategy.parameters(strategy.step(state, reference))
    demand(
        np.allclose(still, strategy.parameters(state), rtol=1e-6, atol=1e-7),
        "sites that did not move are moved: a merge that equals the reference changes the model",
    )
    _refused(lambda: strategy.step(state, update[:-1]), "a merge of another length")
    return after


def _check_learning(strategy: Strategy, seed: int) -> None:
    sites = [small_site(seed + at, module=small_network(0)) for at in range(SITES)]
    layout = sites[0].layout
    state = strategy.begin(flatten(small_network(0), layout))
    memories: list[Arrays] = [{} for _ in sites]
    before = _mean_loss(strategy, sites, state)
    for round_ in range(ROUNDS):
        results = [
            strategy.train(replace(site, seed=100 * round_ + at), state, memories[at])
            for at, site in enumerate(sites)
        ]
        memories = [result.memory for result in results]
        updates = [result.update for result in results]
        state = strategy.step(
            state, weighted_mean(updates, [1] * SITES, [bytes([at]) for at in range(SITES)])
        )
    after = _mean_loss(strategy, sites, state)
    demand(
        after < before,
        f"{SITES} sites learn nothing in {ROUNDS} rounds: loss {before:.3f}, then {after:.3f}",
    )


def _mean_loss(strategy: Strategy, sites: list[LocalSite], state: Vector) -> float:
    losses = []
    for site in sites:
        load(site.module, strategy.model_for(site, state), site.layout)
        losses.append(mean_loss(site.module, site.batches, site.head))
    return float(np.mean(losses))


def _vector(vector: Vector, count: int, what: str) -> None:
    demand(
        vector.dtype == np.float32 and vector.shape == (count,),
        f"{what} is {vector.dtype} {vector.shape}, not float32 ({count},)",
    )
    demand(bool(np.isfinite(vector).all()), f"{what} holds a value that is not finite")


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    demand(False, f"{what} is not refused with ValueError")
