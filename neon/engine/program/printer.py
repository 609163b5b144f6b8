"""A graph as text: values that are used twice get a name, the rest is written where it is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch

from neon.engine.program.graph import CALL, LEAVES, REDUCTION, SIZE, Node, walk
from neon.engine.program.operations import OPERATIONS

# Python's parser nests parentheses no deeper than 200; long before that a person stops reading.
_DEEPEST = 30

Write = Callable[[Node, list[str]], str]


def assignments(
    roots: Iterable[Node], write: Write, given: Mapping[Node, str] | None = None
) -> tuple[list[tuple[str, str]], list[str]]:
    """The named values in order, and the formulas of the roots.

    `write(node, operands)` prints one operation; `given` holds the text of nodes that are known.
    """
    roots = list(roots)
    texts = dict(given or {})
    uses = Counter(roots)
    nodes = [n for n in walk(roots, into_reductions=False, given=texts) if n not in texts]
    for node in nodes:
        uses.update(node.args)
    named: list[tuple[str, str]] = []
    depth: dict[Node, int] = {}
    for node in nodes:
        written = write(node, [texts.get(a, "") for a in node.args])
        depth[node] = 1 + max((depth.get(a, 0) for a in node.args), default=0)
        if (uses[node] > 1 or depth[node] > _DEEPEST) and node.args and node.op != REDUCTION:
            depth[node] = 0
            name = f"x{len(named)}"
            named.append((name, written))
            written = name
        texts[node] = written
    return named, [texts[root] for root in roots]


def formula(node: Node, operands: list[str], names: Mapping[Node, str] | None = None) -> str:
    """One operation in the notation of a rule."""
    if node.op == REDUCTION:
        inner = ", ".join(inline(argument, names) for argument in node.args)
        return f"{node.label.op}({inner}, over={str(node.label.over)!r})"
    if node.op == CALL:
        choices = [f"{name}={value!r}" for name, value in node.label.choices if value is not None]
        return f"{node.label}({', '.join([*operands, *choices])})"
    if node.op in LEAVES:
        return node.op if node.label is None else f"size({node.label!r})" if node.op == SIZE else str(node.label)
    template = OPERATIONS[node.op].text
    if "(" not in template:
        operands = [f"({o})" if _open(o) else o for o in operands]
    return template.format(*operands)


def inline(node: Node, names: Mapping[Node, str] | None = None) -> str:
    """The whole of a node in one formula, but for what has a name."""
    if names and node in names:
        return names[node]
    return formula(node, [] if node.op == REDUCTION else [inline(a, names) for a in node.args], names)


def _open(operand: str) -> bool:
    """Whether an operand has an operator outside all parentheses."""
    depth = 0
    for character in operand:
        depth += (character == "(") - (character == ")")
        if character == " " and depth == 0:
            return True
    return False


def listing(outputs: Mapping[str, Node], given: Mapping[Node, str] | None = None) -> str:
    """Assignments in the notation of a rule, one a line: the graph as a person reads it.

    What is `given` goes by its name everywhere but in its own line.
    """
    given = given or {}
    others = {node: name for node, name in given.items() if name not in outputs}
    named, formulas = assignments(outputs.values(), partial(formula, names=others), others)
    lines = [f"{name} = {written}" for name, written in named]
    return "\n".join([*lines, *(f"{n} ← {f}" for n, f in zip(outputs, formulas, strict=True))])


def memory_of(dtype: torch.dtype, module: str) -> str:
    """The type that memory is addressed as in generated source: plain numbers, or raw words that a format decodes."""
    plain = dtype in (torch.float32, torch.float64)
    return f"{module}.{str(dtype).removeprefix('torch.') if plain else f'uint{8 * dtype.itemsize}'}"
