"""A network with low-rank adapters, and the pictures that it learns from."""

from lora_model.net import AdaptedNet, Lora
from lora_model.pictures import Pictures, make_dataset, upright

__all__ = ["AdaptedNet", "Lora", "Pictures", "make_dataset", "upright"]
