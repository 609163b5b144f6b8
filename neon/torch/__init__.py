"""neon in PyTorch: torch.optim's classes over neon's steps, and the optimizer that `attach` returns.

`LBFGS`, which asks for losses several times in a step, and `SparseAdam`, for sparse gradients, are torch's own.
"""

from torch.optim import LBFGS, SparseAdam

from neon.collections_held import collections_held
from neon.old_paths import pickled_as

with collections_held():
    from neon.attached.attached_optimizer import AttachedOptimizer
    from neon.torch.drop_in import SGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Lion, RMSprop
    from neon.torch.less_used import ASGD, Adamax, NAdam, RAdam, Rprop
    from neon.torch.of_matrices import Muon

pickled_as(
    __name__,
    averages="neon.stepping.aside", optimizer="neon.attached.attached_optimizer", sharding="neon.stepping.sharding",
)  # fmt: skip
__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "AttachedOptimizer", "Lion",
    "Muon", "NAdam", "RAdam", "RMSprop", "Rprop", "SparseAdam",
]  # fmt: skip
