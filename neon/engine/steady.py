"""A step in which nothing but gradients and counts is new: one call that asks everything, and does it.

What takes part lies in one block of memory, so that a step touches little of it after a backward pass has filled the
caches. Whatever is not as it was is left to the plan, which has not been touched then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from neon.engine import versions
from neon.engine.batch import STEP, Batch
from neon.engine.counts import Counts
from neon.engine.native import cache, threads
from neon.engine.native.method import is_known, method
from neon.engine.program.graph import Node, scalar
from neon.engine.program.scalars import Tape
from neon.engine.program.trace import PER_STEP
from neon.engine.steady_source import AT, BATCH, CODES, GRADIENT, OPERANDS, QUESTIONS, WORDS, source
from neon.engine.tensors.watch import code_of, handle, is_handle

if TYPE_CHECKING:
    from neon.engine.plan import Plan

# Up to so many elements a step is sooner done than other threads of Python would miss it.
_SHORT = 262144
# Of another class a parameter may say what its gradient is by itself.
_PLAIN = {Tensor, nn.Parameter}
_ON_HOST = 0  # torch's number of the processor among types of devices


@dataclass(frozen=True)
class Asked:
    """What of Python's objects has to be as it was.

    `lists`, of which the first is given in each call, hold these objects; `empty` dicts and the two sets are empty;
    the second object of a call is `states`, and what follows there are empty dicts.
    """

    lock: Any
    lists: Sequence[tuple[Any, Sequence[Any]]]
    states: Any
    empty: Sequence[dict[Any, Any]]
    changed_states: set[int]
    changed_groups: set[int]
    without: Sequence[Tensor]


class _Native(NamedTuple):
    """The compiled step, the addresses of what it calls, and what keeps the code in memory."""

    address: int
    calls: dict[str, int]
    code: Any


@lru_cache(maxsize=1)
def _native() -> _Native | None:
    """None where torch or this interpreter lacks what it needs."""
    from neon.engine.native.machine_code import NotLinkedError  # with LLVM

    questions, functions = versions.questions(QUESTIONS), versions.functions()
    if questions is None or functions is None or not is_known():
        return None
    try:
        code = cache.load("step", source(), 1)
    except NotLinkedError:
        return None
    return _Native(code.addresses[0], dict(zip(QUESTIONS, questions, strict=True)) | functions, code)


def steady(plan: Plan, asked: Asked, grads: Sequence[Tensor]) -> Steady | None:
    """The steady step of a plan, whose last step took these gradients; None where it cannot have one."""
    lines = [_Line.of(batch) for batch in plan.batches]
    tensors = [*plan.watch.tensors, *asked.without]
    # Telling autograd of a write to an inference tensor is an error, which must not come up in compiled code.
    fits = plan.is_plain and None not in lines and all(map(is_handle, tensors))
    fits = fits and not any(map(Tensor.is_inference, plan.updated))
    fits = fits and _PLAIN.issuperset(map(type, (*plan.params, *asked.without)))
    native = _native() if fits else None
    return None if native is None else Steady(plan, asked, grads, [line for line in lines if line], native)


class Steady:
    """The memory of a plan's steady step, and `call`, which makes it: it says what `steady_source` has for it.

    Tables and counts are those of the plan, which goes on from there.
    """

    def __init__(
        self, plan: Plan, asked: Asked, grads: Sequence[Tensor], lines: Sequence[_Line], native: _Native
    ) -> None:
        self._lines = lines
        counts, written = plan.counts, plan.written
        assert isinstance(counts, Counts)
        locks = asked.lock.acquire, asked.lock.release
        self._keeps = plan, asked, locks, counts.increment, written, native
        watched, answers, places = plan.watch.tensors, plan.watch.answers(), plan.places_of_gradients()
        absent = [*asked.without, *plan.left_out()]
        sections = {
            "dicts": [[id(each)] for each in asked.empty],
            "lists": [[id(each), len(held), *map(id, held)] for each, held in asked.lists],
            "absent": [[handle(param)] for param in absent],
            "watched": [[handle(t), t._cdata, *answer] for t, answer in zip(watched, answers, strict=True)],
            "strided": [[handle(t), t.dim(), *t.stride()] for t in watched if not t.is_contiguous()],
            "gradients": [*map(_of_gradient, plan.updated, grads, places)],
            "batches": [line.words() for line in lines],
        }
        words = {
            "holds": 1,
            "acquire": id(locks[0]),
            "release": id(locks[1]),
            "changed_states": id(asked.changed_states),
            "changed_groups": id(asked.changed_groups),
            "states": id(asked.states),
            "parallel": any(line.worth for line in lines),
            "large": sum(line.batch.elements for line in lines) > _SHORT,
            "team": threads.team(),
            "forked": threads.forked.ctypes.data,
            "starts": written.starts.ctypes.data,
            "ends": written.ends.ctypes.data,
            "written": len(written.starts),
            "exact": counts.read().ctypes.data,
            "increment": counts.increment.ctypes.data,
            "shown": counts.shown.ctypes.data,
            "expected": counts.expected.ctypes.data,
            "counted": len(counts.shown),
            **native.calls,
        }
        self._memory = memory = np.zeros(
            len(WORDS) + 1 + sum(1 + sum(map(len, s)) for s in sections.values()), np.int64
        )
        words["answer"] = memory.ctypes.data + 8 * len(WORDS)
        begin = len(WORDS) + 1
        for name, section in sections.items():
            flat = [len(section), *chain.from_iterable(section)]
            memory[begin : begin + len(flat)], words[name] = flat, begin
            begin += len(flat)
        for word, value in words.items():
            memory[AT[word]] = value
        ends = np.cumsum([0, *map(len, sections["batches"])])
        self._lines_at = words["batches"] + 1 + ends
        # What this holds the method keeps; it does not keep the method.
        self.call: Callable[..., int] = method(
            "step", native.address, memory.ctypes.data, (self._memory, self._keeps, lines)
        )

    @property
    def taken(self) -> int:
        """How many steps it has made."""
        return int(self._memory[AT["taken"]])

    def hold(self, holds: bool) -> None:
        """Have it refuse from now on, or no longer."""
        self._memory[AT["holds"]] = holds

    def renew(self) -> None:
        """Go by the numbers that the batches have read anew."""
        for line, begin, end in zip(self._lines, self._lines_at[:-1], self._lines_at[1:], strict=True):
            line.renew()
            self._memory[begin:end] = line.words()


class _Line:
    """A batch as the compiled step has it: its launch, and the operations that make its numbers."""

    def __init__(self, batch: Batch, tape: Tape, address: int) -> None:
        self.batch, self._tape, self._address = batch, tape, address
        self._pass = current = batch.passes[0]
        self.worth = threads.is_worth(batch.elements, len(batch.chunks))
        self._inputs: list[Node] = current.host.inputs
        self._numbers = np.zeros((len(batch.row_groups), len(self._inputs)))
        self._values = np.zeros(max(tape.values, 1))
        first = len(self._inputs)
        self._values[first : first + len(tape.constants)] = tape.constants
        self._row_of = np.ascontiguousarray(batch.row_of, np.int64)
        self._same: list[bool] | None = None  # of each input, whether all rows have the same
        self.renew()

    @classmethod
    def of(cls, batch: Batch) -> _Line | None:
        """None for a batch that needs more than one pass over its tensors, as they lie in memory."""
        address = batch.only_pass()
        if address is None:
            return None
        host = batch.passes[0].host
        tape, foreign = host.tape(CODES), {scalar(name) for name in PER_STEP} - {STEP}
        return None if tape is None or foreign & {*host.inputs} else cls(batch, tape, address)

    def renew(self) -> None:
        """Take the numbers that the batch knows, and compute once what is the same for all rows."""
        for column, node in enumerate(self._inputs):
            self._numbers[:, column] = self.batch.row_steps if node is STEP else self.batch.number(node)
        same = (self._numbers == self._numbers[0]).all(0).tolist()
        if same == self._same:
            return
        self._same = same
        alike = {place for place, is_same in enumerate([*same, *[True] * len(self._tape.constants)]) if is_same}
        shared, own = [], []
        for operation in self._tape.lines:
            _, operands, value = operation
            if alike.issuperset(operands):
                alike.add(value)
                shared.append(operation)
            else:
                own.append(operation)
        self._shared, self._operations = len(shared), [*shared, *own]

    def words(self) -> list[int]:
        """Its line in the memory."""
        batch, current, tape = self.batch, self._pass, self._tape
        step_words = batch.table[:, -2:]
        words = {
            "function": self._address,
            "pass": current.address,
            "worth": self.worth,
            "evaluates": not current.steady,
            "renewed": True,  # a step that was looked at has computed the numbers for its own pass alone
            "rows": len(batch.row_groups),
            "steps": batch.row_steps.ctypes.data,
            "row_of": self._row_of.ctypes.data,
            "words": step_words.ctypes.data if batch.kernel.random else 0,
            "word_width": batch.table.strides[0],
            "tensors": len(batch.table),
            "inputs": len(self._inputs),
            "numbers": self._numbers.ctypes.data,
            "step": self._inputs.index(STEP) if STEP in self._inputs else -1,
            "values": self._values.ctypes.data,
            "scalars": current.scalars.ctypes.data,
            "is_double": current.scalars.dtype == np.float64,
            "columns": len(tape.results),
            "lines": len(tape.lines),
            "shared": self._shared,
        }
        lines = [(code, *given, *[0] * (OPERANDS - len(given)), value) for code, given, value in self._operations]
        return [*(words[word] for word in BATCH), *chain.from_iterable(lines), *tape.results]


def _of_gradient(param: Tensor, grad: Tensor, place: int) -> list[int]:
    """A gradient like this one, whose address goes to a place in memory."""
    words = {
        "handle": handle(param),
        "place": place,
        "bytes": grad.numel() * grad.element_size(),
        "dtype": code_of(grad.dtype),
        "device": _ON_HOST,
        "dim": grad.dim(),
        "before": 0,
        "now": 0,
        "reference": 0,
    }
    return [*(words[word] for word in GRADIENT), *grad.shape, *grad.stride()]
