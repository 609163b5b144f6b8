"""gen_backend: what programs of the documented framework begin with."""

from __future__ import annotations

from typing import Any

import torch

from neon.arguments import positive_integer, rounding, whole_number
from neon.backends.backend import Backend, default
from neon.messages import received, shown


def gen_backend(
    backend: str = "cpu",
    *unnamed: Any,
    batch_size: int | None = None,
    rng_seed: int | None = None,
    datatype: Any = None,
    stochastic_round: bool = False,
    device_id: int = 0,
    max_devices: int | None = None,  # noqa: ARG001
    compat_mode: str | None = None,
    deterministic: bool | None = None,  # noqa: ARG001
    deterministic_update: bool | None = None,  # noqa: ARG001
) -> Backend:
    """Set the batch size, by which all optimizers divide summed gradients (default 1), and seed torch and `be.rng`.

    A `batch_size` that is given is the default of datasets too, as `neon.data.ArrayIterator` describes it. Without an
    `rng_seed`, torch's generator stays as it is. All but `backend` go by name: the documented framework has them in an
    order of its own.

    The other arguments are those of programs of the documented framework, where one backend holds every tensor. Here
    tensors are torch's: a model is on the device and in the dtype that it is moved to, and rounding is an option of
    each optimizer. So these arguments change nothing, and other values than those that hold anyway are refused:
    `backend` "cpu" or "mkl", `datatype` float32, `stochastic_round` False, `device_id` 0, `compat_mode` None.
    `max_devices`, `deterministic` and `deterministic_update` mean nothing here.

    Raises `ValueError` or `TypeError` with what to write in their place.
    """
    if unnamed:
        raise TypeError(
            f"gen_backend takes the backend alone without a name. Received: {shown(unnamed)} after it. Name the "
            "others: gen_backend('cpu', batch_size=128)."
        )
    size, seed = check_backend(backend, batch_size, rng_seed, datatype, stochastic_round, device_id, compat_mode)
    if seed is not None:
        torch.manual_seed(seed)
    default.seed(seed)
    default.bsz = 1 if size is None else size
    default.has_batch_size = size is not None
    return default


def check_backend(
    backend: Any = "cpu",
    batch_size: Any = None,
    rng_seed: Any = None,
    datatype: Any = None,
    stochastic_round: Any = False,
    device_id: Any = 0,
    compat_mode: Any = None,
) -> tuple[int | None, int | None]:
    """Refuse what `gen_backend` refuses, and set nothing. Returns the batch size and the seed."""
    if not isinstance(backend, str):
        raise TypeError(f"backend must be a string. {received('backend', backend)} Name the others: batch_size=128.")
    if backend not in ("cpu", "mkl"):
        raise _not_here(f"backend={shown(backend)}", "layers are torch modules", 'move the model: model.to("cuda")')
    if datatype is not None and _name_of(datatype) != "float32":
        instead = "convert the model: model.to(torch.bfloat16)"
        raise _not_here(f"datatype={_name_of(datatype)}", "the dtype is the model's", instead)
    if rounding("stochastic_round", stochastic_round) is not False:
        instead = "write Adam(stochastic_round=True)"
        raise _not_here(f"stochastic_round={stochastic_round!r}", "it is an option of each optimizer", instead)
    if whole_number("device_id", device_id) != 0:
        instead = f'move the model: model.to("cuda:{device_id}")'
        raise _not_here(f"device_id={device_id!r}", "layers are torch modules", instead)
    if compat_mode is not None:
        why = "sizes of convolutions and dropout are torch's"
        raise _not_here(f"compat_mode={shown(compat_mode)}", why, "give the layers their padding")
    size = None if batch_size is None else positive_integer("batch_size", batch_size)
    seed = None if rng_seed is None else whole_number("rng_seed", rng_seed)
    if seed is not None and seed >= 2**64:
        raise ValueError(f"rng_seed must be less than 2**64. {received('rng_seed', rng_seed)}")
    return size, seed


def _not_here(given: str, why: str, instead: str) -> ValueError:
    """The error of a setting that is not the backend's here."""
    return ValueError(f"{given} cannot be set here: {why}. Leave it out, and {instead}.")


def _name_of(datatype: Any) -> str:
    """The name of a dtype of torch's or numpy's, or the text that it was given as."""
    name = getattr(datatype, "__name__", None) or getattr(datatype, "name", None) or shown(datatype, 40)
    return str(name).strip("'").removeprefix("torch.")
