"""The base class: an optimizer is a rule, its hyper-parameters and its options; it owns no tensors."""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from neon.arguments import clip_bound, plain, positive_integer
from neon.assignment.declared_parts import checked_parts
from neon.assignment.keys import Match
from neon.assignment.sites import Site
from neon.backends import NervanaObject
from neon.engine.program.formats import state_format
from neon.engine.program.numbers import OF_GROUP, Checks, Declared, check_values, other_word, reader
from neon.engine.program.options import (
    AVERAGE,
    DECAY,
    DESCRIBED,
    GROUPED,
    OF_SHAPES,
    SCALE,
    SUPPLIED,
    Check,
    begun,
    chosen,
)
from neon.engine.program.trace import Rule, check_argument, signature, trace
from neon.engine.program.views import View, view_of
from neon.engine.refusals.formats import check_signs, check_states
from neon.engine.settings import Settings, held_by_shapes
from neon.engine.tensors.storage import Storage
from neon.engine.tensors.weight_matrices import Parts
from neon.engine.versions import uncompiled
from neon.messages import listed, received, shortened, shown
from neon.old_paths import names_of
from neon.optimizers.names_of_rules import names_of_rules
from neon.optimizers.schedules import Schedule, counts_steps, is_constant, rate
from neon.optimizers.signatures import NamedOptions, signature_of_base
from neon.optimizers.weight_decay import is_decoupled, needs_rate, with_decay
from neon.stepping.layer_lists import LayerStepper, clip_factor

# What is not given, and what groups have of it: words of constructors, beside those of groups.
_DEFAULTS: dict[str, Any] = {word: option.default for word, option in DESCRIBED.items()} | {"schedule": Schedule()}
_options = reader(OF_GROUP, epoch=0)

if TYPE_CHECKING:
    from neon.attached.attached_optimizer import AttachedOptimizer


class Optimizer(NervanaObject):
    """A custom optimizer is a subclass with a `rule`, or with an `optimize` of its own.

    The rule takes the weight, the gradient and any number of states, then keyword-only
    hyper-parameters (`step` and `epoch` are supplied), and returns the new weight and states:

    >>> class Momentum(Optimizer):
    ...     @staticmethod
    ...     def rule(w, g, velocity, *, lr=0.01, momentum=0.9):
    ...         velocity = momentum * velocity - lr * g
    ...         return w + velocity, velocity
    >>> Momentum(lr=0.1, gradient_clip_norm=1.0)
    Momentum(lr=0.1, momentum=0.9, gradient_clip_norm=1.0)

    Options, common to all rules, in the order in which they act: `gradient_clip_norm` (every gradient
    of this optimizer times min(1, k/‖g‖), the norm over all of its tensors), `gradient_clip_value`
    (each element into [−|k|, |k|]), `wdecay` (λθ is added to the gradient, or what `decay_form` says: "coupled",
    "decoupled", "relative", "corrected" or "cautious", of rules with a decay of their own too), `param_clip_value`
    (weights into [−|k|, |k|]), `stochastic_round` (True: the width of the parameter's format; or a
    width in mantissa bits), `schedule` (the learning rate by epoch or step). `maximize` goes up the
    gradient instead of down. `state_dtype` is the format of states: a dtype of 32 or 16 bits, `"int8"`
    (blocks of 256 numbers of 8 bits), `"parameter"` (bfloat16 for parameters of 16 bits, float32 for others and
    for split ones), or a dict of these by state; states of less than 4096 elements stay float32. `master="split"`
    keeps the 16 bits that a bfloat16 weight lacks beside it. `weight_average=β` keeps the average
    ā ← ā + (1−β)(θ' − ā) of the weights, which starts at them and which `averaged` puts in their place. `lr_scale`
    multiplies the learning rate in the step, whatever a scheduler makes of it; in a group it is `rate_scale`.

    A state starts at zero, or at the default of its argument: `def rule(w, g, size=0.1, *, lr)`. A class may declare
    its numbers, with what is allowed for each and the word of groups for it. They are the arguments of its
    constructor then, in their order:

    >>> from neon.arguments import non_negative
    >>> from neon.optimizers import Number
    >>> class Descent(Optimizer):
    ...     rule = staticmethod(lambda w, g, *, lr: w - lr * g)
    ...     learning_rate = Number(0.1, non_negative, "lr", "α ≥ 0")
    >>> Descent(0.5, maximize=True).hyperparameters()
    {'lr': 0.5}

    What a weight is at evaluation is the weight itself, its average, or what a static method `view` makes of the weight
    and of states and numbers of the rule: `def view(w, z, *, momentum)`. `evaluating` puts it in the weight's place.
    """

    rule: Callable[..., Any] | None = None
    view: Callable[..., Any] | None = None
    name: str | None
    schedule: Schedule
    stochastic_round: bool | int
    gradient_clip_norm: float | None
    gradient_clip_value: float | None
    param_clip_value: float | None
    wdecay: float
    decay_form: str | None
    maximize: bool
    state_dtype: Any
    master: str | None
    weight_average: float | None
    lr_scale: float
    seed: int
    # How many tensors, behind the states of the rule, a caller's list of states may hold that no rule reads or writes.
    scratch: int = 0
    # Whether the rule works on whole matrices: it takes `parts` then, and no parameters of one dimension.
    of_matrices: bool = False
    # Checks of values of its groups that it does not declare as numbers.
    _bounds: ClassVar[Mapping[str, Check]] = {}
    _declared: ClassVar[Declared]
    # Why its weight decay has no other form than its own, if that is so.
    _keeps_decay: ClassVar[str] = ""
    _mapped: Any = None
    __signature__ = NamedOptions()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._declared = Declared(cls, cls._bounds)
        if cls.rule is not None and cls.select_rule is Optimizer.select_rule:
            cls._declared.check_read(cls, lambda: signature(cls.rule).keywords)

    def __init__(self, *numbers: Any, **arguments: Any) -> None:
        own, declared = vars(self), self._declared
        own.update(_DEFAULTS)
        own.update(declared.defaults)
        if numbers:
            arguments = self._named(numbers, arguments)
        others = {}
        for word, value in arguments.items():
            if (number := declared.numbers.get(word)) is not None:
                own[word] = number.check(word, value)
            elif (option := DESCRIBED.get(word)) is not None:
                if value is not option.default:
                    own[word] = option.check(word, value)
            elif word == "parts" and self.of_matrices:
                self.parts = value
            else:
                others[word] = value
        for word in declared.properties:
            if word in own:
                setattr(self, word, own.pop(word))
        if self.master is not None:
            _check_split(self.master, self.stochastic_round)
        if self.lr_scale != 1:
            self._check_scale()
        if others or not declared.numbers:
            self._hyperparameters = self._checked(others)
        if declared.required and type(self).__init__ is Optimizer.__init__:
            self._check_given([name for name in declared.required if name not in arguments])

    def _take(self, arguments: dict[str, Any]) -> None:
        """What a constructor with a signature of its own was given: its `locals()`, as its first statement."""
        given = {name: value for name, value in arguments.items() if name not in ("self", "options", "__class__")}
        Optimizer.__init__(self, **given, **arguments["options"])

    def _named(self, values: tuple[Any, ...], arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name: those without are the numbers that the class declares, or where it has none, the name."""
        kind, names = shortened(type(self).__name__), [*self._declared.numbers] or ["name"]
        if len(values) > len(names):
            raise TypeError(
                f"{kind} takes {len(names)} arguments without their names ({listed(names)}); {len(values)} were given."
            )
        named = dict(zip(names, values, strict=False))
        if twice := [*named.keys() & arguments]:
            raise TypeError(f"{kind} got {listed(twice)} twice: by its place and by its name.")
        return named | arguments

    def _check_scale(self) -> None:
        rule = self._widest_rule
        if rule is None or "lr" not in signature(rule).keywords:
            raise ValueError(
                f"{shortened(type(self).__name__)} has no rule with an lr for lr_scale to multiply. "
                f"{received('lr_scale', self.lr_scale)} Leave it out."
            )

    def _check_given(self, missing: list[str]) -> None:
        kind = shortened(type(self).__name__)
        if missing:
            raise TypeError(f"{kind} needs {listed(missing)}: {kind}({missing[0]}=...).")

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """The rule's hyper-parameters: given, or its own defaults; unknown and missing ones are errors."""
        kind, rule = shortened(type(self).__name__), type(self).rule
        keywords = {k: v for k, v in signature(rule).keywords.items() if k not in SUPPLIED} if rule else {}
        # A class that states its hyper-parameters itself takes them as arguments of its own constructor.
        own = not self._declared.numbers and type(self).hyperparameters is Optimizer.hyperparameters
        allowed = keywords if own else {}
        for name, value in given.items():
            if name not in allowed:
                named = inspect.signature(type(self)).parameters.values()
                known = [p.name for p in named if p.kind is not p.VAR_KEYWORD]
                word = other_word(name, known, self._declared.pairs)
                raise TypeError(f"{kind} has no argument {shown(name, 60)}.{word} Its arguments: {listed(known, 300)}.")
            _check_kind(name, value, allowed[name])
        for name, default in allowed.items():
            if default is not inspect.Parameter.empty:
                check_argument(name, default)
        given = {name: plain(value) for name, value in given.items()}
        if self.wdecay and "weight_decay" in allowed:
            raise TypeError(f"The rule of {kind} has a weight_decay of its own: give that in place of wdecay.")
        self._check_given([k for k, v in allowed.items() if v is inspect.Parameter.empty and k not in given])
        numbers = {name: given.get(name, plain(default)) for name, default in allowed.items()}
        check_values(numbers)
        return numbers

    @property
    def parts(self) -> Parts:
        """What of its parameters are matrices: a number of parts, their lengths, `Matrices`, or a dict of these by key.

        None: each is one, or what its layer of torch is known to hold. What is attached goes by what it was attached
        with.
        """
        return vars(self).get("parts")

    @parts.setter
    def parts(self, value: Parts) -> None:
        vars(self)["parts"] = checked_parts("parts", value) if self.of_matrices else value

    # -- what a subclass may override --------------------------------------------------------------

    def hyperparameters(self) -> dict[str, Any]:
        """The rule's keyword arguments by torch's names: lr, momentum, betas, eps, ..."""
        if self._declared.numbers:
            return self._declared.values(self)
        if "_hyperparameters" not in vars(self):  # a constructor that does not call this class's
            self._hyperparameters = self._checked({})
        return dict(self._hyperparameters)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        """The rule for these hyper-parameters: one that needs fewer states where they allow it."""
        rule = type(self).rule
        if rule is None:
            has = (
                "an optimize() of its own and no rule"
                if self._by_hand
                else "neither a rule nor an optimize() of its own"
            )
            raise TypeError(
                f"{shortened(type(self).__name__)} has {has}. Give it a rule, which can be attached and compiled: a "
                "static method rule(w, g, *states, *, lr)."
            )
        return rule

    def select_view(self, values: Mapping[str, Any]) -> View | None:
        """What a weight is at evaluation with these hyper-parameters; None where it is the weight."""
        return type(self).view

    def scale_of(self, shape: tuple[int, int], values: Mapping[str, Any]) -> float | None:
        """The factor of a step by the (rows, columns) of a matrix, with a group's values; None: there is none."""
        return None

    def rule_of(self, values: Mapping[str, Any]) -> Rule:
        """The rule for these values, with the form of weight decay that they ask for."""
        return self._decayed(self.select_rule(values), values.get(DECAY))

    # -- the documented interface ------------------------------------------------------------------

    @uncompiled
    def optimize(self, layer_list: Any, epoch: int) -> None:
        """Update every parameter of the layers once, with gradients summed over `be.bsz` samples.

        What is refused leaves every parameter and state as it was. In a MultiOptimizer, an `optimize` written by
        hand is called before the others update anything: what it has written before it raises an error stays.
        """
        self._layer_stepper().step(layer_list, epoch)

    @property
    def updates(self) -> int:
        """How many updates the layers have had that `optimize` updated last: what schedules in steps go by."""
        return self._layer_stepper().updates

    def evaluating(self, layer_list: Any) -> AbstractContextManager[None]:
        """A context in which the layers compute with what their weights are at evaluation: averages, or other views.

        Where there are none the weights stay. Raises `RuntimeError` for a step within the context, and at its end where
        parameters were written to: the weights of before are back then.
        """
        return self._layer_stepper().evaluating(layer_list, "evaluating()")

    def averaged(self, layer_list: Any) -> AbstractContextManager[None]:
        """The same, for those who rely on it: raises `RuntimeError` where no weight has an average or another view."""
        return self._layer_stepper().evaluating(layer_list, "averaged()")

    def _layer_stepper(self) -> LayerStepper:
        return vars(self).setdefault("_stepper", LayerStepper(self))

    def clip_gradient_value(self, grad: Tensor, clip_value: float | None = None) -> Tensor:
        """The gradient with each element in [−|clip_value|, |clip_value|]; unchanged for None."""
        bound = clip_bound("clip_value", clip_value)
        return grad if bound is None else grad.clamp(-abs(bound), abs(bound))

    def clip_value(self, v: Tensor, abs_bound: float | None = None) -> Tensor:
        """A gradient or a parameter with each element in [−|abs_bound|, |abs_bound|]; unchanged for None and for 0."""
        bound = clip_bound("abs_bound", abs_bound or None)
        return v if bound is None else v.clamp(-abs(bound), abs(bound))

    def clip_gradient_norm(self, param_list: Iterable[Any], clip_norm: float | None = None) -> float:
        """min(1, clip_norm / ‖g‖) with ‖g‖ the norm of all gradients over the batch mean; 1 for None."""
        bound = clip_bound("clip_norm", clip_norm, norm=True)
        if bound is None:
            return 1.0
        norms = [torch.linalg.vector_norm(grad, dtype=torch.float64) for (_, grad), _ in param_list]
        norm = float(torch.stack(norms).norm()) / positive_integer("be.bsz", self.be.bsz) if norms else 0.0
        return clip_factor(norm, bound)

    @uncompiled
    def attach(self, target: Any, **options: Any) -> AttachedOptimizer:
        """A `torch.optim.Optimizer` with this description, for a module, (named) parameters or groups.

        Its options (`skip_nonfinite`, `norms_in_backward`, `in_backward`, ...) are those of `AttachedOptimizer`.
        """
        from neon.attached.attached_optimizer import AttachedOptimizer

        return AttachedOptimizer(self, target, **options)

    # -- what the engine is told -------------------------------------------------------------------

    def group(self) -> dict[str, Any]:
        """A parameter group's values under torch's names: hyper-parameters and options."""
        if self._declared.numbers and type(self).hyperparameters is Optimizer.hyperparameters:
            return self._declared.group(self)
        numbers = self.hyperparameters()
        values = {"weight_decay": self.wdecay, **numbers, **_options(self)}
        if "lr" not in numbers:
            del values[SCALE]
        return values

    def settings(
        self,
        values: Mapping[str, Any],
        outer: tuple[Hashable, ...] = (),
        *,
        batch_mean: bool = False,
        unscale: bool = False,
        guard: bool = False,
    ) -> Settings:
        """What the engine needs for tensors with these values; `outer` are owners of wider norms.

        The bounds of the wider norms are `values["outer_clip_norms"]`; the flags are options that only steps have.
        """
        self._check_values(values)
        _check_split(values["master"], values["stochastic_round"])
        values = self._with_numbers(values)
        asked = chosen(values, len(outer), batch_mean=batch_mean, unscale=unscale, guard=guard)
        rule = self.rule_of(values)
        program = trace(rule, {**values, "step": 1, **dict.fromkeys(OF_SHAPES, True)}, asked)
        asks = tuple(name for name in OF_SHAPES if program.by_shapes and name in program.keywords)
        others = {
            held: trace(rule, {**values, "step": 1, **dict(zip(asks, held, strict=True))}, asked)
            for held in held_by_shapes(asks)
        }
        rounding = plain(values["stochastic_round"])
        width = None if rounding is False else 0 if rounding is True else rounding
        storage = Storage(state_format("state_dtype", values["state_dtype"]), values["master"] is not None)
        widest = self._widest_rule
        view = view_of(program, self.select_view(values), {**values, "step": 1})
        settings = Settings(program, values, (*outer, self), width, self.seed, storage, view, asks, others)
        for program in settings.programs:
            check_states(storage, program, {AVERAGE, *(signature(widest).tensors if widest else ())})
            check_signs(storage, program, settings.given, values)
        return settings

    def starts(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Where the numbers start that its rule keeps in a group of these values."""
        kept = signature(self.rule_of(values)).numbers_kept
        return {name: begun(state, values).number for name, state in kept.items()}

    def _with_numbers(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Values with the numbers that the rule keeps, where they lack some."""
        missing = {name: start for name, start in self.starts(values).items() if name not in values}
        return ChainMap(cast("dict[str, Any]", values), missing) if missing else values

    def match(self, site: Site) -> Match:
        """Which optimizer a site gets: this one."""
        return Match((), self)

    def leaves(self) -> dict[str, tuple[Optimizer, tuple[Any, ...]]]:
        """Every optimizer with a rule below this one, by label, with the owners of wider norms."""
        return {"default": (self, ())}

    @property
    def default_key(self) -> str:
        """The label, among `leaves`, of the optimizer for parameters that nothing is known of."""
        return "default"

    @property
    def _optimizers_by_key(self) -> Mapping[str, Any] | None:
        """The optimizers by key, of a MultiOptimizer alone."""
        return None

    @property
    def _serves_vectors(self) -> bool:
        """Whether it has a step for what is no matrix: it works on elements, or its rule asks what it is given."""
        rule = self._widest_rule
        return not self.of_matrices or (rule is not None and not {*OF_SHAPES}.isdisjoint(signature(rule).keywords))

    @property
    def _by_hand(self) -> bool:
        """Whether it has an `optimize` written by hand in the place of a rule."""
        return type(self).optimize is not Optimizer.optimize

    @property
    def _widest_rule(self) -> Rule | None:
        """The rule with every state that it may have, whatever the values of a group are."""
        return type(self).rule

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        """Words of its constructor that are other words in groups."""
        return self._declared.pairs

    def _check_values(self, values: Mapping[str, Any]) -> None:
        """Refuse values of a group that the rule cannot run with."""
        self._check_decay(values.get(DECAY), values)
        kept = signature(self.rule_of(values)).numbers_kept  # NaN after a gradient that is not finite
        check_values({n: v for n, v in values.items() if n not in kept} if kept else values, self._declared.checks)

    @property
    def _checks(self) -> Checks | None:
        """The checks of a group's values one by one; None where a class checks some of them together."""
        return self._declared.checks if type(self)._check_values is Optimizer._check_values else None

    def _check_decay(self, form: Any, values: Mapping[str, Any]) -> None:
        """Refuse a form of weight decay that the rule cannot have."""
        if form is None:
            return
        kind = shortened(type(self).__name__)
        if self._keeps_decay:
            raise ValueError(
                f"{kind} {self._keeps_decay}: {DECAY} cannot be had. {received(DECAY, form)} Leave it out."
            )
        if needs_rate(form) and "lr" not in signature(self.select_rule(values)).keywords:
            raise ValueError(
                f"{DECAY} {form!r} is a decay by the learning rate, and the rule of {kind} has no lr. Use 'coupled'."
            )

    def _decayed(self, rule: Rule, form: str | None) -> Rule:
        """A rule with a form of weight decay, held here as long as this is there."""
        if form is None:
            return rule
        check_values({DECAY: form})
        made = vars(self).setdefault("_with_decay", {})
        return made.get((rule, form)) or made.setdefault((rule, form), with_decay(rule, form))

    def _decouples(self, values: Mapping[str, Any]) -> bool:
        """Whether the decay that its rule has of its own is decoupled."""
        return is_decoupled(self.select_rule(values), values)

    @property
    def _rule_varies(self) -> bool:
        """Whether values of a group choose among several rules."""
        return type(self).select_rule is not Optimizer.select_rule

    @property
    def _backend_batch_size(self) -> int:
        """The number of samples over which the gradients of layer lists are summed: `be.bsz`."""
        return positive_integer("be.bsz", self.be.bsz)

    @property
    def _has_schedule(self) -> bool:
        """Whether its rate changes by a schedule; otherwise it is left to whoever else sets it."""
        return not is_constant(self.schedule)

    @property
    def _counts_steps(self) -> bool:
        """Whether its schedule counts in steps, not in epochs."""
        return counts_steps(self.schedule)

    def _names_of_rules(self) -> tuple[set[str], list[set[str]]]:
        """What rules of neon call their states, and each its numbers."""
        return names_of_rules(Optimizer)

    def _scheduled_rate(self, learning_rate: float, epoch: float, updates: int) -> float:
        """The learning rate that the schedule makes of the initial one."""
        return rate(self.schedule, learning_rate, epoch, updates)

    def __repr__(self) -> str:
        present = {}
        for key, value in self.group().items():
            word, default = (option.shown, option.default) if (option := GROUPED.get(key)) else (key, None)
            if key != "epoch" and value is not None and value != default:
                present[word] = value
        if self.of_matrices and self.parts is not None:
            present["parts"] = self.parts
        if self._has_schedule:
            present["schedule"] = self.schedule
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in present.items())})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_stepper", "_mapped", "_with_decay")}


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse what no rule can have, and what is no number or no tuple where the default is one."""
    check_argument(name, value)
    found, usual = plain(value), plain(default)
    is_number = isinstance(usual, (int, float)) and not isinstance(usual, bool)
    wanted = (int, float) if is_number else (tuple, list) if isinstance(usual, (tuple, list)) else object
    if not isinstance(found, wanted):
        what = "a number" if is_number else "a tuple"
        raise TypeError(f"{name} must be {what}, as its default {shown(usual)} is. {received(name, value)}")


def _check_split(master: str | None, stochastic_round: bool | int) -> None:
    if master is not None and stochastic_round is not False:
        raise ValueError(
            "master='split' keeps every bit of a weight: there is nothing to round at random. Leave out "
            "stochastic_round, or master."
        )


for _word, _default in _DEFAULTS.items():
    setattr(Optimizer, _word, _default)
Optimizer._declared = Declared(Optimizer)
_types = {**Optimizer.__annotations__, "schedule": "Schedule | None"}
setattr(Optimizer.__init__, "__signature__", signature_of_base(_types))  # noqa: B010


__getattr__ = names_of("neon.optimizers", __name__)
