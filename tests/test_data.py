"""ArrayIterator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from neon.backends import gen_backend
from neon.data import ArrayIterator, NervanaDataIterator


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


def test_positional_arguments_are_the_documented_frameworks() -> None:
    train = ArrayIterator(np.ones((6, 12)), np.arange(6), 10, (3, 2, 2), True, "train", batch_size=4, shuffle=False)
    (inputs, targets), (_, last) = train
    assert inputs.shape == (4, 3, 2, 2)
    assert targets.dtype == torch.float32
    assert np.array_equal(torch.cat([targets, last]).numpy(), np.eye(10)[:6])
    assert (train.nbatches, train.ndata, train.nclass, train.name) == (2, 6, 10, "train")
    assert train.shape == train.lshape == (3, 2, 2)
    assert ArrayIterator(np.ones((6, 12))).shape == 12
    train.reset()
    assert next(iter(train))[0].shape == (4, 3, 2, 2)


@pytest.mark.parametrize("labels", [[2, 0], [[2], [0]], np.array([2.0, 0.0]), torch.tensor([2, 0], dtype=torch.uint8)])
def test_labels_of_any_kind_come_as_one_hot(labels: Any) -> None:
    ((_, targets),) = ArrayIterator(np.ones((2, 1)), labels, nclass=3, shuffle=False)
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_targets_stay_as_they_are_without_classes() -> None:
    values = np.array([[0.5, 1.0], [2.0, -1.0]])
    for given in ({}, {"make_onehot": False}, {"make_onehot": False, "nclass": 3}):
        ((_, targets),) = ArrayIterator(np.ones((2, 1)), values, shuffle=False, **given)
        assert targets.tolist() == values.tolist()
    ((inputs, targets),) = ArrayIterator(values, None, nclass=3, shuffle=False)  # inputs alone, to get outputs for
    assert torch.equal(inputs, targets)


def test_a_pass_in_order_leaves_the_other_orders_alone() -> None:
    def orders(evaluated: bool) -> list[list[int]]:
        train, found = ArrayIterator(np.zeros((7, 1)), np.arange(7), batch_size=3, seed=5), []
        for _ in range(3):
            if evaluated:
                seen = [targets.tolist() for _, targets in train.in_order()]
                assert seen == [[0, 1, 2], [3, 4, 5], [6]]
            found.append([int(target) for _, targets in train for target in targets])
        return found

    assert orders(evaluated=True) == orders(evaluated=False)


def test_minibatches_are_as_large_as_the_backend_says() -> None:
    assert ArrayIterator(np.ones((3, 1))).batch_size == 128
    be = gen_backend()
    assert ArrayIterator(np.ones((3, 1))).batch_size == 128
    gen_backend(batch_size=2)
    train = ArrayIterator(np.ones((3, 1)))
    assert (train.batch_size, train.be) == (2, be)
    assert ArrayIterator(np.ones((3, 1)), batch_size=3).batch_size == 3
    be.bsz = 5  # as programs set it, too
    assert (train.batch_size, ArrayIterator(np.ones((3, 1))).batch_size) == (2, 5)


def test_a_minibatch_is_a_copy() -> None:
    values = torch.ones(2, 2)
    for inputs, _ in ArrayIterator(values, shuffle=False).in_order():
        inputs += 1
    assert values.tolist() == [[1, 1], [1, 1]]


def test_several_inputs_are_told_apart_from_samples() -> None:
    rows = np.arange(12.0).reshape(6, 2)
    one = ArrayIterator([rows], np.arange(6), shuffle=False)
    assert torch.equal(one.inputs, torch.from_numpy(rows).float())
    samples = ArrayIterator([*rows], np.arange(6))
    assert torch.equal(samples.inputs, one.inputs)
    assert ArrayIterator([*torch.ones(4, 2, 3)], [0, 1, 0, 1]).shape == (2, 3)
    assert len(ArrayIterator([rows, rows]).inputs) == 2  # nothing tells that these are not two samples


def an_iterator(x: Any = ((1.0,), (2.0,)), y: Any = (0, 1), **given: Any) -> ArrayIterator:
    return ArrayIterator(np.array(x), y, **given)


BAD: list[tuple[Any, Any, str]] = [
    (
        lambda: ArrayIterator([np.ones((6, 2))] * 2, np.arange(6), nclass=6),
        ValueError,
        "X must be one array: .*list of 2",
    ),
    (lambda: ArrayIterator([np.ones((6, 2)), np.ones((6, 3))]), ValueError, "X must be one array"),
    (lambda: ArrayIterator([[1.0], [1.0, 2.0]]), TypeError, "X must be an array of numbers"),
    (
        lambda: an_iterator(nclass=1),
        ValueError,
        r"from 0 to nclass - 1 = 0. Received: 1 in y. .*make_onehot",
    ),
    (lambda: an_iterator(y=[0, -1], nclass=2), ValueError, "Received: -1 in y"),
    (lambda: an_iterator(y=[0.5, 1], nclass=2), ValueError, "Received: 0.5 in y"),
    (lambda: an_iterator(y=[np.nan, 1], nclass=2), ValueError, "Received: nan in y"),
    (lambda: an_iterator(y=[[0, 1], [1, 0]], nclass=2), ValueError, r"one class number for each.*\(2, 2\)"),
    (lambda: an_iterator(nclass=0), ValueError, "nclass must be at least 1"),
    (lambda: an_iterator(batch_size=0), ValueError, "batch_size must be at least 1. Received: batch_size=0"),
    (lambda: an_iterator(batch_size=2.5), TypeError, "batch_size must be a whole number"),
    (lambda: an_iterator(lshape=(2, 2)), ValueError, r"as many values as one input, 1. Received: lshape=\(2, 2\)"),
    (lambda: an_iterator(lshape=4), TypeError, r"lshape must be the shape of one input"),
    (lambda: an_iterator(make_onehot="no"), TypeError, "make_onehot must be True or False"),
    (lambda: an_iterator(shuffle=3), TypeError, "shuffle must be True or False"),
    (lambda: an_iterator(seed=-1), ValueError, "seed must be at least 0"),
    (lambda: an_iterator(name=4), TypeError, "name must be a string"),
    (lambda: iter(NervanaDataIterator()), NotImplementedError, "must define __iter__"),
]


@pytest.mark.parametrize(("action", "error", "words"), BAD, ids=[words for _, _, words in BAD])
def test_bad_input_is_named(action: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        action()
    assert len(str(raised.value)) <= 500


def test_arrays_in_any_order_of_elements_and_bytes() -> None:
    """Mirrored images have negative strides, which torch's tensors cannot have; files of digits are big-endian."""
    images = np.arange(12.0).reshape(2, 2, 3)
    for X in (images[:, :, ::-1], images[::-1], images.astype(">f4"), images.astype(">i2")):  # noqa: N806
        (inputs, targets) = next(ArrayIterator(X, np.array([1, 0], ">u2")).in_order())
        assert inputs.tolist() == X.tolist()
        assert targets.tolist() == [1, 0]


@pytest.mark.parametrize("values", [np.array([[1j], [1.0]]), torch.ones(2, 1, dtype=torch.complex64)])
def test_complex_numbers_are_refused_as_inputs_and_targets(values: Any) -> None:
    """Their imaginary part was left out in silence."""
    with pytest.raises(TypeError, match="ArrayIterator's X must hold real numbers"):
        ArrayIterator(values, [0, 1])
    with pytest.raises(TypeError, match="ArrayIterator's y must hold real numbers"):
        ArrayIterator([[0.0], [1.0]], values)
