"""torch's swap of an optimizer's parameters and states for others, within a context."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from other_versions import needs_interpreter
from torch import Tensor

import neon.torch
from neon.engine import use_backend

swap = pytest.importorskip("torch.optim._stateless", reason="torch has it from 2.13 on")


def new(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, generator=generator).requires_grad_() for name, n in (("a", 5), ("b", 70))}


def give(params: dict[str, Tensor], seed: int) -> None:
    for p, g in zip(params.values(), new(seed).values(), strict=True):
        p.grad = g.detach()


def take_turns(opt: Any, params: dict[str, Tensor], others: dict[str, Tensor], state: Any, within: Any = None) -> None:
    """Two steps of what is swapped in, `within` it what is to be done, then one of what was there before; thrice."""
    for turn in range(3):
        with swap.swap_in_optimizer_params_and_state(opt, others, state):
            for _ in range(2):
                give(others, 3 + turn)
                opt.step()
            if within is not None:
                within()
        give(params, 9 + turn)
        opt.step()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"])
def test_what_is_swapped_in_is_stepped_where_it_is(name: str) -> None:
    """States that are given go on in their own memory, counts too; those of before are back afterwards."""
    ends = []
    for library in (torch.optim, neon.torch):
        params, others = new(0), new(1)
        opt: Any = getattr(library, name)(params.values(), lr=0.05, **({"momentum": 0.9} if name == "SGD" else {}))
        give(params, 2)
        opt.step()
        state = copy.deepcopy(opt.state_dict())
        take_turns(opt, params, others, state)
        counts = [values["step"] for values in state["state"].values() if "step" in values]
        if counts and library is neon.torch:
            assert counts == [7.0, 7.0]
            assert [opt.state[p]["step"].item() for p in params.values()] == [4.0, 4.0]
        kept = [values[key] for values in state["state"].values() for key in sorted(values) if key != "step"]
        own = [opt.state[p][key] for p in params.values() for key in sorted(opt.state[p]) if key != "step"]
        ends.append([*params.values(), *others.values(), *kept, *own])
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@needs_interpreter
@pytest.mark.parametrize("scaled", [False, True])
def test_what_is_swapped_in_on_a_device_is_counted_where_it_is(scaled: bool) -> None:
    ends = []
    for backend in ("eager", "triton"):
        params, others = new(0), new(1)
        with use_backend(backend):
            opt: Any = neon.torch.Adam(params.values(), capturable=backend == "triton" and not scaled)
            if scaled:
                opt.found_inf = torch.tensor(0.0)
            give(params, 2)
            opt.step()
            state = copy.deepcopy(opt.state_dict())

            def write_and_step(opt: Any = opt, state: Any = state) -> None:
                state["state"][0]["step"].fill_(40.0)
                opt.step()

            take_turns(opt, params, others, state, write_and_step)
        assert [values["step"].item() for values in state["state"].values()] == [41.0, 10.0]
        assert [opt.state[p]["step"].item() for p in params.values()] == [4.0, 4.0]
        ends.append([*params.values(), *others.values()])
    torch.testing.assert_close(*ends, rtol=0, atol=0)
