"""Trace: call a rule once with symbols, compose the options around it, keep what results."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor

from neon.arguments import plain
from neon.engine.program import options
from neon.engine.program.declared import WEIGHT, State
from neon.engine.program.graph import CALL, LOADS, REDUCTION, SIZE, Node, load, scalar, walk
from neon.engine.program.printer import formula, inline
from neon.engine.program.spaces import COLUMNS, ELEMENT, GROUP, OPTIMIZER, PAIRS, ROWS, TENSOR, Space, joined
from neon.engine.program.symbols import Symbol, node_of
from neon.messages import listed, received, shortened, shown

Rule = Callable[..., Any]

# Numbers that a step brings along; all others belong to a group of tensors.
PER_STEP = ("step", "grad_scale", "previous_norm")


@dataclass(frozen=True)
class Signature:
    """What a rule takes: its states as they are declared, and its keyword-only arguments."""

    states: dict[str, State]
    keywords: dict[str, Any]  # name -> default, or inspect.Parameter.empty

    @cached_property
    def numbers_kept(self) -> dict[str, State]:
        """Its states that are one number each, kept in parameter groups."""
        return {name: state for name, state in self.states.items() if state.is_number}

    @cached_property
    def tensors(self) -> dict[str, State]:
        """Its states that are tensors, one of each parameter."""
        return {name: state for name, state in self.states.items() if not state.is_number}


# What has been made for each rule, for as long as it is there: nothing of it may hold the rule.
_made: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def _made_for(rule: Rule) -> dict[Any, Any]:
    """What has been made for a rule so far; a method is made anew each time, what it is bound to is not."""
    if isinstance(rule, MethodType):
        return _made.setdefault(rule.__self__, {}).setdefault(rule.__func__, {})
    found = _made.get(rule)  # quicker than setdefault
    return _made.setdefault(rule, {}) if found is None else found


def signature(rule: Any) -> Signature:
    """A rule's signature; `TypeError` where it is not `rule(w, g, *states, *, keywords)`."""
    made = _made_for(rule)
    return made.get(signature) or made.setdefault(signature, _read_signature(rule))


def _read_signature(rule: Rule) -> Signature:
    parameters = list(inspect.signature(rule).parameters.values())
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    name = shortened(getattr(rule, "__name__", repr(rule)))
    if [p.name for p in positional[:2]] != ["w", "g"] or len(positional) + len(keywords) != len(parameters):
        raise TypeError(
            f"The rule {name}{shortened(str(inspect.signature(rule)), 160)} must take the weight and the gradient "
            f"first, then its states, then keyword-only hyper-parameters: def {name}(w, g, state, *, lr)."
        )
    numbers = {p.name for p in positional if isinstance(p.default, State) and p.default.is_number}
    reserved = options.RESERVED & {p.name for p in parameters[2:]} | {"step"} & {p.name for p in positional}
    reserved |= {"epoch", "weight_decay"} & numbers  # which every group has
    if "flattened" in keywords and any(
        isinstance(p.default, State) and p.default.of in (ROWS, COLUMNS) for p in positional
    ):
        raise TypeError(
            f"The rule {name} keeps states of rows or columns, and asks for tensors that are flattened: these can be "
            "kept of a tensor's last two dimensions alone. Ask for `matrix`."
        )
    if reserved:
        raise TypeError(
            f"The rule {name} uses {listed(sorted(reserved))}, which neon keeps for itself; choose another name."
        )
    return Signature({p.name: _declared(name, p, keywords) for p in positional[2:]}, keywords)


def _declared(rule: str, state: inspect.Parameter, keywords: Collection[str]) -> State:
    """What is declared of a state: a number says where it starts."""
    declared = state.default if isinstance(state.default, State) else State(plain(state.default))
    start = 0.0 if state.default is state.empty else declared.start
    numbers = [name for name in keywords if name not in options.SUPPLIED]
    named = isinstance(start, str) and (start in numbers or (start == WEIGHT and not declared.is_scalar))
    if not named and (isinstance(start, bool) or not isinstance(start, (int, float)) or math.isnan(start)):
        others = [f"at one of {listed(numbers)}"] if numbers else []
        other = " or ".join(others if declared.is_scalar and others else [*others, "as the WEIGHT"])
        raise TypeError(
            f"The state {state.name} of the rule {rule} must start at a number (as no default says, at 0) or {other}. "
            f"{received(state.name, start)} Hyper-parameters stand after a *."
        )
    if declared.of not in (ELEMENT, ROWS, COLUMNS, *PAIRS, TENSOR, GROUP, OPTIMIZER):
        raise TypeError(
            f"The state {state.name} of the rule {rule} has a number for each {declared.of}; a rule keeps one for each "
            "element, of the ROWS, of the COLUMNS, of the ROW_PAIRS or COLUMN_PAIRS of a matrix, of a TENSOR, a GROUP "
            "or an OPTIMIZER. Write one of these as `of`."
        )
    if declared.of in (ROWS, COLUMNS, *PAIRS) and start == WEIGHT:
        raise TypeError(
            f"The state {state.name} of the rule {rule} has one number for each of the {declared.of}, and cannot start "
            "as the WEIGHT, which has one for each element. Give a number."
        )
    return State(start if isinstance(start, str) else float(start), declared.of)


@dataclass(frozen=True, eq=False)
class Program:
    """A rule with its options, as a graph: what to store, and the numbers that it reads at each step.

    `states` are those of the rule and of its options; `outputs` maps `w` and the states to their new values; what the
    rule leaves alone is not in it. `numbers_kept` are its states that are one number of many tensors; `new_numbers` the
    new values of these, and of the states that are one number of a tensor. `gradient` is what became of the gradient
    before the rule saw it, `rate` the learning rate that it saw: None where it has none.
    `guard` is a sum that is finite for a tensor where its gradient is, or None where nobody asks. `keywords` and
    `documentation` are the rule's own; `kernels` are those that have been made of the program, by their formats.
    """

    name: str
    keywords: Collection[str]
    documentation: str | None
    states: dict[str, State]
    outputs: dict[str, Node]
    numbers: tuple[str, ...]
    guard: Node | None = None
    numbers_kept: dict[str, State] = field(default_factory=dict)
    new_numbers: dict[str, Node] = field(default_factory=dict)
    gradient: options.Gradient | None = None
    rate: Node | None = None
    kernels: dict[Any, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def by_rows(self) -> bool:
        """Whether it has values for rows, columns or matrices."""
        return any(space.is_narrow for space in self._spaces)

    @cached_property
    def calls(self) -> bool:
        """Whether it calls functions of whole matrices."""
        return any(node.op == CALL for node in walk([*self.outputs.values(), *self.new_numbers.values()]))

    @cached_property
    def own_numbers(self) -> list[str]:
        """Its states that are one number of each tensor."""
        return [name for name, state in self.states.items() if state.of is TENSOR]

    @cached_property
    def by_shapes(self) -> bool:
        """Whether the rule is another for tensors of other shapes."""
        return bool({*options.OF_SHAPES} & {*self.keywords})

    @cached_property
    def flattened(self) -> bool:
        """Whether a tensor's rows are all that is at one place of its first dimension, however many more there are."""
        return "flattened" in self.keywords

    @property
    def sees_matrices(self) -> bool:
        """Whether rows and columns are those of the matrices that a tensor is made of, not of its last dimensions."""
        return self.flattened or self.calls

    @property
    def _spaces(self) -> set[Space]:
        return {node.space for node in walk([*self.outputs.values(), *self.new_numbers.values()])} | {
            state.of for state in self.states.values()
        }

    @cached_property
    def wide(self) -> list[str]:
        """What it makes one number of for many parameters: by their names, or as it computes them."""
        return [name for name in self.new_numbers if name in self.numbers_kept] or self._sums(OPTIMIZER)

    @cached_property
    def of_tensors(self) -> list[str]:
        """The first of what it has one number of for each tensor, as it computes it."""
        return self._sums(TENSOR)

    def _sums(self, over: Space) -> list[str]:
        """The first of its sums over that space, as it computes it."""
        below = walk([*self.outputs.values(), *self.new_numbers.values()])
        return [inline(node) for node in below if node.op == REDUCTION and node.label.over == over][:1]

    def made_of(self, number: str) -> set[str]:
        """The values of a group that the new value of a number is made of, but for what sums bring."""
        below = walk([self.new_numbers[number]], into_reductions=False)
        return {node.label.split("[")[0] for node in below if node.op == "scalar"} - {*self.numbers_kept}

    @cached_property
    def made_of_all(self) -> dict[str, str]:
        """The values that numbers of an optimizer are made of, each with one of these numbers."""
        kept = self.numbers_kept
        of_all = [number for number in self.new_numbers if number in kept and kept[number].of == OPTIMIZER]
        return {name: number for number in reversed(of_all) for name in sorted(self.made_of(number))}

    @cached_property
    def of_groups(self) -> list[str]:
        """Those of its numbers that belong to a group, in its order."""
        return [name for name in self.numbers if name not in (*PER_STEP, *self.own_numbers)]

    @cached_property
    def places(self) -> list[tuple[str, int | None]]:
        """Where a group's numbers are found: a name, and an index where that names several."""
        parts = (name.rstrip("]").split("[") for name in self.of_groups)
        return [(name, int(index[0]) if index else None) for name, *index in parts]


def _narrower(value: Node, of: Space, own: Collection[str]) -> str | None:
    """What in the new value of a number has more than one value within what it is one number of."""
    for node in walk([value], into_reductions=False):
        if node.op in (*LOADS, SIZE):
            return str(node.label)
        if node.op == "scalar" and of is not TENSOR and node.label in ("step", *own):
            return str(node.label)
        if node.op == REDUCTION and isinstance(node.label.over, Space) and node.label.over not in (OPTIMIZER, of):
            return formula(node, [])
    return None


def symbol_of(name: str, value: Any) -> Any:
    """What a rule sees for an argument: itself where it steers the trace, a symbol where it is a number."""
    check_argument(name, value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(symbol_of(f"{name}[{i}]", item) for i, item in enumerate(value))
    return Symbol(scalar(name))


def check_argument(name: str, value: Any) -> None:
    """Refuse what is no number, bool, string or None, or a tuple of these: a symbol for it would be something else."""
    given = value if isinstance(value, Enum) else plain(value)
    for item in given if isinstance(given, (tuple, list)) else (given,):
        if isinstance(item, Enum) or not (item is None or isinstance(item, (bool, str, int, float, Tensor))):
            raise TypeError(
                f"{name} must be a number, a bool, a string or None, or a tuple of these, to be an argument of a rule. "
                f"{received(name, value)} Give the parts that the rule needs, each as an argument of its own."
            )


def fixed(value: Any) -> Any:
    """The part of a value that a program depends on: flags, strings, structure; of a number, only that it is one."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(map(fixed, value))
    found = value if type(value) in (float, int) else plain(value)
    return ... if found is value else fixed(found)


def trace(rule: Rule, arguments: Mapping[str, Any], chosen: options.Options) -> Program:
    """The program of a rule under these options; traced once for each set of fixed arguments."""
    names = signature(rule).keywords
    arguments = {name: value for name, value in arguments.items() if name in names}
    key = (tuple(arguments), fixed([*arguments.values()]), chosen)
    made = _made_for(rule)
    found = made.get(key)
    return found if found is not None else made.setdefault(key, _trace(rule, arguments, chosen))


def _check_space(rule: str, name: str, value: Node, state: State | None) -> None:
    """Refuse a new state with more values than it is declared to have."""
    of = None if state is None or state.is_number else state.of
    if (of in PAIRS) != (value.space in PAIRS) or (of in PAIRS and value.space is not of):
        wanted = "one for each element" if of is None else f"one for each of {of.plural}"
        raise TypeError(
            f"The new {name} of the rule {rule} is one for each of {value.space.plural}; it must be {wanted}."
        )
    if of in (ROWS, COLUMNS) and joined([value.space, of]) is not of:
        raise TypeError(
            f"The state {name} of the rule {rule} is one number for each of the {of}, but its new value is one for "
            f"each of {value.space.plural}. Write mean(x, over={of.name.upper()}) or another reduction over them."
        )


def _trace(rule: Rule, arguments: Mapping[str, Any], chosen: options.Options) -> Program:
    form = signature(rule)
    chosen = tuple(key for key in chosen if key not in form.keywords)  # a decay that is the rule's own
    name = getattr(rule, "__name__", "rule")
    scalars = {name: state.of for name, state in form.states.items() if state.is_scalar}
    own = [name for name, of in scalars.items() if of is TENSOR]
    loads = {name: load(name) for name in ("w", "g")}
    loads |= {name: scalar(name) if state.is_scalar else load(name, state.of) for name, state in form.states.items()}
    gradient = options.before(loads["w"], loads["g"], chosen)
    rate = None
    symbols = {key: symbol_of(key, plain(value)) for key, value in arguments.items()}
    if isinstance(lr := symbols.get("lr"), Symbol):
        rate = options.through(options.Place.RATE, chosen, lr.node)
        symbols["lr"] = Symbol(rate)
    states = [Symbol(loads[state]) for state in form.states]
    result = rule(Symbol(loads["w"]), Symbol(gradient.seen), *states, **symbols)
    results = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    if len(results) != 1 + len(form.states):
        what = f"{len(results)} values" if isinstance(result, (tuple, list)) else f"one {type(result).__name__}"
        raise TypeError(
            f"The rule {shortened(name)} must return the new weight and its {len(form.states)} states "
            f"({listed(('w', *form.states))}); it returned {what}. Hyper-parameters stand after a *."
        )
    outputs = {}
    for tensor, value in zip(("w", *form.states), results, strict=True):
        node = node_of(value)
        if node is None:
            raise TypeError(
                f"The rule {shortened(name)} must return an expression for {tensor!r}; it returned {shown(value)}, a "
                f"{shortened(type(value).__name__)}. Of a condition write where(condition, 1.0, 0.0)."
            )
        outputs[tensor] = node
        _check_space(shortened(name), tensor, node, form.states.get(tensor))
    new_numbers = {number: outputs.pop(number) for number in scalars}
    for number, value in new_numbers.items():
        if wrong := _narrower(value, of := scalars[number], own):
            instead = (
                "Write total(x) or another reduction over the tensor."
                if of is TENSOR
                else "Write total(x, over=OPTIMIZER) or another reduction over the optimizer, and count steps by a "
                "number of its own."
            )
            raise TypeError(
                f"The number {number} of the rule {shortened(name)} is one for each {of}, but its new value depends on "
                f"{wrong}, of which there are more. {instead}"
            )
    outputs["w"] = options.through(options.Place.WEIGHT, chosen, outputs["w"])
    kept = {**form.tensors}
    for state, act in options.at(options.Place.STATE, chosen):
        kept[state], outputs[state], loads[state] = State(WEIGHT), act(outputs["w"]), load(state)
    outputs = {tensor: value for tensor, value in outputs.items() if value is not loads[tensor]}
    if {*options.OF_SHAPES} & {*form.keywords}:  # with one, a rule keeps of each tensor what it has a use for there
        used = {*walk([*outputs.values(), *new_numbers.values()])}
        written = {*outputs, *new_numbers}
        kept = {state: declared for state, declared in kept.items() if loads[state] in used or state in written}
    guard = next((act(loads["g"]) for _, act in options.at(options.Place.SUM, chosen)), None)
    new_numbers = {number: value for number, value in new_numbers.items() if value is not loads[number]}
    roots = [*outputs.values(), *new_numbers.values(), *([] if guard is None else [guard])]
    numbers = {n.label: None for n in walk(roots) if n.op == "scalar"}
    return Program(
        name,
        [*form.keywords],
        inspect.getdoc(rule),
        kept,
        outputs,
        tuple(numbers),
        guard,
        form.numbers_kept,
        new_numbers,
        gradient,
        rate,
    )
