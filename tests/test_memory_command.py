"""`neon memory`: what it counts is what torch's allocator gives, and it allocates nothing."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import memory_models
import pytest
import torch
from code_blocks import ROOT
from memory_models import MODELS, backward, kept_bytes, peak_of
from rich.console import Console
from torch import nn
from typer.testing import CliRunner, Result

from neon.cli import app
from neon.commands.memory.abstract_model import abstract_copy
from neon.commands.memory.formats_compared import Form, every_form
from neon.commands.memory.memory_command import Counted, run_command
from neon.commands.memory.memory_request import Request
from neon.commands.memory.memory_table import Row
from neon.commands.memory.sharded_model import ranks_by_name
from neon.commands.memory.torch_step import torch_step
from neon.commands.optimizer_text import parse_optimizer
from neon.engine import arena
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
MUON = 'MultiOptimizer({"default": AdamW(), "HiddenMatrix": Muon()})'
# By name: the dtype of weights, and an optimizer.
FORMATS = {
    "float32 states": (torch.float32, "AdamW()"),
    "bfloat16 states": (torch.float32, "AdamW(state_dtype='bfloat16')"),
    "int8 states": (torch.float32, "AdamW(state_dtype='int8')"),
    "split weights": (torch.bfloat16, "AdamW(master='split')"),
    "bfloat16 weights, int8 states": (torch.bfloat16, "Lion(stochastic_round=True, state_dtype='int8')"),
    "an average": (torch.float32, "Adam(weight_average=0.9, gradient_clip_norm=1.0)"),
    "Adafactor": (torch.float32, "Adafactor()"),
}


@pytest.fixture(autouse=True)
def no_arena_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimizers of other tests may be there still, and have made what a thread's calls work in."""
    monkeypatch.setattr(arena, "_arenas", WeakValueDictionary())


def counted(model: nn.Module, optimizer: str, dtype: torch.dtype | None = None) -> Row:
    return Counted(model, CPU).row(parse_optimizer(optimizer), Form("", "", dtype))


def attached(model: nn.Module, optimizer: str, **options: Any) -> AttachedOptimizer:
    return parse_optimizer(optimizer).build().attach(model, **options)


def measured(model: nn.Module, optimizer: AttachedOptimizer) -> int:
    """The peak of two steps, with weights and gradients, which are there before."""
    there = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
    return kept_bytes(there) + peak_of(optimizer.step, optimizer.step)


# -- against the allocator -------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_the_peak_of_a_step_is_what_is_measured(name: str, format_: str) -> None:
    dtype, optimizer = FORMATS[format_]
    model = MODELS[name][0]().to(dtype)
    row = counted(model, optimizer, dtype)
    own = attached(model, optimizer)
    backward(model, name)
    peak = measured(model, own)
    assert row.step is not None
    assert row.step.total == pytest.approx(peak, rel=0.005)
    assert row.step.states == kept_bytes(own.state)


@pytest.mark.parametrize("name", ["perceptron", "language", "vision"])
def test_so_it_is_of_a_rule_of_matrices(name: str) -> None:
    """Of which temporaries are more than a tenth; what oneDNN packs differs from processor to processor."""
    model = MODELS[name][0]()
    row = counted(model, MUON)
    own = attached(model, MUON)
    backward(model, name)
    peak = measured(model, own)
    assert row.step is not None
    assert row.step.total == pytest.approx(peak, rel=0.03)
    assert row.step.beside > 0.1 * row.step.total


@pytest.mark.parametrize("rule", ["SOAP(frequency=1)", "Shampoo(frequency=1)"])
@pytest.mark.parametrize("name", ["perceptron", "vision"])
def test_so_it_is_of_bases_and_roots(name: str, rule: str) -> None:
    """In a step that computes new ones; what LAPACK works in is counted but for some hundred numbers."""
    model = MODELS[name][0]()
    optimizer = f'MultiOptimizer({{"default": AdamW(), "HiddenMatrix": {rule}}})'
    row = counted(model, optimizer)
    own = attached(model, optimizer)
    backward(model, name)
    assert row.step is not None
    assert row.step.total == pytest.approx(measured(model, own), rel=0.005)


@pytest.mark.parametrize("optimizer", ["AdamW()", "Adafactor()"])
@pytest.mark.parametrize("name", ["perceptron", "recommender", "language"])
def test_so_it_is_within_the_backward_pass(name: str, optimizer: str) -> None:
    """Of the tied embedding three gradients are there at a time: the head's, its own, and their sum."""
    model = MODELS[name][0]()
    row = counted(model, optimizer)
    own = attached(model, optimizer, in_backward=True)

    def train() -> None:
        backward(model, name)
        own.step()

    peak = kept_bytes([*model.parameters()]) + peak_of(train, train)
    assert row.in_backward is not None
    assert row.in_backward.total == pytest.approx(peak, rel=0.03)


def test_so_it_is_of_weights_that_are_copied_in_a_step() -> None:
    """What is not dense, and gradients beside it, which are."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(400, 600)[:, ::2])])
    row = counted(model, "AdamW()")
    own = attached(model, "AdamW()")
    model[0].sum().backward()
    assert row.step is not None
    assert row.step.beside >= 4 * 400 * 300 * 4
    assert row.step.total == pytest.approx(measured(model, own), rel=0.005)


@pytest.mark.parametrize("form", [*every_form()], ids=lambda form: f"{form.weights}, {form.states}")
def test_states_are_those_that_a_step_makes(form: Form) -> None:
    """In each format, of matrices and of small tensors."""
    model = nn.Sequential(nn.Linear(100, 70), nn.BatchNorm1d(70), nn.Linear(70, 3)).to(form.dtype)
    row = Counted(model, CPU).row(parse_optimizer("NAdam()"), form)
    own = attached(model, "NAdam()")
    for group in own.param_groups:
        group.update(form.values)
    model(torch.ones(3, 100, dtype=form.dtype)).sum().backward()
    own.step()
    assert row.step is not None
    assert row.step.states == kept_bytes(own.state)
    assert row.step.weights == kept_bytes([*model.parameters(), *model.buffers()])


SHARDED = {
    "language": "AdamW(state_dtype='int8')",
    "perceptron": "Adafactor()",
    "vision": "Lion()",
    "recommender": "Adam(weight_average=0.9)",
}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, int]]]:
    """What two processes found, by the names of models."""
    folder, cases = tmp_path_factory.mktemp("ranks"), [word for case in SHARDED.items() for word in case]
    programs = [[sys.executable, memory_models.__file__, str(rank), str(folder), *cases] for rank in range(2)]
    running = [subprocess.Popen(program, stdout=subprocess.PIPE, text=True) for program in programs]
    printed = [json.loads(rank.communicate(timeout=240)[0].splitlines()[-1]) for rank in running]
    return [dict(zip(SHARDED, found, strict=True)) for found in printed]


@pytest.mark.parametrize("name", SHARDED)
def test_shards_are_those_of_two_ranks(name: str, ranks: list[dict[str, dict[str, int]]]) -> None:
    """Of which the first has most where rows are odd."""
    first, second = (found[name] for found in ranks)
    with ranks_by_name(2) as mesh:
        row = Counted(MODELS[name][0](), CPU, mesh).row(parse_optimizer(SHARDED[name]), Form("", ""))
    found = row.sharded_step
    assert found is not None
    assert (found.weights, found.gradients) == (first["weights"], first["gradients"])
    assert found.states == first["states"]
    assert found.total == pytest.approx(first["total"], rel=0.03)
    assert second["weights"] <= found.weights


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("optimizer", "theirs"), [("AdamW()", torch.optim.AdamW), ("Adagrad()", torch.optim.Adagrad)])
def test_so_it_is_of_torchs_own_step(optimizer: str, theirs: Any, foreach: bool) -> None:
    """Which on GPUs takes all tensors at a time, and makes as much again as all weights."""
    model = memory_models.Language()
    device = torch.device("cuda" if foreach else "cpu")
    found = torch_step(parse_optimizer(optimizer).build(), abstract_copy(model, None), device)
    assert found is not None
    name, states, beside = found
    assert name == f"torch.optim.{theirs.__name__}"
    backward(model, "language")
    made = theirs(model.parameters(), foreach=foreach)
    made.step()
    assert states == kept_bytes(made.state)
    assert beside == pytest.approx(peak_of(made.step), rel=0.001)
    assert beside >= kept_bytes([*model.parameters()]) or not foreach


# -- nothing is allocated --------------------------------------------------------------------------


def huge() -> nn.Module:
    """4·10¹⁰ weights, a quarter of them tied, a quarter frozen."""
    first, second = nn.Linear(100_000, 100_000, bias=False), nn.Linear(100_000, 100_000, bias=False)
    second.weight = first.weight
    third, fourth = nn.Linear(200_000, 100_000, bias=False), nn.Linear(100_000, 100_000, bias=False)
    model = nn.Sequential(first, second, third, fourth)
    model[3].requires_grad_(False)
    return model


def test_a_model_larger_than_any_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_models, "huge", huge, raising=False)
    rows: list[Row] = []
    request = Request("memory_models:huge", ["AdamW(state_dtype='int8')"], dtype="bfloat16", ranks=1000)
    peak = peak_of(lambda: rows.extend(run_command(request, Console(quiet=True))))
    assert peak < 1e6
    given, part = rows[0].step, rows[0].sharded_step
    assert given is not None
    assert part is not None
    assert (given.weights, given.gradients) == (8 * 10**10, 6 * 10**10)
    assert given.states == 3 * 10**10 * 2 * (1 + 4 / 256)
    assert (part.weights * 1000, part.gradients * 1000) == (given.weights, given.gradients)
    whole, divided = rows[0].in_backward, rows[0].sharded_in_backward
    assert whole is not None
    assert divided is not None
    assert whole.gradients == 3 * 2 * 10**10
    assert divided.gradients * 1000 == 4 * 10**10


def test_a_module_as_it_is_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = memory_models.Language()
    monkeypatch.setattr(memory_models, "as_it_is", model, raising=False)
    before = {name: param.clone() for name, param in model.named_parameters()}
    rows = run_command(Request("memory_models:as_it_is", dtype="bfloat16", ranks=2), Console(quiet=True))
    assert {row.form.dtype for row in rows} == {torch.bfloat16}
    assert all(torch.equal(param, before[name]) for name, param in model.named_parameters())
    assert all(param.grad is None for param in model.parameters())
    copied = abstract_copy(model, None)
    assert copied.head.weight is copied.words.weight


# -- the command -----------------------------------------------------------------------------------


def neon_memory(*arguments: str, columns: int = 120) -> Result:
    return CliRunner().invoke(app, ["memory", *arguments], env={"COLUMNS": str(columns)})


def test_one_optimizer_is_shown_in_every_format() -> None:
    result = neon_memory(
        "memory_models:language", "--optimizer", "AdamW(state_dtype='int8')", "--ranks", "2", "--device-memory", "4.2MB"
    )
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "memory_models:language: 514,848 weights in 26 tensors, float32"
    for words in ("as given", "bfloat16, at random", "bfloat16, split", "int8", "float32, average", "* fits in 4.2MB"):
        assert words in result.stdout
    [given] = [line.split() for line in lines if "as given" in line]
    assert given[2:5] == ["1.96", "1.96", "1.03"]
    assert [cell.endswith("*") for cell in given[-4:]] == [False, False, True, True]


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_has_whole_words(columns: int) -> None:
    arguments = ("memory_models:language", "--optimizer", "AdamW()", "--ranks", "2")
    wide, narrow = neon_memory(*arguments).stdout, neon_memory(*arguments, columns=columns).stdout
    assert sorted(narrow.replace("─", "").split()) == sorted(wide.replace("─", "").split())


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    page = (ROOT / "docs/memory.md").read_text(encoding="utf-8")
    file, command, shown = re.findall(r"```(?:python|sh|text)\n(.*?)```", page, re.S)
    Path("gpt2.py").write_text(file)
    result = neon_memory(*shlex.split(command)[2:])
    assert [line.rstrip() for line in result.stdout.splitlines()] == shown.splitlines()


def test_without_an_optimizer_some_are_shown() -> None:
    """And those that the model has no use for are not."""
    result = neon_memory("memory_models:recommender")
    assert result.exit_code == 0, result.stderr
    assert "AdamW()" in result.stdout
    assert "Adafactor()" in result.stdout
    assert "Muon" not in result.stdout
    assert "Muon" in neon_memory("memory_models:vision").stdout


def test_what_cannot_be_had_says_why() -> None:
    result = neon_memory("memory_models:perceptron", "--optimizer", "AdamW(gradient_clip_norm=1.0)")
    [given] = [line.split() for line in result.stdout.splitlines() if "as given" in line]
    assert given[-1] == "–"
    assert "– gradient_clip_norm cannot be had with in_backward=True" in result.stdout


def of_scalars() -> nn.Module:
    return nn.ParameterList([nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(300, 300))])


def test_what_fully_shard_refuses_is_told_too() -> None:
    result = neon_memory(
        "test_memory_command:of_scalars", "--optimizer", "AdamW(state_dtype={'exp_avg': 'int8'})", "--ranks", "2"
    )
    assert result.exit_code == 0, result.stderr
    [given] = [line.split() for line in result.stdout.splitlines() if "as given" in line]
    assert given[-2:] == ["–", "–"]
    assert result.stdout.count("– fully_shard: fully_shard doesn't support scalar parameters") == 1


def needs_values() -> nn.Module:
    return nn.Linear(int(torch.ones(3).sum().item()), 4)


def allocated() -> nn.Module:
    with torch.device("cpu"):
        return needs_values()


REFUSED = {
    "nowhere:model": "cannot import 'nowhere'",
    "memory_models:languag": "Did you mean 'language'?",
    "memory_models.py": "expected module:name",
    "memory_models:MODELS": "must be a torch.nn.Module, or a class or function .* received dict",
    "memory_models:Block": "is called without arguments: missing a required argument: 'width'",
    "test_memory_command:needs_values": r"failed on the meta device.* write `with torch.device\(\"cpu\"\):`",
    "test_memory_command:exits": r"exits\(\) failed on the meta device.*: SystemExit: 3 \(test_memory",
    "test_memory_command:lazy": "0.weight has no size before a first batch",
    "test_memory_command:frozen": "has no trainable parameters",
    "test_memory_command:complex_": "0 has dtype complex64; trained weights are of float64",
    "memory_models:vision --dtype float8": "unknown dtype 'float8'. Choose one of float64, float32",
    "memory_models:vision --ranks 0": "--ranks must be from 1 to 100,000; received 0",
    "memory_models:vision --ranks 1000000": "--ranks must be from 1 to 100,000; received 1000000",
    "memory_models:vision --device tpu": "unknown device 'tpu'. Choose one of",
    "memory_models:vision --device-memory 24": "--device-memory must be a size such as 24GB, .* received '24'",
    "memory_models:vision --optimizer Adamm()": "unknown class 'Adamm'.* Did you mean Adam",
    "memory_models:vision --optimizer Muon()": r"Muon\(\) cannot be had for this model: Muon updates matrices",
}


def exits() -> nn.Module:
    sys.exit(3)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(3))


def frozen() -> nn.Module:
    return nn.Linear(3, 3).requires_grad_(False)


def complex_() -> nn.Module:
    return nn.ParameterList([nn.Parameter(torch.zeros(3, dtype=torch.complex64))])


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_used_is_told_in_one_line(arguments: str) -> None:
    result = neon_memory(*arguments.split())
    assert result.exit_code == 2
    assert not result.stdout
    [line] = result.stderr.splitlines()
    assert line.startswith("neon memory: ")
    assert re.search(REFUSED[arguments], line)


def quantized(dtype: torch.dtype = torch.int8) -> nn.Module:
    base = nn.Parameter(torch.zeros(1000, 1000).to(dtype), requires_grad=False)
    return nn.ParameterList([base, nn.Parameter(torch.zeros(1000, 8))])


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_what_is_frozen_has_any_dtype(dtype: torch.dtype) -> None:
    """And keeps it in each format."""
    for given, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        row = counted(quantized(dtype), "AdamW()", given)
        assert row.step is not None
        assert (row.step.weights, row.step.gradients) == (1_000_000 + size * 8_000, size * 8_000)
    result = neon_memory("test_memory_command:quantized", "--optimizer", "AdamW()", "--ranks", "2")
    assert result.exit_code == 0, result.stderr


def test_what_needs_values_is_allocated_where_it_says_so() -> None:
    assert neon_memory("test_memory_command:allocated").exit_code == 0


def test_a_process_group_that_is_there_is_left_alone(tmp_path: Path) -> None:
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        result = neon_memory("memory_models:vision", "--ranks", "2")
        assert (result.exit_code, distributed.is_initialized()) == (2, True)
        assert "a process group is there" in result.stderr
    finally:
        distributed.destroy_process_group()
    assert neon_memory("memory_models:recommender", "--ranks", "2").exit_code == 0
    assert not distributed.is_initialized()
