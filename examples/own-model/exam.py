"""Does the model keep what the swarm relies on? Run it after every change: python exam.py."""

import torch
from wound_model import WoundNet

from swarm.conformance import check_model

check_model(
    lambda: WoundNet(inputs=9, outputs=1),
    features=torch.randn(8, 9, generator=torch.Generator().manual_seed(0)),
    outputs=1,
)
