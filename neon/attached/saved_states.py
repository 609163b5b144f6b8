"""Saved states: what keeps a parameter from loading a tensor of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neon.engine.program.formats import FORMATS, weight_dtypes
from neon.engine.program.formats.split import LOW_BITS
from neon.engine.program.options import AVERAGE
from neon.engine.program.signs import never_negative
from neon.engine.program.slots import at
from neon.engine.program.spaces import ELEMENT, TENSOR
from neon.engine.program.trace import Program
from neon.engine.settings import Settings
from neon.engine.tensors.kept import is_one_number
from neon.engine.tensors.weight_matrices import Matrices, shape_of
from neon.messages import shown
from neon.stepping.sharding import is_sharded, keeps_blocks, local

# The weight of a parameter that had the values of its average when it was saved.
TRAINED = "trained_weight"
# What a state has beside the states of its rule.
NOT_OF_RULES = {"step", "scales", LOW_BITS, AVERAGE, TRAINED}

# The states of torch's rules, by whose names a checkpoint of another rule is told from what others keep.
OF_TORCH = {
    "acc_delta", "ax", "col_var", "eta", "exp_avg", "exp_avg_sq", "exp_inf", "grad_avg", "max_exp_avg_sq",
    "momentum_buffer", "mu", "mu_product", "prev", "row_var", "square_avg", "step_size", "sum", "variance",
}  # fmt: skip


def copied(value: Any, device: torch.device) -> Any:
    """A copy of what a state holds, on a device, in the precision and layout that it has."""
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: copied(item, device) for key, item in value.items()}
    return type(value)(copied(item, device) for item in value) if type(value) in (list, tuple) else value


def wrong_count(value: Any) -> str | None:
    """What is wrong with the count of a parameter's steps."""
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    counts = isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number < math.inf
    return None if counts else f"is {value!r} in the checkpoint; it must be a number of steps"


def wrong_state(key: str, value: Any, param: Tensor, settings: Settings, matrices: Matrices) -> str | None:
    """What is wrong with a saved state of a parameter that is to go by these settings, and is made of matrices."""
    program = settings.program_of(param, matrices)
    form = FORMATS.get(value.dtype) if isinstance(value, Tensor) else None
    of = program.states[key].of if key in program.states else ELEMENT
    if of is TENSOR:
        return None if is_one_number(value) else f"is {shown(value)} in the checkpoint; it must be one number"
    shape = shape_of(of, param.shape, matrices if program.calls else None)
    if wrong := _wrong_tensor(value, param, shape, _served(key, program)):
        return wrong
    assert form is not None
    if form.block > 1:
        if param.dtype == torch.float64:
            return f"has dtype {value.dtype} in the checkpoint; the parameter is float64, and so are its states"
        if not keeps_blocks(param):
            return f"has dtype {value.dtype} in the checkpoint, in blocks that the parameter's placements would cut"
    elif not keeps_blocks(param) and key in program.states:
        # torch.distributed.checkpoint copies what was saved into what there is, whatever its dtype.
        part = local(value)
        asked = settings.storage.dtype_of(key, program, local(param), param.numel())
        if FORMATS[asked].block > 1 and bool(part.any()) and torch.equal(part, part.round()):
            return (
                "holds whole numbers alone: codes of blocks that the parameter's placements would cut, copied into a "
                "state that is float32 here"
            )
    return None


def _served(key: str, program: Program) -> Sequence[torch.dtype]:
    """The dtypes that a state can have: one without a sign where it needs none."""
    if key == AVERAGE or (key in program.states and program.states[key].starts_as_weight):
        return weight_dtypes()
    # A state that the rule does not use now, as a maximum that is switched off, stays as it was.
    unsigned = key not in program.states or key in never_negative(program)
    return [dtype for dtype, form in FORMATS.items() if form.signed or unsigned]


def wrong_auxiliary(state: Mapping[str, Any], param: Tensor, settings: Settings) -> Iterator[str]:
    """What is wrong with auxiliary tensors: scales of blocks, low bits of the weight."""
    dtypes = {key: value.dtype for key, value in state.items() if isinstance(value, Tensor) and value.dtype in FORMATS}
    needed = {a.path: (key, a) for key, dtype in dtypes.items() for a in FORMATS[dtype].auxiliary(key)}
    for folder in {a.path[0] for dtype in FORMATS.values() for a in dtype.auxiliary("")}:
        held = state.get(folder, {})
        if not isinstance(held, Mapping):
            yield f"{folder} is {held!r} in the checkpoint; it must be a dict of tensors"
            return
        if lone := [key for key in held if (folder, key) not in needed]:
            yield (
                f"there are {folder} of {', '.join(map(repr, lone))} in the checkpoint, which is no state of 8 bits "
                "there"
            )
    for path, (key, slot) in needed.items():
        if (found := at(state, path)) is None:
            yield f"{key} has dtype {dtypes[key]} and no {path[0]} in the checkpoint"
        elif wrong := _wrong_tensor(found, param, slot.space.shape(param.shape), [slot.dtype]):
            yield f"{path[0]} of {key}: the tensor {wrong}"
    if TRAINED in state and (wrong := _wrong_tensor(state[TRAINED], param, param.shape, weight_dtypes())):
        yield f"{TRAINED} {wrong}"
    if LOW_BITS in state and settings.storage.split:  # without, they are left from another time, and let go soon
        if not settings.storage.splits(param):
            yield (
                f"{LOW_BITS} is in the checkpoint; the parameter has dtype {param.dtype}, and low bits are kept of "
                "bfloat16 with master='split'"
            )
        elif wrong := _wrong_tensor(state[LOW_BITS], param, param.shape, [param.dtype]):
            yield f"{LOW_BITS} {wrong}"


def _wrong_tensor(value: Any, param: Tensor, shape: Sequence[int], dtypes: Iterable[torch.dtype]) -> str | None:
    """What is wrong with a tensor that belongs to a parameter."""
    if not isinstance(value, Tensor):
        return f"is {value!r} in the checkpoint; it must be a tensor"
    if tuple(value.shape) != tuple(shape):
        wanted = "parameter has" if tuple(shape) == tuple(param.shape) else "parameter asks for"
        return f"has shape {tuple(value.shape)} in the checkpoint; the {wanted} shape {tuple(shape)}"
    if value.dtype not in dtypes:
        return f"has dtype {value.dtype} in the checkpoint; served are {', '.join(map(str, dtypes))}"
    if is_sharded(value) != is_sharded(param):
        here, there = (f"{'' if is_sharded(t) else 'not '}distributed" for t in (param, value))
        return (
            f"is {there} in the checkpoint, the parameter is {here}: load by "
            "torch.distributed.checkpoint.state_dict.set_optimizer_state_dict"
        )
    return None
