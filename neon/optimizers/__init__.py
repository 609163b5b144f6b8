"""Optimizers: rules as equations, MultiOptimizer, schedules."""

from neon.assignment.sites import get_param_list
from neon.engine.program.declared import WEIGHT, State
from neon.engine.program.numbers import Number
from neon.old_paths import names_of
from neon.optimizers.adadelta import Adadelta
from neon.optimizers.adagrad import Adagrad
from neon.optimizers.adam import Adam, AdamW
from neon.optimizers.gradient_descent import GradientDescentMomentum
from neon.optimizers.lion import Lion
from neon.optimizers.multioptimizer import MultiOptimizer
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.rmsprop import RMSProp, RMSprop
from neon.optimizers.schedules import (
    ExpSchedule,
    PolySchedule,
    PowerSchedule,
    Schedule,
    ShiftSchedule,
    StepSchedule,
    WarmupCosine,
    WarmupStableDecay,
)
from neon.optimizers.shift_adamax import ShiftAdaMax

__all__ = [
    "WEIGHT",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "ExpSchedule",
    "GradientDescentMomentum",
    "Lion",
    "MultiOptimizer",
    "Number",
    "Optimizer",
    "PolySchedule",
    "PowerSchedule",
    "RMSProp",
    "RMSprop",
    "Schedule",
    "ShiftAdaMax",
    "ShiftSchedule",
    "State",
    "StepSchedule",
    "WarmupCosine",
    "WarmupStableDecay",
    "get_param_list",
]

__getattr__ = names_of(__name__, "optimizer")
