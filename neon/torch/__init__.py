"""neon in PyTorch: torch.optim's classes over neon's steps, and the optimizer that `attach` returns."""

from neon.torch.drop_in import SGD, Adadelta, Adagrad, Adam, AdamW, Lion, RMSprop
from neon.torch.optimizer import AttachedOptimizer

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "AttachedOptimizer", "Lion", "RMSprop"]
