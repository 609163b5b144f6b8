"""A kernel that also sums what people want to know of a step: stores and reductions that nothing else reads.

w₀ and w₁ are the weight as it is stored before and after the step, g the gradient as it arrived: unscaled, not clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neon.engine.program.graph import LOADS, Node, apply, walk
from neon.engine.program.kernel import Kernel, Observed, Stage, loads_of, numbers_of
from neon.engine.program.lowering import decoded, replaced
from neon.engine.program.reductions import reduce
from neon.engine.program.spaces import STEP, Scope
from neon.engine.program.verify import verify

# The key of such a kernel beside that of its formats.
_OBSERVED = "observed"
# What is summed of each tensor.
_EACH = Scope("observed")


def observed(kernel: Kernel) -> Kernel:
    """The kernel that does the same to the bit, and sums what there is to know; made once."""
    made, key = kernel.program.kernels, (kernel.formats, _OBSERVED)
    return made.get(key) or made.setdefault(key, _observed(kernel))


def _observed(kernel: Kernel) -> Kernel:
    *before, last = kernel.stages
    found = Observed(_sums(kernel, last), _numbers(kernel))
    operands = tuple(dict.fromkeys(operand for reduction in found.sums.values() for operand in reduction.args))
    # What there is to see is computed where the weight is, or last.
    at = next((place for place, sweep in enumerate(last.sweeps) if "w" in sweep.stores), len(last.sweeps) - 1)
    sweeps = [*last.sweeps]
    roots = (*sweeps[at].stores.values(), *sweeps[at].of_block.values(), *sweeps[at].values, *operands)
    sweeps[at] = replace(sweeps[at], loads=loads_of(roots, sweeps[at].given), seen=operands)
    scalars = dict.fromkeys((*numbers_of((*last.stores.values(), *operands)), *found.numbers.values()))
    looking = replace(last, scalars=tuple(scalars), sweeps=tuple(sweeps), seen=tuple(found.sums.values()))
    made = replace(kernel, stages=(*before, looking), observed=found, executables={})
    verify(made)
    return made


def _sums(kernel: Kernel, last: Stage) -> dict[str, Node]:
    """The sums over each tensor, by name."""
    known, weight = decoded(kernel.program, kernel.formats), kernel.formats.weight.decode("w")
    stored = {node: last.stores.get(node.label, node) for node in walk([weight]) if node.op in LOADS}
    [after] = replaced([weight], stored)
    gradient = kernel.program.gradient
    assert gradient is not None
    g, unclipped, clipped = replaced([gradient.arrived, gradient.unclipped, gradient.clipped], known)
    stays = apply("equal", after, weight)
    sums = {
        "gradient": reduce("sum_of_squares", _EACH, g),
        "weight": reduce("sum_of_squares", _EACH, weight),
        "update": reduce("sum_of_squares", _EACH, after - weight),
        "largest": reduce("largest", _EACH, g),
        "unmoved": reduce("count", _EACH, apply("where", stays, 1.0, 0.0)),
        "lost": reduce("count", _EACH, apply("where", stays, apply("where", apply("equal", g, 0.0), 0.0, 1.0), 0.0)),
    }
    if clipped is not unclipped:
        moved = apply("where", apply("equal", clipped, unclipped), 0.0, apply("where", _is_number(unclipped), 1.0, 0.0))
        sums["clipped"] = reduce("count", _EACH, moved)
    return sums


def _is_number(value: Node) -> Node:
    """Whether it is not NaN, which is not equal to itself."""
    return apply("equal", value, value)


def _numbers(kernel: Kernel) -> Mapping[str, Node]:
    """The factors of norms, outermost first, and the learning rate, as far as the rule depends on them."""
    program = kernel.program
    assert program.gradient is not None
    known = decoded(program, kernel.formats)
    used = {*walk([*program.outputs.values(), *program.new_numbers.values()])}
    factors = [factor for factor in program.gradient.factors if factor in used]
    found = {f"factor {place}": node for place, node in enumerate(replaced(factors, known))}
    if program.rate is not None and program.rate in used and program.rate.space is STEP:
        found["rate"] = program.rate
    return {name: node for name, node in found.items() if node.op != "const"}
