"""What numba's source calls on numbers: bit for bit what eager computes, whatever the number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit

from neon.engine.backends import numba_intrinsics as intrinsics
from neon.engine.program.operations import OPERATIONS

FRACTIONS = {"float32": (23, 0x3504F3), "float64": (52, 0x6A09E667F3BCC)}


def numbers(dtype: str) -> np.ndarray:
    """Numbers of every exponent, of either sign, with fractions around those where something changes."""
    bits, root = FRACTIONS[dtype]
    word = np.dtype(dtype.replace("float", "uint"))
    exponents = np.arange(1 << (word.itemsize * 8 - 1 - bits), dtype=np.uint64) << np.uint64(bits)
    fractions = np.array([0, 1, root - 1, root, root + 1, root + 2, (1 << bits) - 1, 1 << (bits - 1)], np.uint64)
    positive = (exponents[:, None] | fractions).ravel()
    return np.concatenate([positive, positive | np.uint64(1 << (word.itemsize * 8 - 1))]).astype(word).view(dtype)


def words(values: np.ndarray) -> np.ndarray:
    return values.view(values.dtype.str.replace("f", "u"))


@pytest.mark.parametrize("dtype", FRACTIONS)
@pytest.mark.parametrize("name", ["sign", "power_of_two", "floor"])
def test_functions_of_one_number(name: str, dtype: str) -> None:
    function, values = getattr(intrinsics, name), numbers(dtype)

    @njit(error_model="numpy")
    def apply(values, results):  # type: ignore[no-untyped-def]
        for i in range(len(values)):
            results[i] = function(values[i])

    results = np.empty_like(values)
    apply(values, results)
    expected = OPERATIONS[name].torch(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(words(results), words(expected))


@pytest.mark.parametrize("dtype", FRACTIONS)
@pytest.mark.parametrize("bound", [-1.0, 1.0, 2.0**-130, -np.inf])
@pytest.mark.parametrize(("of_bound", "of_two"), [("at_least", "maximum"), ("at_most", "minimum")])
def test_a_bound_is_what_any_second_number_is(of_bound: str, of_two: str, bound: float, dtype: str) -> None:
    short, long = getattr(intrinsics, of_bound), getattr(intrinsics, of_two)
    values, limit = numbers(dtype), np.dtype(dtype).type(bound)

    @njit(error_model="numpy")
    def apply(values, short_results, long_results):  # type: ignore[no-untyped-def]
        for i in range(len(values)):
            short_results[i], long_results[i] = short(values[i], limit), long(values[i], limit)

    bounded, chosen = np.empty_like(values), np.empty_like(values)
    apply(values, bounded, chosen)
    np.testing.assert_array_equal(words(bounded), words(chosen))
