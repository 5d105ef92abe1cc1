"""Which tensors of a charter's model travel. Room: learning.

FedBN: batch-norm layers' parameters and statistics stay at home.
Li et al. 2021, https://arxiv.org/abs/2102.07623
"""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase as NormBase

from ledger.charter import Charter
from ledger.errors import ConfigError
from swarm.learning.fits import OUTER
from swarm.learning.parameters import Layout, all_tensors


def layout_of(charter: Charter, module: nn.Module) -> Layout:
    """Return the layout of a module that is as it starts.

    Raises ConfigError, one line, where the charter's choices do not fit the module.
    """
    home = home_names(module) if charter.personalisation.mode == "fedbn" else frozenset()
    if charter.personalisation.mode == "fedbn" and not home:
        raise ConfigError('personalisation.mode: "fedbn" needs a model with batch norm layers')
    layout = Layout.of(module, trained=charter.training.trained, home=home)
    moving = sorted(set(layout.names) - {name for name, _ in module.named_parameters()})
    if moving and charter.aggregation.strategy in OUTER:
        raise ConfigError(
            f'aggregation.strategy: "{charter.aggregation.strategy}" would step along running '
            f'statistics such as "{moving[0]}", which are no parameters; use personalisation.mode = '
            '"fedbn" or layers without them'
        )
    return layout


def home_names(module: nn.Module) -> frozenset[str]:
    """Names of all parameters and buffers of batch-norm (and instance-norm) layers."""
    inside = {
        id(tensor)
        for layer in module.modules()
        if isinstance(layer, NormBase)
        for _, tensor in all_tensors(layer)
    }
    return frozenset(name for name, tensor in all_tensors(module) if id(tensor) in inside)
