"""The table of features, which checks enter themselves in, and what checks do to a small network."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from peers import Library
from torch import Tensor, nn

Check = Callable[[Library], bool]
FEATURES: dict[str, Check] = {}
ELSEWHERE: dict[str, Check] = {}  # what neon has not


def feature(text: str, table: dict[str, Check] = FEATURES) -> Callable[[Check], Check]:
    def listed(check: Check) -> Check:
        table[text] = check
        return check

    return listed


def give(model: nn.Module, step: int, scale: float = 1.0) -> None:
    for number, (_, p) in enumerate(model.named_parameters()):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + number)).to(p.dtype) * scale


def train(model: nn.Module, optimizer: Any, steps: Iterable[int], *each: Any) -> None:
    for step in steps:
        give(model, step, (1.0, 100.0, 0.01)[step % 3])
        optimizer.step()
        for scheduler in each:
            scheduler.step()


def backward(model: nn.Module, step: int, scale: Callable[[Tensor], Tensor] = lambda loss: loss) -> None:
    scale(model(torch.randn(8, 64, generator=torch.Generator().manual_seed(step))).square().sum()).backward()


def same(a: Any, b: Any) -> bool:
    """Bit for bit, types included; low-bit tensors by what they stand for."""
    if isinstance(a, Tensor):
        if not isinstance(b, Tensor) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        a, b = (t.dequantize() if type(t) not in (Tensor, nn.Parameter) else t for t in (a, b))
        return torch.equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def equal(a: nn.Module, b: nn.Module) -> bool:
    return same(list(a.parameters()), list(b.parameters()))


def close(a: nn.Module, b: nn.Module) -> bool:
    """To a ten thousandth of what a step of 0.01 moves a weight by."""
    return all(torch.allclose(p, q, rtol=0, atol=1e-6) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def leaves(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    return [value] if inside is None else [leaf for item in inside for leaf in leaves(item)]


def saved(optimizer: Any) -> Any:
    """The state dict, through a file that holds no code."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def saved_bytes(optimizer: Any) -> int:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    return len(file.getvalue())


def unchanged(model: nn.Module, optimizer: Any, action: Callable[[], Any]) -> bool:
    before = copy.deepcopy(list(model.parameters())), saved(optimizer)
    action()
    return same(before, (list(model.parameters()), saved(optimizer)))
