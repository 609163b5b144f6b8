"""Random numbers that depend on a seed and a place in the run, never on what ran before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


def derived_seed(seed: int, *place: str | int) -> int:
    """A 63-bit seed for one place in a run, such as ``("batches", epoch)``.

    >>> derived_seed(0, "batches", 1) == derived_seed(0, "batches", 1)
    True
    >>> derived_seed(0, "batches", 1) == derived_seed(0, "batches", 2)
    False
    """
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def seeded(seed: int, *place: str | int) -> Iterator[None]:
    """Seed torch, numpy and Python inside the block, and put their states back after it.

    A model's dropout therefore draws the same numbers in an epoch whether or not the run was
    interrupted before it, and the caller's own random numbers are not disturbed.
    """
    # numpy's global generator, because a user's model may draw its weights from it
    number = derived_seed(seed, *place)
    python_state, numpy_state = random.getstate(), numpy.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        random.seed(number)
        numpy.random.seed(number % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            numpy.random.set_state(numpy_state)  # noqa: NPY002


def batch_order(samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The permutation of the training samples in an epoch; the same for every optimizer."""
    generator = torch.Generator("cpu").manual_seed(derived_seed(seed, "batches", epoch))
    return torch.randperm(samples, generator=generator, device="cpu")
