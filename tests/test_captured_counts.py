"""Counts and rates of captured steps go on, whatever comes between the replays of a graph."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captured_steps import Alone, Graph, OfNorms, everything, give
from other_versions import needs_interpreter
from state_tensors import assert_same, new
from torch import Tensor

from neon.engine import use_backend
from neon.optimizers import Adam, GradientDescentMomentum

pytestmark = [needs_interpreter, pytest.mark.usefixtures("one_thread")]


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
    opt._restart()


def a_count_written_to(opt: Any, params: list[Tensor]) -> None:
    give(params, 4)
    opt.state[params[0]]["step"].fill_(11.0)


def a_count_written_to_before_another_plan(opt: Any, params: list[Tensor]) -> None:
    a_count_written_to(opt, params)
    opt._restart()


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
    assert all(batch.stop.dtype == torch.float32 for batch in opt._stepper._plan.batches)  # type: ignore[union-attr]


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
            opt._restart()
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
