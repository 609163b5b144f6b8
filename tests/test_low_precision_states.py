"""States in 16 bits and in 8-bit blocks, and split weights: checkpoints, copies, what is refused."""

from __future__ import annotations

import copy
import io
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import neon.torch
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, Lion, Optimizer
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """A weight whose rows are whole blocks, one whose rows are not, and a bias that is too small for blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(16, 256))
        self.odd = nn.Parameter(torch.randn(3, 37, 41))
        self.low = nn.Parameter(torch.randn(16, 512).bfloat16())
        self.bias = nn.Parameter(torch.randn(7).bfloat16())


def net() -> Net:
    torch.manual_seed(0)
    return Net()


FORMATS: dict[str, Callable[[nn.Module], AttachedOptimizer]] = {
    "int8": lambda model: Adam(learning_rate=0.01, state_dtype="int8").attach(model),
    "int8, split": lambda model: AdamW(learning_rate=0.01, state_dtype="int8", master="split").attach(model),
    "bfloat16": lambda model: Adam(learning_rate=0.01, state_dtype="bfloat16", stochastic_round=True).attach(model),
    "float16": lambda model: Lion(learning_rate=0.01, state_dtype="float16").attach(model),
    "by state": lambda model: Adam(
        learning_rate=0.01, state_dtype={"exp_avg": "int8", "exp_avg_sq": "bfloat16"}, master="split"
    ).attach(model),
    "drop-in": lambda model: neon.torch.AdamW(model.named_parameters(), 0.01, state_dtype="int8"),
    "drop-in as it is": lambda model: neon.torch.AdamW(model.named_parameters(), 0.01),
    "in the backward pass": lambda model: Adam(learning_rate=0.01, state_dtype="int8").attach(model, in_backward=True),
}
every_format = pytest.mark.parametrize("format", FORMATS)


def train(model: nn.Module, opt: AttachedOptimizer, *steps: int) -> None:
    for step in steps:
        for number, p in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(100 * step + number)
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        opt.step()


def leaves(value: Any, path: str = "") -> dict[str, Tensor]:
    """The tensors in nested dicts, by where they are."""
    if isinstance(value, Tensor):
        return {path: value}
    items = value.items() if isinstance(value, dict) else ()
    return {name: t for key, item in items for name, t in leaves(item, f"{path} {key}").items()}


def kept(model: nn.Module, opt: AttachedOptimizer) -> dict[str, Tensor]:
    """Copies of all parameters and states; low bits as words, for as numbers some are NaN."""
    params = dict(model.named_parameters())
    found = leaves(params) | leaves({name: dict(opt.state[p]) for name, p in params.items()})
    copies = {name: tensor.detach().clone() for name, tensor in found.items()}
    return {name: t.view(torch.int16) if name.endswith("low_bits") else t for name, t in copies.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def saved_run(format: str) -> tuple[Net, AttachedOptimizer, dict[str, Any]]:
    """A run after two steps, and what it has saved."""
    model = net()
    opt = FORMATS[format](model)
    train(model, opt, 0, 1)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": opt.state_dict()}, file)
    file.seek(0)
    return model, opt, torch.load(file, weights_only=True)


def resume(format: str, saved: dict[str, Any]) -> dict[str, Tensor]:
    """What two more steps give."""
    model = net()
    opt = FORMATS[format](model)
    model.load_state_dict(saved["model"])
    opt.load_state_dict(saved["optimizer"])
    train(model, opt, 2, 3)
    return kept(model, opt)


@every_format
def test_a_resumed_run_goes_on_with_the_same_bits(format: str) -> None:
    model, opt, saved = saved_run(format)
    train(model, opt, 2, 3)
    assert_same(resume(format, saved), kept(model, opt))


def test_so_it_does_in_a_process_of_its_own(tmp_path: Path) -> None:
    expected = {}
    for format in FORMATS:
        model, opt, saved = saved_run(format)
        torch.save(saved, tmp_path / f"{format}.pt")
        train(model, opt, 2, 3)
        expected[format] = kept(model, opt)
    subprocess.run([sys.executable, __file__, tmp_path], check=True, cwd=Path(__file__).parent.parent)
    for format in FORMATS:
        assert_same(torch.load(tmp_path / f"{format} resumed.pt"), expected[format])


@every_format
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))], ids=["copy", "pickle"])
def test_copies_go_on_alike_and_share_nothing(format: str, copied: Callable[[Any], Any]) -> None:
    model, opt, _ = saved_run(format)
    before = kept(model, opt)
    other_model, other = copied((model, opt))
    train(other_model, other, 2, 3)
    assert_same(kept(model, opt), before)
    train(model, opt, 2, 3)
    assert_same(kept(model, opt), kept(other_model, other))


@every_format
@pytest.mark.parametrize("options", [{}, {"flatten_optimizer_state_dict": True}, {"full_state_dict": True}], ids=str)
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")
def test_distributed_checkpoints_keep_them(format: str, options: dict[str, bool], tmp_path: Path) -> None:
    model, opt, saved = saved_run(format)
    dcp.save(get_optimizer_state_dict(model, opt, options=StateDictOptions(**options)), checkpoint_id=tmp_path)
    train(model, opt, 2, 3)

    fresh = net()
    fresh.load_state_dict(saved["model"])
    other = FORMATS[format](fresh)
    states = get_optimizer_state_dict(fresh, other, options=StateDictOptions(**options))
    dcp.load(states, checkpoint_id=tmp_path)
    set_optimizer_state_dict(fresh, other, states, options=StateDictOptions(**options))
    train(fresh, other, 2, 3)
    assert_same(kept(fresh, other), kept(model, opt))


def test_each_format_is_the_checkpoints() -> None:
    """States stay as they were saved, and the group says so."""
    for one, other in (("int8", "bfloat16"), ("bfloat16", "int8")):
        model, opt, saved = saved_run(one)
        fresh = net()
        loaded = Adam(learning_rate=0.01, state_dtype=other, stochastic_round=one == "bfloat16").attach(fresh)
        loaded.load_state_dict(saved["optimizer"])
        assert loaded.param_groups[0]["state_dtype"] == one
        fresh.load_state_dict(saved["model"])
        train(model, opt, 2)
        train(fresh, loaded, 2)
        assert_same(kept(fresh, loaded), kept(model, opt))


WRONG: dict[str, tuple[int, Callable[[dict[str, Any]], Any], str]] = {
    "no scales": (0, lambda s: s.pop("scales"), "rows: exp_avg has dtype torch.int8 and no scales"),
    "a scale is missing": (0, lambda s: s["scales"].pop("exp_avg_sq"), "exp_avg_sq has dtype torch.uint8 and no"),
    "no dict": (0, lambda s: s.update(scales=torch.ones(3)), "it must be a dict of tensors"),
    "no tensor": (0, lambda s: s["scales"].update(exp_avg=1.0), "scales of exp_avg: the tensor is 1.0"),
    "another shape": (
        0, lambda s: s["scales"].update(exp_avg=torch.ones(16)), "has shape (16,) in the checkpoint; the parameter",
    ),
    "another dtype": (
        1, lambda s: s["scales"].update(exp_avg=s["scales"]["exp_avg"].double()), "odd: scales of exp_avg: the tensor",
    ),
    "scales of nothing": (
        3, lambda s: s.update(scales={"exp_avg": torch.ones(1)}), "bias: there are scales of 'exp_avg' in the",
    ),
    "no sign": (0, lambda s: s.update(exp_avg=s["exp_avg"].view(torch.uint8)), "exp_avg has dtype torch.uint8"),
    "low bits of float32": (
        0, lambda s: s.update(low_bits=torch.zeros(16, 256).bfloat16()), "rows: low_bits is in the checkpoint",
    ),
    "low bits of another shape": (2, lambda s: s.update(low_bits=s["low_bits"][1:]), "low_bits has shape (15, 512)"),
    "low bits of another dtype": (2, lambda s: s.update(low_bits=s["low_bits"].int()), "low_bits has dtype torch.int"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_by_name(case: str) -> None:
    number, change, message = WRONG[case]
    model, opt, saved = saved_run("int8, split")
    before = kept(model, opt)
    change(saved["optimizer"]["state"][number])
    with pytest.raises(ValueError, match=re.escape(message)):
        opt.load_state_dict(saved["optimizer"])
    assert_same(kept(model, opt), before)


def test_distributed_checkpoints_of_another_format_are_refused() -> None:
    """torch copies what is saved into the states that there are, codes into float32 too."""
    model = net()
    states = get_optimizer_state_dict(model, FORMATS["int8"](model))
    other = Adam(learning_rate=0.01).attach(model)
    with pytest.raises(ValueError, match="saved with state_dtype='int8', this optimizer has None"):
        set_optimizer_state_dict(model, other, states)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized")
def test_distributed_checkpoints_of_before_load_where_the_format_comes_to_the_same() -> None:
    """Of float32 parameters "parameter" is what None is; of bfloat16 it is not, and that is said."""
    model = net()
    whole = neon.torch.AdamW([model.rows, model.odd], 0.01, state_dtype=None)
    model.rows.grad, model.odd.grad = torch.ones_like(model.rows), torch.ones_like(model.odd)
    whole.step()
    model.requires_grad_(False)
    for param in (model.rows, model.odd):
        param.requires_grad_(True)
        param.grad = None
    states = get_optimizer_state_dict(model, whole)
    other = neon.torch.AdamW([model.rows, model.odd], 0.01)
    set_optimizer_state_dict(model, other, states)
    assert torch.equal(other.state[model.rows]["exp_avg"], whole.state[model.rows]["exp_avg"])
    model.requires_grad_(True)
    states = get_optimizer_state_dict(model, neon.torch.AdamW(model.parameters(), 0.01, state_dtype=None))
    with pytest.raises(ValueError, match="saved with state_dtype=None, this optimizer has 'parameter'"):
        set_optimizer_state_dict(model, neon.torch.AdamW(model.parameters(), 0.01), states)


@pytest.mark.parametrize("format", ["int8", "in the backward pass"])
@pytest.mark.parametrize("whole", [True, False], ids=["the dict", "one tensor"])
def test_scales_that_are_replaced_count_from_the_next_step(format: str, whole: bool) -> None:
    model, opt, _ = saved_run(format)
    state = opt.state[model.rows]
    larger = {name: 8 * scale for name, scale in state["scales"].items()}
    if whole:
        state["scales"] = larger
    else:
        state["scales"].update(larger)
    before = {name: scale.clone() for name, scale in larger.items()}
    train(model, opt, 2)
    assert all(opt.state[model.rows]["scales"][name] is larger[name] for name in larger)
    assert all(not torch.equal(larger[name], before[name]) for name in larger)


def test_a_state_dict_is_not_changed_by_what_is_written_to_the_state() -> None:
    model, opt, _ = saved_run("int8")
    saved = opt.state_dict()
    given = saved["state"][0]["scales"]["exp_avg"]
    opt.state[model.rows]["scales"]["exp_avg"] = torch.ones(16, 1)
    assert type(saved["state"][0]["scales"]) is dict
    assert saved["state"][0]["scales"]["exp_avg"] is given


@pytest.mark.parametrize(
    ("optimizer", "bytes"),
    [
        # 8192 numbers in 32 blocks: two states of one byte and a scale each, two low bytes; a count of steps.
        (AdamW(state_dtype="int8", master="split"), 2 * (8192 + 32 * 4) + 2 * 8192 + 4),
        (AdamW(state_dtype="bfloat16"), 2 * 2 * 8192 + 4),
        (AdamW(), 2 * 4 * 8192 + 4),
    ],
    ids=["int8, split", "bfloat16", "float32"],
)
def test_print_counts_every_byte(optimizer: Optimizer, bytes: int) -> None:
    model = nn.ParameterDict({"low": nn.Parameter(torch.randn(16, 512).bfloat16())})
    opt = optimizer.attach(model)
    train(model, opt, 0)
    assert bytes == sum(t.numel() * t.element_size() for t in leaves(dict(opt.state[model.low])).values())
    assert repr(opt).split()[-4] == f"{bytes:,}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in FORMATS:
        torch.save(resume(name, torch.load(Path(sys.argv[1]) / f"{name}.pt")), Path(sys.argv[1]) / f"{name} resumed.pt")


def test_states_in_blocks_stand_when_a_weight_is_laid_out_anew() -> None:
    """Of a kernel that went from channels last to rows, each weight goes on by its own velocity."""
    weight = nn.Parameter(torch.zeros(64, 16, 3, 3).to(memory_format=torch.channels_last))
    optimizer = GradientDescentMomentum(1.0, 1.0, state_dtype="int8").attach([weight])
    weight.grad = torch.logspace(-6, 0, 64).view(64, 1, 1, 1) * torch.ones_like(weight)
    optimizer.step()
    first = weight.detach().clone()
    weight.data = weight.detach().contiguous()
    weight.grad = torch.zeros(64, 16, 3, 3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), 2 * first, rtol=2**-3, atol=0)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("scales", None),
        ("scales", torch.ones(1)),
        ("scales", torch.ones(32, dtype=torch.float64)),
        ("low_bits", torch.zeros(3, dtype=torch.bfloat16)),
        ("low_bits", torch.zeros(8192)),
    ],
)
def test_what_stands_beside_states_has_the_size_that_a_kernel_writes(name: str, tensor: Any) -> None:
    weight = nn.Parameter(torch.zeros(8192, dtype=torch.bfloat16))
    optimizer = Adam(state_dtype="int8", master="split").attach([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.state[weight][name] = {"exp_avg": tensor, "exp_avg_sq": torch.ones(32)} if name == "scales" else tensor
    with pytest.raises(ValueError, match=f"{name.replace('_', ' ')}.*shape, dtype and device must be"):
        optimizer.step()


def test_states_in_blocks_do_not_fit_a_weight_that_became_float64() -> None:
    weight = nn.Parameter(torch.zeros(8192))
    optimizer = Adam(state_dtype="int8").attach([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    weight.data, weight.grad = weight.data.double(), None
    weight.grad = torch.ones_like(weight)
    with pytest.raises(ValueError, match=r"has dtype torch\.int8, the parameter is float64"):
        optimizer.step()


def test_low_bits_that_a_frozen_layer_has_left_are_loaded() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).bfloat16()
    optimizer = Adam(master="split").attach(model)

    def learn() -> None:
        model(torch.ones(1, 4, dtype=torch.bfloat16)).sum().backward()
        optimizer.step()

    learn()
    optimizer.freeze("1")
    optimizer.set("master", None)
    learn()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.unfreeze("1")
    learn()
    assert not any("low_bits" in state for state in optimizer.state.values())


def test_low_bits_and_scales_go_with_their_format() -> None:
    """A run that has left a format saves what it can load."""
    weight = nn.Parameter(torch.zeros(8192, dtype=torch.bfloat16))
    optimizer = Adam(state_dtype="int8", master="split").attach([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.param_groups[0]["master"] = None
    optimizer.state[weight]["exp_avg"] = torch.zeros(8192)
    optimizer.step()
    state = optimizer.state[weight]
    assert (sorted(state), [*state["scales"]]) == (["exp_avg", "exp_avg_sq", "scales", "step"], ["exp_avg_sq"])
    optimizer.load_state_dict(optimizer.state_dict())


def test_a_state_of_8_bits_that_is_switched_off_is_kept_in_checkpoints() -> None:
    weight = nn.Parameter(torch.zeros(8192))
    optimizer = neon.torch.Adam([weight], amsgrad=True, state_dtype="int8")
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.param_groups[0]["amsgrad"] = False
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state[weight]["max_exp_avg_sq"].dtype == torch.uint8


@pytest.mark.parametrize("name", ["Lion", "Signum", "LARS"])
def test_elements_without_a_gradient_stay_as_they_are_in_8_bits(name: str) -> None:
    """Where others in their block have one: a zero is stored as a zero, and has no sign."""
    param = torch.nn.Parameter(torch.ones(64, 256))
    optimizer = getattr(neon.optimizers, name)(learning_rate=0.5, state_dtype="int8").attach([param])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        param.grad = torch.randn(64, 256, generator=generator)
        param.grad[:, ::2] = 0.0
        optimizer.step()
    assert param.detach()[:, ::2].unique().tolist() == [1.0]
    assert (param.detach()[:, 1::2] != 1.0).float().mean() > 0.5
