"""What `benchmarks/host.py` runs in processes of their own: one step right after a backward pass, counted or timed.

    python benchmarks/host_steps.py count CASES CONTENDERS     # under callgrind: a file for each step
    python benchmarks/host_steps.py time CASES CONTENDERS      # each line read is a case, and answered by its times

The neon that is measured is the one that is found on PYTHONPATH.
"""

from __future__ import annotations

import copy
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from callgrind import Requests
from torch import Tensor, nn

from neon.commands.bench.backward import backward, convolutions, mlp
from neon.commands.bench.torch_peers import neon_optimizer, torch_optimizers

WARM = 104  # steps, after which CPython has specialized its byte code, and the audit of the first 100 is over
LATER = 2  # steps with caches simulated, before those that count
COUNTED = 3
TURN = 4  # steps in a turn on the clock; all but the first count
NOTHING = "nothing"  # the contender that does nothing: what counting itself takes


class Vectors(nn.Module):
    """As many vectors of 64, each of which has a gradient of its own."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.vectors = nn.ParameterList(torch.randn(64) for _ in range(count))

    def forward(self, inputs: Tensor) -> Tensor:
        return sum((inputs * vector for vector in self.vectors), torch.zeros(()))


@dataclass(frozen=True)
class Case:
    """A network and a rule.

    Attributes:
        make: returns the network.
        batch: the shape of its inputs on the clock.
        few: samples under callgrind, which takes long.
        grouped: whether each parameter is a group of its own, with its own learning rate.
    """

    make: Any
    batch: tuple[int, ...]
    few: int
    rule: str
    grouped: bool = False


_RULES = {"SGD": "GradientDescentMomentum", "Adam": "Adam", "AdamW": "AdamW"}
CASES = {
    **{f"mlp, {name}": Case(mlp, (128, 64), 16, rule) for name, rule in _RULES.items()},
    **{f"conv, {name}": Case(convolutions, (32, 3, 32, 32), 2, rule) for name, rule in _RULES.items()},
    "200 tensors, Adam": Case(lambda: Vectors(200), (1, 64), 1, "Adam"),
    "500 groups, Adam": Case(lambda: Vectors(500), (1, 64), 1, "Adam", grouped=True),
    "one group of these, Adam": Case(lambda: Vectors(500), (1, 64), 1, "Adam"),
}


class Contender:
    """A network that is trained by one optimizer."""

    def __init__(self, case: Case, model: nn.Module, who: str, samples: int) -> None:
        self._model = copy.deepcopy(model)
        self._inputs = torch.randn(samples, *case.batch[1:])
        self._targets = torch.randint(10, (samples,))
        optimizer, params = neon_optimizer(case.rule), list(self._model.parameters())
        lr, groups = optimizer.group()["lr"], [{"params": params}]
        if case.grouped:
            groups = [{"params": [p], "lr": lr * (1 + i / len(params))} for i, p in enumerate(params)]
        if who == NOTHING:
            self.step = lambda: None
        elif who == "neon":
            attached = optimizer.attach(groups)
            attached._first_steps = None  # as after the steps that an audit watches, in builds that have one
            self.step = attached.step
        else:
            self.step = torch_optimizers(case.rule, groups)[who].step

    def backward(self) -> None:
        """New gradients."""
        backward(self._model, self._inputs, self._targets)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.backward()
            self.step()


def contenders(names: Sequence[str], who: Sequence[str], few: bool) -> dict[tuple[str, str], Contender]:
    """For each case those that take part, trained until nothing changes any more."""
    torch.manual_seed(0)
    made = {}
    for name in names:
        case = CASES[name]
        model = case.make()
        for one in who:
            made[name, one] = Contender(case, model, one, case.few if few else case.batch[0])
            made[name, one].train(WARM)
    return made


def note_compiled_functions() -> dict[int, bool]:
    """By the address of each function that neon compiles from now on, whether it is a kernel: what a backend loads."""
    from neon.engine.native import cache

    found, load = {}, cache.load

    def noting(*given: Any) -> Any:
        code = load(*given)
        caller = sys._getframe(1).f_globals["__name__"]
        found.update(dict.fromkeys(code.addresses, caller.startswith("neon.engine.backends")))
        return code

    cache.load = noting
    return found


def count(names: Sequence[str], who: Sequence[str]) -> Iterator[str]:
    """Under callgrind: steps of each contender, in a file each; then which compiled functions there are."""
    requests, compiled = Requests(), note_compiled_functions()
    made = {(NOTHING, NOTHING): Contender(CASES["200 tensors, Adam"], Vectors(1), NOTHING, 1)}
    made |= contenders(names, who, few=True)
    gc.collect()
    gc.disable()
    requests.start()
    for (name, one), contender in made.items():

        def counted(number: int, contender: Contender = contender, label: str = f"{name}/{one}") -> None:
            contender.backward()
            requests.counted(contender.step, f"{label}/{number}")

        contender.train(LATER)
        # Called from C, so that callgrind, which has not seen this function called, sees where the interpreter begins.
        list(map(counted, range(COUNTED)))
    yield json.dumps(compiled)


def timed(names: Sequence[str], who: Sequence[str]) -> Iterator[str]:
    """For each line read, a case: one turn of each contender, the order of the last time the other way round."""
    made, order = contenders(names, who, few=False), list(who)
    gc.collect()
    gc.disable()
    yield "ready"
    for line in sys.stdin:
        order.reverse()
        taken = {}
        for one in order:
            contender, taken[one] = made[line.strip(), one], []
            contender.train(1)
            for _ in range(TURN - 1):
                contender.backward()
                start = time.perf_counter()
                contender.step()
                taken[one].append(time.perf_counter() - start)
        yield json.dumps(taken)


if __name__ == "__main__":
    for answer in {"count": count, "time": timed}[sys.argv[1]](json.loads(sys.argv[2]), json.loads(sys.argv[3])):
        print(answer, flush=True)
