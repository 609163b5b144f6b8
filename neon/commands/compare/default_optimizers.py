"""The optimizers of a plain ``neon compare``: every rule that is exported, known ones with rates that suit digits."""

from __future__ import annotations

from neon.commands.library import example_text, exported_rules

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
    "Lion": ("Lion(learning_rate=1e-3)",),
    "LAMB": ("LAMB(learning_rate=0.02)",),
    "Adafactor": ("Adafactor(learning_rate=0.1)",),
    "ShiftAdaMax": ("ShiftAdaMax(learning_rate=2e-3)",),
}
TRANSFORMS = (
    "Cautious(AdamW(learning_rate=2e-3))",
    "Centralized(AdamW(learning_rate=5e-3))",
    "Lookahead(AdamW(learning_rate=1e-2))",
    "ScheduleFree(AdamW(learning_rate=1.5e-2))",
)
MULTI = (
    'MultiOptimizer({"default": Adam(learning_rate=2e-3), '
    '"Conv2d": GradientDescentMomentum(0.05, 0.9), "head": Lion(learning_rate=3e-4)})'
)


def default_optimizers() -> tuple[str, ...]:
    """Known rules in the order above, others with their own defaults, then rules around rules and a MultiOptimizer."""
    known = [text for texts in TUNED.values() for text in texts]
    others = [example_text(rule) for name, rule in exported_rules().items() if name not in TUNED]
    return (*known, *others, *TRANSFORMS, MULTI)


DEFAULT_OPTIMIZERS = default_optimizers()
