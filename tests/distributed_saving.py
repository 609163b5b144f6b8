"""What ranks do with states: ZeroRedundancyOptimizer, and checkpoints that are loaded by other numbers of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed_models import RULES, STEPS, Run, everything, make, net, numbers, spread, strays, train
from torch.distributed.checkpoint import load, save
from torch.distributed.checkpoint import state_dict as checkpoints
from torch.distributed.checkpoint.state_dict import StateDictOptions
from torch.distributed.optim import ZeroRedundancyOptimizer

import neon.torch
from neon.optimizers import LAMB, Prodigy

# -- ZeroRedundancyOptimizer -----------------------------------------------------------------------


def zero_groups(model: Any, rule: str) -> list[Any]:
    """The three weights: on four ranks, one has none."""
    weights = [model.first.weight, model.second.weight, model.last.weight]
    if rule == "counted":
        return [{"params": [weight]} for weight in weights]
    if rule == "sums":
        keys = ("first", "default", "last")
        return [{"params": [weight], "optimizer": key} for weight, key in zip(weights, keys, strict=True)]
    if rule != "mapping":
        return weights
    return [{"params": weights[:1], "optimizer": "first"}, {"params": weights[1:], "optimizer": "default"}]


def zero_optimizer(model: Any, rule: str) -> Any:
    several = dist.get_world_size() > 1

    def attach(params: Any, **defaults: Any) -> torch.optim.Optimizer:
        if rule == "drop-in":
            return neon.torch.AdamW(params, gradient_clip_norm=0.5, partitioned=several, **defaults)
        opt = RULES[rule]().attach(params, partitioned=several)
        for group in opt.param_groups:
            group.update(defaults)
        return opt

    if not several:
        return attach(zero_groups(model, rule), lr=0.05)
    return ZeroRedundancyOptimizer(zero_groups(model, rule), optimizer_class=attach, lr=0.05)  # type: ignore[arg-type]


RATES = (1.0, 0.5, 0.0, 0.25, 0.0)


def zero(rule: str) -> Any:
    """Steps under a scheduler, saved and loaded again in the middle, where all rates are 0."""
    model = net()
    run = spread("data parallel", model)
    opt = zero_optimizer(model, rule)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: RATES[t])
    losses = []
    for step in range(STEPS):
        if step == 2:
            saved, schedule = consolidated(opt), scheduler.state_dict()
            opt = zero_optimizer(model, rule)
            scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: RATES[t])
            opt.load_state_dict(saved)
            scheduler.load_state_dict(schedule)
        losses += train(run, opt, [step])
        scheduler.step()
    state = consolidated(opt)["state"]
    states = {f"{number} {key}": value for number, kept in state.items() for key, value in kept.items()}
    own = opt if dist.get_world_size() == 1 else opt.optim
    return {"losses": losses, **states, **everything(model), **numbers(own)}


def zero_poisoned(rule: str) -> Any:
    """A gradient that is not finite, and later one that is not there, of parameters that one rank updates each."""
    model = net()

    def attach(params: Any, **defaults: Any) -> Any:
        return RULES[rule]().attach(params, partitioned=dist.get_world_size() > 1, skip_nonfinite=True)

    weights, groups = zero_groups(model, "adam"), zero_groups(model, rule)
    alone = dist.get_world_size() == 1
    opt: Any = attach(groups) if alone else ZeroRedundancyOptimizer(groups, optimizer_class=attach)  # type: ignore[arg-type]
    for step in range(STEPS):
        for p in weights:
            p.grad = torch.full_like(p, torch.inf if step == 1 and p is weights[1] else 1.0)
        if step == 2:
            weights[2].grad = None
        opt.step()
    own = opt if alone else opt.optim
    names: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(names, own.last_nonfinite)
    named = sum(name is not None for name in names)  # by the rank that holds it alone
    return {"skipped": own.skipped_steps, "named": named, **everything(model), **numbers(own)}


def zero_refused() -> Any:
    """Sums over parameters of which each rank is given a part, and does not know that; two ranks have one each."""
    weights = zero_groups(net(), "adam")
    for weight in weights:
        weight.grad = torch.ones_like(weight)

    def refused(attach: Any, *, clip: bool = False) -> str:
        try:
            opt = ZeroRedundancyOptimizer(weights, optimizer_class=attach)  # type: ignore[arg-type]
            if clip:
                opt.param_groups[0]["gradient_clip_norm"] = 0.5
            opt.step()
        except ValueError as error:
            return str(error)
        return "nothing"

    return {
        "Prodigy": refused(lambda params, **_: Prodigy().attach(params)),
        "clipped": refused(lambda params, **_: LAMB(gradient_clip_norm=0.5).attach(params)),
        "drop-in": refused(lambda params, **_: neon.torch.AdamW(params, gradient_clip_norm=0.5)),
        "LAMB": refused(lambda params, **_: LAMB().attach(params)),
        "clipped later": refused(lambda params, **_: LAMB().attach(params), clip=True),
    }


def consolidated(opt: Any) -> dict[str, Any]:
    """The states of all ranks, on every rank."""
    if dist.get_world_size() == 1:
        return opt.state_dict()
    opt.consolidate_state_dict(to=0)
    saved: list[Any] = [opt.state_dict() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(saved)
    return saved[0]


# -- checkpoints -----------------------------------------------------------------------------------

OPTIONS = {
    "sharded": {},
    "flat": {"flatten_optimizer_state_dict": True},
    "full": {"full_state_dict": True, "cpu_offload": True},
}


def checkpoint(way: str, rule: str, kind: str) -> Any:
    """Saved after two steps; loaded by every size of world that has saved before."""
    world = dist.get_world_size()

    def start() -> tuple[Run, Any, Any]:
        model = net()
        run = spread(way, model)
        return run, model, make(rule, model)

    def path(saved_by: int) -> Path:
        return Path(f"{way}, {rule}, {kind}, {saved_by}")

    run, model, opt = start()
    train(run, opt, range(2))
    store(model, opt, kind, path(world))
    gone_on = {"losses": train(run, opt, range(2, STEPS)), **everything(model, opt)}
    found: dict[str, Any] = {"uninterrupted": gone_on}
    for saved_by in (4, 3, 2, 1):
        if saved_by >= world and path(saved_by).exists():
            run, model, opt = start()
            unchanged = restore(model, opt, kind, path(saved_by))
            losses = train(run, opt, range(2, STEPS))
            found[f"from {saved_by}"] = {
                "losses": losses, "dummy step": unchanged, "strays": strays(model, opt), **everything(model, opt),
            }  # fmt: skip
    return found


def states_of(model: Any, opt: Any, kind: str) -> dict[str, Any]:
    options = StateDictOptions(**OPTIONS[kind])
    return {
        "model": checkpoints.get_model_state_dict(model, options=options),
        "optimizer": checkpoints.get_optimizer_state_dict(model, opt, options=options),
    }


def store(model: Any, opt: Any, kind: str, path: Path) -> None:
    states = states_of(model, opt, kind)
    if kind != "full":
        save(states, checkpoint_id=path)
    elif dist.get_rank() == 0:
        torch.save(states, path)
    dist.barrier()


def restore(model: Any, opt: Any, kind: str, path: Path) -> bool:
    """Load; whether the step that torch takes to make the states left parameters and numbers as they were."""
    before = {**everything(model), **numbers(opt)}
    states = states_of(model, opt, kind)
    after = {**everything(model), **numbers(opt)}
    unchanged = all(torch.equal(value, after[name]) for name, value in before.items())
    options = StateDictOptions(**OPTIONS[kind], broadcast_from_rank0=kind == "full")
    if kind != "full":
        load(states, checkpoint_id=path)
    elif dist.get_rank() == 0:
        states = torch.load(path, weights_only=True)
    checkpoints.set_model_state_dict(model, states["model"], options=options)
    checkpoints.set_optimizer_state_dict(model, opt, states["optimizer"], options=options)
    return unchanged
