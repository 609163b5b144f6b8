"""Audits: what is said by itself, once, and what when somebody asks; what silences it; what it leaves alone."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from memory_models import peak_of
from rich.console import Console
from torch import nn
from torch.utils.checkpoint import checkpoint

import neon.torch
from neon.attached.attached_optimizer import AttachedOptimizer
from neon.audit import Audit, AuditWarning, Finding
from neon.audit.checks import CHECKS
from neon.audit.first_steps import LOOKS, NORMS
from neon.audit.samples import MOST, sampled
from neon.audit.seen import LAST
from neon.optimizers import Adafactor, Adam, AdamW, Centralized, GradientDescentMomentum, MultiOptimizer, Muon


def model_of(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1, loss: Any = torch.mean) -> None:
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        model.zero_grad()
        outputs = model(torch.randn(16, 8, dtype=dtype))
        loss((outputs - torch.randn_like(outputs)).square()).backward()
        optimizer.step()


def replaced(**options: Any) -> tuple[nn.Sequential, AttachedOptimizer]:
    model = model_of()
    optimizer = Adam().attach(model, **options)
    model[2] = nn.Linear(16, 10)
    return model, optimizer


# -- when it is said -------------------------------------------------------------------------------


def test_the_first_step_warns_once_where_it_was_made() -> None:
    model, optimizer = replaced()
    with pytest.warns(AuditWarning, match=r"audit of the first step .*\n- replaced: 2.weight, 2.bias: ") as caught:
        train(model, optimizer)
    assert [warning.filename for warning in caught] == [__file__]
    train(model, optimizer, 150)  # warnings are errors: what has been said is not said again
    assert optimizer.audit().kinds == ("replaced",)


def test_nothing_is_left_behind_after_the_last_look() -> None:
    model = model_of()
    optimizer = Adam().attach(model)
    train(model, optimizer, LAST - 1)
    assert "_first_steps" in vars(optimizer)
    assert optimizer._first_steps is not None
    train(model, optimizer)
    assert optimizer._first_steps is None
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in model.modules())


def test_a_warning_that_is_an_error_comes_after_the_step() -> None:
    model, optimizer = replaced()
    before = model[0].weight.clone()
    with pytest.raises(AuditWarning):
        train(model, optimizer)
    assert not torch.equal(before, model[0].weight)
    assert optimizer.state[model[0].weight]["step"] == 1
    train(model, optimizer)
    assert optimizer.state[model[0].weight]["step"] == 2


def test_it_can_be_left_out() -> None:
    model, optimizer = replaced(audit=False)
    train(model, optimizer)
    audit = optimizer.audit()
    assert audit.kinds == ("replaced",)
    assert any("not watched" in note for note in audit.notes)


def test_a_filter_of_its_category_silences_it() -> None:
    model, optimizer = replaced()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AuditWarning)
        train(model, optimizer)


def test_drop_ins_take_it() -> None:
    model = model_of(torch.bfloat16)
    train(model, neon.torch.SGD(model.parameters(), lr=1e-9, audit=False), LAST)
    with pytest.raises(TypeError, match="audit must be True or False"):
        neon.torch.SGD(model.parameters(), audit="no")  # type: ignore[arg-type]


def test_steps_that_change_nothing_do_not_count() -> None:
    model = model_of()
    optimizer = Adam().attach(model, skip_nonfinite=True)
    model[2] = nn.Linear(16, 10)
    optimizer.step()  # without any gradient
    for param in (*model[0].parameters(), *model[2].parameters()):
        param.grad = torch.full_like(param, torch.nan)
    optimizer.step()  # left out
    assert optimizer.skipped_steps == 1
    with pytest.warns(AuditWarning, match="replaced"):
        train(model, optimizer)


def test_a_rehearsal_is_no_step() -> None:
    model, optimizer = replaced()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for param in model.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()  # as torch.distributed.checkpoint has states made
    optimizer.param_groups[0]["lr"] = 1e-3
    with pytest.warns(AuditWarning, match="replaced"):
        train(model, optimizer)


def test_a_step_left_out_at_the_last_look_is_not_what_is_looked_at() -> None:
    model = model_of(torch.bfloat16)
    optimizer = neon.torch.SGD(model.parameters(), lr=0.1, skip_nonfinite=True)
    train(model, optimizer, LAST - 1)
    train(model, optimizer, loss=lambda x: x.mean() * torch.inf)
    assert optimizer._first_steps is not None


def test_a_step_that_is_refused_is_made_again() -> None:
    model, optimizer = replaced()
    grad = model[0].weight.grad = torch.zeros(16, 8).to_sparse()
    with pytest.raises(ValueError, match="sparse"):
        optimizer.step()
    assert grad is model[0].weight.grad
    with pytest.warns(AuditWarning, match="replaced"):
        train(model, optimizer)


def test_a_closure_is_called_within() -> None:
    model, optimizer = replaced()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 8)).square().mean()
        loss.backward()
        return loss

    with pytest.warns(AuditWarning, match="replaced"):
        assert optimizer.step(closure) > 0


# -- what it leaves alone --------------------------------------------------------------------------


def test_checkpoints_copies_and_pickles_know_nothing_of_it() -> None:
    model = model_of()
    optimizer, other = Adam().attach(model), Adam().attach(copy.deepcopy(model), audit=False)
    keys = list(optimizer.state_dict()["param_groups"][0])
    assert keys == list(other.state_dict()["param_groups"][0])
    train(model, optimizer, 3)
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert copied._first_steps is None
        assert "model" in str(copied.audit())
        assert not copied.audit(model)  # which the one of before trains
    copied_model, copied = copy.deepcopy((model, optimizer))
    assert not copied.audit(copied_model)
    optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, LAST)
    assert optimizer._first_steps is None


def test_weights_are_the_same_with_and_without() -> None:
    found = []
    for audit in (True, False):
        model = model_of(torch.bfloat16)
        optimizer = AdamW(learning_rate=0.1, gradient_clip_norm=1.0, gradient_clip_value=0.5).attach(model, audit=audit)
        train(model, optimizer, LAST + 2)
        found.append([param.detach().clone() for param in model.parameters()])
    assert all(map(torch.equal, *found))


@pytest.mark.usefixtures("nothing_compiled")
def test_a_model_that_is_copied_while_a_hook_is_on_it() -> None:
    model = nn.ModuleDict({"a": nn.Linear(8, 4), "b": nn.Linear(8, 5)})
    optimizer = Adam().attach(model)
    for _ in range(LAST - 1):
        model["a"](torch.randn(2, 8)).square().mean().backward()
        optimizer.step()
    assert model["b"]._forward_hooks
    assert model["a"]._forward_pre_hooks
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert copied["b"](torch.ones(1, 8)).shape == (1, 5)
    del optimizer
    assert not model["b"]._forward_hooks


def test_a_model_that_is_gone_is_not_looked_at() -> None:
    model = model_of()
    parts = nn.ModuleList([model])
    optimizer = Adam().attach(parts)
    parts[0] = model_of()
    del parts
    train(model, optimizer, 2)
    assert any("nothing is known" in note for note in optimizer.audit().notes)


# -- what is found, where the gallery has no program of it -----------------------------------------


def test_findings_by_what_has_changed() -> None:
    model = model_of()
    optimizer = Adam().attach(model)
    model[2].weight = nn.Parameter(model[2].weight.detach().double())
    assert "of another dtype" in optimizer.audit()[0].text
    model[2].weight = nn.Parameter(model[2].weight.detach().float())
    assert "of the same shape" in optimizer.audit()[0].text
    optimizer.add_layers(model)
    assert not optimizer.audit()


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_an_encoder_under_a_checkpoint_that_is_detached(use_reentrant: bool) -> None:
    class Encoder(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(super().forward, x, use_reentrant=use_reentrant)

    model = nn.ModuleDict({"encoder": Encoder(8, 16), "head": nn.Linear(16, 4)})
    optimizer = Adam().attach(model)
    for _ in range(LAST):
        hidden = model["encoder"](torch.randn(2, 8, requires_grad=True))
        model["head"](hidden.detach()).square().mean().backward()
        if optimizer._record.steps < LAST - 1:
            optimizer.step()
    with pytest.warns(AuditWarning, match="no gradient: encoder: .* reaches head detached"):
        optimizer.step()


def test_a_new_layer_that_is_given_as_a_group_is_not_tied() -> None:
    model = model_of()
    optimizer = Adam().attach(model)
    model[2] = nn.Linear(16, 10)
    optimizer.add_param_group({"params": list(model[2].parameters())})
    train(model, optimizer, LAST)
    assert not optimizer.audit()
    model[2].weight = model[0].weight = nn.Parameter(torch.ones(10, 10))
    optimizer.add_param_group({"params": [model[2].weight]})
    assert optimizer.audit().kinds == ("tied",)


def test_layers_that_are_cut_off_are_lost() -> None:
    model = model_of()
    optimizer = Adam().attach(model)
    model[2] = nn.Identity()
    with pytest.warns(AuditWarning, match="- lost: 2.weight, 2.bias: "):
        train(model, optimizer)


def test_what_is_used_elsewhere_is_not_lost() -> None:
    model = model_of()
    optimizer = Adam().attach(model)
    head, model[2] = model[2], nn.Identity()
    for _ in range(2):
        model.zero_grad()
        head(model(torch.randn(4, 8))).square().mean().backward()
        optimizer.step()


def test_what_another_optimizer_has_is_given() -> None:
    model = model_of()
    optimizer = Adam().attach(model)
    model.append(nn.Linear(4, 4))
    other = torch.optim.Adam(model[3].parameters())
    train(model, optimizer)
    assert not optimizer.audit()
    del other
    assert optimizer.audit().kinds == ("not given",)


def test_what_a_trainer_puts_around_it_is_no_other() -> None:
    class Around(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner, self.state = inner, inner.state
            self.param_groups = inner.param_groups

    model = model_of()
    around = Around(Adam().attach(model))
    train(model, around.inner)
    assert not around.inner.audit()  # type: ignore[attr-defined]


def test_several_models_are_named_by_their_places() -> None:
    one, other = model_of(), model_of()
    optimizer = neon.torch.Adam([*one.parameters(), *other[2].parameters()])
    assert not optimizer.audit(one, other[2])
    assert optimizer.audit(one).kinds == ("lost",)
    [finding] = optimizer.audit(one, other)
    assert finding.concerns == ("1.0.weight", "1.0.bias")


def test_layers_with_a_rate_of_zero_lose_nothing_to_rounding() -> None:
    model = model_of(torch.bfloat16)
    optimizer = Adam(learning_rate=0.1).attach(model)
    optimizer.set("lr", 0.0, layers="0")
    train(model, optimizer, LAST)
    assert not optimizer.audit()


@pytest.mark.parametrize(
    "options",
    [{"stochastic_round": True}, {"master": "split"}, {"learning_rate": 0.1}, {"param_clip_value": 1e-4}],
)
def test_what_rounding_keeps(options: dict[str, Any]) -> None:
    model = model_of(torch.bfloat16)
    optimizer = Adam(**{"learning_rate": 1e-6, **options}).attach(model)
    train(model, optimizer)
    assert not optimizer.audit()
    train(model, optimizer, LAST)


@pytest.mark.parametrize(
    "rule",
    [Adam(learning_rate=1e-6), GradientDescentMomentum(1e-6, 0.9, wdecay=0.1), AdamW(learning_rate=1e-6, wdecay=0.0)],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_estimate_says_what_is_measured(rule: Any, dtype: torch.dtype) -> None:
    model = model_of(dtype)
    optimizer = rule.attach(model)
    train(model, optimizer)
    before = [param.clone() for param in model.parameters()]
    found = [set(finding.concerns) for finding in optimizer.audit() if finding.kind == "rounding"]
    train(model, optimizer)
    still = {
        name
        for (name, param), old in zip(model.named_parameters(), before, strict=True)
        if param.numel() >= 8 and (param == old).float().mean() > 0.5
    }
    assert still
    assert [still] == found


def test_clips_of_a_mapping_and_of_the_step_before() -> None:
    model = model_of()
    mapping = MultiOptimizer({"default": Adam(), "Bias": Adam(gradient_clip_norm=1e-6)}, gradient_clip_norm=1e-5)
    with pytest.warns(AuditWarning, match=r"all that is clipped together.*\n- clips always: group 1 \('Bias'\)"):
        train(model, mapping.attach(model), LAST)
    optimizer = Adam().attach(model, in_backward=True, gradient_clip_previous_norm=1e-6)
    with pytest.warns(AuditWarning, match=r"clips always: group 0 \('default'\)"):
        train(model, optimizer, LAST)


def test_a_clip_that_acts_by_ten_is_said_when_asked() -> None:
    model = nn.Linear(8, 4)
    optimizer = Adam(gradient_clip_norm=0.01, learning_rate=1e-5).attach(model)
    train(model, optimizer, LAST)
    assert optimizer.audit().kinds == ("clips always",)


def test_layers_without_the_clip_of_their_group() -> None:
    model = model_of()
    optimizer = Adam(gradient_clip_value=1e-9).attach(model)
    optimizer.set("gradient_clip_value", 10.0, layers="*")
    train(model, optimizer, LAST)
    assert not optimizer.audit()
    optimizer = Adam().attach(model)
    optimizer.set("gradient_clip_value", 1e-9, layers="2")
    with pytest.warns(AuditWarning, match="clips always: group 0"):
        train(model, optimizer, LAST)


def test_a_group_of_embeddings_for_muon() -> None:
    model = nn.ModuleDict({"tokens": nn.Embedding(20, 8), "hidden": nn.Linear(8, 8, bias=False)})
    model["tokens"].requires_grad_(False)
    optimizer = MultiOptimizer({"default": Adam(), "hidden": Muon(), "tokens": None}).attach(model)
    model["tokens"].requires_grad_(True)
    optimizer.add_param_group({"params": [("tokens.weight", model["tokens"].weight)], "optimizer": "hidden"})
    model["hidden"](model["tokens"](torch.arange(4))).square().mean().backward()
    with pytest.warns(AuditWarning, match=r"- matrix rule: tokens.weight \(embedding\): Muon is for hidden"):
        optimizer.step()


@pytest.mark.parametrize(
    "rule", [Adafactor(momentum_coef=0.9, state_dtype="int8"), Centralized(Adam(state_dtype={"exp_avg": "int8"}))]
)
def test_rules_of_rows_keep_no_blocks(rule: Any) -> None:
    model = nn.Linear(256, 16)
    optimizer = rule.attach(model)
    model(torch.randn(4, 256)).square().mean().backward()
    with pytest.warns(AuditWarning, match=r"- wide states: weight: .* float32: the rule works by rows"):
        optimizer.step()
    assert optimizer.state[model.weight]["exp_avg"].dtype == torch.float32
    optimizer.freeze("weight")
    assert not optimizer.audit()


def test_schedules_that_have_not_moved_are_noted() -> None:
    model = model_of()
    optimizer = Adam().attach(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    train(model, optimizer, 3)
    assert any("StepLR has made no step in 3" in note for note in optimizer.audit().notes)
    scheduler.step()
    assert not any("StepLR" in note for note in optimizer.audit().notes)


# -- the result ------------------------------------------------------------------------------------


def test_the_result_prints_as_lines_and_as_a_table() -> None:
    model, optimizer = replaced(audit=False)
    audit = optimizer.audit()
    assert isinstance(audit, Audit)
    assert (len(audit), bool(audit), audit[0], [*audit]) == (1, True, audit.findings[0], [*audit.findings])
    assert str(audit).startswith("- replaced: 2.weight, 2.bias: ")
    assert repr(audit) == "Audit(1 finding: replaced)"
    console = Console(file=io.StringIO(), width=200)
    console.print(audit)
    assert "2.weight, 2.bias" in console.file.getvalue()  # type: ignore[attr-defined]
    assert not Adam().attach(model).audit()
    assert str(Adam().attach(model).audit()).startswith("Nothing is found.\nThe optimizer has 4 parameters")


def test_many_names_are_few_words() -> None:
    finding = Finding("rounding", tuple(f"blocks.{number}.weight" for number in range(1000)), "so.", "Do.")
    assert "(1000 in all): so. Do." in str(finding)
    assert len(str(finding)) < 200


@pytest.mark.parametrize("model", [None, [nn.Linear(1, 1)], "model"])
def test_what_is_no_module_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match=r"audit takes torch modules\. Received: "):
        Adam().attach(nn.Linear(2, 2)).audit(model)


def test_kinds_of_the_table_are_apart() -> None:
    kinds = [check.kind for check in CHECKS]
    assert len({*kinds}) == len(kinds)
    assert max(LOOKS) == LAST
    assert {*NORMS} < LOOKS


def test_samples_are_small_and_of_all_columns() -> None:
    matrix = torch.arange(1_000_000).reshape(1000, 1000)
    sample = sampled(matrix)
    assert MOST / 2 < len(sample) <= MOST
    assert len({*(sample % 1000).tolist()}) > 900
    assert sampled(torch.arange(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("laid", ["transposed", "channels_last", "with_gaps"])
def test_samples_of_another_order_are_the_same_and_no_copy(laid: str) -> None:
    plain = torch.arange(400_000.0).reshape(100, 40, 10, 10)
    given = {
        "transposed": plain.mT.contiguous().mT,
        "channels_last": plain.to(memory_format=torch.channels_last),
        "with_gaps": torch.stack((plain, plain), -1)[..., 0],
    }[laid]
    assert not given.is_contiguous()
    assert torch.equal(sampled(given), sampled(plain))
    assert peak_of(lambda: sampled(given)) < plain.nbytes / 10
