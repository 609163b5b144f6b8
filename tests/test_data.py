"""ArrayIterator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neon.data import ArrayIterator


def test_array_iterator_shuffles_by_seed_and_pass() -> None:
    def two_passes(**kwargs: Any) -> list[list[int]]:
        batches = ArrayIterator(np.eye(10), np.arange(10), batch_size=4, **kwargs)
        assert len(batches) == 3
        passes = []
        for _ in range(2):
            order = []
            for inputs, targets in batches:
                assert inputs.dtype == torch.float32
                assert torch.equal(inputs.argmax(1), targets)
                order += targets.tolist()
            passes.append(order)
        return passes

    first, second = two_passes(seed=3)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert two_passes(seed=3) == [first, second]
    assert two_passes(seed=4)[0] != first
    assert two_passes(shuffle=False) == [list(range(10))] * 2


def test_array_iterator_shapes_inputs_and_stands_in_for_targets() -> None:
    ((inputs, targets),) = ArrayIterator(np.ones((2, 12)), shuffle=False, lshape=(3, 2, 2))
    assert inputs.shape == (2, 3, 2, 2)
    assert targets.shape == (2, 12)
