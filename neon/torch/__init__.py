"""neon in PyTorch: the optimizer that `attach` returns."""

from neon.torch.optimizer import AttachedOptimizer

__all__ = ["AttachedOptimizer"]
