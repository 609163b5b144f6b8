"""What libraries do under one name: each line is a run of the library beside an equation in numpy, and beside neon.

    benchmarks/names.sh                            # a temporary environment with the packages, then this
    python benchmarks/names.py [--rule PART]       # where they are installed
    python benchmarks/names.py --markdown          # docs/names.md, for which numpy is enough

A line of names_lines.py holds a rule, how it is made in a library, what is to be known of it, its equation
(names_equations.py) with the library's own defaults, and what steps the same in neon. All are run on the same weights
and gradients. A library has to agree within 1e-9 of the way it went, 1e-4 where some of its numbers are float32, and
1e-3 where weights are. What neon does not have yet is said, and fails nothing.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import sys
import types
from collections import defaultdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from names_lines import LINES, NOT, Line, library

DISTRIBUTIONS = {"optimi": "torch-optimi"}
IN_FLOAT32 = "bitsandbytes", "keras", "optax"
TIMM = {
    "_optim_factory": "create_optimizer_v2", "adabelief": "AdaBelief", "adafactor": "Adafactor", "adamw": "AdamWLegacy",
    "adan": "Adan", "adopt": "Adopt", "lamb": "Lamb", "lars": "Lars", "lion": "Lion", "lookahead": "Lookahead",
    "mars": "Mars", "nadamw": "NAdamW", "rmsprop_tf": "RMSpropTF",
}  # fmt: skip
WEIGHTS = np.array([2.0, -1.5, 0.5, -1.0])
GRADIENTS = np.array([[0.5, -2.0, 0.25, 1.0], [0.75, -1.0, -0.5, 0.5], [-0.25, -1.5, 1.0, 0.75], [1.0, 0.5, 0.25, 2.0]])
HEAD = """# One name, several rules

Libraries mean different things by one name: another place of ε, another default, a decay that is or is not times the
rate. Whoever switches finds here what changes, and what steps the same in neon.

"First step" is how far a weight of 2.0 moves by the gradient 0.5, one of four weights, in units of the rate. `p` are
parameters, `schedule` a schedule of rates. `neon.torch` has torch's classes as drop-ins; the others are in
`neon.optimizers`; ≈ marks what differs by the place of a tiny ε, or by rounding.

Each line is a run of the library beside its equation in numpy, with the defaults that are stated, and of neon's form:
`benchmarks/names.sh` repeats them, and with `--markdown` writes this page. Versions: torch 2.13.0, timm 1.0.31,
pytorch_optimizer 4.1.0, optax 0.2.8, keras 3.15.1, bitsandbytes 0.50.2 on the CPU, torch-optimi 0.3.3,
transformers 5.24.0, prodigyopt 1.1.2, schedulefree 1.4.1.

| rule | library | what it does | first step | in neon |
| --- | --- | --- | --- | --- |
"""


def start(line: Line) -> np.ndarray:
    weights = np.tile(WEIGHTS * (not line.zero), line.copies)
    return weights.reshape(2, -1) if line.matrix else weights


def gradients(line: Line) -> list[np.ndarray]:
    shape = start(line).shape
    return [
        np.tile(line.small * GRADIENTS[i % 4] * (1 + i // 4), line.copies).reshape(shape) for i in range(line.steps)
    ]


def expected(line: Line) -> list[np.ndarray]:
    """The weights after each step by the equation."""
    weights, states, seen = start(line), defaultdict(float), []
    for i, gradient in enumerate(gradients(line)):
        rate = {"lr": line.rates[i]} if line.rates else {}
        weights = line.equation(weights, gradient, i + 1, states, **rate)
        seen.append(weights)
    return seen


def stepped(line: Line, make: str) -> list[np.ndarray]:
    """The weights after each step of what an expression makes: torch's interface, keras's or optax's."""
    by = {"keras": with_keras, "optax": with_optax}.get(make.split(".")[0], with_torch)
    return by(line, make)


@cache
def modules() -> dict[str, Any]:
    """What expressions name. Of timm a few files are imported, without models; keras and optax compute in float64."""
    logging.disable(logging.CRITICAL)  # bitsandbytes warns of kernels that no optimizer needs
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    names = (
        "bitsandbytes",
        "optax",
        "optimi",
        "prodigyopt",
        "pytorch_optimizer",
        "schedulefree",
        "torch",
        "transformers",
    )
    found = {name: importlib.import_module(name) for name in names}
    _ = found["transformers"].Adafactor, importlib.import_module("optax.contrib")  # before timm is half there
    folder = Path(importlib.util.find_spec("timm").origin).parent  # type: ignore[union-attr, arg-type]
    for name, path in (("timm", folder), ("timm.optim", folder / "optim")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    sys.modules["timm.models"] = models = types.ModuleType("timm.models")  # torchvision's, and no optimizer's
    models.group_parameters = None  # type: ignore[attr-defined]
    timm = sys.modules["timm"]
    timm.optim = sys.modules["timm.optim"]  # type: ignore[attr-defined]
    for file, name in TIMM.items():
        setattr(timm.optim, name, getattr(importlib.import_module(f"timm.optim.{file}"), name))
    return found | {"timm": timm, "keras": keras, "jnp": jax.numpy}


def with_torch(line: Line, make: str, names: dict[str, Any] | None = None) -> list[np.ndarray]:
    import torch

    dtype = torch.float32 if make.startswith("bitsandbytes") else torch.float64
    weight = torch.nn.Parameter(torch.tensor(start(line), dtype=dtype))
    optimizer, seen = eval(make, (names or modules()) | {"p": [weight]}), []  # noqa: S307
    if names and hasattr(optimizer, "attach"):
        optimizer = optimizer.attach([weight])
    getattr(optimizer, "train", lambda: None)()
    for i, gradient in enumerate(gradients(line)):
        for group in optimizer.param_groups if line.rates else ():
            group["lr"] = line.rates[i]
        weight.grad = torch.tensor(gradient, dtype=dtype)
        optimizer.step()
        seen.append(weight.detach().numpy().astype(np.float64))
    return seen


def with_keras(line: Line, make: str) -> list[np.ndarray]:
    keras = modules()["keras"]
    weight, optimizer, seen = keras.Variable(start(line)), eval(make, modules()), []  # noqa: S307
    for i, gradient in enumerate(gradients(line)):
        if line.rates:
            optimizer.learning_rate = line.rates[i]
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
        seen.append(np.array(keras.ops.convert_to_numpy(weight)))
    return seen


def with_optax(line: Line, make: str) -> list[np.ndarray]:
    optax, jnp = modules()["optax"], modules()["jnp"]
    schedule = lambda count: jnp.array(line.rates)[count]  # noqa: E731
    optimizer, weight, seen = eval(make, modules() | {"schedule": schedule}), jnp.array(start(line)), []  # noqa: S307
    state = optimizer.init(weight)
    for gradient in gradients(line):
        update, state = optimizer.update(jnp.array(gradient), state, weight)
        weight = optax.apply_updates(weight, update)
        seen.append(np.array(weight))
    return seen


def with_neon(line: Line) -> list[np.ndarray] | None:
    """None where neon, or the class, is not there."""
    try:
        import neon.optimizers
        import neon.torch
    except ModuleNotFoundError:
        return None
    make = line.neon.removeprefix("≈ ")
    home, name = (
        (neon.torch, make.split("(")[0][11:])
        if make.startswith("neon.torch")
        else (neon.optimizers, make.split("(")[0])
    )
    if not hasattr(home, name):
        return None
    return with_torch(line, make, {"neon": neon, **vars(neon.optimizers)})


def apart(seen: list[np.ndarray], wanted: list[np.ndarray], line: Line) -> float:
    """The largest difference after any step, relative to the farthest that a weight went."""
    way = max(np.max(np.abs(w - start(line))) for w in wanted)
    return max(float(np.max(np.abs(s - w))) for s, w in zip(seen, wanted, strict=True)) / (way or 1.0)


def first_step(line: Line) -> str:
    """Of the first weight, in units of the rate."""
    rate = line.rates[0] if line.rates else getattr(line.equation, "keywords", {}).get("lr")
    if not rate or not line.unit:
        return ""
    return f"{float((start(line) - expected(line)[0]).flat[0]) / rate:.3g}"


def markdown() -> str:
    rows = []
    for line in LINES:
        made = ", ".join(f"`{make}`" for make in (line.make, *line.also))
        neon = NOT if line.neon == NOT else f"≈ `{line.neon[2:]}`" if line.neon[0] == "≈" else f"`{line.neon}`"
        rows.append(f"| {line.rule} | {made} | {line.says} | {first_step(line)} | {neon} |\n")
    return HEAD + "".join(rows)


def checked(line: Line) -> tuple[list[str], bool]:
    """What is printed of a line, and whether all is as it says."""
    wanted, rows, good = expected(line), [], True
    for make in (line.make, *line.also):
        exact = make == line.make and library(make) not in IN_FLOAT32 and not line.rounds
        beside = apart(stepped(line, make), wanted, line)
        same = beside < (1e-9 if exact else 1e-3 if library(make) == "bitsandbytes" else 1e-4)
        rows.append(f"{'yes' if same else 'NO':4}{beside:8.0e}  {made_by(make):25}  {make}")
        good = good and same
    if line.neon != NOT:
        seen = with_neon(line)
        if seen is None:
            return [*rows, f"    not here  neon                       {line.neon}"], good
        beside = apart(seen, wanted, line)
        same = beside < (1e-4 if line.neon[0] == "≈" else 1e-9)
        rows.append(f"{'yes' if same else 'NO':4}{beside:8.0e}  {'neon':25}  {line.neon}")
        good = good and same
    return rows, good


def made_by(make: str) -> str:
    """The library and its version."""
    name = library(make)
    return f"{name} {version(DISTRIBUTIONS.get(name, name))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rule", default="", help="a part of a line's rule or expression")
    parser.add_argument("--markdown", action="store_true", help="print docs/names.md, and run nothing")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(), end="")
        return
    lines = [line for line in LINES if options.rule.lower() in f"{line.rule} {line.make}".lower()]
    failed = 0
    for line in lines:
        first = first_step(line)
        print(f"{line.rule}: {line.says}" + (f" First step: {first}." if first else ""))
        try:
            rows, good = checked(line)
        except Exception as error:
            rows, good = [f"NO  {line.make}: {type(error).__name__}: {error}"], False
        failed += not good
        print("\n".join(f"    {row}" for row in rows), flush=True)
    print(f"{len(lines) - failed} of {len(lines)} lines are so.")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
