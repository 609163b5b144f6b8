"""Numbers of rules that persist: one for a group or an optimizer, in groups, checkpoints and layer lists."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from other_versions import needs_interpreter
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

from neon.backends import gen_backend
from neon.engine import use_backend
from neon.initializers import Constant
from neon.layers import Affine
from neon.models import Model
from neon.optimizers import GROUP, OPTIMIZER, Adam, AdamW, MultiOptimizer, Optimizer, Prodigy, ScheduleFree, State
from neon.optimizers.functions import mean, total

BACKENDS = ["eager", "numba", pytest.param("triton", marks=needs_interpreter)]


class Counted(Optimizer):
    """Its step is as long as d, which adds up all gradients, and as the number of steps of a group."""

    @staticmethod
    def rule(w, g, d: Any = State("d0", of=OPTIMIZER), k: Any = State(of=GROUP), *, lr=1.0, d0=0.5):  # type: ignore[no-untyped-def]
        d = d + total(g, over=OPTIMIZER)
        return w - lr * d * (k + 1) * g, d, k + 1


def two_groups(optimizer: Optimizer | None = None, **options: Any) -> tuple[Any, list[torch.nn.Parameter]]:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    return (optimizer or Counted()).attach([{"params": [p]} for p in params], **options), params


def numbers(opt: Any) -> list[tuple[float, float]]:
    return [(float(group["d"]), float(group["k"])) for group in opt.state_dict()["param_groups"]]


def step(opt: Any, params: list[torch.nn.Parameter], *values: float | None) -> None:
    for p, value in zip(params, values, strict=True):
        p.grad = None if value is None else torch.full((2,), value)
    opt.step()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimizers_number_is_one_of_all_groups_and_a_groups_is_its_own(backend: str) -> None:
    with use_backend(backend):
        opt, params = two_groups()
        assert numbers(opt) == [(0.5, 0.0), (0.5, 0.0)]
        step(opt, params, 1.0, 2.0)
        assert numbers(opt) == [(6.5, 1.0), (6.5, 1.0)]
        assert [p.tolist() for p in params] == [[1 - 6.5] * 2, [1 - 13.0] * 2]
        step(opt, params, None, 1.0)  # what has no gradient adds nothing, and its group does not count
        assert numbers(opt) == [(8.5, 1.0), (8.5, 2.0)]
        assert params[1].tolist() == [-12.0 - 8.5 * 2] * 2
        step(opt, params, 1.0, None)
        assert numbers(opt) == [(10.5, 2.0), (10.5, 2.0)]
        assert params[0].tolist() == [-5.5 - 10.5 * 2] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_somebody_writes_counts(backend: str) -> None:
    with use_backend(backend):
        opt, params = two_groups()
        step(opt, params, 1.0, 1.0)
        for group in opt.param_groups:
            group["d"] = 0.0
        step(opt, params, 1.0, 1.0)
        assert numbers(opt) == [(4.0, 2.0)] * 2
        before = [p.tolist() for p in params]
        opt.param_groups[1]["d"] = 1.0
        with pytest.raises(ValueError, match=r"d is one number of all groups .* have 4\.0 and 1\.0: set it in all"):
            step(opt, params, 1.0, 1.0)
        assert [p.tolist() for p in params] == before
        opt.param_groups[0]["d"] = 1.0
        step(opt, params, 1.0, 1.0)
        assert numbers(opt) == [(5.0, 3.0)] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_is_left_out_changes_none(backend: str) -> None:
    with use_backend(backend):
        opt, params = two_groups(skip_nonfinite=True)
        step(opt, params, 1.0, 1.0)
        before = numbers(opt)
        step(opt, params, 1.0, torch.nan)
        assert numbers(opt) == before
        step(opt, params, 1.0, 1.0)
        assert numbers(opt) == [(8.5, 2.0)] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scalers_skipped_step_changes_none(backend: str) -> None:
    with use_backend(backend):
        opt, params = two_groups()
        step(opt, params, 1.0, 1.0)
        before = numbers(opt), [p.tolist() for p in params]
        opt.grad_scale, opt.found_inf = torch.tensor(4.0), torch.tensor(1.0)
        step(opt, params, 1.0, 1.0)
        assert (numbers(opt), [p.tolist() for p in params]) == before
        opt.found_inf = torch.tensor(0.0)
        step(opt, params, 4.0, 4.0)
        assert numbers(opt) == [(8.5, 2.0)] * 2


def test_two_optimizers_of_a_mapping_have_numbers_of_their_own() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(1, 1), "b": torch.nn.Linear(1, 1), "c": torch.nn.Linear(1, 1)})
    opt: Any = MultiOptimizer({"a": Counted(), "b": Counted(), "default": Adam()}).attach(model)
    for place, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, place)
    opt.step()
    found = {group["optimizer"]: group.get("d") for group in opt.param_groups}
    assert found == {"a": 0.5 + 0 + 1, "b": 0.5 + 2 + 3, "default": None}


def test_a_group_that_is_added_has_the_optimizers_number() -> None:
    opt, params = two_groups()
    step(opt, params, 1.0, 1.0)
    params.append(torch.nn.Parameter(torch.ones(2)))
    opt.add_param_group({"params": [params[-1]]})
    assert numbers(opt) == [(4.5, 1.0), (4.5, 1.0), (4.5, 0.0)]
    step(opt, params, 1.0, 1.0, 1.0)
    assert numbers(opt) == [(10.5, 2.0), (10.5, 2.0), (10.5, 1.0)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_that_is_frozen_or_empty_has_the_optimizers_number_too(backend: str) -> None:
    """It does not count in sums, and is not stepped; what was saved meanwhile loads."""
    with use_backend(backend):
        params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
        groups = [{"params": [("a", params[0])]}, {"params": [("b", params[1])]}, {"params": [], "param_names": []}]
        opt = Counted().attach(groups)
        step(opt, params, 1.0, 1.0)
        opt.freeze("b")
        step(opt, params, 1.0, 1.0)
        assert numbers(opt) == [(6.5, 2.0), (6.5, 1.0), (6.5, 0.0)]
        opt.load_state_dict(opt.state_dict())
        opt.unfreeze("b")
        step(opt, params, 1.0, 1.0)
        assert numbers(opt) == [(10.5, 3.0), (10.5, 2.0), (10.5, 0.0)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_partition_and_a_device_mesh_of_one_process_change_none(backend: str, alone: DeviceMesh) -> None:
    """There the host adds up what processes have; those of a partition it keeps as well."""
    found = []
    for kind in ("alone", "partitioned", "distributed"):
        params = [torch.nn.Parameter(torch.arange(1.0, 4.0)) for _ in range(2)]
        if kind == "distributed":
            params = [torch.nn.Parameter(distribute_tensor(p.detach(), alone, [Shard(0)])) for p in params]
        with use_backend(backend):
            groups = [{"params": [params[0]], "gradient_clip_norm": 1.0}, {"params": [params[1]]}]
            opt = Prodigy(d0=0.01).attach(groups, partitioned=kind == "partitioned")
            for _ in range(4):
                for place, p in enumerate(params, 1):
                    p.grad = place * p.detach()
                opt.step()
        groups = opt.state_dict()["param_groups"]
        found.append(([p.detach().sum().item() for p in params], [group["d"] for group in groups]))
    assert found[0][1][0] > 0.02
    assert found[1:] == found[:1] * 2


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_they_are_floats_in_a_checkpoint_and_go_on_from_there(backend: str) -> None:
    with use_backend(backend):
        opt, params = two_groups(Prodigy(d0=1e-2))
        for value in (1.0, 2.0):
            step(opt, params, value, -value)
        buffer = io.BytesIO()
        torch.save({"optimizer": opt.state_dict(), "params": [p.detach().clone() for p in params]}, buffer)
        buffer.seek(0)
        saved = torch.load(buffer, weights_only=True)
        assert all(type(saved["optimizer"]["param_groups"][0][name]) is float for name in ("d", "d_max", "k"))
        again, others = two_groups(Prodigy(d0=1e-2))
        for p, value in zip(others, saved["params"], strict=True):
            p.data.copy_(value)
        again.load_state_dict(saved["optimizer"])
        for one, mine in ((opt, params), (again, others)):
            step(one, mine, 0.5, 3.0)
        assert all(map(torch.equal, params, others))
        assert again.state_dict()["param_groups"] == opt.state_dict()["param_groups"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_go_on_alone(copied: Any) -> None:
    opt, params = two_groups()
    step(opt, params, 1.0, 1.0)
    other = copied(opt)
    step(opt, params, 1.0, 1.0)
    assert numbers(other) == [(4.5, 1.0)] * 2
    step(other, [p for group in other.param_groups for p in group["params"]], 1.0, 1.0)
    assert numbers(other) == numbers(opt)


def test_groups_that_disagree_are_refused() -> None:
    opt, params = two_groups()
    step(opt, params, 1.0, 1.0)
    saved = opt.state_dict()
    saved["param_groups"][1]["d"] = 7.0
    with pytest.raises(ValueError, match=r"d is one number of all groups .* in the checkpoint it is 4\.5 in"):
        opt.load_state_dict(saved)
    assert numbers(opt) == [(4.5, 1.0)] * 2


@pytest.mark.parametrize("value", ["much", None])
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = Prodigy().attach([weight])
    weight.grad = torch.ones(2)
    for _ in range(2):  # before there is a plan, and after
        optimizer.param_groups[0]["d"] = value
        with pytest.raises(TypeError, match="d must be a number"):
            optimizer.step()
        optimizer.param_groups[0]["d"] = 0.5
        optimizer.step()
    del optimizer.param_groups[0]["d"]
    with pytest.raises(TypeError, match="d must be a number"):
        optimizer.step()


@pytest.mark.parametrize("name", ["epoch", "weight_decay"])
def test_what_every_group_has_is_no_number_of_a_rule(name: str) -> None:
    namespace: dict[str, Any] = {"State": State, "GROUP": GROUP}
    exec(f"def rule(w, g, {name}=State(0.1, of=GROUP), *, lr=0.1): return w - {name} * g, {name} / 2", namespace)
    with pytest.raises(TypeError, match=f"uses {name}, which neon keeps for itself"):
        type("Own", (Optimizer,), {"rule": staticmethod(namespace["rule"])})().attach(
            [torch.nn.Parameter(torch.ones(2))]
        )


def test_a_checkpoint_without_them_is_refused() -> None:
    opt, params = two_groups()
    step(opt, params, 1.0, 1.0)
    saved = opt.state_dict()
    for group in saved["param_groups"]:
        del group["d"]
    with pytest.raises(ValueError, match="has no d in the checkpoint"):
        opt.load_state_dict(saved)


# -- what is refused -------------------------------------------------------------------------------


def test_updates_one_by_one_have_no_number_of_all() -> None:
    for rule, named in ((Prodigy(), "d, d_max, d_numerator, k"), (Counted(), "d, k")):
        with pytest.raises(ValueError, match=f"in_backward=True: {named} of its rule is one number for many"):
            rule.attach([torch.nn.Parameter(torch.ones(2))], in_backward=True)


def test_a_number_is_made_of_what_there_is_one_of() -> None:
    def rule_with(new: Any) -> Optimizer:
        class Wrong(Optimizer):
            @staticmethod
            def rule(w, g, d: Any = State(of=OPTIMIZER), *, lr=0.1, step):  # type: ignore[no-untyped-def]
                return w, new(w, g, d, step)

        return Wrong()

    for new, named in (
        (lambda w, g, d, step: d + g, "g"),
        (lambda w, g, d, step: d + step, "step"),
        (lambda w, g, d, step: d + mean(g), "total.* over='tensor'."),
    ):
        with pytest.raises(TypeError, match=f"The number d of the rule rule is one for each optimizer, .* on {named},"):
            rule_with(new).attach([torch.nn.Parameter(torch.ones(2))])


def test_what_a_groups_number_is_made_of_is_the_groups() -> None:
    params = [(name, torch.nn.Parameter(torch.ones(2))) for name in "ab"]
    opt: Any = ScheduleFree(AdamW()).attach(params)
    for name in ("lr", "lr_scale"):
        with pytest.raises(ValueError, match="cannot be set for some layers of a group: lr_max of adamw_schedule_free"):
            opt.set(name, 0.5, layers="a")
    opt.set("weight_decay", 0.5, layers="a")
    opt.freeze("b")
    prodigy: Any = Prodigy().attach([("a", torch.nn.Parameter(torch.ones(2)))])
    prodigy.set("lr", 0.5, layers="a")  # each layer adds to the sums with the rate that it has


def test_what_an_optimizers_number_is_made_of_is_the_same_in_all_of_its_groups() -> None:
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    opt: Any = Prodigy().attach([{"params": [a]}, {"params": [b], "d_coef": 5.0, "weight_decay": 0.1, "lr": 0.5}])
    a.grad = b.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"d is one number .* made of d_coef: groups have 1\.0 and 5\.0\. Set"):
        opt.step()
    assert a.tolist() == b.tolist() == [1.0, 1.0]
    opt.param_groups[1]["d_coef"] = 1.0
    opt.step()
    opt.param_groups[0]["betas"] = (0.9, 0.5)
    with pytest.raises(ValueError, match="made of betas"):
        opt.step()


def test_a_gradient_that_is_not_finite_shuts_nothing() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    opt: Any = Prodigy(d0=0.1).attach([weight])
    good = opt.state_dict()
    weight.grad = torch.tensor([1.0, torch.nan, 1.0])
    opt.step()
    assert opt.param_groups[0]["d"] != opt.param_groups[0]["d"]
    opt.eval()
    opt.train()
    opt.load_state_dict(opt.state_dict())
    opt.load_state_dict(good)
    assert opt.param_groups[0]["d"] == 0.1


def test_a_start_that_is_no_argument_is_refused() -> None:
    class Wrong(Optimizer):
        @staticmethod
        def rule(w, g, d: Any = State("d1", of=OPTIMIZER), *, lr=0.1, d0=1.0):  # type: ignore[no-untyped-def]
            return w, d

    with pytest.raises(TypeError, match=r"must start at a number .* or at one of lr, d0\. Received: d='d1'"):
        Wrong().attach([torch.nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_prodigy_starts_on_weights_of_16_bits(dtype: torch.dtype) -> None:
    """To nearest it could not: steps of d0 would leave weights where they are, and d with them."""
    aim = torch.linspace(-1, 1, 500)

    def attach(**options: Any) -> tuple[Any, torch.nn.Parameter]:
        weight = torch.nn.Parameter(torch.full((500,), 0.7, dtype=dtype))
        return Prodigy(**options).attach([("w", weight)]), weight

    opt, weight = attach()
    weight.grad = torch.ones_like(weight)
    with pytest.raises(TypeError, match=r"Parameter 'w' is .*: d, d_max, d_numerator of prodigy go by how far"):
        opt.step()
    for options in ({"stochastic_round": True}, *([{"master": "split"}] if dtype == torch.bfloat16 else [])):
        opt, weight = attach(**options)
        for _ in range(60):
            weight.grad = ((weight.detach().float() - aim) / 32).to(dtype)
            opt.step()
        assert opt.param_groups[0]["d"] > 0.01
        assert (weight.detach().float() - aim).abs().mean() < 0.1


# -- layer lists -----------------------------------------------------------------------------------


class Layer:
    def __init__(self) -> None:
        self.param, self.grad, self.states = torch.ones(2), torch.ones(2), list[Any]()

    def get_params(self) -> Any:
        return [((self.param, self.grad), self.states)]


def test_over_layer_lists_they_belong_to_the_layers() -> None:
    gen_backend(batch_size=1)
    opt, one, two = Prodigy(d0=1e-2), Layer(), Layer()
    alone = [Prodigy(d0=1e-2), Prodigy(d0=1e-2)]
    others = [Layer(), Layer()]
    for _ in range(3):
        for layer, own, other in zip((one, two), alone, others, strict=True):
            layer.grad, other.grad = 2 * layer.param, 2 * other.param
            opt.optimize([layer], 0)
            own.optimize([other], 0)
        two.grad *= 3
    assert torch.equal(one.param, others[0].param)
    assert torch.equal(two.param, others[1].param)
    assert not torch.equal(one.param, torch.ones(2))


def test_layers_that_were_updated_apart_cannot_share_a_number() -> None:
    gen_backend(batch_size=1)
    opt, one, two, fresh = Counted(), Layer(), Layer(), Layer()
    opt.optimize([one], 0)
    opt.optimize([one, fresh], 0)  # what is new has the number of the others
    fresh.grad = None
    opt.optimize([one, fresh], 0)  # and keeps up with them where it has no gradient
    fresh.grad = torch.ones(2)
    opt.optimize([one, fresh], 0)
    opt.optimize([two], 0)
    before = one.param.clone(), two.param.clone()
    with pytest.raises(ValueError, match=r"d is one number of all layers of an optimizer, and it is .* updated apart"):
        opt.optimize([one, two], 0)
    assert torch.equal(one.param, before[0])
    assert torch.equal(two.param, before[1])


def test_a_models_file_has_them(tmp_path: Any) -> None:
    def model() -> Model:
        torch.manual_seed(0)
        made = Model([Affine(2, Constant(0.5))])
        made(torch.ones(4, 3))
        return made

    def train(trained: Model, opt: Optimizer, steps: int) -> None:
        for _ in range(steps):
            trained.zero_grad()
            (trained(torch.ones(4, 3)) - 3.0).square().sum().backward()
            opt.optimize(list(trained.layers), 0)

    gen_backend(batch_size=4)
    whole = model()
    train(whole, Prodigy(d0=1e-2), 4)
    part = model()
    train(part, Prodigy(d0=1e-2), 2)
    part.save_params(tmp_path / "half.prm")
    rest = model()
    rest.load_params(tmp_path / "half.prm")
    train(rest, Prodigy(d0=1e-2), 2)
    assert all(map(torch.equal, whole.parameters(), rest.parameters()))
