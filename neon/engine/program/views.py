"""Views: what a weight is at evaluation, as a program that stores the weight and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from neon.arguments import plain
from neon.engine.program.graph import Node, load, walk
from neon.engine.program.options import AVERAGE
from neon.engine.program.symbols import Symbol, node_of
from neon.engine.program.trace import Program, symbol_of
from neon.messages import listed, shortened, shown

# A view is called as the rule is: `view(w, state, *, lr)` takes the states and the numbers of the rule that it reads.
View = Callable[..., Any]

# The views of each program, for as long as both are there.
_made: WeakKeyDictionary[Program, Any] = WeakKeyDictionary()


def view_of(program: Program, view: View | None, values: Mapping[str, Any]) -> Program | None:
    """The program that puts a weight's view in its place; None where a weight is what it is at evaluation too.

    The average of the weights is their view where there is one; a rule cannot have another beside it.
    """
    if AVERAGE in program.states:
        if view is not None:
            raise ValueError(
                f"{shortened(program.name)} says itself what a weight is at evaluation, by {_name(view)}: leave "
                f"{AVERAGE} out."
            )
        view = _average
    if view is None:
        return None
    made = _made.setdefault(program, WeakKeyDictionary())
    found = made.get(view)
    return found if found is not None else made.setdefault(view, _trace(program, view, values))


def _average(w: Any, weight_average: Any) -> Any:  # noqa: ARG001
    """The average of the weights: ā."""
    return weight_average


def _trace(program: Program, view: View, values: Mapping[str, Any]) -> Program:
    """Call a view once with symbols."""
    states, keywords = _read(program, view)
    numbers = {name: symbol_of(name, plain(values[name])) for name in keywords}
    result = view(*(Symbol(load(name)) for name in ("w", *states)), **numbers)
    node = node_of(result)
    if node is None:
        raise TypeError(
            f"The view {_name(view)} must return an expression for the weight; it returned {shown(result)}, a "
            f"{shortened(type(result).__name__)}."
        )
    read = _labels(node, "load")
    kept = {name: state for name, state in program.states.items() if name in read}
    name, documentation = f"{program.name}_{_name(view).strip('_')}", inspect.getdoc(view)
    return Program(name, keywords, documentation, kept, {"w": node}, tuple(_labels(node, "scalar")))


def _read(program: Program, view: View) -> tuple[list[str], list[str]]:
    """The states and the numbers that a view takes; `TypeError` for what its rule does not have."""
    parameters = [*inspect.signature(view).parameters.values()]
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    states = positional[1:]
    strange = [name for name in states if name not in program.states or name in program.own_numbers]
    strange += [name for name in keywords if name not in program.keywords]
    if positional[:1] != ["w"] or strange or len(positional) + len(keywords) != len(parameters):
        raise TypeError(
            f"The view {_name(view)}{shortened(str(inspect.signature(view)), 160)} must take the weight first, then "
            f"states of {shortened(program.name)} ({listed(program.states)}), then numbers that this reads, as "
            f"keywords ({listed(program.keywords)}): def view(w, state, *, lr)."
        )
    return states, keywords


def _labels(node: Node, op: str) -> dict[str, None]:
    return {n.label: None for n in walk([node]) if n.op == op}


def _name(view: View) -> str:
    return getattr(view, "__name__", "view")
