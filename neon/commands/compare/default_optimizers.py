"""The optimizers of a plain ``neon compare``: every rule, with rates that suit digits."""

from __future__ import annotations

MULTI = (
    'MultiOptimizer({"default": Adam(learning_rate=2e-3), '
    '"Conv2d": GradientDescentMomentum(0.05, 0.9), "head": Lion(learning_rate=3e-4)})'
)
DEFAULT_OPTIMIZERS = (
    "GradientDescentMomentum(0.05, 0.9)",
    "GradientDescentMomentum(0.05, 0.9, nesterov=True)",
    "RMSProp(learning_rate=2e-3)",
    "Adagrad(learning_rate=0.02)",
    "Adadelta()",
    "Adam(learning_rate=2e-3)",
    "AdamW(learning_rate=3e-3)",
    "Lion(learning_rate=1e-3)",
    "ShiftAdaMax(learning_rate=2e-3)",
    MULTI,
)
