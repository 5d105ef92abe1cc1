"""Our hospitals' own model: all members install or copy this package, read it, and allow it."""

from wound_model.net import WoundNet

__all__ = ["WoundNet"]
