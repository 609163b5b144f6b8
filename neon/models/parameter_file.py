"""The file that `Model.save_params` writes: safe to interrupt, checked before it is loaded."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neon.assignment.param_list import param_entry
from neon.layers.layer import InferringLayer, Shape
from neon.messages import listed, shortened
from neon.stepping.in_place import refuse_in_place, way_in_place
from neon.stepping.kept_numbers import keep_numbers, numbers_of
from neon.stepping.update_counts import set_updates, updates_of
from neon.whole_files import write_atomically


def save(model: Any, path: str | os.PathLike[str], *, keep_states: bool) -> None:
    """What `Model.save_params` does: whatever happens, `path` holds either the previous file or the new one."""
    _refuse_averages(model)
    params = known_params(model)
    entries = {name: param_entry(value) for name, value in model.named_parameters()} if keep_states else {}
    states = {name: kept for name, (_, kept) in entries.items()}
    updates = {name: updates_of(entry) for name, entry in entries.items()}
    kept = {"params": params, "states": states, "updates": updates, "epoch": model.epoch, "random": random_states()}
    numbers = {name: {n: float(v) for n, v in numbers_of(entry).items()} for name, entry in entries.items()}
    if any(numbers.values()):
        kept["numbers"] = numbers
    write_atomically(Path(path).resolve(), lambda file: torch.save(kept, file))  # a link stays a link


def random_states() -> dict[str, Any]:
    """The states of torch's random numbers, on the processor and on GPUs that are in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def load(model: Any, path: str | os.PathLike[str], *, load_states: bool, random_state: bool) -> None:
    """What `Model.load_params` does."""
    _refuse_averages(model)
    saved = read_saved(path)
    if found := list(differences(model, saved["params"])):
        raise ValueError(f"{path} does not fit this model: {shortened('; '.join(found), 360)}")
    model.load_state_dict(saved["params"])
    states, updates = (saved["states"], saved.get("updates")) if load_states else ({}, {})
    for name, parameter in model.named_parameters():
        entry = param_entry(parameter)
        entry[1][:] = [moved(state, parameter.device) for state in states.get(name, [])]
        if updates is not None:  # older files count the updates of states alone, on these
            set_updates(entry, updates.get(name, 0))
        keep_numbers([entry], saved.get("numbers", {}).get(name, {}) if load_states else {})
    model.epoch = saved["epoch"]
    if random_state and "random" in saved:  # older files have none
        torch.set_rng_state(saved["random"]["cpu"])
        for device, state in enumerate(saved["random"]["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)


def _refuse_averages(model: nn.Module) -> None:
    if way := way_in_place(state for value in model.parameters() for state in param_entry(value)[1]):
        refuse_in_place(way)


def known_params(model: nn.Module) -> dict[str, Any]:
    """A model's parameters and buffers by name. They must have seen an input, to have a shape."""
    params = model.state_dict()
    if waiting := [key for key, value in params.items() if is_lazy(value)]:
        raise ValueError(
            f"Cannot save {', '.join(waiting)}: without an input yet, they have no shape. "
            "Train the model, or call it once on a minibatch, first."
        )
    return params


def read_saved(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `save_params` wrote. Nothing in the file is executed."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        # of a file that was cut short torch seeks a place before its beginning
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ValueError(f"{path} is not a file that Model.save_params wrote") from error
    if not isinstance(saved, dict) or saved.keys() - {"updates", "numbers", "random"} != {"params", "states", "epoch"}:
        raise ValueError(f"{path} is not a file that Model.save_params wrote")
    return saved


def moved(state: Tensor, device: torch.device) -> Tensor:
    """A state on another device, with what an optimizer noted on it (its count of updates)."""
    here = state.to(device)
    vars(here).update(vars(state))
    return here


def differences(model: nn.Module, params: dict[str, Any]) -> Iterator[str]:
    """What keeps parameters from being loaded into a model, a clause each."""
    here = model.state_dict()
    if missing := [key for key in here if key not in params]:
        yield f"the file lacks {listed(missing)}"
    if surplus := [key for key in params if key not in here]:
        yield f"the model lacks {listed(surplus)}"
    for key, value in here.items():
        expected = expected_shape(model, key, value)
        if key in params and expected is not None:
            shape = tuple(params[key].shape)
            if not fits(shape, expected):
                sizes = ", ".join("any" if size is None else str(size) for size in expected)
                yield f"{key} has shape {shape} in the file, ({sizes}) here"


def expected_shape(model: nn.Module, key: str, value: Any) -> Shape | None:
    """The shape of a parameter, as far as it is known; None where nothing is."""
    if not is_lazy(value):
        return tuple(value.shape) if isinstance(value, Tensor) else None
    owner, _, leaf = key.rpartition(".")
    layer = model.get_submodule(owner)
    return layer.shapes[leaf] if isinstance(layer, InferringLayer) else None


def fits(shape: tuple[int, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, size) for size, wanted in zip(shape, expected, strict=True)
    )
