"""Strange tensors: each is trained as torch trains it in float64, or refused by name with nothing changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import neon.torch
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, Optimizer

pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 2e-15  # of float64 parameters of size 1 after 4 steps of 0.1; seen: 8.9e-16

Named = dict[str, Any]


def values(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor)


class Marked(Tensor):
    """A subclass that changes nothing."""


class Weight(nn.Parameter):
    """A parameter of a user's own class."""


def in_inference_mode(*shape: int, seed: int = 0) -> Tensor:
    with torch.inference_mode():
        return values(*shape, seed=seed)


def distance(w: Tensor, reference: Tensor) -> float:
    return float((w.detach().double() - reference.detach().double()).abs().max()) if w.numel() else 0.0


# -- one parameter and its gradient ----------------------------------------------------------------

# name: (the parameter, the gradient of a step); what tests/test_attach.py has by hand is left out
TRAINED: dict[str, tuple[Callable[[], Tensor], Callable[[int], Tensor]]] = {
    "a diagonal": (lambda: parameter(values(4, 4).diagonal()), lambda s: values(4, seed=s)),
    "a column": (lambda: parameter(values(5, 3)[:, 1]), lambda s: values(5, seed=s)),
    "every other row, backwards gradient": (
        lambda: parameter(values(8, 3)[::2]),
        lambda s: values(4, 3, seed=s).flip(0),
    ),
    "permuted": (lambda: parameter(values(2, 3, 4).permute(2, 0, 1)), lambda s: values(4, 2, 3, seed=s)),
    "channels last, 3-d": (
        lambda: parameter(values(1, 3, 2, 2, 2).contiguous(memory_format=torch.channels_last_3d)),
        lambda s: values(1, 3, 2, 2, 2, seed=s),
    ),
    "channels last, gradient permuted": (
        lambda: parameter(values(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)),
        lambda s: values(5, 4, 3, 2, seed=s).permute(3, 2, 1, 0),
    ),
    "sizes of one with odd strides": (
        lambda: parameter(values(6).as_strided((1, 3, 1, 2), (77, 2, 5, 1))),
        lambda s: values(6, seed=s).as_strided((1, 3, 1, 2), (1, 2, 9, 1)),
    ),
    "one element, expanded": (lambda: parameter(values(1).expand(1, 1)), lambda s: values(1, seed=s).expand(1, 1)),
    "empty and expanded": (lambda: parameter(values(1, 0).expand(3, 0)), lambda s: values(3, 0)),
    "real part of a complex tensor": (
        lambda: parameter(torch.complex(values(5), values(5)).real),
        lambda s: torch.complex(values(5), values(5, seed=s)).imag,
    ),
    "a complex tensor as real": (
        lambda: parameter(torch.view_as_real(torch.complex(values(5), values(5, seed=9)))),
        lambda s: torch.view_as_real(torch.complex(values(5, seed=s), values(5))),
    ),
    "a gradient negated lazily": (lambda: parameter(values(5)), lambda s: torch._neg_view(values(5, seed=s))),
    "a gradient conjugated lazily": (
        lambda: parameter(values(5)),
        lambda s: torch.complex(values(5), values(5, seed=s)).conj().imag,
    ),
    "a gradient made in inference mode": (lambda: parameter(values(5)), lambda s: in_inference_mode(5, seed=s)),
    "a parameter made in inference mode": (
        lambda: nn.Parameter(in_inference_mode(5), requires_grad=False),
        lambda s: in_inference_mode(5, seed=s),
    ),
    "a subclass of Tensor": (
        lambda: values(5).as_subclass(Marked).requires_grad_(),
        lambda s: values(5, seed=s).as_subclass(Marked),
    ),
    "a subclass of Parameter": (lambda: Weight(values(5)), lambda s: values(5, seed=s)),
    "a plain tensor": (lambda: values(5).requires_grad_(), lambda s: values(5, seed=s)),
    "without requires_grad": (lambda: nn.Parameter(values(5), requires_grad=False), lambda s: values(5, seed=s)),
    "a buffer of integers behind it": (
        lambda: parameter(torch.zeros(48, dtype=torch.int64)[3:].view(torch.float64)),
        lambda s: values(45, seed=s),
    ),
}


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_trained_as_torch_trains_it(name: str) -> None:
    make, gradient = TRAINED[name]
    w = make()
    reference = nn.Parameter(w.detach().as_subclass(Tensor).clone())
    beside = parameter(values(3))
    optimizer = AdamW(learning_rate=0.1, wdecay=0.1, gradient_clip_norm=3.0).attach([beside, w])
    torchs = torch.optim.AdamW([reference], 0.1, weight_decay=0.1)
    for step in range(4):
        with torch.inference_mode(w.is_inference()):
            w.grad = gradient(step)
        beside.grad = torch.zeros(3, dtype=torch.float64)
        reference.grad = gradient(step).as_subclass(Tensor).clone()
        norm = float(reference.grad.norm())
        reference.grad *= min(1.0, 3.0 / norm) if norm else 1.0
        optimizer.step()
        torchs.step()
    assert distance(w, reference) <= BOUND
    assert optimizer.state[w]["step"].item() == 4
    assert type(w) is type(make())


LOW = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("gradients", [torch.float64, torch.float32, *LOW])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW])
def test_a_gradient_of_another_precision(dtype: torch.dtype, gradients: torch.dtype) -> None:
    """As `grad_dtype` allows; what the arithmetic is done in is the parameter's, at least float32."""
    w = nn.Parameter(values(9, dtype=dtype))
    w.grad_dtype = gradients  # type: ignore[attr-defined]
    optimizer = Adam(learning_rate=0.1).attach([w])
    reference = nn.Parameter(w.detach().double())
    torchs = torch.optim.Adam([reference], 0.1)
    for step in range(3):
        w.grad = values(9, seed=step, dtype=gradients)
        reference.grad = w.grad.double()
        reference.data = w.detach().double()  # so that what is rounded at each step does not add up
        optimizer.step()
        torchs.step()
        assert distance(w, reference) <= torch.finfo(dtype).eps  # one rounding; seen: 0.8 of it
    assert optimizer.state[w]["exp_avg"].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


# -- memory that is shared -------------------------------------------------------------------------


def columns(flat: Tensor) -> list[Tensor]:
    return [flat.view(6, 4)[:, :1], flat.view(6, 4)[:, 1:3], flat.view(6, 4)[:, 3]]


def ranges(flat: Tensor) -> list[Tensor]:
    return [flat[:4].view(2, 2), flat[4:5], flat[5:5], flat[5:23].view(3, 6).t(), flat[23]]


@pytest.mark.parametrize("shared", ["parameters", "gradients", "both"])
@pytest.mark.parametrize("cut", [columns, ranges])
def test_views_of_one_buffer_that_do_not_overlap(cut: Callable[[Tensor], list[Tensor]], shared: str) -> None:
    """FSDP1 and DDP keep parameters and gradients in one buffer each."""
    buffer, gradient = values(24), torch.zeros(24, dtype=torch.float64)
    params = [parameter(v if shared != "gradients" else v.clone()) for v in cut(buffer)]
    for p, g in zip(params, cut(gradient), strict=True):
        p.grad = g if shared != "parameters" else g.clone()
    references = [parameter(p.detach().clone()) for p in params]
    optimizer = AdamW(learning_rate=0.1).attach(params)
    torchs = torch.optim.AdamW(references, 0.1)
    for step in range(4):
        for number, (p, q) in enumerate(zip(params, references, strict=True)):
            assert p.grad is not None
            p.grad.copy_(values(*p.shape, seed=10 * step + number))
            q.grad = p.grad.clone()
        optimizer.step()
        torchs.step()
    assert max(map(distance, params, references)) <= BOUND
    if shared != "gradients":
        assert all(map(torch.equal, params, cut(buffer)))


def test_tied_weights_are_updated_once_from_both_uses() -> None:
    runs = []
    for make in (lambda m: AdamW(learning_rate=0.1).attach(m), lambda m: torch.optim.AdamW(m.parameters(), 0.1)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double()
        model[1].weight = model[0].weight
        optimizer = make(model)
        for step in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.arange(7)), torch.arange(7).roll(step)).backward()
            optimizer.step()
        runs.append(list(model.parameters()))
        assert all(optimizer.state[p]["step"] == 4 for p in model.parameters())
    assert max(map(distance, *runs)) <= BOUND


@pytest.mark.parametrize(
    "rule", [GradientDescentMomentum(0.1, 0.0), GradientDescentMomentum(0.1, 0.5), Adam()], ids=str
)
def test_a_parameter_that_is_its_own_gradient(rule: Optimizer) -> None:
    """Exactly: each element is read before it is written."""
    w, apart = parameter(values(70_000)), parameter(values(70_000))
    optimizer, other = rule.attach([w]), rule.attach([apart])
    w.grad = w.data
    for _ in range(3):
        apart.grad = apart.detach().clone()
        optimizer.step()
        other.step()
    assert torch.equal(w, apart)


def test_a_gradient_that_overlaps_its_parameter_in_another_layout_is_copied_first() -> None:
    buffer = values(3, 4)
    w = parameter(buffer[:, :3])
    w.grad = buffer[:, 1:]
    apart = parameter(w.detach().clone())
    apart.grad = w.grad.clone()
    for p in (w, apart):
        GradientDescentMomentum(0.1, 0.0).attach([p]).step()
    assert torch.equal(w, apart)
    square = values(3, 3)
    w, apart = parameter(square), parameter(square.clone())
    w.grad, apart.grad = square.t(), square.t().clone()
    for p in (w, apart):
        GradientDescentMomentum(0.1, 0.0).attach([p]).step()
    assert torch.equal(w, apart)


# -- what changes in mid-run -----------------------------------------------------------------------


def model_and_optimizers() -> list[tuple[nn.Module, torch.optim.Optimizer]]:
    runs = []
    for make in (lambda m: AdamW(learning_rate=0.1).attach(m), lambda m: torch.optim.AdamW(m.parameters(), 0.1)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        runs.append((model, make(model)))
    return runs


def backward(model: nn.Module, step: int) -> None:
    model(values(5, 3, seed=step)).square().mean().backward()


def flip_requires_grad(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    model[0].weight.requires_grad_(step % 3 != 1)
    optimizer.zero_grad()
    backward(model, step)


def freeze_with_a_gradient(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """A gradient that was there before counts, requires_grad or not: so torch has it."""
    optimizer.zero_grad()
    backward(model, step)
    model[0].weight.requires_grad_(step % 2 == 0)
    model[2].bias.grad = None if step == 1 else model[2].bias.grad


def accumulate(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    backward(model, step)
    backward(model, step + 10)
    if step % 3 == 2:
        optimizer.zero_grad()


def zero_in_place(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Zeros are gradients: Adam moves on by its average, and counts."""
    optimizer.zero_grad(set_to_none=False)
    if step % 2 == 0:
        backward(model, step)


def move(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Other memory, then other memory in another layout, under the same objects."""
    for p in model.parameters():
        p.data = p.data.clone() if step % 2 else p.data.t().contiguous().t() if p.dim() == 2 else p.data
    optimizer.zero_grad()
    backward(model, step)


def load_into_the_model(model: Any, optimizer: torch.optim.Optimizer, step: int) -> None:
    saved = copy.deepcopy(model.state_dict())
    model.load_state_dict({name: 0.5 * value for name, value in saved.items()}, assign=False)
    optimizer.zero_grad()
    backward(model, step)


MID_RUN = [flip_requires_grad, freeze_with_a_gradient, accumulate, zero_in_place, move, load_into_the_model]


@pytest.mark.parametrize("change", MID_RUN)
def test_what_changes_in_mid_run(change: Callable[[Any, Any, int], None]) -> None:
    (ours, optimizer), (theirs, torchs) = model_and_optimizers()
    for step in range(6):
        for model, opt in ((ours, optimizer), (theirs, torchs)):
            change(model, opt, step)
            opt.step()
    assert max(map(distance, ours.parameters(), theirs.parameters())) <= BOUND
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert optimizer.state[p]["step"] == torchs.state[q]["step"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *LOW])
def test_a_model_that_changes_its_precision_in_mid_run(dtype: torch.dtype) -> None:
    """States stay what they are; the parameters are rounded once at each step."""
    model = nn.Linear(3, 2)
    optimizer = Adam(learning_rate=0.01).attach(model)
    references = [parameter(p.detach().double()) for p in model.parameters()]
    torchs = torch.optim.Adam(references, 0.01)
    for step in range(6):
        if step == 3:
            model.to(dtype)
        for p, q in zip(model.parameters(), references, strict=True):
            p.grad = values(*p.shape, seed=step, dtype=p.dtype)
            q.grad, q.data = p.grad.double(), p.detach().double()
        optimizer.step()
        torchs.step()
        precision = max(torch.finfo(dtype if step >= 3 else torch.float32).eps, torch.finfo(torch.float32).eps)
        assert max(map(distance, model.parameters(), references)) <= precision
    assert optimizer.state[model.weight]["exp_avg"].dtype == torch.float32
    assert model.weight.dtype == dtype


def test_steps_within_inference_mode_and_outside() -> None:
    (ours, optimizer), (theirs, torchs) = model_and_optimizers()
    for step in range(4):
        for model, opt in ((ours, optimizer), (theirs, torchs)):
            opt.zero_grad()
            backward(model, step)
            with torch.inference_mode(opt is optimizer and step % 2 == 0):
                opt.step()
    assert max(map(distance, ours.parameters(), theirs.parameters())) <= BOUND
    copy.deepcopy(optimizer).load_state_dict(optimizer.state_dict())


NOT_FINITE = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("where", ["parameter", "gradient"])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_an_element_that_is_not_finite_stays_alone(value: float, where: str) -> None:
    """Without a norm, elements have nothing to do with each other: the others are right."""
    w, reference = parameter(values(6)), parameter(values(6))
    optimizer, torchs = AdamW(learning_rate=0.1).attach([w]), torch.optim.AdamW([reference], 0.1)
    for step in range(3):
        for p, opt in ((w, optimizer), (reference, torchs)):
            p.grad = values(6, seed=step)
            if step == 0:
                (p.data if where == "parameter" else p.grad)[2] = value
            opt.step()
    rest = [0, 1, 3, 4, 5]
    assert distance(w[rest], reference[rest]) <= BOUND
    assert not torch.isfinite(w[2])


@pytest.mark.parametrize("form", ["attached", "drop-in", "in_backward"])
@pytest.mark.parametrize("where", ["meta", "fake"])
def test_tensors_without_values_get_their_states(where: str, form: str) -> None:
    """By which memory is estimated: as many states, of the same types, as a step of real tensors makes."""
    sizes = []
    for how in (where, "cpu"):
        with FakeTensorMode() if how == "fake" else nullcontext():
            device = "meta" if how == "meta" else "cpu"
            model = torch.nn.Linear(128, 64, device=device)
            optimizer: Any = {
                "attached": lambda model=model: Adam(state_dtype="int8", weight_average=0.9).attach(model.parameters()),
                "drop-in": lambda model=model: neon.torch.AdamW(model.parameters(), state_dtype="int8"),
                "in_backward": lambda model=model: Adam().attach(model.parameters(), in_backward=True),
            }[form]()
            for _ in range(2):
                model(torch.randn(2, 128, device=device)).sum().backward()
                optimizer.step()
            states = [state for _, state in sorted(optimizer.state_dict()["state"].items())]
            sizes.append([[(key, describe(value)) for key, value in sorted(state.items())] for state in states])
            assert all(state["exp_avg"].device.type == device for state in states)
    assert sizes[0] == sizes[1]


def describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, value.shape
    return {key: describe(item) for key, item in value.items()}


def test_lazy_parameters_are_trained_once_they_have_a_size() -> None:
    """Attached as a list, before the first batch; `attach(module)` asks for a forward pass first."""
    model = nn.LazyLinear(2)
    optimizer = GradientDescentMomentum(1.0, 0.0).attach(list(model.parameters()))
    optimizer.step()
    model(torch.ones(1, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.weight, before - 1)
