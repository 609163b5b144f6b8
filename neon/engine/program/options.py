"""Options: one table of what goes around any rule, as transforms of the graph that stay in its pass over memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from torch import Tensor

from neon.arguments import (
    average_decay,
    clip_bound,
    flag,
    giving_rates,
    master_format,
    non_negative,
    optional_name,
    plain,
    positive,
    rounding,
    whole_number,
)
from neon.engine.program.declared import State
from neon.engine.program.formats import state_format
from neon.engine.program.graph import Node, Scope, apply, load, scalar
from neon.engine.program.reductions import reduce
from neon.messages import received

# Scopes of reductions: all whose gradients are looked through; all that are clipped by the norm of the step before.
GUARD, PREVIOUS = Scope("guard"), Scope("previous")
# The option by which weights are averaged, and the state that holds the average.
AVERAGE = "weight_average"
# The option that says what a weight decay does, and what it may be.
DECAY = "decay_form"
FORMS = ("coupled", "decoupled", "relative", "corrected", "cautious")
# What groups call `lr_scale`: where a group has that word, schedulers of other libraries multiply its `lr` themselves.
SCALE = "rate_scale"

Check = Callable[[str, Any], Any]
# What a program has around its rule: keys of the table, those of wider norms with their level.
Options = tuple[str, ...]


class Place(Enum):
    """Where in the graph an option acts; within a place it goes by the order of the table."""

    ARRIVING = "on the gradient as it arrives"
    FACTOR = "by a factor of the gradient that the step before gives"
    NORM = "by a factor of the gradient that bounds a norm"
    CLIPPED = "on the elements of the gradient"
    DECAYED = "on the gradient that the rule sees"
    RATE = "on the learning rate"
    WEIGHT = "on the weight that is stored"
    STATE = "as a state of its own that starts as the weight, of the weight before it is rounded for storage"
    SUM = "as a sum over the gradient as it was given"


def _clip(x: Node, bound: Node) -> Node:
    bound = abs(bound)
    return apply("maximum", apply("minimum", x, bound), -bound)


def _previous_factor(g: Node) -> Node:
    """min(1, k/‖g‖) with ‖g‖ of the step before; in the first step, that of this launch stands in for it."""
    own, previous = apply("sqrt", reduce("sum_of_squares", PREVIOUS, g)), scalar("previous_norm")
    norm = apply("where", previous > 0.0, previous, own)
    return apply("minimum", 1.0, scalar("gradient_clip_previous_norm") / norm)


def _norm_factor(g: Node, factor: Node | None, bound: str, level: int) -> Node:
    """min(1, k/‖f·g‖) after the factor f so far; ‖f·g‖ = f·‖g‖: a chain of norms costs one reading of the gradients."""
    norm = apply("sqrt", reduce("sum_of_squares", Scope("clip_scope", level), g))
    return apply("minimum", 1.0, scalar(bound) / (norm if factor is None else factor * norm))


def _average(w: Node) -> Node:
    kept = load(AVERAGE)
    return kept + (1.0 - scalar(AVERAGE)) * (w - kept)


def _decay_form(name: str, value: Any) -> str | None:
    """None, or a form of weight decay."""
    if value is not None and value not in FORMS:
        raise ValueError(f"{name} must be None or one of {', '.join(map(repr, FORMS))}. {received(name, value)}")
    return value


def _norm_bound(name: str, value: Any) -> float | None:
    return clip_bound(name, value, norm=True)


@dataclass(frozen=True, eq=False)
class Option:
    """One option. A program has it where a group's value is not the default and `present` says so of the value.

    `key` is what groups and graphs call it, `word` what constructors do (None: they do not have it), `shown` what
    messages do. What is not `grouped` is no value of groups. `act` is called with what its place has.
    """

    key: str
    default: Any
    check: Check
    place: Place | None = None
    act: Callable[..., Node] | None = None
    word: str | None = ""
    shown: str = ""
    grouped: bool = True
    present: Callable[[Any], bool] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "word", self.key if self.word == "" else self.word)
        object.__setattr__(self, "shown", self.shown or self.key)


OPTIONS = (
    Option("name", None, optional_name, grouped=False),
    Option("schedule", None, giving_rates, grouped=False),
    Option("weight_decay", 0.0, non_negative, Place.DECAYED,
           lambda g, w: g + scalar("weight_decay") * w, word="wdecay"),
    Option(DECAY, None, _decay_form, Place.DECAYED),  # rules around a rule are what it does
    # A tensor may become another number in silence.
    Option(SCALE, 1.0, lambda _, value: non_negative("lr_scale", value), Place.RATE,
           lambda lr: lr * scalar(SCALE), word="lr_scale", shown="lr_scale",
           present=lambda value: isinstance(value, Tensor) or value != 1),
    Option("outer_clip_norms", (), lambda name, bounds: [positive(f"{name}[{i}]", k) for i, k in enumerate(bounds)],
           Place.NORM, _norm_factor, word=None),
    Option("gradient_clip_norm", None, _norm_bound, Place.NORM, _norm_factor),
    Option("gradient_clip_value", None, clip_bound, Place.CLIPPED,
           lambda g: _clip(g, scalar("gradient_clip_value"))),
    Option("param_clip_value", None, clip_bound, Place.WEIGHT, lambda w: _clip(w, scalar("param_clip_value"))),
    Option("stochastic_round", False, rounding),
    Option("maximize", False, flag, Place.ARRIVING, lambda g: -g, present=bool),
    Option("state_dtype", None, state_format),
    Option("master", None, master_format),
    Option(AVERAGE, None, average_decay, Place.STATE, _average),
    Option("seed", 0, whole_number, grouped=False),
    # What only steps have.
    Option("unscale", False, flag, Place.ARRIVING, lambda g: g * (1.0 / scalar("grad_scale")), None, grouped=False),
    Option("batch_mean", False, flag, Place.ARRIVING, lambda g: g / scalar("batch_size"), None, grouped=False),
    Option("gradient_clip_previous_norm", None, _norm_bound, Place.FACTOR, _previous_factor, None),
    # g² itself may overflow where g is finite.
    Option("guard", False, flag, Place.SUM, lambda g: reduce("sum_of_squares", GUARD, g * 0.0), None, grouped=False),
)  # fmt: skip
# By the words of constructors, and by those of groups.
DESCRIBED = {option.word: option for option in OPTIONS if option.word is not None}
GROUPED = {option.key: option for option in OPTIONS if option.grouped}
# Those that a program has or has not by the value in a group.
_BY_VALUE = [
    (option.key, option.default, option.present)
    for option in GROUPED.values()
    if option.act and option.key not in ("outer_clip_norms", "weight_decay")
]
# What the engine supplies to a rule that asks for it.
SUPPLIED = ("step", "epoch", "matrix", "flattened", "few_rows", "few_columns")
# Of these whether a side of a matrix is at most as long as a value of the group.
OF_SIDES, MOST = ("few_rows", "few_columns"), "max_size"
# Those that a rule is asked with for each tensor; without sides, True for two dimensions and more.
OF_SHAPES = ("matrix", "flattened", *OF_SIDES)
# Names that the engine, options and torch's states have taken; a weight decay may be a rule's own.
RESERVED = {*DESCRIBED, *GROUPED} - {"weight_decay"} | {
    "batch_size", "grad_scale", "previous_norm", "optimizer", "params", "param_names", "scales", "low_bits",
    "overrides", "frozen", "initial_lr", "scheduled_lr", "updates",
}  # fmt: skip


def chosen(values: Mapping[str, Any], levels: int = 0, **of_step: bool) -> Options:
    """The options that a group's values ask for, below `levels` wider norms, and a step by its flags."""
    found = ["weight_decay", *(name for name, asked in of_step.items() if asked)]
    found += [f"outer_clip_norms[{level}]" for level in range(levels)]
    for key, default, present in _BY_VALUE:
        value = values.get(key, default)
        if value is not default and (present is None or present(value)):
            found.append(key)
    return tuple(found)


def begun(state: State, values: Mapping[str, Any]) -> State:
    """A state with the number that it starts at, where that is one of a group, by its name."""
    if not isinstance(state.start, str) or state.starts_as_weight:
        return state
    start = plain(values[state.start])
    if start is None or isinstance(start, (bool, str, tuple, list)):
        raise TypeError(f"{state.start} must be a number, for a state starts at it. {received(state.start, start)}")
    scale = plain(values.get(SCALE, 1.0)) if state.start == "lr" else 1.0
    return State(float(start) * float(scale), state.of)


def at(place: Place, options: Options) -> list[tuple[str, Callable[..., Node]]]:
    """What is present at a place, by key, in the order of the table."""
    return [
        (key, option.act)
        for option in OPTIONS
        if option.place is place and option.act is not None
        for key in options
        if key.split("[")[0] == option.key
    ]


def through(place: Place, options: Options, x: Node, *others: Node) -> Node:
    """A node once everything that is present at a place has acted on it."""
    for _, act in at(place, options):
        x = act(x, *others)
    return x


class Gradient(NamedTuple):
    """A gradient on its way to a rule: as it arrived, the factors of norms, before and after its values are clipped."""

    arrived: Node
    factors: tuple[Node, ...]
    unclipped: Node
    clipped: Node
    seen: Node


def before(w: Node, g: Node, options: Options) -> Gradient:
    """The gradient that the rule sees, and what became of it."""
    arrived = through(Place.ARRIVING, options, g)
    factors = [act(arrived) for _, act in at(Place.FACTOR, options)]
    factor = factors[0] if factors else None
    for level, (bound, act) in enumerate(at(Place.NORM, options)):
        factors.append(act(arrived, factor, bound, level))
        factor = factors[-1] if factor is None else factor * factors[-1]
    unclipped = arrived if factor is None else arrived * factor
    clipped = through(Place.CLIPPED, options, unclipped)
    return Gradient(arrived, tuple(factors), unclipped, clipped, through(Place.DECAYED, options, clipped, w))
