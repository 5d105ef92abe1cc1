"""The exam of a model. Room: swarm."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from swarm.conformance.promises import demand
from swarm.learning.parameters import Layout, flatten, load
from swarm.learning.seeding import torch_seed


def check_model(
    build: Callable[[], nn.Module], *, features: Tensor, outputs: int, seed: int = 0
) -> None:
    """Same start for one seed; right shape; parameters survive the journey; it can learn.

    build: makes the module, as the charter's arguments would. features: at least two rows of what
    the model takes. outputs: 1 for binary and regression, else the number of classes.
    """
    with torch_seed(seed):
        module = build()
    with torch_seed(seed):
        twin = build()
    start = flatten(module)
    layout = Layout.of(module)
    demand(layout.count > 0, "the model has no parameters")
    demand(
        layout == Layout.of(twin) and start.tobytes() == flatten(twin).tobytes(),
        f"two models built from seed {seed} differ: use torch's generator only",
    )
    scores = _scores(module, features)
    shape = tuple(scores.shape)
    rows = len(features)
    demand(
        shape == (rows, outputs) or (outputs == 1 and shape == (rows,)),
        f"output has shape {shape}, not ({rows}, {outputs})",
    )
    demand(
        torch.allclose(_scores(module, features[:1]), scores[:1], atol=1e-5),
        "in evaluation mode a row's score depends on the rows beside it",
    )
    demand(flatten(module).tobytes() == start.tobytes(), "evaluation changes the shared parameters")
    with torch_seed(seed + 1):
        other = build()
    load(other, start)
    demand(
        torch.equal(_scores(other, features), scores),
        "a model that is given the parameters gives other scores: some state is not shared",
    )
    _check_gradients(module, features, seed)


def _check_gradients(module: nn.Module, features: Tensor, seed: int) -> None:
    module.train()
    with torch_seed(seed):
        module(features).square().sum().backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    demand(bool(gradients), "no parameter gets a gradient")
    demand(
        all(bool(torch.isfinite(gradient).all()) for gradient in gradients),
        "a gradient is not finite",
    )


def _scores(module: nn.Module, features: Tensor) -> Tensor:
    module.eval()
    with torch.inference_mode():
        scores: Tensor = module(features)
    return scores
