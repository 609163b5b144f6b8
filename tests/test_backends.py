"""gen_backend: what programs of the documented framework begin with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from neon import backends
from neon.backends import gen_backend
from neon.optimizers import Adam


@pytest.fixture(autouse=True)
def batch_size_of_before() -> Iterator[None]:
    yield
    backends.default.bsz = 1


@pytest.mark.parametrize("datatype", [np.float32, np.dtype("float32"), torch.float32, "float32", None])
@pytest.mark.parametrize("backend", ["cpu", "mkl"])
def test_what_a_program_gives(backend: str, datatype: Any) -> None:
    be = gen_backend(
        backend=backend, batch_size=128, rng_seed=0, datatype=datatype, stochastic_round=False, device_id=0
    )
    first = torch.rand(3)
    assert be is Adam.be
    assert be.bsz == 128
    gen_backend(backend, batch_size=np.int64(16), rng_seed=np.int64(0))  # type: ignore[arg-type]
    assert (be.bsz, type(be.bsz)) == (16, int)
    assert torch.equal(first, torch.rand(3))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"backend": "gpu"}, ValueError, r"backend='gpu' cannot be set here.*model\.to\(\"cuda\"\)"),
        ({"backend": 128}, TypeError, "backend must be a string. Received: backend=128. Name the others: batch_size="),
        ({"datatype": np.float16}, ValueError, r"datatype=float16 .*model\.to\(torch\.bfloat16\)"),
        ({"datatype": torch.float64}, ValueError, "datatype=float64 cannot"),
        ({"stochastic_round": True}, ValueError, r"stochastic_round=True .*Adam\(stochastic_round=True\)"),
        ({"stochastic_round": 10}, ValueError, "stochastic_round=10 cannot"),
        ({"stochastic_round": "yes"}, TypeError, "stochastic_round must be True, False"),
        ({"device_id": 1}, ValueError, r"device_id=1 .*model\.to\(\"cuda:1\"\)"),
        ({"datatype": np.ones(1000)}, ValueError, r"datatype=<ndarray of shape \(1000,\)> cannot"),
        ({"rng_seed": 2**64}, ValueError, r"rng_seed must be less than 2\*\*64"),
        ({"rng_seed": "one"}, TypeError, "rng_seed must be a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
    ],
)
def test_what_cannot_be_served_says_what_to_write(given: dict[str, Any], error: Any, words: str) -> None:
    before = torch.get_rng_state(), backends.default.bsz
    with pytest.raises(error, match=words):
        gen_backend(**{"batch_size": 8, "rng_seed": 3, **given})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert backends.default.bsz == before[1]
