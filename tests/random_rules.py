"""Random rules: an expression, tensors, formats and options, all drawn from one seed, and how such a case is run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rule_cases import SPECIAL, PlainLayer
from torch import Tensor

from neon.engine import use_backend
from neon.engine.program.formats.blocks import BLOCK
from neon.engine.tensors.layout import flat
from neon.optimizers import OPTIMIZER, Optimizer, functions

SHAPES: list[tuple[int, ...]] = [
    (), (0,), (1,), (7,), (3, 5), (255,), (256,), (257,), (1000,), (4099,), (16, 300), (2, 3, 4, 5), (3, 0, 2),
    (70, 70),
]  # fmt: skip
FORMATS = [None, "float32", "bfloat16", "float16", "int8"]
CONSTANTS = ["0.0", "1.0", "-1.0", "0.5", "2.0", "1e-3", "-0.25", "3", "1e20", "float('inf')"]

# Expressions of values x, y, z and of conditions c, d.
OF_VALUES = [
    "{x} + {y}", "{x} - {y}", "{x} * {y}", "{x} / (abs({y}) + 0.5)", "{x} / {y}", "-{x}", "+{x}", "abs({x})",
    "sqrt(abs({x}))", "sqrt({x})", "sign({x})", "maximum({x}, {y})", "minimum({x}, {y})", "clip({x}, -1.0, 2.0)",
    "power_of_two({x})", "where({c}, {x}, {y})", "{x} * ({c})", "where({c}, {x}, {d})", "{x}**2", "{x}**3",
    "abs({x})**0.5", "{x}**-1", "abs({x})**1.5", "{x} / norm({x})", "{x} - norm({y})", "norm({x} * {y})",
    "{x} - mean({y})", "{x} / (1.0 + largest({y}))", "0.01 * total({x} * {y})", "{x} * sign(dot({x}, {y}))",
    "{x} - mean({y}, over=OPTIMIZER)", "{x} / (norm({y}, over=OPTIMIZER) + 1.0)",
    "0.9 * {x} + 0.1 * {y}", "{x} * {x}", "beta * {x} + (1 - beta) * {y}", "(1 - betas[1]) * {x} * {x}",
]  # fmt: skip
CONDITIONS = ["{x} < {y}", "{x} <= {y}", "{x} > {y}", "{x} >= {y}", "{x} == {y}", "{x} != {y}", "equal({x}, {y})"]
# Of numbers alone, which the host computes.
OF_NUMBERS = [
    "lr", "beta", "betas[0]", "betas[1]", "1 / (1 - betas[0]**step)", "lr / sqrt(step)", "exp(-lr)", "log(1.0 + step)",
    "lr * step", "where(step < 2, lr, beta)", "where(equal(step, 1), 1.0, 1 - beta)", "maximum(lr, 0.5 / step)",
    "step**0.5", "beta**1.5", "norm(g)", "norm(w) / (norm(g) + 1.0)", "power_of_two(lr)", "sign(lr - step)",
    "(step > 1) * beta", "remainder(step, 2)", "where(largest(w, over=OPTIMIZER) > 1.0, 0.5, lr)",
]  # fmt: skip
POWERS = [
    "exp({x})",
    "log(abs({x}) + 1e-3)",
    "abs({x})**lr",
    "(abs({x}) + 0.1)**({y})",
    "1.5**({x})",
    "{x}**7",
    "abs({x})**0.3",
]


@dataclass
class Case:
    """One random rule with what it is given. `powers` has states that are powers of the values, and go nowhere else."""

    seed: int
    source: str
    states: list[str]
    numbers: dict[str, Any]
    dtypes: list[torch.dtype]
    shapes: list[tuple[int, ...]]
    layouts: list[str]
    options: dict[str, Any]
    how: str
    steps: int = 3
    batch_size: int = 1
    scale: float = 1.0
    special: bool = False
    powers: bool = False
    rule: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        scope: dict[str, Any] = {name: getattr(functions, name) for name in functions.__all__}
        scope["OPTIMIZER"] = OPTIMIZER
        exec(compile(self.source, f"<random rule {self.seed}>", "exec"), scope)
        self.rule = scope["rule"]

    def __str__(self) -> str:
        tensors = ", ".join(
            f"{shape} {str(dtype).removeprefix('torch.')} {layout}"
            for shape, dtype, layout in zip(self.shapes, self.dtypes, self.layouts, strict=True)
        )
        return (
            f"random rule {self.seed}, repeated by --random-rules={self.seed}:{self.seed + 1}\n{self.source}\n"
            f"{self.numbers}, {self.options}, {self.how}, batch size {self.batch_size}, scale {self.scale}, "
            f"special {self.special}\n{tensors}"
        )


class Draw:
    """A random expression, line by line."""

    def __init__(self, rng: random.Random, states: Sequence[str]) -> None:
        self.rng = rng
        self.leaves = ["w", "g", *states]
        self.values = list(self.leaves)
        self.lines: list[str] = []

    def value(self) -> str:
        kind = self.rng.random()
        if kind < 0.1:
            return self.rng.choice(CONSTANTS)
        if kind < 0.25:
            return f"({self.rng.choice(OF_NUMBERS)})"
        return self.rng.choice(self.values[-4:] if kind < 0.6 else self.values)

    def text(self, templates: Sequence[str]) -> str:
        parts = {name: self.value() for name in "xyz"}
        parts["x"] = self.rng.choice(self.values)  # something to work on
        if templates is not CONDITIONS:
            parts |= {name: self.text(CONDITIONS) for name in "cd"}
        return self.rng.choice(templates).format(**parts)

    def line(self, templates: Sequence[str] = OF_VALUES) -> str:
        name = f"x{len(self.lines)}"
        self.lines.append(f"{name} = {self.text(templates)}")
        self.values.append(name)
        return name

    def result(self) -> str:
        """What a state, or the weight, becomes: mostly something computed, and every simple thing that there is."""
        kind = self.rng.random()
        if kind < 0.15:
            return self.rng.choice(self.leaves)
        if kind < 0.22:
            return self.rng.choice(OF_NUMBERS)
        if kind < 0.25:
            return self.rng.choice(CONSTANTS)
        if kind < 0.45:
            return f"clip({self.rng.choice(self.values)}, -2.0, 2.0)"
        return self.rng.choice(self.values[-3:])


def draw(seed: int, *, powers: bool = False, shapes: Sequence[tuple[int, ...]] = SHAPES) -> Case:
    """The case of a seed."""
    rng = random.Random(f"{seed} {powers}")
    states = ["a", "b", "m"][: rng.randint(1 if powers else 0, 3)]
    expression = Draw(rng, ["w"] if powers else states)
    for _ in range(rng.randint(1, 7)):
        expression.line()
    if powers:
        results = ["w", *(expression.line(POWERS) for _ in states)]
    else:
        update = f"w - lr * {rng.choice(expression.values)}" if rng.random() < 0.6 else expression.result()
        results = [update, *(expression.result() for _ in states)]
    starts = [f"{state}={rng.choice([0.0, 0.0, 1.0, 0.1, -0.5])}" for state in states]
    head = f"def rule({', '.join(['w', 'g', *starts])}, *, lr=0.01, beta=0.9, betas=(0.9, 0.99), step):"
    source = "\n    ".join([head, *expression.lines, f"return {', '.join(results)}"])
    numbers = {
        "lr": rng.choice([0.01, 0.1, 1.0, 2.0]),
        "beta": rng.choice([0.9, 0.5, 0.0]),
        "betas": (rng.choice([0.9, 0.6]), rng.choice([0.99, 0.9])),
    }
    count = rng.choice([1, 1, 2, 3])
    sizes = [rng.choice(shapes) for _ in range(count)]
    if shapes is SHAPES and rng.random() < 0.03:
        sizes[0] = (70_001,)  # over the border of a chunk
    kinds = [torch.float32] * 3 + [torch.bfloat16, torch.float16, torch.float64]
    dtype = rng.choice([torch.float32, torch.float64] if powers else kinds)
    dtypes = [dtype if powers or rng.random() < 0.8 else rng.choice(kinds) for _ in sizes]
    layouts = [rng.choice(LAYOUTS) for _ in sizes]
    how = "attach" if powers else rng.choice(["attach", "attach", "optimize"])
    options = {} if powers else _options(rng, states, dtypes)
    return Case(
        seed, source, states, numbers, dtypes, sizes, layouts, options, how,
        steps=1 if powers else 3, batch_size=rng.choice([1, 1, 8]) if how == "optimize" else 1,
        scale=rng.choice([1.0, 1.0, 1e-3, 1e3, 1e19]), special=rng.random() < 0.15, powers=powers,
    )  # fmt: skip


def _options(rng: random.Random, states: Sequence[str], dtypes: Sequence[torch.dtype]) -> dict[str, Any]:
    options: dict[str, Any] = {"seed": rng.randrange(1 << 32)}
    for name, values in (
        ("gradient_clip_norm", [0.5, 100.0]), ("gradient_clip_value", [0.1, -2.0]), ("wdecay", [0.1]),
        ("param_clip_value", [0.5, -1.0]), ("maximize", [True]), ("weight_average", [0.9, 0.5]),
    ):  # fmt: skip
        if rng.random() < 0.25:
            options[name] = rng.choice(values)
    kind = rng.random()
    if kind < 0.2 and torch.float16 not in dtypes:
        options["master"] = "split"
    elif kind < 0.5:
        widths = [True] if torch.float64 in dtypes else [True, 5, 10]
        options["stochastic_round"] = rng.choice(widths)
    form = rng.random()
    if form < 0.4:
        options["state_dtype"] = rng.choice(FORMATS)
    elif form < 0.8 and states:
        options["state_dtype"] = {state: rng.choice(FORMATS[1:]) for state in states if rng.random() < 0.8}
    return options


# -- tensors ---------------------------------------------------------------------------------------

LAYOUTS = ["plain", "plain", "transposed", "gradient transposed", "expanded", "strided", "negated", "gradient float32"]


def _lay_out(x: Tensor, layout: str) -> Tensor:
    if x.ndim > 1 and layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":  # every other element of a larger tensor
        larger = torch.zeros(*x.shape, 2, dtype=x.dtype)
        larger[..., 0] = x
        return larger[..., 0]
    return x


def _gradient(x: Tensor, layout: str, how: str) -> Tensor:
    if layout == "gradient transposed":
        return _lay_out(x, "transposed")
    if layout == "expanded" and x.numel():
        return x.flatten()[0].expand(x.shape)
    if layout == "negated":
        return torch._neg_view(x)
    if layout == "gradient float32" and how == "optimize":
        return x.float()
    return _lay_out(x, layout)


def run(case: Case, backend: str) -> list[list[Tensor]]:
    """The tensors of a case after each step; where a block of codes has no value, its codes are zero.

    All steps of one backend, then all of another: the backend, and the batch size, are those of the process.
    """
    generator = torch.Generator().manual_seed(case.seed)
    params = []
    for shape, dtype, layout in zip(case.shapes, case.dtypes, case.layouts, strict=True):
        start = torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)
        params.append(torch.nn.Parameter(_lay_out(start, layout)))
    kind = type("Random", (Optimizer,), {"rule": staticmethod(case.rule)})
    optimizer = kind(**case.numbers, **case.options)
    layer = PlainLayer(params)
    before, ends = optimizer.be.bsz, []
    optimizer.be.bsz = case.batch_size
    try:
        with use_backend(backend):
            attached = optimizer.attach(params) if case.how == "attach" else None
            for _ in range(case.steps):
                for param, layout in zip(params, case.layouts, strict=True):
                    noise = torch.randn(param.shape, generator=generator, dtype=torch.float32) * case.scale
                    if case.special:
                        noise.view(-1)[::11] = torch.tensor(SPECIAL).repeat(noise.numel())[
                            : noise.view(-1)[::11].numel()
                        ]
                    param.grad = None
                    gradient = _gradient(noise.to(param.dtype), layout, case.how)
                    if gradient.dtype != param.dtype:
                        param.grad_dtype = gradient.dtype
                    param.grad = gradient
                if attached is None:
                    optimizer.optimize([layer], 0)
                    kept = [_listed(states, case) for states in layer.states]
                else:
                    attached.step()
                    kept = [_named(attached.state[param]) for param in params]
                pairs = zip(params, kept, strict=True)
                ends.append([t for param, others in pairs for t in (param.detach().clone(), *others)])
    finally:
        optimizer.be.bsz = before
    return ends


def _listed(states: list[Tensor], case: Case) -> Iterator[Tensor]:
    """What a layer keeps: states, then the scales of those in blocks, then perhaps low bits."""
    count = len(case.states) + ("weight_average" in case.options)
    beside = iter(states[count:])
    for state in states[:count]:
        yield from _in_blocks(state, next(beside)) if not state.is_floating_point() else [state.clone()]
    yield from (low_bits.view(torch.int16).clone() for low_bits in beside)


def _named(state: dict[str, Any]) -> Iterator[Tensor]:
    for name, value in state.items():
        if name in state.get("scales", {}):
            yield from _in_blocks(value, state["scales"][name])
        elif name != "scales":
            yield value.view(torch.int16).clone() if name == "low_bits" else value.clone()


def _in_blocks(codes: Tensor, scales: Tensor) -> Iterator[Tensor]:
    spoilt = scales.flatten().isnan().repeat_interleave(BLOCK)[: codes.numel()]
    yield torch.where(spoilt, 0, flat(codes).to(torch.int16))
    yield scales.clone()


def apart(found: Tensor, expected: Tensor) -> float:
    """How many units in the last place they are apart at most; NaN is NaN, and 0 is not −0."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return float("inf")
    if not found.is_floating_point():
        return float("inf") if not torch.equal(found, expected) else 0.0
    word = {2: torch.int16, 4: torch.int32, 8: torch.int64}[found.itemsize]
    if not torch.equal(found.isnan(), expected.isnan()):
        return float("inf")
    a, b = (x.nan_to_num(1.0, float("inf"), float("-inf")).contiguous().view(word) for x in (found, expected))
    return float((a.to(torch.int64) - b.to(torch.int64)).abs().max()) if a.numel() else 0.0
