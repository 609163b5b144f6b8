"""neon bench measures: the same work for all, every kind of line, whatever the machine."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from neon.commands import machine
from neon.commands.bench import few_bits, memory, new_process, step_alone, timing
from neon.commands.bench.bench_command import MEASURED, Request, choose
from neon.commands.bench.few_bits import FORMATS
from neon.commands.bench.first_step import first_step
from neon.commands.bench.kinds import KINDS
from neon.commands.bench.matrix_steps import MATRICES
from neon.commands.bench.results import TARGETS, Line, Result, Settings
from neon.commands.bench.tensor_shapes import SHAPES, Shapes
from neon.commands.bench.timing import Contender, interleaved, scaling
from neon.commands.bench.torch_peers import OPTIONS, PEERS, torch_optimizers
from neon.commands.bench.work import AgreementError, Work, bytes_moved, gradients, largest_difference, make_work
from neon.commands.library import exported_rules, works_on_matrices

FEW = Settings(rounds=2)
OF_ELEMENTS = [name for name, rule in exported_rules().items() if not works_on_matrices(rule)]
pytestmark = pytest.mark.usefixtures("one_thread")
linux_only = pytest.mark.skipif(not machine.LINUX, reason="only Linux tells a process its peak memory")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model with a few tensors, as small as have states in few bits; first steps in this process."""
    for name, shapes in SHAPES.items():
        monkeypatch.setitem(SHAPES, name, replace(shapes, tensors=((64, 64),) * 3, rounds=2, steps=2))
    for name, shapes in MATRICES.items():
        monkeypatch.setitem(MATRICES, name, replace(shapes, tensors=((48, 64), (64, 48)), rounds=2))

    def run(module: str, who: str, rule: str, *_: str, **__: str) -> str:
        return str(first_step(who, rule)) if who != "matrices" else json.dumps({"neon": 9.0, "torch": 0.0})

    monkeypatch.setattr(new_process, "run", run)


def measured(line: Line, settings: Settings = FEW) -> Result:
    return KINDS[line.kind].measure(line, settings)


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("large", 3, 3 * 4096**2),
        ("resnet50", 161, 25_557_032),
        ("gpt2", 148, 124_439_808),
        ("llama1b", 146, 1_235_814_400),
        ("tiny", 200, 200 * 64),
        ("groups", 500, 500 * 64),
    ],
)
def test_the_models_have_their_sizes(monkeypatch: pytest.MonkeyPatch, name: str, tensors: int, elements: int) -> None:
    monkeypatch.undo()
    assert len(SHAPES[name].tensors) == tensors
    assert SHAPES[name].elements == elements


def test_a_whole_run_has_every_rule_shape_and_option_and_every_target() -> None:
    every, on_a_gpu = Request(rules="every").lines(), Request(rules="every", device="cuda").lines()
    assert {line.rule for line in Request().lines()} == {*MEASURED, "Muon"} <= {*exported_rules()}
    assert len(set(every)) == len(every)
    for found, shapes in ((every, {*SHAPES} - {"llama1b"}), (on_a_gpu, {*SHAPES})):
        assert {(e.shape, e.rule, e.option) for e in found if e.kind == "step"} == {
            (shape, rule, option) for shape in shapes for rule in OF_ELEMENTS for option in OPTIONS
        }
    assert set(PEERS) < set(exported_rules())
    assert {(e.kind, e.device) for e in on_a_gpu} == {
        (kind, "cuda") for kind in ("step", "rounding", "states", "statistics")
    }
    assert [target.what for target in TARGETS if not any(map(target.covers, every + on_a_gpu))] == []


class Event:
    """What tells the time of a GPU, here that of the processor."""

    def __init__(self, device: str, *, enable_timing: bool) -> None:
        assert (device, enable_timing) == ("cuda", True)

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        assert self.at

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at - self.at)


def test_a_gpu_tells_its_own_time_and_scales_by_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors are made here, which changes nothing else."""
    waited, counts, timed = [], [], timing._timed_on_device
    monkeypatch.setattr(
        timing, "_timed_on_device", lambda step, number, device: counts.append(number) or timed(step, number, device)
    )
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    monkeypatch.setattr(step_alone, "make_work", lambda *args, device, **more: make_work(*args, **more))
    monkeypatch.setattr(step_alone, "scaling", lambda memory: {"scale by torch": scaling(memory)["scale by torch"]})
    result = measured(Line("step", "Adam", "large", "norm", "cuda"))
    assert waited == ["cuda"] * 5 * 4  # neon, three of torch's and scaling; two turns and two rounds
    assert counts == [1] * 5 * 2 + [timing.AHEAD] * 5 * 2  # or a turn would have the host's time in it
    assert result.figures["of the limit"] > 0
    assert 0 < result.figures["host seconds"] <= result.figures["seconds"]


@pytest.mark.parametrize(
    ("line", "contenders"),
    [
        (Line("step", "Adam", "large", "norm"), "neon fused foreach loop scale"),
        (Line("step", "Adam", "large", "value"), "neon fused foreach loop scale"),
        (Line("step", "GradientDescentMomentum", "resnet50", "norm"), "neon fused foreach loop scale"),
        (Line("step", "Adadelta", "large"), "neon foreach loop scale"),
        (Line("step", "Lion", "gpt2"), "neon scale"),
        (Line("step", "RMSProp", "tiny", "value"), "neon foreach loop"),
        (Line("step", "AdamW", "groups", "norm"), "neon fused foreach loop one"),
        (Line("rounding", "GradientDescentMomentum", "large"), "at to split scale"),
        (Line("rounding", "ShiftAdaMax", "large"), "at to split scale"),
        (Line("states", "AdamW", "large"), "8-bit 16-bit float32 scale"),
        (Line("backward", "AdamW", "mlp"), "neon fused foreach loop"),
        (Line("backward", "GradientDescentMomentum", "conv"), "neon fused foreach loop"),
        (Line("start", "Adam", "mlp"), "empty filled torch"),
        (Line("matrices", "Muon", "gpt2-hidden"), "neon torch sweeps scale"),
        (Line("matrices", "Muon", "144-of-64x64"), "neon torch"),
    ],
    ids=str,
)
def test_every_kind_of_line_is_measured(line: Line, contenders: str) -> None:
    result = measured(line)
    assert {who.split()[0] for who in result.seconds} == set(contenders.split())
    for spread in result.seconds.values():
        assert 0 < spread["lower_quartile"] <= spread["median"] <= spread["upper_quartile"] < math.inf
        assert spread["rounds"] == 2
    assert result.figures
    assert all(0 < value < math.inf for value in result.figures.values())
    expected = [target for target in TARGETS if target.covers(line)]
    torch_has_it = [t for t in expected if line.rule in {*PEERS, "Muon"} or t.figure != "speed-up"]
    assert [target for target, _ in result.targets()] == torch_has_it
    of_work = {"difference_in_updates", "errors"} & result.details.keys()
    assert bool(of_work) == ("speed-up" in result.figures)


@pytest.mark.parametrize("rule", OF_ELEMENTS)
def test_neon_and_torch_do_the_same_work(rule: str) -> None:
    for option, grouped in product(OPTIONS, [False, True]):
        difference = step_alone.check_agreement(Line("step", rule, "large", option), grouped, FEW)
        assert 0 <= difference < 1e-4


class OtherBeta(torch.optim.Adam):
    """A second beta of 0.99, whatever it is asked for."""

    def __init__(self, params: Any, lr: float, eps: float, foreach: bool | None = None, fused: bool = False) -> None:
        super().__init__(params, lr, (0.9, 0.99), eps, foreach=foreach, fused=fused)


@pytest.mark.parametrize(("kind", "shape"), [("step", "tiny"), ("step", "groups"), ("backward", "mlp")])
def test_other_work_is_noticed(monkeypatch: pytest.MonkeyPatch, kind: str, shape: str) -> None:
    monkeypatch.setitem(PEERS, "Adam", replace(PEERS["Adam"], theirs=OtherBeta))
    with pytest.raises(AgreementError, match=r"neon and torch \(fused\) differ by .* not the same work"):
        measured(Line(kind, "Adam", shape))


def test_other_weights_to_begin_with_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(model: torch.nn.Module) -> torch.nn.Module:
        return torch.nn.Sequential(
            *(type(m)(m.in_features, m.out_features) if isinstance(m, torch.nn.Linear) else m for m in model)
        )

    monkeypatch.setattr("neon.commands.bench.backward.copy.deepcopy", other)
    with pytest.raises(AgreementError, match="not the same work"):
        measured(Line("backward", "Adam", "mlp"))


def test_other_clipping_and_a_step_that_does_nothing_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line("step", "GradientDescentMomentum", "large", "norm")
    monkeypatch.setitem(OPTIONS, "norm", replace(OPTIONS["norm"], theirs=lambda *_, **__: None))
    with pytest.raises(AgreementError, match="not the same work"):
        measured(line)
    with pytest.raises(AgreementError, match="changed nothing"):
        largest_difference(torch.ones(2), {"neon": torch.ones(2)})


def test_the_work_stays_the_same_while_torch_clips_in_place() -> None:
    work = make_work(Shapes(((64, 64),) * 2, rounds=2))
    for option in ("norm", "value"):
        clip = OPTIONS[option].theirs
        assert clip
        for _ in range(50):
            clip(work.params, work.bounds[option])
    grads = torch.cat([param.grad.flatten() for param in work.params if param.grad is not None])
    assert float(grads.norm()) == pytest.approx(work.bounds["norm"], rel=1e-3)
    assert float(grads.abs().max()) <= work.bounds["value"]


@pytest.mark.parametrize(
    ("rule", "form", "option", "moved"),
    [
        ("Adam", "float32", "plain", 28),
        ("Adam", "float32", "norm", 32),
        ("Adam", "float32", "value", 28),
        ("GradientDescentMomentum", "float32", "plain", 20),
        ("Adadelta", "float32", "plain", 28),
        ("Adam", "16-bit states", "plain", 20),
        ("Adam", "8-bit states", "plain", 16 + 2 * 2 * 4 / 256),
        ("Lion", "8-bit states", "norm", 18 + 2 * 4 / 256),
        ("Adam", "to nearest", "plain", 22),
        ("Adam", "at random", "plain", 22),
        ("Adam", "split", "plain", 26),
        ("Adam", "at random, 8-bit states", "plain", 10 + 2 * 2 * 4 / 256),
    ],
)
def test_bytes_that_a_rule_must_move(rule: str, form: str, option: str, moved: float) -> None:
    work = make_work(Shapes(((64, 64),), rounds=2), FORMATS[form].dtype)
    optimizer = step_alone.attach(Line("step", rule, "large", option), work, **FORMATS[form].options)
    optimizer.step()
    assert bytes_moved(optimizer, work.params, option) == 64 * 64 * moved


@pytest.mark.parametrize("rule", OF_ELEMENTS)
def test_everybody_steps_over_the_same_memory(rule: str) -> None:
    shapes = Shapes(((33, 5), (7,), (64, 64)), rounds=2)
    count = step_alone.states_of(rule)
    work = make_work(shapes, states=count)
    line = Line("step", rule, "large")
    optimizers = [step_alone.attach(line, work), *torch_optimizers(rule, work.groups(0.1)).values()]
    for optimizer in optimizers[1:]:
        work.share(optimizer)
    start, end = work.memory.data_ptr(), work.memory.data_ptr() + work.memory.nbytes
    for optimizer in optimizers:
        optimizer.step()
        for param, places in zip(work.params, work.states, strict=True):
            states = [state for state in optimizer.state[param].values() if state.dim()]
            assert min(count, 1) <= len(states) <= count  # a vector may have fewer
            assert [state.data_ptr() for state in states] == [place.data_ptr() for place in places[: len(states)]]
    tensors = [*work.params, *gradients(work.params), *(state for states in work.states for state in states)]
    ranges = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors)
    assert len(ranges) == 3 * (2 + count)
    assert start == ranges[0][0]
    assert ranges[-1][1] <= end < ranges[-1][1] + 64
    assert all(a[1] <= b[0] < a[1] + 64 for a, b in pairwise(ranges))
    before = [tensor.clone() for tensor in tensors]
    for contender in scaling(work.memory).values():
        contender.step()
    assert all(map(torch.equal, tensors, before))


@pytest.mark.parametrize("name", FORMATS)
def test_states_of_every_format_lie_in_the_places_of_float32_ones(name: str) -> None:
    form = FORMATS[name]
    work = make_work(Shapes(((100, 77),) * 2, rounds=2), form.dtype, step_alone.states_of("Adam") + (name == "split"))
    optimizer = step_alone.attach(Line("step", "Adam", "large"), work, **form.options)
    optimizer.step()
    for param, places in zip(work.params, work.states, strict=True):
        state = optimizer.state[param]
        names = [key for key in state if key not in ("step", "scales")]
        for key, place in zip(names, places, strict=True):
            starts = [
                t.data_ptr() - place.data_ptr() for t in (state[key], state.get("scales", {}).get(key)) if t is not None
            ]
            assert starts == [0, 7744][: len(starts)]  # 7700 bytes, up to the next multiple of 64
            assert bool(state[key].count_nonzero())
        stored = {t.dtype for t in state.values() if isinstance(t, Tensor) and t.ndim}
        assert (torch.int8 in stored) == ("scales" in state) == (len(starts) == 2) == ("8-bit" in name)


def test_contenders_take_turns_without_garbage_collection() -> None:
    events: list[str] = []

    def note(text: str) -> None:
        assert not gc.isenabled()
        events.append(text)

    contenders = {
        "a": Contender(lambda: note("a")),
        "b": Contender(lambda: note("b"), lambda: note("b prepares")),
        "c": Contender(lambda: note("c")),
    }
    taken, _ = interleaved(contenders, rounds=3, steps=2)
    assert gc.isenabled()
    warm_up = ["a", "b prepares", "b", "c"]
    turns = {"a": ["a"] * 3, "b": ["b prepares", *["b"] * 3], "c": ["c"] * 3}  # the first of three is not counted
    assert events == 2 * warm_up + [event for who in "abc" + "acb" + "cab" for event in turns[who]]
    assert {who: len(times) for who, times in taken.items()} == {"a": 3, "b": 3, "c": 3}


def test_what_torch_compile_makes_is_a_contender_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda step: step)
    result = measured(Line("step", "Adam", "tiny", "norm"), Settings(rounds=2, compiled=True))
    assert "compiled" in result.seconds
    assert result.figures["over compiled"] > 0
    assert result.details["torch_best"] != "compiled"


@linux_only
def test_extra_memory_is_seen() -> None:
    shapes = Shapes(((2048, 2048),) * 3, rounds=2)  # 48 MB, which the allocator gives back at once

    def copying(work) -> object:
        return lambda: work.params[0].new_ones(shapes.elements)

    assert 3.9 < memory._peak(copying, shapes) < 4.5
    assert memory._peak(lambda work: lambda: None, shapes) < 0.1


@linux_only
def test_memory_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(SHAPES, "large", Shapes(((64, 64),) * 3, rounds=2))
    result = measured(Line("memory", "Adam", "large"))
    assert list(result.figures) == ["neon plain", "neon norm", "neon value", "fused", "foreach", "loop"]
    assert all(0 <= value < math.inf for value in result.figures.values())
    assert len(result.targets()) == 3
    json.dumps(result.as_json())


def test_a_first_step_is_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < float(new_process.run("neon.commands.bench.first_step", "torch", "Adam")) < math.inf


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (
            "rounding",
            {"stochastic_round": True},
            "bfloat16 at random ends further from rounding to nearest than one unit",
        ),
        ("rounding", {"master": "split"}, "bfloat16 split ends further from rounding to nearest than one unit"),
        ("states", {"state_dtype": "bfloat16"}, "with 16-bit states the first step is not that of float32"),
        ("states", {"state_dtype": "int8"}, "with 8-bit states the first step is not that of float32"),
    ],
)
def test_what_is_done_in_few_bits_is_checked(
    monkeypatch: pytest.MonkeyPatch, kind: str, wrong: dict[str, Any], message: str
) -> None:
    def attach(line: Line, work: Work, **options: Any) -> Contender:
        def step() -> None:
            with torch.no_grad():
                for param in work.params:
                    param.mul_(1.03 if options == wrong else 1.01)

        return Contender(step)

    monkeypatch.setattr(few_bits, "attach", attach)
    with pytest.raises(AgreementError, match=message):
        measured(Line(kind, "Adam", "large"))


@pytest.mark.parametrize("line", Request(kinds="rounding,states", rules="every").lines(), ids=str)
def test_every_rule_can_be_measured_in_few_bits(line: Line) -> None:
    {"rounding": few_bits._check_rounding, "states": few_bits._check_states}[line.kind](line)


def test_states_that_are_forgotten_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(line: Line, work: Work, **options: Any) -> Contender:
        optimizer = step_alone.attach(line, work, **options)

        def step() -> None:
            optimizer.step()
            for param in work.params if options == {"state_dtype": "int8"} else []:
                optimizer.state[param]["exp_avg"].zero_()

        return Contender(step)

    monkeypatch.setattr(few_bits, "attach", attach)
    with pytest.raises(
        AgreementError, match=r"with 8-bit states weights differ by .* of an update from those of float32"
    ):
        measured(Line("states", "Adam", "large"))


@linux_only
def test_what_is_kept_is_seen_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(SHAPES, "large", Shapes(((1024, 1024),) * 3, rounds=2))
    expected = {
        "float32": 12, "16-bit states": 8, "8-bit states": 6, "to nearest": 10, "at random": 10, "split": 12,
        "at random, 8-bit states": 4,
    }  # fmt: skip
    assert measured(Line("kept", "Adam", "large")).figures == pytest.approx(expected, abs=0.1)


@linux_only
def test_what_else_runs_is_noticed() -> None:
    watch = machine.Watch()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(0.5)
        busy = watch.busy_with_others()
        other.kill()
    assert busy is not None
    assert busy > 0.1


def test_names_keep_their_order() -> None:
    assert choose("rules", "Lion , Adam", ["Adam", "AdamW", "Lion"], []) == ("Adam", "Lion")
    assert choose("rules", None, ["Adam", "AdamW", "Lion"], ["Lion", "AdamW"]) == ("AdamW", "Lion")


def test_gradients_have_either_sign_and_no_zero() -> None:
    [grad] = [param.grad for param in make_work(Shapes(((1000,),), rounds=2)).params]
    assert isinstance(grad, Tensor)
    assert 400 < int((grad > 0).sum()) < 600
    assert 0.005 <= float(grad.abs().min()) <= float(grad.abs().max()) <= 0.015
