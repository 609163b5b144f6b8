"""Signs: which states of a program are never negative, and so need no bit for a sign."""

from __future__ import annotations

from functools import lru_cache

from neon.engine.graph import REDUCTION, Node
from neon.engine.trace import Program

# A negative zero counts as negative: √−0 is one, and so may be the maximum of 0 and −0.
_ALWAYS = {"abs", "exp", "power_of_two", REDUCTION}
_IF_ALL_ARE = {"add", "mul", "div", "pow", "minimum", "maximum", "sqrt"}


@lru_cache(maxsize=1024)
def never_negative(program: Program) -> frozenset[str]:
    """The states that stay at zero or above, where they begin there and the hyper-parameters are not negative."""
    held = {name for name, initial in program.states.items() if initial is not None and initial >= 0}
    while True:
        kept = {name for name in held if name not in program.outputs or _holds(program.outputs[name], held)}
        if kept == held:
            return frozenset(held)
        held = kept


def _holds(node: Node, held: set[str]) -> bool:
    match node.op:
        case "const":
            return node.label >= 0
        case "scalar":
            return True
        case "load":
            return node.label in held
        case "sub":  # 1 − β: of numbers alone, rules take what is left of one
            return not node.varies
        case "where":
            return all(_holds(branch, held) for branch in node.args[1:])
    if node.op == "mul" and node.args[0] is node.args[1]:
        return True
    return node.op in _ALWAYS or (node.op in _IF_ALL_ARE and all(_holds(argument, held) for argument in node.args))
