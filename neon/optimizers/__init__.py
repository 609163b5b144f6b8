"""Optimizers: rules as equations, MultiOptimizer, schedules.

What is imported under its own name is public, and is what every table of the library lists.
"""

from neon.collections_held import collections_held as _collections_held

with _collections_held():
    from neon.assignment.sites import get_param_list as get_param_list
    from neon.engine.program.declared import WEIGHT as WEIGHT
    from neon.engine.program.declared import State as State
    from neon.engine.program.numbers import Number as Number
    from neon.engine.program.spaces import COLUMN_PAIRS as COLUMN_PAIRS
    from neon.engine.program.spaces import COLUMNS as COLUMNS
    from neon.engine.program.spaces import GROUP as GROUP
    from neon.engine.program.spaces import OPTIMIZER as OPTIMIZER
    from neon.engine.program.spaces import ROW_PAIRS as ROW_PAIRS
    from neon.engine.program.spaces import ROWS as ROWS
    from neon.engine.program.spaces import TENSOR as TENSOR
    from neon.engine.tensors.weight_matrices import Matrices as Matrices
    from neon.old_paths import pickled_as as _pickled_as
    from neon.optimizers.adabelief import AdaBelief as AdaBelief
    from neon.optimizers.adadelta import Adadelta as Adadelta
    from neon.optimizers.adafactor import Adafactor as Adafactor
    from neon.optimizers.adagrad import Adagrad as Adagrad
    from neon.optimizers.adam import Adam as Adam
    from neon.optimizers.adam import AdamW as AdamW
    from neon.optimizers.adamax import AdaMax as AdaMax
    from neon.optimizers.adan import Adan as Adan
    from neon.optimizers.ademamix import AdEMAMix as AdEMAMix
    from neon.optimizers.adopt import ADOPT as ADOPT
    from neon.optimizers.asgd import ASGD as ASGD
    from neon.optimizers.cautious import Cautious as Cautious
    from neon.optimizers.centralized import Centralized as Centralized
    from neon.optimizers.gradient_descent import GradientDescentMomentum as GradientDescentMomentum
    from neon.optimizers.lamb import LAMB as LAMB
    from neon.optimizers.lars import LARS as LARS
    from neon.optimizers.lion import Lion as Lion
    from neon.optimizers.lookahead import Lookahead as Lookahead
    from neon.optimizers.mars import MARS as MARS
    from neon.optimizers.multioptimizer import MultiOptimizer as MultiOptimizer
    from neon.optimizers.muon import Muon as Muon
    from neon.optimizers.nadam import NAdam as NAdam
    from neon.optimizers.normuon import NorMuon as NorMuon
    from neon.optimizers.optimizer import Optimizer as Optimizer
    from neon.optimizers.prodigy import Prodigy as Prodigy
    from neon.optimizers.radam import RAdam as RAdam
    from neon.optimizers.rmsprop import RMSProp as RMSProp
    from neon.optimizers.rmsprop import RMSprop as RMSprop
    from neon.optimizers.rprop import Rprop as Rprop
    from neon.optimizers.schedule_free import ScheduleFree as ScheduleFree
    from neon.optimizers.schedules import ExpSchedule as ExpSchedule
    from neon.optimizers.schedules import PolySchedule as PolySchedule
    from neon.optimizers.schedules import PowerSchedule as PowerSchedule
    from neon.optimizers.schedules import Schedule as Schedule
    from neon.optimizers.schedules import ShiftSchedule as ShiftSchedule
    from neon.optimizers.schedules import StepSchedule as StepSchedule
    from neon.optimizers.schedules import WarmupCosine as WarmupCosine
    from neon.optimizers.schedules import WarmupStableDecay as WarmupStableDecay
    from neon.optimizers.shampoo import Shampoo as Shampoo
    from neon.optimizers.shift_adamax import ShiftAdaMax as ShiftAdaMax
    from neon.optimizers.signum import Signum as Signum
    from neon.optimizers.soap import SOAP as SOAP
    from neon.optimizers.stableadamw import StableAdamW as StableAdamW
    from neon.optimizers.transform import Transform as Transform

_pickled_as(__name__, assignment="neon.assignment.keys", sites="neon.assignment.sites")
_public = {name: value for name, value in globals().items() if name[0] != "_"}
__all__ = sorted(  # pyright: ignore[reportUnsupportedDunderAll]
    name for name, value in _public.items() if name.isupper() or hasattr(value, "__qualname__")
)
