"""The backend object that neon's optimizers and layers know as `be`: batch size, arrays, functions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neon.arguments import positive_integer
from neon.backends.array_functions import FUNCTIONS
from neon.backends.arrays import array, filled, filled_like
from neon.messages import shortened
from neon.old_paths import names_of

__all__ = ["Backend", "NervanaObject", "default"]

# What a word makes: the value that it fills a tensor with.
_FILLED = {"zeros": 0.0, "ones": 1.0, "empty": None}
# What the documented framework asks besides when it makes an array.
_MEANINGLESS = {"name", "persist_values", "parallel", "distributed"}


class Backend:
    """`bsz`, the batch size, and functions by name: `be.zeros_like(x)`, `be.sqrt(x)`, `be.dot(a, b)`, ...

    They are torch's, but for those of the documented framework that torch spells otherwise or means otherwise:

    - `array(ary, dtype=None)`, `zeros`, `ones`, `empty(shape, dtype=None)`: float32 by default, dtypes of numpy or
      torch; `zeros_like`, `ones_like`, `empty_like(ary, dtype=None)`; `iobuf(n)`.
    - `dot` of matrices, `maximum` and `minimum` with a number too, `clip(a, a_min, a_max)`, `power`, `sig` (1/(1+e⁻ˣ)),
      `fabs`, `safelog` (log max(x, e⁻⁵⁰)), `equal` (by element), ..., all with `out=`.
    - `sum`, `mean`, `var`, `std` (over n), `max`, `min` over everything, or over an `axis`, which stays with size 1
      unless `keepdims=False`; `argmax`, `argmin` (axis 1 by default).

    Arrays are torch tensors: `x.numpy()` is what `x.get()` is there, and samples are the first dimension. They keep
    as many dimensions as they are given. Names, places and persistence of arrays mean nothing here.

    `rng` is a numpy RandomState, of the seed that `gen_backend` is given.
    """

    compat_mode = None

    def __init__(self, batch_size: int = 1) -> None:
        self.bsz = batch_size
        # Whether a program has said how large its minibatches are: datasets go by it then.
        self.has_batch_size = False
        self.seed(None)

    def seed(self, rng_seed: int | None) -> None:
        """Start `rng` anew, from a seed or, for None, from anywhere."""
        self.rng_seed = rng_seed
        parts = rng_seed if rng_seed is None or rng_seed < 2**32 else [rng_seed % 2**32, rng_seed >> 32]
        self.rng = np.random.RandomState(parts)  # the numbers that programs of before know

    @property
    def bsz(self) -> int:
        """The number of samples in a minibatch, by which `optimize` divides summed gradients."""
        return self._bsz

    @bsz.setter
    def bsz(self, value: int) -> None:
        self._bsz = positive_integer("bsz", value)

    def array(self, ary: Any, dtype: Any = None, **_others: Any) -> Tensor:
        """A copy as a tensor of dtype float32, or of the one given."""
        return array(ary, dtype)

    def iobuf(self, dim0: Any, x: Tensor | None = None, dtype: Any = None, **_others: Any) -> Tensor:
        """Zeros for a minibatch of samples with `dim0` features or of that shape, (bsz, *dim0); `x` where it is given.

        >>> Backend(batch_size=4).iobuf(3).shape
        torch.Size([4, 3])
        """
        shape = dim0 if isinstance(dim0, (tuple, list)) else (dim0,)
        return filled(0.0, (self.bsz, *shape), dtype=dtype) if x is None else x

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _FILLED:
            return partial(_made, filled, _FILLED[name])
        if name.endswith("_like") and (kind := name.removesuffix("_like")) in _FILLED:
            return partial(_made, filled_like, _FILLED[kind])
        if name in FUNCTIONS:
            return FUNCTIONS[name]
        if not hasattr(torch, name):
            raise AttributeError(
                f"The backend has no {shortened(name)}: it has torch's functions, and those that Backend's docstring "
                "lists. Write it in torch's words."
            )
        return getattr(torch, name)

    def __repr__(self) -> str:
        return f"Backend(batch_size={self.bsz})"


def _made(make: Any, value: Any, *args: Any, **given: Any) -> Tensor:
    """An array, whatever is said of its name, its place and its life."""
    return make(value, *args, **{word: setting for word, setting in given.items() if word not in _MEANINGLESS})


# The backend of every optimizer that is given none of its own.
default = Backend()


class NervanaObject:
    """What has a backend, `be`: the one that `gen_backend` sets; and a `name`, None by default."""

    be = default
    name: str | None = None

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    @property
    def classnm(self) -> str:
        """The name of its class."""
        return type(self).__name__


__getattr__ = names_of("neon.backends", __name__)
