"""Handwritten digits that scikit-learn carries: upright ones for the base, rotated ones for the sites.

Three hospitals have another scanner than the base model was trained for: theirs turns each picture.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset

SITES = ("anna", "berta", "carla")
BASE_SHARE = 0.5
VALIDATION_SHARE = 0.3


class Pictures(Dataset[tuple[Tensor, int]]):
    """Rows of 64 values from 0 to 1, and the digit."""

    def __init__(self, pictures: np.ndarray, digits: np.ndarray, *, is_rotated: bool) -> None:
        turned = np.rot90(pictures, axes=(1, 2)) if is_rotated else pictures
        self.x = torch.from_numpy((turned.reshape(-1, 64) / 16).astype(np.float32))
        self.y = [int(digit) for digit in digits]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], self.y[index]


def _shuffled() -> tuple[np.ndarray, np.ndarray]:
    loaded = load_digits()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    return loaded.images[order], loaded.target[order]


def upright() -> Pictures:
    """What the base model learns from: no hospital's pictures."""
    images, digits = _shuffled()
    end = int(len(digits) * BASE_SHARE)
    return Pictures(images[:end], digits[:end], is_rotated=False)


def make_dataset(directory: Path) -> tuple[Pictures, Pictures]:
    """One hospital's pictures, for training and for validation; its folder's name says which."""
    images, digits = _shuffled()
    rest = np.arange(int(len(digits) * BASE_SHARE), len(digits))
    own = np.array_split(rest, len(SITES))[SITES.index(directory.name)]
    held = int(len(own) * VALIDATION_SHARE)
    parts = own[held:], own[:held]
    train, validation = (Pictures(images[at], digits[at], is_rotated=True) for at in parts)
    return train, validation
