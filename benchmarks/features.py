"""What optimizers do beside their rule, tried: a table of features by library.

    python benchmarks/features.py                       # every library of peers.py that can be imported
    python benchmarks/features.py --columns neon optimi --output /tmp/features

Each feature is a check that trains a small network with AdamW of one library, by that library's own option
where it has one. `yes`: the check holds. `no`: it does not, or raises. `–`: there is no option to try.
Writes features.json with the reason for each `no`, and prints the table as it stands in docs/pytorch.md.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from peers import COLUMNS, Library, NoOptionError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

Check = Callable[[Library], bool]
FEATURES: dict[str, Check] = {}
ELSEWHERE: dict[str, Check] = {}  # what neon has not


def feature(text: str, table: dict[str, Check] = FEATURES) -> Callable[[Check], Check]:
    def listed(check: Check) -> Check:
        table[text] = check
        return check

    return listed


def network(dtype: torch.dtype = torch.float32, outputs: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, outputs)).to(dtype)


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


@feature("Two rules for different layers in one object, which a scheduler of torch's drives")
def rules(lib: Library) -> bool:
    model, reference = network(), network()
    optimizer, alone = lib.way("rules")(model)
    each = [make(reference) for make in alone]
    train(model, optimizer, range(4), LambdaLR(optimizer, lambda epoch: 0.5**epoch))
    schedulers = [LambdaLR(one, lambda epoch: 0.5**epoch) for one in each]
    for step in range(4):
        give(reference, step, (1.0, 100.0, 0.01)[step % 3])
        for item in (*each, *schedulers):
            item.step()
    return equal(model, reference)


def clips(lib: Library, option: str, by_hand: Callable[[Any], Any]) -> bool:
    own, reference, unclipped = network(), network(), network()
    train(own, lib.make(own, option), range(4))
    plain = lib.make(reference)
    for step in range(4):
        give(reference, step, (1.0, 100.0, 0.01)[step % 3])
        by_hand(reference.parameters())
        plain.step()
    train(unclipped, lib.make(unclipped), range(4))
    return close(own, reference) and not close(own, unclipped)


@feature("An option clips by the norm of all gradients, as `clip_grad_norm_` and a step")
def clips_by_norm(lib: Library) -> bool:
    return clips(lib, "clip by norm", lambda params: clip_grad_norm_(params, 1.0))


@feature("An option clips by value, as `clip_grad_value_` and a step")
def clips_by_value(lib: Library) -> bool:
    return clips(lib, "clip by value", lambda params: clip_grad_value_(params, 0.5))


def scaled(lib: Library, *options: str) -> tuple[nn.Module, Any, torch.amp.GradScaler]:
    model = network()
    return model, lib.make(model, *options), torch.amp.GradScaler("cpu", init_scale=1024.0)


@feature("Under `GradScaler` that option clips the unscaled gradients")
def clips_unscaled(lib: Library) -> bool:
    model, optimizer, scaler = scaled(lib, "clip by norm")
    reference = network()
    plain = lib.make(reference, "clip by norm")
    for step in range(4):
        backward(model, step, scaler.scale)
        scaler.step(optimizer)
        scaler.update()
        backward(reference, step)
        plain.step()
        optimizer.zero_grad()
        plain.zero_grad()
    return close(model, reference)


def unchanged(model: nn.Module, optimizer: Any, action: Callable[[], Any]) -> bool:
    before = copy.deepcopy(list(model.parameters())), saved(optimizer)
    action()
    return same(before, (list(model.parameters()), saved(optimizer)))


@feature("A step of `GradScaler`'s with infinite gradients changes nothing, step counts included")
def scaler_skips(lib: Library) -> bool:
    model, optimizer, scaler = scaled(lib)
    backward(model, 0, scaler.scale)
    scaler.step(optimizer)
    scaler.update()
    backward(model, 1, lambda loss: scaler.scale(loss) * float("inf"))
    return unchanged(model, optimizer, lambda: scaler.step(optimizer))


@feature("Without a scaler, an option lets a step with a gradient that is not finite change nothing")
def skips(lib: Library) -> bool:
    model = network()
    optimizer = lib.make(model, "skip")
    train(model, optimizer, range(2))
    give(model, 2)
    model[1].bias.grad[2] = float("nan")
    return unchanged(model, optimizer, optimizer.step)


@feature("The layer of that gradient is named")
def names(lib: Library) -> bool:
    model = network()
    named = lib.way("name")
    optimizer = lib.make(model, "skip")
    give(model, 0)
    model[1].weight.grad[2, 2] = float("inf")
    optimizer.step()
    return named(optimizer) == "1.weight"


@feature("bfloat16 weights follow updates of a thirtieth of their spacing")
def follows(lib: Library) -> bool:
    weight = nn.Parameter(torch.full((64, 64), 1.5, dtype=torch.bfloat16))  # the spacing is 1/128
    options = ["bfloat16"] if "bfloat16" in lib.options else []
    optimizer = lib.make([("weight", weight)], *options, lr=1 / 128 / 32, weight_decay=0.0)
    for _ in range(512):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return abs(1.5 - weight.double().mean().item() - 512 / 128 / 32) < 0.1 * 512 / 128 / 32


@feature("Both moments of bfloat16 parameters are float32, and come back so from `load_state_dict`")
def float32_moments(lib: Library) -> bool:
    model = network(torch.bfloat16)
    options = ["lossless moments"] if "lossless moments" in lib.options else []
    first, second = lib.make(model, *options), lib.make(model, *options)
    train(model, first, range(2))
    states = [t for t in leaves(first.state_dict()["state"]) if isinstance(t, Tensor) and t.shape == (64, 64)]
    second.load_state_dict(first.state_dict())
    full = sum(t.dtype == torch.float32 for t in states) >= 2
    return full and same(first.state_dict()["state"], second.state_dict()["state"])


@feature("bfloat16 weights are at each step the nearest to those of the same run in float32")
def split(lib: Library) -> bool:
    model, reference = network(torch.bfloat16), network().bfloat16().float()
    full = ["lossless moments"] if "lossless moments" in lib.options else []
    optimizer, plain = lib.make(model, "split"), lib.make(reference, *full)
    for step in range(30):
        give(model, step)
        for p, q in zip(reference.parameters(), model.parameters(), strict=True):
            p.grad = q.grad.float()
        optimizer.step()
        plain.step()
        for p, q in zip(reference.parameters(), model.parameters(), strict=True):
            nearest = (p.bfloat16().float() - p).abs()
            if ((q.float() - p).abs() > nearest + 1e-6).any():  # a ten thousandth of what a step moves a weight by
                return False
    return True


@feature("Moments in 8 bits")
def eight_bits(lib: Library) -> bool:
    model = network()
    optimizer = lib.make(model, "8 bits")
    train(model, optimizer, range(2))
    return saved_bytes(optimizer) < 5 * model[0].weight.numel()


def saved_bytes(optimizer: Any) -> int:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    return len(file.getvalue())


@feature("A checkpoint of other shapes is refused, and changes nothing")
def refuses(lib: Library) -> bool:
    other, model = network(outputs=8), network()
    first, second = lib.make(other), lib.make(model)
    train(other, first, range(2))
    train(model, second, range(2))

    def load() -> None:
        try:
            second.load_state_dict(first.state_dict())
        except (ValueError, RuntimeError, KeyError):
            return
        raise AssertionError("it was loaded")

    return unchanged(model, second, load)


def resumes(lib: Library, model: nn.Module, *options: str, order: Callable[[Any], Any] = list) -> bool:
    optimizer = lib.make(model, *options)
    train(model, optimizer, range(3))
    resumed = copy.deepcopy(model)
    again = lib.make(order(list(resumed.named_parameters())), *options)
    again.load_state_dict(saved(optimizer))
    train(model, optimizer, range(3, 6))
    torch.manual_seed(1)
    train(resumed, again, range(3, 6))
    return equal(model, resumed)


@feature("A resumed run is bit for bit the uninterrupted one")
def resumes_exactly(lib: Library) -> bool:
    return resumes(lib, network())


@feature("So is one of bfloat16 parameters that follow small updates, whatever torch's random state")
def resumes_bfloat16(lib: Library) -> bool:
    if not follows(lib):
        raise NoOptionError("they do not follow")
    return resumes(lib, network(torch.bfloat16), "bfloat16")


@feature("So is one with moments in 8 bits")
def resumes_eight_bits(lib: Library) -> bool:
    return resumes(lib, network(), "8 bits")


@feature("Named parameters in another order find their states")
def by_name(lib: Library) -> bool:
    # Of equal shapes: a fused step with the states of another shape has ended in a corrupted heap.
    return resumes(lib, network(outputs=64), order=lambda named: named[2:] + named[:2])


@feature("`deepcopy` of model and optimizer keeps every option")
def copies(lib: Library) -> bool:
    model = network()
    optimizer = lib.make(model, "flags")
    train(model, optimizer, range(3))
    model_copy, optimizer_copy = copy.deepcopy((model, optimizer))
    train(model, optimizer, range(3, 6))
    train(model_copy, optimizer_copy, range(3, 6))
    return equal(model, model_copy)


@feature("`OneCycleLR` cycles the rate and β₁")
def one_cycle(lib: Library) -> bool:
    def run(cycle: bool) -> nn.Module:
        model = network()
        optimizer = lib.make(model)
        train(model, optimizer, range(5), OneCycleLR(optimizer, 0.1, total_steps=6, cycle_momentum=cycle))
        return model

    return not close(run(True), run(False)) and not close(run(False), network())


@feature("The rate may be a tensor, which a scheduler writes to")
def tensor_rate(lib: Library) -> bool:
    def run(lr: Any) -> nn.Module:
        model = network()
        optimizer = lib.make(model, lr=lr)
        train(model, optimizer, range(4), LambdaLR(optimizer, lambda epoch: 0.5**epoch))
        return model

    return close(run(torch.tensor(0.01)), run(0.01))


@feature("New values of lr, betas and weight decay compile nothing (a step after a change takes under 50 ms)")
def recompiles_nothing(lib: Library) -> bool:
    model = network()
    optimizer = lib.make(model)
    train(model, optimizer, range(3))
    seconds = []
    for change in range(5):
        for group in optimizer.param_groups:
            lr = 0.02 + 0.001 * change
            group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr
            group["betas"] = (0.8 + 0.01 * change, 0.95 + 0.001 * change)
            group["weight_decay"] = 0.2 + 0.01 * change
        give(model, change)
        start = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return min(seconds) < 0.05


@feature("`torch.distributed.checkpoint`'s dummy step leaves the parameters as they were")
def dummy_step(lib: Library) -> bool:
    model, before = network(), network()
    get_optimizer_state_dict(model, lib.make(model))
    return equal(model, before)


@feature("Its round trip resumes bit for bit")
def distributed_checkpoint(lib: Library) -> bool:
    model = network()
    optimizer = lib.make(model)
    train(model, optimizer, range(3))
    resumed = copy.deepcopy(model)
    again = lib.make(resumed)
    with tempfile.TemporaryDirectory() as folder:
        dcp.save(get_optimizer_state_dict(model, optimizer), checkpoint_id=folder, no_dist=True)
        states = get_optimizer_state_dict(resumed, again)
        dcp.load(states, checkpoint_id=folder, no_dist=True)
    set_optimizer_state_dict(resumed, again, states)
    train(model, optimizer, range(3, 6))
    train(resumed, again, range(3, 6))
    return equal(model, resumed)


@feature("The state loads with `weights_only=True`, and nothing in it is None")
def plain_state(lib: Library) -> bool:
    model = network()
    optimizer = lib.make(model)
    train(model, optimizer, range(2))
    return None not in [leaf for leaf in leaves(saved(optimizer)["state"]) if not isinstance(leaf, Tensor)]


@feature("An option updates in the backward pass and lets each gradient go")
def in_backward(lib: Library) -> bool:
    model, reference = network(), network()
    optimizer = lib.way("in_backward")(model)
    plain = lib.make(reference, betas=(0.9, 0.999), weight_decay=0.01)
    for step in range(3):
        before = copy.deepcopy(model)
        backward(model, step)
        if any(p.grad is not None for p in model.parameters()) or equal(model, before):
            return False
        optimizer.step()
        backward(reference, step)
        plain.step()
        plain.zero_grad()
    return close(model, reference)


@feature("A layer's rate that is set in mid-run stays, whatever a scheduler writes")
def layer_rate(lib: Library) -> bool:
    model = network()
    set_rate = lib.way("set a layer's rate")
    optimizer = lib.make(model)
    train(model, optimizer, range(2))
    set_rate(optimizer, model)
    before = copy.deepcopy(model)
    train(model, optimizer, range(2, 5), OneCycleLR(optimizer, 0.1, total_steps=6))
    return equal(model[0], before[0]) and not equal(model[1], before[1])


@feature("Layers are frozen by name in mid-run; the norm that is clipped by does not count them")
def freezes(lib: Library) -> bool:
    model, reference = network(), network()
    freeze = lib.way("freeze")
    optimizer = lib.make(model, "clip by norm")
    freeze(optimizer)
    train(model, optimizer, range(4))
    alone = lib.make([(f"1.{name}", p) for name, p in reference[1].named_parameters()], "clip by norm")
    train(reference, alone, range(4))
    return equal(model, reference)


@feature("A rule of one's own has the option of clipping by norm")
def own_rule(lib: Library) -> bool:
    model, reference = network(), network()
    train(model, lib.way("own rule")(model), range(4))
    momentum = [torch.zeros_like(p) for p in reference.parameters()]
    for step in range(4):
        give(reference, step, (1.0, 100.0, 0.01)[step % 3])
        clip_grad_norm_(reference.parameters(), 1.0)
        for p, m in zip(reference.parameters(), momentum, strict=True):
            m.lerp_(p.grad, 0.1)
            p.data.sub_(0.01 * m.sign())
    return close(model, reference)


@feature("A rule of one's own may have its state in 8 bits")
def own_rule_eight_bits(lib: Library) -> bool:
    model = network()
    optimizer = lib.way("own rule in 8 bits")(model)
    train(model, optimizer, range(2))
    return saved_bytes(optimizer) < 3 * model[0].weight.numel()


@feature("Steps need no C compiler on the machine")
def without_compiler(lib: Library) -> bool:
    with tempfile.TemporaryDirectory() as empty:
        caches = {"NEON_CACHE_DIR": f"{empty}/neon", "TORCHINDUCTOR_CACHE_DIR": f"{empty}/torch"}
        kept = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "CFLAGS", "CXXFLAGS")}
        child = [sys.executable, __file__, "--steps-of", lib.name]
        done = subprocess.run(child, env={**kept, **caches, "PATH": empty}, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return True


@feature("Complex parameters", ELSEWHERE)
def complex_parameters(lib: Library) -> bool:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, dtype=torch.complex64))
    real = nn.Parameter(torch.view_as_real(weight.detach().clone()))
    weight.grad = torch.randn(8, dtype=torch.complex64)
    real.grad = torch.view_as_real(weight.grad).clone()
    lib.make([("weight", weight)]).step()
    lib.make([("weight", real)]).step()
    return torch.allclose(torch.view_as_real(weight), real)


@feature("`differentiable=True`: autograd follows the step", ELSEWHERE)
def differentiable(lib: Library) -> bool:
    start = torch.ones(8, requires_grad=True)
    weight = start.clone()
    weight.grad = 2 * start
    lib.make([("weight", weight)], "differentiable", weight_decay=0.0).step()
    return torch.autograd.grad(weight.sum(), start)[0].isfinite().all().item()


@feature("Sparse gradients, by an Adam for them", ELSEWHERE)
def sparse(lib: Library) -> bool:
    embedding = nn.Embedding(8, 4, sparse=True)
    before = embedding.weight.detach().clone()
    optimizer = lib.way("sparse")(embedding.parameters())
    embedding(torch.tensor([1, 3])).sum().backward()
    optimizer.step()
    return (embedding.weight != before).any(1).nonzero().flatten().tolist() == [1, 3]


def tried(check: Check, lib: Library) -> tuple[str, str | None]:
    """The cell of a feature and a library, and the reason for a `no`."""
    try:
        return ("yes", None) if check(lib) else ("no", "the check does not hold")
    except NoOptionError:
        return "–", None
    except Exception as error:
        return "no", f"{type(error).__name__}: {error}".splitlines()[0][:200]


def run(names: Iterable[str]) -> dict[str, Any]:
    """The report: both tables as feature, then library, then what was found."""
    report: dict[str, Any] = {"versions": {}, "features": {}, "elsewhere": {}, "reasons": {}}
    for name in names:
        try:
            lib = COLUMNS[name]()
        except ImportError:
            continue
        report["versions"][name] = importlib.metadata.version(lib.distribution).partition("+")[0]
        for kind, checks in (("features", FEATURES), ("elsewhere", ELSEWHERE)):
            for text, check in checks.items():
                cell, reason = tried(check, lib)
                report[kind].setdefault(text, {})[name] = cell
                if reason is not None:
                    report["reasons"].setdefault(text, {})[name] = reason
    return report


def markdown(rows: Mapping[str, Mapping[str, str]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [["", *names], ["---"] * (len(names) + 1), *([text, *cells.values()] for text, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--steps-of", choices=COLUMNS, help="only take two steps with a library")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.steps_of:
        model = network()
        train(model, COLUMNS[options.steps_of]().make(model), range(2))
        return
    report = run(options.columns)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "features.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(report["features"]), markdown(report["elsewhere"]), f"Written to {path}", sep="\n\n")


if __name__ == "__main__":
    main()
