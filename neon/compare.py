"""The answer to "which optimizer for my model?": ``neon compare`` and what it is made of.

A task of one's own is a function that returns a `Task`; ``neon compare --task mymodule:myfunction``
runs it. From Python, `Comparison` does the same without the terminal.
"""

from __future__ import annotations

from neon.commands.compare.comparison import Comparison
from neon.commands.compare.curves import Result
from neon.commands.compare.default_optimizers import DEFAULT_OPTIMIZERS
from neon.commands.compare.digits import digits
from neon.commands.compare.task import Task, classification_accuracy, load_task
from neon.commands.compare.training import Settings
from neon.commands.errors import (
    MissingExtraError,
    OutputError,
    SettingsError,
    SpecError,
    TaskError,
    UnknownReferenceError,
    UsageError,
)
from neon.commands.optimizer_text import OptimizerSpec, parse_optimizer

__all__ = [
    "DEFAULT_OPTIMIZERS", "Comparison", "MissingExtraError", "OptimizerSpec", "OutputError", "Result", "Settings",
    "SettingsError", "SpecError", "Task", "TaskError", "UnknownReferenceError", "UsageError", "classification_accuracy",
    "digits", "load_task", "parse_optimizer",
]  # fmt: skip
