"""The operations of the graph, each in one entry: its type, what it means, and how every language writes it.

To add one is to add an entry. What no library has is a function of `meanings`, or of a backend's intrinsics.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from neon.engine.program import meanings

FLOAT, UINT, BOOL = "float", "uint", "bool"
_ONE, _TWO = (FLOAT,), (FLOAT, FLOAT)
_WORDS = (UINT, UINT)
# A negative zero counts as negative: √−0 is one, and so may be the maximum of 0 and −0.
ALWAYS: Final = "always"
LIKE_OPERANDS: Final = "where no operand is negative"


@dataclass(frozen=True)
class Operation:
    """One operation: it takes values of some kinds, and makes one of the kind `result`.

    - `text`: how a rule writes it; `sources`: how a language does that writes it otherwise.
    - `torch`: its meaning, on tensors. What is not correctly rounded is computed in float64 for float32.
    - `floats`, `arrays`: its meaning on the host's numbers. `floats` may raise of arrays, and where IEEE has infinity
      or NaN: `arrays` is asked then. The host knows no words: what has neither is computed for each element.
    - `exact`: whether all libraries round it alike.
    - `bare_numbers`: whether Triton gives a number among its last two operands the type of the other.
    - `never_negative`: when its value is not.
    """

    text: str
    takes: tuple[str, ...]
    torch: Callable[..., Tensor]
    floats: Callable[..., Any] | None = None
    arrays: Callable[..., Any] | None = None
    result: str = FLOAT
    exact: bool = True
    bare_numbers: bool = False
    never_negative: Literal["always", "where no operand is negative"] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, *languages: str) -> str:
        """How the first of these languages that has a word of its own writes it; else it is written as in a rule."""
        own = next((self.sources[language] for language in languages if language in self.sources), None)
        return own or (self.text if "(" in self.text else f"({self.text})")

    @cached_property
    def host(self) -> Callable[..., Any]:
        """Its meaning on floats or arrays, with IEEE's infinities and NaN."""
        assert self.floats is not None
        return self.floats if self.arrays is None else meanings.on_host(self.floats, self.arrays, self.exact)


def _of_words(text: str, meaning: Callable[..., Tensor], numba: str) -> Operation:
    """An operation on two words, for which numba needs a function that stays 32 bits wide."""
    return Operation(text, _WORDS, meaning, result=UINT, bare_numbers=True, sources={"numba": f"{numba}({{}}, {{}})"})


# In numba's source `real` is the type of arithmetic, `word` is np.uint32.
OPERATIONS: dict[str, Operation] = {
    "add": Operation("{} + {}", _TWO, torch.add, operator.add, bare_numbers=True, never_negative=LIKE_OPERANDS),
    "sub": Operation("{} - {}", _TWO, torch.sub, operator.sub, bare_numbers=True),
    "mul": Operation("{} * {}", _TWO, torch.mul, operator.mul, bare_numbers=True),
    "div": Operation(
        "{} / {}", _TWO, torch.div, operator.truediv, np.divide, bare_numbers=True, never_negative=LIKE_OPERANDS,
        # Of float64 Triton's own are rounded to nearest, this and the square root.
        sources={"triton": "tl.div_rn({}, {})", "triton_float64": "({} / {})"},
    ),
    "pow": Operation(
        "{} ** {}", _TWO, meanings.rounded_once(torch.pow), math.pow, np.power, exact=False,
        never_negative=LIKE_OPERANDS, sources={
            "python": "pow({}, {})", "numba": "real(np.float64({}) ** np.float64({}))", "triton": "power({}, {})",
        },
    ),
    # Triton's own minus takes x from 0, and of 0 makes 0 in the place of −0.
    "neg": Operation("-{}", _ONE, torch.neg, operator.neg, sources={"triton": "({} * -1.0)"}),
    "abs": Operation("abs({})", _ONE, torch.abs, abs, never_negative=ALWAYS, sources={"triton": "tl.abs({})"}),
    "sign": Operation(
        "sign({})", _ONE, lambda x: torch.where(x.isnan(), x, torch.sign(x)),
        lambda x: float((x > 0) - (x < 0)) if x == x else x, np.sign,
    ),
    "sqrt": Operation(
        "sqrt({})", _ONE, meanings.sqrt_of_tensor, math.sqrt, np.sqrt, never_negative=LIKE_OPERANDS,
        sources={"numba": "math.sqrt({})", "triton": "tl.sqrt_rn({})", "triton_float64": "tl.sqrt({})"},
    ),
    "exp": Operation(
        "exp({})", _ONE, meanings.rounded_once(torch.exp), math.exp, np.exp, exact=False, never_negative=ALWAYS,
        sources={"numba": "real(math.exp(np.float64({})))", "triton": "exponential({})"},
    ),
    "log": Operation(
        "log({})", _ONE, meanings.rounded_once(torch.log), math.log, np.log, exact=False,
        sources={"numba": "real(math.log(np.float64({})))", "triton": "logarithm({})"},
    ),
    "minimum": Operation(
        "minimum({}, {})", _TWO, torch.minimum, lambda a, b: a if a < b or a != a else b, np.minimum,
        never_negative=LIKE_OPERANDS,
    ),
    "maximum": Operation(
        "maximum({}, {})", _TWO, torch.maximum, lambda a, b: a if a > b or a != a else b, np.maximum,
        never_negative=LIKE_OPERANDS,
    ),
    "power_of_two": Operation(
        "power_of_two({})", _ONE, meanings.power_of_two_of_tensor, lambda x: float(meanings.power_of_two(x)),
        meanings.power_of_two, never_negative=ALWAYS,
    ),
    "floor": Operation(
        "floor({})", _ONE, torch.floor, lambda x: math.copysign(math.floor(x), x), np.floor,
        never_negative=LIKE_OPERANDS, sources={"triton": "tl.floor({})"},
    ),
    "less": Operation("{} < {}", _TWO, torch.lt, operator.lt, result=BOOL, bare_numbers=True),
    "less_equal": Operation("{} <= {}", _TWO, torch.le, operator.le, result=BOOL, bare_numbers=True),
    "equal": Operation("{} == {}", _TWO, torch.eq, operator.eq, result=BOOL, bare_numbers=True),
    "where": Operation(
        "where({}, {}, {})", (BOOL, FLOAT, FLOAT), torch.where, lambda condition, a, b: a if condition else b, np.where,
        bare_numbers=True, never_negative=LIKE_OPERANDS,
        sources={"numba": "select({}, {}, {})", "triton": "tl.where({}, {}, {})"},
    ),
    "uint_add": _of_words("{} + {}", lambda a, b: (a + b) & meanings.WORD, "add32"),
    "uint_mul": _of_words("{} * {}", lambda a, b: (a * b) & meanings.WORD, "mul32"),
    "uint_and": _of_words("{} & {}", torch.bitwise_and, "and32"),
    "uint_or": _of_words("{} | {}", torch.bitwise_or, "or32"),
    "uint_xor": _of_words("{} ^ {}", torch.bitwise_xor, "xor32"),
    "uint_shl": _of_words("{} << {}", lambda a, b: (a << b) & meanings.WORD, "shl32"),
    "uint_shr": _of_words("{} >> {}", lambda a, b: a >> b, "shr32"),
    "uint_less": Operation("{} < {}", _WORDS, torch.lt, result=BOOL, bare_numbers=True),
    "uint_where": Operation(
        "where({}, {}, {})", (BOOL, UINT, UINT), torch.where, result=UINT, bare_numbers=True,
        sources={"numba": "select({}, {}, {})", "triton": "tl.where({}, {}, {})"},
    ),
    "bits": Operation(
        "bits({})", _ONE, lambda x: x.view(torch.int32).to(torch.int64) & meanings.WORD, result=UINT,
        sources={"triton": "{}.to(tl.uint32, bitcast=True)"},
    ),
    "from_bits": Operation(
        "from_bits({})", (UINT,), lambda x: x.to(torch.int32).view(torch.float32),
        sources={"triton": "{}.to(tl.float32, bitcast=True)"},
    ),
    "to_uint": Operation(
        "uint({})", _ONE, lambda x: x.to(torch.int64) & meanings.WORD, result=UINT,
        sources={"numba": "word(np.int32({}))", "triton": "to_word({})"},
    ),
    # The largest of an expression over a block, by the bits of its magnitude, or, labelled `unsigned`, by its bits as
    # they are: a negative number is then the largest. Where elements go one by one, sweeps collect it.
    "block_peak": Operation("block_peak({})", _ONE, meanings.block_peak, sources={"triton": "peak({}, inside)"}),
}  # fmt: skip
