"""The exam of a personalisation. Room: swarm."""

from collections.abc import Callable

import numpy as np
from torch import nn

from swarm.conformance.promises import (
    bits,
    demand,
    small_network,
    small_rows,
    small_site,
    untouched,
)
from swarm.learning.local import LocalSite
from swarm.learning.parameters import Layout, flatten
from swarm.learning.personalisation import Personalisation
from swarm.learning.rows import Vector
from swarm.learning.seeding import torch_threads
from swarm.learning.strategies.averaging import FedAvg
from swarm.learning.training_state import Arrays


def check_personalisation(
    make: Callable[[nn.Module], Personalisation],
    *,
    layout_of: Callable[[nn.Module], Layout] = Layout.of,
    seed: int = 0,
) -> None:
    """Same bits again; inputs untouched; what is sent does not depend on who else used the module.

    make: the mode for a module as it starts, a network with batch norm. layout_of: its shared tensors,
    where some stay at home.
    """
    layout = layout_of(small_network(seed))
    with torch_threads(1):
        _check(make(small_network(seed)), layout, seed)


def _check(mode: Personalisation, layout: Layout, seed: int) -> None:
    def site(at: int, module: nn.Module | None = None) -> LocalSite:
        return small_site(seed + at, module=module or small_network(seed), layout=layout)

    shared = flatten(small_network(seed), layout)
    memory: Arrays = {}
    module = small_network(seed)
    for round_ in range(2):
        update, after = _round(mode, site(round_), shared, memory)
        again, same = _round(mode, site(round_, module), shared, memory)
        demand(
            again.tobytes() == update.tobytes(),
            "what a site sends depends on what its module held before",
        )
        demand(bits(same) == bits(after), "the same training leaves another memory")
        demand(
            all(bool(np.isfinite(a).all()) for a in after.values() if a.dtype.kind == "f"),
            "the memory holds a value that is not finite",
        )
        _check_adapting(mode, site(round_, module), shared, after)
        memory, shared = after, update
    _check_adapting(mode, site(9), shared, {})


def _round(
    mode: Personalisation, site: LocalSite, shared: Vector, memory: Arrays
) -> tuple[Vector, Arrays]:
    with untouched("the shared model", shared), untouched("the memory", *memory.values()):
        mode.before(site, memory)
        update = FedAvg().train(site, shared, {}).update
        return update.copy(), mode.after(site, shared, memory)


def _check_adapting(mode: Personalisation, site: LocalSite, shared: Vector, memory: Arrays) -> None:
    rows = small_rows(77, 20)
    scores = []
    for validation in (small_rows(78, 30), small_rows(78, 30), small_rows(78, 0)):
        with untouched("the shared model", shared), untouched("the memory", *memory.values()):
            own = mode.adapt(site, shared, memory, validation)
            scores.append(own.scores(site.module, site.layout, rows))
        demand(
            scores[-1].shape == (20, 1) and bool(np.isfinite(scores[-1]).all()),
            f"scores have shape {scores[-1].shape}, not (20, 1), or are not finite",
        )
    demand(
        scores[0].tobytes() == scores[1].tobytes(),
        "the same question gets another model: something beside the memory is remembered",
    )
