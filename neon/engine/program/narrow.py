"""Lowering of what there is one value for in each row, column or matrix: the loops between passes over elements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from neon.engine.program import graph
from neon.engine.program.graph import ELEMENT_LEAVES, REDUCTION, Node, is_narrow_sum, walk
from neon.engine.program.kernel import Narrow, Stage, numbers_of
from neon.engine.program.spaces import COLUMNS, ELEMENT, MATRIX, ROWS, TENSOR, Space, joined

# The order of stores: a value for a matrix is read by the loops over its rows and columns, which are done by then.
_ORDER = (ROWS, COLUMNS, MATRIX, TENSOR)


def narrowed(root: Node, of: Space) -> Node:
    """The same graph of elements, where there is one value for each of a narrower space."""
    if of is ELEMENT:
        return root
    new: dict[Node, Node] = {}
    for node in walk([root], into_reductions=False):
        if node.op == "index_high":
            new[node] = graph.word(0)
        elif node.op in ELEMENT_LEAVES and node.space is ELEMENT:
            new[node] = graph.node(node.op, (), node.label, node.kind, of)
        elif node.op != REDUCTION and any(new[a] is not a for a in node.args):
            new[node] = graph.node(node.op, tuple(new[a] for a in node.args), node.label, node.kind)
        else:
            new[node] = node
    return new[root]


class Known:
    """What a stage finds beside each tensor: what is kept, and sums of elements along rows and columns."""

    def __init__(self, kept: Collection[Node]) -> None:
        self._kept = kept

    def __contains__(self, node: object) -> bool:
        return isinstance(node, Node) and (node in self._kept or (node.op == REDUCTION and not is_narrow_sum(node)))


def narrow_stage(
    needed: Iterable[Node], kept: Collection[Node], stores: Mapping[str, Node], spaces: Mapping[str, Space]
) -> Stage | None:
    """The stage that computes what a pass over elements needs beside what is kept already, and writes states.

    Reductions come first, those that others need before these; each result is kept. All else is computed from what is
    kept and from states, wherever it is needed.
    """
    needed = [node for node in dict.fromkeys(needed) if node not in kept]
    if not needed and not stores:
        return None
    loops = _reducing([*needed, *stores.values()], Known(kept))
    done = {*kept, *(node for loop in loops for node in loop.reductions)}
    for of in _ORDER:
        values = tuple(node for node in needed if node.space is of and node not in done)
        loops += [Narrow(of, values)] if values else []
    for of in _ORDER:
        stored = {name: root for name, root in stores.items() if spaces[name] is of}
        loops += [Narrow(of, stores=stored)] if stored else []
    roots = [root for loop in loops for root in loop.roots]
    return Stage((), {}, numbers_of(roots, Known(done)), (), narrow=tuple(loops))


def _reducing(roots: Iterable[Node], known: Known) -> list[Narrow]:
    """The loops that take reductions of values for rows and columns."""
    depth: dict[Node, int] = {}
    taken: dict[tuple[int, int], list[Node]] = defaultdict(list)
    for node in walk(roots, given=known):
        depth[node] = max((depth[a] for a in node.args), default=0) if node not in known else 0
        if node.op == REDUCTION and node not in known:
            of = joined(operand.space for operand in node.args)
            taken[depth[node], _ORDER.index(of)].append(node)
            depth[node] += 1
    return [Narrow(_ORDER[of], reductions=tuple(taken[order, of])) for order, of in sorted(taken)]
