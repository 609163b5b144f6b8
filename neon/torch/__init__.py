"""neon in PyTorch: torch.optim's classes over neon's steps, and the optimizer that `attach` returns."""

from neon.attached.attached_optimizer import AttachedOptimizer
from neon.torch.drop_in import SGD, Adadelta, Adagrad, Adam, AdamW, Lion, RMSprop

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "AttachedOptimizer", "Lion", "RMSprop"]
