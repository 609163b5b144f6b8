"""gen_backend: what programs of the documented framework begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from neon import backends
from neon.backends import NervanaObject, gen_backend
from neon.optimizers import Adam


@pytest.fixture(autouse=True)
def batch_size_of_before() -> Iterator[None]:
    yield
    backends.default.bsz = 1


@pytest.mark.parametrize("datatype", [np.float32, np.dtype("float32"), torch.float32, "float32", None])
@pytest.mark.parametrize("backend", ["cpu", "mkl"])
def test_what_a_program_gives(backend: str, datatype: Any) -> None:
    be = gen_backend(
        backend=backend,
        rng_seed=0,
        datatype=datatype,
        batch_size=128,
        stochastic_round=False,
        device_id=0,
        max_devices=2,
        compat_mode=None,
        deterministic_update=True,
        deterministic=False,
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
        ({"compat_mode": "caffe"}, ValueError, "compat_mode='caffe' cannot be set here.* padding"),
    ],
)
def test_what_cannot_be_served_says_what_to_write(given: dict[str, Any], error: Any, words: str) -> None:
    before, be = torch.get_rng_state(), backends.default
    kept = be.bsz, be.has_batch_size, be.rng, be.rng_seed
    with pytest.raises(error, match=words) as raised:
        gen_backend(**{"batch_size": 8, "rng_seed": 3, **given})
    assert torch.equal(torch.get_rng_state(), before)
    assert (be.bsz, be.has_batch_size, be.rng, be.rng_seed) == kept
    assert len(str(raised.value)) <= 500


def test_a_number_without_a_name_is_not_taken_for_another() -> None:
    """The second argument is the seed in the documented framework, and was the batch size here."""
    with pytest.raises(TypeError, match=r"without a name. Received: \(128,\) after it. Name the others: gen_backend"):
        gen_backend("cpu", 128)
    assert backends.default.bsz == 1


@pytest.mark.parametrize("seed", [7, 2**32 + 7])
def test_rng_is_numpys_of_the_seed(seed: int) -> None:
    be = gen_backend(rng_seed=seed)
    first = be.rng.uniform(size=3)
    if seed < 2**32:
        assert (first == np.random.RandomState(seed).uniform(size=3)).all()
    assert (gen_backend(rng_seed=seed).rng.uniform(size=3) == first).all()
    assert (gen_backend(rng_seed=seed + 1).rng.uniform(size=3) != first).all()
    assert be.rng_seed == seed + 1
    assert (be.rng.uniform(size=3) != gen_backend().rng.uniform(size=3)).all()


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_arrays_are_float32_unless_another_dtype_is_given(default: torch.dtype) -> None:
    be, before = gen_backend(batch_size=4), torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        made = [be.array([[1, 2]]), be.zeros((2, 3)), be.ones(2, 3), be.empty(5), be.iobuf(3), be.rand(2, 2)]
    finally:
        torch.set_default_dtype(before)
    assert {value.dtype for value in made} == {torch.float32}
    assert [tuple(value.shape) for value in made] == [(1, 2), (2, 3), (2, 3), (5,), (4, 3), (2, 2)]
    with torch.device("meta"):
        assert {be.zeros(2).device.type, be.array([1.0]).device.type, be.rand(2).device.type} == {"cpu"}
    assert made[0].tolist() == [[1, 2]]
    assert made[1].count_nonzero() == made[4].count_nonzero() == 0
    assert be.zeros((2,), np.int32, name="counts").dtype == be.array([1], dtype="int32").dtype == torch.int32
    assert be.array(3, torch.float64).dtype == be.zeros_like(np.zeros(3)).dtype == torch.float64
    assert be.ones_like(be.zeros((2, 2), dtype=np.float16)).tolist() == [[1, 1], [1, 1]]
    assert be.iobuf((2, 3)).shape == (4, 2, 3)
    assert be.iobuf(3, x=made[0]) is made[0]


def test_an_array_is_a_copy() -> None:
    be, given = backends.default, np.ones(3, np.float32)
    copies = [be.array(given), be.array(torch.from_numpy(given)), be.array(torch.ones(3, requires_grad=True))]
    given[:] = 2
    assert [copy.tolist() for copy in copies] == [[1, 1, 1]] * 3
    assert not copies[2].requires_grad


A = np.random.default_rng(0).normal(size=(3, 4))
B = np.random.default_rng(1).normal(size=(3, 4))

COMPARISONS = ["less", "less_equal", "greater", "greater_equal", "equal", "not_equal"]

# What a program writes, and what the documented framework means by it, in numpy and float64.
WORDS: dict[str, tuple[Callable[[Any, Any, Any], Any], Any]] = {
    "maximum with a number": (lambda be, a, b: be.maximum(a, 0), np.maximum(A, 0)),
    "maximum of a number": (lambda be, a, b: be.maximum(0.5, a), np.maximum(0.5, A)),
    "maximum": (lambda be, a, b: be.maximum(a, b), np.maximum(A, B)),
    "maximum of a row": (lambda be, a, b: be.maximum(a, b[:1]), np.maximum(A, B[:1])),
    "minimum": (lambda be, a, b: be.minimum(a, 0.25), np.minimum(A, 0.25)),
    "clip": (lambda be, a, b: be.clip(a, -0.5, 0.5), np.clip(A, -0.5, 0.5)),
    "clip by name": (lambda be, a, b: be.clip(a, a_min=-0.5, a_max=0.5), np.clip(A, -0.5, 0.5)),
    "power": (lambda be, a, b: be.power(be.fabs(a), 1.5), np.abs(A) ** 1.5),
    "sig": (lambda be, a, b: be.sig(a), 1 / (1 + np.exp(-A))),
    "sig2": (lambda be, a, b: be.sig2(a), 1 / (1 + 2**-A)),
    "tanh2": (lambda be, a, b: be.tanh2(a), (4**A - 1) / (4**A + 1)),
    "safelog": (lambda be, a, b: be.safelog(be.maximum(a, 0)), np.log(np.maximum(A, np.exp(-50)))),
    "sgn": (lambda be, a, b: be.sgn(a), np.sign(A)),
    "rint": (lambda be, a, b: be.rint(a * 2), np.rint(A * 2)),
    "equal": (lambda be, a, b: be.equal(a, be.maximum(a, 0)) * 1.0, (A >= 0) * 1.0),
    "greater": (lambda be, a, b: be.greater(a, 0) * a, (A > 0) * A),
    "a number compared": (
        lambda be, a, b: sum(getattr(be, word)(0.1, a) * i for i, word in enumerate(COMPARISONS, 1)),
        sum(getattr(np, word)(0.1, A) * i for i, word in enumerate(COMPARISONS, 1)),
    ),
    "finite": (lambda be, a, b: be.finite(a / 0.0) * 1.0, np.zeros((3, 4))),
    "a number less a tensor": (lambda be, a, b: be.subtract(1, a), 1 - A),
    "divide": (lambda be, a, b: be.divide(a, b), A / B),
    "dot": (lambda be, a, b: be.dot(a, be.transpose(b)), A @ B.T),
    "take": (lambda be, a, b: be.take(a, [2, 0], axis=1), A[:, [2, 0]]),
    "take of all": (lambda be, a, b: be.take(a, [5, 0], axis=None), A.flatten()[[5, 0]]),
    "sum": (lambda be, a, b: be.sum(a), A.sum()),
    "sum of an axis": (lambda be, a, b: be.sum(a, axis=1), A.sum(1, keepdims=True)),
    "sum without it": (lambda be, a, b: be.sum(a, axis=0, keepdims=False), A.sum(0)),
    "torch's sum": (lambda be, a, b: be.sum(a, dim=0), A.sum(0)),
    "mean": (lambda be, a, b: be.mean(a, axis=0), A.mean(0, keepdims=True)),
    "var": (lambda be, a, b: be.var(a, axis=1), A.var(1, keepdims=True)),
    "std": (lambda be, a, b: be.std(a), A.std()),
    "max": (lambda be, a, b: be.max(a, axis=1), A.max(1, keepdims=True)),
    "min": (lambda be, a, b: be.min(a), A.min()),
    "argmax": (lambda be, a, b: be.argmax(a), A.argmax(1)[:, None]),
    "argmin": (lambda be, a, b: be.argmin(a, axis=0, keepdims=False), A.argmin(0)),
    "torch's own": (lambda be, a, b: be.exp(a) + be.log2(be.absolute(b)), np.exp(A) + np.log2(np.abs(B))),
}


@pytest.mark.parametrize("word", WORDS)
def test_words_mean_what_they_mean_there(word: str) -> None:
    function, expected = WORDS[word]
    be = backends.default
    found = function(be, be.array(A, dtype=np.float64), be.array(B, dtype=np.float64))
    assert tuple(found.shape) == np.shape(expected)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_results_go_into_out() -> None:
    be = backends.default
    a, out = be.array(A), be.empty((3, 3))
    assert be.dot(a, a.T, out=out) is out
    assert torch.equal(out, a @ a.T)
    assert torch.equal(be.sum(a, axis=1, out=be.zeros((3, 1))), a.sum(1, keepdim=True))
    assert float(be.fill_normal(be.zeros(1000), mean=3, stdv=0.1).mean()) == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda be: be.rand(), TypeError, r"be.rand needs a shape.*be.rand\(\*x.shape\)"),
        (lambda be: be.onehot, AttributeError, "The backend has no onehot: it has torch's functions"),
        (lambda be: be.array("abc"), TypeError, "ary must be a number, an array or a tensor.*'abc'"),
        (lambda be: be.array([[1], [1, 2]]), TypeError, "ary must be"),
        (lambda be: be.zeros(2, dtype="floaty"), TypeError, "dtype must be one of torch's or of numpy's.*'floaty'"),
        (lambda be: be.sig(torch.zeros(2), out=[0, 0]), TypeError, "out must be a tensor"),
        (lambda be: be.zeros(2, requires=True), TypeError, "requires"),
        (lambda be: be.zeros((2.5, 2)), TypeError, "shape must be a whole number. Received: shape=2.5"),
        (lambda be: be.ones("three"), TypeError, "shape must be a whole number. Received: shape='three'"),
    ],
)
def test_what_a_backend_cannot_do_it_says(action: Callable[[Any], Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        action(backends.default)


def test_a_program_derives_its_objects_from_nervana_object() -> None:
    class Scale(NervanaObject):
        def __init__(self, factor: float, name: str | None = None) -> None:
            super().__init__(name)
            self.factor = factor

        def __call__(self, x: Any) -> Any:
            return self.be.maximum(x, 0) * self.factor

    scale = Scale(2.0, name="double")
    assert (scale.name, Scale(1.0).name, scale.classnm) == ("double", None, "Scale")
    assert scale.be is gen_backend(batch_size=3)
    assert scale(torch.tensor([-1.0, 1.0])).tolist() == [0, 2]
