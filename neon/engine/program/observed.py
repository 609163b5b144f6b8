"""A kernel that also sums what people want to know of a step: stores and reductions that nothing else reads.

w₀ and w₁ are the weight as it is stored before and after the step, g the gradient as it arrived: unscaled, not clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neon.engine.program.graph import LOADS, Node, apply, walk
from neon.engine.program.kernel import Kernel, Observed, Stage, Sweep, loads_of, numbers_of
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
    sums, numbers = _sums(kernel, last), _numbers(kernel)
    operands = tuple(dict.fromkeys(operand for reduction in sums.values() for operand in reduction.args))
    reductions = tuple(sums.values())
    if kernel.by_rows or last.peaks:  # whose pass that stores does not sum: another one before it does
        scalars = dict.fromkeys((*numbers_of(operands), *numbers.values()))
        looking = Stage(reductions, {}, tuple(scalars), (Sweep(loads_of(operands), operands),))
        stages = (*before, looking, last)
    else:
        roots = (*last.stores.values(), *operands)
        scalars = dict.fromkeys((*numbers_of(roots), *numbers.values()))
        sweep = Sweep(loads_of(roots), operands, last.stores)
        stages = (*before, Stage(reductions, last.stores, tuple(scalars), (sweep,)))
    places = {name: [*scalars].index(node) for name, node in numbers.items()}
    made = replace(kernel, stages=stages, observed=Observed(len(kernel.stages) - 1, tuple(sums), places), executables={})
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
        "unmoved": reduce("total", _EACH, apply("where", stays, 1.0, 0.0)),
        "lost": reduce("total", _EACH, apply("where", stays, apply("where", apply("equal", g, 0.0), 0.0, 1.0), 0.0)),
    }
    if clipped is not unclipped:
        sums["clipped"] = reduce("total", _EACH, apply("where", apply("equal", clipped, unclipped), 0.0, 1.0))
    return sums


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
