"""Steps that a device makes on its own: in graphs that are replayed, and under a scaler that the host does not ask."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import pytest
import torch
from other_versions import needs_interpreter
from test_storage import assert_same, tensors_of
from test_triton import new
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import neon.torch
from neon.engine import use_backend
from neon.engine.backends import capture, triton_launch
from neon.engine.backends.resident import DeviceCounts
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, Optimizer, WarmupCosine
from neon.optimizers.functions import norm

pytestmark = [
    needs_interpreter,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),  # of numpy, which the interpreter computes with
]


class Alone(TorchDispatchMode):
    """The device without the host: nobody reads a number. What the interpreter does is the device's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._patch, self._launch, self._read = monkeypatch.setattr, triton_launch.Launch.__call__, DeviceCounts.read

    def launched(self, launch: triton_launch.Launch) -> None:
        with _disable_current_modes():
            self._launch(launch)

    def __enter__(self) -> Self:
        self._patch(triton_launch.Launch, "__call__", lambda launch: self.launched(launch))
        self._patch(DeviceCounts, "read", lambda counts: pytest.fail("the host reads counts"))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch(triton_launch.Launch, "__call__", self._launch)
        self._patch(DeviceCounts, "read", self._read)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default, "the host reads a number"
        return self.run(function, partial(function, *args, **kwargs or {}))

    def run(self, function: Any, operation: Callable[[], Any]) -> Any:
        return operation()


class Graph(Alone):
    """What a graph of the device would hold: launches and writes of a step, to be done again without the host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self._done: list[Callable[[], Any]] = []

    def launched(self, launch: triton_launch.Launch) -> None:
        self._done.append(partial(self._launch, launch))
        super().launched(launch)

    def __enter__(self) -> Self:
        self._patch(capture, "capturing", lambda device: True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch(capture, "capturing", lambda device: False)

    def run(self, function: Any, operation: Callable[[], Any]) -> Any:
        result = operation()
        if function._schema.is_mutable:
            self._done.append(operation)
        elif isinstance(result, Tensor) and not function.is_view:  # a replay computes it in its place
            self._done.append(lambda: result.copy_(operation()))
        return result

    def replay(self) -> None:
        for operation in self._done:
            operation()


def everything(opt: Any) -> list[Tensor]:
    """A copy of all parameters and states."""
    params = [p for group in opt.param_groups for p in group["params"]]
    states = [t for p in params for t in tensors_of(opt.state.get(p, {}))]
    return [t.detach().clone() for t in (*params, *states)]


@pytest.mark.parametrize(
    "option",
    [{}, {"gradient_clip_norm": 1.0}, {"lr_scale": 0.3}, {"stochastic_round": 10, "state_dtype": "int8"}],
)
def test_captured_steps_follow_rate_count_and_gradients(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed, with the rate changed in its tensor: as steps one by one are by the eager backend."""
    rates = [0.1, 0.1, 0.2, 0.05]
    noise = [new(5000, 20, seed=9 + step) for step in range(len(rates) + 1)]
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        params = new(5000, 20)
        grads = [torch.empty_like(p) for p in params]
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        with use_backend(backend):
            opt = Adam(**option).attach(params, capturable=backend == "triton")
            lr = opt.param_groups[0]["lr"] = torch.tensor(rates[0])
            for step, rate in enumerate([rates[0], *rates]):
                for g, values in zip(grads, noise[step], strict=True):
                    g.copy_(values.detach())
                lr.fill_(rate)
                if backend == "eager" or step < 2:
                    opt.step()
                    continue
                if step == 2:
                    with graph:
                        opt.step()
                else:
                    graph.replay()
        ends.append(everything(opt))
        assert [float(opt.state[p]["step"]) for p in params] == [5.0, 5.0]
    assert_same(*ends)
    # What the host then does itself goes on from what the replays have left.
    params[1].grad = None
    with use_backend("triton"):
        opt.step()
    assert [float(opt.state[p]["step"]) for p in params] == [6.0, 5.0]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_steps_between_replays_leave_a_graph_its_gradients(clip: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph brings along the addresses and numbers that it was captured with; so does a step that is not in it."""
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        params = new(5000, 20)
        own, other = new(5000, 20, seed=1), new(5000, 20, seed=2)
        with use_backend(backend):
            opt = Adam(gradient_clip_norm=clip).attach(params, capturable=backend == "triton")
            for step, (grads, rate) in enumerate([(own, 0.1)] * 3 + [(other, 0.5), (own, 0.1), (other, 0.5)]):
                opt.param_groups[0]["lr"] = rate
                for p, g in zip(params, grads, strict=True):
                    p.grad = g.detach()
                if backend == "triton" and step == 2:
                    with graph:
                        opt.step()
                elif backend == "triton" and step == 4:
                    for p, g in zip(params, other, strict=True):
                        p.grad = g.detach()
                    graph.replay()
                else:
                    opt.step()
        ends.append(everything(opt))
    assert_same(*ends)


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_a_graph_keeps_the_tables_that_it_works_on(tensor_rate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    params = new(300, 20)
    with use_backend("triton"):
        opt = Adam(gradient_clip_norm=1.0).attach(params, capturable=True)
        if tensor_rate:
            opt.param_groups[0]["lr"] = torch.tensor(0.1)
        for _ in range(2):
            for p in params:
                p.grad = torch.ones_like(p)
            monkeypatch.setattr(capture, "capturing", lambda device: len(opt.state) > 0)
            opt.step()
        [batch] = opt._stepper._plan._batches  # type: ignore[union-attr]
        launches = [launch for made in batch.passes for launch in (*made.launches, made.evaluate) if launch is not None]
        tables = [weakref.ref(t) for launch in launches for t in launch._arguments if isinstance(t, Tensor)]
        read = [weakref.ref(t) for t in batch._tensors.read]  # the rate, where it goes, and which it is
        assert len(read) == (3 if tensor_rate else 0)
        tables += read
        del batch, launches
        monkeypatch.setattr(capture, "capturing", lambda device: False)
        params[1].grad = None
        opt.step()
        opt.restart()
        opt.step()
    gc.collect()
    assert all(table() is not None for table in tables)


def test_a_step_is_not_captured_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "capturing", lambda device: True)
    [param] = params = new(300)
    before, param.grad = param.detach().clone(), torch.ones(300)
    with use_backend("triton"), pytest.raises(RuntimeError, match="capturable=True"):
        Adam().attach(params).step()
    assert torch.equal(param, before)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Lion"])
def test_every_class_can_be_captured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of torch's classes SGD needs no word for it; here every class takes the word."""
    params = new(300)
    with use_backend("triton"):
        opt = getattr(neon.torch, name)(params, capturable=True)
        params[0].grad = torch.ones(300)
        opt.step()
        before = params[0].detach().clone()
        monkeypatch.setattr(capture, "capturing", lambda device: True)
        opt.step()
    assert not torch.equal(params[0], before)
    with pytest.raises(TypeError, match="capturable must be True or False"):
        getattr(neon.torch, name)(params, capturable=1)


@pytest.mark.parametrize("option", ["skip_nonfinite", "partitioned", "in_backward"])
def test_what_the_host_decides_cannot_be_captured(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} cannot be had with capturable=True"):
        Adam().attach(new(3), capturable=True, **{option: True})


def test_the_processor_captures_nothing() -> None:
    message = "capturable=True asks for steps .* a device that Triton serves, such as cuda; some are on cpu"
    with pytest.raises(ValueError, match=message):
        Adam().attach(new(3), capturable=True)
    with use_backend("triton"):
        opt = Adam().attach(params := new(3), capturable=True)
    params[0].grad = torch.ones(3)
    with pytest.raises(ValueError, match=message):
        opt.step()


@pytest.mark.parametrize("capturable", [False, True])
def test_a_resumed_run_goes_on_with_the_same_bits(capturable: bool) -> None:
    def run(params: list[Tensor], steps: range, saved: Any = None) -> tuple[list[Tensor], Any]:
        opt = Adam(gradient_clip_norm=1.0, stochastic_round=True).attach(params, capturable=capturable)
        if saved is not None:
            opt.load_state_dict(saved)
        for step in steps:
            for p, g in zip(params, new(300, 20, dtype=torch.bfloat16, seed=step), strict=True):
                p.grad = g.detach()
            opt.step()
        return [p.detach().clone() for p in params], copy.deepcopy(opt.state_dict())

    with use_backend("triton"):
        whole, _ = run(new(300, 20, dtype=torch.bfloat16), range(4))
        half, saved = run(new(300, 20, dtype=torch.bfloat16), range(2))
        resumed, _ = run([p.requires_grad_() for p in half], range(2, 4), saved)
    assert_same(whole, resumed)


def test_torchs_classes_by_name_can_be_captured() -> None:
    ends = []
    for library in (neon.torch, torch.optim):
        [param] = params = new(300)
        with use_backend("triton"):
            opt = library.Adam(params, torch.tensor(0.1), capturable=library is neon.torch)
            for _ in range(2):
                param.grad = torch.ones(300)
                opt.step()
        ends.append(param.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)
    assert "capturable" in opt.state_dict()["param_groups"][0]


# -- counts go on ----------------------------------------------------------------------------------


def give(params: list[Tensor], seed: int, *, without: tuple[int, ...] = ()) -> None:
    for place, (p, g) in enumerate(zip(params, new(*map(len, params), seed=seed), strict=True)):
        p.grad = None if place in without else g.detach()


def fewer_gradients(opt: Any, params: list[Tensor]) -> None:
    give(params, 4, without=(0,))


def a_group_more(opt: Any, params: list[Tensor]) -> None:
    params += new(5, seed=7)
    opt.add_param_group({"params": [("d", params[-1])]})
    give(params, 4)


def frozen_for_a_step(opt: Any, params: list[Tensor]) -> None:
    opt.freeze("b")
    give(params, 4)
    opt.step()
    opt.unfreeze("b")
    give(params, 5)


def an_error(opt: Any, params: list[Tensor]) -> None:
    give(params, 4)
    rate, opt.param_groups[0]["lr"] = opt.param_groups[0]["lr"], -1.0
    with pytest.raises(ValueError, match="lr"):
        opt.step()
    opt.param_groups[0]["lr"] = rate


def restarted(opt: Any, params: list[Tensor]) -> None:
    give(params, 4)
    opt.restart()


def a_count_written_to(opt: Any, params: list[Tensor]) -> None:
    give(params, 4)
    opt.state[params[0]]["step"].fill_(11.0)


def a_count_written_to_before_another_plan(opt: Any, params: list[Tensor]) -> None:
    a_count_written_to(opt, params)
    opt.restart()


def a_count_written_to_while_frozen(opt: Any, params: list[Tensor]) -> None:
    opt.freeze("a")
    a_count_written_to(opt, params)
    opt.step()
    opt.unfreeze("a")


@pytest.mark.parametrize(
    "change",
    [
        fewer_gradients,
        a_group_more,
        frozen_for_a_step,
        an_error,
        restarted,
        a_count_written_to,
        a_count_written_to_before_another_plan,
        a_count_written_to_while_frozen,
    ],
)
def test_a_graph_counts_on_whatever_is_planned_between_its_replays(
    change: Callable[[Any, list[Tensor]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph updates two of three tensors; other steps, by other plans, others: each is at its own count."""
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        params = new(300, 20, 40)
        with use_backend(backend):
            opt = Adam(stochastic_round=8).attach([*zip("abc", params, strict=True)], capturable=backend == "triton")
            own: list[Tensor] = []
            for step in range(9):
                give(params, step, without=() if step in (0, 8) else tuple(range(2, len(params))))
                if step == 4:
                    change(opt, params)
                if backend == "triton" and step == 2:
                    own = [p.grad for p in params[:2] if p.grad is not None]
                    with graph:
                        opt.step()
                elif backend == "triton" and step in (3, 6, 7):
                    for grad, p in zip(own, params, strict=False):
                        grad.copy_(p.grad)
                    graph.replay()
                else:
                    opt.step()
        ends.append(everything(opt))
    assert_same(*ends)


class OfNorms(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: float = 0.1) -> Any:
        for _ in range(5):
            g = g / (norm(g) + 1.0)
        return w - lr * g


def test_as_many_graphs_of_many_sums_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    params, ends = new(300, 20), []
    with use_backend("triton"):
        opt = OfNorms(gradient_clip_norm=1.0).attach(params, capturable=True)
        for _ in range(2):
            give(params, 1)
            opt.step()
        graphs = [Graph(monkeypatch) for _ in range(8)]
        for graph in graphs:
            with graph:
                opt.step()
        for graph in graphs:
            graph.replay()
        ends.append(everything(opt))
    with use_backend("eager"):
        params = new(300, 20)
        opt = OfNorms(gradient_clip_norm=1.0).attach(params)
        give(params, 1)
        for _ in range(18):
            opt.step()
        ends.append(everything(opt))
    assert_same(*ends)


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_many_graphs_one_after_another(tensor_rate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has gradients, and numbers, of its own; for one too many there is no memory."""
    graphs = [Graph(monkeypatch) for _ in range(9)]
    [param], ends = new(300), []
    with use_backend("triton"):
        opt = Adam().attach([param], capturable=True)
        if tensor_rate:
            opt.param_groups[0]["lr"] = torch.tensor(0.125)
        grads = [torch.full((300,), float(place + 1)) for place in range(9)]
        param.grad = grads[0]
        opt.step()
        opt.step()
        for graph, grad in zip(graphs[:8], grads, strict=False):
            param.grad = grad
            with graph:
                opt.step()
        param.grad = grads[8]
        before = everything(opt)
        with pytest.raises(RuntimeError, match="Make a step outside of a graph"), graphs[8]:
            opt.step()
        assert_same(everything(opt), before)
        opt.step()
        with graphs[8]:
            opt.step()
        for graph in reversed(graphs):
            graph.replay()
        ends.append(everything(opt))
    with use_backend("eager"):
        [other] = new(300)
        opt = Adam(learning_rate=0.125 if tensor_rate else 1e-3).attach([other])
        for place in (0, 0, *range(8), 8, 8, *reversed(range(9))):
            other.grad = grads[place]
            opt.step()
        ends.append(everything(opt))
    assert_same(*ends)


@pytest.mark.parametrize("captured", [False, True])
def test_counts_that_come_one_by_one_are_counted_together(captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one launch, unless a graph has been captured, which goes on with those that there were."""
    graph, params = Graph(monkeypatch), new(3, 4, 5)
    with use_backend("triton"):
        opt = Adam().attach(params, capturable=True)
        give(params, 0, without=(1, 2))
        opt.step()
        opt.state[params[0]]["step"].fill_(2**24 + 1.0)
        opt.step()
        if captured:
            with graph:
                opt.step()
        for step in (1, 2):
            give(params, 0, without=tuple(range(step + 1, 3)))
            opt.step()
        if captured:
            graph.replay()
        assert len(opt._stepper._plan.counts._launches) == (3 if captured else 1)  # type: ignore[union-attr]
        counts = opt._stepper._plan.counts.read().tolist()  # type: ignore[union-attr]
    assert counts == [2.0**24 + (5.0 if captured else 3.0), 2.0, 1.0]


def test_counts_that_were_replaced_are_let_go() -> None:
    [param] = params = new(3)
    with use_backend("triton"):
        opt = Adam().attach(params, capturable=True)
        for _ in range(5):
            param.grad = torch.ones(3)
            opt.step()
            left, opt.state[param]["step"] = opt.state[param]["step"], torch.tensor(9.0)
        last, left = weakref.ref(left), None
        block = weakref.ref(opt._stepper._plan.counts._blocks[0])  # type: ignore[union-attr]
        opt.step()
    gc.collect()
    assert last() is block() is None
    assert opt.state[param]["step"].item() == 10.0


def test_torchs_defaults_do_not_reach_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, params = Graph(monkeypatch), new(300)
    dtype = torch.get_default_dtype()
    with use_backend("triton"):
        opt = Adam().attach(params, capturable=True)
        try:
            torch.set_default_dtype(torch.float64)
            torch.set_default_device("meta")
            params[0].grad = torch.ones(300, dtype=torch.float32, device="cpu")
            opt.step()
            with graph:
                opt.step()
        finally:
            torch.set_default_dtype(dtype)
            torch.set_default_device(None)
    assert opt.state[params[0]]["step"].item() == 2.0
    assert all(batch.stop.dtype == torch.float32 for batch in opt._stepper._plan._batches)  # type: ignore[union-attr]


@pytest.mark.parametrize("what", ["the first step", "other gradients", "another plan"])
def test_what_a_capture_cannot_prepare_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, params = Graph(monkeypatch), new(300, 20)
    with use_backend("triton"):
        opt = Adam().attach(params, capturable=True)
        if what != "the first step":
            give(params, 0)
            opt.step()
        give(params, 1, without=(1,) if what == "other gradients" else ())
        if what == "another plan":
            opt.restart()
        before = everything(opt)
        with (
            pytest.raises(RuntimeError, match="make a step, with gradients"),
            graph,
        ):
            opt.step()
        assert_same(everything(opt), before)
        opt.step()
        with graph:
            opt.step()
        assert float(opt.state[params[0]]["step"]) == (2.0 if what == "the first step" else 3.0)


class Counting(Alone):
    operations = 0

    def run(self, function: Any, operation: Callable[[], Any]) -> Any:
        self.operations += not function.is_view
        return operation()


@pytest.mark.parametrize("capturable", [False, True])
def test_rates_of_many_groups_are_read_together(capturable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []
    for count, shared in ((1, False), (40, False), (40, True)):
        params, rate = new(*[3] * count), torch.tensor(0.1)
        groups = [{"params": [p], "lr": rate if shared else torch.tensor(0.1 + i)} for i, p in enumerate(params)]
        with use_backend("triton"):
            opt = Adam().attach(groups, capturable=capturable)
            for p in params:
                p.grad = torch.ones(3)
            opt.step()
            opt.step()
            with Counting(monkeypatch) as counting:
                opt.step()
        counted.append(counting.operations)
    assert counted[0] == counted[1] == counted[2]


def test_a_rate_is_read_where_it_is_now() -> None:
    [param], rate = new(3), torch.tensor(0.5)
    with use_backend("triton"):
        opt = GradientDescentMomentum(0.5, 0.0).attach([param], capturable=True)
        opt.param_groups[0]["lr"] = rate
        for _ in range(3):
            param.grad = torch.ones(3)
            opt.step()
        before = param.detach().clone()
        rate.data = torch.tensor(2.0)
        opt.step()
    assert torch.equal(param, before - 2.0)


# -- a scaler whose findings stay on the device ----------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"gradient_clip_norm": 1.0},
        {"stochastic_round": 10, "state_dtype": "int8"},
        {"weight_average": 0.9, "wdecay": 0.1},
    ],
)
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_step_is_left_out_without_the_host(
    option: dict[str, Any], unscaled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for backend in ("eager", "triton"):
        params = new(5000, 20)
        with use_backend(backend):
            opt = AdamW(**option).attach(params)
            for step, infinite in enumerate((1.0, 0.0, 0.0, 1.0, 0.0, 2.0, 1.0, 0.0)):
                give(params, step)
                opt.found_inf = torch.tensor([infinite]) if step % 2 else torch.tensor(infinite)
                opt.grad_scale = None if unscaled else torch.tensor(2.0**step)
                for p in params:
                    p.grad *= 1.0 if unscaled else 2.0**step
                if infinite:
                    params[1].grad[3] = math.nan if step % 2 else math.inf
                if backend == "triton" and step > 1:
                    with Alone(monkeypatch):
                        opt.step()
                else:
                    opt.step()
                if step == 0:
                    assert not opt.state
            assert opt.skipped_steps == 4
            assert [float(opt.state[p]["step"]) for p in params] == [4.0, 4.0]
            ends.append(everything(opt))
            twins = copy.deepcopy(opt), pickle.loads(pickle.dumps(opt))
            opt.load_state_dict(copy.deepcopy(opt.state_dict()))
            assert [made.skipped_steps for made in (opt, *twins)] == [4, 4, 4]
            opt.skipped_steps = 0
            assert opt.skipped_steps == 0
    assert_same(*ends)


def test_a_real_scaler_and_a_run_that_is_resumed() -> None:
    ends = []
    for backend in ("eager", "triton"):
        params = new(300, 20)
        with use_backend(backend):
            opt: Any = neon.torch.Adam(params, lr=0.01)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
            for step in range(9):
                scale = scaler.scale(torch.ones(()))
                for p, g in zip(params, new(300, 20, seed=step), strict=True):
                    p.grad = g.detach() * scale
                if step in (2, 5):
                    params[0].grad[7] = math.inf
                scaler.step(opt)
                scaler.update()
                if step == 4:
                    saved = copy.deepcopy(opt.state_dict())
                    opt = neon.torch.Adam(params, lr=0.5)
                    opt.load_state_dict(saved)
            assert opt.skipped_steps == 1
            ends.append([*everything(opt), torch.tensor(scaler.get_scale())])
    assert_same(*ends)


def test_a_scaler_in_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        params = new(300, 20)
        grads = [torch.empty_like(p) for p in params]
        found, scale = torch.zeros(()), torch.ones(())
        with use_backend(backend):
            opt = Adam().attach(params, capturable=backend == "triton")
            for p, g in zip(params, grads, strict=True):
                p.grad = g
            for step, infinite in enumerate((0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)):
                found.fill_(infinite)
                scale.fill_(2.0**step)
                for g, values in zip(grads, new(300, 20, seed=step), strict=True):
                    g.copy_(math.inf if infinite else values.detach() * 2.0**step)
                opt.found_inf, opt.grad_scale = found, scale
                if backend == "eager" or step < 2:
                    opt.step()
                elif step == 2:
                    with graph:
                        opt.step()
                else:
                    graph.replay()
            del opt.found_inf, opt.grad_scale
            assert opt.skipped_steps == 2
            give(params, 9)
            opt.step()  # no scaler: nothing is left out any more
            ends.append(everything(opt))
    assert_same(*ends)


def test_a_graph_without_a_scaler_goes_on_after_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scaler has found outside of a graph leaves out that step, and no replay."""
    graph, ends = Graph(monkeypatch), []
    for backend in ("eager", "triton"):
        [param] = params = new(300)
        param.grad = torch.ones(300)
        with use_backend(backend):
            opt = Adam().attach(params, capturable=backend == "triton")
            opt.step()
            if backend == "triton":
                with graph:
                    opt.step()
            else:
                opt.step()
            opt.found_inf = torch.tensor(1.0)
            opt.step()
            del opt.found_inf
            graph.replay() if backend == "triton" else opt.step()
            assert opt.skipped_steps == 1
        ends.append(everything(opt))
    assert_same(*ends)


@pytest.mark.parametrize("option", ["a schedule", "the first step"])
def test_what_a_scaler_found_is_not_read_in_a_capture(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [param] = params = new(300)
    with use_backend("triton"):
        schedule = {"schedule": WarmupCosine(2, 9, unit="steps")} if option == "a schedule" else {}
        opt = AdamW(**schedule).attach(params, capturable=True)
        for step in range(3):
            param.grad, opt.found_inf = torch.ones(300), torch.tensor(0.0)
            if step == 2 or option == "the first step":
                with pytest.raises(RuntimeError, match="no schedule where there is a GradScaler"), Graph(monkeypatch):
                    opt.step()
                return
            opt.step()


def test_the_host_decides_what_it_has_to_know() -> None:
    """A schedule counts the steps that were taken; who was not finite has a name."""
    for options in ({"schedule": WarmupCosine(2, 9, unit="steps")}, {}):
        params = new(20)
        with use_backend("triton"):
            opt = AdamW(**options).attach(params, skip_nonfinite=not options)
            for step, infinite in enumerate((0.0, 0.0, 1.0, 0.0)):
                opt.found_inf = torch.tensor(infinite)
                give(params, step)
                if step == 3 and not options:
                    params[0].grad[0] = math.nan
                opt.step()
        if options:
            assert (opt.param_groups[0]["updates"], opt.skipped_steps) == (3, 1)
        else:
            assert (opt.skipped_steps, opt.last_nonfinite) == (2, "params[0] of 'default'")


def test_a_scaler_that_comes_to_a_run_and_goes() -> None:
    ends = []
    for backend in ("eager", "triton"):
        params = new(300, 20)
        with use_backend(backend):
            opt = MultiOptimizer({"default": Adam(), "b": GradientDescentMomentum(0.1, 0.9)}).attach(
                list(zip("ab", params, strict=True))
            )
            for step, found in enumerate((None, 0.0, 1.0, 0.0, None, 1.0, None)):
                give(params, step)
                if found is not None:
                    opt.found_inf = torch.tensor(found)
                opt.step()
                vars(opt).pop("found_inf", None)
            assert opt.skipped_steps == 2
            ends.append(everything(opt))
    assert_same(*ends)


@pytest.fixture
def alone() -> Iterator[DeviceMesh]:
    """A mesh of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("when", ["attached", "added", "set", "around"])
def test_a_norm_over_processes_cannot_be_captured(when: str, alone: DeviceMesh) -> None:
    sharded = torch.nn.Parameter(distribute_tensor(torch.ones(3, 2), alone, [Shard(0)]))
    whole = torch.nn.Parameter(distribute_tensor(torch.ones(3, 2), alone, [Replicate()]))
    message = "gradient_clip_norm cannot be had with capturable=True for parameters of which other processes"
    rule: Any = Adam(gradient_clip_norm=None if when in ("set", "around") else 1.0)
    if when == "around":
        rule = MultiOptimizer({"default": rule}, gradient_clip_norm=1.0)
    with use_backend("triton"):
        rule.attach([whole], capturable=True)
        if when in ("attached", "around"):
            with pytest.raises(ValueError, match=message):
                rule.attach([sharded], capturable=True)
        elif when == "added":
            opt = rule.attach([whole], capturable=True)
            with pytest.raises(ValueError, match=message):
                opt.add_param_group({"params": iter([sharded])})
            assert len(opt.param_groups) == 1
        else:
            opt = rule.attach([sharded], capturable=True)
            sharded.grad = torch.ones_like(sharded)
            opt.step()
            opt.param_groups[0]["gradient_clip_norm"] = 1.0
            with pytest.raises(ValueError, match=message):
                opt.step()


def test_norms_of_a_rule_over_processes_cannot_be_captured(alone: DeviceMesh) -> None:
    for placement in (Replicate(), Shard(0)):
        param = torch.nn.Parameter(distribute_tensor(torch.ones(3, 2), alone, [placement]))
        param.grad = torch.ones_like(param)
        with use_backend("triton"):
            opt = OfNorms().attach([param], capturable=True)
            if placement == Replicate():
                opt.step()
                continue
            with pytest.raises(ValueError, match="norms of whole tensors cannot be had with capturable=True"):
                opt.step()
            assert not opt.state
