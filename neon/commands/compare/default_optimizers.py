"""The optimizers of a plain ``neon compare``, a few, and of ``--every``: every exported rule, at rates for digits."""

from __future__ import annotations

from neon.commands.library import example_text, exported_rules, works_on_matrices
from neon.optimizers import Optimizer

# Rules in the order in which they are shown, with rates that suit digits.
TUNED = {
    "GradientDescentMomentum": (
        "GradientDescentMomentum(0.05, 0.9)",
        "GradientDescentMomentum(0.05, 0.9, nesterov=True)",
    ),
    "RMSProp": ("RMSProp(learning_rate=2e-3)",),
    "Adagrad": ("Adagrad(learning_rate=0.02)",),
    "Adadelta": ("Adadelta()",),
    "Adam": ("Adam(learning_rate=2e-3)",),
    "AdamW": ("AdamW(learning_rate=3e-3)",),
    "AdaBelief": ("AdaBelief(learning_rate=2e-3)",),
    "Adan": ("Adan(learning_rate=8e-3)",),
    "ADOPT": ("ADOPT(learning_rate=2e-3)",),
    "StableAdamW": ("StableAdamW(learning_rate=3e-3)",),
    "Lion": ("Lion(learning_rate=1e-3)",),
    "Signum": ("Signum(learning_rate=2e-3)",),
    "LAMB": ("LAMB(learning_rate=0.02)",),
    "LARS": ("LARS(learning_rate=4.0)",),
    "MARS": ("MARS(learning_rate=3e-3)",),
    "SOAP": ("SOAP(learning_rate=3e-3)",),
    "Shampoo": ("Shampoo(learning_rate=0.05, frequency=10)",),
    "Adafactor": ("Adafactor(learning_rate=0.1)",),
    "ShiftAdaMax": ("ShiftAdaMax(learning_rate=2e-3)",),
    "NAdam": ("NAdam(learning_rate=3e-3)",),
    "RAdam": ("RAdam(learning_rate=0.01)",),
    "AdaMax": ("AdaMax(learning_rate=6e-3)",),
    "ASGD": ("ASGD(learning_rate=0.5)",),
    "Rprop": ("Rprop(learning_rate=1e-3)",),
}
# What a plain comparison shows of them, before rules around rules and a MultiOptimizer.
FEW = (
    "GradientDescentMomentum", "RMSProp", "Adagrad", "Adadelta", "Adam", "AdamW", "Lion", "LAMB", "Adafactor",
    "NAdam", "Prodigy",
)  # fmt: skip
TRANSFORMS = (
    "Cautious(AdamW(learning_rate=2e-3))",
    "Centralized(AdamW(learning_rate=5e-3))",
    "Lookahead(AdamW(learning_rate=1e-2))",
    "ScheduleFree(AdamW(learning_rate=1.5e-2))",
)
# Rules of hidden matrices, beside another for all else.
OF_MATRICES = tuple(
    f'MultiOptimizer({{"default": AdamW(learning_rate=3e-3), "HiddenMatrix": {name}(learning_rate=0.01)}})'
    for name in ("Muon", "NorMuon")
)
MULTI = (
    'MultiOptimizer({"default": Adam(learning_rate=2e-3), '
    '"Conv2d": GradientDescentMomentum(0.05, 0.9), "head": Lion(learning_rate=3e-4)})'
)


def every_optimizer() -> tuple[str, ...]:
    """Known rules in the order above, others with their own defaults, then rules around rules and a MultiOptimizer."""
    known = [text for texts in TUNED.values() for text in texts]
    others = [example_text(rule) for name, rule in _of_any_shape().items() if name not in TUNED]
    return (*known, *others, *TRANSFORMS, *OF_MATRICES, MULTI)


def _of_any_shape() -> dict[str, type[Optimizer]]:
    return {name: rule for name, rule in exported_rules().items() if not works_on_matrices(rule)}


DEFAULT_OPTIMIZERS = (*(text for name in FEW for text in TUNED.get(name, (f"{name}()",))), TRANSFORMS[-1], MULTI)
