"""What strategies do to gradients between `backward` and the step, and gradients of whole sites.

Room: learning. Everything here goes by the tensors of a layout, so what is frozen or stays at home
is left alone.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from swarm.learning.batches import Batches
from swarm.learning.local import LocalSite
from swarm.learning.rows import Vector
from swarm.learning.training import EVALUATION_ROWS, Correct, row_losses


def learnable(site: LocalSite) -> dict[str, nn.Parameter]:
    """Parameters that are trained and travel, by name; not the layout's buffers."""
    shared = set(site.layout.names)
    return {
        name: parameter
        for name, parameter in site.module.named_parameters()
        if name in shared and parameter.requires_grad
    }


def tensors_of(site: LocalSite, vector: Vector) -> dict[str, Tensor]:
    """Cut a vector (d,) into tensors like the learnable parameters (copies of their types)."""
    views = site.layout.unflatten(vector)
    return {
        name: torch.from_numpy(np.array(views[name])).to(parameter.dtype)
        for name, parameter in learnable(site).items()
    }


def add_to_gradients(site: LocalSite, terms: Mapping[str, Tensor]) -> None:
    """Add a term to each gradient; a parameter that the loss did not reach gets the term alone."""
    for name, parameter in learnable(site).items():
        if parameter.grad is None:
            parameter.grad = terms[name].clone()
        else:
            parameter.grad.add_(terms[name])


def pull_towards(site: LocalSite, anchor: Vector, mu: float) -> Correct:
    """Correction that adds mu · (w − anchor): the gradient of mu/2 · ‖w − anchor‖². anchor: (d,)."""
    anchors = tensors_of(site, anchor)

    @torch.no_grad()
    def correct(_step: int) -> None:
        now = learnable(site)
        add_to_gradients(site, {name: mu * (now[name] - a) for name, a in anchors.items()})

    return correct


def loss_gradients(
    module: nn.Module, data: Batches, head: str, class_weights: Tensor | None
) -> None:
    """Leave the gradient of the mean loss over all rows in the parameters, dropout off.

    The rows go through in pieces, so it needs no more memory than one of them.
    """
    module.eval()
    module.zero_grad()
    for start in range(0, len(data), EVALUATION_ROWS):
        features, labels = data.batch(np.arange(start, min(start + EVALUATION_ROWS, len(data))))
        losses = row_losses(module(features), labels, head)
        if class_weights is not None:
            losses = losses * class_weights[labels.long()]
        (losses.sum() / len(data)).backward()  # type: ignore[no-untyped-call]
