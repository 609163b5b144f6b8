"""Signs: which states of a program are never negative, and so need no bit for a sign."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from neon.engine.program import graph
from neon.engine.program.graph import ELEMENT_LEAVES, REDUCTION, Node, walk
from neon.engine.program.operations import ALWAYS, FLOAT, LIKE_OPERANDS, OPERATIONS
from neon.engine.program.reductions import kind_of
from neon.engine.program.trace import Program

_found: WeakKeyDictionary[Program, frozenset[str]] = WeakKeyDictionary()


def never_negative(program: Program) -> frozenset[str]:
    """The states that stay at zero or above, where they begin there and the hyper-parameters are not negative."""
    found = _found.get(program)
    return found if found is not None else _found.setdefault(program, _never_negative(program))


def _never_negative(program: Program) -> frozenset[str]:
    numbers = {*program.numbers_kept, *program.own_numbers}
    held = {n for n, state in program.states.items() if not state.starts_as_weight and state.number >= 0} - numbers
    while True:
        signs = _not_negative(program.outputs.values(), held, numbers)
        kept = {name for name in held if name not in program.outputs or program.outputs[name] in signs}
        if kept == held:
            return frozenset(held)
        held = kept


def _not_negative(roots: Iterable[Node], held: set[str], signed: set[str]) -> set[Node]:
    """The nodes that are never negative where the states `held` are not, nor any number but those that are `signed`."""
    found: set[Node] = set()
    # The sign of a product is that of its factors, of which pairs of one and the same have none.
    odd: dict[Node, frozenset[Node]] = {}
    for node in walk(roots):
        odd[node] = odd[node.args[0]] ^ odd[node.args[1]] if node.op == "mul" else frozenset([node])
        match node.op:
            case "pow":  # whatever the exponent
                holds = node.args[0] in found
            case graph.SIZE | graph.PRECISION:
                holds = True
            case "const":
                holds = node.label >= 0
            case "scalar":
                holds = node.label not in signed
            case _ if node.op == REDUCTION:
                known = kind_of(node).never_negative
                holds = known == ALWAYS or (known == LIKE_OPERANDS and found.issuperset(node.args))
            case "load":
                holds = node.label in held
            case "sub":  # 1 − β: of numbers alone that do not persist, rules take what is left of one
                leaves = [below for below in walk([node]) if below.op in (*ELEMENT_LEAVES, "scalar")]
                holds = all(leaf.op == "scalar" and leaf.label not in signed for leaf in leaves)
            case "mul":
                holds = found >= odd[node]
            case _:
                known = OPERATIONS[node.op].never_negative if node.op in OPERATIONS else None
                operands = (a for a in node.args if a.kind == FLOAT)
                holds = known == ALWAYS or (known == LIKE_OPERANDS and found.issuperset(operands))
        if holds:
            found.add(node)
    return found


def signed_by(program: Program) -> frozenset[str]:
    """The numbers whose sign may become that of a value that looks as if it were never negative.

    All but exponents, and numbers of calls: of what those make nothing is known.
    """
    below = [node for node in walk(program.outputs.values()) if node.op != graph.CALL]
    operands = [(node.op, place, operand) for node in below for place, operand in enumerate(node.args)]
    names = (operand.label for op, place, operand in operands if operand.op == "scalar" and (op, place) != ("pow", 1))
    return frozenset(name.split("[")[0] for name in names)
