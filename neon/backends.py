"""The backend object that neon's optimizers and layers know as `be`: batch size, arrays, functions."""

from __future__ import annotations

from typing import Any

import torch

from neon.arguments import positive_integer, rounding, whole_number
from neon.messages import received, shown

__all__ = ["Backend", "NervanaObject", "gen_backend"]


class Backend:
    """`bsz`, the batch size, and torch's functions by name: `be.zeros_like`, `be.sqrt`, `be.square`, ..."""

    def __init__(self, batch_size: int = 1) -> None:
        self.bsz = batch_size

    @property
    def bsz(self) -> int:
        """The number of samples in a minibatch, by which `optimize` divides summed gradients."""
        return self._bsz

    @bsz.setter
    def bsz(self, value: int) -> None:
        self._bsz = positive_integer("bsz", value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(torch, name)

    def __repr__(self) -> str:
        return f"Backend(batch_size={self.bsz})"


# The backend of every optimizer that is given none of its own.
default = Backend()


class NervanaObject:
    """What has a backend, `be`: the one that `gen_backend` sets."""

    be = default


def gen_backend(
    backend: str = "cpu",
    batch_size: int = 1,
    rng_seed: int | None = None,
    datatype: Any = None,
    stochastic_round: bool = False,
    device_id: int = 0,
) -> Backend:
    """Set the batch size that all optimizers divide summed gradients by, and torch's seed if `rng_seed` is given.

    The other arguments are those of programs of the documented framework, where one backend holds every tensor. Here
    tensors are torch's: a model is on the device and in the dtype that it is moved to, and rounding is an option of
    each optimizer. So these arguments change nothing, and other values than those that hold anyway are refused:
    `backend` "cpu" or "mkl", `datatype` float32, `stochastic_round` False, `device_id` 0.

    Raises `ValueError` or `TypeError` with what to write in their place.
    """
    if not isinstance(backend, str):
        raise TypeError(f"backend must be a string. {received('backend', backend)} Name the others: batch_size=128.")
    if backend not in ("cpu", "mkl"):
        raise ValueError(
            f"backend={shown(backend)} cannot be set here: layers are torch modules. Leave it out, and move the model: "
            'model.to("cuda").'
        )
    if datatype is not None and _name_of(datatype) != "float32":
        raise ValueError(
            f"datatype={_name_of(datatype)} cannot be set here: the dtype is the model's. Leave it out, and convert "
            "the model: model.to(torch.bfloat16)."
        )
    if rounding("stochastic_round", stochastic_round) is not False:
        raise ValueError(
            f"stochastic_round={stochastic_round!r} cannot be set here: it is an option of each optimizer. Leave it "
            "out, and write Adam(stochastic_round=True)."
        )
    if whole_number("device_id", device_id) != 0:
        raise ValueError(
            f"device_id={device_id!r} cannot be set here: layers are torch modules. Leave it out, and move the model: "
            f'model.to("cuda:{device_id}").'
        )
    size = positive_integer("batch_size", batch_size)
    if rng_seed is not None:
        seed = whole_number("rng_seed", rng_seed)
        if seed >= 2**64:
            raise ValueError(f"rng_seed must be less than 2**64. {received('rng_seed', rng_seed)}")
        torch.manual_seed(seed)
    default.bsz = size
    return default


def _name_of(datatype: Any) -> str:
    """The name of a dtype of torch's or numpy's, or the text that it was given as."""
    name = getattr(datatype, "__name__", None) or getattr(datatype, "name", None) or shown(datatype, 40)
    return str(name).strip("'").removeprefix("torch.")
