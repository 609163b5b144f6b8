"""Saved states: what keeps a parameter from taking up a tensor of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neon.engine.program.formats.blocks import BLOCK_CODECS
from neon.engine.program.formats.floats import CODECS
from neon.engine.program.options import AVERAGE
from neon.engine.program.signs import never_negative
from neon.engine.settings import Settings
from neon.engine.tensors.slots import Storage, scale_shape
from neon.stepping.sharding import is_sharded, keeps_blocks, local

# The weight of a parameter that had the values of its average when it was saved.
TRAINED = "trained_weight"
# What a state has beside the states of its rule.
BESIDE = {"step", "scales", "low_bits", AVERAGE, TRAINED}


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


def wrong_state(key: str, value: Any, param: Tensor, settings: Settings) -> str | None:
    """What is wrong with a saved state of a parameter that is to go by these settings."""
    program = settings.program
    served = [
        *CODECS,
        *([torch.int8] if key != AVERAGE else []),
        # A state that the rule does not use now, as a maximum that is switched off, stays as it was.
        *([torch.uint8] if key in never_negative(program) or (key not in program.states and key != AVERAGE) else []),
    ]
    wrong = _wrong_tensor(value, param, param.shape, served)
    if wrong is None and value.dtype in BLOCK_CODECS:
        if param.dtype == torch.float64:
            return f"has dtype {value.dtype} in the checkpoint; the parameter is float64, and so are its states"
        if not keeps_blocks(param):
            return f"has dtype {value.dtype} in the checkpoint, in blocks that the parameter's placements would cut"
    elif wrong is None and not keeps_blocks(param) and key in program.states:
        # torch.distributed.checkpoint copies what was saved into what there is, whatever its dtype.
        part = local(value)
        asked = settings.storage.dtype_of(key, program, local(param), param.numel())
        if asked in BLOCK_CODECS and bool(part.any()) and torch.equal(part, part.round()):
            return (
                "holds whole numbers alone: codes of blocks that the parameter's placements would cut, copied into a "
                "state that is float32 here"
            )
    return wrong


def wrong_beside(state: Mapping[str, Any], param: Tensor, storage: Storage) -> Iterator[str]:
    """What is wrong with the tensors that stand beside states: scales of blocks, low bits of the weight."""
    scales = state.get("scales", {})
    if not isinstance(scales, Mapping):
        yield f"scales is {scales!r} in the checkpoint; it must be a dict of tensors"
        return
    blocks = [key for key, value in state.items() if isinstance(value, Tensor) and value.dtype in BLOCK_CODECS]
    for key in blocks:
        if key not in scales:
            yield f"{key} has dtype {state[key].dtype} and no scales in the checkpoint"
        elif wrong := _wrong_tensor(scales[key], param, scale_shape(param.shape), [torch.float32]):
            yield f"scales of {key}: the tensor {wrong}"
    lone = [key for key in scales if key not in blocks]
    if lone:
        yield f"there are scales of {', '.join(map(repr, lone))} in the checkpoint, which is no state of 8 bits there"
    if TRAINED in state and (wrong := _wrong_tensor(state[TRAINED], param, param.shape, CODECS)):
        yield f"{TRAINED} {wrong}"
    if "low_bits" in state and storage.split:  # without, they are left from another time, and let go in the next step
        if not storage.splits(param):
            yield (
                f"low_bits is in the checkpoint; the parameter has dtype {param.dtype}, and low bits are kept of "
                "bfloat16 with master='split'"
            )
        elif wrong := _wrong_tensor(state["low_bits"], param, param.shape, [param.dtype]):
            yield f"low_bits {wrong}"


def _wrong_tensor(value: Any, param: Tensor, shape: Sequence[int], dtypes: Iterable[torch.dtype]) -> str | None:
    """What is wrong with a tensor that belongs to a parameter."""
    if not isinstance(value, Tensor):
        return f"is {value!r} in the checkpoint; it must be a tensor"
    if tuple(value.shape) != tuple(shape):
        wanted = "parameter has" if tuple(shape) == tuple(param.shape) else "blocks of the parameter ask for"
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
